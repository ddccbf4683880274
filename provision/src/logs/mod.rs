//! The logs of a cluster: written to a directory as kind does, or shown.
//!
//! A directory holds `kiln-version.txt`, `kind-version.txt`, `host.txt`, `cluster.json`, the trace of the creation in
//! `trace.json` and, where there is one, the log of the process that relays ports in `proxy.log`, and of those that
//! hold packets for name servers in `hold.log`; and a directory per node:
//!
//! | | |
//! |---|---|
//! | `serial.log` | the console |
//! | `journal.log`, `kubelet.log`, `containerd.log` | the journal; of a node that does not run, its files in `journal/` |
//! | `kubernetes-version.txt`, `images.log` | as kind writes them |
//! | `inspect.json` | the node as Kiln knows it |
//! | `kubeadm.log`, `kubeadm.conf` | what kubeadm said, and what it was told |
//! | `pods/`, `containers/`, … | the node's `/var/log`, with files in the place of links |
//!
//! No secret is in it: see `redact.rs`.

mod console;
mod host;
mod images;
mod node;
mod output;
mod redact;
#[cfg(test)]
mod tests;
mod tree;

use std::{io, path::Path};

use self::{node::Node, output::Output};
use crate::{Error, Paths, Result, cluster, state};

pub use self::console::console;

/// Writes the logs of a cluster to a directory, which is made if it is missing. All nodes are asked at once; what one
/// does not give keeps nothing else from being written. `version` is the program's, for the reader.
///
/// # Errors
/// [`Error::NoSuchCluster`]; [`Error::ExportLogs`] with everything that is missing.
pub async fn export(paths: &Paths, name: &str, directory: &Path, version: &str) -> Result<()> {
    check(paths, name)?;
    let output = Output::open(directory).map_err(Error::file("make the directory"))?;
    let mut errors = Vec::new();
    let common = common(paths, name, &output, version);
    errors.extend(common.map_err(Error::file("write what concerns the whole cluster")).err());
    let published = match state::load_cluster(paths, name) {
        Ok(record) => record.map(|record| record.ports).unwrap_or_default(),
        Err(error) => {
            errors.push(error);
            Vec::new()
        }
    };
    let nodes = state::node_names(paths, name)?;
    let exports = nodes.iter().map(async |node| match output.directory(node.as_bytes()) {
        Ok(output) => Node { paths, cluster: name, name: node, published: &published }.export(output).await,
        Err(source) => {
            vec![Error::NodeLog { node: node.clone(), what: "anything".to_owned(), source: source.into() }]
        }
    });
    errors.extend(futures_util::future::join_all(exports).await.into_iter().flatten());
    if errors.is_empty() { Ok(()) } else { Err(Error::ExportLogs { cluster: name.to_owned(), errors }) }
}

/// Makes sure that there is anything of the cluster, however little.
///
/// # Errors
/// [`Error::NoSuchCluster`], [`Error::InvalidName`].
pub fn check(paths: &Paths, name: &str) -> Result<()> {
    if state::cluster_exists(paths, name)? {
        return Ok(());
    }
    Err(Error::NoSuchCluster {
        cluster: name.to_owned(),
        known: cluster::clusters(paths).unwrap_or_default(),
    })
}

fn common(paths: &Paths, name: &str, output: &Output, version: &str) -> io::Result<()> {
    // Scripts that collect logs look for kind's name.
    for file in ["kiln-version.txt", "kind-version.txt"] {
        output.write(file, format!("{version}\n").as_bytes())?;
    }
    output.write("host.txt", host::describe(paths).as_bytes())?;
    // What Kiln keeps, but for the administrator's credentials.
    for file in ["cluster.json", cluster::TRACE_FILE, "proxy.log", "hold.log"] {
        match fs_err::read(paths.cluster(name).join(file)) {
            Ok(content) => output.write(file, &content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
