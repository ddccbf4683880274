//! `logs`

use std::{
    error::Error as _,
    io,
    process::{ExitCode, Stdio},
};

use kiln_provision::{Error, cluster, logs as node_logs, state::NodeRole};
use kiln_runtime::ExecSpec;

use super::Session;
use crate::{
    arguments::Logs,
    child,
    failure::{Context, Failure, require_root},
};

/// Shows a node's journal, or its console.
pub(super) fn logs(session: &Session, arguments: &Logs) -> Result<ExitCode, Failure> {
    let node = arguments.node.as_str();
    require_root(&format!("reading the logs of node {node}"))?;
    let what = format!("failed to show the logs of node {node}");
    let (_, record) = cluster::find_node(&session.paths, node).context(&what)?;
    let balancer = record.role == NodeRole::ExternalLoadBalancer;
    if balancer && !arguments.units.is_empty() {
        return Err(Error::NoJournal { node: node.to_owned() }).context(&what);
    }
    if arguments.console || balancer {
        console(session, arguments).map_err(|failure| failure.within(&what))?;
        return Ok(ExitCode::SUCCESS);
    }
    let spec = ExecSpec { args: journalctl(arguments), ..ExecSpec::default() };
    let mut command = cluster::exec_command(&session.paths, node, &spec).context(&what)?;
    command.stdin(Stdio::null());
    child::follow(&mut command).context(&what)
}

fn console(session: &Session, arguments: &Logs) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let (tail, follow) = (arguments.tail(), arguments.follow);
    node_logs::console(&session.paths, &arguments.node, tail, follow, &mut stdout).map_err(|error| {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        match source.map(io::Error::kind) {
            Some(io::ErrorKind::BrokenPipe) => Failure::closed_pipe(),
            _ => error.into(),
        }
    })
}

fn journalctl(arguments: &Logs) -> Vec<String> {
    let mut args = vec![String::from("journalctl"), String::from("--no-pager")];
    args.extend(arguments.units.iter().map(|unit| format!("--unit={unit}")));
    // Of what it follows journalctl shows ten lines, unless it is told a number.
    match arguments.tail() {
        Some(count) => args.push(format!("--lines={count}")),
        None if arguments.follow => args.push(String::from("--lines=all")),
        None => {}
    }
    args.extend(arguments.follow.then(|| String::from("--follow")));
    args
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn journalctl_is_told_what_was_asked_for() {
        for (line, expected) in [
            ("kiln logs n", "journalctl --no-pager"),
            ("kiln logs n -f", "journalctl --no-pager --lines=all --follow"),
            ("kiln logs n --tail 0 -f", "journalctl --no-pager --lines=0 --follow"),
            (
                "kiln logs n --unit kubelet -u containerd --tail 5",
                "journalctl --no-pager --unit=kubelet --unit=containerd --lines=5",
            ),
        ] {
            match Arguments::try_parse_from(line.split(' ')).expect(line).command {
                Some(Command::Logs(logs)) => assert_eq!(journalctl(&logs).join(" "), expected),
                other => panic!("{other:?}"),
            }
        }
    }
}
