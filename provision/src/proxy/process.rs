//! The proxy as a process, as seen by who starts and stops it.
//!
//! No record says which process it is: it enters a cgroup of its cluster before anything else, and is found by that even
//! when whoever started it was killed at once.

use std::{path::Path, process::Stdio, time::Duration};

use fs_err as fs;
use kiln_network::PortMapping;
use kiln_runtime::Cgroup;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time,
};

use super::{Ports, READY};
use crate::{Error, Result, service};

/// How long the proxy may take to bind its ports. It takes milliseconds, and longer only on a machine that is very busy.
const START: Duration = Duration::from_secs(10);

/// Longer answers are cut off.
const LONGEST: u64 = 4096;

/// Starts a proxy for `ports` and returns once it serves. It outlives this process; [`Cgroup::clear`] ends it. What it
/// has to say later goes to `log`.
///
/// # Errors
/// [`Error::ProxyStart`] with the proxy's own words, such as when a port is taken; [`Error::File`] for the log.
pub(crate) async fn start_proxy(ports: &[PortMapping], cgroup: &Cgroup, log: &Path) -> Result<()> {
    // This program, also after its file was replaced or removed.
    start(Command::new("/proc/self/exe"), ports, cgroup, log).await
}

async fn start(mut command: Command, ports: &[PortMapping], cgroup: &Cgroup, log: &Path) -> Result<()> {
    let failed = |reason: String| {
        let ports = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Error::ProxyStart { ports, reason }
    };
    let argument = Ports { ports: ports.to_vec(), cgroup: Some(cgroup.clone()) };
    let argument = serde_json::to_string(&argument).map_err(|error| failed(error.to_string()))?;
    let log = fs::File::create(log).map_err(Error::file("make the proxy's log"))?;
    let mut child = command
        .arg(service::PROXY)
        .arg(argument)
        // Nothing of the caller's environment concerns the proxy.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.into_parts().0)
        .spawn()
        .map_err(|error| failed(format!("it cannot be started: {error}")))?;
    let reason = match time::timeout(START, first_line(&mut child)).await {
        // Dropping a child neither kills it nor waits for it.
        Ok(line) if line == READY => return Ok(()),
        Ok(line) if line.is_empty() => "it ended without a word".to_owned(),
        Ok(line) => line.strip_prefix("error: ").unwrap_or(&line).to_owned(),
        Err(_) => format!("it does not answer within {} s", START.as_secs()),
    };
    // It has ended, or is of no use. Reaped, or it stays a zombie as long as this process lives.
    let _ = child.kill().await;
    Err(failed(reason))
}

/// What the proxy says first, or nothing when it ends without a word.
async fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // What cannot be read was not said.
        let _ = BufReader::new(stdout.take(LONGEST)).read_line(&mut line).await;
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_network::Protocol;

    use super::*;

    fn ports() -> [PortMapping; 1] {
        let (listen, target) = ("::1".parse().unwrap(), "fd00::2".parse().unwrap());
        [PortMapping { protocol: Protocol::Tcp, listen, host_port: 80, target, target_port: 8080 }]
    }

    fn cgroup() -> Cgroup {
        Cgroup { parent: "kiln-test".to_owned(), leaf: "proxy".to_owned() }
    }

    /// A shell in place of the proxy; its `$1` is the first argument a proxy gets.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "sh"]);
        command
    }

    async fn refusal(script: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let error =
            start(shell(script), &ports(), &cgroup(), &directory.path().join("log")).await.unwrap_err();
        match error {
            Error::ProxyStart { ports, reason } => {
                assert_eq!(ports, "[::1]:80/tcp to [fd00::2]:8080");
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn its_own_words_are_the_reason() {
        assert_eq!(refusal("echo 'error: port taken'; echo more").await, "port taken");
        assert_eq!(refusal("echo surprise").await, "surprise");
        assert_eq!(refusal("exit 1").await, "it ended without a word");
    }

    #[tokio::test]
    async fn one_that_serves_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let fifo = directory.path().join("wait");
        let script = format!(
            "[ $1 = __proxy ] || exit 1; mkfifo {0}; echo told >&2; echo ready; read line < {0}; echo ended >&2",
            fifo.display()
        );
        start(shell(&script), &ports(), &cgroup(), &log).await.unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "told\n");
        // Opening waits for the reader, which is the process.
        fs::write(&fifo, "\n").unwrap();
        for _ in 0..500 {
            if fs::read_to_string(&log).unwrap() == "told\nended\n" {
                return;
            }
            time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it had ended before: {:?}", fs::read_to_string(&log));
    }
}
