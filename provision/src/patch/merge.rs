//! Merge patches, RFC 7386.

use serde_json::{Map, Value};

/// Merges `patch` into `target`: mappings key by key, null removes, anything else replaces.
///
/// Beyond the RFC, nulls are also removed from mappings inside a list that is new to the target, as in kind.
pub(super) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, mut value) in patch {
        match (target.get_mut(&key), value) {
            (_, Value::Null) => {
                target.remove(&key);
            }
            (Some(Value::Object(current)), Value::Object(changes)) => merge(current, changes),
            (Some(current @ Value::Object(_)), replacement) => *current = replacement,
            (_, new) => {
                value = new;
                prune(&mut value);
                target.insert(key, value);
            }
        }
    }
}

/// Removes nulls from mappings at any depth; list items stay.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cases_of_the_rfc_and_kinds_own() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({}), json!({"a": [{"b": null}, null]}), json!({"a": [{}, null]})),
            (json!({"a": {}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]})),
            (json!({"a": null}), json!({"a": {"b": 1, "c": null}}), json!({"a": {"b": 1}})),
        ] {
            let (Value::Object(mut merged), Value::Object(changes)) = (target.clone(), patch.clone()) else {
                panic!("not mappings");
            };
            merge(&mut merged, changes);
            assert_eq!(Value::Object(merged), expected, "{target} with {patch}");
        }
    }
}
