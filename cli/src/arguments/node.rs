//! Commands that go into a node: exec, shell, cp, ps, kubectl.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use clap::Args;
use clap_complete::engine::ArgValueCandidates;
use kiln_provision::copy::End;

use super::ClusterName;
use crate::candidates;

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The node, such as kind-control-plane
    #[arg(add = ArgValueCandidates::new(candidates::nodes))]
    pub(crate) node: String,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable for the command; a name alone takes this shell's value
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub(crate) environment: Vec<String>,
    /// Directory to run the command in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User to run the command as
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `shell`
#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// The node, such as kind-control-plane
    pub(crate) node: String,
}

/// `cp`
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// What to copy
    #[arg(value_name = "SOURCE")]
    source: OsString,
    /// Where to
    #[arg(value_name = "TARGET")]
    target: OsString,
    /// Copy what SOURCE leads to when it is a link
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
}

impl Copy {
    /// What to copy and where to.
    pub(crate) fn ends(&self) -> (End, End) {
        (end(&self.source), end(&self.target))
    }
}

/// `NODE:PATH` or a path of the host. Node names have no slash, and do not begin with a dot.
fn end(text: &OsStr) -> End {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|&byte| byte == b':');
    match colon.map(|colon| (&bytes[..colon], &bytes[colon + 1..])) {
        _ if bytes == b"-" => End::Stream,
        Some((node, path)) if !node.is_empty() && !node.contains(&b'/') && !node.starts_with(b".") => {
            End::Node {
                node: String::from_utf8_lossy(node).into_owned(),
                path: PathBuf::from(OsStr::from_bytes(path)),
            }
        }
        _ => End::Host(PathBuf::from(text)),
    }
}

/// `ps`
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The node, such as kind-control-plane
    #[arg(add = ArgValueCandidates::new(candidates::nodes))]
    pub(crate) node: String,
}

/// `kubectl`
#[derive(Debug, Args)]
pub(crate) struct Kubectl {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// Arguments of kubectl
    #[arg(trailing_var_arg = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    fn command(line: &str) -> Command {
        parse(line).expect(line).command.expect(line)
    }

    #[test]
    fn exec_takes_flags_on_both_sides_of_the_node() {
        for line in ["kiln exec -it -e A=1 n1 -- sh -c id", "kiln exec n1 -i -t -e=A=1 sh -c id"] {
            match command(line) {
                Command::Exec(exec) => {
                    assert!(exec.interactive && exec.tty, "{line}");
                    assert_eq!(exec.node, "n1", "{line}");
                    assert_eq!(exec.environment, ["A=1"], "{line}");
                    assert_eq!(exec.command, ["sh", "-c", "id"], "{line}");
                }
                other => panic!("{other:?}"),
            }
        }
        parse("kiln exec n1").expect_err("no command");
    }

    #[test]
    fn kubectl_keeps_its_own_flags() {
        match command("kiln kubectl -n dev get pods -n kube-system -v 6 --root x -q") {
            Command::Kubectl(kubectl) => {
                assert_eq!(kubectl.name.given(), Some("dev"));
                assert_eq!(kubectl.arguments.join(" "), "get pods -n kube-system -v 6 --root x -q");
            }
            other => panic!("{other:?}"),
        }
        match command("kiln kubectl -- --namespace x get pods") {
            Command::Kubectl(kubectl) => assert_eq!(kubectl.arguments.join(" "), "--namespace x get pods"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_end_with_a_node_is_told_from_a_path_with_a_colon() {
        let node = |node: &str, path: &str| End::Node { node: node.to_owned(), path: path.into() };
        for (text, expected) in [
            ("kind-control-plane:/etc/hosts", node("kind-control-plane", "/etc/hosts")),
            ("n:a:b", node("n", "a:b")),
            ("n:", node("n", "")),
            ("-", End::Stream),
            ("./-", End::Host("./-".into())),
            ("file", End::Host("file".into())),
            ("./n:x", End::Host("./n:x".into())),
            ("/n:x", End::Host("/n:x".into())),
            ("dir/n:x", End::Host("dir/n:x".into())),
            (":x", End::Host(":x".into())),
        ] {
            assert_eq!(end(OsStr::new(text)), expected, "{text}");
        }
        match command("kiln cp -L n:/a -") {
            Command::Copy(copy) => {
                assert!(copy.follow_link);
                assert_eq!(copy.ends(), (node("n", "/a"), End::Stream));
            }
            other => panic!("{other:?}"),
        }
        parse("kiln cp n:/a").expect_err("no target");
        parse("kiln shell").expect_err("no node");
    }
}
