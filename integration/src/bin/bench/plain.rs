//! What a cluster's network is compared with: a veth pair with nothing on it but addresses, and the pods' own server at
//! its other end.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use kiln_integration::{Namespace, Running, kiln::SHORT};

use crate::{
    Result,
    transfer::{self, FILE, PORT, SIZE},
};

/// The host's end of the pair.
const LINK: &str = "kiln-it-plain";
/// Both from a range that is reserved for documentation, and not the one of the tests.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// The namespace and the server in it; both gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Plain {
    busybox: PathBuf,
    server: Child,
    _namespace: Namespace,
}

impl Plain {
    /// Makes the namespace and starts the server. `program` is busybox as the pods have it, `directory` an empty one.
    pub(crate) fn open(program: &[u8], directory: &Path) -> Result<Self> {
        let busybox = directory.join("busybox");
        fs_err::write(&busybox, program)?;
        fs_err::set_permissions(&busybox, std::fs::Permissions::from_mode(0o755))?;
        let pages = directory.join("pages");
        fs_err::create_dir(&pages)?;
        fs_err::File::create(pages.join(FILE))?.set_len(SIZE)?;

        let namespace = Namespace::open(LINK, HOST, SERVER);
        // It dies with this thread, so that a killed run leaves nothing that listens.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", namespace.path()))
            .arg(&busybox)
            .args(["httpd", "-f", "-p", &PORT.to_string(), "-h"])
            .arg(&pages)
            .stdin(Stdio::null())
            .spawn()?;
        let plain = Self { busybox, server, _namespace: namespace };
        transfer::wait_for(plain.address())?;
        Ok(plain)
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((SERVER, PORT))
    }

    /// Receives the file with busybox's wget, in the host's namespace; how many seconds that took.
    pub(crate) fn fetch(&self) -> Result<f64> {
        let mut command = Command::new(&self.busybox);
        command.args(["time", "-p"]).arg(&self.busybox);
        command.args(["wget", "-qO", "/dev/null", &transfer::url(self.address())]);
        let finished = Running::spawn(command, Vec::new()).wait(SHORT);
        if finished.code() != 0 {
            return Err(finished.report().into());
        }
        transfer::seconds_of_time(finished.stderr())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
