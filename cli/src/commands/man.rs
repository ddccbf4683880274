//! `man`

use clap::CommandFactory;
use fs_err as fs;

use super::Session;
use crate::{
    arguments::{Arguments, Man},
    failure::{Context, Failure},
};

/// Writes `kiln.1`, and a page for each command as `kiln-COMMAND.1`, into a directory.
pub(super) fn man(session: &Session, arguments: &Man) -> Result<(), Failure> {
    const FAILED: &str = "failed to write the manual pages";
    fs::create_dir_all(&arguments.directory).context(FAILED)?;
    // Not the name that it was called by: pages are installed once, under the program's own.
    let definition = Arguments::command().bin_name("kiln");
    clap_mangen::generate_to(definition, &arguments.directory)
        .context(&format!("{FAILED} into {}", arguments.directory.display()))?;
    session.shell.status(&format!("Wrote the manual pages to {}", arguments.directory.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Shell;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let session = Session {
            shell: Shell::mute(false, false),
            paths: kiln_provision::Paths::default(),
            args: vec!["kind".into()],
        };
        man(&session, &Man { directory: directory.path().join("man1") }).expect("pages");
        let page = |name: &str| fs::read_to_string(directory.path().join("man1").join(name)).expect(name);
        assert!(page("kiln.1").contains("kiln\\-create(1)"));
        let create = page("kiln-create-cluster.1");
        for part in [".TH kiln-create-cluster 1", "\\-\\-dry\\-run", "KIND_CLUSTER_NAME"] {
            assert!(create.contains(part), "{part}: {create}");
        }
        assert!(!directory.path().join("man1/kiln-help.1").exists(), "that is what these pages are");
        let mut commands = vec![(String::from("kiln"), Arguments::command())];
        while let Some((name, command)) = commands.pop() {
            page(&format!("{name}.1"));
            let inner = command.get_subcommands().filter(|command| !command.is_hide_set());
            commands.extend(inner.map(|inner| (format!("{name}-{}", inner.get_name()), inner.clone())));
        }
    }
}
