//! A cluster from a template is what kubeadm would have made, with keys of its own.

use std::collections::{BTreeMap, BTreeSet};

use fs_err as fs;
use kiln_integration::{
    Cluster, Finished, Fixture, Steps,
    cluster::{API_SERVICE, items},
    template,
};
use serde_json::{Value, json};

/// Names of one length, so that one can stand for another in texts.
const PLAIN: &str = "it-plain";
const SEED: &str = "it-seeds";
const TEMPLATE: &str = "it-templ";

#[test]
fn a_cluster_from_a_template_is_what_kubeadm_makes() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let nodes = json!([{ "role": "control-plane" }, { "role": "worker", "labels": { "tier": "backend" } }]);
    let config = template::unique_configuration(&fixture, &nodes);
    let create = |name: &str, how: &str| {
        fixture
            .create(name, &["--config", &config, "--bootstrap", how, "--wait", "3m", "-v", "1"])
            .succeeded()
    };
    let mut plain = None;
    steps.step("kubeadm alone makes a cluster, and leaves no template", || {
        let said = create(PLAIN, "kubeadm");
        assert!(!said.stderr().contains("template"), "{}", said.report());
        settle(&fixture, PLAIN);
        plain = Some((objects(&fixture, PLAIN), secrets(&fixture, PLAIN)));
        let _ = fixture.delete(PLAIN);
    });
    steps.step("the first cluster of its kind leaves a template", || {
        let said = create(SEED, "auto");
        assert!(said.stderr().contains("has a template"), "{}", said.report());
    });
    let seed = fixture.clusters().contains(&SEED.to_owned()).then(|| secrets(&fixture, SEED));
    if seed.is_some() {
        let _ = fixture.delete(SEED);
    }
    let mut made = false;
    steps.step("the next one comes from it, in its own right", || {
        let said = create(TEMPLATE, "template");
        assert!(!said.stderr().contains("[init]"), "kubeadm init ran:\n{}", said.report());
        assert!(!said.stderr().contains("[preflight]"), "kubeadm join ran:\n{}", said.report());
        settle(&fixture, TEMPLATE);
        made = true;
    });
    if let (true, Some((plain, plain_secrets)), Some(seed)) = (made, plain, seed) {
        steps.step("it holds the objects that kubeadm makes", || {
            compare(&plain, &objects(&fixture, TEMPLATE))
        });
        steps.step("the kubelet of its worker is who it says, and may no more", || worker(&fixture));
        steps.step("no two clusters share a key, a token or an identity", || {
            let own = secrets(&fixture, TEMPLATE);
            for other in [&plain_secrets, &seed] {
                let shared: Vec<_> = own.intersection(other).collect();
                assert!(shared.is_empty(), "{shared:?}");
            }
        });
        steps.step("kubeadm knows its certificates, and can give out tokens", || kubeadm(&fixture));
        steps.step("its pods answer", || {
            let cluster = Cluster::new(fixture.kiln(), TEMPLATE);
            assert_eq!(cluster.resolve(None, API_SERVICE), "10.96.0.1");
        });
    }
    steps.step("a damaged template is thrown away, and kubeadm goes on", || damaged(&fixture, &config));
    steps.step("a template that cannot be is refused by name", || {
        let refused = fixture.create(TEMPLATE, &["--pod-network", "image", "--bootstrap", "template"]);
        refused.exited(1).refused(&["there can be no template", "pod network"]);
    });
    for name in fixture.clusters() {
        let _ = fixture.delete(&name);
    }
    steps.step("nothing is left", || fixture.assert_nothing_left());
    template::forget(&fixture, &[SEED, PLAIN]);
    steps.finish();
}

/// A cluster whose nodes are given files.
const GIVEN: &str = "it-given";

#[test]
fn what_is_mounted_into_a_node_has_its_effect() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let directory = |name: &str| {
        let path = fixture.directory().join(name);
        fs::create_dir(&path).expect("the fixture's directory is writable");
        path
    };
    let node = format!("{GIVEN}-control-plane");
    let read = |path: &str| fixture.kiln().run(&["exec", &node, "--", "cat", path]).succeeded().stdout();
    let (patches, keys) = (directory("patches"), directory("keys"));
    let configuration = template::unique_configuration(
        &fixture,
        &json!([{
            "role": "control-plane",
            "extraMounts": [{ "hostPath": patches, "containerPath": "/patches" }],
            "kubeadmConfigPatches": ["kind: InitConfiguration\npatches: {directory: /patches}\n"],
        }]),
    );
    let patch = |value: &str| {
        let text = format!("metadata:\n  annotations: {{kiln.test/patch: {value}}}\n");
        fs::write(patches.join("kube-scheduler+strategic.yaml"), text).expect("the directory is writable");
    };
    let create = |configuration: &str| {
        fixture
            .create(GIVEN, &["--config", configuration, "--wait", "3m", "-v", "1"])
            .succeeded()
            .stderr()
            .to_owned()
    };
    let patched = |value: &str| {
        let manifest = read("/etc/kubernetes/manifests/kube-scheduler.yaml");
        assert!(manifest.contains(&format!("kiln.test/patch: {value}")), "{manifest}");
    };
    steps.step("kubeadm's patches have their effect, and so they have by a template", || {
        patch("one");
        let said = create(&configuration);
        assert!(said.contains("leaves a template"), "{said}");
        assert!(!said.contains("does not print its CoreDNS"), "{said}");
        patched("one");
        let _ = fixture.delete(GIVEN);
        assert!(!create(&configuration).contains("by kubeadm"));
        patched("one");
    });
    let mut authority = None;
    steps.step("patches that have changed do not meet what they were before", || {
        let pki = |file: &str| read(&format!("/etc/kubernetes/pki/{file}"));
        authority = Some((pki("ca.crt"), pki("ca.key")));
        let _ = fixture.delete(GIVEN);
        patch("two");
        assert!(create(&configuration).contains("leaves a template"));
        patched("two");
    });
    let _ = fixture.delete(GIVEN);
    if let Some((certificate, key)) = authority {
        steps.step("an authority of the user's is the cluster's", || {
            for (file, text) in [("ca.crt", &certificate), ("ca.key", &key)] {
                fs::write(keys.join(file), text).expect("the directory is writable");
            }
            let nodes = json!([{
                "role": "control-plane",
                "extraMounts": [{ "hostPath": keys, "containerPath": "/etc/kubernetes/pki" }],
            }, { "role": "worker" }]);
            let said = create(&template::unique_configuration(&fixture, &nodes));
            assert!(
                said.contains("an extra mount is in the place of what it makes, /etc/kubernetes/pki"),
                "{said}"
            );
            let cluster = Cluster::new(fixture.kiln(), GIVEN);
            assert_eq!(cluster.resolve(None, API_SERVICE), "10.96.0.1");
            let published = ["get", "cm", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}"];
            let published = fixture.kiln().kubectl(GIVEN, &published).succeeded().stdout();
            assert_eq!(published.trim(), certificate.trim());
        });
        steps.step("which is still the user's when the cluster is not", || {
            let _ = fixture.delete(GIVEN);
            let kept = |file: &str| fs::read_to_string(keys.join(file)).expect("it is still there");
            assert_eq!((kept("ca.crt"), kept("ca.key")), (certificate, key));
            assert!(kept("apiserver.crt").contains("CERTIFICATE"), "kubeadm writes the others beside it");
        });
    }
    steps.step("an API server that encrypts what it stores leaves none", || {
        encrypted(&fixture, create);
    });
    for name in fixture.clusters() {
        let _ = fixture.delete(&name);
    }
    steps.step("nothing is left", || fixture.assert_nothing_left());
    template::forget(&fixture, &[GIVEN]);
    steps.finish();
}

/// A cluster whose secrets are encrypted, and cannot be read when they are not.
fn encrypted(fixture: &Fixture, create: impl Fn(&str) -> String) {
    let settings = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [{ "aescbc": { "keys": [{ "name": "one", "secret": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" }] } }],
        }],
    });
    let file = fixture.directory().join("encryption.yaml");
    fs::write(&file, settings.to_string()).expect("the fixture's directory is writable");
    let nodes = json!([{
        "role": "control-plane",
        "extraMounts": [{ "hostPath": file, "containerPath": "/etc/kubernetes/encryption/settings.yaml" }],
        "kubeadmConfigPatches": ["kind: ClusterConfiguration\napiServer:\n  \
            extraArgs: {encryption-provider-config: /etc/kubernetes/encryption/settings.yaml}\n  \
            extraVolumes: [{name: enc, hostPath: /etc/kubernetes/encryption, mountPath: /etc/kubernetes/encryption}]\n"],
    }]);
    let said = create(&template::unique_configuration(fixture, &nodes));
    assert!(said.contains("leaves no template: its API server has --encryption-provider-config="), "{said}");
    let _ = fixture
        .kiln()
        .kubectl(GIVEN, &["create", "secret", "generic", "plain", "--from-literal=a=b"])
        .succeeded();
    let etcd = format!("etcd-{GIVEN}-control-plane");
    let pki = "/etc/kubernetes/pki/etcd";
    let credentials = [
        format!("--cacert={pki}/ca.crt"),
        format!("--cert={pki}/server.crt"),
        format!("--key={pki}/server.key"),
    ];
    let mut ask = vec!["exec", "-n", "kube-system", &etcd, "--", "etcdctl"];
    ask.extend(credentials.iter().map(String::as_str));
    ask.extend(["get", "/registry/secrets/default/plain", "--print-value-only", "--hex"]);
    let stored = fixture.kiln().kubectl(GIVEN, &ask).succeeded().stdout();
    // k8s:enc:
    assert!(stored.starts_with("\\x6b\\x38\\x73\\x3a\\x65\\x6e\\x63\\x3a"), "{stored}");
    let _ = fixture.kiln().kubectl(GIVEN, &["get", "secrets", "-A"]).succeeded();
}

/// Waits until the add-ons run and everything that controllers make is there.
fn settle(fixture: &Fixture, name: &str) {
    for (namespace, workload) in [
        ("kube-system", "deployment/coredns"),
        ("kube-system", "daemonset/kube-proxy"),
        ("local-path-storage", "deployment/local-path-provisioner"),
    ] {
        let args = ["rollout", "status", workload, "-n", namespace, "--timeout=90s"];
        let _ = fixture.kiln().kubectl(name, &args).succeeded();
    }
}

/// What is of a moment, or of nodes and pods, and what only tells where something came from.
const SKIPPED: &str = "^(events|events.events.k8s.io|leases.coordination.k8s.io|pods|endpoints|endpointslices.*|\
                       componentstatuses|certificatesigningrequests.*|csinodes.*|bindings)$";

/// Every object of a cluster by kind, namespace and name, without what must differ.
fn objects(fixture: &Fixture, name: &str) -> BTreeMap<String, Value> {
    let script = format!(
        "kubectl get \"$(kubectl api-resources --verbs=list -o name | grep -vE '{SKIPPED}' | paste -sd,)\" -A -o json"
    );
    let node = format!("{name}-control-plane");
    let said = fixture.kiln().run(&["exec", &node, "--", "sh", "-c", &script]).succeeded();
    let cluster = Cluster::new(fixture.kiln(), name);
    let text = said.stdout().replace(name, "CLUSTER");
    let text = ["control-plane", "worker"].iter().fold(text, |text, role| {
        let address = cluster.node_address(&format!("{name}-{role}")).to_string();
        text.replace(&address, &format!("ADDRESS-{role}"))
    });
    let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    // Named by a hash over what holds the cluster's name; its DaemonSet is compared.
    let is_hashed = |key: &str| key.starts_with("ControllerRevision kube-system/kiln-network-");
    let all = items(&list).map(|object| (key(object), neutral(object)));
    all.filter(|(key, _)| !is_hashed(key)).collect()
}

fn key(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&object["metadata"]["name"]);
    // Named by its random token.
    let name = if name.starts_with("bootstrap-token-") { "bootstrap-token".to_owned() } else { name };
    format!("{} {}/{name}", text(&object["kind"]), text(&object["metadata"]["namespace"]))
}

fn neutral(object: &Value) -> Value {
    let mut object = object.clone();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let fields = object.as_object_mut().expect("an object is one");
    // What is now, which the controllers make of the rest.
    fields.remove("status");
    if let Some(metadata) = fields["metadata"].as_object_mut() {
        for moment in
            ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "ownerReferences"]
        {
            metadata.remove(moment);
        }
        if kind == "Secret" {
            metadata.remove("name");
        }
    }
    // Keys and tokens: that they are there is compared, what they are must differ. See `secrets`.
    if ["ConfigMap", "Secret"].contains(&kind.as_str())
        && let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut)
    {
        let secret = kind == "Secret";
        data.retain(|name, _| !name.starts_with("jws-kubeconfig-"));
        for value in data.values_mut() {
            let text = value.as_str().unwrap_or_default();
            if secret || text.contains("-----BEGIN CERTIFICATE-----") {
                *value = json!("…");
            } else if let Some((before, after)) = text.split_once("certificate-authority-data: ") {
                let after = after.split_once('\n').map_or("", |(_, after)| after);
                *value = json!(format!("{before}certificate-authority-data: …\n{after}"));
            }
        }
    }
    object
}

fn compare(plain: &BTreeMap<String, Value>, template: &BTreeMap<String, Value>) {
    let mut differences = Vec::new();
    for key in plain.keys().chain(template.keys()).collect::<BTreeSet<_>>() {
        match (plain.get(key), template.get(key)) {
            (Some(one), Some(other)) if one == other => {}
            (one, other) => differences.push(format!("{key}\n  kubeadm:  {one:?}\n  template: {other:?}")),
        }
    }
    assert!(plain.len() > 150, "only {} objects were found", plain.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Whatever must be a cluster's own: keys, certificates, tokens and identities of objects.
fn secrets(fixture: &Fixture, name: &str) -> BTreeSet<String> {
    let script = "cat /etc/kubernetes/pki/*.* /etc/kubernetes/pki/etcd/* | tr -d '\\n' | sed 's/-----BEGIN/\\n&/g' | sort -u; \
                  grep -hE 'certificate-data|key-data' /etc/kubernetes/*.conf; \
                  kubectl get ns,sa,cm,deploy,ds,clusterroles,secrets -A -o jsonpath='{range .items[*]}{.metadata.uid}{\"\\n\"}{end}'; \
                  kubectl get secrets -A -o jsonpath='{range .items[*]}{.data.token-secret}{\"\\n\"}{end}'";
    let node = format!("{name}-control-plane");
    let said = fixture.kiln().run(&["exec", &node, "--", "sh", "-c", script]).succeeded().stdout();
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
    let found: BTreeSet<_> = lines.collect();
    assert!(found.len() > 100, "{found:?}");
    found
}

/// What a worker can do with the credentials that its kubelet has.
fn worker(fixture: &Fixture) {
    let node = format!("{TEMPLATE}-worker");
    let kubectl = |args: &[&str]| {
        let mut all =
            vec!["exec", node.as_str(), "--", "kubectl", "--kubeconfig", "/etc/kubernetes/kubelet.conf"];
        all.extend(args);
        fixture.kiln().run(&all)
    };
    let own = kubectl(&["get", "node", &node, "-o", "jsonpath={.metadata.labels.tier}"]).succeeded();
    assert_eq!(own.stdout(), "backend");
    let _ = kubectl(&["get", "node", &format!("{TEMPLATE}-control-plane")]).exited(1);
    let _ = kubectl(&["get", "secrets", "-n", "kube-system"]).exited(1);
}

fn kubeadm(fixture: &Fixture) {
    let run = |args: &[&str]| -> Finished {
        let mut all = vec!["exec", "it-templ-control-plane", "--", "kubeadm"];
        all.extend(args);
        fixture.kiln().run(&all).succeeded()
    };
    let certificates = run(&["certs", "check-expiration"]).stdout();
    for name in ["admin.conf", "apiserver", "etcd-server", "super-admin.conf", "front-proxy-ca"] {
        assert!(certificates.contains(name), "{certificates}");
    }
    assert!(!certificates.contains("MISSING"), "{certificates}");
    let command = run(&["token", "create", "--print-join-command"]).stdout();
    assert!(command.contains("kubeadm join it-templ-control-plane:6443"), "{command}");
    // The version is given: the latest would be asked for outside.
    let _ = run(&["upgrade", "plan", "v1.34.4", "--etcd-upgrade=false", "--ignore-preflight-errors=all"]);
}

fn damaged(fixture: &Fixture, config: &str) {
    if fixture.clusters().contains(&TEMPLATE.to_owned()) {
        let _ = fixture.delete(TEMPLATE);
    }
    for (path, text) in template::naming(fixture, &[SEED]) {
        fs::write(&path, &text[..text.len() / 2]).expect("it is a file of ours");
    }
    let kiln = fixture.kiln().with_env("KILN_STOP_AFTER", "nodes");
    let kubeconfig = fixture.kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("a path of ours is text");
    let args =
        ["create", "cluster", "--name", TEMPLATE, "--config", config, "--kubeconfig", kubeconfig, "-v", "1"];
    let said = kiln.run(&args).succeeded();
    assert!(said.stderr().contains("throwing template"), "{}", said.report());
    assert!(said.stderr().contains("comes up by kubeadm"), "{}", said.report());
    let _ = fixture.delete(TEMPLATE);
}
