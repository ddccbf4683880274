//! Filling the etcd of a cluster that comes from a template, before kubelets start it: each control plane runs one for as long
//! as that takes, and together they become the members that they are to be.
//!
//! Then kubelets' take their places, one by one. kubeadm has etcd compare its data with that of its peers before it serves them
//! (`InitialCorruptCheck`), and one whose peers listen and do the same waits for 7 s for each.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use futures_util::future::try_join_all;
use kiln_runtime::{ExecSpec, exec_command};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::UnixDatagram, process::Child};

use super::{
    bootstrap, inside,
    node::StartedNode,
    start::{ETCD_MANIFEST, arguments},
};
use crate::{
    template::{Cause, Credentials, Etcd, KeyValue},
    trace,
};

/// Where etcd listens while it is filled, in the node's `/run`.
const RUN: &str = "/run/kiln-etcd";

/// The argument that names the members.
const INITIAL_CLUSTER: &str = "--initial-cluster=";

/// The argument that tells where clients find it.
const CLIENT_URLS: &str = "--advertise-client-urls=";

/// The arguments that etcd must be filled with as it will be started later: they go into its data.
const KEPT_ARGUMENTS: [&str; 5] =
    ["--name=", "--data-dir=", "--initial-advertise-peer-urls=", INITIAL_CLUSTER, "--advertise-client-urls="];

/// The arguments by which members find and trust each other.
const PEER_ARGUMENTS: [&str; 5] = [
    "--listen-peer-urls=",
    "--peer-cert-file=",
    "--peer-key-file=",
    "--peer-trusted-ca-file=",
    "--peer-client-cert-auth=",
];

/// Milliseconds between the signs of life of a leader, and without one until there is another: with nobody else to vote, and
/// with others, on a host that is busy with them, and beside one that kubelet has started with 100 and 1000.
const ALONE: [u32; 2] = [10, 50];
const TOGETHER: [u32; 2] = [50, 400];

/// A member of the etcd that is to be filled.
pub(super) struct EtcdMember<'a> {
    pub(super) node: &'a StartedNode,
    /// etcd's program, as a path in the node.
    pub(super) program: &'a Path,
    /// What kubelet will start it by.
    pub(super) manifest: &'a str,
}

/// An etcd that runs for as long as it is filled.
struct Running<'a> {
    node: &'a StartedNode,
    child: Child,
    ready: UnixDatagram,
}

/// What etcd's arguments lack to be filled.
pub(super) fn missing(arguments: &[String]) -> Option<&'static str> {
    let is_there = |kept: &&str| arguments.iter().any(|found| found.starts_with(*kept));
    KEPT_ARGUMENTS.into_iter().find(|kept| !is_there(kept))
}

/// The manifest of a member as if it had no others; `None` when it is not understood.
pub(super) fn alone(manifest: &str, name: &str) -> Option<String> {
    let own = members(manifest)?
        .split(',')
        .find(|member| member.split_once('=').is_some_and(|(found, _)| found == name))?;
    Some(with_members(manifest, own))
}

/// Tells each member of those before it, as kubeadm does where they join one after another. `None` when a manifest is not
/// understood.
pub(super) fn introduce<'a>(first: &str, joined: impl IntoIterator<Item = &'a mut String>) -> Option<()> {
    let mut all = members(first)?.to_owned();
    for manifest in joined {
        all = format!("{all},{}", members(manifest)?);
        *manifest = with_members(manifest, &all);
    }
    Some(())
}

/// The members that a manifest names: `NAME=URL,…`.
fn members(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.trim_start().strip_prefix("- ")?.strip_prefix(INITIAL_CLUSTER))
}

fn with_members(manifest: &str, all: &str) -> String {
    let old = members(manifest).unwrap_or_default();
    manifest.replace(&format!("{INITIAL_CLUSTER}{old}"), &format!("{INITIAL_CLUSTER}{all}"))
}

/// An etcd that is filled, and waits for kubelets' to take its members' places.
pub(super) struct Filled<'a> {
    cluster: &'a [EtcdMember<'a>],
    running: Vec<Running<'a>>,
}

/// Runs etcd for as long as it takes to write the template's values. The last member knows all others. What has to run on ends
/// with what is returned.
///
/// # Errors
/// What it said when it ended too early, or what the kernel or etcd's API say.
pub(super) async fn fill<'a>(
    cluster: &'a [EtcdMember<'a>],
    values: Vec<KeyValue>,
) -> Result<Filled<'a>, Cause> {
    let all = cluster.last().and_then(|last| members(last.manifest));
    let all = all.ok_or("etcd's manifest is not understood")?;
    let mut running = Vec::new();
    for member in cluster {
        running.push(start(member, all, cluster.len() == 1)?);
    }
    try_join_all(running.iter_mut().map(Running::ready)).await?;
    local(&cluster[0]).await?.put(values).await?;
    Ok(Filled { cluster, running })
}

impl Filled<'_> {
    /// Has kubelets start etcd, that of the first member first: it is `begun` when the others still run, so that it finds a
    /// leader. Then it leads, for all that is to come. Never ends if one of them does not serve: callers bound it.
    ///
    /// # Errors
    /// Whatever keeps a manifest from being written, or an etcd from ending.
    pub(super) async fn hand_over(
        self,
        credentials: &Credentials,
        begun: impl FnOnce(),
    ) -> Result<(), Cause> {
        let is_alone = self.cluster.len() == 1;
        let mut begun = Some(begun);
        for (index, (member, running)) in self.cluster.iter().zip(self.running).enumerate() {
            if let Some(previous) = index.checked_sub(1).and_then(|before| self.cluster.get(before)) {
                let address = address(previous.manifest).ok_or("etcd is not told its address")?;
                let name = &previous.node.plan.name;
                trace::wait(name, "etcd to serve").over(Etcd::serves(address, credentials)).await?;
                if index == 1 {
                    lead(address, credentials, &self.cluster[1..]).await;
                }
            }
            // Whoever leads the others and is asked to end looks for a successor first, for a second.
            running.end(if is_alone { Signal::TERM } else { Signal::KILL }).await?;
            inside::write_private(
                &member.node.process,
                &member.node.plan.name,
                ETCD_MANIFEST,
                member.manifest,
            )?;
            if let Some(begun) = begun.take() {
                begun();
            }
        }
        Ok(())
    }
}

/// Has the member at an address lead in the place of one of others, which are about to end: what an API server writes meanwhile
/// would be lost with its leader, and be given up after 7 s. Where that fails, they choose another when the leader has ended.
async fn lead(address: SocketAddr, credentials: &Credentials, others: &[EtcdMember<'_>]) {
    let led = async {
        let member = Etcd::secure(address, credentials).await?.standing().await?.member;
        for other in others {
            let etcd = local(other).await?;
            let standing = etcd.standing().await?;
            if standing.leader == standing.member {
                return etcd.give_lead(member).await;
            }
        }
        Ok::<_, Cause>(())
    };
    if let Err(error) = led.await {
        tracing::warn!("the leader of etcd ends before it has a successor: {error}");
    }
}

/// Connects to a member that is filled.
async fn local(member: &EtcdMember<'_>) -> Result<Etcd, Cause> {
    Etcd::local(directory(member.node).join("client")).await
}

/// Where clients find the member of a manifest.
fn address(manifest: &str) -> Option<SocketAddr> {
    let arguments = arguments(manifest);
    let urls = arguments.iter().find_map(|argument| argument.strip_prefix(CLIENT_URLS))?;
    urls.split(',').next()?.strip_prefix("https://")?.parse().ok()
}

/// The directory of a node's etcd while it is filled, as a path of the host's.
fn directory(node: &StartedNode) -> PathBuf {
    node.process.root().join(RUN.trim_start_matches('/'))
}

fn start<'a>(member: &EtcdMember<'a>, all: &str, is_alone: bool) -> Result<Running<'a>, Cause> {
    let process = &member.node.process;
    let run = directory(member.node);
    fs_err::create_dir_all(&run)?;
    let ready = UnixDatagram::bind(run.join("notify"))?;
    let arguments = arguments(member.manifest);
    let given = |names: &[&str]| {
        let found = names.iter().filter_map(|name| arguments.iter().find(|found| found.starts_with(name)));
        found.cloned().collect::<Vec<_>>()
    };
    let mut args = vec![member.program.display().to_string()];
    args.extend(given(&KEPT_ARGUMENTS));
    // The last of an argument counts.
    args.push(format!("{INITIAL_CLUSTER}{all}"));
    let [heartbeat, election] = if is_alone {
        args.push(format!("--listen-peer-urls=unix://{RUN}/peer"));
        ALONE
    } else {
        args.extend(given(&PEER_ARGUMENTS));
        TOGETHER
    };
    args.extend([
        format!("--listen-client-urls=unix://{RUN}/client"),
        format!("--heartbeat-interval={heartbeat}"),
        format!("--election-timeout={election}"),
        // What a crash would lose is thrown away with the cluster.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=error".to_owned(),
    ]);
    let env = vec![format!("NOTIFY_SOCKET={RUN}/notify")];
    let mut command =
        tokio::process::Command::from(exec_command(process, &ExecSpec { args, env, ..ExecSpec::default() })?);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(Running { node: member.node, child, ready })
}

impl Running<'_> {
    /// Returns when it serves.
    async fn ready(&mut self) -> Result<(), Cause> {
        let served = async {
            let mut message = [0; 256];
            loop {
                let length = self.ready.recv(&mut message).await?;
                if message[..length].starts_with(b"READY=1") {
                    return Ok::<_, Cause>(());
                }
            }
        };
        let status = tokio::select! {
            served = served => return served,
            status = self.child.wait() => status?,
        };
        let mut text = String::new();
        if let Some(errors) = &mut self.child.stderr {
            let _ = tokio::io::AsyncReadExt::read_to_string(errors, &mut text).await;
        }
        let said = bootstrap::last_lines(&text, 3);
        Err(format!("that of {} ended with {status}: {said}", self.node.plan.name).into())
    }

    /// Ends it. What clients were told is kept is in its files.
    async fn end(mut self, signal: Signal) -> Result<(), Cause> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            kill_process(pid, signal)?;
        }
        self.child.wait().await?;
        // In memory, and of no use any more; the node's own processes may be in it by now, but none of them is.
        fs_err::remove_dir_all(directory(self.node))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(members: &str) -> String {
        format!(
            "spec:\n  containers:\n  - command:\n    - etcd\n    - --initial-cluster={members}\n    - --initial-cluster-state=existing\n"
        )
    }

    #[test]
    fn members_are_told_of_those_before_them() {
        let second = alone(&manifest("a=https://10.0.0.2:2380,b=https://10.0.0.3:2380"), "b").unwrap();
        assert_eq!(second, manifest("b=https://10.0.0.3:2380"));
        let mut joined = [second, manifest("c=https://10.0.0.4:2380")];
        introduce(&manifest("a=https://10.0.0.2:2380"), &mut joined).unwrap();
        let both = "a=https://10.0.0.2:2380,b=https://10.0.0.3:2380";
        assert_eq!(joined[0], manifest(both));
        assert_eq!(joined[1], manifest(&format!("{both},c=https://10.0.0.4:2380")));
    }

    #[test]
    fn what_is_no_manifest_is_not_understood() {
        assert_eq!(alone(&manifest("a=https://10.0.0.2:2380"), "b"), None);
        assert_eq!(alone("kind: Pod\n", "b"), None);
        assert_eq!(introduce("kind: Pod\n", []), None);
    }

    #[test]
    fn clients_find_it_where_it_says() {
        let text =
            "spec: {containers: [{command: [etcd, '--advertise-client-urls=https://[fd00::2]:2379']}]}";
        assert_eq!(address(text), Some("[fd00::2]:2379".parse().unwrap()));
        assert_eq!(address("kind: Pod"), None);
    }

    #[test]
    fn arguments_that_go_into_the_data_are_there_or_missed() {
        let mut all: Vec<String> = KEPT_ARGUMENTS.iter().map(|kept| format!("{kept}x")).collect();
        assert_eq!(missing(&all), None);
        all.remove(1);
        assert_eq!(missing(&all), Some("--data-dir="));
    }
}
