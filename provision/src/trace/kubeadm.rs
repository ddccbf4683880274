//! kubeadm's phases, told from the lines it prints.
//!
//! A phase begins with the first line of its name in brackets and ends with the next one's. Lines of klog, which `--v`
//! adds, begin otherwise and say nothing new.

use super::{
    Kind, mark,
    recorder::{Span, current},
};

/// Names in brackets that are no phases: what is checked or done in the course of one.
const WITHIN: [&str; 4] = ["kubelet-check", "control-plane-check", "patches", "WARNING"];

/// What kubeadm says of a component in the end, and the mark for it.
const HEALTHY: [(&str, &str); 4] = [
    ("The kubelet is healthy", "kubelet healthy"),
    ("kube-apiserver is healthy", "kube-apiserver healthy"),
    ("kube-controller-manager is healthy", "kube-controller-manager healthy"),
    ("kube-scheduler is healthy", "kube-scheduler healthy"),
];

/// The phases of one kubeadm in a node; the running one ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Phases {
    node: String,
    running: Option<(String, Span)>,
}

impl Phases {
    /// Nothing has been said yet.
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), running: None }
    }

    /// Takes a line as kubeadm printed it.
    pub(crate) fn line(&mut self, line: &str) {
        let Some((name, said)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return };
        if let Some((_, healthy)) = HEALTHY.iter().find(|(words, _)| said.contains(words)) {
            mark(&self.node, healthy);
        }
        let running = self.running.as_ref().map(|(name, _)| name.as_str());
        // `[kubelet]` is how the phase of uploads names one of its two halves.
        let part = name == "kubelet" && running == Some("upload-config");
        if WITHIN.contains(&name) || running == Some(name) || part {
            return;
        }
        let Some(trace) = current() else { return };
        // The former one ends before the next one begins.
        self.running = None;
        self.running = Some((name.to_owned(), trace.span(Kind::Kubeadm, Some(&self.node), name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Trace;

    #[tokio::test]
    async fn lines_become_phases_and_marks() {
        let trace = Trace::default();
        let lines = include_str!("testdata/kubeadm-init.log");
        trace
            .follow(async {
                let mut phases = Phases::new("n");
                lines.lines().for_each(|line| phases.line(line));
            })
            .await;
        let events = trace.recording("c").events;
        let of = |kind| events.iter().filter(move |event| event.kind == kind).map(|event| &*event.name);
        let phases: Vec<_> = of(Kind::Kubeadm).collect();
        assert_eq!(
            phases,
            [
                "init",
                "certs",
                "kubeconfig",
                "etcd",
                "control-plane",
                "kubelet-start",
                "wait-control-plane",
                "upload-config",
                "upload-certs",
                "mark-control-plane",
                "bootstrap-token",
                "kubelet-finalize",
                "addons"
            ]
        );
        let marks: Vec<_> = of(Kind::Mark).collect();
        assert_eq!(
            marks,
            [
                "kubelet healthy",
                "kube-controller-manager healthy",
                "kube-scheduler healthy",
                "kube-apiserver healthy"
            ]
        );
        let spans: Vec<_> = events.iter().filter(|event| event.kind == Kind::Kubeadm).collect();
        assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start), "one after another");
    }

    #[tokio::test]
    async fn a_join_has_phases_of_its_own() {
        let trace = Trace::default();
        trace
            .follow(async {
                let mut phases = Phases::new("w");
                for line in [
                    "I1124 17:12:50.048176      78 join.go:423] [preflight] found NodeName empty",
                    "[preflight] Running pre-flight checks",
                    "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"",
                    "[kubelet-check] The kubelet is healthy after 501ms",
                    "[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap",
                    "",
                    "This node has joined the cluster:",
                ] {
                    phases.line(line);
                }
            })
            .await;
        let events = trace.recording("c").events;
        let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["preflight", "kubelet-start", "kubelet healthy"]);
    }
}
