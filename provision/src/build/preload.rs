//! Unpacking the container images into what becomes every node's containerd store.
//!
//! The node's own containerd does it, in a container that exists only for that: what it leaves in its directory is
//! what it will find there in a node. Nodes then start with all snapshots in place, and no node ever unpacks an
//! image of its own. The layers' content is dropped: nothing needs it any more.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_runtime::{Cgroup, ContainerSpec, Mount, Process, Propagation, RootFilesystem};

use super::{
    Build,
    cache::file_error,
    compile::Programs,
    component,
    container::{self, Container},
    debian::Debian,
    node::Node,
    program::Program,
    recipe::Key,
};
use crate::{
    Error, Paths, Result,
    containerd::{Containerd, ImportImage, ImportOptions},
    image::{Bundle, Reference, Store},
};

/// Counts changes of how images are made and imported.
const REVISION: &str = "1";

/// containerd's directory in a node.
const DIRECTORY: &str = "var/lib/containerd";

/// What containerd keeps there that is worth keeping: content, records, snapshots.
const KEPT: [&str; 3] = [
    "io.containerd.content.v1.content",
    "io.containerd.metadata.v1.bolt",
    "io.containerd.snapshotter.v1.overlayfs",
];

/// Images imported at the same time: containerd unpacks one while the next one is sent.
const IMPORTS: usize = 2;

/// How long containerd may take to come up, and to end.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of the end of containerd's log that an error shows.
const LOG_TAIL: usize = 2000;

/// Only what importing needs. Without CRI nothing looks for a network, without the other snapshotters they leave no
/// directories, and what is written is synced once, at the end.
const CONFIG: &str = r#"version = 3
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt", "io.containerd.monitor.task.v1.cgroups", "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native",
]
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
"#;

/// A directory that holds `/var/lib/containerd` under its path.
#[derive(Debug)]
pub(super) struct Preloaded {
    pub(super) root: PathBuf,
    /// What it was made from.
    pub(super) key: String,
}

/// Makes the images and imports them, or finds the result in the cache.
pub(super) async fn store(
    build: &Build<'_>,
    paths: &Paths,
    programs: &Programs,
    debian: &Debian,
    node: &Node,
) -> Result<Preloaded> {
    let applets = applets(build, debian).await?;
    let containers = container::containers(programs, &applets);
    let mut key = Key::default().with(REVISION).with(CONFIG).with(&debian.key);
    for component in component::ALL {
        key = key.with(programs.key(component.name));
    }
    key = containers.iter().fold(key, |key, container| key.with(format!("{container:?}")));
    let key = key.finish();
    if let Some(root) = build.cache.find("containerd-store", &key) {
        return Ok(Preloaded { root, key });
    }
    let scratch = build.cache.scratch()?;
    let writing = tokio::task::spawn_blocking({
        let (debian, scratch) = (debian.root.clone(), scratch.path().to_owned());
        move || write_images(&containers, &debian, &scratch)
    });
    let making = file_error("make the container images", build.cache.root());
    let images = writing.await.map_err(io::Error::other).map_err(making)??;

    import(build, paths, scratch.path(), debian, node, &images).await?;

    let root = scratch.path().join("root");
    let keeping = file_error("keep containerd's store", build.cache.root());
    keep_only(&root).map_err(keeping)?;
    let root = build.cache.commit(&root, "containerd-store", &key)?;
    Ok(Preloaded { root, key })
}

/// Removes the container of a build that was killed. Does nothing when there is none.
pub(super) fn remove_container(paths: &Paths) {
    for error in kiln_runtime::remove(None, &cgroup(paths), &directory(paths)) {
        tracing::warn!(%error, "the container of an interrupted build was not removed whole");
    }
}

/// The names that busybox answers to, from itself.
async fn applets(build: &Build<'_>, debian: &Debian) -> Result<Vec<String>> {
    let program =
        Program::new(&debian.root.join("bin/busybox"), "ask busybox for its applets").args(["--list"]);
    let list = program.run(build.reporter).await?;
    Ok(list.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Images that wait for being imported, in directories below `scratch`.
fn write_images(containers: &[Container], debian: &Path, scratch: &Path) -> Result<Vec<ImportImage>> {
    let making = |source| Error::File { what: "make a container image", source };
    let store = Store::open(&scratch.join("images"))?;
    let mut images = Vec::new();
    for (number, container) in containers.iter().enumerate() {
        let files = scratch.join(format!("files-{number}"));
        fs_err::create_dir(&files).map_err(making)?;
        images.push(match container.archive() {
            Some(archive) => read_image(archive, &container.name, &files)?,
            None => {
                let image = container::write(container, debian, &files, &store)?;
                ImportImage::from_store(&store, &image, vec![image.name.to_string()])?
            }
        });
    }
    Ok(images)
}

/// The image of an archive, under the name that it is looked for. What it is called in the archive has the architecture
/// in it.
fn read_image(archive: &Path, name: &str, parking: &Path) -> Result<ImportImage> {
    let origin = archive.file_name().unwrap_or_default().to_string_lossy();
    let source =
        fs_err::File::open(archive).map_err(|source| Error::File { what: "read an image", source })?;
    let bundle = Bundle::read_archive(&origin, source, parking)?;
    let [image] = bundle.images() else {
        let reason = format!("it has {} images", bundle.images().len());
        return Err(Error::Recipe { object: origin.into_owned(), reason });
    };
    if let Some(platform) = &image.foreign {
        let reason = format!("its image is for {platform}");
        return Err(Error::Recipe { object: origin.into_owned(), reason });
    }
    Ok(ImportImage { names: vec![name.to_owned()], ..ImportImage::from_bundle(&bundle, image) })
}

async fn import(
    build: &Build<'_>,
    paths: &Paths,
    scratch: &Path,
    debian: &Debian,
    node: &Node,
    images: &[ImportImage],
) -> Result<()> {
    let console = scratch.join("console.log");
    let result = async {
        let container = Unpacker::launch(paths, scratch, debian, node)?;
        let containerd = Containerd::wait_ready(&container.process, START_TIMEOUT).await?;
        let version = containerd.version().await?;
        build.reporter.message(1, &format!("containerd {version} unpacks {} images", images.len()));
        let options = ImportOptions { unpack: true, keep_layers: false, pinned: true };
        let imports = images.iter().map(|image| {
            let (containerd, reporter) = (&containerd, build.reporter);
            async move {
                let name = image.names.first().map(String::as_str).unwrap_or_default();
                reporter.step(&Reference::try_new(name)?.familiar());
                containerd.import(image, options).await.map(drop)
            }
        });
        stream::iter(imports).buffer_unordered(IMPORTS).try_collect::<()>().await?;
        drop(containerd);
        container.stop().await
    };
    result.await.map_err(|source| Error::Preload { log: tail(&console), source: Box::new(source) })
}

/// The container that containerd unpacks in; removed when the value goes.
struct Unpacker {
    process: Process,
    cgroup: Cgroup,
    directory: PathBuf,
}

impl Unpacker {
    fn launch(paths: &Paths, scratch: &Path, debian: &Debian, node: &Node) -> Result<Self> {
        let var = scratch.join("root/var");
        let cgroup = cgroup(paths);
        let preparing = |source| Error::File { what: "prepare the unpacking of images", source };
        fs_err::create_dir_all(&var).map_err(preparing)?;
        fs_err::write(var.join("containerd.toml"), CONFIG).map_err(preparing)?;
        let spec = ContainerSpec {
            id: "kiln-build".to_owned(),
            directory: directory(paths),
            console: scratch.join("console.log"),
            exit: scratch.join("exit.json"),
            root: RootFilesystem {
                lowers: vec![node.root.clone(), debian.root.clone()],
                upper: scratch.join("upper"),
                work: scratch.join("work"),
            },
            hostname: "kiln-build".to_owned(),
            args: ["/usr/local/bin/containerd", "--config", "/var/containerd.toml"].map(str::to_owned).into(),
            env: Vec::new(),
            // A directory of a real file system: the snapshots must not lie on an overlay.
            mounts: vec![Mount {
                source: var,
                destination: "/var".into(),
                read_only: false,
                propagation: Propagation::None,
            }],
            cgroup: cgroup.clone(),
            sysctls: BTreeMap::new(),
        };
        let netns = kiln_network::new_netns()?;
        // Blocks for as long as a process takes to start: if the build is given up, then before or after, not while it
        // is unclear whether there is a container.
        let process = match kiln_runtime::launch(&spec, netns.as_fd()) {
            Ok(process) => process,
            Err(error) => {
                remove_container(paths);
                return Err(error.into());
            }
        };
        Ok(Self { process, cgroup, directory: spec.directory })
    }

    /// Ends containerd the way it wants to be ended, so that its databases are whole.
    async fn stop(self) -> Result<()> {
        self.process.signal(rustix::process::Signal::TERM.as_raw())?;
        let process = self.process.clone();
        let ended = tokio::task::spawn_blocking(move || process.wait(STOP_TIMEOUT)).await;
        let ended = ended.map_err(|source| Error::File {
            what: "wait for containerd to end",
            source: io::Error::other(source),
        })??;
        if ended {
            Ok(())
        } else {
            Err(Error::ContainerdTimeout { pid: self.process.pid, timeout: STOP_TIMEOUT })
        }
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        for error in kiln_runtime::remove(Some(&self.process), &self.cgroup, &self.directory) {
            tracing::warn!(%error, "the container that unpacked images was not removed whole");
        }
    }
}

/// No cluster can have this name. Builds in different state roots do not lock each other out.
fn cgroup(paths: &Paths) -> Cgroup {
    let root = Key::default().with(paths.state().as_os_str().as_encoded_bytes()).finish();
    Cgroup { parent: "kiln/.build".to_owned(), leaf: root }
}

fn directory(paths: &Paths) -> PathBuf {
    paths.run().join("build")
}

/// Takes away what containerd keeps for as long as it runs only.
fn keep_only(root: &Path) -> io::Result<()> {
    let remove_others = |directory: &Path, kept: &[&str]| -> io::Result<()> {
        for entry in fs_err::read_dir(directory)? {
            let entry = entry?;
            if kept.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs_err::remove_dir_all(entry.path())?;
            } else {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove_others(&root.join("var"), &["lib"])?;
    remove_others(&root.join("var/lib"), &["containerd"])?;
    remove_others(&root.join(DIRECTORY), &KEPT)?;
    for directory in ["", "var", "var/lib"] {
        use std::os::unix::fs::PermissionsExt;
        fs_err::set_permissions(root.join(directory), std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The end of containerd's log.
fn tail(console: &Path) -> String {
    let text = fs_err::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL)..]).replace('\r', "");
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_records_and_snapshots_stay() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join(DIRECTORY);
        for directory in KEPT.iter().chain(&["tmpmounts", "io.containerd.runtime.v2.task"]) {
            fs_err::create_dir_all(store.join(directory)).unwrap();
        }
        fs_err::write(root.path().join("var/containerd.toml"), "").unwrap();
        keep_only(root.path()).unwrap();
        let mut left: Vec<_> = fs_err::read_dir(&store)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, KEPT);
        assert!(!root.path().join("var/containerd.toml").exists());
    }

    #[test]
    fn the_configuration_is_toml_and_disables_cri() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let disabled = config["disabled_plugins"].as_array().unwrap();
        assert!(disabled.iter().any(|plugin| plugin.as_str() == Some("io.containerd.grpc.v1.cri")));
    }
}
