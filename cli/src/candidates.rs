//! What a shell proposes where a name is wanted: clusters, nodes, images.
//!
//! The completion scripts call this program with [`VARIABLE`] set to the shell's name and the command line behind `--`.
//! Names that cannot be read (other users' state, a damaged record) are not proposed; nothing is said about it, since
//! the shell would show it in the middle of what is being typed.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::CommandFactory;
use clap_complete::{CompleteEnv, engine::CompletionCandidate};
use kiln_provision::{Paths, cluster, image::Store, state};

use crate::{app, arguments::Arguments, usage};

/// Set by the completion scripts.
pub(crate) const VARIABLE: &str = "KILN_COMPLETE";

/// Answers a completion script, if one is asking.
pub(crate) fn answer(args: &[OsString]) -> Option<ExitCode> {
    let definition = || Arguments::command().bin_name(usage::program(args));
    let directory = std::env::current_dir().ok();
    match CompleteEnv::with_factory(definition).var(VARIABLE).try_complete(args, directory.as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// The clusters.
pub(crate) fn clusters() -> Vec<CompletionCandidate> {
    proposed(|line| cluster::clusters(&line.paths).unwrap_or_default())
}

/// The nodes: of the cluster that was named, or of all.
pub(crate) fn nodes() -> Vec<CompletionCandidate> {
    proposed(nodes_of)
}

/// The registries.
pub(crate) fn registries() -> Vec<CompletionCandidate> {
    proposed(|line| state::registry_names(&line.paths).unwrap_or_default())
}

/// The images in this host's store, as short as they can be written.
pub(crate) fn images() -> Vec<CompletionCandidate> {
    proposed(|line| {
        let names = Store::names(&line.paths.images()).unwrap_or_default();
        names.iter().map(|name| name.familiar()).collect()
    })
}

fn proposed(names: impl FnOnce(&Line) -> Vec<String>) -> Vec<CompletionCandidate> {
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let Some(line) = Line::of(&words, environment) else { return Vec::new() };
    names(&line).into_iter().map(CompletionCandidate::new).collect()
}

fn nodes_of(line: &Line) -> Vec<String> {
    let clusters = match &line.cluster {
        Some(cluster) => vec![cluster.clone()],
        None => cluster::clusters(&line.paths).unwrap_or_default(),
    };
    let names =
        clusters.iter().flat_map(|cluster| state::node_names(&line.paths, cluster).unwrap_or_default());
    names.collect()
}

/// What the flags before the word that is being completed say of it.
#[derive(Debug)]
struct Line {
    paths: Paths,
    cluster: Option<String>,
}

impl Line {
    fn of(words: &[OsString], environment: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let root = flag(words, &["--root"]).or_else(|| environment("KILN_ROOT")).map(PathBuf::from);
        let cluster = flag(words, &["--name", "-n"]);
        Some(Self {
            paths: app::paths(root.as_deref().filter(|root| *root != Path::new(""))).ok()?,
            cluster: cluster.and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty()),
        })
    }
}

/// The value of a flag in a command line that may not be complete yet.
fn flag(words: &[OsString], names: &[&str]) -> Option<OsString> {
    let mut words = words.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if names.iter().any(|name| word == name) {
            return words.next().cloned();
        }
        let assigned = names.iter().find_map(|name| word.to_str()?.strip_prefix(name)?.strip_prefix('='));
        if let Some(value) = assigned {
            return Some(value.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn flags_before_the_word_count() {
        let line = |text: &str| Line::of(&words(text), |_| None).expect(text);
        let found = line("kiln --root /x exec -n dev ");
        assert_eq!(found.paths.state(), Path::new("/x"));
        assert_eq!(found.cluster.as_deref(), Some("dev"));
        let found = line("kiln load image-archive --name=dev --root=/y --node");
        assert_eq!((found.paths.state(), found.cluster.as_deref()), (Path::new("/y"), Some("dev")));
        let found = line("kiln exec node -- --name x --root /z");
        assert_eq!((found.paths, found.cluster), (Paths::default(), None));
        assert_eq!(line("kiln exec --name").cluster, None);
    }

    #[test]
    fn the_environment_counts_unless_a_flag_does() {
        let environment = |name: &str| (name == "KILN_ROOT").then(|| OsString::from("/e"));
        let root = |text: &str| Line::of(&words(text), environment).expect(text).paths;
        assert_eq!(root("kiln exec").state(), Path::new("/e"));
        assert_eq!(root("kiln --root /x exec").state(), Path::new("/x"));
    }

    #[test]
    fn nodes_are_those_of_the_cluster_that_was_named() {
        let root = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(root.path().to_owned(), root.path().join("run"));
        for (cluster, node) in [("a", "a-control-plane"), ("b", "b-control-plane"), ("b", "b-worker")] {
            fs_err::create_dir_all(paths.node(cluster, node)).expect("a directory");
        }
        let nodes = |cluster: Option<&str>| {
            nodes_of(&Line { paths: paths.clone(), cluster: cluster.map(str::to_owned) })
        };
        assert_eq!(nodes(Some("b")), ["b-control-plane", "b-worker"]);
        assert_eq!(nodes(None).len(), 3);
        assert!(nodes(Some("no such")).is_empty(), "an impossible name is no error");
    }
}
