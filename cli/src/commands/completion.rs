//! `completion`

use std::{ffi::OsString, path::Path};

use clap_complete::env::{EnvCompleter, Fish, Powershell, Zsh};

use super::{Session, create::quote};
use crate::{
    arguments::CompletionShell,
    candidates::VARIABLE,
    failure::{Context, Failure},
    usage,
};

/// The library's own script for bash does not complete `--name=CLUSTER`, nor names with a colon.
const BASH: &str = include_str!("completion.bash");

/// Prints the script that makes a shell complete the name that the program was called by. It asks this program for what
/// fits, so that it also knows the names of clusters, nodes and images.
pub(super) fn completion(session: &Session, shell: CompletionShell) -> Result<(), Failure> {
    let name = usage::program(&session.args);
    session.shell.result(&script(shell, &name, &asked(&session.args, &name)?)?)
}

/// What the script calls: the name alone if that is how the program was found, else where it is.
fn asked(args: &[OsString], name: &str) -> Result<String, Failure> {
    match args.first().map(Path::new).filter(|path| path.components().count() > 1) {
        Some(path) => {
            let path = std::path::absolute(path).context("failed to find out where this program is")?;
            Ok(path.to_string_lossy().into_owned())
        }
        None => Ok(name.to_owned()),
    }
}

fn script(shell: CompletionShell, name: &str, program: &str) -> Result<String, Failure> {
    let completer: &dyn EnvCompleter = match shell {
        CompletionShell::Bash => return Ok(bash(name, program)),
        CompletionShell::Zsh => &Zsh,
        CompletionShell::Fish => &Fish,
        CompletionShell::PowerShell => &Powershell,
    };
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, name, name, program, &mut script)
        .context("failed to write the completion script")?;
    let script = String::from_utf8_lossy(&script).into_owned();
    Ok(match shell {
        CompletionShell::Fish => careful(&script),
        CompletionShell::PowerShell => quoted(&script, program),
        CompletionShell::Bash | CompletionShell::Zsh => script,
    })
}

/// PowerShell takes a path with a space in it for a path and an argument, unless it is quoted.
fn quoted(script: &str, program: &str) -> String {
    script.replace(&format!("& {program} -- "), &format!("& '{}' -- ", program.replace('\'', "''")))
}

/// A program that has been removed since must not have fish say so at every key; zsh's script sees to it itself.
fn careful(script: &str) -> String {
    let call = format!("({VARIABLE}=fish ");
    let Some((head, (program, tail))) =
        script.split_once(&call).and_then(|(head, tail)| Some((head, tail.split_once(" -- ")?)))
    else {
        return script.to_owned();
    };
    let tail = tail.replace("(commandline --current-token)", "(commandline --current-token) 2>/dev/null");
    format!("{head}(command --query {program}; and {VARIABLE}=fish {program} -- {tail}")
}

fn bash(name: &str, program: &str) -> String {
    let identifier: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    BASH.replace("VARIABLE", VARIABLE)
        .replace("FUNCTION", &identifier)
        .replace("NAME", &quote(name))
        .replace("PROGRAM", &quote(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELLS: [CompletionShell; 4] =
        [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish, CompletionShell::PowerShell];

    #[test]
    fn every_shell_has_a_script_that_asks_the_program() {
        for shell in SHELLS {
            let script = script(shell, "kind", "/opt/kiln").expect("a script");
            for part in ["kind", VARIABLE, "/opt/kiln"] {
                assert!(script.contains(part), "{shell:?} without {part}: {script}");
            }
            if shell != CompletionShell::PowerShell {
                assert!(script.contains("2>/dev/null"), "{shell:?}: {script}");
            }
            if shell == CompletionShell::PowerShell {
                assert!(script.contains("& '/opt/kiln' -- $args"), "{script}");
                for (open, close) in ['(', '[', '{'].into_iter().zip([')', ']', '}']) {
                    assert_eq!(
                        script.matches(open).count(),
                        script.matches(close).count(),
                        "{open}: {script}"
                    );
                }
            }
            if shell == CompletionShell::Fish {
                assert!(script.contains("(command --query /opt/kiln; and "), "{script}");
            }
        }
    }

    /// Has bash complete lines with a program that shows what it was asked, in place of kiln.
    #[test]
    fn bash_asks_with_whole_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("it's kiln");
        let answers =
            "#!/bin/sh\nshift\necho \"$_CLAP_COMPLETE_INDEX $*\" >>\"$0.log\"\nprintf '%s' \"$ANSWER\"\n";
        fs_err::write(&program, answers).expect("a program");
        fs_err::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        let script = script(CompletionShell::Bash, "kiln", &program.to_string_lossy()).expect("a script");
        let complete = |line: &str, answer: &str| {
            let call =
                "COMP_LINE=$LINE COMP_POINT=${#LINE}\n_complete_kiln kiln '' ''\necho \"${COMPREPLY[*]}\"\n";
            let output = std::process::Command::new("bash")
                .args(["--norc", "-c", &format!("{script}{call}")])
                .env("LINE", line)
                .env("ANSWER", answer)
                .output()
                .expect("bash");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
            String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
        };
        assert_eq!(complete("kiln get nodes --name=k", "--name=kind\u{b}--name=kiln"), "kind kiln");
        assert_eq!(complete("kiln create cluster --image kiln/node:v1", "kiln/node:v1.34.4"), "v1.34.4");
        assert_eq!(complete("kiln exec ", "a\u{b}b"), "a b");
        let log = fs_err::read_to_string(directory.path().join("it's kiln.log")).expect("a log");
        let asked = "3 kiln get nodes --name=k\n4 kiln create cluster --image kiln/node:v1\n2 kiln exec \n";
        assert_eq!(log, asked);
        fs_err::remove_file(&program).expect("it was there");
        assert_eq!(complete("kiln exec ", ""), "", "and nothing on standard error");
    }

    #[test]
    fn a_program_that_is_in_the_path_is_asked_by_name() {
        let asked = |program: &str| asked(&[program.into()], "kiln").expect("a path");
        assert_eq!(asked("kiln"), "kiln");
        assert_eq!(asked("/opt/kiln"), "/opt/kiln");
        assert!(Path::new(&asked("./kiln")).is_absolute());
    }
}
