//! Variables that kind takes and Kiln has no use for: they are named, so that nobody looks for their effect.

use crate::arguments::{Command, Create, CreateCommand};

/// Chooses the program that runs kind's nodes.
const PROVIDER: &str = "KIND_EXPERIMENTAL_PROVIDER";

/// What only matters when nodes are made, and why it does not here.
const OF_CREATION: [(&str, &str); 3] = [
    ("KIND_EXPERIMENTAL_DOCKER_NETWORK", "every cluster has a network of its own"),
    ("KIND_EXPERIMENTAL_PODMAN_NETWORK", "every cluster has a network of its own"),
    ("KIND_EXPERIMENTAL_CONTAINERD_SNAPSHOTTER", "node images are unpacked for overlayfs"),
];

/// A line for each variable that is set, would mean something to kind for this command, and is ignored.
pub(super) fn notices(
    command: &Command,
    program: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let given = |name: &str| lookup(name).filter(|value| !value.is_empty());
    let mut notices = Vec::new();
    let uses_nodes = matches!(
        command,
        Command::Create(_) | Command::Delete(_) | Command::Get(_) | Command::Export(_) | Command::Load(_)
    );
    if uses_nodes && let Some(value) = given(PROVIDER) {
        notices.push(format!("ignoring {PROVIDER}={value}: {program} runs nodes without a container engine"));
    }
    if matches!(command, Command::Create(Create { command: Some(CreateCommand::Cluster(_)) })) {
        for (name, why) in OF_CREATION {
            notices.extend(given(name).map(|value| format!("ignoring {name}={value}: {why}")));
        }
    }
    notices
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn told(line: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let command = Arguments::try_parse_from(line.split(' ')).expect(line).command.expect(line);
        notices(&command, "kiln", |name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn ignored_variables_are_named_where_kind_would_use_them() {
        let variables = [(PROVIDER, "podman"), ("KIND_EXPERIMENTAL_DOCKER_NETWORK", "ci")];
        assert_eq!(
            told("kiln create cluster", &variables),
            [
                "ignoring KIND_EXPERIMENTAL_PROVIDER=podman: kiln runs nodes without a container engine",
                "ignoring KIND_EXPERIMENTAL_DOCKER_NETWORK=ci: every cluster has a network of its own",
            ]
        );
        assert_eq!(told("kiln get clusters", &variables).len(), 1);
        assert!(told("kiln version", &variables).is_empty());
        assert!(told("kiln create cluster", &[(PROVIDER, "")]).is_empty());
        assert!(told("kiln create cluster", &[]).is_empty());
    }
}
