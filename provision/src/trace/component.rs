//! Whose processor time it was: each component has a control group.

use std::{collections::BTreeMap, path::Path};

use kiln_runtime::Cgroup;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use serde::{Deserialize, Serialize};

use super::notes::{self, PodDirectory};
use crate::Result;

/// Processor time of a component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComponentCpu {
    /// The node that it runs in; `None` for Kiln's own process.
    pub node: Option<String>,
    /// The component: a service of the node, or the name of its pods.
    pub component: String,
    /// Seconds of one processor.
    pub seconds: f64,
}

/// systemd's own, and of the commands that Kiln runs in the node, kubeadm above all.
const INIT: &str = "systemd and kubeadm";
const OTHER: &str = "other";

/// What the components of a node have used so far, the most first. `var` is the node's `/var` on this host.
///
/// # Errors
/// [`crate::Error::Runtime`] when the mount table cannot be read.
pub(crate) fn components(node: &str, cgroup: &Cgroup, var: &Path) -> Result<Vec<ComponentCpu>> {
    let pods = notes::pods(var);
    let sums = sums(&cgroup.processor_times()?, &pods, node);
    let mut list: Vec<ComponentCpu> = sums
        .into_iter()
        .filter(|(_, microseconds)| *microseconds > 0)
        .map(|(component, microseconds)| ComponentCpu {
            node: Some(node.to_owned()),
            component,
            seconds: seconds(microseconds),
        })
        .collect();
    list.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(list)
}

/// What this process has used, without the commands it started: those are in their node's account.
pub(crate) fn own() -> Option<ComponentCpu> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let time = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let seconds = seconds(u64::try_from(time).ok()?);
    Some(ComponentCpu { node: None, component: "kiln".to_owned(), seconds })
}

fn seconds(microseconds: u64) -> f64 {
    std::time::Duration::from_micros(microseconds).as_secs_f64()
}

/// Adds control groups up by component. `times` are by path below the node's own, which is the empty one.
fn sums(
    times: &BTreeMap<std::path::PathBuf, u64>,
    pods: &[PodDirectory],
    node: &str,
) -> BTreeMap<String, u64> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (path, time) in times {
        if let Some(component) = component(path, pods, node) {
            *sums.entry(component).or_default() += time;
        }
    }
    let known: u64 = sums.values().sum();
    let all = times.get(Path::new("")).copied().unwrap_or_default();
    *sums.entry(OTHER.to_owned()).or_default() += all.saturating_sub(known);
    sums
}

/// The component that a control group is of; `None` for one that only holds, or is part of, those of components.
fn component(path: &Path, pods: &[PodDirectory], node: &str) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    match name {
        "init.scope" if parent.is_empty() => return Some(INIT.to_owned()),
        "kubelet.service" => return Some("kubelet".to_owned()),
        "containerd.service" => return Some("containerd".to_owned()),
        _ => {}
    }
    if name.ends_with(".service") && parent == "system.slice" {
        return Some(OTHER.to_owned());
    }
    // `…-podUID.slice` by systemd, with underscores in the UID, or `podUID`.
    let plain = name.strip_suffix(".slice").unwrap_or(name);
    let (_, uid) = plain
        .rsplit_once("-pod")
        .or_else(|| plain.split_once("pod"))
        .filter(|(before, _)| before.is_empty() || plain.len() < name.len())?;
    let uid = uid.replace('_', "-");
    let pod = pods.iter().find(|pod| pod.uid == uid)?;
    Some(workload(&pod.name, node))
}

/// What a pod is called without what makes its name unique: its node's name, or a replica's and its own suffix.
fn workload(pod: &str, node: &str) -> String {
    if let Some(name) = pod.strip_suffix(node).and_then(|name| name.strip_suffix('-')) {
        return name.to_owned();
    }
    let is_suffix = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    match pod.rsplit_once('-') {
        Some((rest, own)) if is_suffix(own, 5..=5) => match rest.rsplit_once('-') {
            // A hash has digits in it, a word has none.
            Some((name, hash)) if is_suffix(hash, 8..=10) && hash.contains(|c: char| c.is_ascii_digit()) => {
                name.to_owned()
            }
            _ => rest.to_owned(),
        },
        _ => pod.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_add_up_to_components() {
        let var = tempfile::tempdir().unwrap();
        for directory in [
            "kube-system_kube-apiserver-kind-control-plane_23ed0d6c743a195eed6fd1e571cd6d4a",
            "kube-system_coredns-66bc5c9577-5gswn_e11bcc1f-dbee-4efd-9ab0-1e20021e7913",
            "kube-system_coredns-66bc5c9577-bxqdd_4cda1c35-2290-42d1-84a9-a91047a83638",
        ] {
            fs_err::create_dir_all(var.path().join("log/pods").join(directory)).unwrap();
        }
        let burstable = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice";
        let apiserver =
            format!("{burstable}/kubelet-kubepods-burstable-pod23ed0d6c743a195eed6fd1e571cd6d4a.slice");
        let times = [
            (String::new(), 100),
            ("init.scope".to_owned(), 13),
            ("system.slice".to_owned(), 17),
            ("system.slice/containerd.service".to_owned(), 15),
            ("system.slice/dbus.service".to_owned(), 2),
            ("kubelet.slice".to_owned(), 60),
            ("kubelet.slice/kubelet.service".to_owned(), 5),
            ("kubelet.slice/kubelet-kubepods.slice".to_owned(), 55),
            (burstable.to_owned(), 55),
            (apiserver.clone(), 31),
            (format!("{apiserver}/cri-containerd-217c.scope"), 31),
            (
                format!(
                    "{burstable}/kubelet-kubepods-burstable-pode11bcc1f_dbee_4efd_9ab0_1e20021e7913.slice"
                ),
                3,
            ),
            // As the driver without systemd names it.
            ("kubelet/kubepods/burstable/pod4cda1c35-2290-42d1-84a9-a91047a83638".to_owned(), 4),
            ("kubelet/kubepods/burstable/podffff".to_owned(), 17),
        ];
        let times = times.into_iter().map(|(path, time)| (path.into(), time)).collect();
        let sums = sums(&times, &notes::pods(var.path()), "kind-control-plane");
        let expected = [
            ("containerd", 15),
            ("coredns", 7),
            ("kube-apiserver", 31),
            ("kubelet", 5),
            ("other", 29),
            (INIT, 13),
        ];
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(name, time)| (name.to_owned(), time)).collect();
        assert_eq!(sums, expected);
    }

    #[test]
    fn pods_are_called_by_their_workload() {
        for (pod, workload_) in [
            ("etcd-n1", "etcd"),
            ("kube-proxy-wvgn7", "kube-proxy"),
            ("coredns-66bc5c9577-5gswn", "coredns"),
            ("local-path-provisioner-5c449b8bdd-f85vr", "local-path-provisioner"),
            ("web", "web"),
            ("my-database-0", "my-database-0"),
            ("one-provision-x2x4z", "one-provision"),
        ] {
            assert_eq!(workload(pod, "n1"), workload_, "{pod}");
        }
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(own().unwrap().seconds > 0.0);
    }
}
