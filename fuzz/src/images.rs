//! Archives and layouts of images, and the index of the store.

use std::{io::Read, path::Path, sync::Arc};

use kiln_provision::{
    Error, Result,
    image::{Bundle, BundleImage, Digest, Document, Store},
};

use crate::recipe::Recipe;

thread_local! {
    static HOST: Host = Host::new();
}

/// A store that archives are parked in.
struct Host {
    directory: tempfile::TempDir,
    store: Store,
}

/// Reads an archive of images as a stream and where it is, the same files as a layout, and its index as that of a store.
///
/// What is accepted is what its digests say, and the same however it is read. Nothing of it is left.
///
/// # Panics
/// When one of these does not hold.
pub fn check(data: &[u8]) {
    let recipe = Recipe::follow(data);
    HOST.with(|host| {
        let parked = host.park(&recipe.archive);
        let located = host.locate(&recipe.archive);
        match (&parked, &located) {
            (Ok(images), Ok(Some(found))) => assert_eq!(images, found),
            // Where it is, a blob is found by its path alone.
            (Ok(_), Err(Error::ContentMissing { .. })) | (_, Ok(None)) | (Err(_), _) => {}
            (Ok(images), Err(error)) => panic!("{error}, but as a stream there are {images:?}"),
        }
        for error in [parked.err(), located.err()].into_iter().flatten() {
            told(&error);
        }
        host.layout(&recipe.files);
        host.names(&recipe.files);
    });
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let store = Store::open(&directory.path().join("images")).expect("a store can be made");
        Self { directory, store }
    }

    fn park(&self, archive: &[u8]) -> Result<Vec<BundleImage>> {
        let parking = self.store.parking().expect("an archive can be parked");
        let images = checked(Bundle::read_archive("x.tar", archive, parking.path()));
        drop(parking);
        for directory in ["tmp", "blobs/sha256"] {
            let mut left =
                fs_err::read_dir(self.store.root().join(directory)).expect("the store can be listed");
            assert!(left.next().is_none(), "something is left in {directory}");
        }
        images
    }

    /// `None` if it can only be read as a stream.
    fn locate(&self, archive: &[u8]) -> Result<Option<Vec<BundleImage>>> {
        let path = self.directory.path().join("x.tar");
        fs_err::write(&path, archive).expect("an archive can be written");
        let file = Arc::new(fs_err::File::open(&path).expect("an archive can be opened"));
        let bundle = Bundle::open_archive("x.tar", &file)?;
        bundle.map(|bundle| checked(Ok(bundle))).transpose()
    }

    fn layout(&self, files: &[(Vec<u8>, Vec<u8>)]) {
        let root = self.directory.path().join("layout");
        let blobs = root.join("blobs/sha256");
        fs_err::create_dir_all(&blobs).expect("a layout can be made");
        for (path, content) in files {
            if path == b"index.json" {
                write(&root.join("index.json"), content);
            } else if path.starts_with(b"blobs/sha256/") {
                // Under its right name: that of an archive may lead anywhere.
                write(&blobs.join(Digest::of(content).hex()), content);
            }
        }
        if let Err(error) = checked(Bundle::open_layout(&root)) {
            told(&error);
        }
        fs_err::remove_dir_all(&root).expect("a layout can be removed");
    }

    fn names(&self, files: &[(Vec<u8>, Vec<u8>)]) {
        let Some((_, index)) = files.iter().find(|(path, _)| path == b"index.json") else { return };
        let root = self.directory.path().join("other");
        fs_err::create_dir_all(&root).expect("a store can be made");
        write(&root.join("index.json"), index);
        match Store::names(&root) {
            Ok(names) => assert!(names.is_sorted(), "{names:?}"),
            Err(error) => told(&error),
        }
    }
}

/// The images of a bundle, whose documents and layers are what their digests say.
fn checked(bundle: Result<Bundle>) -> Result<Vec<BundleImage>> {
    let bundle = bundle?;
    assert!(!bundle.images().is_empty());
    for image in bundle.images() {
        image.indexes.iter().chain([&image.manifest, &image.config]).for_each(same);
        for layer in &image.layers {
            let mut content = Vec::new();
            let mut source = bundle.blob(&layer.digest).open().expect("a layer that is there can be opened");
            source.read_to_end(&mut content).expect("a layer that is there can be read");
            let actual = Digest::of(&content);
            if actual != layer.digest {
                return Err(bundle.mismatch(&layer.digest, actual));
            }
            assert_eq!(content.len() as u64, layer.size);
        }
    }
    Ok(bundle.images().to_vec())
}

fn same(document: &Document) {
    assert_eq!(Digest::of(&document.bytes), document.digest, "{}", document.media_type);
}

fn told(error: &Error) {
    assert!(!error.to_string().is_empty());
}

fn write(path: &Path, content: &[u8]) {
    fs_err::write(path, content).expect("a file can be written");
}
