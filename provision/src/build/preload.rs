//! Unpacking the container images into what becomes every node's containerd store.
//!
//! The node's own containerd does it, in a container that exists only for that: what it leaves in its directory is
//! what it will find there in a node. Nodes then start with all snapshots in place, and no node ever unpacks an
//! image of its own. The layers' content is dropped: nothing needs it any more.

use std::{
    io,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_runtime::Cgroup;

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
    containerd::{
        ImportImage, ImportOptions,
        workshop::{self, DIRECTORY, Workshop, WorkshopSpec},
    },
    image::{Bundle, Reference, Store},
};

/// Counts changes of how images are made and imported.
const REVISION: &str = "2";

/// Images imported at the same time: containerd unpacks one while the next one is sent.
const IMPORTS: usize = 2;

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
    let mut key = Key::default().with(REVISION).with(workshop::CONFIG).with(&debian.key);
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
    workshop::remove(&cgroup(paths), &directory(paths));
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
    let spec = WorkshopSpec {
        name: "kiln-build".to_owned(),
        directory: directory(paths),
        cgroup: cgroup(paths),
        layers: vec![node.root.clone(), debian.root.clone()],
        scratch: scratch.to_owned(),
        var: scratch.join("root/var"),
    };
    let result = async {
        let (workshop, containerd) = Workshop::open(spec).await?;
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
        workshop.close().await
    };
    result
        .await
        .map_err(|source| Error::Preload { log: workshop::log_tail(scratch), source: Box::new(source) })
}

/// No cluster can have this name. Builds in different state roots do not lock each other out.
fn cgroup(paths: &Paths) -> Cgroup {
    let root = Key::default().with(paths.state().as_os_str().as_encoded_bytes()).finish();
    Cgroup { parent: "kiln/.build".to_owned(), leaf: root }
}

fn directory(paths: &Paths) -> PathBuf {
    paths.run().join("build")
}

/// Takes away all but containerd's directory, and of that what it keeps for as long as it runs only.
fn keep_only(root: &Path) -> io::Result<()> {
    workshop::keep_only(&root.join("var"), &["lib"])?;
    workshop::keep_only(&root.join("var/lib"), &["containerd"])?;
    workshop::keep_only(&root.join(DIRECTORY), &workshop::LASTING)?;
    for directory in ["", "var", "var/lib"] {
        use std::os::unix::fs::PermissionsExt;
        fs_err::set_permissions(root.join(directory), std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_records_and_snapshots_stay() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join(DIRECTORY);
        for directory in workshop::LASTING.iter().chain(&["tmpmounts", "io.containerd.runtime.v2.task"]) {
            fs_err::create_dir_all(store.join(directory)).unwrap();
        }
        fs_err::write(root.path().join("var/containerd.toml"), "").unwrap();
        keep_only(root.path()).unwrap();
        let mut left: Vec<_> = fs_err::read_dir(&store)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, workshop::LASTING);
        assert!(!root.path().join("var/containerd.toml").exists());
    }
}
