//! Reads typed values out of a document and collects what does not fit.
//!
//! The rules are those of the decoder that the `v1alpha4` format was made with: null means unset and a null
//! list item is dropped, any scalar is text where text is wanted, unknown fields and repeated keys are
//! errors, and merge keys fill in what the mapping itself does not say.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use super::{
    document::{Content, Node, Position, Style},
    problem::{Problem, nearest},
    scalar::{Dialect, Scalar, boolean_word, resolve},
};
use crate::text::shorten;

/// The most values read from one document. Aliases cost nothing to write, so the text's size bounds nothing.
const MAX_VALUES: usize = 4_000_000;

/// The most problems reported of one document: nobody reads more, and a broken file may have millions.
const MAX_PROBLEMS: usize = 20;

/// The most characters of a message, which may quote a value of any length.
const MAX_MESSAGE: usize = 300;

/// A mapping's entries, merges applied.
type Entries = Vec<(String, Rc<Node>, Rc<Node>)>;

/// Collects problems while reading.
#[derive(Debug, Default)]
pub(super) struct Reader {
    problems: Vec<Problem>,
    values: usize,
}

impl Reader {
    /// What was found to be wrong.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Notes a problem.
    pub(super) fn problem(&mut self, at: Position, message: impl Into<String>) {
        self.push(Problem { at: Some(at), message: message.into(), hint: None });
    }

    /// Whether aliases have used up all that may be read: what is missing may only not have been looked at.
    pub(super) fn is_exhausted(&self) -> bool {
        self.values >= MAX_VALUES
    }

    /// Notes that a word is none of those possible.
    pub(super) fn unknown_word(&mut self, at: Position, message: String, word: &str, possible: &[&str]) {
        // Finding the nearest word takes its time, and a file may have a million of them.
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let hint = match nearest(word, possible) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("possible: {}", possible.join(", ")),
        };
        self.push(Problem { at: Some(at), message, hint: Some(hint) });
    }

    /// Reads text; `None` when unset.
    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.content {
            _ if !self.admit(node) || node.is_null() => None,
            Content::Scalar { text, .. } => Some(text.clone()),
            _ => {
                self.problem(node.at, format!("{what} must be text, not {}", node.describe()));
                None
            }
        }
    }

    /// Reads a boolean; `None` when unset.
    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if !self.admit(node) || node.is_null() {
            return None;
        }
        let value = match &node.content {
            Content::Scalar { text, style } => match (style, resolve(text, Dialect::Core)) {
                (Style::Plain, Scalar::Bool(value)) => Some(value),
                (Style::Plain, Scalar::Text) | (Style::Text, _) => boolean_word(text),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            self.problem(node.at, format!("{what} must be true or false, not {}", shown(node)));
        }
        value
    }

    /// Reads a whole number; `None` when unset.
    pub(super) fn integer(&mut self, node: &Node, what: &str) -> Option<i32> {
        if !self.admit(node) || node.is_null() {
            return None;
        }
        let value = match &node.content {
            Content::Scalar { text, style: Style::Plain } => match resolve(text, Dialect::Core) {
                Scalar::Integer(value) => i32::try_from(value).ok(),
                // The fraction of a number is cut off.
                Scalar::Float(value) if value.abs() < f64::from(i32::MAX) => Some(value as i32),
                _ => None,
            },
            _ => None,
        };
        if value.is_none() {
            self.problem(node.at, format!("{what} must be a whole number, not {}", shown(node)));
        }
        value
    }

    /// Reads a list with `item`; `None` when unset.
    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        what: &str,
        mut item: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &node.content {
            _ if !self.admit(node) || node.is_null() => None,
            Content::Sequence(items) => {
                let present = items.iter().enumerate().filter(|(_, node)| !node.is_null());
                Some(
                    present
                        .filter_map(|(index, node)| item(self, node, &format!("{what}[{index}]")))
                        .collect(),
                )
            }
            _ => {
                self.problem(node.at, format!("{what} must be a list, not {}", node.describe()));
                None
            }
        }
    }

    /// Reads a mapping from text to what `value` reads, or its default when null.
    pub(super) fn map<T: Default>(
        &mut self,
        node: &Node,
        what: &str,
        value: impl Fn(&mut Self, &Node, &str) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut map = BTreeMap::new();
        for (key, _, node) in self.entries(node, what) {
            let value = value(self, &node, &format!("{what}.{key}")).unwrap_or_default();
            map.insert(key, value);
        }
        map
    }

    /// Reads a mapping whose keys are all known, as its present fields by name.
    pub(super) fn fields(
        &mut self,
        node: &Node,
        what: &str,
        known: &[&'static str],
    ) -> HashMap<&'static str, Rc<Node>> {
        let mut fields = HashMap::new();
        for (key, key_node, value) in self.entries(node, what) {
            match known.iter().find(|field| **field == key) {
                Some(field) => {
                    fields.insert(*field, value);
                }
                None => {
                    let place = if what.is_empty() { String::new() } else { format!(" in {what}") };
                    self.unknown_word(key_node.at, format!("unknown field `{key}`{place}"), &key, known);
                }
            }
        }
        fields
    }

    fn entries(&mut self, node: &Node, what: &str) -> Entries {
        let mut entries = Vec::new();
        self.collect(node, what, &mut HashSet::new(), &mut entries);
        entries
    }

    /// Adds a mapping's own entries, then those of what it merges, as far as `seen` has not met their keys.
    fn collect(&mut self, node: &Node, what: &str, seen: &mut HashSet<String>, entries: &mut Entries) {
        let shown_as = if what.is_empty() { "the configuration" } else { what };
        let own = match &node.content {
            _ if !self.admit(node) || node.is_null() => return,
            Content::Mapping(own) => own,
            _ => {
                self.problem(node.at, format!("{shown_as} must be a mapping, not {}", node.describe()));
                return;
            }
        };
        let mut lines = HashMap::new();
        let mut merged = None;
        for (key, value) in own {
            let Content::Scalar { text, .. } = &key.content else {
                self.problem(key.at, format!("a key in {shown_as} must be text, not {}", key.describe()));
                continue;
            };
            if let Some(line) = lines.insert(text.as_str(), key.at.line) {
                self.problem(key.at, format!("`{text}` is already set on line {line}"));
            } else if key.is_merge_key() {
                merged = Some(value);
            } else if !key.is_null() && seen.insert(text.clone()) {
                entries.push((text.clone(), Rc::clone(key), Rc::clone(value)));
            }
        }
        match merged.map(|node| (node, &node.content)) {
            None => {}
            Some((node, Content::Mapping(_))) => self.collect(node, what, seen, entries),
            Some((_, Content::Sequence(items)))
                if items.iter().all(|item| matches!(item.content, Content::Mapping(_))) =>
            {
                for item in items {
                    self.collect(item, what, seen, entries);
                }
            }
            Some((node, _)) => self.problem(node.at, "`<<` takes a mapping or a list of mappings"),
        }
    }

    /// Counts a value; `false` when there were too many.
    fn admit(&mut self, node: &Node) -> bool {
        self.values += 1;
        if self.values == MAX_VALUES {
            self.problem(node.at, "aliases blow the configuration up beyond any use");
        }
        self.values < MAX_VALUES
    }

    fn push(&mut self, mut problem: Problem) {
        shorten(&mut problem.message, MAX_MESSAGE);
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// A value as a message shows it.
fn shown(node: &Node) -> String {
    match &node.content {
        Content::Scalar { text, .. } if text.len() > 40 => "a long text".to_owned(),
        Content::Scalar { text, style: Style::Text } => format!("the text `{text}`"),
        Content::Scalar { text, .. } => format!("`{text}`"),
        _ => node.describe().to_owned(),
    }
}
