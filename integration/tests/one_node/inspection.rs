//! Looking into the node from outside: logs, use of the host, files, a shell.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_integration::{
    Fixture, Steps,
    kiln::{LONG, SHORT},
};
use nix::sys::signal::Signal;

use super::{CLUSTER, NODE, TRACE};

/// All of it, after there were workloads.
pub(crate) fn steps(fixture: &Fixture, steps: &mut Steps) {
    creation_is_traced(fixture, steps);
    logs_are_exported(fixture, steps);
    logs_are_shown(fixture, steps);
    use_is_measured(fixture, steps);
    files_are_copied(fixture, steps);
    shells_are_opened(fixture, steps);
}

/// Marks of a boot in the order in which they must come, whatever the host; `create` was told to wait for Ready nodes and to
/// watch for the rest.
const MARKS: [&str; 15] = [
    "namespace made",
    "init started",
    "containerd listening",
    "systemd booted",
    "kubelet healthy",
    "etcd started",
    "etcd ready",
    "kube-apiserver listening",
    "API ready",
    "node registered",
    "node Ready",
    "pods admitted",
    "created",
    "kube-proxy synced",
    "CoreDNS ready",
];
/// Those that may change places with the one before them.
const UNORDERED: [&str; 5] = ["systemd booted", "etcd started", "node Ready", "created", "kube-proxy synced"];

fn creation_is_traced(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    steps.step("trace show has the marks in their order, and accounts for processor time", || {
        let finished = kiln.run(&["trace", "show", "-n", CLUSTER, "-o", "json"]).succeeded();
        let list: serde_json::Value = serde_json::from_slice(finished.bytes()).expect("it is JSON");
        let trace = &list[0];
        let events = trace["events"].as_array().expect("a list");
        let start = |name: &str| {
            let found = events.iter().find(|event| event["name"] == name);
            found
                .and_then(|event| event["start_seconds"].as_f64())
                .unwrap_or_else(|| panic!("no {name}: {list}"))
        };
        let ordered: Vec<&str> = MARKS.into_iter().filter(|mark| !UNORDERED.contains(mark)).collect();
        for pair in ordered.windows(2) {
            assert!(start(pair[0]) <= start(pair[1]), "{} after {}: {list}", pair[0], pair[1]);
        }
        assert!(MARKS.iter().all(|mark| start(mark) > 0.0), "{list}");
        let init = events.iter().find(|event| event["name"] == "kubeadm init").expect("it ran");
        let (begin, end) = (init["start_seconds"].as_f64(), init["end_seconds"].as_f64());
        for phase in ["certs", "wait-control-plane", "addons"] {
            let event = events.iter().find(|event| event["name"] == phase).expect(phase);
            assert!(
                event["start_seconds"].as_f64() >= begin && event["end_seconds"].as_f64() <= end,
                "{event}"
            );
            assert_eq!((&event["kind"], &event["node"]), (&"kubeadm".into(), &NODE.into()), "{event}");
        }
        for component in ["kubelet", "containerd", "kube-apiserver", "etcd", "kiln"] {
            let found = trace["components"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|item| item["component"] == component);
            let seconds = found.and_then(|item| item["cpu_seconds"].as_f64()).unwrap_or_default();
            assert!(seconds > 0.01 && seconds < 600.0, "{component}: {list}");
        }
        assert!(!trace["critical_path"].as_array().expect("a list").is_empty(), "{list}");
    });
    steps.step("trace show draws within 100 columns", || {
        let text = kiln.run(&["trace", "show", "-n", CLUSTER]).succeeded().stdout();
        for part in ["◆ etcd ready", "wait-control-plane", "CPU-SEC", "CRITICAL PATH", "The longest wait"] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        kiln.run(&["trace", "show", "-n", "it-none"]).refused(&["it-none"]);
    });
    steps.step("--trace wrote a file that viewers load", || {
        let text = read(&fixture.directory().join(TRACE));
        let file: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let events = file["traceEvents"].as_array().expect("a list");
        let named =
            |ph: &str, name: &str| events.iter().any(|event| event["ph"] == ph && event["name"] == name);
        assert!(
            named("X", "kubeadm init") && named("i", "CoreDNS ready") && named("M", "process_name"),
            "{file}"
        );
        for event in events {
            assert!(event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
            assert!(event["ph"] != "X" || event["dur"].as_f64().is_some_and(|took| took >= 0.0), "{event}");
        }
    });
}

fn logs_are_exported(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let directory = fixture.directory().join("logs");
    let path = directory.to_str().expect("a path of ours is text").to_owned();
    let exported = steps.step("export logs writes kind's tree", || {
        let finished = kiln.run_with(&["export", "logs", "--name", CLUSTER, &path], b"", LONG).succeeded();
        assert_eq!(finished.stdout(), format!("{path}\n"), "{}", finished.report());
        let told = format!("Exporting logs for cluster \"{CLUSTER}\" to:");
        assert!(finished.stderr().contains(&told), "{}", finished.report());
        for file in ["kiln-version.txt", "kind-version.txt", "host.txt", "cluster.json", "trace.json"] {
            assert!(!read(&directory.join(file)).is_empty(), "{file} is empty");
        }
        let node = directory.join(NODE);
        for (file, content) in [
            ("serial.log", "systemd"),
            ("kubernetes-version.txt", "v1."),
            ("journal.log", "systemd"),
            ("kubelet.log", "kubelet"),
            ("containerd.log", "containerd"),
            ("images.log", "registry.k8s.io/pause"),
            ("inspect.json", "\"running\""),
            ("kubeadm.log", "[init]"),
            ("kubeadm.conf", "kind: InitConfiguration"),
        ] {
            let text = read(&node.join(file));
            assert!(
                text.contains(content),
                "no {content:?} in {file}:\n{}",
                text.lines().take(5).collect::<String>()
            );
        }
        assert!(!node.join("journal").exists(), "the journal twice");
        let has = |directory: &str, part: &str| {
            files(&node.join(directory)).iter().any(|path| path.to_string_lossy().contains(part))
        };
        assert!(has("pods", "kube-apiserver") && has("containers", "kube-apiserver"), "no logs of pods");
        for path in files(&directory) {
            let kind = fs_err::symlink_metadata(&path).expect("it was listed").file_type();
            assert!(kind.is_file(), "{} is no file", path.display());
        }
    });
    if exported {
        steps.step("no secret of the cluster is in it", || {
            let of_node = |path: &str| kiln.run(&["exec", NODE, "--", "cat", path]).succeeded().stdout();
            let conf = of_node("/kind/kubeadm.conf");
            let token = conf.lines().find_map(|line| line.split_once("token: ")).expect("it has a token").1;
            let (_, secret) = token.trim_matches('"').split_once('.').expect("an id and a secret");
            let mut secrets = vec![secret.to_owned()];
            for key in ["ca.key", "sa.key", "apiserver.key", "etcd/ca.key"] {
                let key = of_node(&format!("/etc/kubernetes/pki/{key}"));
                secrets.push(key.lines().nth(1).expect("PEM has lines").to_owned());
            }
            let admin = of_node("/etc/kubernetes/admin.conf");
            let key =
                admin.lines().find_map(|line| line.split_once("client-key-data: ")).expect("it has a key").1;
            secrets.push(key.trim().to_owned());
            for path in files(&directory) {
                let content = fs_err::read(&path).expect("it was listed");
                let text = String::from_utf8_lossy(&content);
                let found = secrets.iter().position(|secret| text.contains(secret.as_str()));
                assert_eq!(found, None, "a secret in {}", path.display());
            }
        });
    }
    steps.step("export logs makes a directory of its own, and refuses an unknown cluster", || {
        let finished = kiln.run_with(&["export", "logs", "-n", CLUSTER], b"", LONG).succeeded();
        let directory = PathBuf::from(finished.stdout().trim_end());
        assert!(directory.join(NODE).join("serial.log").is_file(), "{}", finished.report());
        fs_err::remove_dir_all(&directory).expect("it is ours");
        kiln.run(&["export", "logs", "-n", "it-none"]).refused(&["it-none"]);
    });
}

fn logs_are_shown(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    steps.step("logs shows units, ends of logs and the console", || {
        let kubelet = kiln.run(&["logs", NODE, "--unit", "kubelet", "--tail", "3"]).succeeded().stdout();
        assert!((1..=5).contains(&kubelet.lines().count()) && kubelet.contains("kubelet["), "{kubelet}");
        let console = kiln.run(&["logs", "--console", NODE]).succeeded().stdout();
        assert!(console.contains("systemd"), "{console}");
        kiln.run(&["logs", "it-none-control-plane"]).refused(&["it-none-control-plane"]);
    });
    steps.step("followed logs go on until they are interrupted", || {
        for kind in [&["logs", "-f", NODE, "--tail", "0"][..], &["logs", "-f", "--console", NODE]] {
            let running = kiln.start(kind);
            // Nothing tells that it has begun to follow.
            std::thread::sleep(Duration::from_millis(500));
            running.signal_group(Signal::SIGINT);
            let finished = running.wait(SHORT);
            assert_eq!(finished.code(), 130, "{}", finished.report());
        }
    });
}

fn use_is_measured(fixture: &Fixture, steps: &mut Steps) {
    steps.step("top tells what the node uses", || {
        let args = ["top", "-n", CLUSTER, "-o", "json", "--interval", "500ms"];
        let finished = fixture.kiln().run(&args).succeeded();
        let list: serde_json::Value = serde_json::from_slice(finished.bytes()).expect("it is JSON");
        let node = &list[0];
        assert_eq!((node["node"].as_str(), node["state"].as_str()), (Some(NODE), Some("running")), "{list}");
        let number = |field: &str| node[field].as_f64().unwrap_or(-1.0);
        assert!(number("cpu_cores") > 0.0 && number("cpu_cores") < 1024.0, "{list}");
        assert!(number("memory_bytes") > 50e6 && number("memory_bytes") < 64e9, "{list}");
        assert!(number("memory_with_cache_bytes") >= number("memory_bytes"), "{list}");
        assert!(number("pids") > 20.0, "{list}");
        assert!(number("disk_bytes") > 1e6, "{list}");
        let table = fixture.kiln().run(&["top", "-A", "--interval", "100ms"]).succeeded().stdout();
        assert!(table.starts_with("NODE") && table.contains(NODE), "{table}");
    });
    steps.step("a watched table comes again and again until it is interrupted", || {
        let running = fixture.kiln().start(&["top", "-n", CLUSTER, "--watch", "--interval", "100ms"]);
        // Tables are all that it tells, and nobody waits for them here.
        std::thread::sleep(Duration::from_secs(2));
        running.signal_group(Signal::SIGINT);
        let finished = running.wait(SHORT);
        assert_eq!(finished.code(), 0, "{}", finished.report());
        let tables = finished.stdout().matches("NODE  ").count();
        assert!(tables >= 2, "{}", finished.report());
    });
}

fn files_are_copied(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let here = fixture.directory().join("copy");
    let path = |name: &str| here.join(name).to_str().expect("a path of ours is text").to_owned();
    let in_node = |path: &str| format!("{NODE}:{path}");
    steps.step("cp takes files and directories into the node and back", || {
        fs_err::create_dir_all(here.join("dir/sub")).expect("the directory is ours");
        fs_err::write(here.join("dir/sub/run"), "#!/bin/sh\necho ran\n").expect("the directory is ours");
        let mode = std::fs::Permissions::from_mode(0o751);
        fs_err::set_permissions(here.join("dir/sub/run"), mode).expect("it is ours");
        let _ = kiln.run(&["cp", &path("dir"), &in_node("/root/new")]).succeeded();
        assert_eq!(kiln.run(&["exec", NODE, "--", "/root/new/sub/run"]).succeeded().stdout(), "ran\n");
        // /var and /run are mounts of the node.
        let _ = kiln.run(&["cp", &path("dir/sub/run"), &in_node("/var/tmp/")]).succeeded();
        let _ = kiln.run(&["cp", &in_node("/var/tmp/run"), &path("back")]).succeeded();
        let mode = fs_err::metadata(here.join("back")).expect("it came back").permissions().mode();
        assert_eq!((mode & 0o7777, read(&here.join("back"))), (0o751, read(&here.join("dir/sub/run"))));
        let _ = kiln.run(&["cp", &in_node("/root/new/."), &path("whole")]).succeeded();
        assert_eq!(read(&here.join("whole/sub/run")), read(&here.join("dir/sub/run")));
    });
    steps.step("cp streams archives", || {
        let archive = kiln.run(&["cp", &in_node("/root/new"), "-"]).succeeded();
        assert!(archive.bytes().windows(11).any(|part| part == b"new/sub/run"), "no entry of the file");
        let _ = kiln.run_with(&["cp", "-", &in_node("/run")], archive.bytes(), SHORT).succeeded();
        assert_eq!(kiln.run(&["exec", NODE, "--", "sh", "/run/new/sub/run"]).succeeded().stdout(), "ran\n");
    });
    steps.step("cp stays inside the node, and says what is wrong", || {
        let secret = fixture.directory().join("secret");
        fs_err::write(&secret, "of the host").expect("the directory is ours");
        let target = secret.to_str().expect("a path of ours is text");
        let _ = kiln.run(&["exec", NODE, "--", "ln", "-s", target, "/root/link"]).succeeded();
        let _ = kiln.run(&["cp", &path("dir/sub/run"), &in_node("/root/link")]);
        assert_eq!(read(&secret), "of the host");
        kiln.run(&["cp", "-L", &in_node("/root/link"), &path("stolen")]).refused(&[&in_node("/root/link")]);
        kiln.run(&["cp", &in_node("/no/such"), &path("x")]).refused(&["/no/such"]);
        kiln.run(&["cp", &path("dir"), &path("x")]).refused(&["NODE:PATH"]);
        kiln.run(&["cp", &path("dir"), "it-none:/x"]).refused(&["it-none"]);
    });
}

fn shells_are_opened(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    steps.step("shell reads a script", || {
        let script = b"shopt -q login_shell && hostname\nexit 5\n";
        let finished = kiln.run_with(&["shell", NODE], script, SHORT).exited(5);
        assert_eq!(finished.stdout(), format!("{NODE}\n"), "{}", finished.report());
    });
    steps.step("shell has a terminal", || {
        // Typed, by somebody who waits for the prompt and does not hang up at once.
        let typed = "sleep 1; printf 'test -t 0 && echo tty-$((6*7))\\nexit 7\\n'; sleep 1";
        let line =
            format!("{{ {typed}; }} | script -qec '{} shell {NODE}' /dev/null", kiln.binary().display());
        let finished = kiln.run_other("sh", &["-c", &line], SHORT).exited(7);
        assert!(finished.stdout().contains("tty-42"), "{}", finished.report());
    });
}

fn read(path: &Path) -> String {
    match fs_err::read(path) {
        Ok(content) => String::from_utf8_lossy(&content).into_owned(),
        Err(error) => panic!("{error}"),
    }
}

/// Everything below a directory that is none itself.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs_err::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    files
}
