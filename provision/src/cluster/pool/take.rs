//! Making a cluster of one that was booted ahead.

use std::{fmt::Debug, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, Client, ResourceExt, runtime::watcher};
use serde::de::DeserializeOwned;

use super::{
    super::{
        CreateOptions, api, create::phase, kubernetes::node_url, make::Booted, registry, reserve::NodeImage,
    },
    drain, list, park, request,
};
use crate::{
    Error, Paths, Reporter, Result,
    error::with_causes,
    state::{self, Lock, NodeRecord, NodeRole, Reports, Standby, StandbyRecord},
    trace,
};

/// How long a standby may take to be a cluster. It takes less than a second where nothing is wrong with it, and thirteen where a
/// new kubelet first reports that its node is not ready.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where nodes say that they are there.
const LEASES: &str = "kube-node-lease";

/// Takes a standby that is just what is asked for, if there is one. Standbys that turn out to be of no use are removed. The
/// caller holds the lock of the cluster, which does not exist.
///
/// # Errors
/// The state cannot be read or written.
pub(in super::super) async fn take(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    images: &[NodeImage],
    reporter: &dyn Reporter,
) -> Result<Option<Booted>> {
    let mut wanted = None;
    for standby in state::standbys(paths)?.into_iter().filter(|standby| standby.cluster == name) {
        let Some((lock, record)) = usable(paths, &standby)? else { continue };
        if record.request != *wanted.get_or_insert_with(|| request(name, options, images)) {
            let text =
                format!("{standby} was booted for another configuration, image or proxy, and is not taken");
            reporter.message(1, &text);
            continue;
        }
        state::link_standby(paths, &standby)?;
        let awake = async {
            match tokio::time::timeout(
                TIMEOUT,
                wake(paths, name, &standby, record.reports.as_ref(), reporter),
            )
            .await
            {
                Ok(woken) => woken,
                Err(_) => Err(Error::Unsettled { cluster: standby.handle(), seconds: TIMEOUT.as_secs() }),
            }
        };
        match phase(reporter, "Taking a standby cluster 🧊", awake).await {
            Ok(booted) => {
                lock.remove()?;
                return Ok(Some(booted));
            }
            Err(error) => {
                let text =
                    format!("Warning: {standby} is of no use, and is removed: {}", with_causes(&error));
                reporter.message(0, &text);
                state::unlink_standby(paths, name)?;
                drain::remove(paths, &standby, lock, reporter).await?;
            }
        }
    }
    Ok(None)
}

/// The lock and the record of a standby that can be taken; `None` for one that is being changed, half-made, or has ended.
fn usable(paths: &Paths, standby: &Standby) -> Result<Option<(Lock, StandbyRecord)>> {
    // One without a record is no reason to make a lock file.
    let Some(record) = state::load_standby(paths, standby).ok().flatten() else { return Ok(None) };
    let Some(lock) = state::try_cluster_lock(&standby.paths(paths), &standby.cluster)? else {
        return Ok(None);
    };
    // It may have been removed while there was no lock on it.
    let there = state::standbys(paths)?.contains(standby) && list::is_alive(paths, standby);
    Ok(there.then_some((lock, record)))
}

/// Lets the cluster go on, and returns when its API answers and every node has said anew that it is Ready.
async fn wake(
    paths: &Paths,
    name: &str,
    standby: &Standby,
    before: Option<&Reports>,
    reporter: &dyn Reporter,
) -> Result<Booted> {
    let missing = |what: &str| Error::NoStandby { reason: format!("{} has no {what}", standby.handle()) };
    let record = state::load_cluster(paths, name)?.ok_or_else(|| missing("record"))?;
    let nodes = state::load_nodes(paths, name)?;
    let first = nodes.iter().find(|node| node.role == NodeRole::ControlPlane);
    let first = first.ok_or_else(|| missing("control plane"))?;
    let admin_conf = fs_err::read_to_string(paths.cluster(name).join("admin.conf"))
        .map_err(Error::file("read the cluster's credentials"))?;
    let config: crate::config::Cluster = serde_json::from_value(record.config.clone())
        .map_err(|source| Error::Damaged { path: paths.cluster(name), source: source.into() })?;
    let client = api::connect(&admin_conf, &node_url(&first.endpoint, &config.networking)).await?;
    if let Some(before) = before {
        later(before).await;
    }
    trace::step("", "thaw").over(async { park::thaw(paths, name, &nodes, before.is_some()) }).await?;
    let is_ready = async {
        trace::wait(&first.name, "the API server to answer").over(api::answers(&client)).await;
        reporter.step("waiting for the nodes to say that they are Ready");
        trace::wait("", "all nodes to be Ready").over(ready(&client, &nodes, before)).await;
        Ok(())
    };
    let is_begun = trace::step("", "start what was stopped").over(park::revive(&nodes, before.is_some()));
    tokio::try_join!(is_begun, is_ready)?;
    // Some may have been made or removed meanwhile.
    registry::tell_nodes(paths, name, reporter).await?;
    Ok(Booted { record, access: Some((admin_conf, client)) })
}

/// Returns when a report can be told from the last by its second, as nearly always it can at once.
async fn later(before: &Reports) {
    let now = Timestamp::now();
    if before.values().any(|time| time.as_second() == now.as_second()) {
        let since = Duration::from_nanos(now.subsec_nanosecond().unsigned_abs().into());
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(since)).await;
    }
}

/// Returns when every node is Ready and its kubelet is there, as it has said anew: one that was stopped with a report (that it is alive is
/// not enough, as the first report of a new one can be that its node is not Ready), one that was not with its lease.
async fn ready(client: &Client, nodes: &[NodeRecord], before: Option<&Reports>) {
    let reported = every(Api::all(client.clone()), nodes, |node: &Node| {
        let last = before.and_then(|before| before.get(&node.name_any()));
        api::is_ready(node) && api::reported_at(node).as_ref() != last
    });
    let renewed = every(Api::namespaced(client.clone(), LEASES), nodes, is_renewed);
    tokio::join!(reported, renewed);
}

/// Returns when every node's object, which has its name, is as wanted.
async fn every<K>(objects: Api<K>, nodes: &[NodeRecord], wanted: impl Fn(&K) -> bool)
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut missing: Vec<&str> = park::kubernetes_nodes(nodes).map(|(name, _)| name).collect();
    api::first_match(objects, watcher::Config::default(), |object| {
        if wanted(&object) {
            let name = object.name_any();
            missing.retain(|other| *other != name);
        }
        missing.is_empty().then_some(())
    })
    .await;
}

/// Whether a lease is not due to be renewed. Kubelet renews its own after a quarter of its duration, and up to a twenty-fifth more
/// (`nodeLeaseRenewIntervalFraction`).
fn is_renewed(lease: &Lease) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let due = Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().unsigned_abs().into())
        .mul_f64(0.275);
    park::age(lease).is_some_and(|age| age.as_secs_f64() < due.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

    use super::*;

    #[test]
    fn a_lease_is_renewed_when_it_is_not_due_again() {
        let lease = |seconds: f64, duration| {
            let renew_time = Some(MicroTime(Timestamp::now() - Duration::from_secs_f64(seconds)));
            let spec =
                LeaseSpec { renew_time, lease_duration_seconds: Some(duration), ..LeaseSpec::default() };
            Lease { spec: Some(spec), ..Lease::default() }
        };
        assert!(is_renewed(&lease(0.1, 40)));
        // The last moment that it may be renewed at.
        assert!(is_renewed(&lease(10.5, 40)));
        assert!(!is_renewed(&lease(11.5, 40)));
        assert!(is_renewed(&lease(100.0, 400)));
        assert!(!is_renewed(&Lease::default()));
    }
}
