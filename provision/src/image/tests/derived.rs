//! Layers derived from an image.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    Silent,
    image::{Derived, Image, ImageSettings, Store, derived::derived_id, pack_layer, write_image},
};

fn image(store: &Store, name: &str, content: &str) -> Image {
    let tree = tempfile::tempdir().unwrap();
    fs_err::write(tree.path().join("file"), content).unwrap();
    let layer = pack_layer(store, tree.path(), |_| true).unwrap();
    write_image(store, &name.parse().unwrap(), vec![layer], ImageSettings::default()).unwrap()
}

/// Derives a layer of one file of this size, unless it is there; returns whether it did.
fn derive(store: &Store, image: &Image, size: usize) -> bool {
    let Derived::Missing(derivation) = store.derive(&image.manifest).unwrap() else { return false };
    fs_err::create_dir(derivation.files()).unwrap();
    fs_err::write(derivation.files().join("made"), vec![1; size]).unwrap();
    fs_err::write(derivation.path().join("scrap"), "").unwrap();
    derivation.publish().unwrap();
    true
}

#[test]
fn a_derived_layer_goes_with_its_image_and_counts_as_its() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (kept, gone) = (image(&store, "kept:1", "a"), image(&store, "gone:1", "b"));
    assert_eq!(store.derived_layer(&kept.manifest), None);
    assert!(derive(&store, &kept, 1 << 20) && derive(&store, &gone, 1 << 20));
    assert!(!derive(&store, &kept, 1), "it is there");
    let layer = store.derived_layer(&kept.manifest).unwrap();
    assert!(layer.join("made").exists());
    assert!(!layer.parent().unwrap().join("scrap").exists());
    let usage = store.usage().unwrap();
    assert!(usage.iter().all(|usage| (1 << 20..2 << 20).contains(&usage.unpacked)), "{usage:?}");

    store.untag(&gone.name).unwrap();
    let used = store.derived_layer(&gone.manifest).unwrap();
    assert_eq!(store.prune(|| Ok(vec![used])).unwrap().layers, 0, "a node has it");
    let pruned = store.prune(|| Ok(Vec::new())).unwrap();
    assert!(pruned.layers == 1 && pruned.bytes > 1 << 20, "{pruned:?}");
    assert_eq!(store.derived_layer(&gone.manifest), None);
    assert!(layer.exists());
}

#[test]
fn changes_of_a_derived_layer_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let image = image(&store, "a:1", "a");
    assert!(derive(&store, &image, 10));
    assert_eq!(store.verify(&Silent).unwrap().damage, []);
    // A node has names of its own for the files.
    let layer = store.derived_layer(&image.manifest).unwrap();
    fs_err::hard_link(layer.join("made"), directory.path().join("linked")).unwrap();
    assert_eq!(store.verify(&Silent).unwrap().damage, []);
    fs_err::write(layer.join("made"), "other").unwrap();
    let damage = store.verify(&Silent).unwrap().damage;
    assert_eq!(damage.len(), 1);
    assert!(damage[0].problem.contains(&image.manifest.to_string()), "{damage:?}");
    fs_err::write(layer.parent().unwrap().join("derived.json"), "{").unwrap();
    assert!(store.verify(&Silent).unwrap().damage[0].problem.contains("record"));
}

#[test]
fn one_of_many_derives_and_what_is_left_half_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let image = image(&store, "a:1", "a");
    let id = derived_id(&image.manifest).hex();
    let Derived::Missing(half) = store.derive(&image.manifest).unwrap() else { panic!() };
    assert_eq!(half.id(), id);
    fs_err::create_dir(half.files()).unwrap();
    assert!(store.abandoned_derivation(&id).unwrap().is_none(), "somebody is at it");
    assert_eq!(store.sweep().unwrap(), 0);
    drop(half);
    assert_eq!(store.derived_layer(&image.manifest), None);
    assert!(store.abandoned_derivation(&id).unwrap().is_some());
    let killed = store.root().join("tmp").join(format!("derived-{id}"));
    fs_err::create_dir_all(killed.join("fs/var")).unwrap();

    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| made.fetch_add(usize::from(derive(&store, &image, 100)), Ordering::Relaxed));
        }
    });
    assert_eq!(made.into_inner(), 1);
    let layer = store.derived_layer(&image.manifest).unwrap();
    assert_eq!(fs_err::read_dir(&layer).unwrap().count(), 1, "nothing of the killed one");
    assert_eq!(store.verify(&Silent).unwrap().damage, []);
}
