//! How a command fails: what the user reads, and the exit status.
//!
//! Like kind, Kiln exits with 1 for every error; 130 says that it was interrupted, as shells do.

use std::{error::Error, io};

/// The exit status of an error.
const FAILED: u8 = 1;
/// The exit status of an interrupted command: 128 and the number of SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// The end of a command that did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// The message and its causes, outermost first. Empty: nothing is printed.
    chain: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure with a message of its own.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, chain: vec![message.into()], hint: None }
    }

    /// The failure of `what` (as in "failed to create cluster") for the reasons that `error` holds.
    pub(crate) fn because(what: &str, error: &(dyn Error + 'static)) -> Self {
        Self::from_error(error).within(what)
    }

    /// The same failure as the reason for that of `what`.
    pub(crate) fn within(mut self, what: &str) -> Self {
        self.chain.insert(0, what.to_owned());
        self
    }

    /// The failure that `error` describes by itself.
    pub(crate) fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut chain: Vec<String> = Vec::new();
        let mut hint = None;
        let mut denied = false;
        let mut next = Some(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Errors of other crates often repeat their cause in their own message.
            if !chain.last().is_some_and(|last| last.contains(&text)) {
                chain.push(text);
            }
            if hint.is_none() {
                hint = cause.downcast_ref::<kiln_provision::Error>().and_then(kiln_provision::Error::hint);
            }
            denied |= cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            next = cause.source();
        }
        if denied && hint.is_none() && !is_root() {
            hint = Some(String::from("this needs root: run it with sudo"));
        }
        Self { code: FAILED, chain, hint }
    }

    /// The reader of standard output has gone (`kiln get nodes | head -1`): it has what it wanted.
    pub(crate) fn closed_pipe() -> Self {
        Self::silent(0)
    }

    /// Ends the program with `code`; everything has been said.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, chain: Vec::new(), hint: None }
    }

    /// The same failure with advice. Advice that is there already stays.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same failure with better advice than it came with.
    pub(crate) fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure in other words, without its causes.
    pub(crate) fn saying(mut self, message: impl Into<String>) -> Self {
        self.chain = vec![message.into()];
        self
    }

    /// The same failure, with the program in its advice named as the user called it.
    pub(crate) fn naming(mut self, program: &str) -> Self {
        self.hint = self.hint.map(|hint| hint.replace("`kiln ", &format!("`{program} ")));
        self
    }

    /// The same failure, as that of an interrupted command.
    pub(crate) fn into_interrupted(mut self) -> Self {
        self.code = INTERRUPTED;
        self
    }

    /// The exit status.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What the user can do, where that is known.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message with its causes, without "ERROR:"; `None` when nothing is to be printed.
    ///
    /// Short causes go on one line. From the first one that has several lines itself (a configuration's snippet, the
    /// end of a log) each gets a paragraph.
    pub(crate) fn message(&self) -> Option<String> {
        if self.chain.is_empty() {
            return None;
        }
        let short = self.chain.iter().take_while(|part| !part.trim_end().contains('\n')).count();
        let (line, paragraphs) = self.chain.split_at(short);
        let mut text = line.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join(": ");
        for paragraph in paragraphs {
            let paragraph = paragraph.trim_end().replace('\n', "\n    ");
            match text.as_str() {
                "" => text = paragraph,
                _ => text.push_str(&format!("\n  caused by: {paragraph}")),
            }
        }
        Some(text)
    }
}

impl From<kiln_provision::Error> for Failure {
    fn from(error: kiln_provision::Error) -> Self {
        Self::from_error(&error)
    }
}

/// Says what failed when the error itself only says why.
pub(crate) trait Context<T> {
    /// Puts `what` ("failed to …") in front of the error's own chain.
    fn context(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> Context<T> for Result<T, E> {
    fn context(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::because(what, &error))
    }
}

/// Refuses to go on without root, naming what it is needed for.
pub(crate) fn require_root(what: &str) -> Result<(), Failure> {
    if is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("{what} needs root")).with_hint("run the command with sudo"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|link| link as &(dyn Error + 'static))
        }
    }

    fn chain(texts: &[&'static str]) -> Link {
        let (first, rest) = texts.split_first().expect("texts");
        Link(first, (!rest.is_empty()).then(|| Box::new(chain(rest))))
    }

    #[test]
    fn short_causes_share_a_line() {
        let failure =
            Failure::because("failed to create cluster", &chain(&["failed to make x", "no space left"]));
        assert_eq!(
            failure.message().as_deref(),
            Some("failed to create cluster: failed to make x: no space left")
        );
        assert_eq!(failure.code(), 1);
        assert_eq!(failure.into_interrupted().code(), 130);
    }

    #[test]
    fn repeated_causes_are_said_once() {
        let failure = Failure::from_error(&chain(&["failed to open /x: no such file", "no such file"]));
        assert_eq!(failure.message().as_deref(), Some("failed to open /x: no such file"));
    }

    #[test]
    fn long_causes_get_paragraphs() {
        let failure = Failure::because("failed to a", &chain(&["b", "line 1\nline 2\n", "c"]));
        assert_eq!(
            failure.message().as_deref(),
            Some("failed to a: b\n  caused by: line 1\n    line 2\n  caused by: c")
        );
    }

    #[test]
    fn causes_that_start_long_have_no_empty_line() {
        let failure = Failure::from_error(&chain(&["1\n2"]));
        assert_eq!(failure.message().as_deref(), Some("1\n    2"));
    }

    #[test]
    fn hints_do_not_replace_each_other() {
        let failure = Failure::new("x").with_hint("first").with_hint("second");
        assert_eq!(failure.hint(), Some("first"));
    }

    #[test]
    fn advice_names_the_program_as_it_was_called() {
        let failure =
            Failure::new("x").with_hint("there is none; `kiln create cluster` makes one").naming("kind");
        assert_eq!(failure.hint(), Some("there is none; `kind create cluster` makes one"));
    }

    #[test]
    fn closed_pipe_is_success() {
        assert_eq!(Failure::closed_pipe().code(), 0);
        assert_eq!(Failure::closed_pipe().message(), None);
    }
}
