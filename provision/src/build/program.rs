//! Running the programs that take part in a build.

use std::{collections::VecDeque, io, path::Path, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Command,
};

use crate::{Error, Reporter, Result};

/// Lines of a failed program's output that its error shows.
const TAIL: usize = 20;

/// A program to run.
#[derive(Debug)]
pub(super) struct Program {
    command: Command,
    what: String,
    interrupt: Signal,
}

impl Program {
    /// A program, and what it is for, as it follows "failed to".
    pub(super) fn new(program: &Path, what: impl Into<String>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Not SIGINT: what is started from a background job of a shell ignores that.
        Self { command, what: what.into(), interrupt: Signal::TERM }
    }

    /// Adds arguments.
    pub(super) fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub(super) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the directory it runs in.
    pub(super) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Ends it at once when it is not waited for any more, instead of giving it time to clean up.
    pub(super) fn kill_when_dropped(mut self) -> Self {
        self.interrupt = Signal::KILL;
        self
    }

    /// Runs it to its end and returns what it wrote to standard output. When the future is dropped the program is
    /// told to end.
    ///
    /// # Errors
    /// [`Error::StartProgram`], [`Error::Program`] when it fails, [`Error::NoSpace`] when it says so.
    pub(super) async fn run(mut self, reporter: &dyn Reporter) -> Result<String> {
        let command = self.command.as_std();
        let name = command.get_program().to_string_lossy().into_owned();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let directory = command.get_current_dir().unwrap_or(Path::new("/")).to_owned();
        reporter.message(1, &format!("+ {name} {}", arguments.join(" ")));

        let starting =
            |source| Error::StartProgram { what: self.what.clone(), program: name.clone(), source };
        let mut child = self.command.spawn().map_err(starting)?;
        let mut running = Running { pid: child.id(), signal: self.interrupt };
        let stdout = child.stdout.take().ok_or_else(|| starting(io::ErrorKind::BrokenPipe.into()))?;
        let stderr = child.stderr.take().ok_or_else(|| starting(io::ErrorKind::BrokenPipe.into()))?;
        let (output, tail, status) = tokio::join!(all(stdout), last_lines(stderr, reporter), child.wait());
        running.pid = None;
        let (output, mut tail, status) =
            (output.map_err(starting)?, tail.map_err(starting)?, status.map_err(starting)?);
        if status.success() {
            return Ok(output);
        }
        if tail.trim().is_empty() {
            let lines: Vec<_> = output.lines().collect();
            tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        }
        if tail.to_lowercase().contains("no space left on device") {
            let source = io::ErrorKind::StorageFull.into();
            return Err(Error::NoSpace { what: self.what, path: directory, source });
        }
        Err(Error::Program { what: self.what, program: name, status, output: tail })
    }
}

/// Ends the program when the build is given up.
struct Running {
    pid: Option<u32>,
    signal: Signal,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its number is not reused: it has not been waited for.
        let pid = self.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, self.signal);
        }
    }
}

async fn all(mut stream: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn last_lines(stream: impl AsyncRead + Unpin, reporter: &dyn Reporter) -> io::Result<String> {
    let mut reader = BufReader::new(stream);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        reporter.message(2, &text);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(text);
    }
    Ok(Vec::from(lines).join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    fn shell(script: &str) -> Program {
        Program::new(Path::new("/bin/sh"), "try a program").args(["-c", script])
    }

    #[tokio::test]
    async fn standard_output_is_returned() {
        assert_eq!(shell("echo out; echo err >&2").run(&Silent).await.unwrap(), "out\n");
    }

    #[tokio::test]
    async fn a_failure_shows_the_last_lines() {
        let error =
            shell("for i in $(seq 50); do echo line $i >&2; done; exit 3").run(&Silent).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("failed to try a program: /bin/sh ended with exit status: 3"), "{text}");
        assert!(text.ends_with("  line 50"), "{text}");
        assert!(text.contains("line 31\n") && !text.contains("line 30\n"), "{text}");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_as_such() {
        let error = shell("echo 'x: No space left on device' >&2; exit 1").run(&Silent).await.unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_program_ends_when_it_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let script = "trap 'echo > interrupted; exit' TERM; echo > started; while :; do sleep 0.01; done";
        let program = shell(script).directory(directory.path());
        let waited = tokio::time::timeout(std::time::Duration::from_millis(500), program.run(&Silent)).await;
        assert!(waited.is_err() && directory.path().join("started").exists());
        let interrupted = directory.path().join("interrupted");
        for _ in 0..200 {
            if interrupted.exists() {
                return;
            }
            // Another process is waited for that tells nobody when it has written.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it still runs");
    }
}
