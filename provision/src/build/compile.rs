//! Compiling the components.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    Build, DEFAULT_KUBERNETES_VERSION,
    cache::file_error,
    changes::Changes,
    component::{ALL, COREDNS, Component, ETCD, KUBERNETES},
    gomod,
    image_names::ImageNames,
    program::Program,
    recipe::{self, Key},
    server_archive,
    source::Source,
    tree::Tree,
    version::KubernetesVersion,
};
use crate::{Error, Result};

/// Every program of the node image, and the names that its container images must have.
#[derive(Debug)]
pub(super) struct Programs {
    /// The version of Kubernetes.
    pub(super) version: KubernetesVersion,
    components: Vec<(&'static str, Compiled)>,
    /// Whether Kubernetes has come as programs and images, and not as source.
    pub(super) has_images: bool,
    /// What kubeadm will look for.
    pub(super) names: ImageNames,
}

/// The programs of one component.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    /// The directory they are in.
    pub(super) directory: PathBuf,
    /// What they were made from.
    pub(super) key: String,
    /// How long it took; `None` when they were in the cache.
    pub(super) took: Option<Duration>,
}

/// The program that holds a pod's namespaces; compiled from C.
pub(super) const PAUSE: &str = "pause";

/// Beside a component's programs: which files of their source were changed, each with its module.
pub(super) const CHANGED: &str = "changed";

/// Counts changes of how versions that the recipe does not pin are compiled.
const UNPINNED_REVISION: &str = "2";

impl Programs {
    /// A program by its component and name.
    pub(super) fn path(&self, component: &str, program: &str) -> PathBuf {
        self.get(component).directory.join(program)
    }

    /// What a component was made from.
    pub(super) fn key(&self, component: &str) -> &str {
        &self.get(component).key
    }

    /// Every component's name and how long it took to compile.
    pub(super) fn times(&self) -> impl Iterator<Item = (&'static str, Option<Duration>)> {
        self.components.iter().map(|(name, compiled)| (*name, compiled.took))
    }

    fn get(&self, component: &str) -> &Compiled {
        let found = self.components.iter().find(|(name, _)| *name == component);
        found.map(|(_, compiled)| compiled).expect("every component of the table has been compiled")
    }
}

/// Compiles everything that is not in the cache.
pub(super) async fn all(build: &Build<'_>, source: &Prepared) -> Result<Programs> {
    let mut components = Vec::new();
    let (version, kubernetes) = kubernetes(build, source).await?;
    let names = list_images(build, &kubernetes.directory.join("kubeadm"), &version).await?;
    components.push((KUBERNETES.name, kubernetes));
    for entry in ALL {
        let wanted = match entry.name {
            name if name == KUBERNETES.name => continue,
            name if name == ETCD.name => names.etcd_version()?,
            name if name == COREDNS.name => names.coredns_version()?,
            _ => entry.pinned_version().to_owned(),
        };
        components.push((entry.name, component(build, entry, &version, &wanted).await?));
    }
    components.push((PAUSE, pause(build).await?));
    let has_images = matches!(source, Prepared::Archive(..));
    Ok(Programs { version, components, has_images, names })
}

/// A source that has been looked at.
#[derive(Debug)]
pub(super) enum Prepared {
    Release(KubernetesVersion),
    Tree(Tree),
    /// Unpacked: nothing is left to do.
    Archive(KubernetesVersion, Compiled),
}

/// Looks at the source, and fetches and unpacks an archive: what is wrong with it is said before anything else is begun.
pub(super) async fn prepare(build: &Build<'_>, source: &Source) -> Result<Prepared> {
    let archive = |(version, compiled)| Prepared::Archive(version, compiled);
    match source {
        Source::Release(version) => version.parse().map(Prepared::Release),
        Source::Tree { directory, version } => {
            Tree::open(directory, version.as_deref(), build.reporter).await.map(Prepared::Tree)
        }
        Source::Archive(path) => {
            server_archive::unpacked(build, path, &path.display().to_string()).await.map(archive)
        }
        Source::Url(url) => {
            let scratch = build.cache.scratch()?;
            let path = scratch.path().join("archive");
            server_archive::download(build, url, &path).await?;
            server_archive::unpacked(build, &path, url).await.map(archive)
        }
    }
}

/// The programs of Kubernetes.
async fn kubernetes(build: &Build<'_>, source: &Prepared) -> Result<(KubernetesVersion, Compiled)> {
    match source {
        Prepared::Release(version) => {
            let compiled = component(build, &KUBERNETES, version, &version.to_string()).await?;
            Ok((version.clone(), compiled))
        }
        Prepared::Tree(tree) => Ok((tree.version.clone(), tree.compile(build).await?)),
        Prepared::Archive(version, compiled) => Ok((version.clone(), compiled.clone())),
    }
}

/// Asks the kubeadm that will set the clusters up which images it wants.
async fn list_images(build: &Build<'_>, kubeadm: &Path, version: &KubernetesVersion) -> Result<ImageNames> {
    let program = Program::new(kubeadm, "ask kubeadm for its images");
    let version = version.to_string();
    let output = program
        .args(["config", "images", "list", "--kubernetes-version", &version])
        .run(build.reporter)
        .await?;
    ImageNames::parse(&output)
}

/// Compiles one component in the recipe's version, unless it is in the cache.
pub(super) async fn alone(build: &Build<'_>, wanted: &Component) -> Result<Compiled> {
    let kubernetes = DEFAULT_KUBERNETES_VERSION.parse()?;
    component(build, wanted, &kubernetes, wanted.pinned_version()).await
}

async fn component(
    build: &Build<'_>,
    component: &Component,
    kubernetes: &KubernetesVersion,
    wanted: &str,
) -> Result<Compiled> {
    let linker_flags = component.linker_flags(kubernetes);
    let older = component.older_sources(wanted);
    let mut key = Key::default()
        .with_files(component.name)
        .with(wanted)
        .with(&linker_flags)
        .with(component.tags)
        .with(component.packages.join(" "))
        .with(&build.tools.go_version)
        .with(std::env::consts::ARCH);
    if component.cgo {
        key = key.with(&build.tools.gcc_version).with(&build.tools.libseccomp_version);
    }
    if wanted != component.pinned_version() {
        key = key.with(UNPINNED_REVISION);
    }
    if let Some(folder) = older {
        key = key.with_files(folder);
    }
    let has_changes = Changes::of(component.name).modules().next().is_some();
    if has_changes {
        key = key.with(CHANGED);
    }
    let key = key.finish();
    let cached = format!("components/{}", component.name);
    if let Some(directory) = build.cache.find(&cached, &key) {
        build.reporter.message(1, &format!("{} {wanted} is in the cache", component.name));
        return Ok(Compiled { directory, key, took: None });
    }
    build
        .phase(&format!("Compiling {} {wanted} 🔨", component.name), async {
            let started = Instant::now();
            let scratch = build.cache.scratch()?;
            let (module, out) = (scratch.path().join("module"), scratch.path().join("out"));
            recipe::write(component.name, &module)?;
            if let Some(folder) = older {
                recipe::write(folder, &module)?;
            }
            fs_err::create_dir(&out).map_err(file_error("prepare a compilation", build.cache.root()))?;
            if wanted != component.pinned_version() {
                require(build, component, kubernetes, wanted, &module).await?;
            }
            let changed = change(build, component, wanted, &module).await?;
            compile(build, component, &linker_flags, wanted, &module, &out).await?;
            if wanted != component.pinned_version() {
                check_version(build, component, wanted, &module).await?;
            }
            for program in component.programs() {
                if !out.join(program).is_file() {
                    let reason = "its compilation left no such file".to_owned();
                    return Err(Error::Recipe { object: program.to_owned(), reason });
                }
            }
            if has_changes {
                fs_err::write(out.join(CHANGED), changed)
                    .map_err(file_error("write what was changed", build.cache.root()))?;
            }
            let directory = build.cache.commit(&out, &cached, &key)?;
            Ok(Compiled { directory, key, took: Some(started.elapsed()) })
        })
        .await
}

async fn compile(
    build: &Build<'_>,
    component: &Component,
    linker_flags: &str,
    wanted: &str,
    module: &Path,
    out: &Path,
) -> Result<()> {
    let mut args = vec!["build".to_owned(), "-trimpath".to_owned()];
    if wanted != component.pinned_version() {
        // Nothing is pinned for this version: let Go write down what it takes.
        args.push("-mod=mod".to_owned());
    }
    if !component.tags.is_empty() {
        args.extend(["-tags".to_owned(), component.tags.to_owned()]);
    }
    let output = match component.packages {
        ["."] => out.join(component.name),
        // A directory takes each program under its package's name.
        _ => out.join(""),
    };
    args.extend([
        "-ldflags".to_owned(),
        linker_flags.to_owned(),
        "-o".to_owned(),
        output.display().to_string(),
    ]);
    args.extend(component.packages.iter().map(|package| (*package).to_owned()));
    let go = build.tools.go(format!("compile {} {wanted}", component.name));
    go.env("CGO_ENABLED", if component.cgo { "1" } else { "0" })
        .args(args)
        .directory(module)
        .run(build.reporter)
        .await?;
    Ok(())
}

/// Makes the module in `module` require another version than the recipe's.
async fn require(
    build: &Build<'_>,
    component: &Component,
    kubernetes: &KubernetesVersion,
    wanted: &str,
    module: &Path,
) -> Result<()> {
    let writing = file_error("write a module", build.cache.root());
    if component.name == KUBERNETES.name {
        let upstream =
            fs_err::read_to_string(module_file(build, kubernetes, module).await?).map_err(&writing)?;
        let staging = gomod::staging_modules(&upstream);
        let pinned = gomod::go_directive(recipe::text("kubernetes/go.mod")).unwrap_or_default();
        let go = gomod::go_directive(&upstream).unwrap_or_default().max(pinned);
        let text = gomod::kubernetes(go, wanted, &staging, &kubernetes.staging());
        fs_err::write(module.join("go.mod"), text).map_err(&writing)?;
        fs_err::remove_file(module.join("go.sum")).map_err(&writing)?;
        return Ok(());
    }
    // From upstream's own requirements: those that are pinned belong to another version.
    let go = gomod::go_directive(recipe::text(&format!("{}/go.mod", component.name))).unwrap_or_default();
    let modules = [component.module].into_iter().chain(component.companions.iter().copied());
    fs_err::write(module.join("go.mod"), gomod::of_one_version(go, modules, wanted)).map_err(&writing)?;
    fs_err::remove_file(module.join("go.sum")).map_err(&writing)?;
    let sources = download(build, component.module, wanted, module).await?.dir;
    let program = module.join("main.go");
    if program.is_file() {
        let text = fs_err::read_to_string(&program).map_err(&writing)?;
        let has = |package: &str| sources.join(package).is_dir();
        fs_err::write(program, gomod::without_missing_imports(&text, component.module, has))
            .map_err(&writing)?;
    }
    Ok(())
}

/// Lets the module in `module` take changed copies, made beside it, of the modules that the recipe changes. Returns a line for
/// each file that was changed: its module and its path in there.
async fn change(build: &Build<'_>, component: &Component, wanted: &str, module: &Path) -> Result<String> {
    let changes = Changes::of(component.name);
    let mut changed = String::new();
    for name in changes.modules() {
        let Some(version) = required(build, name, module).await? else {
            build.reporter.message(1, &format!("{} {wanted} is compiled without {name}", component.name));
            continue;
        };
        let source = download(build, name, &version, module).await?.dir;
        let copy = PathBuf::from(format!("../changed/{name}"));
        let copied = changes.copy(name, &source, &module.join(&copy));
        let copied = copied.map_err(file_error("copy the source of a module", build.cache.root()))?;
        changed.extend(copied.changed.iter().flat_map(|file| [file, "\n"]));
        for (object, line) in copied.missing {
            let reason = format!("it does not have the line `{line}` once");
            if wanted == component.pinned_version() {
                return Err(Error::Recipe { object, reason });
            }
            build.reporter.message(1, &format!("{object} is compiled as it is: {reason}"));
        }
        let go = build.tools.go(format!("change {name}"));
        let replace = format!("-replace={name}={}", copy.display());
        go.args(["mod", "edit", &replace]).directory(module).run(build.reporter).await?;
    }
    Ok(changed)
}

/// The version of a module that Go takes for the module in `module`; `None` when it takes none at all.
async fn required(build: &Build<'_>, name: &str, module: &Path) -> Result<Option<String>> {
    // What a directory stands for, such as a changed copy, keeps its own.
    let replaced = "{{with .Replace}}{{with .Version}}{{$version = .}}{{end}}{{end}}";
    let format =
        format!("{{{{if not .Error}}}}{{{{$version := .Version}}}}{replaced}{{{{$version}}}}{{{{end}}}}");
    let go = build.tools.go(format!("ask for the version of {name}"));
    let list = ["list", "-mod=mod", "-m", "-e", "-f", &format, name];
    let version = go.args(list).directory(module).run(build.reporter).await?;
    Ok(Some(version.trim().to_owned()).filter(|version| !version.is_empty()))
}

/// Go takes a newer version when the one that is wanted lacks a package: that would be found by its users only.
async fn check_version(build: &Build<'_>, component: &Component, wanted: &str, module: &Path) -> Result<()> {
    let taken = required(build, component.module, module).await?;
    if taken.as_deref() == Some(wanted) {
        return Ok(());
    }
    let reason = format!("Go compiles {} instead", taken.as_deref().unwrap_or("another module"));
    Err(Error::Recipe { object: format!("{} {wanted}", component.name), reason })
}

/// What Go says of a module that it has fetched.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fetched {
    go_mod: PathBuf,
    dir: PathBuf,
}

/// Fetches a version of Kubernetes. It tells whether there is such a version, too.
async fn module_file(build: &Build<'_>, version: &KubernetesVersion, directory: &Path) -> Result<PathBuf> {
    match download(build, KUBERNETES.module, &version.to_string(), directory).await {
        Ok(fetched) => Ok(fetched.go_mod),
        Err(Error::Program { output, .. }) if is_unknown_version(&output) => {
            let source = Some(go_error(&output).into());
            Err(Error::KubernetesVersion { version: version.to_string(), source })
        }
        Err(error) => Err(error),
    }
}

/// Fetches a version of a module.
async fn download(build: &Build<'_>, module: &str, version: &str, directory: &Path) -> Result<Fetched> {
    let go = build.tools.go(format!("look for {module} {version}"));
    let module = format!("{module}@{version}");
    let output =
        go.args(["mod", "download", "-json", &module]).directory(directory).run(build.reporter).await?;
    serde_json::from_str(&output).map_err(|source| Error::Recipe {
        object: module,
        reason: format!("go's answer is not understood: {source}"),
    })
}

/// Whether Go complains about the version, and not about the network. A proxy answers with a status.
fn is_unknown_version(output: &str) -> bool {
    let complaints = ["unknown revision", "invalid version", "403 Forbidden", "404 Not Found", "410 Gone"];
    complaints.iter().any(|complaint| output.contains(complaint))
}

/// What Go says in its answer, which is JSON when it fails, too.
fn go_error(output: &str) -> String {
    let answer: Option<serde_json::Value> = serde_json::from_str(output).ok();
    let error = answer.as_ref().and_then(|answer| answer["Error"].as_str()).unwrap_or(output);
    error.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn pause(build: &Build<'_>) -> Result<Compiled> {
    let key =
        Key::default().with_files(PAUSE).with(&build.tools.gcc_version).with(std::env::consts::ARCH).finish();
    let cached = format!("components/{PAUSE}");
    if let Some(directory) = build.cache.find(&cached, &key) {
        return Ok(Compiled { directory, key, took: None });
    }
    let started = Instant::now();
    let scratch = build.cache.scratch()?;
    let (source, out) = (scratch.path().join("source"), scratch.path().join("out"));
    recipe::write(PAUSE, &source)?;
    fs_err::create_dir(&out).map_err(file_error("prepare a compilation", build.cache.root()))?;
    let arguments = ["-Os", "-static", "-s", "-Wall", "-Werror", "-o"];
    let gcc = Program::new(&build.tools.gcc, "compile pause").args(arguments);
    gcc.args([out.join(PAUSE), source.join("pause.c")]).run(build.reporter).await?;
    let directory = build.cache.commit(&out, &cached, &key)?;
    Ok(Compiled { directory, key, took: Some(started.elapsed()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Paths, Silent,
        build::{cache::Cache, tools::Tools},
    };

    #[tokio::test]
    async fn a_changed_copy_keeps_the_version_that_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let tools = Tools::find_go(root, &Silent).await.unwrap();
        let paths = Paths::new(root.join("state"), root.join("run"));
        let build =
            Build { cache: Cache::open(&paths, false, &Silent).await.unwrap(), tools, reporter: &Silent };
        let (module, copy) = (root.join("module"), root.join("copy"));
        for (path, text) in [
            (
                &module,
                "module own.example\n\ngo 1.24\n\nrequire a.example/x v1.2.3\n\nreplace a.example/x => ../copy\n",
            ),
            (&copy, "module a.example/x\n\ngo 1.24\n"),
        ] {
            fs_err::create_dir(path).unwrap();
            fs_err::write(path.join("go.mod"), text).unwrap();
        }
        let version = required(&build, "a.example/x", &module).await.unwrap();
        assert_eq!(version.as_deref(), Some("v1.2.3"));
        assert_eq!(required(&build, "a.example/unknown", &module).await.unwrap(), None);
    }

    #[test]
    fn only_an_unknown_version_is_told_as_one() {
        assert!(is_unknown_version(
            "\"Error\": \"k8s.io/kubernetes@v1.99.0: invalid version: unknown revision\""
        ));
        assert!(is_unknown_version("reading https://proxy.example/x/@v/v1.99.0.info: 403 Forbidden"));
        assert!(!is_unknown_version("dial tcp: lookup proxy.golang.org: no such host"));
    }

    #[test]
    fn what_go_says_is_told_without_its_json() {
        assert_eq!(
            go_error("{\n \"Path\": \"x\",\n \"Error\": \"x@v9:\\n\\tunknown revision\"\n}"),
            "x@v9: unknown revision"
        );
        assert_eq!(go_error("plain"), "plain");
    }
}
