//! The format as data: its JSON Schema for editors, and examples to begin with.
//!
//! The schema is narrower than the decoder in two ways, because editors propose what it lists: `protocol` is in upper or
//! lower case, not a mixture, and numbers have no fraction. Rules between fields (subnets that fit the family, ports
//! that are taken twice) are the decoder's alone.

/// The JSON Schema (draft 2020-12) of a configuration.
pub const SCHEMA: &str = include_str!("data/schema.json");

/// A configuration to begin with.
pub const EXAMPLE: &str = include_str!("data/example.yaml");

/// A configuration with every field and its default in comments.
pub const FULL_EXAMPLE: &str = include_str!("data/full.yaml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::config::{Cluster, decode, load};

    /// Configurations that say every kind of thing, and whether they fit. kind was asked about each.
    const CASES: [(&str, bool); 16] = [
        (include_str!("data/tests/ha.yaml"), true),
        (include_str!("data/tests/dual.yaml"), true),
        (include_str!("data/tests/patches.yaml"), true),
        (include_str!("data/tests/gates.yaml"), true),
        (include_str!("data/tests/ports.yaml"), true),
        (include_str!("data/tests/null.yaml"), true),
        ("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha3\n", false),
        ("kind: Cluster\n", false),
        ("name: Bad_Name\n", false),
        ("nodes: [{role: foo}]\n", false),
        ("nodes: [{cpu: 1}]\n", false),
        ("nodes: [{extraPortMappings: [{containerPort: 80, hostPort: 70000}]}]\n", false),
        ("nodes: [{extraPortMappings: [{containerPort: 80, protocol: icmp}]}]\n", false),
        ("nodes: {role: worker}\n", false),
        ("networking: {podSubnet: aa}\n", false),
        ("networking: {ipFamily: ipv5}\n", false),
    ];

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// What does not fit, by the few keywords that the schema is made of.
    fn misfits(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let Value::Object(keywords) = schema else { panic!("{at}: {schema}") };
        for (keyword, argument) in keywords {
            let fits = match keyword.as_str() {
                "$ref" => {
                    let pointer = argument.as_str().unwrap().strip_prefix('#').unwrap();
                    misfits(root, root.pointer(pointer).expect(pointer), value, at, found);
                    true
                }
                "type" => match argument {
                    Value::Array(types) => types.iter().any(|name| is_a(name, value)),
                    name => is_a(name, value),
                },
                "const" => value == argument,
                "enum" => argument.as_array().unwrap().contains(value),
                "minimum" => value.as_i64().is_none_or(|number| number >= argument.as_i64().unwrap()),
                "maximum" => value.as_i64().is_none_or(|number| number <= argument.as_i64().unwrap()),
                "pattern" => {
                    let pattern = regex::Regex::new(argument.as_str().unwrap()).unwrap();
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                "required" => argument
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|name| value.get(name.as_str().unwrap()).is_some()),
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if let Some(schema) = argument.get(name) {
                            misfits(root, schema, value, &format!("{at}/{name}"), found);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = keywords.get("properties");
                    let other = value.as_object().into_iter().flatten();
                    let mut other =
                        other.filter(|(name, _)| known.is_none_or(|known| known.get(name).is_none()));
                    match argument {
                        Value::Bool(false) => other.next().is_none(),
                        schema => {
                            for (name, value) in other {
                                misfits(root, schema, value, &format!("{at}/{name}"), found);
                            }
                            true
                        }
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        misfits(root, argument, item, &format!("{at}/{index}"), found);
                    }
                    true
                }
                "$schema" | "$id" | "$defs" | "title" | "description" | "default" | "examples" => true,
                other => panic!("{at}: unknown keyword {other}"),
            };
            if !fits {
                found.push(format!("{at}: {keyword} {argument}"));
            }
        }
    }

    fn is_a(name: &Value, value: &Value) -> bool {
        match name.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("unknown type {other}"),
        }
    }

    fn check(text: &str) -> Vec<String> {
        let (schema, mut found) = (schema(), Vec::new());
        misfits(&schema, &schema, &serde_saphyr::from_str(text).unwrap(), "", &mut found);
        found
    }

    /// The text with a `kind` and an `apiVersion`, where it has none of them.
    fn whole(text: &str) -> String {
        match text.contains("kind:") {
            true => text.to_owned(),
            false => format!("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n{text}"),
        }
    }

    /// An example with the lines in comments that are not remarks.
    fn uncommented(text: &str) -> String {
        let line = |line: &str| match line.split_once('#') {
            Some((indent, rest)) if indent.trim().is_empty() && !is_remark(rest) => {
                format!("{indent}{rest}\n")
            }
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    }

    fn is_remark(comment: &str) -> bool {
        comment.strip_prefix(' ').is_some_and(|rest| !rest.starts_with(' '))
    }

    #[test]
    fn schema_and_decoder_agree() {
        for (text, fits) in CASES {
            let text = whole(text);
            let (found, loaded) = (check(&text), load(&text, "test"));
            assert_eq!(found.is_empty(), fits, "{text}\n{found:?}");
            assert_eq!(loaded.is_ok(), fits, "{text}\n{loaded:?}");
        }
    }

    #[test]
    fn the_schema_has_the_fields_of_the_decoder() {
        let schema = schema();
        for (pointer, fields) in [
            ("", decode::CLUSTER_FIELDS),
            ("/$defs/node", decode::NODE_FIELDS),
            ("/$defs/networking", decode::NETWORKING_FIELDS),
            ("/$defs/mount", decode::MOUNT_FIELDS),
            ("/$defs/portMapping", decode::PORT_FIELDS),
            ("/$defs/jsonPatch", decode::PATCH_FIELDS),
        ] {
            let object = schema.pointer(pointer).unwrap();
            let described: BTreeSet<&str> =
                object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(described, fields.iter().copied().collect(), "{pointer}");
            assert_eq!(object["additionalProperties"], false, "{pointer}");
        }
    }

    #[test]
    fn examples_fit_with_and_without_their_comments() {
        for example in [EXAMPLE, FULL_EXAMPLE] {
            for text in [example.to_owned(), uncommented(example)] {
                assert_eq!(check(&text), [""; 0], "{text}");
                load(&text, "the example").unwrap();
            }
        }
        assert_eq!(load(EXAMPLE, "the example").unwrap().nodes.len(), 2);
    }

    #[test]
    fn the_full_example_shows_every_field_and_the_defaults() {
        // As it stands it asks for nothing.
        assert_eq!(load(FULL_EXAMPLE, "the example").unwrap(), Cluster::single_node("kind"));
        let text = uncommented(FULL_EXAMPLE);
        for field in [
            decode::CLUSTER_FIELDS,
            decode::NODE_FIELDS,
            decode::NETWORKING_FIELDS,
            decode::MOUNT_FIELDS,
            decode::PORT_FIELDS,
            decode::PATCH_FIELDS,
        ]
        .concat()
        {
            assert!(text.contains(&format!("{field}: ")) || text.contains(&format!("{field}:\n")), "{field}");
        }
        let shown = load(&text, "the example").unwrap().networking;
        let default = Cluster::single_node("kind").networking;
        assert_eq!(shown.dns_search.as_deref(), Some([String::from("example.test")].as_slice()));
        assert_eq!(crate::config::Networking { dns_search: None, ..shown }, default);
    }
}
