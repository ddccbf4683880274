//! Unpacking the container images inside a node image, once for all nodes.
//!
//! kind's images hold those of the control plane as containerd fetched them: layers in its content store, and no snapshots.
//! Each node would unpack a gigabyte of its own before its first pod. So the image's own containerd does it here, in a
//! container that exists only for that, and what it adds to its directory becomes a layer on top of the image's: it is
//! in the image store, and nodes have hard links to it as they have to the rest.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use kiln_runtime::Cgroup;

use super::blocking::Steps;
use crate::{
    Error, Paths, Reporter, Result,
    containerd::{
        Containerd, ImportImage, ImportOptions,
        workshop::{self, DIRECTORY, LASTING, Workshop, WorkshopSpec},
    },
    error::with_causes,
    image::{
        Bundle, Derivation, Derived, Digest, Image, Reference, Store, materialise, unset_opaque, visit_files,
    },
    trace,
};

/// Where containerd keeps content and snapshots, in its directory.
const BLOBS: &str = "io.containerd.content.v1.content/blobs/sha256";
const SNAPSHOTS: &str = "io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Content that is on its way in: none is when containerd has ended.
const INGEST: &str = "io.containerd.content.v1.content/ingest";

/// Where images of kind's first versions have archives of those of the control plane.
const ARCHIVES: &str = "kind/images";

/// The run-time directories of the containers that unpack.
const RUN: &str = "unpack";

/// The layers that nodes of an image are to have, top first: the image's, given as `layers`, and on top of them what the
/// images inside it unpack to, if they are not unpacked already. Made at the first call; others wait for it meanwhile.
///
/// # Errors
/// [`Error::UnpackImages`] naming the image, with what its containerd has logged; [`Error::NoSpace`].
pub(super) async fn with_images_unpacked(
    paths: &Paths,
    store: &Store,
    image: &Image,
    mut layers: Vec<PathBuf>,
    steps: &Steps,
    reporter: &dyn Reporter,
) -> Result<Vec<PathBuf>> {
    let (looking, manifest, below) = (store.clone(), image.manifest, layers.clone());
    let found = steps.run(move || match looking.derived_layer(&manifest) {
        Some(layer) => Ok((Some(layer), false)),
        None => has_packed(&below).map(|packed| (None, packed)),
    });
    let layer = match found.await.map_err(Error::file("look into the node image"))? {
        (Some(layer), _) => layer,
        (None, false) => return Ok(layers),
        (None, true) => {
            let unpacking = unpack(paths, store, image, &layers, steps, reporter);
            trace::step("", "unpack the image's images").over(unpacking).await?
        }
    };
    layers.insert(0, layer);
    Ok(layers)
}

/// Removes the containers of unpackings that were killed.
pub(super) fn remove_leftovers(paths: &Paths) -> Result<()> {
    let Ok(entries) = fs_err::read_dir(paths.run().join(RUN)) else { return Ok(()) };
    let store = Store::open(&paths.images())?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Whoever is at work has taken it.
        if let Some(_taken) = store.abandoned_derivation(&name)? {
            workshop::remove(&cgroup(paths, &name), &entry.path());
        }
    }
    remove_run(paths);
    Ok(())
}

/// Whether the layers hold container images that are not unpacked, as far as can be told without their containerd: of images
/// that are, Kiln's keep only the documents. One that is unpacked and has kept its layers is looked at by containerd once, which
/// finds nothing to do.
fn has_packed(layers: &[PathBuf]) -> io::Result<bool> {
    let mut found = false;
    visit_files(layers, &Path::new(DIRECTORY).join(BLOBS), &mut |_, mut file| {
        let mut beginning = [0; 16];
        let length = file.read(&mut beginning)?;
        let first = beginning[..length].iter().find(|byte| !byte.is_ascii_whitespace());
        found = first.is_some_and(|byte| *byte != b'{');
        Ok(!found)
    })?;
    Ok(found || !archives(layers)?.is_empty())
}

/// The archives of images, with their names.
fn archives(layers: &[PathBuf]) -> io::Result<Vec<(String, std::fs::File)>> {
    let mut archives = Vec::new();
    visit_files(layers, Path::new(ARCHIVES), &mut |name, file| {
        if name.extension().is_some_and(|extension| extension == "tar") {
            archives.push((format!("/{ARCHIVES}/{}", name.display()), file));
        }
        Ok(true)
    })?;
    Ok(archives)
}

async fn unpack(
    paths: &Paths,
    store: &Store,
    image: &Image,
    layers: &[PathBuf],
    steps: &Steps,
    reporter: &dyn Reporter,
) -> Result<PathBuf> {
    reporter.step("waiting for whoever unpacks the images in it");
    let name = image.name.familiar();
    let (deriving, manifest) = (store.clone(), image.manifest);
    let derivation = match steps.run(move || deriving.derive(&manifest)).await? {
        Derived::Missing(derivation) => derivation,
        // Another process has been faster.
        Derived::There(layer) => return Ok(layer),
    };
    reporter.message(0, &format!("Unpacking the images in {name}: once, for all nodes of it to come"));

    // A step that is given up still runs for a while: what it works on goes with it, and comes back.
    let below = layers.to_vec();
    let (derivation, prepared) = steps
        .run(move || {
            let prepared = prepare(&derivation, &below);
            (derivation, prepared)
        })
        .await;
    let there = prepared?;
    let spec = WorkshopSpec {
        name: "kiln-unpack".to_owned(),
        directory: paths.run().join(RUN).join(derivation.id()),
        cgroup: cgroup(paths, &derivation.id()),
        layers: layers.to_vec(),
        scratch: derivation.path().to_owned(),
        var: derivation.path().join("var"),
    };
    // One that was killed over the same image may have left it.
    workshop::remove(&spec.cgroup, &spec.directory);
    let worked = work(spec, &derivation, layers, steps, reporter).await;
    remove_run(paths);
    if let Err(error) = worked {
        return Err(explain(name, workshop::log_tail(derivation.path()), store.root(), error));
    }
    reporter.step("keeping what was unpacked");
    steps
        .run(move || {
            let what = "keep what was unpacked".to_owned();
            collect(&derivation, &there).map_err(derivation.failed(what))?;
            derivation.publish()
        })
        .await
}

/// What the image's layers have in containerd's directory, by name.
#[derive(Debug, Default)]
struct There {
    blobs: BTreeSet<OsString>,
    snapshots: BTreeSet<OsString>,
}

/// Gives containerd its directory as the image has it. Blocks.
fn prepare(derivation: &Derivation, layers: &[PathBuf]) -> Result<There> {
    let directory = derivation.path().join(DIRECTORY);
    let making = || derivation.failed(format!("make {}", directory.display()));
    fs_err::create_dir_all(&directory).map_err(making())?;
    // As in a node, what is never written to is the store's.
    materialise(layers, Path::new(DIRECTORY), &directory, |path| {
        path.strip_prefix(DIRECTORY).is_ok_and(|path| path.starts_with(BLOBS) || path.starts_with(SNAPSHOTS))
    })?;
    let names = || -> io::Result<There> {
        Ok(There { blobs: names(&directory.join(BLOBS))?, snapshots: names(&directory.join(SNAPSHOTS))? })
    };
    names().map_err(making())
}

/// Has containerd import what is in archives and unpack whatever it has.
async fn work(
    spec: WorkshopSpec,
    derivation: &Derivation,
    layers: &[PathBuf],
    steps: &Steps,
    reporter: &dyn Reporter,
) -> Result<()> {
    let (workshop, containerd) = Workshop::open(spec).await?;
    let version = containerd.version().await?;
    reporter.message(1, &format!("containerd {version} of the image unpacks the images in it"));
    for (number, (origin, file)) in
        archives(layers).map_err(Error::file("look for archives of images"))?.into_iter().enumerate()
    {
        reporter.step(&format!("unpacking {origin}"));
        let parking = derivation.path().join(format!("archive-{number}"));
        let read = steps.run(move || {
            fs_err::create_dir(&parking).map_err(Error::file("make a directory for an archive's content"))?;
            Bundle::read_archive(&origin, file, &parking)
        });
        import(&containerd, &read.await?).await?;
    }
    let told = |name: &str| {
        let name = Reference::try_new(name).map_or_else(|_| name.to_owned(), |name| name.familiar());
        reporter.step(&format!("unpacking {name}"));
    };
    let unpacked = containerd.unpack_all(&told).await?;
    reporter.message(1, &format!("{} images were unpacked", unpacked.unpacked));
    for name in unpacked.incomplete {
        reporter.message(1, &format!("{name} stays as it is: some of its content is not in the image"));
    }
    drop(containerd);
    workshop.close().await
}

async fn import(containerd: &Containerd, bundle: &Bundle) -> Result<()> {
    let options = ImportOptions { unpack: true, keep_layers: false, pinned: true };
    for image in bundle.images().iter().filter(|image| image.foreign.is_none()) {
        containerd.import(&ImportImage::from_bundle(bundle, image), options).await?;
    }
    Ok(())
}

/// Makes the layer's files of what containerd has left: its databases, and the content and the snapshots that the layers below
/// do not have. Both are never changed, and two of a name are the same. Blocks.
fn collect(derivation: &Derivation, there: &There) -> io::Result<()> {
    let directory = derivation.path().join(DIRECTORY);
    workshop::keep_only(&directory, &LASTING)?;
    let ingest = directory.join(INGEST);
    if ingest.exists() {
        fs_err::remove_dir_all(ingest)?;
    }
    for name in names(&directory.join(BLOBS))?.intersection(&there.blobs) {
        fs_err::remove_file(directory.join(BLOBS).join(name))?;
    }
    for name in names(&directory.join(SNAPSHOTS))?.intersection(&there.snapshots) {
        fs_err::remove_dir_all(directory.join(SNAPSHOTS).join(name))?;
    }
    // Where the image's own layers hide what is below them, this one must not hide the image's.
    for path in
        ["", LASTING[0], "io.containerd.content.v1.content/blobs", BLOBS, LASTING[1], LASTING[2], SNAPSHOTS]
    {
        let path = directory.join(path);
        if path.exists() {
            unset_opaque(&path)?;
        }
    }
    let target = derivation.files().join(DIRECTORY);
    let parents = target.parent().unwrap_or(&target);
    fs_err::create_dir_all(parents)?;
    for parent in parents.ancestors().take_while(|parent| parent.starts_with(derivation.files())) {
        fs_err::set_permissions(parent, std::fs::Permissions::from_mode(0o755))?;
    }
    fs_err::rename(directory, target)
}

/// The names in a directory; none in one that is not there.
fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    match fs_err::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Tells what went wrong with the image that it happened to. containerd tells of a full disk in its own words only.
fn explain(image: String, log: String, store: &Path, error: Error) -> Error {
    let told = |text: &str| text.contains("no space left on device");
    match error {
        error @ Error::NoSpace { .. } => error,
        error if told(&log) || told(&with_causes(&error)) => Error::NoSpace {
            what: format!("unpack the images in {image}"),
            path: store.to_owned(),
            source: io::ErrorKind::StorageFull.into(),
        },
        source => Error::UnpackImages { image, log, source: Box::new(source) },
    }
}

/// No cluster can have this name. What is unpacked in different state roots does not get into each other's way.
fn cgroup(paths: &Paths, name: &str) -> Cgroup {
    let leaf = Digest::of(format!("{} {name}", paths.state().display()).as_bytes());
    Cgroup { parent: "kiln/.unpack".to_owned(), leaf: leaf.hex() }
}

/// Removes the directory of the run-time directories, unless somebody has one.
fn remove_run(paths: &Paths) {
    let _ = fs_err::remove_dir(paths.run().join(RUN));
}

#[cfg(test)]
mod tests {
    use rustix::fs::XattrFlags;

    use super::*;
    use crate::image::{ImageSettings, write_image};

    fn write(path: &Path, content: &str) {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    #[test]
    fn only_documents_mean_that_everything_is_unpacked() {
        let directory = tempfile::tempdir().unwrap();
        let layer = |name: &str| directory.path().join(name);
        let blobs = |name: &str| layer(name).join(DIRECTORY).join(BLOBS);
        fs_err::create_dir_all(layer("bare")).unwrap();
        assert!(!has_packed(&[layer("bare")]).unwrap());
        write(&blobs("own").join("1"), "{\"schemaVersion\": 2}");
        write(&blobs("own").join("2"), "\n  {}");
        let own = [layer("own"), layer("bare")];
        assert!(!has_packed(&own).unwrap());
        write(&blobs("kind").join("3"), "\u{1f}\u{8b} and more");
        assert!(has_packed(&[layer("own"), layer("kind")]).unwrap());
        // Nothing is to be unpacked of an archive that has another name, and of what a whiteout hides.
        write(&layer("old").join("kind/images/list.txt"), "");
        assert!(!has_packed(&[layer("old")]).unwrap());
        write(&layer("old").join("kind/images/1.tar"), "");
        assert!(has_packed(&[layer("old")]).unwrap());
        assert_eq!(archives(&[layer("old")]).unwrap()[0].0, "/kind/images/1.tar");
        write(&layer("file").join("kind/images"), "");
        assert!(!has_packed(&[layer("file"), layer("old")]).unwrap());
    }

    #[test]
    fn a_layer_has_what_containerd_adds_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("images")).unwrap();
        let name = "kindest/node:v1".parse().unwrap();
        let image = write_image(&store, &name, Vec::new(), ImageSettings::default()).unwrap();
        let below = directory.path().join("below");
        write(&below.join(DIRECTORY).join(BLOBS).join("packed"), "layer");
        write(&below.join(DIRECTORY).join(SNAPSHOTS).join("1/fs/there"), "");
        write(&below.join(DIRECTORY).join("io.containerd.metadata.v1.bolt/meta.db"), "before");
        // As an image has it that hides what is in a base: to set the attribute takes root.
        for path in [below.join(DIRECTORY), below.join(DIRECTORY).join(BLOBS)] {
            let _ = rustix::fs::setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty());
        }
        let Derived::Missing(derivation) = store.derive(&image.manifest).unwrap() else { panic!() };
        let there = prepare(&derivation, std::slice::from_ref(&below)).unwrap();
        let at = |path: &str| derivation.path().join(DIRECTORY).join(path);
        assert_eq!(there.blobs.len() + there.snapshots.len(), 2);

        // What containerd does.
        write(&at("io.containerd.metadata.v1.bolt/meta.db"), "after");
        write(&at(SNAPSHOTS).join("2/fs/etc/passwd"), "root");
        write(&at(INGEST).join("x/data"), "");
        write(&at("io.containerd.runtime.v2.task/x"), "");
        write(&derivation.path().join("console.log"), "");
        collect(&derivation, &there).unwrap();
        let layer = derivation.publish().unwrap();
        assert_eq!(store.derived_layer(&image.manifest).as_ref(), Some(&layer));
        assert!(matches!(store.derive(&image.manifest).unwrap(), Derived::There(path) if path == layer));
        assert_eq!(fs_err::read_dir(directory.path().join("images/tmp")).unwrap().count(), 0);

        let own = layer.join(DIRECTORY);
        assert_eq!(names(&own).unwrap().len(), LASTING.len());
        assert_eq!(names(&own.join(SNAPSHOTS)).unwrap(), BTreeSet::from(["2".into()]));
        assert!(names(&own.join(BLOBS)).unwrap().is_empty());
        let before = fs_err::read(below.join(DIRECTORY).join("io.containerd.metadata.v1.bolt/meta.db"));
        assert_eq!(before.unwrap(), b"before");
        let node = directory.path().join("node");
        materialise(&[layer, below], Path::new(DIRECTORY), &node, |_| true).unwrap();
        for (path, content) in [
            (format!("{BLOBS}/packed"), "layer"),
            (format!("{SNAPSHOTS}/1/fs/there"), ""),
            (format!("{SNAPSHOTS}/2/fs/etc/passwd"), "root"),
            ("io.containerd.metadata.v1.bolt/meta.db".to_owned(), "after"),
        ] {
            assert_eq!(fs_err::read_to_string(node.join(&path)).unwrap(), content, "{path}");
        }
    }

    #[test]
    fn a_full_disk_is_told_as_such_whoever_notices() {
        let said = "write /var/lib/containerd/x: no space left on device";
        let gone = || Error::ContainerdGone { pid: 1 };
        let error = explain("kindest/node:v1".to_owned(), said.to_owned(), Path::new("/store"), gone());
        assert_eq!(error.to_string(), "no space left in /store to unpack the images in kindest/node:v1");
        assert!(error.hint().is_some());
        let error = explain("kindest/node:v1".to_owned(), "odd".to_owned(), Path::new("/store"), gone());
        assert_eq!(error.to_string(), "failed to unpack the images in kindest/node:v1\n  odd");
        assert!(error.hint().is_some_and(|hint| hint.contains("containerd")));
    }
}
