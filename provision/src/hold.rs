//! What pods ask the cluster's name servers before those can be reached waits in the node, in place of being refused.
//!
//! Whoever makes a cluster has gone by the time its name servers come. So a process of Kiln's own, `kiln __hold JSON`, stays
//! for each node until they answer, a few seconds. The namespace is its standard input.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::Stdio,
    time::Duration,
};

use kiln_network::Patience;
use kiln_runtime::Cgroup;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{Error, Result, cluster::Cancel, service};

/// Later the cluster has no name servers. Whoever has asked has asked again after 5 s (resolv.conf(5)), and may know it.
const PATIENCE: Patience = Patience { idle: Duration::from_secs(120), holding: Duration::from_secs(10) };

/// The argument of the sub-command.
#[derive(Debug, Deserialize, Serialize)]
struct Hold {
    /// The name servers' Service.
    servers: SocketAddr,
    /// Where the process is to be found.
    cgroup: Cgroup,
}

/// Where these processes of a cluster with this handle are in the cgroup hierarchies.
fn cgroup(handle: &str) -> Cgroup {
    Cgroup { parent: format!("kiln/{handle}"), leaf: "hold".to_owned() }
}

/// Holds packets in the namespace that is standard input.
pub(crate) async fn main(argument: Option<String>, cancel: Cancel) -> Result<()> {
    // As the proxy does.
    let _ = rustix::process::setsid();
    let hold: Hold = service::told(argument, "read what to hold")?;
    hold.cgroup.enter()?;
    let netns = io::stdin().as_fd().try_clone_to_owned().map_err(Error::service("read the namespace"))?;
    kiln_network::enter_netns(&netns)?;
    Ok(kiln_network::hold(hold.servers, PATIENCE, cancel.triggered()).await?)
}

/// Lets a process hold what is for `servers` in the namespace `netns`. It ends by itself, or by [`end`]. What it cannot do
/// is in `log` and hurts nobody: packets go their way then.
///
/// # Errors
/// [`Error::File`] for the log, [`Error::Service`] when there can be no such process.
pub(crate) fn start(netns: OwnedFd, servers: SocketAddr, handle: &str, log: &Path) -> Result<()> {
    let starting = || Error::service("start what holds packets for the name servers");
    let hold = Hold { servers, cgroup: cgroup(handle) };
    let argument = serde_json::to_string(&hold).map_err(|error| starting()(error.into()))?;
    // One file for all nodes of a cluster.
    let log = fs_err::OpenOptions::new().create(true).append(true).open(log);
    let log: File = log.map_err(Error::file("make the log of what is held"))?.into_parts().0;
    let child = Command::new("/proc/self/exe")
        .arg(service::HOLD)
        .arg(argument)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(netns))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    // It goes on by itself; dropping it neither kills it nor waits.
    child.map(drop).map_err(starting())
}

/// Ends those of a cluster that are still there. Blocks.
///
/// # Errors
/// [`Error::Runtime`] when one stays.
pub(crate) fn end(handle: &str) -> Result<()> {
    Ok(cgroup(handle).clear()?)
}
