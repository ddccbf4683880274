//! Layers, and archives that are copied into nodes.

use std::os::fd::AsFd;

use kiln_provision::image::fuzzing::{Limits, unpack_files, unpack_layer};

use crate::{recipe::Recipe, scene::Scene};

/// Limits that inputs of a few kilobytes reach.
const STRICT: Limits = Limits { bytes: 64 << 10, entries: 12, depth: 5 };

/// Unpacks an archive. Its recipe may say `s` for strict limits, and `f` for files in the place of a layer.
///
/// Whatever it holds, nothing outside the root is touched, what was unpacked keeps within the limits and can be removed,
/// and nothing but whole directories is hidden from overlayfs.
///
/// # Panics
/// When one of these does not hold.
pub fn check(data: &[u8]) {
    let recipe = Recipe::follow(data);
    let files = recipe.says(b'f');
    let limits = if recipe.says(b's') && !files { STRICT } else { Limits::DEFAULT };
    let kind = match (recipe.says(b'g'), recipe.says(b'z')) {
        (true, _) => "tar+gzip",
        (_, true) => "tar+zstd",
        _ => "tar",
    };
    let media_type = format!("application/vnd.oci.image.layer.v1.{kind}");
    let (outcome, tree) = Scene::watch(|root| {
        let root = fs_err::File::open(root).expect("the root can be opened");
        if files {
            unpack_files(&recipe.archive, root.as_fd())
        } else {
            unpack_layer(&recipe.archive, &media_type, root.as_fd(), limits)
        }
    });
    if let Err(error) = &outcome {
        assert!(!error.to_string().is_empty());
    }
    assert!(tree.bytes <= limits.bytes && tree.names <= limits.entries, "{tree:?} with {outcome:?}");
    // One more is there when it is found to be too many.
    assert!(tree.depth <= limits.depth + u32::from(outcome.is_err()), "{tree:?} with {outcome:?}");
    let hides = |name: &String| name == "trusted.overlay.opaque" && !files;
    assert!(tree.overlay.iter().all(hides), "{tree:?} with {outcome:?}");
}
