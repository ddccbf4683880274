//! Where logs are written: an open directory, and nothing outside of it.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::redact::Redactor;

/// A directory of the export. Names are single components, and no link is followed.
#[derive(Debug)]
pub(super) struct Output {
    directory: OwnedFd,
}

impl Output {
    /// The caller's directory, made if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs_err::create_dir_all(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// A directory in it.
    pub(super) fn directory(&self, name: &[u8]) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::openat(&self.directory, name, flags, Mode::empty())? })
    }

    /// A new file in it, in place of one of an earlier export. Secrets that are written to it are left out.
    pub(super) fn file(&self, name: &[u8]) -> io::Result<Redactor<io::BufWriter<std::fs::File>>> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o644))?;
        Ok(Redactor::new(io::BufWriter::new(file.into())))
    }

    /// A whole file.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = self.file(name.as_bytes())?;
        file.write_all(content)?;
        file.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_in_the_directory_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("in/side"), root.path().join("outside"));
        fs_err::create_dir(&outside).unwrap();
        fs_err::write(outside.join("file"), "kept").unwrap();
        let output = Output::open(&inside).unwrap();
        symlink(outside.join("file"), inside.join("file")).unwrap();
        symlink(&outside, inside.join("node")).unwrap();
        output.write("file", b"new").unwrap();
        assert!(output.directory(b"node").is_err());
        assert_eq!(fs_err::read_to_string(outside.join("file")).unwrap(), "kept");
        assert_eq!(fs_err::read_to_string(inside.join("file")).unwrap(), "new");
    }

    #[test]
    fn an_export_may_be_repeated() {
        let root = tempfile::tempdir().unwrap();
        for content in ["a longer one", "abcdef.0123456789abcdef"] {
            let output = Output::open(root.path()).unwrap();
            output.directory(b"node").unwrap().write("file", content.as_bytes()).unwrap();
        }
        let text = fs_err::read_to_string(root.path().join("node/file")).unwrap();
        assert_eq!(text, "abcdef.****************");
    }
}
