//! `cp`

use std::io::{self, IsTerminal};

use kiln_provision::copy::{self, End, Streams};

use super::Session;
use crate::{
    arguments::Copy,
    failure::{Failure, require_root},
};

/// Copies files between this host and a node.
pub(super) fn copy(session: &Session, arguments: &Copy) -> Result<(), Failure> {
    let (from, to) = arguments.ends();
    check(&from, &to)?;
    require_root("copying files from or to a node")?;
    if from == End::Stream && io::stdin().is_terminal() {
        return Err(Failure::new("standard input is a terminal, not an archive")
            .with_hint("pass one on, as in \"tar -c FILE | kiln cp - NODE:DIR\""));
    }
    if to == End::Stream && io::stdout().is_terminal() {
        return Err(Failure::new("standard output is a terminal, and an archive is not for reading")
            .with_hint("pass it on, as in \"kiln cp NODE:PATH - | tar -t\""));
    }
    let streams = Streams { input: &mut io::stdin().lock(), output: &mut io::stdout().lock() };
    Ok(copy::copy(&session.paths, &from, &to, arguments.follow_link, streams)?)
}

fn check(from: &End, to: &End) -> Result<(), Failure> {
    let ends = [from, to];
    if !ends.iter().any(|end| matches!(end, End::Node { .. })) {
        return Err(Failure::new("neither path is one of a node")
            .with_hint("a node's is written NODE:PATH, as in kind-control-plane:/etc/hosts"));
    }
    let is_empty = |end: &&&End| match end {
        End::Host(path) | End::Node { path, .. } => path.as_os_str().is_empty(),
        End::Stream => false,
    };
    match ends.iter().find(is_empty) {
        Some(end) => Err(Failure::new(format!("there is no path in \"{end}\""))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_is_a_node_and_both_have_a_path() {
        let host = |path: &str| End::Host(path.into());
        let node = |path: &str| End::Node { node: String::from("n"), path: path.into() };
        for (from, to) in [(host("a"), node("/b")), (node("b"), End::Stream), (node("/a"), node("/b"))] {
            check(&from, &to).expect("a node and paths");
        }
        for (from, to) in [
            (host("a"), host("b")),
            (End::Stream, End::Stream),
            (host(""), node("/b")),
            (node(""), host("a")),
        ] {
            check(&from, &to).expect_err("no node, or no path");
        }
    }
}
