//! What one node leaves in an export.

use std::{
    error::Error as StdError,
    io::{self, Read, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use kiln_network::PortMapping;
use kiln_runtime::{ExecSpec, Process, exec_command};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, BufReader},
    task::spawn_blocking,
};

use super::{console, images, output::Output, tree::LogTree};
use crate::{
    Error, Paths, Result,
    cluster::{self, NodeStatus},
    containerd::Containerd,
    state::{self, NodeRecord, NodeRole},
};

/// The journal, whole and of the two units that everything depends on, under kind's names.
const JOURNALS: [(&str, Option<&str>); 3] = [
    ("journal.log", None),
    ("kubelet.log", Some("kubelet.service")),
    ("containerd.log", Some("containerd.service")),
];
/// Files beside the content of `/var/log`, which therefore cannot have them.
const OWN: [&str; 9] = [
    "serial.log",
    "kubernetes-version.txt",
    "journal.log",
    "kubelet.log",
    "containerd.log",
    "images.log",
    "inspect.json",
    "kubeadm.log",
    "kubeadm.conf",
];
/// The journal's own files: not needed where it can be read.
const JOURNAL: &str = "journal";
/// How long one question to a node may take. A journal of hundreds of megabytes is written in less.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes that are read of a file that should be small, and that the node may have replaced.
const SMALL: u64 = 16 << 20;
/// What is kept of a failed command's complaints.
const COMPLAINT: usize = 2000;

type Cause = Box<dyn StdError + Send + Sync>;

/// A node that is asked for its logs.
pub(super) struct Node<'a> {
    pub(super) paths: &'a Paths,
    pub(super) cluster: &'a str,
    pub(super) name: &'a str,
    pub(super) published: &'a [PortMapping],
}

/// A node as Kiln knows it: `inspect.json`.
#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    status: NodeStatus,
    record: NodeRecord,
}

impl Node<'_> {
    /// Writes everything that can be had of the node; returns what could not.
    pub(super) async fn export(&self, output: Output) -> Vec<Error> {
        let mut problems = Problems { node: self.name, errors: Vec::new() };
        let directory = self.paths.node(self.cluster, self.name);
        let record = match state::load_node(self.paths, self.cluster, self.name) {
            Ok(record) => record,
            Err(error) => {
                problems.add("its record", error);
                None
            }
        };
        problems.check("serial.log", || output.write("serial.log", &console::whole(&directory)?));
        if record.as_ref().is_some_and(|record| record.role == NodeRole::ExternalLoadBalancer) {
            return problems.errors;
        }
        let process = record.as_ref().and_then(|record| record.process.clone()).filter(Process::is_alive);
        let layers = record.as_ref().map(|record| record.layers.clone()).unwrap_or_default();
        if let Some(record) = record {
            problems.check("inspect.json", || {
                let text = self.inspect(record)?;
                output.write("inspect.json", &text).map_err(Cause::from)
            });
        }
        let roots = std::iter::once(directory.join("upper")).chain(layers).collect::<Vec<_>>();
        problems.check("kubeadm.log", || output.copy("kubeadm.log", &directory));
        for (name, path) in
            [("kubernetes-version.txt", "kind/version"), ("kubeadm.conf", "kind/kubeadm.conf")]
        {
            problems.check(name, || match find(&roots, path)? {
                Some(file) => output.fill(name, &mut file.take(SMALL)),
                None => Ok(()),
            });
        }
        let mut has_journal = false;
        if let Some(process) = &process {
            let journals = JOURNALS.map(|(name, unit)| journal(process, &output, name, unit));
            for ((name, _), result) in JOURNALS.iter().zip(futures_util::future::join_all(journals).await) {
                has_journal |= *name == JOURNALS[0].0 && result.is_ok();
                problems.keep(name, result);
            }
            problems.keep("images.log", list_images(process, &output).await);
        }
        let copied =
            spawn_blocking(move || copy_logs(&directory, process.as_ref(), &output, !has_journal)).await;
        match copied.map_err(Cause::from).and_then(|copied| copied.map_err(Cause::from)) {
            Ok(failed) => failed.into_iter().for_each(|(path, error)| problems.add(path, error)),
            Err(error) => problems.add("/var/log", error),
        }
        problems.errors
    }

    /// An array, as `docker inspect` prints one.
    fn inspect(&self, record: NodeRecord) -> Result<Vec<u8>, Cause> {
        let status = cluster::status(self.paths, self.cluster, record.clone(), self.published)?;
        let mut text = serde_json::to_vec_pretty(&[Inspected { status, record }])?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Errors of one node, each with what is missing because of it.
struct Problems<'a> {
    node: &'a str,
    errors: Vec<Error>,
}

impl Problems<'_> {
    fn add(&mut self, what: impl Into<String>, source: impl Into<Cause>) {
        let (node, source) = (self.node.to_owned(), source.into());
        self.errors.push(Error::NodeLog { node, what: what.into(), source });
    }

    fn keep<E: Into<Cause>>(&mut self, what: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.add(what, error);
        }
    }

    fn check<E: Into<Cause>>(&mut self, what: &str, part: impl FnOnce() -> Result<(), E>) {
        self.keep(what, part());
    }
}

impl Output {
    /// Copies a file that Kiln keeps; nothing if there is none.
    fn copy(&self, name: &str, directory: &Path) -> io::Result<()> {
        match fs_err::File::open(directory.join(name)) {
            Ok(mut file) => self.fill(name, &mut file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn fill(&self, name: &str, source: &mut dyn io::Read) -> io::Result<()> {
        let mut file = self.file(name.as_bytes())?;
        io::copy(source, &mut file)?;
        file.finish()
    }
}

/// Writes what journalctl says in a node.
async fn journal(process: &Process, output: &Output, name: &str, unit: Option<&str>) -> Result<(), Cause> {
    let mut args = vec!["journalctl".to_owned(), "--no-pager".to_owned()];
    args.extend(unit.map(|unit| format!("--unit={unit}")));
    let command = exec_command(process, &ExecSpec { args, ..ExecSpec::default() })?;
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("it has no output".into());
    };
    let mut file = output.file(name.as_bytes())?;
    let text = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stdout.read(&mut buffer).await? {
                0 => return file.finish(),
                length => file.write_all(&buffer[..length])?,
            }
        }
    };
    let complaint = async {
        let mut text = Vec::new();
        let mut stderr = BufReader::new(stderr);
        (&mut stderr).take(COMPLAINT as u64).read_to_end(&mut text).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&text).trim().to_owned())
    };
    let (written, complaint, status) =
        tokio::time::timeout(TIMEOUT, async { tokio::join!(text, complaint, child.wait()) })
            .await
            .map_err(|_| format!("journalctl has not ended within {} s", TIMEOUT.as_secs()))?;
    written?;
    let (complaint, status) = (complaint?, status?);
    if status.success() {
        return Ok(());
    }
    Err(format!("journalctl ended with {status}: {complaint}").into())
}

async fn list_images(process: &Process, output: &Output) -> Result<(), Cause> {
    let list = async { Containerd::connect(process).await?.images().await };
    let listed = tokio::time::timeout(TIMEOUT, list)
        .await
        .map_err(|_| format!("containerd has not answered within {} s", TIMEOUT.as_secs()))??;
    Ok(output.write("images.log", images::table(&listed).as_bytes())?)
}

/// Copies `/var/log`; returns what of it could not be copied.
fn copy_logs(
    directory: &Path,
    process: Option<&Process>,
    output: &Output,
    journal: bool,
) -> io::Result<Vec<(String, io::Error)>> {
    // A node that runs may have mounts there; of one that does not, `/var` is a directory of the host's.
    let root = process.map_or_else(|| directory.to_owned(), Process::root);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Some(mut tree) = LogTree::open(rustix::fs::open(&root, flags, Mode::empty())?)? else {
        return Ok(Vec::new());
    };
    let left_out: Vec<&str> = OWN.iter().copied().chain([JOURNAL]).collect();
    tree.copy(output, &left_out)?;
    if journal {
        tree.copy_part(JOURNAL, output)?;
    }
    let failed = tree.problems.drain(..);
    Ok(failed.map(|(path, error)| (format!("/var/log/{}", path.display()), error)).collect())
}

/// A file in the topmost of a node's layers that has it.
fn find(roots: &[std::path::PathBuf], path: &str) -> io::Result<Option<std::fs::File>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for root in roots {
        let Ok(root) = fs_err::File::open(root) else { continue };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = openat2(&root, path, flags, Mode::empty(), resolve).map(std::fs::File::from)
            && file.metadata()?.is_file()
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
