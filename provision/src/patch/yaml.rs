//! YAML to JSON values and back.
//!
//! Values are read as Kubernetes reads YAML: booleans of YAML 1.1, keys turned into text, the last of
//! repeated keys winning. They are written with sorted keys, so that the same values always make the same
//! text.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::Invalid;
use crate::config::{
    document::{self, Content, Node, Style},
    scalar::{Dialect, Scalar, resolve},
};

/// The most values one document may hold once its aliases are expanded.
const MAX_VALUES: usize = 1_000_000;

/// Reads the first document of a text; null when there is none.
pub(super) fn parse(text: &str) -> Result<Value, Invalid> {
    let root = document::parse(text).map_err(|error| {
        Invalid::new(format!("line {}, column {}: {}", error.at.line, error.at.column, error.message))
    })?;
    let mut budget = MAX_VALUES;
    root.map_or(Ok(Value::Null), |root| to_value(&root, &mut budget))
}

/// Splits a stream into documents. The separator is a line that *begins* with three dashes, whatever follows
/// on it.
pub(super) fn split(stream: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let mut rest = stream;
    while let Some(end) = rest.find("\n---") {
        documents.push(&rest[..end]);
        rest = rest[end + 1..].split_once('\n').map_or("", |(_, rest)| rest);
    }
    if !rest.is_empty() {
        documents.push(rest);
    }
    documents
}

fn to_value(node: &Node, budget: &mut usize) -> Result<Value, Invalid> {
    *budget =
        budget.checked_sub(1).ok_or_else(|| Invalid::new("aliases blow the document up beyond any use"))?;
    match &node.content {
        Content::Scalar { text, style } => scalar_value(text, *style),
        Content::Sequence(items) => items.iter().map(|item| to_value(item, budget)).collect(),
        Content::Mapping(_) => {
            let mut map = Map::new();
            fill(&mut map, node, budget)?;
            Ok(Value::Object(map))
        }
    }
}

/// Adds a mapping's entries in their order, so that what is merged gives way to the keys after it.
fn fill(map: &mut Map<String, Value>, node: &Node, budget: &mut usize) -> Result<(), Invalid> {
    let Content::Mapping(entries) = &node.content else {
        return Err(Invalid::new(format!(
            "line {}: `<<` takes a mapping or a list of mappings",
            node.at.line
        )));
    };
    for (key, value) in entries {
        if !key.is_merge_key() {
            map.insert(key_text(key)?, to_value(value, budget)?);
            continue;
        }
        *budget = budget.saturating_sub(1);
        match &value.content {
            // The first of several has the last word.
            Content::Sequence(items) => items.iter().rev().try_for_each(|item| fill(map, item, budget))?,
            _ => fill(map, value, budget)?,
        }
    }
    Ok(())
}

fn key_text(key: &Node) -> Result<String, Invalid> {
    let unusable = || Invalid::new(format!("line {}: this key is not text", key.at.line));
    let Content::Scalar { text, style } = &key.content else { return Err(unusable()) };
    match scalar_value(text, *style)? {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(unusable()),
    }
}

fn scalar_value(text: &str, style: Style) -> Result<Value, Invalid> {
    if style == Style::Text {
        return Ok(Value::String(text.to_owned()));
    }
    let value = match resolve(text, Dialect::Yaml11) {
        Scalar::Null => Some(Value::Null),
        Scalar::Bool(value) => Some(Value::Bool(value)),
        Scalar::Integer(value) => integer(value),
        Scalar::Float(value) => float(value),
        Scalar::Text => Some(Value::String(text.to_owned())),
    };
    value.ok_or_else(|| Invalid::new(format!("`{text}` is not a number that JSON knows")))
}

fn integer(value: i128) -> Option<Value> {
    i64::try_from(value)
        .map(Number::from)
        .or_else(|_| u64::try_from(value).map(Number::from))
        .ok()
        .map(Value::Number)
}

/// A float without a fraction becomes an integer: the programs that read the result have integer fields.
fn float(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() < 9e18 {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// Writes documents as a YAML stream.
#[must_use]
pub fn emit<'a>(documents: impl IntoIterator<Item = &'a Value>) -> String {
    let mut text = String::new();
    for document in documents {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        match document {
            Value::Object(map) if !map.is_empty() => emit_mapping(&mut text, map, 0),
            Value::Array(items) if !items.is_empty() => emit_sequence(&mut text, items, 0),
            _ => {
                emit_inline(&mut text, document);
                text.push('\n');
            }
        }
    }
    text
}

/// Writes a mapping whose first line is already indented.
fn emit_mapping(text: &mut String, map: &Map<String, Value>, indent: usize) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_str());
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            pad(text, indent);
        }
        emit_string(text, key);
        text.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push('\n');
                pad(text, indent + 2);
                emit_mapping(text, map, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                pad(text, indent);
                emit_sequence(text, items, indent);
            }
            _ => {
                text.push(' ');
                emit_inline(text, value);
                text.push('\n');
            }
        }
    }
}

/// Writes a sequence whose first line is already indented.
fn emit_sequence(text: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            pad(text, indent);
        }
        text.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => emit_mapping(text, map, indent + 2),
            Value::Array(items) if !items.is_empty() => emit_sequence(text, items, indent + 2),
            _ => {
                emit_inline(text, item);
                text.push('\n');
            }
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn emit_inline(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => emit_string(text, string),
        // Null, booleans, numbers and what is empty are YAML as they are JSON.
        _ => write!(text, "{value}").expect("writing to a string does not fail"),
    }
}

/// Writes text without quotes where every reader takes it for text.
fn emit_string(text: &mut String, string: &str) {
    if is_plain(string) { text.push_str(string) } else { emit_quoted(text, string) }
}

fn is_plain(string: &str) -> bool {
    let Some(first) = string.bytes().next() else { return false };
    let harmless = string.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./:%@+=,-".contains(&byte));
    // Digits with dashes or colons may be a date or a base-60 number to some.
    let starts = first.is_ascii_alphabetic()
        || first == b'/'
        || (first.is_ascii_digit() && !string.contains([':', '-']));
    harmless && starts && !string.ends_with(':') && resolve(string, Dialect::Yaml11) == Scalar::Text
}

/// Writes text in double quotes. JSON's escapes are YAML's too, but YAML wants more characters escaped.
fn emit_quoted(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(text, "\\u{:04x}", u32::from(character)).expect("writing to a string does not fail");
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}
