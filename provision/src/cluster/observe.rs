//! The trace of a cluster's creation: what is watched for it, what is collected in the end, and its file.

use std::{io, path::PathBuf, time::Duration};

use super::{
    inside,
    node::{self, StartedNode},
};
use crate::{
    Error, Paths, Result,
    cni::CNI_CONFIG,
    containerd,
    state::{self, NodeRole},
    trace::{self, CREATED, Recording, Trace, watch},
};

/// The trace's file in the cluster's directory.
pub(crate) const FILE: &str = "trace.json";

/// How long the logs of kube-proxy may take to tell that it has the Services once its pod is Ready: a version that says it
/// in other words never does.
const NOTED: Duration = Duration::from_secs(3);
/// How often logs are looked at. They give the time of what they tell, so nothing is lost by it.
const LOOK: Duration = Duration::from_millis(50);

/// Begins to watch a cluster of these nodes from outside, where its trace is to. The API of the first control plane will be
/// at `server`.
pub(super) fn watch(
    paths: &Paths,
    cluster: &str,
    nodes: &[StartedNode],
    first: &StartedNode,
    server: String,
    proxies: usize,
) {
    let Some(trace) = trace::current().filter(Trace::watches) else { return };
    let (process, node, recorder) = (first.process.clone(), first.plan.name.clone(), trace.clone());
    let count = nodes.len();
    let vars: Vec<PathBuf> = nodes
        .iter()
        .filter(|_| proxies > 0)
        .map(|node| paths.node(cluster, &node.plan.name).join("var"))
        .collect();
    let observer = async move {
        let seen = |node: Option<&str>, name: &str| recorder.mark(node, name);
        let credentials = || Some((inside::read(&process, &node, node::ADMIN_CONF).ok()?, server.clone()));
        let client = watch::ready(&credentials, &seen).await;
        tokio::join!(watch::nodes(&client, count, &seen), watch::pods(&client, proxies, &seen));
        // A pod of kube-proxy is Ready when it runs, which may be before it knows a Service.
        let synced = async {
            while !vars.iter().all(|var| trace::tell(var, trace::PROXY_SYNCED)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(NOTED, synced).await;
    };
    trace.set_observer(tokio::spawn(observer));
}

/// Ends the trace of a creation: adds what the nodes themselves have noted, and keeps all of it with the cluster. That it
/// cannot be kept is no failure.
pub(super) fn finish(paths: &Paths, cluster: &str, trace: &Trace, created: bool) {
    if created {
        trace.mark(None, CREATED);
    }
    collect(paths, cluster, trace);
    if let Err(error) = save_trace(paths, &trace.recording(cluster)) {
        tracing::warn!("the trace is not kept: {error}: {:?}", std::error::Error::source(&error));
    }
}

/// Brings the trace of a creation that has ended up to date: with what was watched for and came later, and what the nodes
/// have noted since. The file in the cluster's directory becomes that too.
///
/// # Errors
/// [`Error::File`] when the trace cannot be kept.
pub fn update_trace(paths: &Paths, cluster: &str, trace: &Trace) -> Result<Recording> {
    collect(paths, cluster, trace);
    let recording = trace.recording(cluster);
    save_trace(paths, &recording)?;
    Ok(recording)
}

/// Adds what can be had afterwards: times that nodes have written down, and the processor time of their components. What
/// cannot be had is left out.
fn collect(paths: &Paths, cluster: &str, trace: &Trace) {
    let mut components: Vec<_> = trace::own().into_iter().collect();
    for name in state::node_names(paths, cluster).unwrap_or_default() {
        let Ok(Some(record)) = state::load_node(paths, cluster, &name) else { continue };
        if record.role == NodeRole::ExternalLoadBalancer {
            continue;
        }
        let directory = paths.node(cluster, &name);
        let var = directory.join("var");
        let mut found = trace::marks(&var);
        // Made when containerd began to listen, and when the pod network was there.
        let files = [
            ("containerd listening", record.process.as_ref().map(containerd::socket)),
            ("CNI configured", Some(directory.join("upper").join(CNI_CONFIG))),
        ];
        for (mark, file) in files {
            let metadata = file.and_then(|file| fs_err::symlink_metadata(file).ok());
            found.extend(metadata.and_then(|metadata| metadata.modified().ok()).map(|time| (mark, time)));
        }
        for (mark, time) in found {
            if let Some(at) = trace.at(time) {
                trace.mark_at(Some(&name), mark, at);
            }
        }
        components
            .extend(trace::components(&name, &node::cgroup(paths, cluster, &name), &var).unwrap_or_default());
    }
    trace.set_components(components);
}

fn save_trace(paths: &Paths, recording: &Recording) -> Result<()> {
    let directory = paths.cluster(&recording.cluster);
    // A creation that failed has removed it.
    if !directory.is_dir() {
        return Ok(());
    }
    fs_err::write(directory.join(FILE), trace::to_chrome(recording)).map_err(Error::file("keep the trace"))
}

/// The trace of a cluster's creation; `None` when the cluster has none, as one that was made by an earlier version.
///
/// # Errors
/// [`Error::NoSuchCluster`], [`Error::Damaged`], or [`Error::File`] when it cannot be read.
pub fn trace(paths: &Paths, cluster: &str) -> Result<Option<Recording>> {
    crate::logs::check(paths, cluster)?;
    let path = paths.cluster(cluster).join(FILE);
    match fs_err::read_to_string(&path) {
        Ok(text) => trace::from_chrome(&text)
            .map(Some)
            .map_err(|source| Error::Damaged { path, source: source.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { what: "read the trace", source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trace_is_kept_with_its_cluster_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path().join("state"), root.path().join("run"));
        assert!(matches!(super::trace(&paths, "c"), Err(Error::NoSuchCluster { .. })));
        let directory = paths.node("c", "c-control-plane");
        fs_err::create_dir_all(&directory).unwrap();
        assert_eq!(super::trace(&paths, "c").unwrap(), None);

        let recorder = Trace::default();
        drop(recorder.follow(async { trace::step("c-control-plane", "write files") }).await);
        finish(&paths, "c", &recorder, true);
        let kept = super::trace(&paths, "c").unwrap().unwrap();
        assert_eq!(kept, recorder.recording("c"));
        assert!(kept.mark(CREATED).is_some());
        assert_eq!(kept.components[0].component, "kiln");

        fs_err::write(paths.cluster("c").join(FILE), "{").unwrap();
        assert!(matches!(super::trace(&paths, "c"), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_trace_that_cannot_be_kept_is_no_failure() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path().join("state"), root.path().join("run"));
        finish(&paths, "gone", &Trace::default(), false);
        assert!(!paths.cluster("gone").exists());
        fs_err::create_dir_all(paths.cluster("c").join(FILE)).unwrap();
        finish(&paths, "c", &Trace::default(), true);
    }
}
