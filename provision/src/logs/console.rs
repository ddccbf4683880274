//! The console of a node, as its monitor keeps it: a file that is rotated once.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    mem::MaybeUninit,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use kiln_runtime::Process;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{fs::inotify, io::Errno};

use crate::{Error, Paths, Result, cluster};

/// Writes what a node has said on its console, the last `lines` of it or all; with `follow`, also what it says from now
/// on, until its init ends.
///
/// # Errors
/// [`Error::NoSuchNode`], [`Error::File`]; also when `output` cannot be written.
pub fn console(
    paths: &Paths,
    node: &str,
    lines: Option<usize>,
    follow: bool,
    output: &mut dyn Write,
) -> Result<()> {
    let (cluster, record) = cluster::find_node(paths, node)?;
    let directory = paths.node(&cluster, node);
    let process = record.process.filter(|process| follow && process.is_alive());
    show(&directory, lines, process.as_ref(), output).map_err(Error::file("show the node's console"))
}

/// The console so far, the part before the last rotation first.
pub(super) fn whole(directory: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    for path in [rotated(directory), current(directory)] {
        match fs_err::File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut content)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(content)
}

fn current(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

fn rotated(directory: &Path) -> PathBuf {
    directory.join("console.log.1")
}

fn show(
    directory: &Path,
    lines: Option<usize>,
    process: Option<&Process>,
    output: &mut dyn Write,
) -> io::Result<()> {
    // Watched before it is read: what is written in between is not missed.
    let watch = process.map(|process| Watch::new(directory, process)).transpose()?;
    let mut tail = Tail::open(directory)?;
    let content = tail.first(directory)?;
    output.write_all(last(&content, lines))?;
    output.flush()?;
    let Some(mut watch) = watch else { return Ok(()) };
    loop {
        let ended = watch.wait()?;
        tail.copy(directory, output)?;
        output.flush()?;
        if ended {
            return Ok(());
        }
    }
}

/// The file that is being read, which the monitor may have renamed meanwhile.
struct Tail {
    file: Option<std::fs::File>,
}

impl Tail {
    fn open(directory: &Path) -> io::Result<Self> {
        match fs_err::File::open(current(directory)) {
            Ok(file) => Ok(Self { file: Some(file.into_parts().0) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { file: None }),
            Err(error) => Err(error),
        }
    }

    /// All there is, of the rotated file too.
    fn first(&mut self, directory: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        match fs_err::File::open(rotated(directory)) {
            Ok(older) => {
                let mut older = older.into_parts().0;
                // It may be the one that was opened, renamed since.
                if !self.file.as_ref().map(|file| same(file, &older)).transpose()?.unwrap_or(false) {
                    older.read_to_end(&mut content)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut content)?;
        }
        Ok(content)
    }

    /// Copies what has been written since; then goes on with the next file, if there is one.
    fn copy(&mut self, directory: &Path, output: &mut dyn Write) -> io::Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                io::copy(file, output)?;
            }
            let Some(mut next) = Self::open(directory)?.file else { return Ok(()) };
            if let Some(file) = &mut self.file {
                if same(file, &next)? {
                    return Ok(());
                }
                // Once more: it was renamed after it had been read.
                io::copy(file, output)?;
            }
            next.seek(SeekFrom::Start(0))?;
            self.file = Some(next);
        }
    }
}

fn same(one: &std::fs::File, other: &std::fs::File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// The last lines of a text.
fn last(content: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return content };
    if lines == 0 {
        return &[];
    }
    // The end of the last line begins no other one.
    let body = content.strip_suffix(b"\n").unwrap_or(content);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match ends.map(|(index, _)| index).nth(lines - 1) {
        Some(end) => &content[end + 1..],
        None => content,
    }
}

/// Tells when the console has changed, or its node has ended.
struct Watch {
    changes: std::os::fd::OwnedFd,
    ended: Option<std::os::fd::OwnedFd>,
}

impl Watch {
    fn new(directory: &Path, process: &Process) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let changes = inotify::init(flags)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, directory, flags)?;
        Ok(Self { changes, ended: process.open_pidfd().ok() })
    }

    /// Returns when something may be new: true when it is the last of it.
    fn wait(&mut self) -> io::Result<bool> {
        let Some(ended) = &self.ended else { return Ok(true) };
        let mut fds = [
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds[1].any() == Some(true);
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.changes, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(ended),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn the_end_of_a_console_is_whole_lines() {
        for (lines, expected) in [
            (None, "a\nb\nc\n"),
            (Some(0), ""),
            (Some(1), "c\n"),
            (Some(2), "b\nc\n"),
            (Some(9), "a\nb\nc\n"),
        ] {
            assert_eq!(last(b"a\nb\nc\n", lines), expected.as_bytes(), "{lines:?}");
        }
        assert_eq!(last(b"a\nb", Some(1)), b"b");
        assert_eq!(last(b"", Some(1)), b"");
    }

    #[test]
    fn the_rotated_part_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(whole(directory.path()).unwrap(), b"");
        fs_err::write(current(directory.path()), "new\n").unwrap();
        fs_err::write(rotated(directory.path()), "old\n").unwrap();
        assert_eq!(whole(directory.path()).unwrap(), b"old\nnew\n");
        let mut output = Vec::new();
        show(directory.path(), Some(1), None, &mut output).unwrap();
        assert_eq!(output, b"new\n");
    }

    /// Sends what is written to it.
    struct Sender(mpsc::Sender<Vec<u8>>);

    impl Write for Sender {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(data.to_vec());
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_followed_console_goes_on_past_its_rotation_and_ends_with_its_node() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        fs_err::write(current(&path), "first\n").unwrap();
        let mut node = Command::new("sleep").arg("60").spawn().unwrap();
        let process = process(&node);
        let (sender, received) = mpsc::channel();
        let follower = std::thread::spawn({
            let path = path.clone();
            move || show(&path, None, Some(&process), &mut Sender(sender))
        });
        let expect = |text: &str| {
            let mut all = String::new();
            while all.len() < text.len() {
                let part = received.recv_timeout(Duration::from_secs(10)).expect(text);
                all.push_str(&String::from_utf8(part).unwrap());
            }
            assert_eq!(all, text);
        };
        expect("first\n");
        let append = |text: &str| {
            let mut file = fs_err::OpenOptions::new().create(true).append(true).open(current(&path)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append("second\n");
        expect("second\n");
        append("third\n");
        fs_err::rename(current(&path), rotated(&path)).unwrap();
        append("fourth\n");
        expect("third\nfourth\n");
        node.kill().unwrap();
        node.wait().unwrap();
        follower.join().unwrap().unwrap();
    }

    fn process(child: &std::process::Child) -> Process {
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let start_time = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap();
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        Process {
            pid,
            start_time,
            monitor: pid,
            monitor_start_time: start_time,
            boot: boot.trim().to_owned(),
        }
    }
}
