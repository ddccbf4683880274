//! A YAML document as a tree that still knows quotes and places.
//!
//! Both matter here: whether `"80"` was quoted decides whether it is a port, and every complaint names a line
//! and a column. Anchors are resolved (shared, not copied); merge keys are left to the readers, which differ
//! in them.

use std::{collections::HashMap, rc::Rc};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};

/// The most nodes of a document, far beyond any real configuration.
const MAX_NODES: usize = 4_000_000;

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A node of a document.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) content: Content,
}

/// A key and its value.
pub(crate) type Entry = (Rc<Node>, Rc<Node>);

/// What a node holds.
#[derive(Debug)]
pub(crate) enum Content {
    Scalar { text: String, style: Style },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: its spelling decides its type.
    Plain,
    /// Quoted, a block, or tagged as text: text whatever it looks like.
    Text,
}

impl Node {
    /// Whether this is an absent or null value.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether this is the key of a merge, `<<`.
    pub(crate) fn is_merge_key(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, style: Style::Plain } if text == "<<")
    }

    /// What the node is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.content {
            Content::Scalar { .. } => "a single value",
            Content::Sequence(_) => "a list",
            Content::Mapping(_) => "a mapping",
        }
    }
}

/// Why a text is not a YAML document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// Reads the first document of a text; `None` when there is none. What follows the first document is not
/// looked at.
pub(crate) fn parse(text: &str) -> Result<Option<Rc<Node>>, SyntaxError> {
    let mut options = granit_parser::options! { block_scalar_eof_without_line_feed: true };
    options.set_emit_comments(false);
    let mut composer = Composer {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        nodes: 0,
        at: Position { line: 1, column: 1 },
    };
    loop {
        match composer.next()? {
            None | Some(Event::StreamEnd) => return Ok(None),
            Some(Event::DocumentStart(..)) => break,
            Some(_) => {}
        }
    }
    let root = composer.node()?;
    Ok(Some(root))
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
    at: Position,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<Option<Event<'a>>, SyntaxError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.at = position(&span.start);
                Ok(Some(event))
            }
            Some(Err(error)) => Err(SyntaxError { at: position(error.marker()), message: error.info() }),
        }
    }

    fn node(&mut self) -> Result<Rc<Node>, SyntaxError> {
        let event = self.next()?;
        self.node_of(event)
    }

    /// The node that begins with `event`. Recursion is bounded by the parser's limit on nesting.
    fn node_of(&mut self, event: Option<Event<'a>>) -> Result<Rc<Node>, SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error("the document is too large"));
        }
        let at = self.at;
        let (anchor, content) = match event {
            Some(Event::Alias(anchor)) => {
                let node = self.anchors.get(&anchor).cloned();
                return node.ok_or_else(|| self.error("an anchor cannot contain itself"));
            }
            Some(Event::Scalar(text, style, anchor, tag)) => {
                let style = scalar_style(style, tag.as_deref());
                (anchor, Content::Scalar { text: text.into_owned(), style })
            }
            Some(Event::SequenceStart(_, anchor, _)) => (anchor, Content::Sequence(self.sequence()?)),
            Some(Event::MappingStart(_, anchor, _)) => (anchor, Content::Mapping(self.mapping()?)),
            _ => return Err(self.error("the document ends too early")),
        };
        let node = Rc::new(Node { at, content });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Vec<Rc<Node>>, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Some(Event::SequenceEnd) => return Ok(items),
                event => items.push(self.node_of(event)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Vec<Entry>, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            match self.next()? {
                Some(Event::MappingEnd) => return Ok(entries),
                event => {
                    let key = self.node_of(event)?;
                    entries.push((key, self.node()?));
                }
            }
        }
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { at: self.at, message: message.to_owned() }
    }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn scalar_style(style: ScalarStyle, tag: Option<&Tag>) -> Style {
    match tag.map(|tag| tag.core_suffix().unwrap_or("")) {
        None if style == ScalarStyle::Plain => Style::Plain,
        Some("null" | "bool" | "int" | "float") => Style::Plain,
        _ => Style::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one() {
        let root = parse("a: 1\nb:\n  - x\n").unwrap().unwrap();
        let Content::Mapping(entries) = &root.content else { panic!("not a mapping") };
        assert_eq!(entries[1].0.at, Position { line: 2, column: 1 });
        let Content::Sequence(items) = &entries[1].1.content else { panic!("not a sequence") };
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
    }

    #[test]
    fn only_the_first_document_counts() {
        let root = parse("a: 1\n---\n[ not, valid\n").unwrap().unwrap();
        assert!(matches!(&root.content, Content::Mapping(entries) if entries.len() == 1));
        assert!(parse("# nothing but a comment\n").unwrap().is_none());
        assert!(parse("---\n---\na: 1\n").unwrap().unwrap().is_null());
    }

    #[test]
    fn bombs_are_refused_not_survived() {
        for bomb in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            assert!(parse(&bomb).is_err());
        }
        let error = parse("a: &a [*a]\n").unwrap_err();
        assert_eq!((error.message.as_str(), error.at.line), ("an anchor cannot contain itself", 1));
    }
}
