//! The files of an image archive that lies in a file, uncompressed: found by the archive's headers alone, and left where
//! they are. How large they are does not matter to how long that takes.

use std::{
    io::{self, BufReader},
    sync::Arc,
};

use super::{
    archive::Archive,
    members::Members,
    parked::{ARCHIVE, Compressed, explain, start_of},
    part::FilePart,
};
use crate::Result;

/// Bytes read for each header. What is small comes with its header.
const BUFFER: usize = 8 * 1024;

/// Finds the files of an archive; `None` if it can only be read front to back: a pipe, or one that is compressed.
/// The file's own position stays where it is.
///
/// # Errors
/// [`Error::NotImages`](crate::Error::NotImages) if it is no archive,
/// [`Error::ArchiveTruncated`](crate::Error::ArchiveTruncated), [`Error::ArchiveRead`](crate::Error::ArchiveRead).
pub(super) fn locate(origin: &str, file: &Arc<fs_err::File>) -> Result<Option<Members<FilePart>>> {
    let mut current = None;
    let outcome = (|| {
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let whole = FilePart::whole(Arc::clone(file))?;
        let start = start_of(&mut whole.reader())?;
        if start.is_empty() || Compressed::of(&start) != Compressed::No {
            return Ok(None);
        }
        let mut archive = Archive::new(BufReader::with_capacity(BUFFER, whole.reader()));
        Members::read(&mut archive, &mut current, |archive, entry, _| {
            let (offset, length) = archive.pass_content(entry)?;
            whole.part(offset, length)
        })
        .map(Some)
    })();
    // Nothing is stored, so that no directory can be full.
    outcome.map_err(|error: io::Error| explain(origin, ARCHIVE, current, file.path(), error))
}
