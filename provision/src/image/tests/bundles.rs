//! Archives and layouts of images, as other tools write them and as they should not.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use oci_spec::image::Arch;
use serde_json::{Value, json};

use super::Tar;
use crate::{
    Error,
    image::{BlobSource, Bundle, BundleImage, Digest, Store, parked::Compressed},
};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const NAME: &str = "example.org/team/app:1";

/// A store that archives are parked in.
pub(super) struct Host {
    directory: tempfile::TempDir,
    store: Store,
}

impl Host {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("images")).unwrap();
        Self { directory, store }
    }

    /// Reads an archive, as a stream and where it is, which must come to the same.
    fn read(&self, archive: &[u8]) -> Result<Vec<BundleImage>, Error> {
        let parked = self.park(archive);
        match (self.locate(archive), &parked) {
            (Ok(None), _) => assert!(archive.is_empty() || Compressed::of(archive) != Compressed::No),
            (Ok(Some(images)), parked) => assert_eq!(&images, parked.as_ref().unwrap()),
            (Err(error), parked) => assert_eq!(error.to_string(), parked.as_ref().unwrap_err().to_string()),
        }
        parked
    }

    /// Reads an archive as a stream and makes sure that nothing of it is left.
    pub(super) fn park(&self, archive: &[u8]) -> Result<Vec<BundleImage>, Error> {
        let parking = self.store.parking().unwrap();
        let images = checked(Bundle::read_archive("x.tar", archive, parking.path()));
        drop(parking);
        for directory in ["tmp", "blobs/sha256"] {
            let left = fs_err::read_dir(self.store.root().join(directory)).unwrap().count();
            assert_eq!(left, 0, "{directory}");
        }
        images
    }

    /// Reads an archive where it is, and all its layers; `None` if it has to be read as a stream.
    pub(super) fn locate(&self, archive: &[u8]) -> Result<Option<Vec<BundleImage>>, Error> {
        let path = self.directory.path().join("x.tar");
        fs_err::write(&path, archive).unwrap();
        let file = Arc::new(fs_err::File::open(&path).unwrap());
        let bundle = Bundle::open_archive("x.tar", &file)?;
        bundle.map(|bundle| checked(Ok(bundle))).transpose()
    }

    fn only(&self, archive: &Tar) -> BundleImage {
        let mut images = self.read(&archive.bytes()).unwrap();
        assert_eq!(images.len(), 1);
        images.remove(0)
    }

    fn error(&self, archive: &Tar) -> Error {
        self.read(&archive.bytes()).unwrap_err()
    }
}

/// The images of a bundle, whose layers are there and what they should be.
fn checked(bundle: Result<Bundle, Error>) -> Result<Vec<BundleImage>, Error> {
    let bundle = bundle?;
    for image in bundle.images() {
        for layer in &image.layers {
            let mut content = Vec::new();
            bundle.blob(&layer.digest).open().unwrap().read_to_end(&mut content).unwrap();
            let actual = Digest::of(&content);
            if actual != layer.digest {
                return Err(bundle.mismatch(&layer.digest, actual));
            }
            assert_eq!(content.len() as u64, layer.size);
        }
    }
    Ok(bundle.images().to_vec())
}

fn layer(content: &str) -> Vec<u8> {
    Tar::default().file("file", content).bytes()
}

fn config(arch: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    json!({ "architecture": arch, "os": "linux", "rootfs": rootfs }).to_string().into_bytes()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn names(image: &BundleImage) -> Vec<String> {
    image.names.iter().map(ToString::to_string).collect()
}

impl Tar {
    fn bytes_at(&mut self, path: &str, content: &[u8]) -> &mut Self {
        self.entry(b'0', path, "", 0o644, content)
    }

    fn blob(&mut self, content: &[u8]) -> &mut Self {
        self.bytes_at(&format!("blobs/sha256/{}", Digest::of(content).hex()), content)
    }

    fn json(&mut self, path: &str, content: &Value) -> &mut Self {
        self.bytes_at(path, content.to_string().as_bytes())
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
}

fn annotated(mut descriptor: Value, key: &str, value: &str) -> Value {
    descriptor["annotations"][key] = value.into();
    descriptor
}

fn for_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}

fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(OCI_LAYER, layer)).collect();
    let config = descriptor(OCI_CONFIG, config);
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
    manifest.to_string().into_bytes()
}

fn index(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
}

fn here() -> String {
    Arch::default().to_string()
}

/// An OCI archive of one image with one layer, and its manifest.
pub(super) fn oci_archive(name: Option<&str>) -> (Tar, Vec<u8>) {
    let layer = layer("a");
    let config = config(&here(), &[&layer]);
    let manifest = manifest(&config, &[&layer]);
    let entry = descriptor(OCI_MANIFEST, &manifest);
    let entry = match name {
        Some(name) => annotated(entry, "io.containerd.image.name", name),
        None => entry,
    };
    let mut archive = Tar::default();
    // What explains the rest comes last.
    archive.blob(&layer).blob(&config).blob(&manifest).json("index.json", &index(&[entry]));
    (archive, manifest)
}

#[test]
fn docker_archives_of_any_order_give_the_same_image() {
    let host = Host::new();
    let (bottom, top) = (layer("bottom"), layer("top"));
    let config = config(&here(), &[&bottom, &top, &bottom]);
    let list = json!([{
        "Config": "c0ffee.json", "RepoTags": ["busybox:1", NAME],
        "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"],
    }]);
    let mut first = Tar::default();
    first.json("manifest.json", &list).bytes_at("c0ffee.json", &config);
    first.directory("aa").bytes_at("aa/layer.tar", &bottom).bytes_at("bb/layer.tar", &top);
    first.symlink("cc/layer.tar", "../aa/layer.tar").file("repositories", "{}");
    let image = host.only(&first);
    assert_eq!(names(&image), ["docker.io/library/busybox:1", NAME]);
    assert_eq!((image.id(), &image.foreign), (Digest::of(&config), &None));
    let digests: Vec<_> = image.layers.iter().map(|layer| (layer.digest, layer.diff_id)).collect();
    assert_eq!(digests, [&bottom, &top, &bottom].map(|layer| (Digest::of(layer), Digest::of(layer))));

    let mut last = Tar::default();
    last.link("cc/layer.tar", "aa/layer.tar").bytes_at("bb/layer.tar", &top);
    last.bytes_at("./aa/layer.tar", &bottom).bytes_at("./c0ffee.json", &config).json("manifest.json", &list);
    assert_eq!(host.only(&last), image);
}

#[test]
fn compressed_layers_of_docker_archives_are_recognised() {
    let host = Host::new();
    let content = layer("a");
    let config = config(&here(), &[&content, &content]);
    let list = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["1.tar.gz", "2.tar.zst"] }]);
    let (gzip, zstd) = (gzip(&content), zstd::encode_all(&content[..], 1).unwrap());
    let mut archive = Tar::default();
    archive.bytes_at("1.tar.gz", &gzip).bytes_at("2.tar.zst", &zstd).bytes_at("c.json", &config);
    let image = host.only(archive.json("manifest.json", &list));
    assert!(image.names.is_empty());
    let types: Vec<_> = image.layers.iter().map(|layer| layer.media_type.rsplit('.').next()).collect();
    assert_eq!(types, [Some("gzip"), Some("tar+zstd")]);
    assert!(image.layers.iter().all(|layer| layer.diff_id == Digest::of(&content)));
}

#[test]
fn archives_may_be_compressed() {
    let host = Host::new();
    let (archive, manifest) = oci_archive(Some(NAME));
    let plain = archive.bytes();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let members = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
    for archive in [plain, members, zstd] {
        let images = host.read(&archive).unwrap();
        assert_eq!(names(&images[0]), [NAME]);
        assert_eq!(
            (images[0].manifest.digest, &images[0].manifest.bytes),
            (Digest::of(&manifest), &manifest)
        );
    }
}

#[test]
fn complete_names_are_taken_from_annotations_and_tags_are_not() {
    let host = Host::new();
    let layer = layer("a");
    let config = config(&here(), &[&layer]);
    let manifest = manifest(&config, &[&layer]);
    let named = |annotations: &[(&str, &str)]| {
        let entry = annotations
            .iter()
            .fold(descriptor(OCI_MANIFEST, &manifest), |entry, (key, value)| annotated(entry, key, value));
        let mut archive = Tar::default();
        archive.blob(&layer).blob(&config).blob(&manifest).json("index.json", &index(&[entry]));
        names(&host.only(&archive))
    };
    const OCI: &str = "org.opencontainers.image.ref.name";
    const CONTAINERD: &str = "io.containerd.image.name";
    assert_eq!(named(&[(OCI, "1"), (CONTAINERD, NAME)]), [NAME]);
    assert_eq!(named(&[(OCI, "localhost/app:1")]), ["localhost/app:1"]);
    assert_eq!(named(&[(OCI, "busybox:1")]), ["docker.io/library/busybox:1"]);
    assert_eq!(named(&[(OCI, "latest")]), [""; 0]);
    assert_eq!(named(&[(CONTAINERD, "NOT a name"), (OCI, NAME)]), [NAME]);

    // Two names of one image are two entries.
    let twice = [NAME, "example.org/team/app:2"]
        .map(|name| annotated(descriptor(OCI_MANIFEST, &manifest), CONTAINERD, name));
    let mut archive = Tar::default();
    archive.json("index.json", &index(&twice)).blob(&layer).blob(&config).blob(&manifest);
    assert_eq!(names(&host.only(&archive)), [NAME, "example.org/team/app:2"]);
}

#[test]
fn of_two_descriptions_the_newer_one_counts_and_the_older_one_adds_names() {
    let host = Host::new();
    let list = |config: &[u8], layer: &[u8]| {
        let path = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
        json!([{ "Config": path(config), "RepoTags": ["other/app:1"], "Layers": [path(layer)] }])
    };
    let (layer, config) = (layer("a"), config(&here(), &[&layer("a")]));
    for (given, expected) in [(Some(NAME), NAME), (None, "docker.io/other/app:1")] {
        let (mut archive, manifest) = oci_archive(given);
        let image = host.only(archive.json("manifest.json", &list(&config, &layer)));
        assert_eq!(names(&image), [expected]);
        assert_eq!(image.manifest.digest, Digest::of(&manifest));
    }
}

#[test]
fn of_an_index_only_this_platform_is_needed() {
    let host = Host::new();
    let layer = layer("a");
    let config = config(&here(), &[&layer]);
    let own = manifest(&config, &[&layer]);
    let attestation = json!({
        "mediaType": OCI_MANIFEST, "digest": Digest::of(b"attestation").to_string(), "size": 1,
        "platform": { "os": "unknown", "architecture": "unknown" },
    });
    let absent = for_platform(descriptor(OCI_MANIFEST, b"absent"), "riscv64");
    let variants =
        index(&[attestation.clone(), absent.clone(), for_platform(descriptor(OCI_MANIFEST, &own), &here())]);
    let variants = variants.to_string().into_bytes();
    let top = index(&[annotated(descriptor(OCI_INDEX, &variants), "io.containerd.image.name", NAME)]);
    let mut archive = Tar::default();
    archive.json("index.json", &top).blob(&variants).blob(&layer).blob(&config);
    let error = host.error(&archive);
    assert!(matches!(&error, Error::ContentMissing { .. }), "{error}");
    assert!(error.to_string().contains(&Digest::of(&own).to_string()), "{error}");
    let image = host.only(archive.blob(&own));
    assert_eq!((names(&image), image.manifest.digest), (vec![NAME.to_owned()], Digest::of(&own)));
    assert_eq!(image.indexes.iter().map(|index| index.digest).collect::<Vec<_>>(), [Digest::of(&variants)]);

    let others = index(&[attestation, absent]).to_string().into_bytes();
    let top = index(&[annotated(descriptor(OCI_INDEX, &others), "io.containerd.image.name", NAME)]);
    let error = host.error(Tar::default().json("index.json", &top).blob(&others));
    match &error {
        Error::NoPlatform { image, platform, present, .. } => {
            assert_eq!((image.as_str(), platform), (NAME, &format!("linux/{}", here())));
            assert_eq!(present, &["linux/riscv64"]);
        }
        other => panic!("{other}"),
    }
    assert_eq!(error.hint().as_deref(), Some("it is for linux/riscv64"));
}

#[test]
fn a_single_image_for_another_platform_is_marked() {
    let host = Host::new();
    let config = config("riscv64", &[]);
    let list = json!([{ "Config": "c.json", "RepoTags": [NAME], "Layers": null }]);
    let image = host.only(Tar::default().bytes_at("c.json", &config).json("manifest.json", &list));
    assert_eq!(image.foreign.as_deref(), Some("linux/riscv64"));
    assert!(image.layers.is_empty());
}

#[test]
fn what_is_no_image_archive_is_told_why() {
    let host = Host::new();
    let text = "just some text, and enough of it for a header of an archive ".repeat(20);
    let compressed = gzip(text.as_bytes());
    let cases: [(&[u8], &str); 7] = [
        (b"", "it is empty"),
        (b"short", "it ends within its first header"),
        (text.as_bytes(), "a header of the archive"),
        (&compressed, "a header of the archive"),
        (b"BZh91AY&SY", "bzip2"),
        (&[0; 1024], "neither index.json nor manifest.json"),
        (&Tar::default().file("a", "b").bytes(), "neither index.json nor manifest.json"),
    ];
    for (archive, reason) in cases {
        let error = host.read(archive).unwrap_err();
        assert_eq!(error.to_string(), "x.tar is not an image archive", "{reason}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(reason), "{source}");
    }
    for (file, content) in [("manifest.json", "[]"), ("manifest.json", "{}"), ("index.json", "no JSON")] {
        let error = host.error(Tar::default().file(file, content));
        assert!(matches!(error, Error::NotImages { .. }), "{file} {content}: {error}");
    }
}

#[test]
fn truncated_archives_are_told_as_such() {
    let host = Host::new();
    let (archive, _) = oci_archive(Some(NAME));
    let plain = archive.bytes();
    // Within the first file, and within the last one.
    for cut in [512 + 100, plain.len() - 1024 - 512 - 100] {
        let error = host.read(&plain[..cut]).unwrap_err();
        assert!(matches!(error, Error::ArchiveTruncated { .. }), "{cut}: {error}");
        assert!(error.to_string().starts_with("x.tar is truncated"), "{error}");
    }
    for compressed in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
        let error = host.read(&compressed[..compressed.len() - 1]).unwrap_err();
        assert!(matches!(error, Error::ArchiveTruncated { .. }), "{error}");
    }
}

#[test]
fn content_that_is_wrong_or_missing_is_named() {
    let host = Host::new();
    let (content, other) = (layer("a"), layer("b"));
    let config = config(&here(), &[&content]);
    let list = json!([{ "Config": "c.json", "RepoTags": [NAME], "Layers": ["1/layer.tar"] }]);
    let lacking = Tar::default().json("manifest.json", &list).bytes_at("c.json", &config).clone();
    let error = host.error(&lacking).to_string();
    assert_eq!(error, format!("x.tar is incomplete: image {NAME} lacks its layer 1/layer.tar"));
    let error = host.error(lacking.clone().bytes_at("1/layer.tar", &other));
    match error {
        Error::DigestMismatch { expected, actual, .. } => {
            assert_eq!((expected, actual), (Digest::of(&content), Digest::of(&other)));
        }
        other => panic!("{other}"),
    }
    let mut odd = Tar::default();
    odd.json("manifest.json", &list).bytes_at("c.json", &self::config(&here(), &[]));
    assert!(matches!(host.error(odd.bytes_at("1/layer.tar", &content)), Error::InvalidImage { .. }));

    let (_, manifest) = oci_archive(None);
    let top = index(&[descriptor(OCI_MANIFEST, &manifest)]);
    let lacking = Tar::default().json("index.json", &top).blob(&manifest).blob(&config).clone();
    let error = host.error(&lacking).to_string();
    assert!(error.contains(&format!("its layer {}", Digest::of(&content))), "{error}");
    let path = format!("blobs/sha256/{}", Digest::of(&content).hex());
    let error = host.error(lacking.clone().bytes_at(&path, &other));
    assert!(error.to_string().starts_with(&format!("{path} of x.tar has digest")), "{error}");
}

#[test]
fn what_a_killed_process_parked_is_swept() {
    let host = Host::new();
    let left = host.store.root().join("tmp/archive-1-2-3");
    fs_err::create_dir(&left).unwrap();
    fs_err::write(left.join("partial"), "half a layer").unwrap();
    let parking = host.store.parking().unwrap();
    let _ = Store::open(host.store.root()).unwrap();
    assert!(!left.exists() && parking.path().exists());
}

#[test]
fn a_layout_is_read_in_place_and_verified() {
    let host = Host::new();
    let root = host.directory.path().join("layout");
    let (layer, config) = (layer("a"), config(&here(), &[&layer("a")]));
    let manifest = manifest(&config, &[&layer]);
    let blobs = root.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let error = Bundle::open_layout(&root).unwrap_err();
    assert!(error.to_string().ends_with("layout is not an OCI image layout"), "{error}");
    for content in [&layer, &config, &manifest] {
        fs_err::write(blobs.join(Digest::of(content).hex()), content).unwrap();
    }
    let top = index(&[annotated(descriptor(OCI_MANIFEST, &manifest), "io.containerd.image.name", NAME)]);
    fs_err::write(root.join("index.json"), top.to_string()).unwrap();

    let bundle = Bundle::open_layout(&root).unwrap();
    let image = &bundle.images()[0];
    assert_eq!((names(image), image.id()), (vec![NAME.to_owned()], Digest::of(&config)));
    let path = blobs.join(Digest::of(&layer).hex());
    assert!(matches!(bundle.blob(&Digest::of(&layer)), BlobSource::File(blob) if blob == path));
    let mut damaged = layer.clone();
    damaged[700] ^= 1;
    fs_err::write(&path, damaged).unwrap();
    assert!(matches!(checked(Bundle::open_layout(&root)), Err(Error::DigestMismatch { .. })));
    fs_err::write(&path, &layer[..layer.len() - 1]).unwrap();
    assert!(matches!(Bundle::open_layout(&root), Err(Error::InvalidImage { .. })));
    fs_err::remove_file(&path).unwrap();
    assert!(matches!(Bundle::open_layout(&root), Err(Error::ContentMissing { .. })));
    assert!(matches!(Bundle::open_layout(&root.join("index.json")), Err(Error::NotImages { .. })));
}

#[test]
fn an_archive_in_a_file_is_not_read_before_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let content = layer("a");
    let config = config(&here(), &[&content]);
    let list = json!([{ "Config": "c.json", "RepoTags": [NAME], "Layers": ["1/layer.tar"] }]);
    // Its bytes are other ones, of the same number: whoever reads them notices.
    let mut other = content.clone();
    other[700] ^= 1;
    let mut archive = Tar::default();
    archive.bytes_at("1/layer.tar", &other).bytes_at("c.json", &config).json("manifest.json", &list);
    let path = directory.path().join("x.tar");
    fs_err::write(&path, archive.bytes()).unwrap();
    let file = Arc::new(fs_err::File::open(&path).unwrap());
    let bundle = Bundle::open_archive("x.tar", &file).unwrap().unwrap();
    let image = &bundle.images()[0];
    assert_eq!((image.id(), image.layers[0].digest), (Digest::of(&config), Digest::of(&content)));
    let error = bundle.mismatch(&Digest::of(&content), Digest::of(&other)).to_string();
    assert!(error.starts_with("1/layer.tar of x.tar has digest"), "{error}");
    // Whoever cannot have it this way reads the file from its beginning.
    let mut start = [0; 2];
    (&*file).read_exact(&mut start).unwrap();
    assert_eq!(&start, b"1/");
}
