//! One module per group of commands. Each command takes the session and its arguments, calls the library, and writes
//! what comes back.

mod bench;
mod build;
mod completion;
mod config;
mod copy;
mod create;
mod delete;
mod df;
mod doctor;
mod exec;
mod export;
mod get;
mod ignored;
mod images;
mod kubectl;
mod load;
mod logs;
mod man;
mod pool;
mod preview;
mod registry;
mod store;
mod top;
mod trace;
mod transfer;
mod version;

use std::{ffi::OsString, future::Future, process::ExitCode};

use kiln_provision::Paths;

use crate::{
    arguments::{
        BenchCommand, BuildCommand, Command, ConfigCommand, CreateCommand, DeleteCommand, ExportCommand,
        GetCommand, ImagesCommand, LoadCommand, PoolCommand, RegistryCommand, TraceCommand,
    },
    failure::{Context, Failure},
    shell::Shell,
    usage,
};

/// What every command works with.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The terminal.
    pub(crate) shell: Shell,
    /// Where everything is.
    pub(crate) paths: Paths,
    /// The command line, for help and usage.
    pub(crate) args: Vec<OsString>,
}

impl Session {
    /// What the program is called in the sentences that scripts compare: `kind`, or `kiln`.
    fn brand(&self) -> &'static str {
        usage::brand(&self.args)
    }

    /// A failure in kind's words for it, where the program was called as kind and there are such words.
    fn in_words_of_kind(&self, failure: Failure, words: impl FnOnce() -> Option<String>) -> Failure {
        if !usage::is_kind(&self.args) {
            return failure;
        }
        match words() {
            Some(words) => failure.saying(words),
            None => failure,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// Those of the command.
pub(crate) fn run(session: &Session, command: Command) -> Result<ExitCode, Failure> {
    for notice in ignored::notices(&command, session.brand(), |name| std::env::var(name).ok()) {
        session.shell.status(&notice);
    }
    // Without a sub-command a group can only explain itself.
    let missing = || usage::missing(&session.shell, &session.args);
    let done = match command {
        Command::Create(group) => match group.command {
            Some(CreateCommand::Cluster(arguments)) => create::cluster(session, &arguments),
            None => return missing(),
        },
        Command::Delete(group) => match group.command {
            Some(DeleteCommand::Cluster(arguments)) => delete::cluster(session, &arguments),
            Some(DeleteCommand::Clusters(arguments)) => delete::clusters(session, &arguments),
            None => return missing(),
        },
        Command::Get(group) => match group.command {
            Some(GetCommand::Clusters(arguments)) => get::clusters(session, &arguments),
            Some(GetCommand::Nodes(arguments)) => get::nodes(session, &arguments),
            Some(GetCommand::Kubeconfig(arguments)) => get::kubeconfig(session, &arguments),
            None => return missing(),
        },
        Command::Export(group) => match group.command {
            Some(ExportCommand::Kubeconfig(arguments)) => export::kubeconfig(session, &arguments),
            Some(ExportCommand::Logs(arguments)) => export::logs(session, &arguments),
            None => return missing(),
        },
        Command::Exec(arguments) => return exec::exec(session, arguments),
        Command::Shell(arguments) => return exec::shell(session, &arguments),
        Command::Copy(arguments) => copy::copy(session, &arguments),
        Command::Logs(arguments) => return logs::logs(session, &arguments),
        Command::Top(arguments) => top::top(session, &arguments),
        Command::Df(arguments) => df::df(session, &arguments),
        Command::Trace(group) => match group.command {
            Some(TraceCommand::Show(arguments)) => trace::show(session, &arguments),
            None => return missing(),
        },
        Command::Bench(group) => match group.command {
            Some(BenchCommand::Boot(arguments)) => bench::boot(session, &arguments),
            None => return missing(),
        },
        Command::Ps(arguments) => return exec::ps(session, &arguments),
        Command::Kubectl(arguments) => return kubectl::kubectl(session, arguments),
        Command::Load(group) => match group.command {
            Some(LoadCommand::DockerImage(of)) => load::load(session, of.sources(), &of.target),
            Some(LoadCommand::ImageArchive(of)) => load::load(session, of.sources(), &of.target),
            Some(LoadCommand::OciLayout(of)) => load::load(session, of.sources(), &of.target),
            None => return missing(),
        },
        Command::Images(group) => match group.command {
            Some(ImagesCommand::Ls(arguments)) => images::ls(session, &arguments),
            Some(ImagesCommand::Pull(arguments)) => transfer::pull(session, &arguments),
            Some(ImagesCommand::Rm(arguments)) => store::rm(session, &arguments),
            Some(ImagesCommand::Inspect(arguments)) => store::inspect(session, &arguments),
            Some(ImagesCommand::Prune) => store::prune(session),
            Some(ImagesCommand::Verify(arguments)) => store::verify(session, &arguments),
            None => return missing(),
        },
        Command::Pool(group) => match group.command {
            Some(PoolCommand::Fill(arguments)) => pool::fill(session, &arguments),
            Some(PoolCommand::Ls(arguments)) => pool::ls(session, &arguments),
            Some(PoolCommand::Drain(arguments)) => pool::drain(session, &arguments),
            None => return missing(),
        },
        Command::Registry(group) => match group.command {
            Some(RegistryCommand::Create(arguments)) => registry::create(session, &arguments),
            Some(RegistryCommand::Delete(arguments)) => registry::delete(session, &arguments),
            Some(RegistryCommand::Ls(arguments)) => registry::ls(session, &arguments),
            None => return missing(),
        },
        Command::Push(arguments) => transfer::push(session, &arguments),
        Command::Build(group) => match group.command {
            Some(BuildCommand::NodeImage(arguments)) => build::node_image(session, &arguments),
            Some(BuildCommand::RegistryImage(arguments)) => build::registry_image(session, &arguments),
            None => return missing(),
        },
        Command::Config(group) => match group.command {
            Some(ConfigCommand::Render(arguments)) => config::render(session, &arguments),
            Some(ConfigCommand::Validate(arguments)) => config::validate(session, &arguments),
            Some(ConfigCommand::Init(arguments)) => config::init(session, &arguments),
            Some(ConfigCommand::Schema) => config::schema(session),
            None => return missing(),
        },
        Command::Doctor(arguments) => doctor::doctor(session, &arguments),
        Command::Completion(arguments) => match arguments.shell {
            Some(shell) => completion::completion(session, shell),
            None => return missing(),
        },
        Command::Man(arguments) => man::man(session, &arguments),
        Command::Version => version::version(session),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs an asynchronous command. Only commands that need a runtime make one: it has threads, and starting them takes
/// longer than most commands do.
///
/// # Errors
/// Those of the command, or when there is no runtime to be had.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the asynchronous runtime")?;
    let result = runtime.block_on(future);
    // After an interruption a blocking task may still be at work on something that nobody will use.
    runtime.shutdown_background();
    result
}

/// A list as kind prints it: `["a" "b"]`.
fn bracketed(names: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

/// A version as Kubernetes' tags have it, with a "v".
fn version_tag(version: &str) -> String {
    format!("v{}", version.strip_prefix('v').unwrap_or(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_start_with_a_v() {
        assert_eq!(version_tag("1.34.4"), "v1.34.4");
        assert_eq!(version_tag("v1.34.4"), "v1.34.4");
    }

    #[test]
    fn lists_are_bracketed() {
        assert_eq!(bracketed(&["a", "b"]), "[\"a\" \"b\"]");
        assert_eq!(bracketed(&[] as &[&str]), "[]");
    }

    #[test]
    fn the_runtime_gives_back_the_result() {
        assert_eq!(block_on(async { Ok(7) }).expect("no failure"), 7);
    }
}
