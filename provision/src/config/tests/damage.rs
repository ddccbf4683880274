//! Configurations that were fine before something happened to them: accepted or refused, but always in the same way.

use super::*;
use crate::damage::cases;

/// Configurations of every shape, to be damaged.
const CORPUS: [&str; 4] = [
    "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n",
    r#"kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: full
nodes:
- &node
  role: control-plane
  image: "kindest/node:v1.36.1"
  labels: {tier: 'front end', number: 0x1F}
  extraMounts:
  - {hostPath: ./data, containerPath: /data, readOnly: yes, propagation: HostToContainer}
  extraPortMappings:
  - containerPort: 80
    hostPort: 8080
    listenAddress: "::"
    protocol: UDP
- {<<: *node, role: worker}
networking: {ipFamily: dual, podSubnet: "10.1.0.0/16,fd00::/56", kubeProxyMode: nftables, dnsSearch: []}
featureGates: {A: true}
runtimeConfig: {api/all: "true"}
"#,
    r#"kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
kubeadmConfigPatches:
- |
  kind: ClusterConfiguration
  apiServer:
    extraArgs: &args
    - {name: v, value: "3"}
    certSANs: [a.example]
  ---
  kind: InitConfiguration
  nodeRegistration: {kubeletExtraArgs: {v: ~}}
kubeadmConfigPatchesJSON6902:
- group: kubeadm.k8s.io
  version: v1beta4
  kind: ClusterConfiguration
  patch: |
    - {op: add, path: /apiServer/certSANs/-, value: b.example}
    - {op: test, path: /kind, value: ClusterConfiguration}
"#,
    r#"kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
- |-
  version = 3
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"
containerdConfigPatchesJSON6902:
- '[{"op": "replace", "path": "/root", "value": "/x"}, {"op": "move", "from": "/a", "path": "/b"}]'
"#,
];

/// What of a text may be put in the place of some of its bytes.
fn any_damage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "*node", "&node ", "<<: ", "---\n", "\n", "  ", "- ", "{", "[", "]", "}", ": ", "? ", "\"", "'",
            "|", ">-", "~", "!!str ", "-1", "0x", "1e9", "\0", "\u{feff}", "#", "\t", "/-", "/~1", "null",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// A corpus entry with some of its bytes replaced, as far as that is still text.
fn damaged() -> impl Strategy<Value = String> {
    let damages = prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, any_damage()), 0..6);
    (prop::sample::select(CORPUS.to_vec()), damages).prop_map(|(text, damages)| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, length, damage) in damages {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..(at + length).min(bytes.len()), damage);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[test]
fn the_corpus_is_sound() {
    for text in CORPUS {
        let cluster = load(text, "test.yaml").unwrap();
        render(&cluster, "v1.36.1", None).unwrap();
    }
}

proptest! {
    // What the fuzz target does as well, which sees where its inputs lead.
    #![proptest_config(ProptestConfig::with_cases(cases(1500)))]

    #[test]
    fn damage_is_accepted_or_refused_the_same_way_twice(text in damaged()) {
        const BASE: &str = "version = 3\nroot = '/var/lib/containerd'\n[a]\nb = 1\n";
        let outcome = || {
            let cluster = load(&text, "test.yaml").map_err(|error| error.to_string())?;
            let rendered = render(&cluster, "v1.36.1", Some(BASE)).map_err(|error| error.to_string())?;
            // What was accepted is remembered with the cluster, and must come back as it was.
            let kept = serde_json::to_string(&cluster).map_err(|error| error.to_string())?;
            let back: Cluster = serde_json::from_str(&kept).map_err(|error| error.to_string())?;
            Ok::<_, String>((cluster, rendered, back))
        };
        let (first, second) = (outcome(), outcome());
        prop_assert_eq!(&first, &second);
        match first {
            Ok((cluster, _, back)) => prop_assert_eq!(cluster, back),
            Err(message) => prop_assert!(!message.is_empty() && message.len() < 20_000, "{}", message),
        }
    }
}
