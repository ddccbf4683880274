//! Giving a node content by a link to a file of the host, in place of its bytes.
//!
//! The content store of containerd lets namespaces share content unless its policy is `isolated`: a write that announces the
//! digest of a file that is there begins at the file's end, and only has to be committed. So a hard link in the node's
//! directory of blobs and two messages are all that a node needs; containerd takes the file for what its name says, which
//! whoever has made it has verified.
//!
//! Its garbage collector removes files that no record and no write names, such as one that was just linked. That cannot
//! happen behind our back: collecting and beginning a write exclude each other, and a write that has begun with the file names
//! it. So either the write tells that it begins at the end, and the file stays, or it does not, and the bytes are sent.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use containerd_client::{
    services::v1::{PluginsRequest, WriteAction, WriteContentRequest},
    tonic::Code,
};
use kiln_runtime::Process;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, linkat, openat2};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Blob, Containerd, blob::signed, call, leased};
use crate::{Error, Result};

/// The types of the plugins that tell where content is, and whether it is shared.
const CONTENT: &str = "io.containerd.content.v1";
const METADATA: &str = "io.containerd.metadata.v1";

/// The directory of blobs in that of the content store.
const BLOBS: &str = "blobs/sha256";

/// Where a node's `/var` is in the node.
const VAR: &str = "/var/";

/// The directory that a node's containerd has blobs in, as the host reaches it.
#[derive(Clone, Debug)]
pub(super) struct BlobDirectory(Arc<OwnedFd>);

impl BlobDirectory {
    /// Opens the directory of blobs in the content store at `root` of a node whose `/var` is `var`.
    ///
    /// Processes of the node may have put anything in its `/var`, so no symbolic link is followed there: what is opened is on
    /// the host where `var` is, whatever the node says.
    ///
    /// # Errors
    /// It cannot be reached so, or is not what the node sees under this name: something may be mounted over it there.
    fn open(var: &Path, node: &Path, root: &str) -> io::Result<Self> {
        let path = format!("{}/{BLOBS}", root.trim_end_matches('/'));
        let below = path.strip_prefix(VAR).ok_or_else(|| other("it is not below /var"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let var = rustix::fs::open(var, flags, Mode::empty())?;
        let here = openat2(var, below, flags, Mode::empty(), resolve)?;
        let node = rustix::fs::open(node, flags, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let (ours, theirs) = (fstat(&here)?, fstat(openat2(node, &path, flags, Mode::empty(), resolve)?)?);
        if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) {
            Ok(Self(Arc::new(here)))
        } else {
            Err(other("the node has another directory there"))
        }
    }

    /// Gives a file the name of a digest. One that is there under that name stays, and is an error: nobody knows whose it is.
    fn link(&self, file: &Path, digest: &str) -> io::Result<()> {
        let name = digest.strip_prefix("sha256:").ok_or_else(|| other("it is no SHA-256"))?;
        Ok(linkat(CWD, file, &*self.0, name, AtFlags::empty())?)
    }
}

fn other(problem: &'static str) -> io::Error {
    io::Error::other(problem)
}

impl Containerd {
    /// Has content given by links from now on, where that can be. `var` is what the node has as its `/var`.
    pub(crate) async fn with_links(mut self, process: &Process, var: PathBuf) -> Self {
        let Some(root) = self.shared_content().await else { return self };
        let opened = || -> Result<BlobDirectory> {
            // What the process id leads to is only the node's while this holds.
            let _pidfd = process.open_pidfd()?;
            BlobDirectory::open(&var, &process.root(), &root)
                .map_err(Error::file("find the content of a node's containerd"))
        };
        match opened() {
            Ok(blobs) => self.blobs = Some(blobs),
            Err(error) => tracing::debug!(var = %var.display(), %error, "content is sent, not linked"),
        }
        self
    }

    /// The directory of the content store if its files are shared between namespaces: that is told by containerd from 1.2 on.
    async fn shared_content(&self) -> Option<String> {
        let filters = [CONTENT, METADATA].map(|kind| format!("type=={kind}")).to_vec();
        let answer = self.client.introspection().plugins(PluginsRequest { filters }).await;
        let mut plugins = answer
            .inspect_err(|error| tracing::debug!(%error, "containerd does not tell its plugins"))
            .ok()?
            .into_inner()
            .plugins;
        let metadata = plugins.iter().find(|plugin| plugin.r#type == METADATA)?;
        if metadata.exports.get("policy").is_none_or(|policy| policy != "shared") {
            return None;
        }
        plugins.retain(|plugin| plugin.r#type == CONTENT);
        match &mut plugins[..] {
            [content] => content.exports.remove("root"),
            // Which of several has the content is not told.
            _ => None,
        }
    }

    /// Gives the node a blob by a link to `file`, which has its content and will not change. It is held by the lease then
    /// and carries the labels. Returns whether that was possible; if not, the blob has to be sent.
    ///
    /// # Errors
    /// [`Error::ContainerdCall`].
    pub(super) async fn link(
        &self,
        file: &Path,
        blob: &Blob,
        labels: &HashMap<String, String>,
        lease: &str,
    ) -> Result<bool> {
        let Some(blobs) = &self.blobs else { return Ok(false) };
        // An answer to a write of nothing does not tell whether the file was found.
        if blob.size == 0 {
            return Ok(false);
        }
        if let Err(error) = blobs.link(file, &blob.digest) {
            tracing::debug!(digest = blob.digest, %error, "a blob is sent, not linked");
            return Ok(false);
        }
        self.commit_linked(blob, labels, lease).await
    }

    async fn commit_linked(
        &self,
        blob: &Blob,
        labels: &HashMap<String, String>,
        lease: &str,
    ) -> Result<bool> {
        let failed = || call("take the link to", blob.digest.clone());
        let message = |action: WriteAction, offset: i64| WriteContentRequest {
            action: action as i32,
            // Not the name that it would be sent under.
            r#ref: format!("{lease}-link-{}", blob.digest),
            total: signed(blob.size),
            expected: blob.digest.clone(),
            offset,
            ..Default::default()
        };
        let (sender, receiver) = mpsc::channel(2);
        // There is room for both, so that neither waits.
        let _ = sender.try_send(message(WriteAction::Stat, 0));
        let mut answers =
            match self.client.content().write(leased(ReceiverStream::new(receiver), lease)).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(false),
                Err(status) => return Err(failed()(status)),
            };
        let mut sender = Some(sender);
        let mut committed = false;
        loop {
            match answers.message().await {
                Ok(Some(answer)) if answer.action == WriteAction::Stat as i32 => {
                    // Without a commit the write ends here, and what it has begun ends with the lease.
                    if let Some(sender) = sender.take()
                        && answer.offset == signed(blob.size)
                    {
                        let commit = message(WriteAction::Commit, answer.offset);
                        let _ = sender.try_send(WriteContentRequest { labels: labels.clone(), ..commit });
                    }
                }
                Ok(Some(answer)) => committed = answer.action == WriteAction::Commit as i32,
                Ok(None) => return Ok(committed),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(false),
                Err(status) => return Err(failed()(status)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    const ROOT: &str = "/var/lib/containerd/content";

    /// A node whose root has its `/var` in place of a mount.
    struct Node(tempfile::TempDir);

    impl Node {
        fn new() -> Self {
            let node = Self(tempfile::tempdir().unwrap());
            fs_err::create_dir_all(node.blobs()).unwrap();
            node
        }

        fn var(&self) -> PathBuf {
            self.0.path().join("var")
        }

        fn blobs(&self) -> PathBuf {
            self.var().join("lib/containerd/content").join(BLOBS)
        }

        fn open(&self) -> io::Result<BlobDirectory> {
            BlobDirectory::open(&self.var(), self.0.path(), ROOT)
        }
    }

    #[test]
    fn a_blob_is_linked_once() {
        let node = Node::new();
        let file = node.0.path().join("staged");
        fs_err::write(&file, "x").unwrap();
        let blobs = node.open().unwrap();
        blobs.link(&file, "sha256:aa").unwrap();
        let linked = fs_err::metadata(node.blobs().join("aa")).unwrap();
        assert_eq!((linked.nlink(), linked.ino()), (2, fs_err::metadata(&file).unwrap().ino()));
        assert_eq!(blobs.link(&file, "sha256:aa").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(blobs.link(&file, "sha512:aa").is_err());
    }

    #[test]
    fn links_that_a_node_has_planted_lead_nowhere() {
        let (node, outside) = (Node::new(), tempfile::tempdir().unwrap());
        for planted in [node.blobs(), node.var().join("lib/containerd")] {
            fs_err::remove_dir_all(&planted).unwrap();
            let target = outside.path().join(planted.file_name().unwrap());
            fs_err::create_dir_all(target.join("content").join(BLOBS)).unwrap();
            symlink(&target, &planted).unwrap();
            assert!(node.open().is_err());
            // Nor do those that stay in the node.
            fs_err::remove_file(&planted).unwrap();
            let moved = node.var().join("moved").join(planted.file_name().unwrap());
            fs_err::create_dir_all(moved.join("content").join(BLOBS)).unwrap();
            symlink(&moved, &planted).unwrap();
            assert!(node.open().is_err());
        }
        assert!(BlobDirectory::open(&node.var(), node.0.path(), "/var/../../etc").is_err());
        assert!(BlobDirectory::open(&node.var(), node.0.path(), "/data").is_err());
    }

    #[test]
    fn what_the_node_sees_elsewhere_is_not_written_to() {
        let (node, mounted) = (Node::new(), Node::new());
        assert!(BlobDirectory::open(&node.var(), mounted.0.path(), ROOT).is_err());
    }
}
