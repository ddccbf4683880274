//! Names of images.

use kiln_provision::image::{Digest, Reference};

/// Reads the name of an image, and a digest.
///
/// What is accepted can be written in full and as people write it, and is the same when it is read again.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(digest) = Digest::try_new(&text) {
        assert_eq!(digest.to_string(), text);
    }
    let reference = match Reference::try_new(&text) {
        Ok(reference) => reference,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for form in [reference.to_string(), reference.familiar()] {
        let again = Reference::try_new(&form);
        assert!(
            again.as_ref().is_ok_and(|again| *again == reference),
            "{form:?} of {reference:?}: {again:?}"
        );
        assert!(form.bytes().all(|byte| byte.is_ascii_graphic()), "{form:?}");
    }
    assert!(reference.tag().is_some() || reference.digest().is_some(), "{reference:?}");
    let parts = reference.path().split('/').collect::<Vec<_>>();
    assert!(!parts.iter().any(|part| matches!(*part, "" | "." | "..")), "{reference:?}");
    assert!(!reference.domain().is_empty() && !reference.domain().contains('/'), "{reference:?}");
    let kept = serde_json::to_string(&reference).expect("a name can be kept");
    let back = serde_json::from_str::<Reference>(&kept).expect("what was kept can be read");
    assert_eq!(back, reference);
}
