//! One cluster of one node, used for everything a first user would: created, looked at, worked with, deleted.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};

use kiln_integration::{
    Cluster, Fixture, HostContainerd, Outside, Steps, api,
    cluster::{BUSYBOX, has_condition, http_get, items},
    disk, eventually,
    kiln::LONG,
    loading, outside,
};

#[path = "one_node/inspection.rs"]
mod inspection;

const CLUSTER: &str = "it-one";
const NODE: &str = "it-one-control-plane";
/// What the creation is traced to.
const TRACE: &str = "trace.json";
/// What a second cluster of an image may take on the disk before anything runs in it.
const SECOND_CLUSTER_BYTES: u64 = 20 << 20;

#[test]
fn one_node_serves_its_user_and_leaves_nothing() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    // Without a cluster nothing else can be told.
    if steps.step("create waits until the node is ready", || create(&fixture)) {
        cluster_is_as_it_should_be(&fixture, &mut steps);
        node_can_be_entered(&fixture, &mut steps);
        workloads_run(&fixture, &mut steps);
        let host = HostContainerd::programs(fixture.state_root());
        loading::into_node(&fixture, CLUSTER, NODE, &host, &mut steps);
        inspection::steps(&fixture, &mut steps);
        others_are_unharmed(&fixture, &mut steps);
        own_roles_come_back(&fixture, &mut steps);
        steps.step("delete removes it", || delete(&fixture));
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

fn create(fixture: &Fixture) {
    let trace = fixture.directory().join(TRACE);
    let trace = trace.to_str().expect("a path of ours is text");
    let finished =
        fixture.create(CLUSTER, &["--wait", "3m", "--bootstrap", "kubeadm", "--trace", trace]).succeeded();
    assert!(finished.stdout().is_empty(), "progress is for stderr:\n{}", finished.report());
    let phases = [
        "Creating cluster \"it-one\"",
        "Ensuring node image",
        "Preparing nodes",
        "Writing configuration",
        "Starting control-plane",
        "Installing CNI",
        "Installing StorageClass",
        "Waiting",
        "Ready after",
        "Set kubectl context to \"kind-it-one\"",
    ];
    let mut rest = finished.stderr();
    for phase in phases {
        let (_, after) = rest
            .split_once(phase)
            .unwrap_or_else(|| panic!("no `{phase}` in its place:\n{}", finished.report()));
        rest = after;
    }
    assert!(
        !finished.stderr().contains('\x1b'),
        "escape sequences without a terminal:\n{}",
        finished.report()
    );
}

fn cluster_is_as_it_should_be(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    steps.step("kubeconfig and state are private, and it points here", || {
        let file = fixture.kubeconfig();
        let mode = fs_err::metadata(&file).expect("create has written it").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "mode of {}", file.display());
        let state = fixture.state_root().join("clusters").join(CLUSTER);
        let mode =
            fs_err::metadata(&state).expect("the cluster has a directory").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "mode of {}", state.display());
        let text = fs_err::read_to_string(&file).expect("it is text");
        assert!(text.contains("current-context: kind-it-one"), "{text}");
        assert!(text.contains("https://127.0.0.1:"), "{text}");
    });
    steps.step("the API answers on 127.0.0.1", || {
        assert_eq!(api::get(&fixture.kubeconfig(), "/readyz").as_deref(), Ok("ok"));
    });
    steps.step("get tells the cluster, its node and its kubeconfig", || {
        assert_eq!(fixture.clusters(), [CLUSTER]);
        let nodes = kiln.run(&["get", "nodes", "--name", CLUSTER]).succeeded();
        assert_eq!(nodes.stdout().trim(), NODE);
        let external = kiln.run(&["get", "kubeconfig", "--name", CLUSTER]).succeeded().stdout();
        assert!(external.contains("https://127.0.0.1:"), "{external}");
        let internal = kiln.run(&["get", "kubeconfig", "--name", CLUSTER, "--internal"]).succeeded().stdout();
        assert!(internal.contains("https://it-one-control-plane:6443"), "{internal}");
    });
    steps.step("export writes the kubeconfig again", || {
        let file = fixture.directory().join("exported");
        let path = file.to_str().expect("a path of ours is text");
        let _ = kiln.run(&["export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", path]).succeeded();
        assert_eq!(api::get(&file, "/readyz").as_deref(), Ok("ok"));
    });
    steps.step("the node is ready and takes workloads", || {
        let node = cluster(fixture).json(&["get", "node", NODE]);
        assert!(has_condition(&node, "Ready"), "{node}");
        // The taint of a node that is not ready goes a moment after its condition has changed.
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        assert!(taints.iter().all(|taint| taint["key"] != "node-role.kubernetes.io/control-plane"), "{node}");
        let version = node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default();
        assert!(version.starts_with("v1."), "{version}");
    });
    steps.step("the default StorageClass is standard", || {
        let class = cluster(fixture).json(&["get", "storageclass", "standard"]);
        let annotation = &class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"];
        assert_eq!(annotation, "true", "{class}");
    });
    steps.step("every system pod runs", || {
        // `wait` only looks at pods that are there already, so first those that are made by controllers.
        for (namespace, workload) in [
            ("kube-system", "deployment/coredns"),
            ("kube-system", "daemonset/kube-proxy"),
            ("local-path-storage", "deployment/local-path-provisioner"),
        ] {
            let args = ["rollout", "status", "-n", namespace, workload, "--timeout=120s"];
            let _ = kiln.kubectl(CLUSTER, &args).succeeded();
        }
        let args = ["wait", "--for=condition=Ready", "pods", "--all", "-A", "--timeout=120s"];
        let _ = kiln.kubectl(CLUSTER, &args).succeeded();
        let pods = cluster(fixture).json(&["get", "pods", "-A"]);
        let expected = [
            ("coredns-", 2),
            ("etcd-", 1),
            ("kube-apiserver-", 1),
            ("kube-controller-manager-", 1),
            ("kube-proxy-", 1),
            ("kube-scheduler-", 1),
            ("local-path-provisioner-", 1),
        ];
        for (prefix, count) in expected {
            let running = items(&pods)
                .filter(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(prefix)))
                .filter(|pod| pod["status"]["phase"] == "Running" && has_condition(pod, "Ready"));
            assert_eq!(running.count(), count, "ready pods {prefix}*: {pods}");
        }
    });
    steps.step("the API describes itself, and a custom resource soon after it is there", || {
        let description =
            kiln.kubectl(CLUSTER, &["explain", "deployment.spec.replicas"]).succeeded().stdout();
        assert!(description.contains("Number of desired pods"), "{description}");
        let manifest = include_bytes!("data/custom.yaml");
        let _ = kiln.kubectl_with(CLUSTER, &["apply", "-f", "-"], manifest, LONG).succeeded();
        let args = ["wait", "--for=condition=Established", "crd/pots.kiln.example", "--timeout=60s"];
        let _ = kiln.kubectl(CLUSTER, &args).succeeded();
        // The first by OpenAPI 3, the second by OpenAPI 2, where custom resources are joined with the rest.
        let until = |path: &str, wanted: &[&str]| {
            let described = || {
                let told = kiln.kubectl(CLUSTER, &["get", "--raw", path]).succeeded().stdout();
                wanted.iter().all(|wanted| told.contains(wanted))
            };
            // The API server looks for news once a second.
            eventually(Duration::from_secs(30), Duration::from_millis(200), described, || {
                format!("{path} does not tell of all of {wanted:?}")
            });
        };
        until("/openapi/v3", &["apis/kiln.example/v1", "apis/apps/v1", "apis/apiregistration.k8s.io/v1"]);
        until("/openapi/v2", &["what is fired", "Number of desired pods", "CustomResourceDefinitionSpec"]);
        let description = kiln.kubectl(CLUSTER, &["explain", "pots.spec"]).succeeded().stdout();
        assert!(description.contains("what is fired"), "{description}");
    });
    steps.step("images ls tells what the node has", || {
        let images = kiln.run(&["images", "ls", "--node", NODE]).succeeded().stdout();
        for image in ["kube-apiserver", "kube-proxy", "etcd", "coredns", "pause", "busybox"] {
            assert!(images.contains(image), "no {image} in\n{images}");
        }
    });
}

fn node_can_be_entered(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    steps.step("exec gives back exit codes and keeps the two outputs apart", || {
        let script = "echo out; echo err >&2; exit 37";
        let finished = kiln.run(&["exec", NODE, "--", "sh", "-c", script]).exited(37);
        assert_eq!((finished.stdout().as_str(), finished.stderr()), ("out\n", "err\n"));
        let _ = kiln.run(&["exec", NODE, "--", "true"]).succeeded();
        assert_eq!(kiln.run(&["exec", NODE, "--", "sh", "-c", "kill -9 $$"]).code(), 137);
    });
    steps.step("exec tells a missing command and a missing node", || {
        let missing = kiln.run(&["exec", NODE, "--", "no-such-command"]);
        assert!(missing.code() != 0 && missing.stderr().contains("no-such-command"), "{}", missing.report());
        let missing = kiln.run(&["exec", "it-none-control-plane", "--", "true"]);
        assert!(
            missing.code() != 0 && missing.stderr().contains("it-none-control-plane"),
            "{}",
            missing.report()
        );
    });
    steps.step("exec -i passes bytes through unchanged", || {
        let bytes: Vec<u8> = (0_u32..1 << 20).map(|number| (number % 251) as u8).collect();
        let echoed = kiln.run_with(&["exec", "-i", NODE, "--", "cat"], &bytes, LONG).succeeded();
        assert!(echoed.bytes() == bytes, "{} bytes came back of {}", echoed.bytes().len(), bytes.len());
    });
    steps.step("exec without -i leaves stdin alone", || {
        let finished = kiln.run_with(&["exec", NODE, "--", "cat"], b"not for you", LONG).succeeded();
        assert_eq!(finished.stdout(), "");
    });
    steps.step("exec -it gives a terminal of the caller's size", || {
        let kiln_path = kiln.binary().display();
        let line = format!("stty rows 33 cols 111; {kiln_path} exec -it {NODE} -- sh -c 'test -t 0 && test -t 1 && stty size; exit 5'");
        let finished = kiln.run_other("script", &["-qec", &line, "/dev/null"], LONG).exited(5);
        let told = finished.stdout();
        assert!(told.contains("33 111"), "{}", finished.report());
    });
    steps.step("ps shows the node's processes", || {
        let processes = kiln.run(&["ps", NODE]).succeeded().stdout();
        for name in ["PID", "containerd", "kubelet", "kube-apiserver", "etcd"] {
            assert!(processes.contains(name), "no {name} in\n{processes}");
        }
    });
    steps.step("the node knows its own name", || {
        let own = kiln.run(&["exec", NODE, "--", "getent", "ahostsv4", NODE]).succeeded().stdout();
        let address = cluster(fixture).node_address(NODE).to_string();
        assert!(own.starts_with(&address), "{own} should be {address}");
    });
}

fn workloads_run(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let deployed = steps.step("a Deployment with probes and a claim becomes available", || {
        let manifest = include_bytes!("data/web.yaml");
        let _ = kiln.kubectl_with(CLUSTER, &["apply", "-f", "-"], manifest, LONG).succeeded();
        let _ = kiln.kubectl(CLUSTER, &["rollout", "status", "deployment/web", "--timeout=120s"]).succeeded();
        let claim = cluster(fixture).json(&["get", "pvc", "pages"]);
        assert_eq!(claim["status"]["phase"], "Bound", "{claim}");
        assert_eq!(claim["spec"]["storageClassName"], "standard", "{claim}");
    });
    if deployed {
        steps.step("its Service answers by name from a pod", || {
            for name in ["web", "web.default.svc.cluster.local"] {
                let answer = cluster(fixture).fetch(None, &format!("http://{name}/"));
                assert!(answer.contains("first written by web-"), "{answer}");
            }
        });
        steps.step("kubectl run -it has a terminal", || {
            let line = format!(
                "{} kubectl --name {CLUSTER} -- run terminal -it --rm --restart=Never --image={BUSYBOX} \
                 --image-pull-policy=IfNotPresent -- sh -c 'for i in 1 2 3 4 5; do sleep 1; tty; done; timeout 10 wget -qO- http://web/'",
                kiln.binary().display()
            );
            let finished = kiln.run_other("script", &["-qec", &line, "/dev/null"], LONG).succeeded();
            let told = finished.stdout();
            assert!(told.contains("/dev/pts/") && told.contains("first written by"), "{}", finished.report());
        });
        steps.step("kubectl logs shows what the pod wrote", || {
            let logs = kiln.kubectl(CLUSTER, &["logs", "deployment/web"]).succeeded().stdout();
            assert!(logs.contains("pages of web-"), "{logs}");
        });
        steps.step("kubectl exec runs in the pod", || {
            let args = ["exec", "deployment/web", "--", "cat", "/pages/index.html"];
            let page = kiln.kubectl(CLUSTER, &args).succeeded().stdout();
            assert!(page.starts_with("first written by web-"), "{page}");
        });
        steps.step("a NodePort answers from the host", || {
            let answer = http_get(SocketAddr::new(cluster(fixture).node_address(NODE), 30080));
            assert!(answer.contains("first written by web-"), "{answer}");
        });
        steps.step("the claim outlives its pod", || {
            let before =
                kiln.kubectl(CLUSTER, &["get", "pods", "-l", "app=web", "-o", "name"]).succeeded().stdout();
            let _ = kiln.kubectl(CLUSTER, &["rollout", "restart", "deployment/web"]).succeeded();
            let _ =
                kiln.kubectl(CLUSTER, &["rollout", "status", "deployment/web", "--timeout=120s"]).succeeded();
            let answer = http_get(SocketAddr::new(cluster(fixture).node_address(NODE), 30080));
            let first = before.trim().trim_start_matches("pod/");
            assert!(answer.contains(&format!("first written by {first}")), "{first}: {answer}");
        });
    }
    steps.step("node and pod reach the outside through the host's address", || {
        let outside = Outside::open();
        let address = outside.address();
        let url = format!("http://{address}/");
        let answer = cluster(fixture).run_pod(&["timeout", "10", "wget", "-qO-", &url]);
        assert!(answer.contains(outside::GREETING), "from a pod: {answer}");
        let script = format!(
            "exec 3<>/dev/tcp/{}/{} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
            address.ip(),
            address.port()
        );
        let answer =
            kiln.run(&["exec", NODE, "--", "timeout", "10", "bash", "-c", &script]).succeeded().stdout();
        assert!(answer.contains(outside::GREETING), "from the node: {answer}");
        assert_eq!(outside.take_peers(), [outside.host(); 2], "untranslated sources");
    });
}

fn others_are_unharmed(fixture: &Fixture, steps: &mut Steps) {
    steps.step("the same name again is refused and harms nothing", || {
        fixture.create(CLUSTER, &[]).refused(&["it-one", "already exist"]);
        let trace = fixture.kiln().run(&["trace", "show", "--name", CLUSTER]).succeeded().stdout();
        assert!(trace.contains("◆ CoreDNS ready"), "the trace of the first:\n{trace}");
        assert_eq!(api::get(&fixture.kubeconfig(), "/readyz").as_deref(), Ok("ok"));
    });
    steps.step("a second cluster of the image unpacks nothing and is small", || {
        let state = fixture.state_root();
        let before = disk::store_contents(state);
        assert!(before.len() > 2, "the store of {} should hold an image", state.display());
        let nodes_only = fixture.kiln().with_env("KILN_STOP_AFTER", "nodes");
        let args = ["create", "cluster", "--name", "it-two"];
        let _ = nodes_only.start(&args).wait(LONG).succeeded();
        assert_eq!(disk::store_contents(state), before, "the store has changed");
        let shared = disk::linked_files(&state.join("images"));
        let bytes = disk::own_bytes(&state.join("clusters/it-two"), &shared);
        assert!(bytes < SECOND_CLUSTER_BYTES, "{bytes} bytes");
    });
    steps.step("deleting the second leaves the first alone", || {
        let _ = fixture.delete("it-two");
        assert_eq!(fixture.clusters(), [CLUSTER]);
        assert_eq!(api::get(&fixture.kubeconfig(), "/readyz").as_deref(), Ok("ok"));
    });
}

fn own_roles_come_back(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    steps.step(
        "an API server that begins again restores its own roles, but those it is told to leave",
        || {
            let kubectl = |args: &[&str]| drop(kiln.kubectl(CLUSTER, args).succeeded());
            kubectl(&["delete", "clusterrole", "view"]);
            kubectl(&["delete", "clusterrolebinding", "system:basic-user"]);
            kubectl(&["delete", "role", "-n", "kube-system", "system::leader-locking-kube-scheduler"]);
            let (changed, kept) = ("system:basic-user", "system:node-problem-detector");
            for role in [changed, kept] {
                kubectl(&["patch", "clusterrole", role, "--type=merge", "-p", "{\"rules\": []}"]);
            }
            kubectl(&[
                "annotate",
                "clusterrole",
                kept,
                "--overwrite",
                "rbac.authorization.kubernetes.io/autoupdate=false",
            ]);

            let stop = "crictl stop $(crictl ps --name kube-apiserver --quiet)";
            let _ = kiln.run(&["exec", NODE, "--", "sh", "-c", stop]).succeeded();
            let ready = || api::get(&fixture.kubeconfig(), "/readyz").as_deref() == Ok("ok");
            eventually(LONG, Duration::from_millis(200), ready, || {
                "the API server does not come back".to_owned()
            });

            kubectl(&["get", "clusterrole", "view"]);
            kubectl(&["get", "clusterrolebinding", "system:basic-user"]);
            kubectl(&["get", "role", "-n", "kube-system", "system::leader-locking-kube-scheduler"]);
            let rules = |role| {
                cluster(fixture).json(&["get", "clusterrole", role])["rules"].as_array().map_or(0, Vec::len)
            };
            assert!(rules(changed) > 0 && rules(kept) == 0, "{} and {} rules", rules(changed), rules(kept));
        },
    );
}

fn delete(fixture: &Fixture) {
    let finished = fixture.delete(CLUSTER);
    assert!(finished.stdout().is_empty(), "{}", finished.report());
    assert!(finished.stderr().contains(NODE), "the deleted nodes are named:\n{}", finished.report());
    // What is not there is deleted already.
    let _ = fixture.delete(CLUSTER);
}

fn cluster(fixture: &Fixture) -> Cluster<'_> {
    Cluster::new(fixture.kiln(), CLUSTER)
}
