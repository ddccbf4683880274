//! `completion`

use clap_complete::{Shell, generate};

use super::Session;
use crate::{arguments::CompletionShell, failure::Failure, usage};

/// Prints the script that makes a shell complete the name that the program was called by.
pub(super) fn completion(session: &Session, shell: CompletionShell) -> Result<(), Failure> {
    let name = usage::program(&session.args);
    session.shell.result(&script(shell, &name))
}

fn script(shell: CompletionShell, name: &str) -> String {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
        CompletionShell::PowerShell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    generate(shell, &mut usage::definition(&[name.into()]), name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_for_the_name() {
        for shell in
            [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish, CompletionShell::PowerShell]
        {
            let script = script(shell, "kind");
            assert!(script.contains("kind") && script.contains("kubeconfig"), "{shell:?}");
            assert!(!script.contains("__monitor"), "{shell:?}");
        }
    }
}
