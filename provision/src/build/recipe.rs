//! The recipe: the data in `provision/node-image/`, which is part of the program.

use std::path::Path;

use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

static RECIPE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/node-image");

/// A text file of the recipe.
pub(super) fn text(path: &str) -> &'static str {
    find(path).expect("the file is part of the program")
}

/// A text file of the recipe, if it has such a file.
pub(super) fn find(path: &str) -> Option<&'static str> {
    RECIPE.get_file(path).and_then(|file| file.contents_utf8())
}

/// The entries of a list in the recipe: its lines without comments and empty ones.
pub(super) fn lines(path: &str) -> impl Iterator<Item = &'static str> {
    text(path).lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The files of a folder of the recipe, with their paths relative to it, in the order of their names.
pub(super) fn files(folder: &str) -> Vec<(&'static Path, &'static [u8])> {
    fn collect(directory: &'static Dir<'static>, into: &mut Vec<(&'static Path, &'static [u8])>) {
        into.extend(directory.files().map(|file| (file.path(), file.contents())));
        directory.dirs().for_each(|directory| collect(directory, into));
    }
    let mut files = Vec::new();
    collect(RECIPE.get_dir(folder).expect("the folder is part of the program"), &mut files);
    for (path, _) in &mut files {
        *path = path.strip_prefix(folder).expect("it was found there");
    }
    files.sort_by_key(|(path, _)| *path);
    files
}

/// Writes the files of a folder to `target`, which is made.
pub(super) fn write(folder: &str, target: &Path) -> Result<()> {
    let write = || {
        for (path, contents) in files(folder) {
            let path = target.join(path);
            if let Some(parent) = path.parent() {
                fs_err::create_dir_all(parent)?;
            }
            fs_err::write(path, contents)?;
        }
        Ok(())
    };
    write().map_err(|source| Error::File { what: "write the recipe", source })
}

/// Names a result by everything it is made from: same key, same result.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    hash: Sha256,
}

impl Key {
    /// Adds one input.
    #[must_use]
    pub(super) fn with(mut self, input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref();
        // With its length, so that moving a byte from one input to the next makes another key.
        self.hash.update((input.len() as u64).to_be_bytes());
        self.hash.update(input);
        self
    }

    /// Adds the names and contents of a folder of the recipe.
    #[must_use]
    pub(super) fn with_files(self, folder: &str) -> Self {
        files(folder)
            .into_iter()
            .fold(self, |key, (path, contents)| key.with(path.as_os_str().as_encoded_bytes()).with(contents))
    }

    /// Sixteen hexadecimal digits.
    #[must_use]
    pub(super) fn finish(self) -> String {
        self.hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_inputs_and_their_borders_apart() {
        let key = |inputs: &[&str]| inputs.iter().fold(Key::default(), |key, input| key.with(input)).finish();
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["ab", ""]), key(&["a", "b"]));
        assert_eq!(key(&[]).len(), 16);
        assert_ne!(Key::default().with_files("etcd").finish(), Key::default().with_files("coredns").finish());
    }

    #[test]
    fn files_are_relative_to_their_folder_and_come_in_order() {
        let paths: Vec<_> = files("kubernetes").into_iter().map(|(path, _)| path).collect();
        let expected = ["changes", "go.mod", "go.sum", "kube-controller-manager/main.go", "tools.go"];
        assert_eq!(paths, expected.map(Path::new));
    }

    #[test]
    fn lists_have_no_comments() {
        let packages: Vec<_> = lines("debian/packages").collect();
        assert!(packages.contains(&"systemd"));
        assert!(packages.iter().all(|package| !package.contains([' ', '#'])), "{packages:?}");
    }
}
