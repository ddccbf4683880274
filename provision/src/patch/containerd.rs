//! Patches for containerd's configuration, which is TOML.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::{Invalid, merge, operation};
use crate::Result;

/// Applies merge patches (TOML), then operations (JSON or YAML), to a containerd configuration. A merge patch
/// written for another `version` of the configuration is left out.
///
/// # Errors
/// [`crate::Error::Patch`] when the configuration has no version, a patch cannot be parsed, or an operation
/// does not apply.
pub fn patch(base: &str, patches: &[String], operations: &[String]) -> Result<String> {
    let in_base = |error: Invalid| error.in_patch("the base containerd configuration");
    let mut config = parse(base).map_err(in_base)?;
    let version = version(&config).map_err(in_base)?;
    if version == 0 {
        return Err(in_base(Invalid::new("it has no version")));
    }
    for (index, text) in patches.iter().enumerate() {
        let changes =
            parse_patch(text).map_err(|error| error.in_patch(format!("containerdConfigPatches[{index}]")))?;
        if changes.version == 0 || changes.version == version {
            merge::merge(&mut config, changes.table);
        }
    }
    let mut config = Value::Object(config);
    for (index, text) in operations.iter().enumerate() {
        operation::parse(text)
            .and_then(|operations| operation::apply(&mut config, &operations))
            .map_err(|error| error.in_patch(format!("containerdConfigPatchesJSON6902[{index}]")))?;
    }
    if holds_null_item(&config) {
        return Err(in_base(Invalid::new("the patches put null into a list, which TOML cannot")));
    }
    match config {
        Value::Object(config) => Ok(emit(&config)),
        _ => Err(in_base(Invalid::new("the patches leave no table of it"))),
    }
}

/// Whether any list holds null. A null key is simply left out, but a list would change its meaning.
fn holds_null_item(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| item.is_null() || holds_null_item(item)),
        Value::Object(map) => map.values().any(holds_null_item),
        _ => false,
    }
}

/// Checks that a text is TOML with a whole number as version, if any.
///
/// # Errors
/// When it is not.
pub fn check(text: &str) -> Result<(), Invalid> {
    parse_patch(text).map(drop)
}

struct TomlPatch {
    table: Map<String, Value>,
    version: i64,
}

fn parse_patch(text: &str) -> Result<TomlPatch, Invalid> {
    let table = parse(text)?;
    let version = version(&table)?;
    Ok(TomlPatch { table, version })
}

fn parse(text: &str) -> Result<Map<String, Value>, Invalid> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let place = error.span().map_or_else(String::new, |span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |index| index + 1);
            let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
            format!("line {line}, column {column}: ")
        });
        Invalid::new(format!("{place}{}", error.message()))
    })?;
    table.into_iter().map(|(key, value)| Ok((key, to_json(value)?))).collect()
}

fn to_json(value: toml::Value) -> Result<Value, Invalid> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::Number(number.into()),
        toml::Value::Float(number) => {
            let number = Number::from_f64(number);
            Value::Number(number.ok_or_else(|| Invalid::new("infinity and nan cannot be patched"))?)
        }
        toml::Value::Boolean(value) => Value::Bool(value),
        // Containerd has no date in its configuration.
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => items.into_iter().map(to_json).collect::<Result<_, _>>()?,
        toml::Value::Table(table) => {
            let map = table.into_iter().map(|(key, value)| Ok((key, to_json(value)?)));
            Value::Object(map.collect::<Result<_, Invalid>>()?)
        }
    })
}

/// The configuration's version, 0 when it names none.
fn version(config: &Map<String, Value>) -> Result<i64, Invalid> {
    match config.get("version") {
        None => Ok(0),
        Some(version) => version.as_i64().ok_or_else(|| Invalid::new("`version` must be a whole number")),
    }
}

/// Writes TOML with sorted keys, values before tables, and tables indented by their depth.
fn emit(config: &Map<String, Value>) -> String {
    let mut text = String::new();
    emit_table(&mut text, config, &mut Vec::new());
    text
}

fn emit_table(text: &mut String, table: &Map<String, Value>, path: &mut Vec<String>) {
    // TOML knows no null: such a key is left out.
    let mut entries: Vec<_> = table.iter().filter(|(_, value)| !value.is_null()).collect();
    entries.sort_by_key(|(key, value)| (is_table(value), key.as_str()));
    for (key, value) in entries {
        let indent = "  ".repeat(path.len());
        match value {
            Value::Object(inner) => {
                emit_header(text, &indent, path, key, ("[", "]"));
                emit_table(text, inner, path);
                path.pop();
            }
            Value::Array(items) if is_table(value) => {
                for item in items.iter().filter_map(Value::as_object) {
                    emit_header(text, &indent, path, key, ("[[", "]]"));
                    emit_table(text, item, path);
                    path.pop();
                }
            }
            _ => {
                text.push_str(&indent);
                emit_key(text, key);
                text.push_str(" = ");
                emit_value(text, value);
                text.push('\n');
            }
        }
    }
}

/// Whether a value has a header of its own: tables, and lists of nothing but tables.
fn is_table(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_object),
        _ => false,
    }
}

/// Writes a table's header and enters it.
fn emit_header(text: &mut String, indent: &str, path: &mut Vec<String>, key: &str, brackets: (&str, &str)) {
    path.push(key.to_owned());
    if path.len() == 1 && !text.is_empty() {
        text.push('\n');
    }
    text.push_str(indent);
    text.push_str(brackets.0);
    for (index, key) in path.iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        emit_key(text, key);
    }
    text.push_str(brackets.1);
    text.push('\n');
}

fn emit_key(text: &mut String, key: &str) {
    let bare = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare { text.push_str(key) } else { emit_string(text, key) }
}

fn emit_value(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => emit_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                emit_value(text, item);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, value)| !value.is_null()).collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                emit_key(text, key);
                text.push_str(" = ");
                emit_value(text, value);
            }
            text.push('}');
        }
        // Booleans and numbers are TOML as they are JSON.
        _ => write!(text, "{value}").expect("writing to a string does not fail"),
    }
}

fn emit_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            _ if character.is_control() => {
                write!(text, "\\u{:04x}", u32::from(character)).expect("writing to a string does not fail");
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}
