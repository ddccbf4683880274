//! The order of words on a command line: kind takes the flags of a sub-command before its name too, clap only behind it.

use std::ffi::OsString;

use clap::Command;

use crate::usage;

/// The command line with flags that stand before the name of their sub-command (`kind --name x create cluster`) moved
/// behind it, where clap takes them. As in kind's flag library, an unknown flag there has a value: `--name x`, `--name=x`.
pub(crate) fn flags_last(args: &[OsString]) -> Vec<OsString> {
    let root = usage::definition(args);
    let mut command = &root;
    let (mut ordered, mut early) = (Vec::new(), Vec::new());
    let mut words = args.iter().cloned();
    ordered.extend(words.next());
    while command.has_subcommands() {
        let Some(word) = words.next() else { break };
        let text = word.to_string_lossy();
        if let Some(found) = command.find_subcommand(&*text) {
            command = found;
            ordered.push(word);
        } else if text.len() > 1 && text.starts_with('-') && text != "--" {
            let alone = text.contains('=') || (!text.starts_with("--") && text.len() > 2);
            let known = known(command, &text);
            let place = if known.is_some() { &mut ordered } else { &mut early };
            let has_value = !alone && known.unwrap_or(true);
            place.push(word);
            if has_value {
                place.extend(words.next());
            }
        } else {
            // Not a command: clap says so.
            ordered.push(word);
            break;
        }
    }
    // Also where no sub-command has come: the complaint is then about the flags.
    ordered.extend(early);
    ordered.extend(words);
    ordered
}

/// Whether a command knows a flag, and if so, whether the next word is its value.
fn known(command: &Command, flag: &str) -> Option<bool> {
    let name = flag.split('=').next().unwrap_or_default();
    let found = command.get_arguments().find(|argument| match name.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short() == name.chars().nth(1),
    })?;
    let takes_value = found.get_action().takes_values() && !found.is_require_equals_set();
    Some(takes_value)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn flags_may_stand_before_their_command() {
        for (line, expected) in [
            ("kind --name x create cluster", "kind create cluster --name x"),
            (
                "kind create --name=x --retain=false cluster --wait 1s",
                "kind create cluster --name=x --retain=false --wait 1s",
            ),
            ("kind -n x get nodes -v 1", "kind get nodes -n x -v 1"),
            ("kind -nx get nodes", "kind get nodes -nx"),
            ("kind -v 1 -q --root /r get -n x nodes", "kind -v 1 -q --root /r get nodes -n x"),
            ("kind -v=1 --quiet=false version", "kind -v=1 --quiet=false version"),
            ("kind exec n --name x get nodes", "kind exec n --name x get nodes"),
            ("kind --bogus", "kind --bogus"),
            ("kind foo --bogus create", "kind foo --bogus create"),
            ("kind --help create", "kind --help create"),
            ("kind get -h nodes", "kind get -h nodes"),
            ("kind -- get nodes", "kind -- get nodes"),
            ("kind", "kind"),
        ] {
            assert_eq!(flags_last(&args(line)), args(expected), "{line}");
        }
        let parsed = Arguments::try_parse_from(flags_last(&args("kind --name x get kubeconfig --internal")));
        assert!(parsed.is_ok(), "{parsed:?}");
    }
}
