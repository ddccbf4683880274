//! Writing content into the store.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use tempfile::NamedTempFile;

use super::{
    Digest,
    digest::Hasher,
    failed,
    scratch::{create_file, publish_file},
};
use crate::{Error, Result};

/// A blob on its way into the store. It is there only after [`finish`](Self::finish); dropped before, it leaves
/// nothing.
#[derive(Debug)]
pub struct BlobWriter {
    root: PathBuf,
    file: NamedTempFile,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    pub(super) fn create(root: PathBuf) -> Result<Self> {
        let file = create_file(&root.join("tmp"), "blob-")
            .map_err(failed("make a temporary file for a blob", &root))?;
        Ok(Self { root, file, hasher: Hasher::default(), size: 0 })
    }

    /// Verifies what was written and moves it to its place, on disk. Returns its digest and its size in bytes.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] if `expected` is something else, [`Error::NoSpace`] or [`Error::ImageStore`] if it
    /// cannot be stored; nothing is left of it then.
    pub fn finish(self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let digest = self.hasher.finish();
        if let Some(&expected) = expected
            && expected != digest
        {
            return Err(Error::DigestMismatch { what: "a blob".to_owned(), expected, actual: digest });
        }
        let path = blob_path(&self.root, &digest);
        if !path.exists() {
            publish_file(self.file, &path).map_err(failed(format!("store blob {digest}"), &self.root))?;
        }
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a blob is in the store at `root`.
pub(super) fn blob_path(root: &std::path::Path, digest: &Digest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}
