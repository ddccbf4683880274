//! What nodes are configured with, literally.

use super::*;
use crate::config::{self, Cluster, IpFamily, Networking, Node};

/// The configuration of a cluster's node on a version, with an address of each family.
fn rendered(
    cluster: &Cluster,
    index: usize,
    version: &str,
    change: impl FnOnce(&mut Input<'_>),
) -> Result<String> {
    let name = &config::node_names(cluster)[index].name;
    let endpoint = config::control_plane_endpoint(cluster);
    let mut input = Input {
        cluster,
        name,
        index,
        ipv4: Some(Ipv4Addr::new(172, 30, 0, 2)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
        control_plane_endpoint: &endpoint,
        token: "abcdef.0123456789abcdef",
        ca_cert_hash: None,
        kubernetes_version: version,
        engine: ENGINE,
        cgroup_v1: false,
    };
    change(&mut input);
    render(&input)
}

fn of_family(family: IpFamily) -> Cluster {
    Cluster { networking: Networking::new(family), ..Cluster::single_node("kind") }
}

#[test]
fn a_single_node_of_the_newest_version() {
    let expected = "\
apiServer:
  certSANs:
  - localhost
  - 127.0.0.1
  extraArgs:
  - name: runtime-config
    value: \"\"
apiVersion: kubeadm.k8s.io/v1beta4
clusterName: kind
controlPlaneEndpoint: kind-control-plane:6443
controllerManager:
  extraArgs:
  - name: enable-hostpath-provisioner
    value: \"true\"
kind: ClusterConfiguration
kubernetesVersion: v1.36.1
networking:
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/16
scheduler:
  extraArgs: null
---
apiVersion: kubeadm.k8s.io/v1beta4
bootstrapTokens:
- token: abcdef.0123456789abcdef
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: 172.30.0.2
  bindPort: 6443
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
  kubeletExtraArgs:
  - name: node-ip
    value: 172.30.0.2
  - name: provider-id
    value: kind://kiln/kind/kind-control-plane
  - name: node-labels
    value: \"\"
skipPhases:
- preflight
---
apiVersion: kubeadm.k8s.io/v1beta4
controlPlane:
  localAPIEndpoint:
    advertiseAddress: 172.30.0.2
    bindPort: 6443
discovery:
  bootstrapToken:
    apiServerEndpoint: kind-control-plane:6443
    token: abcdef.0123456789abcdef
    unsafeSkipCAVerification: true
kind: JoinConfiguration
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
  kubeletExtraArgs:
  - name: node-ip
    value: 172.30.0.2
  - name: provider-id
    value: kind://kiln/kind/kind-control-plane
  - name: node-labels
    value: \"\"
skipPhases:
- preflight
---
apiVersion: kubelet.config.k8s.io/v1beta1
cgroupDriver: systemd
cgroupRoot: /kubelet
evictionHard:
  imagefs.available: 0%
  nodefs.available: 0%
  nodefs.inodesFree: 0%
failSwapOn: false
imageGCHighThresholdPercent: 100
kind: KubeletConfiguration
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
conntrack:
  maxPerCore: 0
iptables:
  minSyncPeriod: 1s
kind: KubeProxyConfiguration
mode: iptables
";
    assert_eq!(rendered(&Cluster::single_node("kind"), 0, "v1.36.1", |_| {}).unwrap(), expected);
}

#[test]
fn arguments_and_phases_follow_the_version() {
    let cluster = Cluster::single_node("kind");
    let text = |version| rendered(&cluster, 0, version, |_| {}).unwrap();
    let (old, middle, new) = (text("v1.22.17"), text("v1.34.4"), text("v1.36.1"));
    assert!(old.contains("v1beta2\n") && middle.contains("v1beta3\n") && new.contains("v1beta4\n"));
    assert!(old.contains("    node-ip: 172.30.0.2\n    node-labels: \"\"\n    provider-id: kind://"));
    assert!(!old.contains("skipPhases") && middle.contains("skipPhases:\n- preflight\n"));
    assert!(old.contains("cgroupDriver: cgroupfs\n") && middle.contains("cgroupDriver: systemd\n"));
}

#[test]
fn ipv6_listens_on_ipv6() {
    let text = rendered(&of_family(IpFamily::Ipv6), 0, "v1.36.1", |_| {}).unwrap();
    for expected in [
        "  - localhost\n  - \"::1\"\n",
        "  - name: bind-address\n    value: \"::\"\n",
        "  - name: bind-address\n    value: \"::1\"\n",
        "\naddress: \"::\"\n",
        "healthzBindAddress: \"::\"\n",
        "advertiseAddress: fd00::2\n",
        "podSubnet: fd00:10:244::/56\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn the_first_service_subnet_decides_which_address_leads() {
    let node_ip = |cluster: &Cluster| {
        let text = rendered(cluster, 0, "v1.34.4", |_| {}).unwrap();
        let value = |line: &str, field| Some(line.trim().strip_prefix(field)?.trim_matches('"').to_owned());
        let line = |field| text.lines().find_map(|line| value(line, field));
        (line("node-ip: ").unwrap(), line("advertiseAddress: ").unwrap())
    };
    let cluster = of_family(IpFamily::Dual);
    assert_eq!(node_ip(&cluster), ("172.30.0.2,fd00::2".into(), "172.30.0.2".into()));
    let text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
                networking: {ipFamily: dual, serviceSubnet: 'fd00:1::/112,10.1.0.0/16'}\n";
    assert_eq!(
        node_ip(&config::load(text, "test").unwrap()),
        ("fd00::2,172.30.0.2".into(), "fd00::2".into())
    );
}

#[test]
fn a_node_without_its_address_is_an_error() {
    let error = rendered(&of_family(IpFamily::Dual), 0, "v1.34.4", |input| input.ipv6 = None).unwrap_err();
    assert_eq!(error.to_string(), "node kind-control-plane has no IPv6 address");
    assert!(rendered(&of_family(IpFamily::Ipv4), 0, "v1.34.4", |input| input.ipv6 = None).is_ok());
}

#[test]
fn workers_join_without_a_control_plane_of_their_own() {
    let mut cluster = Cluster::single_node("kind");
    let mut worker = Node::new(config::Role::Worker);
    worker.labels =
        [("tier", "frontend"), ("a", "b")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    cluster.nodes.push(worker);
    let text = rendered(&cluster, 1, "v1.34.4", |_| {}).unwrap();
    assert!(!text.contains("\ncontrolPlane:"));
    assert!(
        text.contains("    node-labels: a=b,tier=frontend\n    provider-id: kind://kiln/kind/kind-worker\n")
    );
}

#[test]
fn proxy_modes() {
    let text = |mode| {
        let mut cluster = Cluster::single_node("kind");
        cluster.networking.kube_proxy_mode = mode;
        rendered(&cluster, 0, "v1.34.4", |_| {}).unwrap()
    };
    let none = text(config::KubeProxyMode::None);
    assert!(
        !none.contains("KubeProxyConfiguration") && none.contains("- preflight\n- addon/kube-proxy\n---\n")
    );
    assert!(text(config::KubeProxyMode::Nftables).contains("  tcpBeLiberal: true\n"));
    assert!(text(config::KubeProxyMode::Ipvs).ends_with("mode: ipvs\n"));
}

#[test]
fn a_pinned_ca_replaces_blind_trust() {
    let cluster = Cluster::single_node("kind");
    let text = rendered(&cluster, 0, "v1.34.4", |input| input.ca_cert_hash = Some("sha256:00")).unwrap();
    assert!(text.contains("    caCertHashes:\n    - sha256:00\n") && !text.contains("unsafeSkip"), "{text}");
}

#[test]
fn old_cgroups_are_allowed_where_the_kubelet_would_refuse_them() {
    let cluster = Cluster::single_node("kind");
    let has_field = |version, cgroup_v1| {
        let text = rendered(&cluster, 0, version, |input| input.cgroup_v1 = cgroup_v1).unwrap();
        text.contains("failCgroupV1: false\n")
    };
    assert!(has_field("v1.35.0", true) && !has_field("v1.35.0", false) && !has_field("v1.34.4", true));
}

#[test]
fn node_patches_come_after_the_clusters_and_gates_reach_all() {
    let text = "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
featureGates: {B: false, A: true}
runtimeConfig: {api/beta: 'false', api/alpha: 'true'}
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  maxPods: 1
  metadata: {name: config}
nodes:
- kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    maxPods: 2
  kubeadmConfigPatchesJSON6902:
  - kind: KubeletConfiguration
    patch: '[{op: add, path: /featureGates/C, value: true}]'
";
    let cluster = config::load(text, "test").unwrap();
    let text = rendered(&cluster, 0, "v1.34.4", |_| {}).unwrap();
    assert!(text.contains("maxPods: 2\n") && !text.contains("metadata"), "{text}");
    assert!(text.contains("featureGates:\n  A: true\n  B: false\n  C: true\n"));
    assert!(text.contains("runtime-config: api/alpha=true,api/beta=false\n"));
    assert_eq!(text.matches("feature-gates: A=true,B=false\n").count(), 3);
}
