//! Configurations, and the patches that come with them.

use kiln_provision::{
    Error,
    config::{self, Cluster, JsonPatch},
    patch,
};

/// What separates the parts of an input; the name of the part follows on the line.
const MARK: &str = "%% ";
/// What containerd's patches of a configuration are applied to.
const CONTAINERD: &str = "version = 3\nroot = '/var/lib/containerd'\n[a]\nb = 1\n";
/// More than this nobody would read.
const MAX_MESSAGE: usize = 100_000;

/// Reads a configuration, renders it, and applies patches.
///
/// The input is a configuration up to the first line that begins with `%% `. What follows each such line is a part by the
/// name on it: `objects` (YAML) with `merge` and `operations KIND`, `toml` with `toml-merge` and `toml-operations`. All
/// but the first may come several times.
///
/// Each of it is accepted or refused, both times in the same way; what is wrong has a place in the text; and what is
/// written can be read, and is the same when it is written again.
///
/// # Panics
/// When one of these does not hold.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parts = Parts::of(&text);
    if !parts.config.trim().is_empty() {
        check_config(&parts.config);
    }
    if !parts.objects.is_empty() {
        let patched = |objects: &str| patch::fuzzing::patch_stream(objects, &parts.merges, &parts.operations);
        check_patched(&parts.objects, patched, |text| patch::fuzzing::patch_stream(text, &[], &[]));
    }
    if !parts.toml.is_empty() {
        let patched = |toml: &str| patch::containerd(toml, &parts.toml_merges, &parts.toml_operations);
        check_patched(&parts.toml, patched, |text| patch::containerd(text, &[], &[]));
    }
}

#[derive(Debug, Default)]
struct Parts {
    config: String,
    objects: String,
    merges: Vec<String>,
    operations: Vec<JsonPatch>,
    toml: String,
    toml_merges: Vec<String>,
    toml_operations: Vec<String>,
}

impl Parts {
    fn of(text: &str) -> Self {
        let mut parts = Self::default();
        let (mut name, mut content) = ("", String::new());
        for line in text.split_inclusive('\n') {
            match line.strip_prefix(MARK) {
                Some(next) => {
                    parts.add(name, std::mem::take(&mut content));
                    name = next.trim_end();
                }
                None => content.push_str(line),
            }
        }
        parts.add(name, content);
        parts
    }

    fn add(&mut self, name: &str, content: String) {
        match name.split_once(' ').unwrap_or((name, "")) {
            ("", _) => self.config = content,
            ("objects", _) => self.objects = content,
            ("merge", _) => self.merges.push(content),
            ("operations", kind) => {
                let patch = JsonPatch { kind: kind.to_owned(), patch: content, ..JsonPatch::default() };
                self.operations.push(patch);
            }
            ("toml", _) => self.toml = content,
            ("toml-merge", _) => self.toml_merges.push(content),
            ("toml-operations", _) => self.toml_operations.push(content),
            _ => {}
        }
    }
}

fn check_config(text: &str) {
    let load = || config::load(text, "fuzz.yaml");
    let cluster = match (load(), load()) {
        (Ok(cluster), Ok(again)) => {
            assert_eq!(cluster, again);
            cluster
        }
        (Err(error), Err(again)) => {
            assert_eq!(told(&error), told(&again));
            return check_places(&error, text);
        }
        (one, other) => panic!("{one:?} at first, then {other:?}"),
    };
    assert!(cluster.control_planes() > 0 && cluster.nodes.len() < 254, "{cluster:?}");
    let mut names: Vec<_> = config::node_names(&cluster).into_iter().map(|node| node.name).collect();
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    if let Err(error) = config::preflight(&cluster, "fuzz.yaml") {
        told(&error);
    }
    // What was accepted is remembered with the cluster, and comes back as it was.
    let kept = serde_json::to_string(&cluster).expect("a configuration can be kept");
    let back: Cluster = serde_json::from_str(&kept).expect("what was kept can be read");
    assert_eq!(back, cluster);

    let render = |cluster| config::render(cluster, "v1.36.1", Some(CONTAINERD));
    let rendered = match (render(&cluster), render(&back)) {
        (Ok(rendered), Ok(again)) => {
            assert_eq!(rendered, again);
            rendered
        }
        (Err(error), Err(again)) => return assert_eq!(told(&error), told(&again)),
        (one, other) => panic!("{one:?} at first, then {other:?}"),
    };
    for node in rendered.nodes {
        if let Some(text) = node.kubeadm {
            assert_eq!(written(patch::fuzzing::patch_stream(&text, &[], &[])), text);
        }
        if let Some(text) = node.containerd {
            assert_eq!(written(patch::containerd(&text, &[], &[])), text);
        }
    }
}

fn check_patched(
    text: &str,
    patched: impl Fn(&str) -> kiln_provision::Result<String>,
    rewritten: impl Fn(&str) -> kiln_provision::Result<String>,
) {
    match (patched(text), patched(text)) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one, other);
            assert_eq!(written(rewritten(&one)), one);
        }
        (Err(one), Err(other)) => assert_eq!(told(&one), told(&other)),
        (one, other) => panic!("{one:?} at first, then {other:?}"),
    }
}

/// Makes sure that every place that an error names is one of the text.
fn check_places(error: &Error, text: &str) {
    let Error::Config { problems, .. } = error else { panic!("{error:?}") };
    assert!(problems.iter().next().is_some());
    // Carriage returns end lines too; two bytes that end one are counted as two here, which is enough.
    let lines = text.split(['\n', '\r']).count();
    for problem in problems.iter() {
        assert!(!problem.message.is_empty());
        if let Some(at) = problem.at {
            assert!((1..=lines + 1).contains(&at.line) && at.column > 0, "{problem:?}");
        }
    }
}

fn written(outcome: kiln_provision::Result<String>) -> String {
    outcome.unwrap_or_else(|error| panic!("what was written cannot be read: {}", told(&error)))
}

/// An error and its causes.
fn told(error: &Error) -> String {
    let (mut message, mut cause) = (error.to_string(), std::error::Error::source(error));
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    assert!(!message.is_empty() && message.len() < MAX_MESSAGE, "{} bytes: {message}", message.len());
    message
}
