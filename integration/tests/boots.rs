//! `bench boot`: a cluster is made, measured and unmade, and held against a baseline.

use kiln_integration::{Fixture, Steps, kiln::LONG};

/// The marks of a boot that come one after the other.
const ORDER: [&str; 4] = ["api_seconds", "node_seconds", "nodes_seconds", "pod_seconds"];

#[test]
fn boots_are_measured_from_outside() {
    let Some(fixture) = Fixture::open() else { return };
    let kiln = fixture.kiln();
    let mut steps = Steps::default();
    let chart = fixture.directory().join("boots.svg");
    let baseline = fixture.directory().join("baseline.json");
    let (chart_path, baseline_path) =
        (chart.to_str().expect("a path of ours is text"), baseline.to_str().expect("a path of ours is text"));
    steps.step("what cannot be measured is refused before anything is made", || {
        let bench = ["bench", "boot", "--name", "it-bench"];
        let run = |more: &[&str]| kiln.run(&[&bench[..], more].concat());
        run(&["--config", "/no/such/file"]).refused(&["/no/such/file"]);
        run(&["--fail-over", "1.1x", "--baseline", baseline_path]).refused(&["baseline"]);
        fs_err::write(&baseline, "{}").expect("the directory is ours");
        run(&["--fail-over", "1.1x", "--baseline", baseline_path]).refused(&[baseline_path]);
        // No host of these tests has kind where this looks.
        let alone = kiln.with_env("PATH", fixture.directory());
        alone.run(&[&bench[..], &["--compare", "kind"]].concat()).refused(&["kind is not on this host"]);
    });
    steps.step("a boot has all marks, processor time and disk", || {
        let args = [
            "bench",
            "boot",
            "--name",
            "it-bench",
            "--runs",
            "1",
            "--warm-up",
            "0",
            "--chart",
            chart_path,
            "-o",
            "json",
        ];
        let finished = kiln.start(&args).wait(LONG).succeeded();
        let list: serde_json::Value = serde_json::from_slice(finished.bytes()).expect("it is JSON");
        let run = &list[0]["runs"][0];
        let figure = |name: &str| run[name].as_f64().unwrap_or_else(|| panic!("no {name}: {list}"));
        for pair in ORDER.windows(2) {
            assert!(figure(pair[0]) > 0.0 && figure(pair[0]) <= figure(pair[1]), "{list}");
        }
        assert!(figure("created_seconds") > 1.0 && figure("dns_seconds") > figure("api_seconds"), "{list}");
        assert!(figure("cpu_seconds") > 1.0 && figure("cpu_seconds") < 300.0, "{list}");
        assert!(figure("disk_bytes") > 1e6 && figure("disk_bytes") < 100e6, "{list}");
        assert_eq!(list[0]["summary"]["pod"]["median"], run["pod_seconds"], "{list}");
        let drawn = fs_err::read_to_string(&chart).expect("it was drawn");
        assert!(drawn.starts_with("<svg") && drawn.contains("pod resolved Service"), "{drawn}");
        assert!(fixture.clusters().is_empty(), "the cluster is gone");
        // For the next step: a host on which everything took a hundredth of the time.
        let mut before = list.clone();
        for spread in before[0]["summary"].as_object_mut().expect("an object").values_mut() {
            if let Some(median) = spread["median"].as_f64() {
                spread["median"] = (median / 100.0).into();
            }
        }
        fs_err::write(&baseline, before.to_string()).expect("the directory is ours");
    });
    steps.step("a boot that is slower than its baseline fails, and says in what", || {
        let gate = ["--fail-over", "1.5x", "--baseline", baseline_path];
        let args = ["bench", "boot", "--name", "it-bench", "--runs", "1", "--warm-up", "0", "-o", "csv"];
        let finished = kiln.start(&[&args[..], &gate].concat()).wait(LONG).exited(1);
        assert!(
            finished.stdout().starts_with("tool,run,bootstrap,created_seconds,"),
            "{}",
            finished.report()
        );
        for part in ["more than 1.5x the baseline", "create returned", "pod resolved Service"] {
            assert!(finished.stderr().contains(part), "no {part}:\n{}", finished.report());
        }
    });
    steps.step("nothing is left", || fixture.assert_nothing_left());
    steps.finish();
}
