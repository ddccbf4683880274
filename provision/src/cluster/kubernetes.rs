//! Bringing Kubernetes up in nodes that run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kiln_network::Endpoint;
use tokio::sync::watch;

use super::{
    api,
    bootstrap::{self, Told},
    cni, controllers,
    create::phase,
    dns, inside,
    join::Followers,
    manifest,
    node::{ADMIN_CONF, StartedNode, Surroundings},
    observe,
    plan::API_PORT,
    seeding,
    start::Start,
    template_boot,
};
use crate::{Error, Paths, Reporter, Result, config, trace};

/// Makes a cluster of the nodes: the first control plane, what belongs into every cluster, and the others. Returns the
/// administrator's credentials as kubeadm wrote them, and a client with them.
///
/// The other nodes begin to join as soon as the first has announced itself, while kubeadm is still installing add-ons
/// there; they are shown in kind's phases, which come later.
///
/// # Errors
/// What failed first, on the node that it names.
pub(super) async fn bring_up(
    paths: &Paths,
    nodes: &[StartedNode],
    around: &Surroundings,
    config: &config::Cluster,
    reporter: &dyn Reporter,
) -> Result<(String, kube::Client)> {
    let Some(first) = nodes.iter().find(|node| node.plan.first) else {
        return Err(Error::NotSupported { feature: "a cluster without a control plane".to_owned() });
    };
    let name = &around.cluster;
    let proxies =
        if config.networking.kube_proxy_mode == config::KubeProxyMode::None { 0 } else { nodes.len() };
    let url = node_url(&first.plan.endpoint, &config.networking);
    observe::watch(paths, name, nodes, first, url.clone(), proxies);
    let (open, opened) = watch::channel(None);
    let mut followers = Followers::new(paths, nodes, around, &config.networking, &opened, reporter);

    let told = Told::default();
    let log = bootstrap::log_path(&paths.node(name, &first.plan.name));
    let connect = async || {
        let admin_conf = inside::read(&first.process, &first.plan.name, ADMIN_CONF)?;
        let client = api::connect(&admin_conf, &url).await?;
        Ok::<_, Error>((admin_conf, client))
    };
    let start = async {
        match &*around.start {
            Start::Kubeadm { .. } => {
                let dns = dns::printed(first, reporter).await;
                let skipped = dns.as_ref().map(|dns| dns.skipped.as_str());
                let init = bootstrap::init(&first.plan.name, &first.process, &log, skipped, reporter, &told);
                let install = async {
                    let Some(dns) = &dns else { return Ok(()) };
                    told.written.notified().await;
                    dns.install(&connect().await?.1).await
                };
                tokio::try_join!(init, install)?;
            }
            Start::Template(from) => {
                bootstrap::tell_not_run(&log)?;
                let (_, client) = connect().await?;
                let members = around.start.etcd_members(nodes);
                let run = template_boot::run(first, from, &members, &url, &client, &told.joinable, reporter);
                run.await.inspect_err(|_| around.start.discard(paths))?;
            }
        }
        Ok(())
    };
    let admit = async {
        told.joinable.notified().await;
        let (admin_conf, client) = connect().await?;
        if around.start.is_complete() {
            // The node's object is as it is to be, and the cluster's information is signed.
        } else if nodes.len() == 1 {
            let patched = api::make_schedulable(&client, &first.plan.name);
            trace::step(&first.plan.name, "make schedulable").over(patched).await?;
        } else {
            trace::wait("", "cluster-info to be signed").over(api::joinable(&client)).await;
        }
        open.send_replace(Some(client.clone()));
        Ok((admin_conf, client))
    };
    let started = followers.beside(async { tokio::try_join!(start, admit).map(|(_, admitted)| admitted) });
    let (admin_conf, client) = phase(reporter, "Starting control-plane 🕹️", started).await?;

    if !config.networking.disable_default_cni {
        // The launcher's configuration has been there since before kubelet started; that of other nodes follows when
        // they join.
        let install = async {
            if around.pod_network { Ok(()) } else { cni::install(first, &client, name, config).await }
        };
        phase(reporter, "Installing CNI 🔌", followers.beside(install)).await?;
    }
    let storage =
        async { if around.start.is_complete() { Ok(()) } else { install_storage(first, &client).await } };
    let storage = trace::step("", "install StorageClass").over(storage);
    let leave =
        async || seeding::leave(paths, nodes, &around.start, &config.networking, &client, reporter).await;
    if nodes.len() == 1 {
        phase(reporter, "Installing StorageClass 💾", async {
            followers.beside(storage).await?;
            reporter.step("waiting for the default service account");
            controllers::bounded(followers.network(), reporter).await
        })
        .await?;
        leave().await;
    } else {
        phase(reporter, "Installing StorageClass 💾", followers.beside(storage)).await?;
        followers.finish(reporter).await?;
        leave().await;
        if around.pod_network && cni::is_agent(first) {
            reporter.step("installing the network agent");
            let installed = cni::install(first, &client, name, config);
            trace::step("", "install network agent").over(installed).await?;
        }
    }
    Ok((admin_conf, client))
}

/// Where the API server of a node answers, for this host.
pub(super) fn node_url(endpoint: &Endpoint, networking: &config::Networking) -> String {
    // The node's own address: it is in the API server's certificate, and no translation is needed to get there.
    let (ipv4, ipv6) = (endpoint.ipv4, endpoint.ipv6);
    let (ipv4, ipv6) = (ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6));
    let address = if networking.prefers_ipv6() { ipv6.or(ipv4) } else { ipv4.or(ipv6) };
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    format!("https://{}", SocketAddr::new(address, API_PORT))
}

/// Where kind's contract puts the manifest of the default StorageClass.
const STORAGE_MANIFEST: &str = "/kind/manifests/default-storage.yaml";

async fn install_storage(node: &StartedNode, client: &kube::Client) -> Result<()> {
    let text = inside::read(&node.process, &node.plan.name, STORAGE_MANIFEST)?;
    manifest::apply(client, STORAGE_MANIFEST, &text).await
}
