//! Configurations that are hostile or no configurations at all: bounded time and memory, one clear error each.
//!
//! No cluster, no root: the limits are the kernel's, set by prlimit(1).

use std::{path::Path, process::Command, time::Duration};

use kiln_integration::{Finished, Kiln, Running, Steps, host::text};

const HEAD: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";

/// Several times what the worst of these takes with a binary that is not optimised.
const LIMIT: Duration = Duration::from_secs(60);

/// Address space, far above what the largest valid file takes.
const MEMORY: &str = "--as=3221225472";

fn validate(kiln: &Kiln, path: &Path) -> Finished {
    let mut command = Command::new("prlimit");
    command.args([MEMORY, "--cpu=45"]).arg(kiln.binary()).args(["config", "validate", "--config"]).arg(path);
    Running::spawn(command, Vec::new()).wait(LIMIT)
}

/// Twelve levels, each of ten aliases of the one before.
fn bomb(indent: &str, open: &str, close: &str) -> String {
    let level = |level: usize| {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("{indent}a{level}: &a{level} {open}{aliases}{close}\n")
    };
    (1..12).map(level).collect()
}

/// What is wrong, the file, and a word of the error.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let text = |body: &str| format!("{HEAD}{body}").into_bytes();
    let patch = |body: &str| {
        format!("{HEAD}kubeadmConfigPatches:\n- |\n  kind: ClusterConfiguration\n{body}").into_bytes()
    };
    vec![
        ("nothing", Vec::new(), "empty"),
        ("an unknown field", text("nods: []\n"), "unknown field `nods`"),
        ("a million unknown fields", text(&"foo: bar\n".repeat(1_000_000)), "20 problems"),
        ("ten megabytes of a word", vec![b'x'; 10_000_000], "apiVersion"),
        (
            "ten megabytes without a quote",
            text(&format!("name: \"{}", "a".repeat(10_000_000))),
            "unclosed quote",
        ),
        (
            "a million nodes",
            text(&format!("nodes: [{}{{}}]\n", "{}, ".repeat(1_000_000))),
            "at most 253 nodes",
        ),
        ("lists in lists", text(&format!("nodes: {}", "[".repeat(1_000_000))), "recursion limit"),
        ("mappings in mappings", text(&format!("nodes: {}", "{a: ".repeat(1_000_000))), "recursion limit"),
        ("dashes", text(&format!("nodes:\n{}", "- ".repeat(1_000_000))), "recursion limit"),
        (
            "aliases of aliases",
            text(&format!("a0: &a0 {{x: y}}\n{}<<: *a11\n", bomb("", "{<<: [", "]}"))),
            "aliases",
        ),
        ("aliases in a patch", patch(&format!("  a0: &a0 [x]\n{}", bomb("  ", "[", "]"))), "aliases"),
        (
            "lists in lists in a patch",
            patch(&format!("  a: {}\n", "[".repeat(100_000))),
            "kubeadmConfigPatches[0]",
        ),
        (
            "tables in tables in a patch",
            text(&format!("containerdConfigPatches:\n- '{} = 1'\n", vec!["a"; 100_000].join("."))),
            "containerdConfigPatches[0]",
        ),
        ("an anchor in itself", text("nodes: &a [*a]\n"), "cannot contain itself"),
        ("a zero byte", text("name: a\0b\n"), "unexpected character"),
        ("bytes that are no text", [HEAD.as_bytes(), b"name: \xff\n"].concat(), "not text"),
        (
            "a later file format",
            b"kind: Cluster\napiVersion: kind.x-k8s.io/v1\n".to_vec(),
            "unknown apiVersion",
        ),
    ]
}

#[test]
fn hostile_configurations_cost_little_and_are_refused() {
    let binary = match Kiln::locate() {
        Ok(binary) => binary,
        Err(reason) => panic!("{reason}"),
    };
    let kiln = Kiln::new(binary, Vec::new());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("config.yaml");
    let mut steps = Steps::default();
    for (name, content, word) in cases() {
        steps.step(name, || {
            fs_err::write(&file, &content).expect("the directory is ours");
            let finished = validate(&kiln, &file);
            assert_eq!(finished.stderr().matches("ERROR:").count(), 1, "{}", finished.report());
            assert!(finished.stderr().len() < 20_000, "{} bytes of error", finished.stderr().len());
            finished.refused(&["config.yaml", word]);
        });
    }
    steps.step("ten megabytes of comments are fine", || {
        fs_err::write(&file, format!("{HEAD}{}", "# padding\n".repeat(1_000_000)))
            .expect("the directory is ours");
        let _ = validate(&kiln, &file).succeeded();
    });
    steps.step("a directory", || {
        validate(&kiln, directory.path()).refused(&[text(directory.path()), "directory"])
    });
    steps.step("a device without an end", || {
        validate(&kiln, Path::new("/dev/zero")).refused(&["larger than"])
    });
    steps.step("a pipe that nobody writes to", || {
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("the directory is ours");
        validate(&kiln, &pipe).refused(&[text(&pipe), "nobody writes"]);
    });
    steps.step("a pipe of a shell's", || {
        let script = format!(
            "exec '{}' config validate --config <(sleep 0.2; printf 'kind: Cluster\\napiVersion: kind.x-k8s.io/v1alpha4\\n')",
            text(kiln.binary())
        );
        let finished = kiln.run_other("bash", &["-c", &script], LIMIT).succeeded();
        assert!(finished.stderr().contains("is valid"), "{}", finished.report());
    });
    steps.finish();
}
