//! `kubectl`: the cluster's own, for hosts without one.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use kiln_provision::{cluster::NodeStatus, state::NodeRole};
use kiln_runtime::ExecSpec;

use super::{Session, exec, get};
use crate::{
    arguments::Kubectl,
    failure::{Failure, require_root},
};

/// kubeadm's kubeconfig for administrators, in every control-plane node.
const ADMIN_CONF: &str = "KUBECONFIG=/etc/kubernetes/admin.conf";

/// Runs kubectl in a control-plane node of a cluster; its exit status becomes this program's.
pub(super) fn kubectl(session: &Session, arguments: Kubectl) -> Result<ExitCode, Failure> {
    let cluster = arguments.name.or_default();
    require_root("running kubectl in a node")?;
    let nodes = get::nodes_of_existing(session, cluster).map_err(|failure| match arguments.name.given() {
        // Whoever is used to kubectl writes the namespace first.
        Some(name) => failure.hinting(format!(
            "-n before kubectl's command names the cluster; a namespace goes after it, or after --: kubectl -- -n {name}"
        )),
        None => failure,
    })?;
    let Some(node) = choose(&nodes) else {
        return Err(Failure::new(format!(
            "cluster \"{cluster}\" has no control-plane node to run kubectl in"
        )));
    };
    let mut args = vec![String::from("kubectl")];
    args.extend(arguments.arguments);
    let spec = ExecSpec {
        args,
        env: vec![ADMIN_CONF.to_owned()],
        tty: io::stdin().is_terminal() && io::stdout().is_terminal(),
        ..ExecSpec::default()
    };
    exec::in_node(session, &node.name, spec, true)
}

/// A control-plane node, rather one that runs.
fn choose(nodes: &[NodeStatus]) -> Option<&NodeStatus> {
    let mut control_planes = nodes.iter().filter(|node| node.role == NodeRole::ControlPlane);
    let first = control_planes.clone().next();
    control_planes.find(|node| node.pid.is_some()).or(first)
}
