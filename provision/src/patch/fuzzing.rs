//! What the targets in `fuzz/` need besides the public interface. It is there with the feature `fuzzing` only.

use super::{emit, patch_objects, yaml};
use crate::{Result, config::JsonPatch};

/// Reads the objects of a YAML stream, patches them and writes them again.
///
/// # Errors
/// The stream is no YAML, or a patch is none or does not apply.
pub fn patch_stream(stream: &str, patches: &[String], operations: &[JsonPatch]) -> Result<String> {
    let objects =
        yaml::split(stream).into_iter().map(yaml::parse).collect::<std::result::Result<Vec<_>, _>>();
    let mut objects = objects.map_err(|error| error.in_patch("the stream"))?;
    patch_objects(&mut objects, patches, operations, "")?;
    Ok(emit(&objects))
}
