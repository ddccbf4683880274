//! `exec`, `shell` and `ps`: a command in a node.

use std::{
    io::{self, IsTerminal},
    process::{ExitCode, Stdio},
};

use kiln_provision::{cluster, state::NodeRole};
use kiln_runtime::ExecSpec;

use super::Session;
use crate::{
    arguments::{Exec, Ps, Shell},
    child,
    failure::{Context, Failure, require_root},
};

/// Runs a command in a node; its exit status becomes this program's.
pub(super) fn exec(session: &Session, arguments: Exec) -> Result<ExitCode, Failure> {
    require_root(&format!("running a command in node {}", arguments.node))?;
    if arguments.tty && arguments.interactive && !io::stdin().is_terminal() {
        return Err(Failure::new("standard input is not a terminal, as -i with -t has it")
            .with_hint("leave -t out to pass standard input on as it is"));
    }
    let environment = arguments.environment.into_iter();
    let here = |name: &str| std::env::var(name).ok();
    let spec = ExecSpec {
        args: arguments.command,
        env: environment.filter_map(|entry| assignment(entry, here)).collect(),
        cwd: arguments.workdir,
        tty: arguments.tty,
        user: arguments.user,
    };
    in_node(session, &arguments.node, spec, arguments.interactive)
}

/// A login shell: bash, or what there is.
const SHELL: &str = "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi";

/// Opens a shell in a node; its exit status becomes this program's. Without a terminal it reads a script.
pub(super) fn shell(session: &Session, arguments: &Shell) -> Result<ExitCode, Failure> {
    let node = &arguments.node;
    require_root(&format!("opening a shell in node {node}"))?;
    let (_, record) = cluster::find_node(&session.paths, node).context("failed to open a shell")?;
    if record.role == NodeRole::ExternalLoadBalancer {
        return Err(Failure::new(format!("node {node} is a load balancer, in which there is no shell"))
            .with_hint(format!("\"kiln logs {node}\" shows what it says")));
    }
    let spec = ExecSpec {
        args: ["sh", "-c", SHELL].map(String::from).to_vec(),
        tty: io::stdin().is_terminal() && io::stdout().is_terminal(),
        ..ExecSpec::default()
    };
    in_node(session, node, spec, true)
}

/// Lists a node's processes as a tree.
pub(super) fn ps(session: &Session, arguments: &Ps) -> Result<ExitCode, Failure> {
    require_root(&format!("listing the processes of node {}", arguments.node))?;
    let args = vec![String::from("ps"), String::from("fax")];
    in_node(session, &arguments.node, ExecSpec { args, ..ExecSpec::default() }, false)
}

/// Runs `spec` in a node on this program's standard streams, and gives back its exit status.
pub(super) fn in_node(
    session: &Session,
    node: &str,
    spec: ExecSpec,
    stdin: bool,
) -> Result<ExitCode, Failure> {
    let what =
        format!("failed to run {} in node {node}", spec.args.first().map_or("nothing", String::as_str));
    let mut command = cluster::exec_command(&session.paths, node, &spec).context(&what)?;
    command.stdin(if stdin { Stdio::inherit() } else { Stdio::null() });
    child::run(&mut command).context(&what)
}

/// `NAME=VALUE`; a name alone gets the value that `value` has for it, and is left out if it has none.
fn assignment(entry: String, value: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    if entry.contains('=') {
        return Some(entry);
    }
    value(&entry).map(|value| format!("{entry}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alone_take_the_value_from_here() {
        let value = |name: &str| (name == "HERE").then(|| String::from("1"));
        assert_eq!(assignment(String::from("A=b=c"), value).as_deref(), Some("A=b=c"));
        assert_eq!(assignment(String::from("A="), value).as_deref(), Some("A="));
        assert_eq!(assignment(String::from("HERE"), value).as_deref(), Some("HERE=1"));
        assert_eq!(assignment(String::from("MISSING"), value), None);
    }
}
