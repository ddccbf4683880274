//! Images of this host's store, and the clusters that use them.

use crate::{
    Error, Paths, Reporter, Result,
    image::{Image, Pruned, Reference, Store},
    registry::{self, RegistryOptions},
    state::{self, Occupant},
};

/// An image whose name is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedImages {
    /// The names.
    pub names: Vec<Reference>,
    /// What went with them.
    pub pruned: Pruned,
}

/// The clusters, then the standbys, with nodes that were made from an image of this name.
///
/// # Errors
/// A record cannot be read.
pub fn image_users(paths: &Paths, name: &Reference) -> Result<Vec<String>> {
    let is_it = |image: &str| Reference::try_new(image).is_ok_and(|image| image == *name);
    let mut users = Vec::new();
    for Occupant { owner, cluster, paths } in state::occupants(paths)? {
        let record = state::load_cluster(&paths, &cluster)?;
        let nodes = state::load_nodes(&paths, &cluster)?;
        if record.is_some_and(|record| is_it(&record.image)) || nodes.iter().any(|node| is_it(&node.image)) {
            users.push(if paths.meant_standby(&cluster).is_some() { owner } else { cluster });
        }
    }
    Ok(users)
}

/// Takes names away, and the content that no other name and no node uses. An image that clusters use is refused, unless
/// `force` says otherwise: its name goes then, and the layers of the nodes stay.
///
/// # Errors
/// Before anything is removed: [`Error::NoSuchImage`], [`Error::ImageInUse`]. Then what the store says.
pub fn remove_images(
    paths: &Paths,
    names: &[Reference],
    force: bool,
    reporter: &dyn Reporter,
) -> Result<RemovedImages> {
    let store = Store::open(&paths.images())?;
    let known = Store::names(&paths.images())?;
    for name in names {
        if !known.contains(name) {
            return Err(Error::NoSuchImage { image: name.familiar() });
        }
        let clusters = image_users(paths, name)?;
        if !force && !clusters.is_empty() {
            return Err(Error::ImageInUse { image: name.familiar(), clusters });
        }
    }
    let mut removed = Vec::new();
    for name in names {
        if store.untag(name)? {
            removed.push(name.clone());
        }
    }
    let pruned = match store.prune(|| layers_in_use(paths)) {
        Err(error @ Error::StoreInUse) => {
            reporter.message(0, &format!("Warning: {error}: the content stays until `kiln images prune`"));
            Pruned::default()
        }
        pruned => pruned?,
    };
    Ok(RemovedImages { names: removed, pruned })
}

/// Takes away all content of the store that no name and no node uses, halves of blobs that a cut pull has left among it.
///
/// # Errors
/// [`Error::StoreInUse`], or what the store says.
pub fn prune_images(paths: &Paths) -> Result<Pruned> {
    let store = Store::open(&paths.images())?;
    let unused = store.prune(|| layers_in_use(paths))?;
    let halves = store.prune_partial()?;
    let (blobs, bytes) = (unused.blobs + halves.blobs, unused.bytes + halves.bytes);
    Ok(Pruned { blobs, bytes, ..unused })
}

/// The unpacked layers that nodes stand on. A record that cannot be read is an error: it may name any of them.
fn layers_in_use(paths: &Paths) -> Result<Vec<std::path::PathBuf>> {
    let mut layers = Vec::new();
    for Occupant { cluster, paths, .. } in state::occupants(paths)? {
        for node in state::load_nodes(&paths, &cluster)? {
            layers.extend(node.layers);
        }
    }
    Ok(layers)
}

/// An image of the store; one that is not in it is pulled.
///
/// # Errors
/// [`Error::NoSuchImage`] for Kiln's own node images, which are built and on no registry; [`Error::Pull`].
pub(super) async fn find_or_pull(
    paths: &Paths,
    store: &Store,
    name: &str,
    reporter: &dyn Reporter,
) -> Result<Image> {
    let reference: Reference = name.parse()?;
    match store.image(&reference)? {
        Some(image) => Ok(image),
        None => Ok(registry::pull(paths, &reference, &RegistryOptions::default(), reporter).await?.image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Silent,
        image::{Digest, ImageSettings, Layer, pack_layer, write_image},
        state::{NodeRecord, NodeRole},
    };

    fn image(store: &Store, name: &str, content: &str) -> Image {
        let tree = tempfile::tempdir().unwrap();
        fs_err::write(tree.path().join("file"), content).unwrap();
        let layer: Layer = pack_layer(store, tree.path(), |_| true).unwrap();
        write_image(store, &name.parse().unwrap(), vec![layer], ImageSettings::default()).unwrap()
    }

    fn node(name: &str, image: &str, layers: Vec<std::path::PathBuf>) -> NodeRecord {
        NodeRecord { role: NodeRole::Worker, image: image.to_owned(), layers, ..NodeRecord::example(name) }
    }

    #[test]
    fn what_a_node_stands_on_stays_whatever_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let store = Store::open(&paths.images()).unwrap();
        let used = image(&store, "used:1", "a");
        let other = image(&store, "other:1", "b");
        let layers = store.unpack(&used).unwrap();
        let gone = store.unpack(&other).unwrap();
        state::save_node(&paths, "c", &node("c-worker", "used:1", layers.clone())).unwrap();

        let names = ["other:1", "used:1"].map(|name| name.parse().unwrap());
        let error = remove_images(&paths, &names, false, &Silent).unwrap_err();
        assert_eq!(error.to_string(), "image used:1 is used by c");
        assert_eq!(Store::names(store.root()).unwrap().len(), 2, "all or nothing");
        let error = remove_images(&paths, &["no:1".parse().unwrap()], false, &Silent).unwrap_err();
        assert!(matches!(error, Error::NoSuchImage { .. }), "{error:?}");

        let removed = remove_images(&paths, &names, true, &Silent).unwrap();
        assert_eq!((removed.pruned.blobs, removed.pruned.layers), (6, 1));
        assert!(removed.pruned.bytes > 0);
        assert!(layers[0].join("file").exists() && !gone[0].exists());
        assert_eq!(store.verify(&Silent).unwrap().damage, []);

        state::remove_cluster(&paths, "c").unwrap();
        assert_eq!(prune_images(&paths).unwrap().layers, 1);
        assert!(!layers[0].exists());
    }

    #[test]
    fn nothing_goes_while_somebody_counts_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let store = Store::open(&paths.images()).unwrap();
        store.put_blob(b"without a name yet").unwrap();
        let promise = store.share().unwrap();
        assert!(matches!(prune_images(&paths), Err(Error::StoreInUse)));
        drop(promise);
        assert_eq!(prune_images(&paths).unwrap().blobs, 1);
        assert!(!store.has_blob(&Digest::of(b"without a name yet")));
    }

    #[test]
    fn what_two_names_have_in_common_stays_with_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let store = Store::open(&paths.images()).unwrap();
        let first = image(&store, "a:1", "a");
        let layers = first.layers.clone();
        let settings = ImageSettings { cmd: vec!["x".to_owned()], ..ImageSettings::default() };
        write_image(&store, &"b:1".parse().unwrap(), layers.clone(), settings).unwrap();
        let usage = store.usage().unwrap();
        assert!(usage.iter().all(|usage| usage.shared == layers[0].size && usage.unpacked == 0));
        let removed = remove_images(&paths, &["a:1".parse().unwrap()], false, &Silent).unwrap();
        assert_eq!(removed.pruned.blobs, 2, "its manifest and its configuration");
        assert_eq!(store.usage().unwrap()[0].shared, 0);
        let second = store.image(&"b:1".parse().unwrap()).unwrap().unwrap();
        store.unpack(&second).unwrap();
        assert!(store.usage().unwrap()[0].unpacked > 0);
        assert_eq!(store.verify(&Silent).unwrap().damage, []);
    }

    #[test]
    fn damage_of_every_kind_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let damaged = image(&store, "a:1", "right");
        let layers = store.unpack(&damaged).unwrap();
        fs_err::write(layers[0].join("file"), "wrong").unwrap();
        let verified = store.verify(&Silent).unwrap();
        assert_eq!((verified.images, verified.blobs, verified.layers), (1, 3, 1));
        assert_eq!(verified.damage[0].problem, "\"file\" has other content");
        fs_err::remove_file(layers[0].join("file")).unwrap();
        assert_eq!(store.verify(&Silent).unwrap().damage[0].problem, "\"file\" is not there");

        fs_err::write(store.blob_path(&damaged.layers[0].digest), "x").unwrap();
        let damage = store.verify(&Silent).unwrap().damage;
        let kinds: Vec<_> = damage.iter().map(|damage| damage.kind).collect();
        assert_eq!(kinds, ["blob", "image", "layer"].map(|kind| kind)[..kinds.len()], "{damage:?}");
        fs_err::remove_file(store.blob_path(&damaged.layers[0].digest)).unwrap();
        let damage = store.verify(&Silent).unwrap().damage;
        assert!(damage[0].problem.ends_with("is not there"), "{damage:?}");
    }
}
