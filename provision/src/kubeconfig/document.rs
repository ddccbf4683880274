//! A kubeconfig in memory: the few fields Kiln looks at, and everything else as it came.

use serde_json::{Map, Value};

use super::yaml;
use crate::{Error, Result};

/// The lists of named entries.
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];
const CURRENT: &str = "current-context";

/// A kubeconfig. Each of [`LISTS`] is absent, null or a list of mappings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kubeconfig {
    fields: Map<String, Value>,
}

impl Kubeconfig {
    /// Parses `text`, which error messages call `origin`. An empty text is an empty kubeconfig.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self> {
        let options = serde_saphyr::options! {
            // Errors end up in terminals and CI logs, and this text holds private keys.
            with_snippet: false,
            // What other programs read as text or octal is kept as text rather than turned into another number.
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        };
        let value: Option<Value> = serde_saphyr::from_str_with_options(text, options).map_err(|source| {
            Error::KubeconfigSyntax { origin: origin.to_owned(), source: Box::new(source) }
        })?;
        let shape = |what: String| Error::KubeconfigShape { origin: origin.to_owned(), what };
        let fields = match value {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(shape("it is not a mapping".to_owned())),
        };
        for list in LISTS {
            let fine = match fields.get(list) {
                None | Some(Value::Null) => true,
                Some(Value::Array(entries)) => entries.iter().all(Value::is_object),
                Some(_) => false,
            };
            if !fine {
                return Err(shape(format!("{list:?} is not a list of mappings")));
            }
        }
        Ok(Self { fields })
    }

    /// The text, as Kubernetes' tools print it; empty when nothing is left in it.
    pub(super) fn encode(&self) -> String {
        let mut fields = self.fields.clone();
        for list in LISTS {
            if self.entries(list).is_empty() {
                fields.remove(list);
            }
        }
        if matches!(fields.get(CURRENT), Some(Value::Null))
            || fields.get(CURRENT).is_some_and(|name| name == "")
        {
            fields.remove(CURRENT);
        }
        if fields.is_empty() { String::new() } else { yaml::to_string(&Value::Object(fields)) }
    }

    /// Names the only cluster, user and context `key`, and sets the API's URL where one is given.
    pub(super) fn rename(&mut self, key: &str, server: Option<&str>) -> Result<()> {
        self.check_single()?;
        for list in LISTS {
            for entry in self.entries_mut(list) {
                entry.insert("name".to_owned(), key.into());
            }
        }
        for entry in self.entries_mut("contexts") {
            let context = inner(entry, "context");
            context.insert("cluster".to_owned(), key.into());
            context.insert("user".to_owned(), key.into());
        }
        if let Some(server) = server {
            for entry in self.entries_mut("clusters") {
                inner(entry, "cluster").insert("server".to_owned(), server.into());
            }
        }
        self.fields.insert(CURRENT.to_owned(), key.into());
        Ok(())
    }

    /// Adds the only cluster, user and context of `addition`, replacing those of the same names, and makes its current
    /// context this one's.
    pub(super) fn merge(&mut self, addition: &Self) -> Result<()> {
        addition.check_single()?;
        for list in LISTS {
            let entry = &addition.entries(list)[0];
            let entries = self.array_mut(list);
            let mut replaced = false;
            for existing in entries.iter_mut().filter(|existing| existing.get("name") == entry.get("name")) {
                existing.clone_from(entry);
                replaced = true;
            }
            if !replaced {
                entries.push(entry.clone());
            }
        }
        if let Some(current) = addition.fields.get(CURRENT) {
            self.fields.insert(CURRENT.to_owned(), current.clone());
        }
        // `apiVersion` and `kind`, which some readers insist on, for a file that had nothing but entries.
        if other_fields(&self.fields).next().is_none() {
            let others: Vec<_> =
                other_fields(&addition.fields).map(|(name, value)| (name.clone(), value.clone())).collect();
            self.fields.extend(others);
        }
        Ok(())
    }

    /// Removes all entries called `key`, and the current context if it is that; returns whether there were any.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let mut changed = false;
        for list in LISTS {
            if let Some(Value::Array(entries)) = self.fields.get_mut(list) {
                let before = entries.len();
                entries.retain(|entry| entry.get("name").is_none_or(|name| name != key));
                changed |= entries.len() != before;
            }
        }
        if self.fields.get(CURRENT).is_some_and(|current| current == key) {
            self.fields.remove(CURRENT);
            changed = true;
        }
        changed
    }

    fn check_single(&self) -> Result<()> {
        for list in LISTS {
            let count = self.entries(list).len();
            if count != 1 {
                return Err(Error::KubeconfigShape {
                    origin: "the cluster's kubeconfig".to_owned(),
                    what: format!("{list:?} has {count} entries where exactly one is expected"),
                });
            }
        }
        Ok(())
    }

    fn entries(&self, list: &str) -> &[Value] {
        self.fields.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn array_mut(&mut self, list: &str) -> &mut Vec<Value> {
        let value = self.fields.entry(list).or_insert(Value::Null);
        if !value.is_array() {
            *value = Value::Array(Vec::new());
        }
        value.as_array_mut().expect("it was made an array above")
    }

    fn entries_mut(&mut self, list: &str) -> impl Iterator<Item = &mut Map<String, Value>> {
        self.array_mut(list).iter_mut().filter_map(Value::as_object_mut)
    }
}

/// The mapping `name` of an entry; made where it is missing.
fn inner<'a>(entry: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = entry.entry(name).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object above")
}

fn other_fields(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    fields.iter().filter(|(name, _)| !LISTS.contains(&name.as_str()) && name.as_str() != CURRENT)
}
