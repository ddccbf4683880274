//! What the Kubernetes of a node image is made from.

use std::path::{Path, PathBuf};

use super::{DEFAULT_KUBERNETES_VERSION, tree, version::KubernetesVersion};
use crate::{Error, Result};

/// Where Kubernetes comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Go modules of a released version, such as `v1.34.4`.
    Release(String),
    /// A source tree, as it is cloned or unpacked.
    Tree {
        /// Its directory.
        directory: PathBuf,
        /// The version that its programs are to report, instead of what the tree says of itself.
        version: Option<String>,
    },
    /// An archive of programs and images for servers, `kubernetes-server-linux-ARCH.tar.gz`, in a file.
    Archive(PathBuf),
    /// Such an archive at an address of HTTP or HTTPS.
    Url(String),
}

impl Default for Source {
    fn default() -> Self {
        Self::Release(DEFAULT_KUBERNETES_VERSION.to_owned())
    }
}

impl Source {
    /// Tells what is meant the way kind does: by `kind`, which is one of `url`, `file`, `source`, `release` and `ci`,
    /// or else by what `source` looks like: an address, a file, a directory or a version. Without both it is the
    /// release `version` or the default one. `version` is what `--kubernetes-version` says. Empty text counts as none.
    ///
    /// # Errors
    /// [`Error::BuildSource`] when nothing is found or what is asked for contradicts itself,
    /// [`Error::KubernetesVersion`].
    pub fn detect(source: Option<&str>, kind: Option<&str>, version: Option<&str>) -> Result<Self> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let (source, version) = (given(source), given(version));
        let kind = match given(kind) {
            Some(kind) => kind,
            None => match &source {
                Some(source) => guess(source)?.to_owned(),
                None => "release".to_owned(),
            },
        };
        let nothing = |what: &str| {
            refused(format!("--type {kind}"), format!("{what} is missing"), "name it as SOURCE".to_owned())
        };
        match kind.as_str() {
            "release" => release(source, version),
            "source" => {
                let directory = match source {
                    Some(source) => source.into(),
                    None => tree::find().ok_or_else(|| nothing("the directory of a source tree"))?,
                };
                Ok(Self::Tree { directory, version })
            }
            "file" => {
                let path = source.ok_or_else(|| nothing("the file"))?;
                own_version(&path, version)?;
                Ok(Self::Archive(path.into()))
            }
            "url" => {
                let url = source.ok_or_else(|| nothing("the address"))?;
                if !is_url(&url) {
                    let reason = "it is no address of http or https".to_owned();
                    return Err(refused(format!("{url:?}"), reason, "write https://…".to_owned()));
                }
                own_version(&url, version)?;
                Ok(Self::Url(url))
            }
            "ci" => Err(refused(
                source.unwrap_or_else(|| "--type ci".to_owned()),
                "builds of single commits are published as programs only, which Kiln does not look for".to_owned(),
                "check the commit out and build that: `kiln build node-image DIR`; or name the archive's address"
                    .to_owned(),
            )),
            _ => Err(refused(
                format!("--type {kind:?}"),
                "there is no such type".to_owned(),
                "types are url, file, release, ci and source".to_owned(),
            )),
        }
    }
}

/// What something that is named without its type looks like, in kind's order.
fn guess(source: &str) -> Result<&'static str> {
    let path = Path::new(source);
    if is_url(source) {
        Ok("url")
    } else if path.is_file() {
        Ok("file")
    } else if path.is_dir() {
        Ok("source")
    } else if source.starts_with("ci/") {
        Ok("ci")
    } else if source.parse::<KubernetesVersion>().is_ok() {
        Ok("release")
    } else {
        Err(refused(
            format!("{source:?}"),
            "there is no such directory or file, and it is neither an address nor a version".to_owned(),
            format!(
                "build a release with `kiln build node-image {DEFAULT_KUBERNETES_VERSION}`, a source tree with \
                 `kiln build node-image DIR`"
            ),
        ))
    }
}

fn release(source: Option<String>, version: Option<String>) -> Result<Source> {
    let parse = |text: &String| text.parse::<KubernetesVersion>();
    let wanted = match (&source, &version) {
        (Some(source), Some(version)) if parse(source)? != parse(version)? => {
            let reason = format!("--kubernetes-version says {version}");
            return Err(refused(source.clone(), reason, "leave one of them out".to_owned()));
        }
        (Some(text), _) | (None, Some(text)) => parse(text)?,
        (None, None) => return Ok(Source::default()),
    };
    if !wanted.is_release() {
        return Err(Error::KubernetesVersion { version: wanted.to_string(), source: None });
    }
    Ok(Source::Release(wanted.to_string()))
}

/// Programs that are compiled already say their version themselves.
fn own_version(source: &str, version: Option<String>) -> Result<()> {
    match version {
        Some(version) => Err(refused(
            source.to_owned(),
            format!("its programs have a version already, and it cannot become {version}"),
            "leave --kubernetes-version out".to_owned(),
        )),
        None => Ok(()),
    }
}

fn is_url(source: &str) -> bool {
    let scheme = source.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

/// Something that no node image can be made from.
pub(super) fn refused(what: impl Into<String>, reason: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::BuildSource { what: what.into(), reason: reason.into(), cure: cure.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(source: &str, kind: &str, version: &str) -> Result<Source> {
        Source::detect(Some(source), Some(kind), Some(version))
    }

    fn release(version: &str) -> Source {
        Source::Release(version.to_owned())
    }

    #[test]
    fn a_source_is_told_by_what_it_looks_like() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("v1.34.4");
        fs_err::write(&file, "").unwrap();
        let (directory, file) = (directory.path().to_str().unwrap(), file.to_str().unwrap());
        let tree = |version: Option<&str>| Source::Tree {
            directory: directory.into(),
            version: version.map(str::to_owned),
        };
        let url = "HTTPS://dl.example/v1.34.4/kubernetes-server-linux-amd64.tar.gz";
        for (source, kind, version, expected) in [
            ("", "", "", release("v1.34.4")),
            ("", "", "1.33.1", release("v1.33.1")),
            ("v1.35.0-rc.1", "", "", release("v1.35.0-rc.1")),
            ("1.33.1", "release", "v1.33.1", release("v1.33.1")),
            ("", "release", "", release("v1.34.4")),
            (directory, "", "", tree(None)),
            (directory, "source", "v1.34.4-mine.1", tree(Some("v1.34.4-mine.1"))),
            (file, "", "", Source::Archive(file.into())),
            (url, "", "", Source::Url(url.to_owned())),
            ("/not/there", "file", "", Source::Archive("/not/there".into())),
        ] {
            assert_eq!(detect(source, kind, version).unwrap(), expected, "{source:?} {kind:?} {version:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_do() {
        for (source, kind, version, words, hint) in [
            ("./nowhere", "", "", "\"./nowhere\"", "DIR"),
            ("ci/latest", "", "", "single commits", "check the commit out"),
            ("", "ci", "", "--type ci", "check the commit out"),
            ("", "file", "", "the file is missing", "SOURCE"),
            ("", "url", "", "the address is missing", "SOURCE"),
            ("ftp://x/y", "url", "", "no address of http", "https://"),
            ("x", "bazel", "", "--type \"bazel\"", "types are"),
            ("v1.34.4", "", "v1.33.1", "--kubernetes-version says v1.33.1", "leave one"),
            ("/x.tar.gz", "file", "v1.33.1", "cannot become v1.33.1", "leave --kubernetes-version out"),
        ] {
            let error = detect(source, kind, version).expect_err(source);
            assert!(matches!(error, Error::BuildSource { .. }), "{error}");
            assert!(error.to_string().contains(words), "{source:?} {kind:?}: {error}");
            assert!(error.hint().is_some_and(|it| it.contains(hint)), "{source:?}: {:?}", error.hint());
        }
        for version in ["latest", "v1.34.4+k3s1", "v1.34"] {
            let error = detect("", "", version).expect_err(version);
            assert!(matches!(error, Error::KubernetesVersion { .. }), "{version}: {error}");
        }
    }
}
