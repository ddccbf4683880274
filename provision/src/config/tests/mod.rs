//! Defaults, rules and messages of configurations.

mod damage;

use std::{net::IpAddr, path::Path};

use proptest::prelude::*;

use super::*;

const HEADER: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";

fn cluster(body: &str) -> Cluster {
    load(&format!("{HEADER}{body}"), "test.yaml").unwrap()
}

/// The messages a configuration is refused with; none when it is accepted.
fn messages(body: &str) -> Vec<String> {
    match load(&format!("{HEADER}{body}"), "test.yaml") {
        Ok(_) => Vec::new(),
        Err(Error::Config { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_empty_configuration_is_the_default_cluster() {
    let cluster = cluster("");
    assert_eq!(cluster, Cluster::single_node("kind"));
    assert_eq!(cluster.nodes, vec![Node::new(Role::ControlPlane)]);
    assert_eq!(cluster.networking.api_server_address, "127.0.0.1");
    assert_eq!(cluster.networking.api_server_port, None);
    assert_eq!(cluster.networking.pod_subnet.as_str(), "10.244.0.0/16");
    assert_eq!(cluster.networking.service_subnet.as_str(), "10.96.0.0/16");
    assert_eq!(cluster.networking.kube_proxy_mode, KubeProxyMode::Iptables);
    assert_eq!(cluster.networking.dns_search, None);
}

#[test]
fn families_have_their_own_defaults() {
    for (family, address, pods, services) in [
        ("ipv4", "127.0.0.1", "10.244.0.0/16", "10.96.0.0/16"),
        ("ipv6", "::1", "fd00:10:244::/56", "fd00:10:96::/112"),
        ("dual", "127.0.0.1", "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"),
    ] {
        let networking = cluster(&format!("networking: {{ipFamily: {family}}}\n")).networking;
        assert_eq!(networking.api_server_address, address);
        assert_eq!((networking.pod_subnet.as_str(), networking.service_subnet.as_str()), (pods, services));
    }
}

#[test]
fn every_field_arrives() {
    let cluster = cluster(
        r#"name: full
nodes:
- role: control-plane
  image: kindest/node:v1.36.1
  labels: {tier: frontend, number: 5}
  extraMounts:
  - {hostPath: ./data, containerPath: /data, readOnly: true, selinuxRelabel: yes, propagation: Bidirectional}
  extraPortMappings:
  - {containerPort: 80, hostPort: 8080, listenAddress: 127.0.0.1, protocol: udp}
  - {containerPort: 81}
  kubeadmConfigPatches: ["kind: KubeletConfiguration"]
  kubeadmConfigPatchesJSON6902:
  - {group: g, version: v, kind: k, patch: '[{"op": "remove", "path": "/a"}]'}
- role: worker
networking:
  ipFamily: dual
  apiServerPort: 6443
  apiServerAddress: 0.0.0.0
  podSubnet: fd00::/56,10.0.0.0/16
  disableDefaultCNI: true
  kubeProxyMode: none
  dnsSearch: [a.example, b.example]
featureGates: {A: true}
runtimeConfig: {api/all: true}
kubeadmConfigPatches: ["kind: ClusterConfiguration"]
containerdConfigPatches: ["root = '/x'"]
containerdConfigPatchesJSON6902: ["[]"]
"#,
    );
    let node = &cluster.nodes[0];
    assert_eq!(cluster.name, "full");
    assert_eq!(node.image.as_deref(), Some("kindest/node:v1.36.1"));
    assert_eq!(node.labels["number"], "5");
    let mount = &node.extra_mounts[0];
    assert!(mount.read_only && mount.selinux_relabel && mount.propagation == MountPropagation::Bidirectional);
    let [first, second] = node.extra_port_mappings.as_slice() else { panic!("two mappings") };
    assert_eq!((first.container_port, first.host_port, first.protocol), (80, Some(8080), Protocol::Udp));
    assert_eq!((second.host_port, second.listen_address), (None, "0.0.0.0".parse::<IpAddr>().unwrap()));
    assert_eq!(node.kubeadm_config_patches_json6902[0].kind, "k");
    assert_eq!(cluster.nodes[1].role, Role::Worker);
    assert_eq!(cluster.networking.api_server_port, Some(6443));
    assert_eq!(cluster.networking.pod_subnet.as_str(), "fd00::/56,10.0.0.0/16");
    assert!(cluster.networking.disable_default_cni);
    assert_eq!(cluster.networking.kube_proxy_mode, KubeProxyMode::None);
    assert_eq!(cluster.networking.dns_search, Some(vec!["a.example".into(), "b.example".into()]));
    assert_eq!(cluster.runtime_config["api/all"], "true");
    assert!(cluster.patches_containerd());

    let mut resolved = cluster.clone();
    resolved.resolve_paths(Path::new("/home/me"));
    assert_eq!(resolved.nodes[0].extra_mounts[0].host_path, Path::new("/home/me/./data"));

    let json = serde_json::to_string(&cluster).unwrap();
    assert_eq!(serde_json::from_str::<Cluster>(&json).unwrap(), cluster);
}

#[test]
fn null_is_unset_and_null_items_are_dropped() {
    assert_eq!(cluster("name: ~\nnodes:\nnetworking:\nfeatureGates: ~\n"), Cluster::single_node("kind"));
    assert_eq!(cluster("nodes: [~]\n"), Cluster::single_node("kind"));
    assert_eq!(cluster("nodes: [{}, ~, {role: worker}]\n").nodes.len(), 2);
    assert_eq!(cluster("networking: {dnsSearch: []}\n").networking.dns_search, Some(Vec::new()));
    assert_eq!(cluster("nodes: [{labels: {a: ~}}]\n").nodes[0].labels["a"], "");
}

#[test]
fn values_are_read_as_go_reads_them() {
    for (word, expected) in [("true", true), ("yes", true), ("On", true), ("\"y\"", true), ("off", false)] {
        let networking = cluster(&format!("networking: {{disableDefaultCNI: {word}}}\n")).networking;
        assert_eq!(networking.disable_default_cni, expected, "{word}");
    }
    for (number, expected) in
        [("0x50", Some(80)), ("0120", Some(80)), ("80.7", Some(80)), ("-1", None), ("0", None)]
    {
        let networking = cluster(&format!("networking: {{apiServerPort: {number}}}\n")).networking;
        assert_eq!(networking.api_server_port, expected, "{number}");
    }
    assert_eq!(cluster("name: 1.10\n").name, "1.10");
    for (body, message) in [
        (
            "networking: {disableDefaultCNI: \"true\"}\n",
            "line 3, column 34: networking.disableDefaultCNI must be true or false, not the text `true`",
        ),
        (
            "networking: {disableDefaultCNI: 1}\n",
            "line 3, column 33: networking.disableDefaultCNI must be true or false, not `1`",
        ),
        (
            "networking: {apiServerPort: '80'}\n",
            "line 3, column 29: networking.apiServerPort must be a whole number, not the text `80`",
        ),
    ] {
        let found = messages(body);
        assert_eq!(found.len(), 1, "{body}");
        // Columns of quoted text are the parser's business.
        assert_eq!(found[0].split(": ").nth(1), message.split(": ").nth(1), "{body}");
    }
}

#[test]
fn each_broken_rule_has_its_message() {
    for (body, expected) in [
        (
            "name: Bad_Name\n",
            "line 3, column 7: `Bad_Name` is not a cluster name: those match `^[a-z0-9.-]+$`",
        ),
        ("foo: bar\n", "line 3, column 1: unknown field `foo`"),
        ("nodes:\n- cpu: 2\n", "line 4, column 3: unknown field `cpu` in nodes[0]"),
        ("nodes:\n- role: foo\n- {}\n", "line 4, column 9: nodes[0].role cannot be `foo`"),
        (
            &format!("nodes:\n{}", "- {}\n".repeat(254)),
            "line 4, column 3: a cluster has at most 253 nodes, not 254",
        ),
        ("nodes:\n- role: worker\n", "line 4, column 3: there must be at least one control-plane node"),
        ("name: a\nname: b\n", "line 4, column 1: `name` is already set on line 3"),
        ("nodes: 5\n", "line 3, column 8: nodes must be a list, not a single value"),
        ("name: [a]\n", "line 3, column 7: name must be text, not a list"),
        ("networking: {ipFamily: ds}\n", "line 3, column 24: networking.ipFamily cannot be `ds`"),
        ("networking: {kubeProxyMode: x}\n", "line 3, column 29: networking.kubeProxyMode cannot be `x`"),
        (
            "networking: {apiServerPort: 65536}\n",
            "line 3, column 29: networking.apiServerPort must be a port between 1 and 65535, not 65536",
        ),
        (
            "nodes:\n- extraMounts:\n  - propagation: Foo\n",
            "line 5, column 18: nodes[0].extraMounts[0].propagation cannot be `Foo`",
        ),
        (
            "nodes:\n- extraPortMappings:\n  - protocol: icmp\n",
            "line 5, column 15: nodes[0].extraPortMappings[0].protocol cannot be `ICMP`",
        ),
        (
            "nodes:\n- extraPortMappings:\n  - listenAddress: foo\n",
            "line 5, column 20: nodes[0].extraPortMappings[0].listenAddress must be an address, not `foo`",
        ),
        (
            "containerdConfigPatches: ['x = [']\n",
            "containerdConfigPatches[0]: line 1, column 6: unclosed array, expected `]`",
        ),
        (
            "kubeadmConfigPatches: ['b o g u s']\n",
            "kubeadmConfigPatches[0]: a merge patch must be a mapping with a kind",
        ),
        (
            "kubeadmConfigPatchesJSON6902: [{kind: X, patch: 'op: add'}]\n",
            "kubeadmConfigPatchesJSON6902[0].patch: operations must be a list of mappings with `op` and `path`",
        ),
        ("nodes: *x\n", "while parsing node, found unknown anchor"),
    ] {
        let found = messages(body);
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert!(found[0].ends_with(expected), "{body}: {found:?}");
    }
}

#[test]
fn all_problems_are_reported_together_and_in_order() {
    let found = messages(
        "name: Bad\nnodes:\n- role: worker\n  cpu: 2\nnetworking:\n  podSubnet: aa\n  serviceSubnet: fd00::/56\nfoo: 1\n",
    );
    assert_eq!(
        found,
        [
            "line 3, column 7: `Bad` is not a cluster name: those match `^[a-z0-9.-]+$`",
            "line 5, column 3: there must be at least one control-plane node",
            "line 6, column 3: unknown field `cpu` in nodes[0]",
            "line 8, column 14: networking.podSubnet: `aa` is not an address with a prefix length, such as 10.244.0.0/16",
            "line 9, column 18: networking.serviceSubnet: expected an IPv4 subnet, because ipFamily is ipv4",
            "line 10, column 1: unknown field `foo`",
        ]
    );
}

#[test]
fn the_type_is_checked_before_anything_else() {
    for (text, expected) in [
        ("", "it is empty"),
        ("kind: Cluster\nfoo: bar\n", "there is no apiVersion"),
        ("apiVersion: kind.x-k8s.io/v1alpha4\n", "there is no kind"),
        (
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha3\n",
            "unknown apiVersion `kind.x-k8s.io/v1alpha3`",
        ),
        (
            "kind: Pod\napiVersion: kind.x-k8s.io/v1alpha4\n",
            "unknown kind `Pod` for apiVersion kind.x-k8s.io/v1alpha4",
        ),
        ("just text", "there is no apiVersion"),
    ] {
        let error = load(text, "test.yaml").unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn misspelt_fields_come_with_a_hint() {
    let error = load(&format!("{HEADER}nodes:\n- rolle: worker\n"), "test.yaml").unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean `role`?"));
}

#[test]
fn anchors_and_merges_fill_in_what_is_not_said() {
    let cluster = cluster(
        "nodes:\n- &a {role: control-plane, image: one}\n- &b {role: worker, labels: {x: y}}\n\
         - <<: *b\n  image: two\n- <<: [*b, *a]\n- *b\n",
    );
    let nodes: Vec<_> =
        cluster.nodes.iter().map(|node| (node.role, node.image.as_deref(), node.labels.len())).collect();
    use Role::{ControlPlane, Worker};
    let expected = [
        (ControlPlane, Some("one"), 0),
        (Worker, None, 1),
        (Worker, Some("two"), 1),
        (Worker, Some("one"), 1),
        (Worker, None, 1),
    ];
    assert_eq!(nodes, expected);
    assert_eq!(messages("nodes:\n- <<: 5\n").len(), 1);
}

#[test]
fn a_name_from_elsewhere_replaces_the_files() {
    let text = format!("{HEADER}name: Bad_Name\n");
    assert!(load(&text, "test.yaml").is_err());
    assert_eq!(load_named(&text, "test.yaml", Some("good")).unwrap().name, "good");
    assert!(load_named(HEADER, "test.yaml", Some("Bad")).is_err());
}

#[test]
fn port_mappings_of_a_node_must_differ() {
    let clash = |first: &str, second: &str| {
        let body = format!(
            "nodes:\n- extraPortMappings:\n  - {{containerPort: 1, {first}}}\n  - {{containerPort: 2, {second}}}\n"
        );
        !messages(&body).is_empty()
    };
    for (first, second, expected) in [
        ("hostPort: 80", "hostPort: 80", true),
        ("hostPort: 80", "hostPort: 80, protocol: UDP", false),
        ("hostPort: 80, listenAddress: 127.0.0.1", "hostPort: 80, listenAddress: 127.0.0.1", true),
        ("hostPort: 80, listenAddress: 127.0.0.1", "hostPort: 80, listenAddress: 127.0.0.2", false),
        ("hostPort: 80, listenAddress: 127.0.0.1", "hostPort: 80", true),
        ("hostPort: 80, listenAddress: '::'", "hostPort: 80, listenAddress: 127.0.0.1", true),
        ("hostPort: 80, listenAddress: '::1'", "hostPort: 80, listenAddress: 127.0.0.1", false),
        ("hostPort: 0", "hostPort: 0", false),
        ("hostPort: -1", "hostPort: -1", false),
    ] {
        assert_eq!(clash(first, second), expected, "{first} and {second}");
    }
}

#[test]
fn preflight_finds_what_the_format_lets_through() {
    let cluster = cluster(
        "nodes:\n- extraPortMappings: [{hostPort: 80}]\n  extraMounts: [{containerPath: relative}]\n\
         - role: worker\n  extraPortMappings: [{hostPort: 80, containerPort: 80}]\nnetworking: {apiServerAddress: foo}\n",
    );
    let Err(Error::Config { problems, .. }) = preflight(&cluster, "test.yaml") else { panic!("accepted") };
    let found: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        found,
        [
            "networking.apiServerAddress must be an address, not `foo`",
            "a port mapping of kind-control-plane has no containerPort",
            "a mount of kind-control-plane has no hostPath",
            "the containerPath of a mount of kind-control-plane must be absolute, not `relative`",
            "kind-worker and kind-control-plane both want 0.0.0.0 port 80/TCP",
        ]
    );
    assert!(preflight(&Cluster::single_node("kind"), "test.yaml").is_ok());
    assert!(preflight(&Cluster::single_node("a".repeat(49)), "test.yaml").is_ok());
    assert!(preflight(&Cluster::single_node("a".repeat(50)), "test.yaml").is_err());
}

#[test]
fn bombs_and_odd_bytes_are_refused() {
    let mut bomb = format!(
        "{HEADER}kubeadmConfigPatches:\n- |\n  kind: ClusterConfiguration\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    );
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("  a{level}: &a{level} [{aliases}]\n"));
    }
    let error = load(&bomb, "test.yaml").unwrap_err();
    assert!(error.to_string().contains("aliases blow the document up"), "{error}");
    let mut merges = format!("{HEADER}m0: &m0 {{name: a}}\n");
    for level in 1..12 {
        let aliases = vec![format!("*m{}", level - 1); 10].join(", ");
        merges.push_str(&format!("m{level}: &m{level} {{<<: [{aliases}]}}\n"));
    }
    let error = load(&format!("{merges}<<: *m11\n"), "test.yaml").unwrap_err();
    assert!(error.to_string().contains("aliases blow the configuration up"), "{error}");
    assert!(!messages("name: a\0b\n").is_empty());
    assert!(!messages(&format!("nodes: {}\n", "[".repeat(10_000))).is_empty());
    assert_eq!(messages(&"foo: bar\n".repeat(1000)).len(), 20);
    assert!(messages(&format!("name: {}\n", "A".repeat(10_000)))[0].len() < 400);
    let large = "# padding\n".repeat(200_000);
    assert!(load(&format!("{HEADER}{large}"), "test.yaml").is_ok());
}

#[test]
fn rendering_covers_every_node() {
    let cluster = cluster("name: dev\nnodes: [{}, {}, {role: worker}]\nnetworking: {ipFamily: dual}\n");
    let rendered = render(&cluster, "v1.36.1", None).unwrap();
    let rows: Vec<_> = rendered
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node.ipv4.unwrap().to_string(), node.ipv6.unwrap().to_string()))
        .collect();
    let row = |name, ipv4: &str, ipv6: &str| (name, ipv4.to_owned(), ipv6.to_owned());
    let expected = [
        row("dev-control-plane", "172.30.0.2", "fd00:6b69:6c6e::2"),
        row("dev-control-plane2", "172.30.0.3", "fd00:6b69:6c6e::3"),
        row("dev-worker", "172.30.0.4", "fd00:6b69:6c6e::4"),
        row("dev-external-load-balancer", "172.30.0.5", "fd00:6b69:6c6e::5"),
    ];
    assert_eq!(rows, expected);
    assert_eq!(rendered.nodes.iter().filter(|node| node.kubeadm.is_some()).count(), 3);
}

#[test]
fn rendering_is_written_as_files() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster("containerdConfigPatches: [\"root = '/x'\"]\n");
    render(&cluster, "v1.36.1", Some("version = 3\n")).unwrap().write(directory.path()).unwrap();
    let read = |name: &str| fs_err::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(read("kind-control-plane/containerd.toml"), "root = \"/x\"\nversion = 3\n");
    assert!(read("kind-control-plane/kubeadm.yaml").contains("kind: ClusterConfiguration"));
    let nodes: serde_json::Value = serde_json::from_str(&read("nodes.json")).unwrap();
    let expected = serde_json::json!([
        {"name": "kind-control-plane", "role": "control-plane", "ipv4": "172.30.0.2", "ipv6": null},
    ]);
    assert_eq!(nodes, expected);
}

/// Text that often is a configuration, nearly one, or nothing like one.
fn any_text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "control-plane",
        "worker",
        "ipv4",
        "dual",
        "80",
        "-1",
        "yes",
        "~",
        "[]",
        "{}",
        "'x'",
        "10.0.0.0/16",
        "fd00::/64",
        "[{role: worker}, {}]",
        "{ipFamily: ipv6}",
        "*a",
        "&a {}",
        "|\n  kind: ClusterConfiguration\n  x: 1",
        "\"",
        "\u{e9}",
    ]);
    let key = prop::sample::select(vec![
        "name",
        "nodes",
        "networking",
        "featureGates",
        "runtimeConfig",
        "kubeadmConfigPatches",
        "containerdConfigPatches",
        "<<",
        "foo",
        "- role",
        "  image",
    ]);
    let line = (key, word).prop_map(|(key, word)| format!("{key}: {word}\n"));
    prop_oneof![
        prop::collection::vec(line, 0..8).prop_map(|lines| format!("{HEADER}{}", lines.concat())),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn reading_and_rendering_are_deterministic(text in any_text()) {
        let outcome = || load(&text, "test.yaml").map(|cluster| render(&cluster, "v1.36.1", None).map_err(|error| error.to_string()));
        match (outcome(), outcome()) {
            (Ok(first), Ok(second)) => prop_assert_eq!(first, second),
            (Err(first), Err(second)) => prop_assert_eq!(first.to_string(), second.to_string()),
            _ => prop_assert!(false, "accepted once and refused once"),
        }
    }
}
