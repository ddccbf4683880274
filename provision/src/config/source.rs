//! Where the text of a configuration comes from.
//!
//! What is named may be anything: a file, the pipe of a shell's `<(…)`, a pipe that nobody writes to, a device without an
//! end. Reading ends in all cases, with a text of a bounded size or with an error.

use std::{
    io::{self, Read},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::Path,
    time::{Duration, Instant},
};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Error, Result};

/// The most bytes of a configuration. One with a hundred nodes has some ten thousand.
const LARGEST: u64 = 32 << 20;

/// How long somebody may take to open the other end of a pipe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the text of a configuration from a file. A pipe is read to its end, however long its writer takes, provided that
/// there is one within some seconds.
///
/// # Errors
/// [`Error::ConfigRead`]: also when it is not UTF-8, or larger than 32 MiB.
pub fn read(path: &Path) -> Result<String> {
    read_file(path, PATIENCE)
        .and_then(text)
        .map_err(|source| Error::ConfigRead { origin: path.display().to_string(), source })
}

/// Reads the text of a configuration from a stream that `origin` names.
///
/// # Errors
/// As [`read`].
pub fn read_stream(stream: impl Read, origin: &str) -> Result<String> {
    let mut bytes = Vec::new();
    stream
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .and_then(|_| check_size(bytes.len()))
        .and_then(|()| text(bytes))
        .map_err(|source| Error::ConfigRead { origin: origin.to_owned(), source })
}

fn read_file(path: &Path, patience: Duration) -> io::Result<Vec<u8>> {
    // Without this flag, opening a pipe waits for its writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let is_pipe = file.metadata()?.file_type().is_fifo();
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    // Nothing to read while there is a writer, and the end, look different.
    let mut written = false;
    loop {
        match file.read(&mut buffer) {
            Ok(0) if is_pipe && !written => {
                let left = deadline.saturating_duration_since(Instant::now());
                let unwritten = io::Error::new(io::ErrorKind::TimedOut, "nobody writes to this pipe");
                // Ready without anything to read: a writer has been there, and has gone.
                written = wait(&file, Some(left))?.ok_or(unwritten)?.contains(PollFlags::POLLHUP);
            }
            Ok(0) => return Ok(bytes),
            Ok(count) => {
                written = true;
                bytes.extend_from_slice(&buffer[..count]);
                check_size(bytes.len())?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                written = true;
                wait(&file, None)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read, or an end; `None` when the time is up before.
fn wait(file: &fs::File, limit: Option<Duration>) -> io::Result<Option<PollFlags>> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let timeout = match limit {
        Some(limit) => PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    match poll(&mut fds, timeout) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(fds[0].revents().unwrap_or(PollFlags::empty()))),
        // The caller looks again, and comes back with the time that is left.
        Err(nix::errno::Errno::EINTR) => Ok(Some(PollFlags::empty())),
        Err(error) => Err(error.into()),
    }
}

fn check_size(bytes: usize) -> io::Result<()> {
    if bytes as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("it is not text: {error}")))
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io::Write, path::PathBuf, thread};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn pipe(directory: &Path) -> PathBuf {
        let path = directory.join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    #[test]
    fn a_pipe_is_read_as_long_as_its_writer_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let writer = {
            let path = path.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(30));
                let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
                for part in ["kind: ", "Clus", "ter\n"] {
                    file.write_all(part.as_bytes()).unwrap();
                    thread::sleep(Duration::from_millis(10));
                }
            })
        };
        assert_eq!(read(&path).unwrap(), "kind: Cluster\n");
        writer.join().unwrap();
    }

    #[test]
    fn a_pipe_without_a_writer_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let error = read_file(&path, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.to_string(), "nobody writes to this pipe");
    }

    #[test]
    fn a_pipe_that_was_only_opened_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = pipe(directory.path());
        let writer = {
            let path = path.clone();
            thread::spawn(move || drop(fs::OpenOptions::new().write(true).open(path).unwrap()))
        };
        assert_eq!(read(&path).unwrap(), "");
        writer.join().unwrap();
    }

    #[test]
    fn what_has_no_end_is_cut_off() {
        for error in [
            read(Path::new("/dev/zero")).unwrap_err(),
            read_stream(io::repeat(b'a'), "standard input").unwrap_err(),
        ] {
            assert_eq!(error.source().unwrap().to_string(), "it is larger than 32 MiB");
        }
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bytes");
        fs::write(&file, b"kind: \xff\n").unwrap();
        for (path, cause) in [
            (file.as_path(), "it is not text: invalid utf-8 sequence of 1 bytes from index 6"),
            (directory.path(), "directory"),
            (Path::new("/no/such/file"), "No such file"),
        ] {
            let error = read(path).unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.source().unwrap().to_string().contains(cause), "{:?}", error.source());
        }
        assert_eq!(read(Path::new("/dev/null")).unwrap(), "");
    }
}
