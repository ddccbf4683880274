//! A control plane and a worker that speak IPv4 and IPv6, with published ports and mounts of every kind.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use kiln_integration::{
    Cluster, Fixture, Steps,
    cluster::{has_condition, http_get, items},
    fixture,
    host::{Mounted, run, text},
};
use serde_json::{Value, json};

const CLUSTER: &str = "it-dual";
const CONTROL_PLANE: &str = "it-dual-control-plane";
const WORKER: &str = "it-dual-worker";
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn both_families_ports_and_mounts_work() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    {
        let host = shared_directory(&fixture.directory().join("host"));
        if steps.step("create waits until both nodes are ready", || create(&fixture, &host)) {
            addresses(&fixture, &mut steps);
            services(&fixture, &mut steps);
            ports(&fixture, &mut steps);
            mounts(&fixture, &mut steps, &host);
            steps.step("delete removes both nodes", || drop(fixture.delete(CLUSTER)));
        }
    }
    steps.step("nothing is left", || fixture.assert_nothing_left());
    steps.finish();
}

/// A directory of the host on a mount that gives and receives mounts, with what the node is shown of it.
fn shared_directory(path: &Path) -> Mounted {
    let made = Mounted::new(&TMPFS, path);
    run("mount", &["--make-shared", text(path)]);
    for directory in ["none", "down", "both"] {
        fs_err::create_dir(path.join(directory)).expect("a directory of the test");
    }
    fs_err::write(path.join("greeting"), "from the host\n").expect("a file of the test");
    made
}

/// An empty file system.
const TMPFS: [&str; 5] = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];

fn create(fixture: &Fixture, host: &Mounted) {
    let mount = |name: &str, more: Value| {
        let mut mount =
            json!({ "hostPath": host.path().join(name), "containerPath": format!("/mnt/{name}") });
        mount
            .as_object_mut()
            .into_iter()
            .for_each(|map| map.extend(more.as_object().cloned().unwrap_or_default()));
        mount
    };
    let port = |port: u16, protocol: &str, listen: &str| json!({ "containerPort": port, "protocol": protocol, "listenAddress": listen });
    let config = json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": { "ipFamily": "dual", "dnsSearch": ["one.test", "two.test"] },
        "nodes": [
            {
                "role": "control-plane",
                "extraPortMappings": [
                    port(7001, "TCP", "127.0.0.1"),
                    port(7001, "TCP", "::1"),
                    port(7002, "UDP", "127.0.0.1"),
                    port(7002, "UDP", "::1"),
                    port(7003, "SCTP", "127.0.0.1"),
                ],
                "extraMounts": [
                    mount("none", json!({})),
                    mount("down", json!({ "propagation": "HostToContainer" })),
                    mount("both", json!({ "propagation": "Bidirectional" })),
                    mount("greeting", json!({ "readOnly": true })),
                ],
            },
            { "role": "worker", "extraPortMappings": [port(7001, "TCP", "0.0.0.0"), port(7001, "TCP", "::")] },
        ],
    });
    let file = fixture.directory().join("dual.yaml");
    fs_err::write(&file, config.to_string()).expect("a file of the test");
    let _ = fixture.create(CLUSTER, &["--config", text(&file), "--wait", "5m"]).succeeded();
}

fn addresses(fixture: &Fixture, steps: &mut Steps) {
    let cluster = Cluster::new(fixture.kiln(), CLUSTER);
    steps.step("nodes search the domains that were asked for", || {
        let file = ["exec", WORKER, "--", "cat", "/etc/resolv.conf"];
        let text = fixture.kiln().run(&file).succeeded().stdout();
        assert!(text.lines().any(|line| line == "search one.test two.test"), "{text}");
    });
    steps.step("nodes have an address and a pod range of each family", || {
        let nodes = cluster.json(&["get", "nodes"]);
        assert_eq!(items(&nodes).filter(|node| has_condition(node, "Ready")).count(), 2, "{nodes}");
        for node in items(&nodes) {
            let ranges = node["spec"]["podCIDRs"].as_array().map_or(0, Vec::len);
            assert_eq!((node_addresses(node).len(), ranges), (2, 2), "{node}");
        }
    });
}

fn services(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    let manifest = fixture::data("dual-web.yaml");
    let manifest = fs_err::read(manifest).expect("a manifest of the test");
    steps.step("a pod serves on both families", || {
        let _ =
            kiln.kubectl_with(CLUSTER, &["apply", "-f", "-"], &manifest, Duration::from_secs(60)).succeeded();
        let ready = ["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"];
        let _ = kiln.kubectl(CLUSTER, &ready).succeeded();
    });
    steps.step("its Service answers on both from the other node", || {
        let service = cluster.json(&["get", "service", "web"]);
        let addresses = strings(&service["spec"]["clusterIPs"]);
        assert_eq!(addresses.len(), 2, "{service}");
        for address in addresses {
            let address: IpAddr = address.parse().expect("an address");
            let url = format!("http://{}/passwd", SocketAddr::new(address, 80));
            let answer = cluster.fetch(Some(CONTROL_PLANE), &url);
            assert!(answer.contains("root:x:0:0"), "{url}: {answer}");
        }
    });
    steps.step("and on both from the host, through any node", || {
        let nodes = cluster.json(&["get", "nodes"]);
        for address in items(&nodes).flat_map(node_addresses) {
            let answer = http_get(SocketAddr::new(address, 30090));
            assert!(answer.starts_with("HTTP/1."), "{address}: {answer}");
        }
    });
    steps.step("pods of different nodes reach each other on both", || {
        let pod = cluster.json(&["get", "pod", "web"]);
        let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
        let ips: Vec<IpAddr> = ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
        assert_eq!(ips.len(), 2, "{pod}");
        for ip in ips {
            let url = format!("http://{}/passwd", SocketAddr::new(ip, 8080));
            let answer = cluster.fetch(Some(CONTROL_PLANE), &url);
            assert!(answer.contains("root:x:0:0"), "{url}: {answer}");
        }
    });
}

fn ports(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let published = || -> Vec<(String, String, SocketAddr)> {
        let listed = kiln.run(&["get", "nodes", "--name", CLUSTER, "-o", "json"]).succeeded();
        let nodes: Value = serde_json::from_slice(listed.bytes()).expect("a listing");
        let ports = |node: &Value| {
            let name = node["name"].as_str().unwrap_or_default().to_owned();
            let ports = node["ports"].as_array().cloned().unwrap_or_default();
            ports
                .into_iter()
                .filter(|port| port["container_port"] != 6443)
                .map(move |port| {
                    let listen: IpAddr =
                        port["listen"].as_str().and_then(|ip| ip.parse().ok()).expect("an address");
                    let number =
                        port["host_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
                    (
                        name.clone(),
                        port["protocol"].as_str().unwrap_or_default().to_owned(),
                        SocketAddr::new(listen, number),
                    )
                })
                .collect::<Vec<_>>()
        };
        nodes.as_array().into_iter().flatten().flat_map(ports).collect()
    };
    steps.step("free ports were chosen and are listed", || {
        let published = published();
        assert_eq!(published.len(), 7, "{published:?}");
        assert!(published.iter().all(|(.., address)| address.port() != 0), "{published:?}");
    });
    steps.step("a port is published before somebody serves it", || {
        let (.., address) =
            published().into_iter().find(|(node, ..)| node == WORKER).expect("a port of the worker");
        let error =
            TcpStream::connect_timeout(&reachable(address), PATIENCE).expect_err("nobody listens yet");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    });
    steps.step("tcp and udp ports answer on each address", || {
        for node in [CONTROL_PLANE, WORKER] {
            let serve = |unit: &str, listen: &str, what: &str| {
                let args =
                    ["exec", node, "--", "systemd-run", "--quiet", "--unit", unit, "socat", listen, what];
                let _ = kiln.run(&args).succeeded();
            };
            let greeting = format!("SYSTEM:echo {node}");
            serve("tcp", "TCP6-LISTEN:7001,ipv6only=0,fork,reuseaddr", &greeting);
            serve("udp", "UDP6-RECVFROM:7002,ipv6only=0,fork", &greeting);
        }
        let mut asked = 0;
        for (node, protocol, address) in published() {
            let address = reachable(address);
            let answer = match protocol.as_str() {
                "tcp" => ask_tcp(address),
                "udp" => ask_udp(address),
                _ => continue,
            };
            assert_eq!(answer.trim(), node, "{protocol} {address}");
            asked += 1;
        }
        assert_eq!(asked, 6);
    });
    steps.step("an sctp port is translated", || {
        // This kernel need not have sockets of the protocol; the rule is what publishes the port.
        let rules =
            Command::new("nft").args(["list", "table", "ip", "kiln-it-dual"]).output().expect("nft runs");
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        let (.., address) =
            published().into_iter().find(|(_, protocol, _)| protocol == "sctp").expect("an sctp port");
        let port = address.port();
        let found = rules.lines().any(|line| {
            // By number where /etc/protocols is missing.
            (line.contains("sctp") || line.contains("132"))
                && line.contains(&port.to_string())
                && line.contains(":7003")
        });
        assert!(found, "port {port} is not in:\n{rules}");
    });
}

fn mounts(fixture: &Fixture, steps: &mut Steps, host: &Mounted) {
    let kiln = fixture.kiln();
    let shell =
        |script: &str| kiln.run(&["exec", CONTROL_PLANE, "--", "sh", "-c", script]).succeeded().stdout();
    steps.step("a file is there, and is not to be written", || {
        assert_eq!(
            shell("cat /mnt/greeting; echo x 2>/dev/null >> /mnt/greeting || echo refused"),
            "from the host\nrefused\n"
        );
    });
    steps.step("what the host mounts later is seen where it was asked for", || {
        for directory in ["none", "down", "both"] {
            let later = host.path().join(directory).join("later");
            // It goes with the directory that it is in.
            std::mem::forget(Mounted::new(&TMPFS, &later));
            fs_err::write(later.join("mounted"), "").expect("a file of the test");
        }
        assert_eq!(shell("cd /mnt; echo */later/mounted"), "both/later/mounted down/later/mounted\n");
    });
    steps.step("what the node mounts later is seen where it was asked for", || {
        let _ = shell("for d in none down both; do mkdir /mnt/$d/inner; mount -t tmpfs t /mnt/$d/inner; : > /mnt/$d/inner/f; done");
        let seen = ["none", "down", "both"].map(|directory| host.path().join(directory).join("inner/f").exists());
        assert_eq!(seen, [false, false, true]);
    });
}

/// An address to connect to: one of the host's own for all of them.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::new([127, 0, 0, 1].into(), v4.port()),
        // `[::]` leaves `[::1]` to others; the bridge's address is the host's too.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::new(bridge_address(), v6.port()),
        address => address,
    }
}

fn bridge_address() -> IpAddr {
    let output = Command::new("ip")
        .args(["-6", "-json", "address", "show", "kiln-it-dual"])
        .output()
        .expect("ip runs");
    let links: Value = serde_json::from_slice(&output.stdout).expect("ip prints JSON");
    let addresses = links[0]["addr_info"].as_array().into_iter().flatten();
    let mut global = addresses.filter(|address| address["scope"] == "global");
    let address =
        global.next().and_then(|address| address["local"].as_str()).expect("the bridge has an address");
    address.parse().expect("an address")
}

fn ask_tcp(address: SocketAddr) -> String {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{address}: {error}"));
    let _ = stream.flush();
    answer
}

fn ask_udp(address: SocketAddr) -> String {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    socket.send_to(b"?", address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let mut answer = [0; 256];
    let (length, _) = socket.recv_from(&mut answer).unwrap_or_else(|error| panic!("{address}: {error}"));
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn node_addresses(node: &Value) -> Vec<IpAddr> {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let internal = addresses.filter(|address| address["type"] == "InternalIP");
    internal.filter_map(|address| address["address"].as_str()?.parse().ok()).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
