//! A container's console, kept in a file that cannot grow without bound.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A boot writes some tens of KiB; a node that reports an error every second for days must not fill the disk.
const ROTATE_AT: u64 = 4 << 20;

/// Appends to a file; when it has grown to 4 MiB it becomes `NAME.1`, in place of the one before.
#[derive(Debug)]
pub(crate) struct ConsoleLog {
    path: PathBuf,
    file: fs_err::File,
    size: u64,
    limit: u64,
}

impl ConsoleLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, ROTATE_AT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if self.size >= self.limit {
            let mut old = self.path.as_os_str().to_owned();
            old.push(".1");
            fs_err::rename(&self.path, &old)?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(data)?;
        self.size += data.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<fs_err::File> {
    fs_err::OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_its_end_and_stays_within_twice_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = ConsoleLog::with_limit(&path, 100).unwrap();
        for number in 0..100 {
            log.write(format!("line {number:03}\n").as_bytes()).unwrap();
        }
        let current = fs_err::read_to_string(&path).unwrap();
        let previous = fs_err::read_to_string(directory.path().join("console.log.1")).unwrap();
        assert!(current.ends_with("line 099\n"));
        assert!(current.len() + previous.len() <= 220);
        assert!(
            format!("{previous}{current}").contains("line 090\nline 091\n"),
            "nothing lost between the two"
        );
    }
}
