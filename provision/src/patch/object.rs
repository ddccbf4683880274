//! Patches for Kubernetes objects, found by kind and `apiVersion`.

use serde_json::{Map, Value};

use super::{Invalid, kubeadm, merge, operation, yaml};
use crate::{Result, config::JsonPatch};

/// What a patch is for, and what an object is.
#[derive(Debug)]
struct TypeMeta {
    kind: String,
    api_version: String,
}

/// A merge patch and what it is for.
#[derive(Debug)]
struct MergePatch {
    target: TypeMeta,
    changes: Map<String, Value>,
}

/// Applies merge patches, then operations, to the objects they are for, each in the order given. A patch that
/// is for none of the objects does nothing. `place` names where the patches stand, for errors.
///
/// # Errors
/// [`crate::Error::Patch`] when a patch cannot be parsed, or an operation does not apply to its object.
pub fn patch_objects(
    objects: &mut [Value],
    patches: &[String],
    operations: &[JsonPatch],
    place: &str,
) -> Result<()> {
    let mut merges = Vec::new();
    for (index, text) in patches.iter().enumerate() {
        let name = || format!("{place}kubeadmConfigPatches[{index}]");
        merges.extend(parse(text).map_err(|error| error.in_patch(name()))?);
    }
    for object in objects {
        let Ok(meta) = TypeMeta::of(object) else { continue };
        for patch in merges.iter().filter(|patch| patch.target.matches(&meta)) {
            if let Value::Object(target) = object {
                let mut changes = patch.changes.clone();
                kubeadm::merge_special(target, &mut changes, &meta.api_version, &patch.target.api_version);
                merge::merge(target, changes);
            }
        }
        for (index, patch) in operations.iter().enumerate() {
            let name = || format!("{place}kubeadmConfigPatchesJSON6902[{index}]");
            if TypeMeta::of_operations(patch).matches(&meta) {
                operation::parse(&patch.patch)
                    .and_then(|operations| operation::apply(object, &operations))
                    .map_err(|error| error.in_patch(format!("{} of {}", name(), meta.kind)))?;
            }
        }
    }
    Ok(())
}

/// Checks that a text holds merge patches.
///
/// # Errors
/// When it is not YAML, not a mapping, or its kind or version is not text.
pub fn check(text: &str) -> Result<(), Invalid> {
    parse(text).map(drop)
}

/// Reads merge patches; one text may hold several documents.
fn parse(text: &str) -> Result<Vec<MergePatch>, Invalid> {
    let mut patches = Vec::new();
    for document in yaml::split(text) {
        let value = yaml::parse(document)?;
        let target = TypeMeta::of(&value)?;
        match value {
            Value::Null => {}
            Value::Object(changes) => patches.push(MergePatch { target, changes }),
            _ => return Err(Invalid::new("a merge patch must be a mapping with a kind")),
        }
    }
    Ok(patches)
}

impl TypeMeta {
    fn of(object: &Value) -> Result<Self, Invalid> {
        let map = match object {
            Value::Object(map) => Some(map),
            Value::Null => None,
            _ => return Err(Invalid::new("a merge patch must be a mapping with a kind")),
        };
        // Kubernetes' decoder takes field names in any case, though it prefers the right one.
        let find = |field: &str| {
            let map = map?;
            map.get(field).or_else(|| {
                map.iter().find(|(key, _)| key.eq_ignore_ascii_case(field)).map(|(_, value)| value)
            })
        };
        let text = |field: &str| match find(field) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => Ok(value.to_string()),
            Some(_) => Err(Invalid::new(format!("`{field}` must be text"))),
        };
        Ok(Self { kind: text("kind")?, api_version: text("apiVersion")? })
    }

    fn of_operations(patch: &JsonPatch) -> Self {
        let JsonPatch { group, version, kind, .. } = patch;
        let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        Self { kind: kind.clone(), api_version }
    }

    /// Whether a patch for this is for that object. Without a version it is for any: the same patch serves
    /// the versions of kubeadm's configuration that different Kubernetes versions read.
    fn matches(&self, object: &Self) -> bool {
        self.kind == object.kind && (self.api_version.is_empty() || self.api_version == object.api_version)
    }
}
