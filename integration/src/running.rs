//! A command while it runs and after: output captured, time limited, signals sent.

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

#[derive(Debug, Default)]
struct Captured {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How many of the two pipes have not reached their end.
    open: usize,
}

#[derive(Debug, Default)]
struct Capture {
    captured: Mutex<Captured>,
    changed: Condvar,
}

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A started command. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    capture: Arc<Capture>,
    started: Instant,
    reaped: bool,
}

impl Running {
    /// Starts `command` in a process group of its own with `input` on stdin.
    #[track_caller]
    pub fn spawn(mut command: Command, input: Vec<u8>) -> Self {
        let line = describe(&command);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{line}` did not start: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            // Its end may come before ours: a program that does not read all of its input is the test's business.
            thread::spawn(move || stdin.write_all(&input));
        }
        let capture = Arc::new(Capture::default());
        capture.lock().open = 2;
        if let Some(stdout) = child.stdout.take() {
            pump(stdout, &capture, |captured| &mut captured.stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            pump(stderr, &capture, |captured| &mut captured.stderr);
        }
        Self { line, child, capture, started, reaped: false }
    }

    /// The process id of the command itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until stderr holds `text`; false when it ended, or `limit` passed, without it.
    pub fn wait_for_stderr(&self, text: &str, limit: Duration) -> bool {
        let holds = |captured: &Captured| String::from_utf8_lossy(&captured.stderr).contains(text);
        let deadline = Instant::now() + limit;
        let mut captured = self.capture.lock();
        loop {
            if holds(&captured) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if captured.open == 0 || left.is_zero() {
                return false;
            }
            captured =
                self.capture.changed.wait_timeout(captured, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal to its process group, as the terminal does on Ctrl-C.
    pub fn signal_group(&self, signal: Signal) {
        deliver(|pid| killpg(pid, signal), self.pid());
    }

    /// Sends a signal to the command alone.
    pub fn signal(&self, signal: Signal) {
        deliver(|pid| kill(pid, signal), self.pid());
    }

    /// Ends the command itself with SIGKILL, as the kernel does when memory runs out; what it has started lives on.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        // Its output is not waited for: what it has started may hold it open.
        self.reaped = self.child.wait().is_ok();
    }

    /// Waits for its end and for the end of its output; panics when `limit` passes first.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Finished {
        if !self.exits_within(limit) {
            self.signal_group(Signal::SIGKILL);
            let captured = self.capture.lock();
            let stderr = String::from_utf8_lossy(&captured.stderr).into_owned();
            drop(captured);
            panic!("`{}` had not ended after {limit:?}; its stderr so far:\n{stderr}", self.line);
        }
        let status = self.child.wait().unwrap_or_else(|error| panic!("`{}`: {error}", self.line));
        self.reaped = true;
        let took = self.started.elapsed();
        // A process left behind that holds the pipes would make a caller such as `$(kiln …)` hang for ever.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut captured = self.capture.lock();
        while captured.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "`{}` ended, but something it started holds its output open", self.line);
            captured =
                self.capture.changed.wait_timeout(captured, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Finished {
            line: self.line.clone(),
            status,
            stdout: std::mem::take(&mut captured.stdout),
            stderr: String::from_utf8_lossy(&captured.stderr).into_owned(),
            took,
        }
    }

    fn exits_within(&self, limit: Duration) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .expect("a child that nobody has waited for has a pidfd");
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match nix::poll::poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return true,
                Err(error) => panic!("poll of a pidfd: {error}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal_group(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Finished {
    line: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
    took: Duration,
}

impl Finished {
    /// The exit code, or 128 and the signal, as a shell tells it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// What it wrote to stdout, as text.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it wrote to stdout, as it was.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// What it wrote to stderr.
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// From its start to its end.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Panics unless the exit code is 0.
    #[track_caller]
    #[must_use = "say `let _ =` when only the success matters"]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    /// Panics unless the exit code is `code`.
    #[track_caller]
    #[must_use = "say `let _ =` when only the code matters"]
    pub fn exited(self, code: i32) -> Self {
        assert!(self.code() == code, "expected exit code {code} from\n{}", self.report());
        self
    }

    /// Panics unless it is a failure told the way Kiln tells one: exit code 1, nothing on stdout, and an error on
    /// stderr that holds each of `words`, in any case.
    #[track_caller]
    pub fn refused(self, words: &[&str]) {
        assert!(self.code() == 1, "expected exit code 1 from\n{}", self.report());
        assert!(self.stdout.is_empty(), "an error left something on stdout:\n{}", self.report());
        let told = self.stderr.to_lowercase();
        for word in words {
            assert!(told.contains(&word.to_lowercase()), "no `{word}` in the error of\n{}", self.report());
        }
        assert!(!told.contains("panicked"), "a panic instead of an error:\n{}", self.report());
    }

    /// Everything about it, for a failure's message.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(report, "$ {}\n(exit code {} after {:.1?})", self.line, self.code(), self.took);
        for (name, text) in [("stdout", self.stdout()), ("stderr", self.stderr.clone())] {
            if !text.is_empty() {
                let _ = writeln!(report, "--- {name}\n{}", text.trim_end());
            }
        }
        report
    }
}

fn pump(
    mut pipe: impl Read + Send + 'static,
    capture: &Arc<Capture>,
    buffer: fn(&mut Captured) -> &mut Vec<u8>,
) {
    let capture = Arc::clone(capture);
    thread::spawn(move || {
        let mut chunk = [0; 16 << 10];
        loop {
            let count = pipe.read(&mut chunk).unwrap_or(0);
            let mut captured = capture.lock();
            if count == 0 {
                captured.open -= 1;
            } else {
                buffer(&mut captured).extend_from_slice(&chunk[..count]);
            }
            capture.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    });
}

fn deliver(send: impl FnOnce(Pid) -> nix::Result<()>, pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id fits"));
    match send(pid) {
        // It may just have ended by itself.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("signal to {pid}: {error}"),
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kiln::SHORT;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Running::spawn(command, Vec::new())
    }

    #[test]
    fn output_and_code_are_captured() {
        let finished = shell("echo out; echo err >&2; exit 3").wait(SHORT).exited(3);
        assert_eq!(finished.stdout(), "out\n");
        assert_eq!(finished.stderr(), "err\n");
    }

    #[test]
    fn a_signal_counts_as_128_and_its_number() {
        assert_eq!(shell("kill -9 $$").wait(SHORT).code(), 137);
    }

    #[test]
    fn input_reaches_the_command() {
        let finished = Running::spawn(Command::new("cat"), vec![7; 1 << 20]).wait(SHORT).succeeded();
        assert_eq!(finished.bytes().len(), 1 << 20);
    }

    #[test]
    #[should_panic(expected = "had not ended after")]
    fn a_command_that_hangs_is_ended() {
        let _ = shell("sleep 60").wait(Duration::from_millis(50));
    }

    #[test]
    #[should_panic(expected = "holds its output open")]
    fn a_process_left_behind_with_the_pipes_is_noticed() {
        // It outlives the command but not the test by much.
        let _ = shell("sleep 8 & exit 0").wait(SHORT);
    }

    #[test]
    fn stderr_can_be_waited_for() {
        let running = shell("echo first >&2; sleep 60");
        assert!(running.wait_for_stderr("first", SHORT));
        assert!(!running.wait_for_stderr("second", Duration::from_millis(20)));
        running.signal_group(Signal::SIGTERM);
        assert_eq!(running.wait(SHORT).code(), 143);
    }

    #[test]
    #[should_panic(expected = "no `port` in the error")]
    fn a_refusal_must_name_its_object() {
        shell("echo 'ERROR: it is taken' >&2; exit 1").wait(SHORT).refused(&["taken", "port"]);
    }
}
