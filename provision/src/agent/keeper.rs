//! Making the node what the API says it is.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use kiln_network::{PodRoute, PodRules};

use super::{nodes::Nodes, settings::Settings};
use crate::{
    Error, Result,
    cni::{CNI_CONFIG, cni_config},
    service::{explain, log},
};

/// Keeps one node, and logs what it changes.
#[derive(Debug)]
pub(super) struct Keeper {
    settings: Settings,
    /// The node's root directory.
    root: PathBuf,
    /// Whether the rules are the ones of these settings.
    rules_installed: bool,
    /// What went wrong the last time, so that it is logged once and not with every attempt.
    complaints: Vec<String>,
}

impl Keeper {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, root: "/".into(), rules_installed: false, complaints: Vec::new() }
    }

    /// Does everything that can be done. Returns whether that was everything there is to do.
    pub(super) async fn keep(&mut self, nodes: &Nodes) -> bool {
        // The configuration comes last: with it the node is ready for pods, and those count on the rest.
        let mut errors = Vec::new();
        errors.extend(self.rules().await.err());
        match self.routes(nodes).await {
            Ok(refused) => errors.extend(refused),
            Err(error) => errors.push(error),
        }
        errors.extend(self.configuration(nodes).await.err());
        let mut complaints: Vec<_> = errors.iter().map(|error| explain(error)).collect();
        complaints.dedup();
        for line in complaints.iter().filter(|line| !self.complaints.contains(line)) {
            log(line);
        }
        self.complaints = complaints;
        self.complaints.is_empty()
    }

    async fn rules(&mut self) -> Result<()> {
        let present = kiln_network::pod_rules_present().await?;
        // A launcher knows the Services' subnets. What it has installed says more than what could be installed without.
        let better = !self.rules_installed && !self.settings.service_subnets.is_empty();
        if present && !better {
            return Ok(());
        }
        let rules = PodRules {
            pod_subnets: self.settings.pod_subnets.clone(),
            service_subnets: self.settings.service_subnets.clone(),
            uplink: kiln_network::node_uplink().await?.link,
            // By the time an agent runs, kube-proxy does.
            fallback: None,
        };
        kiln_network::isolate_services(None, &rules).await?;
        self.rules_installed = true;
        log(&format!("installed the rules for what pods send through {}", rules.uplink));
        Ok(())
    }

    async fn routes(&self, nodes: &Nodes) -> Result<Vec<Error>> {
        let node = &self.settings.node;
        let changes = kiln_network::sync_pod_routes(node, None, &nodes.routes_from(node)).await?;
        for PodRoute { pods, via } in changes.set {
            log(&format!("set the route to pods {pods} through {via}"));
        }
        for PodRoute { pods, via } in changes.removed {
            log(&format!("removed the route to pods {pods} through {via}"));
        }
        Ok(changes.errors.into_iter().map(Error::Network).collect())
    }

    async fn configuration(&self, nodes: &Nodes) -> Result<()> {
        let pods = nodes.pods_of(&self.settings.node);
        if pods.is_empty() {
            return Ok(());
        }
        let text = cni_config(pods, kiln_network::node_uplink().await?.mtu);
        let path = self.root.join(CNI_CONFIG);
        if write(&path, &text).map_err(Error::file("write the CNI configuration"))? {
            let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
            log(&format!("wrote {} for pods {}", path.display(), pods.join(", ")));
        }
        Ok(())
    }
}

/// Puts a file in place of one with another content. Returns whether it was another one.
fn write(path: &Path, text: &str) -> io::Result<bool> {
    if fs_err::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    // containerd reads the directory at any time: a file of that name must be whole, and those with other endings are
    // none of its business.
    let intermediate = PathBuf::from(format!("{}.new", path.display()));
    fs_err::write(&intermediate, text)?;
    fs_err::set_permissions(&intermediate, std::fs::Permissions::from_mode(0o644))?;
    fs_err::rename(&intermediate, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, thread};

    use k8s_openapi::api::core::v1::Node;
    use kiln_network::{Network, UPLINK};
    use kube::runtime::watcher::Event;

    use super::*;

    fn node(name: &str, pods: &str, address: IpAddr) -> Node {
        let addresses = [serde_json::json!({ "type": "InternalIP", "address": address })];
        let node = serde_json::json!({
            "metadata": { "name": name },
            "spec": { "podCIDRs": [pods] },
            "status": { "addresses": addresses },
        });
        serde_json::from_value(node).unwrap()
    }

    /// Runs a test in a network namespace of its own, on a thread that ends with it.
    #[expect(clippy::disallowed_methods, reason = "on a thread that ends with its test")]
    fn in_a_node<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send + 'static) {
        let thread = thread::spawn(move || {
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                println!("skipped: no network namespaces here: {error}");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn the_node_becomes_what_the_api_says() {
        in_a_node(|| async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(CNI_CONFIG);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            let settings = Settings {
                node: "a".to_owned(),
                pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
                service_subnets: Vec::new(),
                endpoint: None,
            };
            let mut keeper = Keeper { root: directory.path().to_owned(), ..Keeper::new(settings) };
            let mut nodes = Nodes::default();

            // Without a link there is nothing to keep, and everything to try again.
            nodes.update(Event::Apply(node("a", "10.244.0.0/24", [10, 0, 0, 2].into())));
            assert!(!keeper.keep(&nodes).await);
            assert_eq!(keeper.complaints, ["link eth0 does not exist"]);
            assert!(!path.exists());

            let network = Network {
                cluster: "a".to_owned(),
                bridge: UPLINK.to_owned(),
                ipv4: Some("10.0.0.0/24".parse().unwrap()),
                ipv6: None,
                mtu: 1400,
            };
            kiln_network::create_bridge(&network).await.unwrap();
            nodes.update(Event::Apply(node("b", "10.244.1.0/24", [10, 0, 0, 3].into())));
            assert!(keeper.keep(&nodes).await, "{:?}", keeper.complaints);
            let text = fs_err::read_to_string(&path).unwrap();
            assert_eq!(text, cni_config(&["10.244.0.0/24".parse().unwrap()], 1400));
            assert!(kiln_network::pod_rules_present().await.unwrap());
            let occupied = async || kiln_network::occupied_subnets().await.unwrap();
            assert!(occupied().await.contains(&"10.244.1.0/24".parse().unwrap()));

            // Another range for this node, none for the other.
            nodes.update(Event::Apply(node("a", "10.244.9.0/24", [10, 0, 0, 2].into())));
            nodes.update(Event::Delete(node("b", "10.244.1.0/24", [10, 0, 0, 3].into())));
            assert!(keeper.keep(&nodes).await, "{:?}", keeper.complaints);
            assert!(fs_err::read_to_string(&path).unwrap().contains("10.244.9.0/24"));
            assert_eq!(occupied().await, ["10.0.0.0/24".parse().unwrap()]);
        });
    }

    #[test]
    fn a_file_is_replaced_only_by_another_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("10-kiln.conflist");
        assert!(write(&path, "one").unwrap());
        assert!(!write(&path, "one").unwrap());
        let written = fs_err::metadata(&path).unwrap();
        assert_eq!(written.permissions().mode() & 0o777, 0o644);
        assert!(write(&path, "two").unwrap());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "two");
        // Nobody sees a half of it: the name stands for another file now.
        use std::os::unix::fs::MetadataExt;
        assert_ne!(fs_err::metadata(&path).unwrap().ino(), written.ino());
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_not_mounted_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("net.d/10-kiln.conflist"), "").unwrap_err();
        assert!(error.to_string().contains("net.d/10-kiln.conflist.new"), "{error}");
    }
}
