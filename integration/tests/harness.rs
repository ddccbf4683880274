//! The harness itself. The oracle must see each kind of leak when one is planted, and nothing once it is gone; the
//! outside must answer.

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_integration::{Fixture, Outside, Steps, cluster::http_get, outside};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn every_kind_of_leak_is_seen() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let scope = fixture.scope().clone();
    let unseen = fixture.leaks();
    assert!(unseen.is_empty(), "before anything was planted: {unseen:?}");

    let mut planted = |kind: &str, detail: &str, plant: &dyn Fn() -> Planted| {
        steps.step(&format!("a {kind}"), || {
            let planted = plant();
            // A process needs a moment to become what it is.
            eventually(&format!("{kind} …{detail}… in {:?}", fixture.leaks_now()), || {
                fixture.leaks_now().iter().any(|leak| leak.starts_with(kind) && leak.contains(detail))
            });
            drop(planted);
            eventually("the host as it was", || fixture.leaks_now().is_empty());
        });
    };
    planted("process", "sleep 61", &|| Planted::orphan("61", Stdio::null()));
    planted("netns", "sleep 62", &|| Planted::process(&["unshare", "--net", "sleep", "62"]));
    planted("mount", "it-planted", &|| {
        let target = fixture.directory().join("it-planted");
        fs_err::create_dir(&target).expect("a directory");
        let target = target.to_str().expect("a path of ours is text").to_owned();
        Planted::commands(&["mount", "-t", "tmpfs", "planted", &target], &["umount", &target])
    });
    planted("cgroup", "it-planted", &|| {
        let directory = cgroup_mount().join("it-planted");
        fs_err::create_dir(&directory).expect("root may make cgroups");
        Planted::undo(move || drop(fs_err::remove_dir(&directory)))
    });
    planted("link", "kiln-it-planted", &|| {
        Planted::commands(
            &["ip", "link", "add", "kiln-it-planted", "type", "bridge"],
            &["ip", "link", "delete", "kiln-it-planted"],
        )
    });
    planted("nft table inet", "kiln-it-planted", &|| {
        Planted::commands(
            &["nft", "add", "table", "inet", "kiln-it-planted"],
            &["nft", "delete", "table", "inet", "kiln-it-planted"],
        )
    });
    planted("port tcp 127.0.0.1", "held by", &|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        Planted::orphan("63", Stdio::from(OwnedFd::from(listener)))
    });
    for directory in
        [scope.state_root.join("clusters"), scope.run_root.join("clusters"), scope.temporary.clone()]
    {
        planted("file", "it-planted", &|| {
            fs_err::create_dir_all(&directory).expect("a directory");
            let file = directory.join("it-planted");
            fs_err::write(&file, "").expect("a file");
            Planted::undo(move || drop(fs_err::remove_file(&file)))
        });
    }
    planted("kubeconfig", "kind-it-planted", &|| {
        let file = fixture.kubeconfig();
        fs_err::write(&file, "current-context: kind-it-planted\n").expect("a file");
        Planted::undo(move || drop(fs_err::remove_file(&file)))
    });
    steps.finish();
}

#[test]
fn what_others_do_is_no_leak() {
    let Some(fixture) = Fixture::open() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let sleeper = Planted::process(&["sleep", "64"]);
    let container = Planted::process(&["unshare", "--fork", "--pid", "--kill-child", "sleep", "65"]);
    let leaks = fixture.leaks_now();
    assert!(leaks.is_empty(), "{leaks:?}");
    drop((listener, sleeper, container));
}

#[test]
fn the_outside_answers_while_it_is_there() {
    let Some(fixture) = Fixture::open() else { return };
    let outside = Outside::open();
    assert!(http_get(outside.address()).contains(outside::GREETING));
    assert_eq!(outside.take_peers(), [outside.host()]);
    assert!(!fixture.leaks_now().is_empty(), "its link and namespace should be seen");
    drop(outside);
    let leaks = fixture.leaks();
    assert!(leaks.is_empty(), "{leaks:?}");
}

/// Something planted, removed when dropped.
struct Planted(Option<Box<dyn FnOnce()>>);

impl Planted {
    fn undo(undo: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }

    fn process(words: &[&str]) -> Self {
        let mut child = spawn(words, Stdio::null());
        Self::undo(move || {
            let _ = child.kill();
            let _ = child.wait();
        })
    }

    /// A process in a pid namespace of its own whose parent has gone, as a node's init after its monitor.
    fn orphan(seconds: &str, stdin: Stdio) -> Self {
        let mut parent = spawn(&["unshare", "--fork", "--pid", "sleep", seconds], stdin);
        let children = format!("/proc/{0}/task/{0}/children", parent.id());
        let read = || fs_err::read_to_string(&children).unwrap_or_default().trim().to_owned();
        eventually("a process in a namespace", || !read().is_empty());
        let child = Pid::from_raw(read().parse().expect("one child"));
        parent.kill().expect("it is ours");
        parent.wait().expect("it is ours");
        Self::undo(move || {
            let _ = kill(child, Signal::SIGKILL);
        })
    }

    fn commands(plant: &[&str], undo: &[&str]) -> Self {
        run(plant);
        let undo: Vec<String> = undo.iter().map(|word| (*word).to_owned()).collect();
        Self::undo(move || run(&undo.iter().map(String::as_str).collect::<Vec<_>>()))
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

fn spawn(words: &[&str], stdin: Stdio) -> Child {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(stdin).stdout(Stdio::null());
    command.spawn().expect("it starts")
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("it starts");
    assert!(status.success(), "{}", words.join(" "));
}

fn cgroup_mount() -> PathBuf {
    // The hierarchy that every host has: the unified one, at either of its usual places.
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    let place = if hybrid.join("cgroup.procs").exists() { hybrid } else { Path::new("/sys/fs/cgroup") };
    place.to_owned()
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    // Neither the start of a process nor the kernel's deferred work tells when it is done.
    let every = Duration::from_millis(50);
    kiln_integration::eventually(Duration::from_secs(5), every, holds, || format!("never seen: {what}"));
}
