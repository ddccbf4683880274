//! What the recipe changes in the source of a component before it is compiled.
//!
//! Modules in Go's cache stay as they are: the changed one is a copy, which Go takes in its place.

use std::{io, path::Path};

use super::recipe;

/// One line of one file, and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change<'t> {
    /// The module that the file belongs to.
    module: &'t str,
    /// The file in there.
    file: &'t str,
    old: &'t str,
    /// Lines, each with its end.
    new: String,
}

/// What became of the files of a module that were to be changed.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Those that were: module and path.
    pub(super) changed: Vec<String>,
    /// Those that were not, each with the line that is not in it once.
    pub(super) missing: Vec<(String, &'static str)>,
}

/// All changes of one component, by module.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    modules: Vec<(&'static str, Vec<Change<'static>>)>,
}

impl Changes {
    /// The changes in the recipe of `component`; none for most.
    pub(super) fn of(component: &str) -> Self {
        let text = recipe::find(&format!("{component}/changes")).unwrap_or_default();
        let mut modules: Vec<(&str, Vec<Change<'_>>)> = Vec::new();
        for change in parse(text) {
            match modules.iter_mut().find(|(module, _)| *module == change.module) {
                Some((_, changes)) => changes.push(change),
                None => modules.push((change.module, vec![change])),
            }
        }
        Self { modules }
    }

    /// The modules that are changed.
    pub(super) fn modules(&self) -> impl Iterator<Item = &'static str> {
        self.modules.iter().map(|(module, _)| *module)
    }

    /// Copies a module from `source` to `target`, changed. A file is changed as a whole or not at all, since its changes may need
    /// each other. Returns what was changed, and what was not, as another version than the recipe's may be written otherwise.
    pub(super) fn copy(&self, module: &str, source: &Path, target: &Path) -> io::Result<Copied> {
        copy_tree(source, target)?;
        let mut copied = Copied::default();
        let changes =
            self.modules.iter().filter(|(name, _)| *name == module).flat_map(|(_, changes)| changes);
        let changes: Vec<_> = changes.collect();
        for changes in changes.chunk_by(|one, next| one.file == next.file) {
            let path = target.join(changes[0].file);
            let text = match fs_err::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                text => text?,
            };
            let changed = changes.iter().try_fold(text, |text, change| {
                change.apply(&text).ok_or_else(|| (format!("{module}/{}", change.file), change.old.trim()))
            });
            match changed {
                Ok(text) => {
                    fs_err::write(&path, text)?;
                    copied.changed.push(format!("{module} {}", changes[0].file));
                }
                Err(line) => copied.missing.push(line),
            }
        }
        Ok(copied)
    }
}

impl Change<'_> {
    /// The text of the file with the change; none when the line is not there once.
    fn apply(&self, text: &str) -> Option<String> {
        if text.lines().filter(|line| *line == self.old).count() != 1 {
            return None;
        }
        let lines = text.split_inclusive('\n');
        Some(
            lines
                .map(|line| if line.trim_end_matches('\n') == self.old { &self.new } else { line })
                .collect(),
        )
    }
}

/// The format is told in the file itself.
fn parse(text: &str) -> Vec<Change<'_>> {
    let mut changes: Vec<Change<'_>> = Vec::new();
    let (mut module, mut file) = ("", "");
    for line in text.lines() {
        if let Some(old) = line.strip_prefix('-') {
            changes.push(Change { module, file, old, new: String::new() });
        } else if let Some(new) = line.strip_prefix('+') {
            let change = changes.last_mut().expect("the recipe says what is replaced, then by what");
            change.new.extend([new, "\n"]);
        } else if let Some((first, second)) = line.split_once(' ').filter(|_| !line.starts_with('#')) {
            (module, file) = (first, second);
        }
    }
    changes
}

/// What a module consists of: directories and regular files.
fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    fs_err::create_dir_all(target)?;
    for entry in fs_err::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&from, &to)?;
        } else {
            // Not `copy`, which would take over that Go's cache is not to be written to.
            io::copy(&mut fs_err::File::open(from)?, &mut fs_err::File::create(to)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::component::ALL;

    #[test]
    fn each_change_has_both_sides_and_its_component_is_of_the_recipe() {
        const CGROUPS: &str = "github.com/opencontainers/cgroups";
        for component in ALL {
            let changes = Changes::of(component.name);
            let expected: &[&str] = match component.name {
                "kubernetes" => &[
                    "k8s.io/kubernetes",
                    "k8s.io/client-go",
                    CGROUPS,
                    "k8s.io/apiserver",
                    "k8s.io/kube-aggregator",
                    "k8s.io/controller-manager",
                ],
                "runc" => &[CGROUPS],
                "etcd" => &["go.etcd.io/etcd/server/v3"],
                _ => &[],
            };
            assert_eq!(changes.modules().collect::<Vec<_>>(), expected, "{}", component.name);
            for change in changes.modules.iter().flat_map(|(_, changes)| changes) {
                let path = Path::new(change.file);
                assert_eq!(
                    path.extension().and_then(|extension| extension.to_str()),
                    Some("go"),
                    "{change:?}"
                );
                assert!(!change.new.is_empty() && change.new.trim_end() != change.old, "{change:?}");
            }
        }
    }

    #[test]
    fn a_line_is_replaced_by_one_or_several_if_it_is_there_once() {
        let changes = parse("# Why.\nexample.org/a b/c.go\n-\tone\n+\ttwo\n+three\n-four\n+five\n");
        let [first, second] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((first.module, first.file, first.old), ("example.org/a", "b/c.go", "\tone"));
        assert_eq!(first.apply("zero\n\tone\nend").as_deref(), Some("zero\n\ttwo\nthree\nend"));
        assert_eq!(first.apply("one\n"), None);
        assert_eq!(first.apply("\tone\n\tone\n"), None);
        assert_eq!((second.file, second.apply("four").as_deref()), ("b/c.go", Some("five\n")));
    }

    #[test]
    fn a_module_is_copied_and_what_cannot_be_changed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (directory.path().join("a@v1"), directory.path().join("a"));
        fs_err::create_dir_all(source.join("b")).unwrap();
        fs_err::write(source.join("b/c.go"), "one\n").unwrap();
        fs_err::write(source.join("d.go"), "one\n").unwrap();
        // Of the second file's two lines, one is there.
        let text = "m b/c.go\n-one\n+two\nm d.go\n-one\n+two\n-\tthree\n+four\nm e.go\n-five\n+six\n";
        let changes = Changes { modules: vec![("m", parse(text))] };
        let copied = changes.copy("m", &source, &target).unwrap();
        assert_eq!(copied.changed, ["m b/c.go"]);
        assert_eq!(copied.missing, [("m/d.go".to_owned(), "three"), ("m/e.go".to_owned(), "five")]);
        assert_eq!(fs_err::read_to_string(target.join("b/c.go")).unwrap(), "two\n");
        assert_eq!(fs_err::read_to_string(target.join("d.go")).unwrap(), "one\n");
        assert_eq!(fs_err::read_to_string(source.join("b/c.go")).unwrap(), "one\n");
    }
}
