//! Images of Docker or Podman, when the host has one of them: asked for by its own program, which knows where its
//! daemon or store is.

use std::{
    io::{self, PipeReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

use crate::{Error, Result};

/// The programs, in the order in which they are asked.
pub(super) const PROGRAMS: [&str; 2] = ["docker", "podman"];

/// Digits of an id that are taken for one. With fewer, a short name may be the start of its image's id by chance.
const MIN_ID: usize = 6;

/// Bytes of a program's complaints that are kept.
const MAX_COMPLAINT: u64 = 64 << 10;

/// An image that a program has.
#[derive(Debug)]
pub(super) struct Found {
    program: PathBuf,
    image: String,
    /// `sha256:…`: the digest of the image's configuration, or of its manifest or index.
    pub(super) id: String,
}

/// A program that is writing an image to a pipe. Ended when dropped.
#[derive(Debug)]
pub(super) struct Saving {
    child: Child,
    what: String,
    program: String,
}

/// Asks a program for an image. The inner error is why it does not have it, for people.
///
/// # Errors
/// [`Error::StartProgram`] when the program is there and does not start.
pub(super) async fn find(name: &str, image: &str) -> Result<Result<Found, String>> {
    let Some(program) = locate(name, std::env::var_os("PATH").as_deref()) else {
        return Ok(Err(format!("{name} is not installed")));
    };
    let mut command = Command::new(&program);
    command.args(["image", "inspect", "--format", "{{.Id}}", "--", image]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|source| Error::StartProgram {
        what: format!("look for image {image}"),
        program: program.display().to_string(),
        source,
    })?;
    if !output.status.success() {
        return Ok(Err(format!("{name} says {:?}", complaint(&output.stderr))));
    }
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Podman leaves the algorithm out.
    let id = if id.contains(':') { id } else { format!("sha256:{id}") };
    Ok(Ok(Found { program, image: image.to_owned(), id }))
}

impl Found {
    /// Has the program write the image's archive into a pipe.
    ///
    /// # Errors
    /// [`Error::StartProgram`].
    pub(super) fn save(&self) -> Result<(Saving, PipeReader)> {
        let what = format!("save image {}", self.image);
        let program = self.program.display().to_string();
        let start = || -> io::Result<_> {
            let (reader, writer) = io::pipe()?;
            // The command, and with it our copy of the pipe's other end, is gone with this statement.
            let child = Command::new(&self.program)
                .args(["save", "--", &self.image])
                .stdin(Stdio::null())
                .stdout(writer)
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            Ok((child, reader))
        };
        match start() {
            Ok((child, reader)) => Ok((Saving { child, what, program }, reader)),
            Err(source) => Err(Error::StartProgram { what, program, source }),
        }
    }

    /// Whether an image was asked for by this one's id, or the start of it, and not by a name.
    pub(super) fn is_called_by_id(&self) -> bool {
        let hex = self.id.split_once(':').map_or(self.id.as_str(), |(_, hex)| hex);
        (self.image.len() >= MIN_ID && hex.starts_with(&self.image)) || self.image == self.id
    }
}

impl Saving {
    /// Waits for the program's end.
    ///
    /// # Errors
    /// [`Error::Program`] when it failed, with what it says.
    pub(super) async fn end(mut self) -> Result<()> {
        let mut output = Vec::new();
        let waited = async {
            if let Some(stderr) = self.child.stderr.take() {
                let mut stderr = stderr.take(MAX_COMPLAINT);
                stderr.read_to_end(&mut output).await?;
                // Whatever else it has to say must not keep it from ending.
                tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await?;
            }
            self.child.wait().await
        };
        match waited.await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let output = String::from_utf8_lossy(&output).trim().to_owned();
                Err(Error::Program { what: self.what, program: self.program, status, output })
            }
            Err(source) => Err(Error::StartProgram { what: self.what, program: self.program, source }),
        }
    }
}

/// The first program of that name on a search path.
fn locate(name: &str, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let is_program = |file: &PathBuf| {
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && Path::new(file).is_file()
    };
    // A relative entry would run what happens to lie in the current directory.
    std::env::split_paths(path?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(is_program)
}

/// The last line of what a program says, without the words that it begins every error with.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("nothing");
    let line = line.strip_prefix("Error: ").unwrap_or(line);
    line.strip_prefix("Error response from daemon: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(directory: &Path, script: &str) -> PathBuf {
        let path = directory.join("docker");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn found(program: PathBuf, image: &str) -> Found {
        Found { program, image: image.to_owned(), id: "sha256:0123abcd".to_owned() }
    }

    #[test]
    fn programs_are_found_by_absolute_entries_of_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path =
            std::env::join_paths([Path::new("."), Path::new("/nonexistent"), directory.path()]).unwrap();
        assert_eq!(locate("docker", Some(&path)), None);
        let program = program(directory.path(), "");
        assert_eq!(locate("docker", Some(&path)), Some(program.clone()));
        fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(locate("docker", Some(&path)), None);
        assert_eq!(locate("docker", None), None);
    }

    #[test]
    fn complaints_are_one_line() {
        let docker = b"[]\nError response from daemon: No such image: x:latest\n";
        assert_eq!(complaint(docker), "No such image: x:latest");
        assert_eq!(
            complaint(b"Error: inspecting object: x: image not known\n"),
            "inspecting object: x: image not known"
        );
        assert_eq!(complaint(b""), "nothing");
    }

    #[test]
    fn ids_are_no_names() {
        let called = |name| found(PathBuf::new(), name).is_called_by_id();
        assert!(called("0123abcd") && called("0123ab") && called("sha256:0123abcd"));
        assert!(!called("busybox") && !called("busybox:0123") && !called("0"));
    }

    #[tokio::test]
    async fn an_image_comes_through_the_pipe() {
        let directory = tempfile::tempdir().unwrap();
        let image = found(program(directory.path(), "printf %s \"$*\""), "a:1");
        let (saving, reader) = image.save().unwrap();
        let read = tokio::task::spawn_blocking(move || io::read_to_string(reader));
        saving.end().await.unwrap();
        assert_eq!(read.await.unwrap().unwrap(), "save -- a:1");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let image = found(program(directory.path(), "echo no such thing >&2; exit 3"), "a:1");
        let (saving, _reader) = image.save().unwrap();
        let error = saving.end().await.unwrap_err().to_string();
        assert!(error.contains("save image a:1") && error.contains("no such thing"), "{error}");
    }
}
