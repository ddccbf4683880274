//! A source tree of Kubernetes, as it is cloned or unpacked. Nothing is written into it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Build,
    cache::file_error,
    compile::Compiled,
    component::{KUBERNETES, stamp},
    program::Program,
    recipe::Key,
    source::refused,
    version::KubernetesVersion,
};
use crate::{Error, Reporter, Result};

/// The programs, in the tree's own packages. The order is that of the packages in [`KUBERNETES`].
const PACKAGES: [&str; 7] = [
    "./cmd/kubeadm",
    "./cmd/kubelet",
    "./cmd/kubectl",
    "./cmd/kube-apiserver",
    "./cmd/kube-controller-manager",
    "./cmd/kube-scheduler",
    "./cmd/kube-proxy",
];

/// Files that make a directory a tree that can be compiled. The last is not in Kubernetes' own Go module.
const NEEDED: [&str; 3] =
    ["cmd/kubeadm/kubeadm.go", "cmd/kubelet/kubelet.go", "staging/src/k8s.io/api/go.mod"];

/// Directories at the top of a tree that no program is compiled from.
const IGNORED: [&str; 3] = [".git", "_output", "CHANGELOG"];

/// Hexadecimal digits of a commit in the versions between two releases.
const COMMIT_DIGITS: usize = 14;

/// A tree and what it is.
#[derive(Debug)]
pub(super) struct Tree {
    directory: PathBuf,
    /// What its programs report.
    pub(super) version: KubernetesVersion,
    history: History,
}

/// What is known of a tree's history.
#[derive(Debug, Default, PartialEq, Eq)]
struct History {
    version: Option<String>,
    commit: Option<String>,
    /// `clean`, `dirty` or `archive`, as Kubernetes' programs report it.
    state: &'static str,
    /// What git says when it does not tell.
    complaint: Option<String>,
}

/// A tree where kind looks for one when none is named: the current directory, and below `GOPATH`.
pub(super) fn find() -> Option<PathBuf> {
    let mut places = vec![PathBuf::from(".")];
    let gopath = std::env::var_os("GOPATH").filter(|path| !path.is_empty());
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join("go").into_os_string());
    for path in gopath.or(home).iter().flat_map(std::env::split_paths) {
        places.extend(
            ["k8s.io", "github.com/kubernetes"].map(|host| path.join("src").join(host).join("kubernetes")),
        );
    }
    places.into_iter().find(|place| is_kubernetes(place))
}

/// Whether the module in a directory is Kubernetes.
fn is_kubernetes(directory: &Path) -> bool {
    let text = fs_err::read_to_string(directory.join("go.mod")).unwrap_or_default();
    text.lines().any(|line| line.trim() == format!("module {}", KUBERNETES.module))
}

impl Tree {
    /// Looks at a tree. `version` is what its programs are to report, otherwise its history tells.
    ///
    /// # Errors
    /// [`Error::BuildSource`] when it is none, is incomplete or does not tell its version, [`Error::KubernetesVersion`].
    pub(super) async fn open(
        directory: &Path,
        version: Option<&str>,
        reporter: &dyn Reporter,
    ) -> Result<Self> {
        let what = directory.display().to_string();
        let cure =
            "clone https://github.com/kubernetes/kubernetes, or build a release with --kubernetes-version";
        let directory =
            fs_err::canonicalize(directory).map_err(|error| refused(&what, error.to_string(), cure))?;
        if !is_kubernetes(&directory) {
            let reason = format!(
                "it is no source tree of Kubernetes: it has no go.mod of the module {}",
                KUBERNETES.module
            );
            return Err(refused(&what, reason, cure));
        }
        if let Some(missing) = NEEDED.iter().find(|file| !directory.join(file).is_file()) {
            let reason = format!("the source tree is incomplete: it has no {missing}");
            return Err(refused(&what, reason, cure));
        }
        let mut history = History::read(&directory, reporter).await;
        let version = match version {
            Some(version) => version.parse()?,
            None => history.version.take().ok_or_else(|| history.unknown(&what))?.parse()?,
        };
        Ok(Self { directory, version, history })
    }

    /// Compiles it, unless what is in it has been compiled already.
    ///
    /// # Errors
    /// [`Error::Program`] with what the compiler says, [`Error::BuildSource`] when the tree changes meanwhile.
    pub(super) async fn compile(&self, build: &Build<'_>) -> Result<Compiled> {
        let cached = format!("components/{}", KUBERNETES.name);
        let reading = file_error("read the source tree", &self.directory);
        let key = self.key(build).await.map_err(&reading)?;
        if let Some(directory) = build.cache.find(&cached, &key) {
            build
                .reporter
                .message(1, &format!("the programs of {} are in the cache", self.directory.display()));
            return Ok(Compiled { directory, key, took: None });
        }
        let title = format!("Compiling kubernetes {} from {} 🔨", self.version, self.directory.display());
        build
            .phase(&title, async {
                let started = Instant::now();
                let scratch = build.cache.scratch()?;
                let out = scratch.path().join("out");
                fs_err::create_dir(&out).map_err(file_error("prepare a compilation", build.cache.root()))?;
                self.run_go(build, scratch.path(), &out).await?;
                if self.key(build).await.map_err(&reading)? != key {
                    let reason = "it changed while it was compiled";
                    return Err(refused(self.directory.display().to_string(), reason, "build it again"));
                }
                let directory = build.cache.commit(&out, &cached, &key)?;
                Ok(Compiled { directory, key, took: Some(started.elapsed()) })
            })
            .await
    }

    async fn run_go(&self, build: &Build<'_>, scratch: &Path, out: &Path) -> Result<()> {
        let mut go = build
            .tools
            .go(format!("compile {}", self.directory.display()))
            .env("CGO_ENABLED", "0")
            .directory(&self.directory)
            .args(["build", "-trimpath"]);
        if self.directory.join("vendor/modules.txt").is_file() {
            // Go takes the dependencies from there when it sees the workspace that they were collected for.
            let workspace = self.directory.join("go.work");
            if workspace.is_file() {
                go = go.env("GOWORK", workspace);
            }
        } else {
            // Go may write down what it finds, in a copy.
            for file in ["go.mod", "go.sum"].into_iter().filter(|file| self.directory.join(file).exists()) {
                fs_err::copy(self.directory.join(file), scratch.join(file))
                    .map_err(file_error("copy the tree's go.mod", build.cache.root()))?;
            }
            go = go.args(["-mod=mod".to_owned(), format!("-modfile={}", scratch.join("go.mod").display())]);
        }
        // With a separator at its end: a directory, which takes each program under its package's name.
        go.args(["-ldflags", &self.linker_flags(), "-o"])
            .args([out.join("")])
            .args(PACKAGES)
            .run(build.reporter)
            .await?;
        Ok(())
    }

    fn linker_flags(&self) -> String {
        format!("-s -w{}", stamp(&self.version, self.history.state, self.history.commit.as_deref()))
    }

    /// Names everything the programs are made from.
    async fn key(&self, build: &Build<'_>) -> io::Result<String> {
        let key = Key::default()
            .with("tree")
            .with(self.linker_flags())
            .with(&build.tools.go_version)
            .with(std::env::consts::ARCH);
        let directory = self.directory.clone();
        let hashed = tokio::task::spawn_blocking(move || hash(&directory, &directory, key)).await;
        Ok(hashed.map_err(io::Error::other)??.finish())
    }
}

/// Adds the names and contents of all files, in the order of their names.
fn hash(top: &Path, directory: &Path, mut key: Key) -> io::Result<Key> {
    let mut entries = fs_err::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if directory == top && IGNORED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if kind.is_dir() {
            key = hash(top, &path, key)?;
            continue;
        }
        let name = path.strip_prefix(top).map_err(io::Error::other)?;
        key = key.with(name.as_os_str().as_encoded_bytes());
        if kind.is_file() {
            key = key.with(fs_err::read(&path)?);
        } else if kind.is_symlink() {
            key = key.with(fs_err::read_link(&path)?.as_os_str().as_encoded_bytes());
        }
    }
    Ok(key)
}

impl History {
    /// Asks git, if the tree is one of git's, and otherwise looks for what `git archive` leaves. That it is unknown is
    /// no error.
    async fn read(directory: &Path, reporter: &dyn Reporter) -> Self {
        // A tree inside of another repository has not that one's history.
        if directory.join(".git").exists() {
            return Self::of_git(directory, reporter).await;
        }
        Self::of_archive(&fs_err::read_to_string(directory.join("hack/lib/version.sh")).unwrap_or_default())
    }

    async fn of_git(directory: &Path, reporter: &dyn Reporter) -> Self {
        let git = |args: &'static [&'static str]| async move {
            let program = Program::new(Path::new("git"), "ask git for the tree's version");
            // Not what the tree's own configuration wants to be run when it is looked at.
            let program = program.directory(directory).args(["-c", "core.fsmonitor=false"]);
            program.args(args).run(reporter).await.map(|output| output.trim().to_owned())
        };
        let commit = git(&["rev-parse", "HEAD^{commit}"]).await.ok();
        let changes = git(&["--no-optional-locks", "status", "--porcelain"]).await;
        let described = git(&["describe", "--tags", "--match=v*", "--abbrev=14", "HEAD^{commit}"]).await;
        let clean = changes.is_ok_and(|changes| changes.is_empty());
        let state = if clean { "clean" } else { "dirty" };
        match described {
            Ok(text) => {
                let version = from_description(&text);
                let version = if clean { version } else { format!("{version}-dirty") };
                Self { version: Some(version), commit, state, complaint: None }
            }
            Err(error) => Self { version: None, commit, state, complaint: Some(complaint(error)) },
        }
    }

    /// `git archive` writes the commit and its tag into the script that asks git for them.
    fn of_archive(script: &str) -> Self {
        let code = || script.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let is_commit =
            |text: &&str| text.len() >= COMMIT_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let commit = code()
            .filter_map(|line| line.strip_prefix("KUBE_GIT_COMMIT='")?.strip_suffix('\''))
            .find(is_commit)
            .map(str::to_owned);
        let version = code()
            .filter_map(|line| line.split_once("tag: v")?.1.split([',', ' ', '\'']).next())
            .find(|version| version.starts_with(|first: char| first.is_ascii_digit()))
            .map(|version| format!("v{version}"));
        Self { version, commit, state: "archive", complaint: None }
    }

    /// The error that nothing tells the version of the tree `what`.
    fn unknown(&self, what: &str) -> Error {
        let reason = match &self.complaint {
            Some(complaint) => format!("git does not tell its version: {complaint}"),
            None => "neither git nor a mark of `git archive` tells its version".to_owned(),
        };
        refused(what, reason, "say it with --kubernetes-version, such as v1.34.4-mine.1")
    }
}

/// The line in which git says what is wrong.
fn complaint(error: Error) -> String {
    match error {
        Error::Program { output, .. } => {
            let line = output.lines().find(|line| line.starts_with("fatal:")).or(output.lines().last());
            line.unwrap_or_default().trim_start_matches("fatal:").trim().to_owned()
        }
        error => error.to_string(),
    }
}

/// A version from what `git describe` says, as Kubernetes' own build makes it: the distance from the tag becomes part of
/// the version, and the commit what follows a plus.
fn from_description(text: &str) -> String {
    let Some((before, commit)) = text.rsplit_once("-g") else { return text.to_owned() };
    if commit.len() != COMMIT_DIGITS || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return text.to_owned();
    }
    match before.rsplit_once('-') {
        // After a pre-release, which has a dash itself, the distance is one more of its numbers.
        Some((tag, distance)) if tag.contains('-') => format!("{tag}.{distance}+{commit}"),
        _ => format!("{before}+{commit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    /// A tree with what makes it one, in a directory of its own.
    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in NEEDED {
            let path = directory.path().join(file);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        fs_err::write(directory.path().join("go.mod"), "module k8s.io/kubernetes\n\ngo 1.26\n").unwrap();
        directory
    }

    fn git(directory: &Path, args: &[&str]) {
        let identity =
            ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"];
        let mut command = std::process::Command::new("git");
        let output = command.current_dir(directory).args(identity).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    #[test]
    fn the_packages_are_those_of_a_release() {
        let names = PACKAGES.iter().map(|package| package.rsplit('/').next().unwrap());
        assert!(names.eq(KUBERNETES.programs()));
    }

    #[test]
    fn descriptions_become_versions() {
        for (text, version) in [
            ("v1.34.4", "v1.34.4"),
            ("v1.34.4-1-g0123456789abcd", "v1.34.4-1+0123456789abcd"),
            ("v1.36.0-alpha.0-12-g0123456789abcd", "v1.36.0-alpha.0.12+0123456789abcd"),
            ("v1.34.4-gnome", "v1.34.4-gnome"),
        ] {
            assert_eq!(from_description(text), version);
            assert!(version.parse::<KubernetesVersion>().is_ok(), "{version}");
        }
    }

    #[test]
    fn an_exported_tree_says_what_it_was_exported_from() {
        let exported = "# something like 'HEAD -> release-1.8, tag: v1.8.3' where then\n\
            if [[ '%' == \"%\" ]]; then\n  KUBE_GIT_COMMIT='0123456789abcdef0123456789abcdef01234567'\n\
            if [[ 'HEAD -> release-1.34, tag: v1.34.4' =~ tag:\\ (v[^ ,]+) ]]; then\n";
        let history = History::of_archive(exported);
        assert_eq!(history.version.as_deref(), Some("v1.34.4"));
        assert_eq!(history.commit.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
        let cloned = exported.replace("HEAD -> release-1.34, tag: v1.34.4", "$Format:%D$");
        let history =
            History::of_archive(&cloned.replace("0123456789abcdef0123456789abcdef01234567", "$Format:%H$"));
        assert_eq!((history.version, history.commit), (None, None));
    }

    #[tokio::test]
    async fn git_tells_the_version_and_whether_the_tree_was_changed() {
        let directory = tree();
        let path = directory.path();
        let open = |version: Option<&'static str>| Tree::open(path, version, &Silent);

        let error = open(None).await.unwrap_err();
        assert!(error.to_string().contains("neither git nor"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--kubernetes-version")), "{error:?}");
        let given = open(Some("v1.34.4-mine.1")).await.unwrap();
        assert_eq!((given.version.to_string().as_str(), given.history.state), ("v1.34.4-mine.1", "archive"));

        git(path, &["init", "--quiet"]);
        git(path, &["add", "."]);
        git(path, &["commit", "--quiet", "--message", "first"]);
        let error = open(None).await.unwrap_err();
        assert!(error.to_string().contains("git does not tell its version: "), "{error}");
        git(path, &["tag", "v1.34.4"]);
        let tagged = open(None).await.unwrap();
        assert_eq!((tagged.version.to_string().as_str(), tagged.history.state), ("v1.34.4", "clean"));
        assert!(tagged.linker_flags().contains(" -X k8s.io/component-base/version.gitCommit="));

        git(path, &["commit", "--quiet", "--allow-empty", "--message", "second"]);
        let later = open(None).await.unwrap().version.to_string();
        assert!(
            later.starts_with("v1.34.4-1+") && later.len() == "v1.34.4-1+".len() + COMMIT_DIGITS,
            "{later}"
        );
        fs_err::write(path.join("cmd/new.go"), "package cmd").unwrap();
        let changed = open(None).await.unwrap();
        assert!(changed.version.to_string().ends_with("-dirty"), "{}", changed.version);
        assert_eq!(changed.history.state, "dirty");
    }

    #[tokio::test]
    async fn what_is_no_tree_is_refused() {
        let directory = tree();
        let refusal =
            |path: PathBuf| async move { Tree::open(&path, None, &Silent).await.unwrap_err().to_string() };
        assert!(refusal("/not/there".into()).await.contains("/not/there"));
        fs_err::remove_dir_all(directory.path().join("staging")).unwrap();
        let error = refusal(directory.path().to_owned()).await;
        assert!(error.contains("incomplete") && error.contains("staging/src/k8s.io/api"), "{error}");
        fs_err::write(directory.path().join("go.mod"), "module example.org/x\n").unwrap();
        let error = refusal(directory.path().to_owned()).await;
        assert!(error.contains("no source tree of Kubernetes"), "{error}");
    }

    #[test]
    fn the_key_depends_on_names_and_contents_and_not_on_history() {
        let directory = tree();
        let path = directory.path();
        let key = || hash(path, path, Key::default()).unwrap().finish();
        let first = key();
        assert_eq!(key(), first);
        for ignored in IGNORED {
            fs_err::create_dir(path.join(ignored)).unwrap();
            fs_err::write(path.join(ignored).join("file"), "").unwrap();
        }
        assert_eq!(key(), first);
        fs_err::write(path.join("cmd/kubelet/kubelet.go"), "package main").unwrap();
        assert_ne!(key(), first);
    }
}
