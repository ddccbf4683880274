//! `config init`, `config schema`, `config validate` and `config render`

use std::{io, path::Path};

use fs_err as fs;
use kiln_provision::{
    cluster,
    config::{self, Cluster, Rendered},
};

use super::{Session, block_on, version_tag};
use crate::{
    arguments::{ConfigInit, ConfigRender, ConfigValidate},
    failure::{Context, Failure},
};

/// Prints a configuration to begin with.
pub(super) fn init(session: &Session, arguments: &ConfigInit) -> Result<(), Failure> {
    session.shell.result(if arguments.full { config::FULL_EXAMPLE } else { config::EXAMPLE })
}

/// Prints what editors check configurations by.
pub(super) fn schema(session: &Session) -> Result<(), Failure> {
    session.shell.result(config::SCHEMA)
}

/// Checks a configuration; says nothing on standard output. What only this host lacks is a warning: the configuration may
/// be for another one.
pub(super) fn validate(session: &Session, arguments: &ConfigValidate) -> Result<(), Failure> {
    let cluster = load(Some(&arguments.config), None)?;
    config::preflight(&cluster, &arguments.config.display().to_string())?;
    if let Err(failure) = block_on(async { Ok(cluster::check_host(&cluster).await?) }) {
        let message = failure.message().unwrap_or_default();
        session.shell.warn(&format!("this host cannot run it: {message}"));
        if let Some(hint) = failure.hint() {
            session.shell.hint(hint);
        }
    }
    let nodes = match cluster.nodes.len() {
        1 => String::from("1 node"),
        count => format!("{count} nodes"),
    };
    session.shell.status(&format!(
        "{} is valid: cluster \"{}\", {nodes}",
        arguments.config.display(),
        cluster.name
    ));
    Ok(())
}

/// Shows what would be written to each node, as files or on standard output.
pub(super) fn render(session: &Session, arguments: &ConfigRender) -> Result<(), Failure> {
    const FAILED: &str = "failed to render the configuration";
    let cluster = load(arguments.config(), None)?;
    let base = arguments.base.as_deref().map(fs::read_to_string).transpose().context(FAILED)?;
    let version = version_tag(&arguments.kubernetes_version);
    let rendered = config::render(&cluster, &version, base.as_deref()).context(FAILED)?;
    match &arguments.output {
        Some(directory) => Ok(rendered.write(directory).context(FAILED)?),
        None => session.shell.result(&print(&rendered)),
    }
}

/// The files one after the other, each under a line with its name.
fn print(rendered: &Rendered) -> String {
    let mut text = String::new();
    for node in &rendered.nodes {
        let files = [("kubeadm.yaml", &node.kubeadm), ("containerd.toml", &node.containerd)];
        for (file, content) in files.into_iter().filter_map(|(file, content)| Some((file, content.as_ref()?)))
        {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("==> {}/{file} <==\n{}\n", node.name, content.trim_end()));
        }
    }
    text
}

/// Reads and checks a configuration; without a file, the default one.
///
/// Where `name` is given it is the cluster's name, and that in the file does not count.
pub(super) fn load(path: Option<&Path>, name: Option<&str>) -> Result<Cluster, Failure> {
    let Some(path) = path else {
        return Ok(Cluster::single_node(name.unwrap_or(config::DEFAULT_NAME)));
    };
    let (text, origin) = if path == Path::new("-") {
        let origin = String::from("standard input");
        (config::read_stream(io::stdin().lock(), &origin)?, origin)
    } else {
        (config::read(path)?, path.display().to_string())
    };
    let mut cluster = config::load_named(&text, &origin, name)?;
    // Host paths in it are relative to where the command is run, as kind has it, not to the file.
    let directory = std::env::current_dir().context("failed to find out the working directory")?;
    cluster.resolve_paths(&directory);
    Ok(cluster)
}
