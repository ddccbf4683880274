//! Waiting for what kube-controller-manager makes of a new cluster.

use std::time::Duration;

use super::{
    api,
    network::connect_pods,
    node::{StartedNode, Surroundings},
};
use crate::{Reporter, Result, trace};

/// How long kube-controller-manager may take to get to what is waited for once all nodes have joined: it starts its
/// controllers one by one.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for what the first users of a cluster count on and kube-controller-manager only makes some seconds after the
/// API is up: the service account without which the API refuses every pod, and the nodes' pod ranges, from which
/// their pod networks follow. Never ends if nodes never join: see [`bounded`].
///
/// # Errors
/// What making the pod network says.
pub(super) async fn caught_up(
    client: &kube::Client,
    nodes: &[StartedNode],
    around: &Surroundings,
) -> Result<()> {
    let network =
        async { if around.pod_network { connect_pods(client, nodes, around).await } else { Ok(()) } };
    let network = trace::wait("", "the nodes' pod ranges").over(network);
    let admitted = async {
        trace::wait("", "the default service account").over(api::pods_admitted(client)).await;
        trace::mark("", "pods admitted");
    };
    tokio::join!(network, admitted).0
}

/// Goes on with a warning when it takes the controllers too long. To be called when all nodes have joined.
///
/// # Errors
/// Those of `waiting`.
pub(super) async fn bounded(
    waiting: impl Future<Output = Result<()>>,
    reporter: &dyn Reporter,
) -> Result<()> {
    match tokio::time::timeout(TIMEOUT, waiting).await {
        Ok(result) => result,
        // Patches may have turned the controllers off, on purpose.
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            let text = format!(
                "Warning: kube-controller-manager has not made the default service account and the nodes' pod ranges \
                 within {seconds} s; pods may be refused until it does"
            );
            reporter.message(0, &text);
            Ok(())
        }
    }
}
