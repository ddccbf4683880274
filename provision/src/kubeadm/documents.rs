//! The documents of a node's configuration before patches.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ApiVersion, Input, KubernetesVersion};
use crate::config::{IpFamily, KubeProxyMode};

const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// The port of the API server on its node.
const API_PORT: u16 = 6443;

/// Name and value pairs of a component's command line.
type Arguments<'a> = Vec<(&'a str, String)>;

/// The documents: cluster, init, join, kubelet and, unless there is none, kube-proxy.
pub(super) fn objects(
    input: &Input<'_>,
    version: &KubernetesVersion,
    addresses: &[String],
    control_plane: bool,
    labels: &BTreeMap<String, String>,
) -> Vec<Value> {
    let api = version.kubeadm_api();
    let mut objects = vec![
        cluster_configuration(input, version),
        init_configuration(input, api, addresses, labels),
        join_configuration(input, api, addresses, control_plane, labels),
        kubelet_configuration(input, version),
    ];
    if input.cluster.networking.kube_proxy_mode != KubeProxyMode::None {
        objects.push(kube_proxy_configuration(input));
    }
    objects
}

/// Objects carry a name while they are patched, because patches written for kind's earliest engine address
/// it. It must go before kubeadm reads them.
pub(super) fn remove_placeholders(objects: &mut [Value]) {
    for object in objects {
        if let Value::Object(map) = object
            && map.get("metadata") == Some(&metadata())
        {
            map.remove("metadata");
        }
    }
}

fn metadata() -> Value {
    json!({"name": "config"})
}

fn cluster_configuration(input: &Input<'_>, version: &KubernetesVersion) -> Value {
    let api = version.kubeadm_api();
    let cluster = input.cluster;
    let networking = &cluster.networking;
    let ipv6 = networking.ip_family == IpFamily::Ipv6;
    let gates =
        (!cluster.feature_gates.is_empty()).then(|| ("feature-gates", joined(&cluster.feature_gates)));

    let mut api_server: Arguments<'_> = vec![("runtime-config", joined(&cluster.runtime_config))];
    api_server.extend(gates.clone());
    let mut controllers: Arguments<'_> = gates.clone().into_iter().collect();
    controllers.push(("enable-hostpath-provisioner", "true".to_owned()));
    let mut scheduler: Arguments<'_> = gates.into_iter().collect();
    if ipv6 {
        controllers.push(("bind-address", "::".to_owned()));
        scheduler.push(("bind-address", "::1".to_owned()));
    }
    json!({
        "apiVersion": api.as_str(),
        "kind": "ClusterConfiguration",
        "metadata": metadata(),
        "kubernetesVersion": version.to_string(),
        "clusterName": cluster.name,
        "controlPlaneEndpoint": input.control_plane_endpoint,
        "apiServer": {
            // The API is reached through a port of the host, so its certificate must be good for that address
            // too.
            "certSANs": ["localhost", networking.api_server_address],
            "extraArgs": arguments(api, api_server),
        },
        "controllerManager": {"extraArgs": arguments(api, controllers)},
        "scheduler": {"extraArgs": arguments(api, scheduler)},
        "networking": {
            "podSubnet": networking.pod_subnet.as_str(),
            "serviceSubnet": networking.service_subnet.as_str(),
        },
    })
}

fn init_configuration(
    input: &Input<'_>,
    api: ApiVersion,
    addresses: &[String],
    labels: &BTreeMap<String, String>,
) -> Value {
    let mut object = json!({
        "apiVersion": api.as_str(),
        "kind": "InitConfiguration",
        "metadata": metadata(),
        "bootstrapTokens": [{"token": input.token}],
        "localAPIEndpoint": local_endpoint(addresses),
        "nodeRegistration": node_registration(input, api, addresses, labels),
    });
    if api >= ApiVersion::V1Beta3 {
        // Its checks are for real machines, and it would pull images that are in the node image already.
        let mut skipped = vec!["preflight"];
        if input.cluster.networking.kube_proxy_mode == KubeProxyMode::None {
            skipped.push("addon/kube-proxy");
        }
        object["skipPhases"] = json!(skipped);
    }
    object
}

fn join_configuration(
    input: &Input<'_>,
    api: ApiVersion,
    addresses: &[String],
    control_plane: bool,
    labels: &BTreeMap<String, String>,
) -> Value {
    let mut discovery = json!({"apiServerEndpoint": input.control_plane_endpoint, "token": input.token});
    match input.ca_cert_hash {
        Some(hash) => discovery["caCertHashes"] = json!([hash]),
        None => discovery["unsafeSkipCAVerification"] = json!(true),
    }
    let mut object = json!({
        "apiVersion": api.as_str(),
        "kind": "JoinConfiguration",
        "metadata": metadata(),
        "nodeRegistration": node_registration(input, api, addresses, labels),
        "discovery": {"bootstrapToken": discovery},
    });
    if control_plane {
        object["controlPlane"] = json!({"localAPIEndpoint": local_endpoint(addresses)});
    }
    if api >= ApiVersion::V1Beta3 {
        object["skipPhases"] = json!(["preflight"]);
    }
    object
}

fn kubelet_configuration(input: &Input<'_>, version: &KubernetesVersion) -> Value {
    let mut object = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "metadata": metadata(),
        "cgroupDriver": version.cgroup_driver(),
        "cgroupRoot": "/kubelet",
        "failSwapOn": false,
        // The kubelet sees the host's disk, whose fill level is none of its business: no eviction, no image
        // removal.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
    });
    if input.cluster.networking.ip_family == IpFamily::Ipv6 {
        object["address"] = json!("::");
        object["healthzBindAddress"] = json!("::");
    }
    if input.cgroup_v1 && version.refuses_cgroup_v1() {
        object["failCgroupV1"] = json!(false);
    }
    add_feature_gates(&mut object, input);
    object
}

fn kube_proxy_configuration(input: &Input<'_>) -> Value {
    let mode = input.cluster.networking.kube_proxy_mode;
    // Limits of the connection table are the host's, not a node's to set.
    let mut conntrack = json!({"maxPerCore": 0});
    if mode == KubeProxyMode::Nftables {
        // https://github.com/kubernetes/kubernetes/issues/117924
        conntrack["tcpBeLiberal"] = json!(true);
    }
    let mut object = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "metadata": metadata(),
        "mode": mode.as_str(),
        "iptables": {"minSyncPeriod": "1s"},
        "conntrack": conntrack,
    });
    add_feature_gates(&mut object, input);
    object
}

fn add_feature_gates(object: &mut Value, input: &Input<'_>) {
    if !input.cluster.feature_gates.is_empty() {
        object["featureGates"] = json!(input.cluster.feature_gates);
    }
}

fn local_endpoint(addresses: &[String]) -> Value {
    json!({"advertiseAddress": addresses.first(), "bindPort": API_PORT})
}

fn node_registration(
    input: &Input<'_>,
    api: ApiVersion,
    addresses: &[String],
    labels: &BTreeMap<String, String>,
) -> Value {
    let kubelet = vec![
        ("node-ip", addresses.join(",")),
        ("provider-id", format!("kind://{}/{}/{}", input.engine, input.cluster.name, input.name)),
        ("node-labels", joined(labels)),
    ];
    json!({"criSocket": CRI_SOCKET, "kubeletExtraArgs": arguments(api, kubelet)})
}

/// Arguments as the API version writes them; null when there are none, where a patch may still put some.
fn arguments(api: ApiVersion, arguments: Arguments<'_>) -> Value {
    if arguments.is_empty() {
        return Value::Null;
    }
    if api >= ApiVersion::V1Beta4 {
        return arguments.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
    let map: Map<_, _> =
        arguments.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect();
    Value::Object(map)
}

/// `key=value` pairs separated by commas, sorted by key.
fn joined<V: std::fmt::Display>(map: &BTreeMap<String, V>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
