//! Fields of kubeadm's configuration that merge in a way of their own.
//!
//! In `v1beta4`, extra arguments are a list of names and values, which a plain merge patch would replace as a
//! whole. So they are merged by name here, and a patch that names no version may still write them as the
//! mapping they were before. Names of certificates (`certSANs`) are united whatever the version.

use serde_json::{Map, Value, json};

/// Moves the special fields of `patch` into `target`, at any depth; what is left of `patch` is an ordinary
/// merge patch.
pub(super) fn merge_special(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    target_version: &str,
    patch_version: &str,
) {
    let keys: Vec<String> = patch.keys().cloned().collect();
    for key in keys {
        match key.as_str() {
            "extraArgs" | "kubeletExtraArgs" => {
                if target_version.ends_with("v1beta4")
                    && let Some(changes) = patch.remove(&key)
                {
                    let current = target.remove(&key).unwrap_or_default();
                    target.insert(key, merge_arguments(current, changes, patch_version.is_empty()));
                }
            }
            "certSANs" => {
                if let Some(names) = patch.remove(&key) {
                    let current = target.remove(&key).unwrap_or_default();
                    target.insert(key, unite(current, names));
                }
            }
            _ => {
                if let Some(Value::Object(changes)) = patch.get_mut(&key)
                    && let Value::Object(current) = target.entry(key).or_insert_with(|| json!({}))
                {
                    merge_special(current, changes, target_version, patch_version);
                }
            }
        }
    }
}

/// Merges named arguments: the first of a name takes the new value, null removes it, new names come last.
fn merge_arguments(current: Value, changes: Value, takes_mapping: bool) -> Value {
    let mut arguments = as_arguments(current);
    let changes = match changes {
        // A mapping says which version it was written for by not being a list; with a version it would be a
        // lie.
        Value::Object(_) if !takes_mapping => Vec::new(),
        changes => as_arguments(changes),
    };
    for change in changes {
        let Some(name) = name_of(&change) else { continue };
        let value = change.get("value").cloned().unwrap_or_default();
        let found = arguments.iter().position(|argument| name_of(argument) == Some(name));
        match (found, value) {
            (Some(index), Value::Null) => {
                arguments.remove(index);
            }
            (Some(index), value) => arguments[index]["value"] = value,
            (None, Value::Null) => {}
            (None, value) => arguments.push(json!({"name": name, "value": value})),
        }
    }
    Value::Array(arguments)
}

/// Arguments as a list of names and values, from either way to write them.
fn as_arguments(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::Object(map) => {
            let mut arguments: Vec<_> = map.into_iter().collect();
            arguments.sort_by(|left, right| left.0.cmp(&right.0));
            arguments.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
        }
        _ => Vec::new(),
    }
}

fn name_of(argument: &Value) -> Option<&str> {
    argument.as_object()?.get("name")?.as_str()
}

fn unite(current: Value, names: Value) -> Value {
    let list = |value| if let Value::Array(items) = value { items } else { Vec::new() };
    let mut united = list(current);
    for name in list(names) {
        if !united.contains(&name) {
            united.push(name);
        }
    }
    Value::Array(united)
}
