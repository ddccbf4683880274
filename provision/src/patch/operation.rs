//! Operations, RFC 6902.
//!
//! Written out rather than taken from a crate, because the configurations that exist were written against the
//! implementation kind uses, which differs from the RFC: a negative index counts from the end of a list,
//! testing what is absent against null succeeds, and adding to the whole document (path "") is refused.

use serde_json::{Map, Value};

use super::{Invalid, yaml};

/// One operation, unchecked: an operation that is never applied may say anything.
pub(super) type Operation = Map<String, Value>;

/// Reads operations as YAML or JSON; a text without any is empty.
pub(super) fn parse(text: &str) -> Result<Vec<Operation>, Invalid> {
    let not_a_list = || Invalid::new("operations must be a list of mappings with `op` and `path`");
    match yaml::parse(text)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .into_iter()
            .map(|item| if let Value::Object(operation) = item { Ok(operation) } else { Err(not_a_list()) })
            .collect(),
        _ => Err(not_a_list()),
    }
}

/// Applies operations in their order.
pub(super) fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), Invalid> {
    operations.iter().try_for_each(|operation| apply_one(document, operation))
}

fn apply_one(document: &mut Value, operation: &Operation) -> Result<(), Invalid> {
    let kind = operation.get("op").and_then(Value::as_str).unwrap_or("without a name");
    let path = text(operation, "path", kind)?;
    let value = || operation.get("value").cloned().unwrap_or_default();
    let from = || text(operation, "from", kind);
    match kind {
        "add" => add(document, path, value()),
        "remove" => remove(document, path).map(drop),
        "replace" if path.is_empty() => match value() {
            whole @ (Value::Object(_) | Value::Array(_)) => {
                *document = whole;
                Ok(())
            }
            _ => Err(Invalid::new("replace: a whole document can only be a mapping or a list")),
        },
        "replace" => {
            let target = find(document, path).ok_or_else(|| missing("replace", path))?;
            *target = value();
            Ok(())
        }
        "move" => {
            let moved = remove(document, from()?)?;
            add(document, path, moved)
        }
        "copy" => {
            let copied = find(document, from()?).ok_or_else(|| missing("copy", path))?.clone();
            add(document, path, copied)
        }
        "test" => test(document, path, &value()),
        _ => Err(Invalid::new(format!("there is no operation {kind}"))),
    }
}

fn text<'a>(operation: &'a Operation, field: &str, kind: &str) -> Result<&'a str, Invalid> {
    operation
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| Invalid::new(format!("{kind}: there is no `{field}`")))
}

fn missing(kind: &str, path: &str) -> Invalid {
    Invalid::new(format!("{kind}: there is nothing at `{path}`"))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Invalid> {
    let (parent, key) = parent(document, path).ok_or_else(|| missing("add", path))?;
    match parent {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(items) => {
            // One more place than there are items, and -1 is the last of them.
            let position = if key == "-" { Some(items.len()) } else { position(&key, items.len() + 1) };
            let position =
                position.ok_or_else(|| Invalid::new(format!("add: the list has no place for `{path}`")))?;
            items.insert(position, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Invalid> {
    let (parent, key) = parent(document, path).ok_or_else(|| missing("remove", path))?;
    let removed = match parent {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => position(&key, items.len()).map(|index| items.remove(index)),
        _ => None,
    };
    removed.ok_or_else(|| missing("remove", path))
}

fn test(document: &mut Value, path: &str, expected: &Value) -> Result<(), Invalid> {
    let found = if path.is_empty() {
        Some(&*document)
    } else {
        let (parent, key) = parent(document, path).ok_or_else(|| missing("test", path))?;
        match parent {
            Value::Object(map) => map.get(&key),
            Value::Array(items) => {
                let index = position(&key, items.len()).ok_or_else(|| missing("test", path))?;
                items.get(index)
            }
            _ => None,
        }
    };
    if found.unwrap_or(&Value::Null) == expected {
        return Ok(());
    }
    Err(Invalid::new(format!("test: what is at `{path}` is not {expected}")))
}

fn find<'a>(document: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let (parent, key) = parent(document, path)?;
    child(parent, &key)
}

/// What holds the place a path names, and the last word of the path.
fn parent<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut words = path.split('/').skip(1).map(unescape);
    let mut last = words.next()?;
    let mut value = document;
    for word in words {
        value = child(value, &last)?;
        last = word;
    }
    matches!(value, Value::Object(_) | Value::Array(_)).then_some((value, last))
}

fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let index = position(key, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// A list index below `length`; a negative one counts from the end.
fn position(key: &str, length: usize) -> Option<usize> {
    let index: i64 = key.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index + length } else { index };
    (0..length).contains(&index).then(|| usize::try_from(index).ok()).flatten()
}

/// Undoes the escapes of JSON pointers, `~1` for a slash and `~0` for a tilde.
fn unescape(word: &str) -> String {
    // In this order: `~01` is an escaped tilde before a one.
    word.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(document: &Value, patch: &str) -> Result<Value, String> {
        let mut document = document.clone();
        let operations = parse(patch).map_err(|error| error.to_string())?;
        apply(&mut document, &operations).map_err(|error| error.to_string())?;
        Ok(document)
    }

    #[test]
    fn operations_do_what_they_say() {
        let document = json!({"a": {"b/c": 1, "~": 2}, "list": [1, 2, 3]});
        for (patch, expected) in [
            (
                "- {op: add, path: /x, value: [yes]}",
                json!({"a": {"b/c": 1, "~": 2}, "list": [1, 2, 3], "x": [true]}),
            ),
            ("- {op: add, path: /list/-, value: 4}", json!({"a": {"b/c": 1, "~": 2}, "list": [1, 2, 3, 4]})),
            ("- {op: add, path: /list/0, value: 0}", json!({"a": {"b/c": 1, "~": 2}, "list": [0, 1, 2, 3]})),
            ("- {op: add, path: /list/-1, value: 4}", json!({"a": {"b/c": 1, "~": 2}, "list": [1, 2, 3, 4]})),
            ("- {op: remove, path: /list/-1}", json!({"a": {"b/c": 1, "~": 2}, "list": [1, 2]})),
            ("- {op: replace, path: /a/b~1c, value: 9}", json!({"a": {"b/c": 9, "~": 2}, "list": [1, 2, 3]})),
            ("- {op: remove, path: /a/~0}", json!({"a": {"b/c": 1}, "list": [1, 2, 3]})),
            ("- {op: move, from: /list, path: /a/list}", json!({"a": {"b/c": 1, "~": 2, "list": [1, 2, 3]}})),
            (
                "- {op: copy, from: /list/0, path: /n}",
                json!({"a": {"b/c": 1, "~": 2}, "list": [1, 2, 3], "n": 1}),
            ),
            (
                "- {op: test, path: /list/1, value: 2}\n- {op: remove, path: /list}",
                json!({"a": {"b/c": 1, "~": 2}}),
            ),
            ("- {op: test, path: /absent, value: null}", document.clone()),
            ("- {op: replace, path: '', value: {k: v}}", json!({"k": "v"})),
            ("", document.clone()),
        ] {
            assert_eq!(patched(&document, patch), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn what_does_not_apply_is_an_error() {
        let document = json!({"a": 1, "list": [1], "nothing": null});
        for (patch, expected) in [
            ("- {op: remove, path: /b}", "remove: there is nothing at `/b`"),
            ("- {op: replace, path: /b, value: 1}", "replace: there is nothing at `/b`"),
            ("- {op: add, path: /b/c, value: 1}", "add: there is nothing at `/b/c`"),
            ("- {op: add, path: /a/c, value: 1}", "add: there is nothing at `/a/c`"),
            ("- {op: add, path: /nothing/c, value: 1}", "add: there is nothing at `/nothing/c`"),
            ("- {op: add, path: '', value: 1}", "add: there is nothing at ``"),
            ("- {op: add, path: /list/2, value: 1}", "add: the list has no place for `/list/2`"),
            ("- {op: add, path: /list/x, value: 1}", "add: the list has no place for `/list/x`"),
            ("- {op: test, path: /a, value: 2}", "test: what is at `/a` is not 2"),
            ("- {op: shuffle, path: /a}", "there is no operation shuffle"),
            ("- {op: add}", "add: there is no `path`"),
            ("- {op: move, path: /a}", "move: there is no `from`"),
            ("op: add", "operations must be a list of mappings with `op` and `path`"),
            ("- add", "operations must be a list of mappings with `op` and `path`"),
        ] {
            assert_eq!(patched(&document, patch), Err(expected.to_owned()), "{patch}");
        }
    }
}
