//! `version`

use super::Session;
use crate::{failure::Failure, usage};

/// Prints the version and the platform; with `--quiet` only the version, without the "v".
pub(super) fn version(session: &Session) -> Result<(), Failure> {
    let kind = usage::is_kind(&session.args);
    let text = if session.shell.is_quiet() { number(kind).to_owned() } else { line(kind) };
    session.shell.result(&format!("{text}\n"))
}

/// The number alone. Called as kind it is that of the kind whose command line this is: scripts and tools that drive
/// kind compare it with the least that they need.
fn number(kind: bool) -> &'static str {
    if kind { usage::KIND_VERSION } else { env!("CARGO_PKG_VERSION") }
}

/// The whole line: as many words as kind's, which names its compiler where this names Kiln.
pub(super) fn line(kind: bool) -> String {
    let platform = format!("linux/{}", architecture(std::env::consts::ARCH));
    match kind {
        true => format!("kind v{} kiln{} {platform}", number(true), number(false)),
        false => format!("kiln v{} {platform}", number(false)),
    }
}

/// The name that images and Kubernetes have for an architecture.
pub(super) fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_words_that_scripts_cut_out() {
        assert!(line(false).starts_with(concat!("kiln v", env!("CARGO_PKG_VERSION"), " linux/")));
        let words: Vec<String> = line(true).split(' ').map(str::to_owned).collect();
        assert_eq!(words[..2], ["kind".to_owned(), format!("v{}", usage::KIND_VERSION)]);
        assert_eq!(words.len(), 4);
    }

    #[test]
    fn architectures_have_the_names_of_images() {
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("aarch64"), "arm64");
        assert_eq!(architecture("s390x"), "s390x");
    }
}
