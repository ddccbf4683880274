//! A containerd of the host's own, which the tests run: that of the node image, or an old one, on a socket of its own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::running::{Finished, Running};

/// How long it may take to answer.
const START: Duration = Duration::from_secs(20);
/// Nothing but content and names is needed. The first is what containerd 1 calls its part of Kubernetes; the last would make
/// `/opt/containerd` on the host.
const CONFIG: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
                      \"io.containerd.cri.v1.runtime\", \"io.containerd.nri.v1.nri\", \
                      \"io.containerd.internal.v1.opt\"]\n";

/// Made by newer ones wherever they are told to keep their state, as their shims' sockets are always in it
/// (<https://github.com/containerd/containerd/issues/10502>).
const USUAL_STATE: &str = "/run/containerd";

/// A containerd that runs; it ends with this, and what it has kept is removed.
#[derive(Debug)]
pub struct HostContainerd {
    child: Child,
    programs: PathBuf,
    socket: PathBuf,
    /// Whether the host had the usual directory before.
    had_usual_state: bool,
    _kept: TempDir,
}

impl HostContainerd {
    /// Where the programs of the node image are that the store at `state_root` has unpacked.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn programs(state_root: &Path) -> PathBuf {
        let layers = fs_err::read_dir(state_root.join("images/layers")).expect("a store with layers");
        let mut programs = layers.map(|layer| layer.expect("an entry").path().join("fs/usr/local/bin"));
        programs
            .find(|programs| programs.join("containerd").is_file())
            .expect("a node image that is unpacked")
    }

    /// Starts the containerd among `programs`, with all that it keeps in `directory`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(programs: &Path, directory: &Path) -> Self {
        let kept = tempfile::tempdir_in(directory).expect("a directory in a directory of ours");
        let home = kept.path();
        let (config, socket, log) =
            (home.join("config.toml"), home.join("containerd.sock"), home.join("log"));
        fs_err::write(&config, CONFIG).expect("a file");
        let mut command = Command::new(programs.join("containerd"));
        command.arg("--config").arg(&config).arg("--address").arg(&socket);
        command.arg("--root").arg(home.join("root")).arg("--state").arg(home.join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs_err::File::create(&log).expect("a file").into_parts().0);
        let had_usual_state = Path::new(USUAL_STATE).exists();
        let child = command.spawn().expect("containerd starts");
        let mut host = Self { child, programs: programs.to_owned(), socket, had_usual_state, _kept: kept };
        let deadline = Instant::now() + START;
        while host.ctr(&["version"]).code() != 0 {
            let ended = host.child.try_wait().expect("a child of ours");
            let log = fs_err::read_to_string(&log).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "containerd does not start: {ended:?}\n{log}"
            );
            // It does not tell when it listens.
            thread::sleep(Duration::from_millis(50));
        }
        host
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs its own client.
    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(&self.socket).args(args);
        Running::spawn(command, Vec::new()).wait(Duration::from_secs(60))
    }
}

impl Drop for HostContainerd {
    fn drop(&mut self) {
        // It has ended already, then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.had_usual_state {
            // Not if somebody else has begun to use it.
            let _ = fs_err::remove_dir(USUAL_STATE);
        }
    }
}
