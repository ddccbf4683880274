//! How a container ended.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a container's monitor writes when init has ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ExitRecord {
    /// Exit code, when init left by itself.
    pub code: Option<i32>,
    /// The signal that killed it, otherwise.
    pub signal: Option<i32>,
    /// Processes of the container that the kernel killed for want of memory, over its whole life.
    pub oom_kills: u64,
    /// When it ended, in seconds since 1970.
    pub finished: u64,
}

impl ExitRecord {
    /// Reads a record; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::File`] when it is there and cannot be read or understood.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let text = match fs_err::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read the exit record")(error)),
        };
        let record =
            serde_json::from_slice(&text).map_err(|e| Error::file("parse the exit record")(e.into()))?;
        Ok(Some(record))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        write_atomically(
            path,
            &serde_json::to_vec(self).map_err(|e| Error::file("encode the exit record")(e.into()))?,
        )
    }
}

/// Replaces a file in one step, so that a reader sees the old or the new content and never half of it.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs_err::write(&temporary, content).map_err(Error::file("write a record"))?;
    fs_err::rename(&temporary, path).map_err(Error::file("replace a record"))
}
