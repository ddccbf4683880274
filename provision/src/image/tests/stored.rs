//! Images in the store.

use std::{
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use oci_spec::image::{Arch, Descriptor, ImageIndexBuilder, MediaType, PlatformBuilder};

use super::{Tar, snapshot};
use crate::{
    Error,
    image::{Digest, Image, ImageSettings, Layer, Reference, Store, pack_layer, write_image},
};

const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

struct Host {
    directory: tempfile::TempDir,
    store: Store,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("images")).unwrap();
        Self { directory, store }
    }

    fn tree(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.directory.path().join(name);
        for (path, content) in files {
            let path = root.join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        root
    }

    /// A gzip layer with the content of an archive.
    fn layer(&self, archive: &[u8]) -> Layer {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(archive).unwrap();
        let (digest, size) = self.store.put_blob(&encoder.finish().unwrap()).unwrap();
        Layer { digest, diff_id: Digest::of(archive), media_type: GZIP.to_owned(), size }
    }

    fn image(&self, layers: Vec<Layer>) -> Image {
        write_image(&self.store, &reference("test"), layers, ImageSettings::default()).unwrap()
    }

    /// The entries of directories of the store, sorted.
    fn list(&self, directory: &str) -> Vec<String> {
        let entries = fs_err::read_dir(self.store.root().join(directory)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn reference(name: &str) -> Reference {
    Reference::try_new(name).unwrap()
}

#[test]
fn an_image_goes_in_and_comes_out() {
    let host = Host::new();
    let base = host.tree("base", &[("etc/a", "a"), ("var/b", "b"), ("secret/c", "c")]);
    let top = host.tree("top", &[("etc/d", "d")]);
    let layers =
        [&base, &top].map(|tree| pack_layer(&host.store, tree, |path| path != Path::new("secret")).unwrap());
    let settings = ImageSettings {
        entrypoint: vec!["/init".into()],
        env: vec!["container=kiln".into()],
        labels: (0..20).map(|index| (format!("label{index}"), index.to_string())).collect(),
        stop_signal: Some("SIGRTMIN+3".into()),
        ..ImageSettings::default()
    };
    let name = reference("kiln/node:v1");
    let written = write_image(&host.store, &name, layers.to_vec(), settings.clone()).unwrap();
    let read = host.store.image(&name).unwrap().unwrap();
    assert_eq!(
        (&read.name, read.manifest, &read.layers, read.size),
        (&name, written.manifest, &layers.to_vec(), written.size)
    );
    let run = read.config.config().as_ref().unwrap();
    assert_eq!(run.entrypoint(), &Some(settings.entrypoint.clone()));
    assert_eq!((run.cmd(), run.stop_signal().as_deref()), (&None, Some("SIGRTMIN+3")));
    assert_eq!(run.labels().as_ref().unwrap()["label7"], "7");
    // The same input, the same image: labels have no order of their own to differ by.
    for _ in 0..5 {
        let again = write_image(&host.store, &name, layers.to_vec(), settings.clone()).unwrap();
        assert_eq!(again.manifest, written.manifest);
    }

    let unpacked = host.store.unpack(&read).unwrap();
    assert_eq!(unpacked, [&layers[1], &layers[0]].map(|layer| host.store.layer_path(&layer.diff_id)));
    fs_err::remove_dir_all(base.join("secret")).unwrap();
    let strip = |root: &Path| {
        let mut nodes = snapshot(root);
        nodes.remove(Path::new(""));
        nodes
    };
    assert_eq!(strip(&unpacked[1]), strip(&base));
    let before = unpacked[1].metadata().unwrap().ino();
    assert_eq!(host.store.unpack(&read).unwrap(), unpacked);
    assert_eq!(unpacked[1].metadata().unwrap().ino(), before);
    assert!(host.list("tmp").is_empty());
    assert_eq!(host.store.root().metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn packing_twice_gives_the_same_layer() {
    let host = Host::new();
    let tree = host.tree("tree", &[("a", "a"), ("b/c", &"content ".repeat(100_000))]);
    let first = pack_layer(&host.store, &tree, |_| true).unwrap();
    assert_eq!(pack_layer(&host.store, &tree, |_| true).unwrap(), first);
    let blob = fs_err::read(host.store.blob_path(&first.digest)).unwrap();
    assert_eq!((Digest::of(&blob), blob.len() as u64), (first.digest, first.size));
    assert_eq!(Digest::of(&zstd::decode_all(&blob[..]).unwrap()), first.diff_id);
    let error = pack_layer(&host.store, &host.directory.path().join("none"), |_| true).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    assert!(host.list("tmp").is_empty());
}

#[test]
fn blobs_are_verified_and_complete_or_absent() {
    let host = Host::new();
    let mut writer = host.store.blob_writer().unwrap();
    writer.write_all(b"some ").unwrap();
    assert_eq!(host.list("tmp").len(), 1);
    writer.write_all(b"content").unwrap();
    let wrong = Digest::of(b"other");
    assert!(matches!(writer.finish(Some(&wrong)), Err(Error::DigestMismatch { .. })));
    drop(host.store.blob_writer().unwrap());
    assert!(host.list("tmp").is_empty() && host.list("blobs/sha256").is_empty());

    let (digest, size) = host.store.put_blob(b"some content").unwrap();
    assert_eq!((digest, size), (Digest::of(b"some content"), 12));
    assert_eq!(host.store.put_blob(b"some content").unwrap(), (digest, size));
    assert_eq!(host.store.read_blob(&digest).unwrap(), b"some content");
    assert!(matches!(host.store.read_blob(&wrong), Err(Error::BlobMissing { .. })));
    fs_err::write(host.store.blob_path(&digest), "damaged").unwrap();
    assert!(matches!(host.store.read_blob(&digest), Err(Error::DigestMismatch { .. })));
}

#[test]
fn names_are_given_moved_and_taken_away() {
    let host = Host::new();
    assert!(host.store.images().unwrap().is_empty());
    let image = host.image(vec![host.layer(Tar::default().file("a", "x").bytes().as_slice())]);
    let descriptor = Descriptor::new(MediaType::ImageManifest, 1, image.manifest);
    for name in ["localhost:5000/b", "a:1", "a:2"] {
        host.store.tag(&reference(name), &descriptor).unwrap();
    }
    let names: Vec<_> = host.store.images().unwrap().iter().map(|image| image.name.familiar()).collect();
    assert_eq!(names, ["a:1", "a:2", "test:latest", "localhost:5000/b:latest"]);
    let by_digest = host.store.image(&reference(&format!("a:9@{}", image.manifest))).unwrap().unwrap();
    assert_eq!(by_digest.name, reference("a:1"));
    assert!(host.store.image(&reference(&format!("c@{}", image.manifest))).unwrap().is_none());
    assert!(host.store.image(&reference("a:3")).unwrap().is_none());

    let other = host.image(vec![]);
    host.store.tag(&reference("a:1"), &Descriptor::new(MediaType::ImageManifest, 1, other.manifest)).unwrap();
    assert_eq!(host.store.image(&reference("a:1")).unwrap().unwrap().manifest, other.manifest);
    assert!(host.store.untag(&reference("a:2")).unwrap());
    assert!(!host.store.untag(&reference("a:2")).unwrap());
    let absent = Descriptor::new(MediaType::ImageManifest, 1, Digest::of(b"absent"));
    assert!(matches!(host.store.tag(&reference("x"), &absent), Err(Error::BlobMissing { .. })));
    // Another process sees the same.
    assert_eq!(Store::open(host.store.root()).unwrap().images().unwrap().len(), 3);

    fs_err::write(host.store.root().join("index.json"), "{").unwrap();
    assert!(matches!(host.store.images(), Err(Error::Damaged { .. })));
    fs_err::write(host.store.root().join("index.json"), r#"{"schemaVersion":3,"manifests":[]}"#).unwrap();
    assert!(matches!(host.store.images(), Err(Error::Damaged { .. })));
}

#[test]
fn names_given_at_once_are_all_there() {
    let host = Host::new();
    let image = host.image(vec![]);
    std::thread::scope(|scope| {
        for index in 0..16 {
            let (store, digest) = (&host.store, image.manifest);
            scope.spawn(move || {
                let descriptor = Descriptor::new(MediaType::ImageManifest, 1, digest);
                store.tag(&reference(&format!("a:{index}")), &descriptor).unwrap();
            });
        }
    });
    assert_eq!(host.store.images().unwrap().len(), 17);
}

#[test]
fn an_index_gives_the_variant_of_this_host() {
    let host = Host::new();
    let image = host.image(vec![]);
    let manifest = |architecture: Arch, digest: Digest| {
        let platform = PlatformBuilder::default().architecture(architecture).os("linux").build().unwrap();
        let mut descriptor = Descriptor::new(MediaType::ImageManifest, 1, digest);
        descriptor.set_platform(Some(platform));
        descriptor
    };
    let foreign = manifest(Arch::Wasm, Digest::of(b"a variant that is not here"));
    let tag = |manifests: Vec<Descriptor>| {
        let index = ImageIndexBuilder::default().schema_version(2_u32).manifests(manifests).build().unwrap();
        let (digest, size) = host.store.put_blob(index.to_string().unwrap().as_bytes()).unwrap();
        host.store.tag(&reference("multi"), &Descriptor::new(MediaType::ImageIndex, size, digest)).unwrap();
    };
    tag(vec![foreign.clone(), manifest(Arch::default(), image.manifest)]);
    assert_eq!(host.store.image(&reference("multi")).unwrap().unwrap().manifest, image.manifest);
    tag(vec![foreign]);
    assert!(matches!(host.store.image(&reference("multi")), Err(Error::InvalidImage { .. })));
}

#[test]
fn a_layer_is_unpacked_once_however_many_want_it() {
    let host = Host::new();
    let mut archive = Tar::default();
    for index in 0..200 {
        archive.file(&format!("d{}/f{index}", index % 7), "x");
    }
    let layer = host.layer(&archive.bytes());
    let other = host.layer(Tar::default().file("other", "x").bytes().as_slice());
    // The same layer twice is one directory: overlayfs takes no directory twice.
    let image = host.image(vec![layer.clone(), other.clone(), layer.clone()]);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| host.store.unpack(&image).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected = [&layer, &other].map(|layer| host.store.layer_path(&layer.diff_id));
    assert!(outcomes.iter().all(|outcome| *outcome == expected));
    assert_eq!(snapshot(&expected[0]).len(), 1 + 7 + 200);
    assert!(host.list("tmp").is_empty());
}

#[test]
fn failed_layers_leave_nothing() {
    let host = Host::new();
    let good = Tar::default().file("a", "x").bytes();
    let wrong_diff_id = Layer { diff_id: Digest::of(b"else"), ..host.layer(&good) };
    let mut wrong_digest = host.layer(Tar::default().file("b", "x").bytes().as_slice());
    let blob = fs_err::read(host.store.blob_path(&wrong_digest.digest)).unwrap();
    wrong_digest.digest = Digest::of(b"another name");
    fs_err::write(host.store.blob_path(&wrong_digest.digest), &blob).unwrap();
    let missing = Layer { digest: Digest::of(b"missing"), ..host.layer(&good) };
    let unknown = Layer { media_type: "application/x-rar".into(), ..host.layer(&good) };
    let hostile = host.layer(Tar::default().file("../evil", "x").bytes().as_slice());
    let truncated = host.layer(&Tar::default().file("a", &"x".repeat(5000)).bytes()[..2000]);
    type Check = fn(&Error) -> bool;
    let cases: [(Layer, Check); 6] = [
        (wrong_diff_id, |error| matches!(error, Error::DigestMismatch { .. })),
        (wrong_digest, |error| matches!(error, Error::DigestMismatch { .. })),
        (missing, |error| matches!(error, Error::BlobMissing { .. })),
        (unknown, |error| matches!(error, Error::InvalidImage { .. })),
        (hostile, |error| matches!(error, Error::LayerEntry { entry, .. } if entry == "../evil")),
        (truncated, |error| matches!(error, Error::LayerEntry { entry, .. } if entry == "a")),
    ];
    for (layer, check) in cases {
        let image = Image { layers: vec![layer], ..host.image(vec![]) };
        let error = host.store.unpack(&image).unwrap_err();
        assert!(check(&error), "{error:?}");
        assert!(host.list("tmp").is_empty() && host.list("layers").is_empty());
    }
}

/// A disk of two megabytes; unmounted at the end, also if the test fails.
#[test]
fn a_full_disk_is_named_and_nothing_stays() {
    let small = tempfile::tempdir().unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        small.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=2m"),
    );
    if mounted.is_err() {
        println!("skipped: needs the right to mount");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&small.path().join("images")).unwrap();
        let list = |directory: &str| fs_err::read_dir(store.root().join(directory)).unwrap().count();
        let noise: Vec<u8> =
            (0..3_u32 << 18).flat_map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let error = store.put_blob(&noise).unwrap_err();
        assert!(matches!(&error, Error::NoSpace { what, .. } if what.contains("blob")), "{error:?}");

        let tree = tempfile::tempdir().unwrap();
        fs_err::write(tree.path().join("large"), &noise).unwrap();
        let error = pack_layer(&store, tree.path(), |_| true).unwrap_err();
        assert!(
            matches!(&error, Error::NoSpace { what, .. } if what.contains(tree.path().to_str().unwrap())),
            "{error:?}"
        );
        assert_eq!((list("blobs/sha256"), list("tmp")), (0, 0));

        let archive = Tar::default().file("zeroes", &"0".repeat(3 << 20)).bytes();
        let (digest, size) = store.put_blob(&zstd::encode_all(&archive[..], 3).unwrap()).unwrap();
        let media_type = "application/vnd.oci.image.layer.v1.tar+zstd".to_owned();
        let layer = Layer { digest, diff_id: Digest::of(&archive), media_type, size };
        let image = write_image(&store, &reference("a"), vec![layer], ImageSettings::default()).unwrap();
        let error = store.unpack(&image).unwrap_err();
        assert!(matches!(&error, Error::NoSpace { what, .. } if what.contains("zeroes")), "{error:?}");
        assert_eq!((list("layers"), list("tmp")), (0, 0));
    });
    rustix::mount::unmount(small.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    if let Err(cause) = outcome {
        std::panic::resume_unwind(cause);
    }
}
