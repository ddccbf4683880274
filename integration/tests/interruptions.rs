//! Creation that does not get to its end: interrupted, killed, hopeless, or beside another.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    thread,
    time::{Duration, Instant},
};

use kiln_integration::{Fixture, Steps, fixture, kiln::LONG};
use nix::sys::signal::Signal;

/// A create may tidy up for so long after Ctrl-C before its user presses it again.
const TIDYING: Duration = Duration::from_secs(15);

#[test]
fn ctrl_c_cleans_up_and_exits_130() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    // One node by template may be there after these two seconds.
    let long = fixture.directory().join("long.yaml");
    let text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: control-plane}, {role: control-plane}]\n";
    fs_err::write(&long, text).expect("the fixture's directory is writable");
    let long = ["--bootstrap", "kubeadm", "--config", long.to_str().expect("a path of ours is text")];
    for (phase, delay, options) in [
        ("Preparing nodes", 0, &[][..]),
        ("Preparing nodes", 300, &[]),
        ("Starting control-plane", 2_000, &long),
    ] {
        steps.step(&format!("Ctrl-C {delay} ms into {phase}"), || {
            let create = ["create", "cluster", "--name", "it-stop"];
            let running = fixture.kiln().start(&[&create, options].concat());
            assert!(running.wait_for_stderr(phase, Duration::from_secs(60)), "it never came to {phase}");
            thread::sleep(Duration::from_millis(delay));
            running.signal_group(Signal::SIGINT);
            let finished = running.wait(TIDYING).exited(130);
            assert!(!finished.stderr().contains("panicked"), "{}", finished.report());
            fixture.assert_nothing_left();
        });
    }
    steps.step("SIGTERM is answered alike", || {
        let running = fixture.kiln().start(&["create", "cluster", "--name", "it-stop"]);
        assert!(
            running.wait_for_stderr("Preparing nodes", Duration::from_secs(60)),
            "it never came to the nodes"
        );
        running.signal(Signal::SIGTERM);
        let finished = running.wait(TIDYING);
        assert!(finished.code() != 0, "{}", finished.report());
        fixture.assert_nothing_left();
    });
    steps.finish();
}

#[test]
fn delete_removes_what_a_killed_create_left() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    // Each range lies in a different part of a creation; where in it, no two runs agree.
    for (phase, range) in [
        ("Creating cluster", 0..60),
        ("Preparing nodes", 0..120),
        ("Preparing nodes", 100..800),
        ("Starting control-plane", 0..6_000),
    ] {
        let delay = random_within(&range);
        steps.step(&format!("kill -9 {delay} ms into {phase}"), || {
            let running = fixture.kiln().start(&["create", "cluster", "--name", "it-kill"]);
            assert!(running.wait_for_stderr(phase, Duration::from_secs(60)), "it never came to {phase}");
            thread::sleep(Duration::from_millis(delay));
            running.kill();
            let _ = fixture.delete("it-kill");
            fixture.assert_nothing_left();
        });
    }
    steps.finish();
}

#[test]
fn creates_beside_each_other_do_not_meet() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let nodes_only = fixture.kiln().with_env("KILN_STOP_AFTER", "nodes");
    steps.step("two clusters at once", || {
        let names = ["it-twin-a", "it-twin-b"];
        let both = names.map(|name| nodes_only.start(&["create", "cluster", "--name", name]));
        let _ = both.map(|running| running.wait(LONG).succeeded());
        assert_eq!(fixture.clusters(), names);
        let addresses = names.map(|name| {
            let node = format!("{name}-control-plane");
            let args = ["exec", &node, "--", "ip", "-4", "-o", "address", "show", "dev", "eth0"];
            fixture.kiln().run(&args).succeeded().stdout()
        });
        assert_ne!(addresses[0], addresses[1]);
        let both = names.map(|name| fixture.kiln().start(&["delete", "cluster", "--name", name]));
        let _ = both.map(|running| running.wait(LONG).succeeded());
        fixture.assert_nothing_left();
    });
    steps.step("one name twice at once", || {
        let both = [(); 2].map(|()| nodes_only.start(&["create", "cluster", "--name", "it-race"]));
        let codes = both.map(|running| running.wait(LONG)).map(|finished| {
            if finished.code() != 0 {
                assert!(finished.stderr().contains("it-race"), "{}", finished.report());
            }
            finished.code()
        });
        assert!(codes == [0, 1] || codes == [1, 0], "one wins and one is refused, not {codes:?}");
        let node = ["exec", "it-race-control-plane", "--", "true"];
        let _ = fixture.kiln().run(&node).succeeded();
        let _ = fixture.delete("it-race");
        fixture.assert_nothing_left();
    });
    steps.finish();
}

#[test]
fn a_hopeless_cluster_is_explained_and_removed_unless_retained() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let config = fixture::data("never-ready.yaml");
    let config = config.to_str().expect("a source path is text");
    steps.step("it is explained and removed", || {
        let finished = fixture.create("it-never", &["--config", config]);
        let told = finished.stderr().to_owned();
        finished.refused(&["it-never-control-plane", "kubelet", "kubeadm"]);
        assert!(told.lines().count() > 10, "no log lines in:\n{told}");
        fixture.assert_nothing_left();
    });
    steps.step("with --retain it stays until it is deleted", || {
        fixture.create("it-never", &["--config", config, "--retain"]).refused(&["it-never"]);
        assert_eq!(fixture.clusters(), ["it-never"]);
        let _ = fixture.kiln().run(&["exec", "it-never-control-plane", "--", "true"]).succeeded();
        let started = Instant::now();
        let _ = fixture.delete("it-never");
        assert!(started.elapsed() < Duration::from_secs(10), "delete took {:?}", started.elapsed());
        fixture.assert_nothing_left();
    });
    steps.finish();
}

fn random_within(range: &std::ops::Range<u64>) -> u64 {
    // The keys of the standard library's hasher are random: enough to land somewhere else each time.
    range.start + RandomState::new().hash_one(Instant::now()) % (range.end - range.start)
}
