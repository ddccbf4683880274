//! A node that speaks IPv6 only, with kube-proxy in its nftables mode: the API is at `[::1]`, which takes a proxy.

use std::net::SocketAddr;

use kiln_integration::{
    Cluster, Fixture, Steps, api,
    cluster::{BUSYBOX, http_get},
};

const CLUSTER: &str = "it-six";
const NODE: &str = "it-six-control-plane";
const CONFIG: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
                      networking: {ipFamily: ipv6, kubeProxyMode: nftables}\n";

#[test]
fn a_cluster_of_ipv6_alone_works() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    if steps.step("create waits until the node is ready", || create(&fixture)) {
        api_is_on_loopback(&fixture, &mut steps);
        services(&fixture, &mut steps);
        steps.step("delete removes it", || drop(fixture.delete(CLUSTER)));
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

fn create(fixture: &Fixture) {
    let file = fixture.directory().join("ipv6.yaml");
    fs_err::write(&file, CONFIG).expect("a file of the test");
    let file = file.to_str().expect("a path of the test is text");
    let _ = fixture.create(CLUSTER, &["--config", file, "--wait", "5m"]).succeeded();
}

fn api_is_on_loopback(fixture: &Fixture, steps: &mut Steps) {
    steps.step("the API answers at [::1]", || {
        let kubeconfig = fs_err::read_to_string(fixture.kubeconfig()).expect("create has written it");
        assert!(kubeconfig.contains("server: https://[::1]:"), "{kubeconfig}");
        assert_eq!(api::get(&fixture.kubeconfig(), "/readyz").as_deref(), Ok("ok"));
    });
    steps.step("the node is known by IPv6 alone", || {
        let address = Cluster::new(fixture.kiln(), CLUSTER).node_address(NODE);
        assert!(address.is_ipv6(), "{address}");
    });
}

fn services(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    steps.step("a Service answers by name from a pod", || {
        let image = format!("--image={BUSYBOX}");
        let args =
            ["run", "web", &image, "--image-pull-policy=IfNotPresent", "--port=8080", "--expose", "--"];
        let command = ["httpd", "-f", "-p", "[::]:8080", "-h", "/etc"];
        let _ = kiln.kubectl(CLUSTER, &[&args[..], &command].concat()).succeeded();
        let ready = ["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"];
        let _ = kiln.kubectl(CLUSTER, &ready).succeeded();
        let dns = [
            "wait",
            "-n",
            "kube-system",
            "--for=condition=Ready",
            "pod",
            "-l",
            "k8s-app=kube-dns",
            "--timeout=60s",
        ];
        let _ = kiln.kubectl(CLUSTER, &dns).succeeded();
        let answer = cluster.fetch(None, "http://web:8080/passwd");
        assert!(answer.contains("root:x:0:0"), "{answer}");
    });
    steps.step("a NodePort answers from the host", || {
        let args = ["expose", "pod", "web", "--name=outside", "--type=NodePort", "--port=8080"];
        let _ = kiln.kubectl(CLUSTER, &args).succeeded();
        let service = cluster.json(&["get", "service", "outside"]);
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let address = SocketAddr::new(cluster.node_address(NODE), port.expect("it has a port"));
        assert!(http_get(address).starts_with("HTTP/1."));
    });
    steps.step("kube-proxy works by nftables", || {
        let tables = kiln.run(&["exec", NODE, "--", "nft", "list", "tables"]).succeeded().stdout();
        assert!(tables.contains("table ip6 kube-proxy"), "{tables}");
    });
}
