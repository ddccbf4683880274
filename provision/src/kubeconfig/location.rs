//! Which files make up the kubeconfig, by kubectl's rules.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// The files of a kubeconfig, in the order of their precedence; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    paths: Vec<PathBuf>,
}

impl Locations {
    /// All files, whether they exist or not.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The file that new entries go into: the first one that exists, else the last one of the list.
    #[must_use]
    pub fn merge_target(&self) -> &Path {
        self.paths
            .iter()
            .find(|path| path.exists() && !path.is_dir())
            .or(self.paths.last())
            .expect("there is at least one path: locate() is the only constructor")
    }
}

/// The files of the kubeconfig: `explicit` (`--kubeconfig`) alone, else those listed in `env` (`$KUBECONFIG`, separated
/// by colons; empty and repeated ones are skipped), else `.kube/config` in `home` (`$HOME`). Empty values count as
/// absent.
///
/// # Errors
/// [`Error::KubeconfigLocation`] when all three are absent.
pub fn locate(explicit: Option<&Path>, env: Option<&OsStr>, home: Option<&Path>) -> Result<Locations> {
    let given = |path: &&Path| !path.as_os_str().is_empty();
    if let Some(path) = explicit.filter(given) {
        return Ok(Locations { paths: vec![path.to_owned()] });
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    // Bytes, not text: a path that is no UTF-8 must not send the entries elsewhere.
    let listed = env.unwrap_or_default().as_bytes().split(|byte| *byte == b':');
    for path in listed.filter(|path| !path.is_empty()).map(|path| PathBuf::from(OsStr::from_bytes(path))) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let home = home.filter(given).ok_or(Error::KubeconfigLocation)?;
        paths.push(home.join(".kube/config"));
    }
    Ok(Locations { paths })
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    fn paths(explicit: Option<&str>, env: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
        locate(explicit.map(Path::new), env.map(OsStr::new), home.map(Path::new)).unwrap().paths().to_vec()
    }

    #[test]
    fn the_flag_beats_the_variable_beats_home() {
        assert_eq!(paths(Some("/x"), Some("/a:/b"), Some("/home/u")), [Path::new("/x")]);
        assert_eq!(paths(None, Some("/a:/b"), Some("/home/u")), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(paths(None, None, Some("/home/u")), [Path::new("/home/u/.kube/config")]);
        assert_eq!(paths(Some(""), Some(""), Some("/home/u")), [Path::new("/home/u/.kube/config")]);
    }

    #[test]
    fn empty_and_repeated_entries_are_skipped() {
        assert_eq!(paths(None, Some(":/a::/b:/a:"), None), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(paths(None, Some("::"), Some("/h")), [Path::new("/h/.kube/config")]);
    }

    #[test]
    fn paths_need_not_be_text() {
        let env = OsStr::from_bytes(b"/a\xff:/b");
        let paths = locate(None, Some(env), None).unwrap().paths().to_vec();
        assert_eq!(paths, [Path::new(OsStr::from_bytes(b"/a\xff")), Path::new("/b")]);
    }

    #[test]
    fn nowhere_is_an_error_with_a_hint() {
        let error = locate(None, None, Some(Path::new(""))).unwrap_err();
        assert!(matches!(error, Error::KubeconfigLocation));
        assert!(error.hint().unwrap().contains("--kubeconfig"));
    }

    #[test]
    fn entries_go_into_the_first_file_there_is_else_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let env =
            ["directory", "b", "c"].map(|name| path(name).into_os_string().into_string().unwrap()).join(":");
        fs::create_dir(path("directory")).unwrap();
        let locations = locate(None, Some(OsStr::new(&env)), None).unwrap();
        assert_eq!(locations.merge_target(), path("c"));
        fs::write(path("c"), "").unwrap();
        fs::write(path("b"), "").unwrap();
        assert_eq!(locations.merge_target(), path("b"));
    }
}
