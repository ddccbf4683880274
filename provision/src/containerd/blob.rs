//! Content that goes into a node: where its bytes are, and bringing them there.

use std::{collections::HashMap, io::Read};

use containerd_client::{
    services::v1::{
        AddResourceRequest, Info, InfoRequest, Resource, UpdateRequest, WriteAction, WriteContentRequest,
    },
    tonic::Code,
    types::Descriptor,
};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Containerd, Supply, call, leased};
use crate::{Error, Result, image::BlobSource};

/// Bytes per message. containerd takes at most 16 MiB.
const CHUNK: usize = 1 << 20;

/// Messages that may wait for containerd.
const QUEUE: usize = 4;

/// One piece of content: a manifest, a configuration or a layer.
#[derive(Clone, Debug)]
pub struct Blob {
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// Its OCI or Docker media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub data: BlobData,
}

/// Where the bytes of a [`Blob`] are.
#[derive(Clone, Debug)]
pub enum BlobData {
    /// In a file of the host.
    Source(BlobSource),
    /// In memory.
    Bytes(Vec<u8>),
}

impl Blob {
    /// The blob as containerd describes it.
    pub(super) fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: signed(self.size),
            annotations: HashMap::new(),
        }
    }
}

impl Containerd {
    /// Brings a blob into the node unless it is there: from the supply, if there is one, where others may want it too.
    /// Either way it is held by the lease and carries the labels afterwards. Returns the number of bytes that the node did
    /// not have.
    ///
    /// # Errors
    /// [`Error::ContainerdCall`] when containerd refuses it, [`Error::File`] when it cannot be read, and from the supply
    /// [`Error::Unfit`].
    pub(super) async fn bring(
        &self,
        blob: &Blob,
        labels: &HashMap<String, String>,
        supply: Option<&Supply>,
        lease: &str,
    ) -> Result<u64> {
        if self.has_content(&blob.digest).await? {
            self.hold(&blob.digest, lease).await?;
            self.label(&blob.digest, labels).await?;
            return Ok(0);
        }
        let (BlobData::Source(source), Some(supply)) = (&blob.data, supply) else {
            return self.send(blob, labels, lease).await;
        };
        let staged = supply.staged(blob, source).await?;
        if self.link(&staged, blob, labels, lease).await? {
            return Ok(blob.size);
        }
        let data = BlobData::Source(BlobSource::Parked(staged));
        self.send(&Blob { data, ..blob.clone() }, labels, lease).await
    }

    /// Sends the bytes of a blob.
    async fn send(&self, blob: &Blob, labels: &HashMap<String, String>, lease: &str) -> Result<u64> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let reader = tokio::task::spawn_blocking({
            let (blob, labels) = (blob.clone(), labels.clone());
            // Containerd locks a write by its name: one of its own for each import lets several send the same content.
            let name = format!("{lease}-{}", blob.digest);
            move || read(&blob, &name, labels, &sender)
        });
        let sent = self.write(receiver, blob, lease).await;
        let read = reader.await.map_err(|source| Error::File {
            what: "read content for a node",
            source: std::io::Error::other(source),
        })?;
        // A file that cannot be read ends the stream early, which containerd then complains about: tell the cause.
        read.map_err(|source| Error::File { what: "read content for a node", source })?;
        if sent? {
            Ok(blob.size)
        } else {
            // Somebody else's write of the same content has won.
            self.hold(&blob.digest, lease).await?;
            self.label(&blob.digest, labels).await?;
            Ok(0)
        }
    }

    /// Whether the node has the content.
    pub(super) async fn has_content(&self, digest: &str) -> Result<bool> {
        let message = InfoRequest { digest: digest.to_owned() };
        match self.client.content().info(super::request(message)).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(call("look for", digest)(status)),
        }
    }

    /// Adds labels to content that is there.
    pub(super) async fn label(&self, digest: &str, labels: &HashMap<String, String>) -> Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        let message = UpdateRequest {
            info: Some(Info { digest: digest.to_owned(), labels: labels.clone(), ..Default::default() }),
            update_mask: Some(FieldMask {
                paths: labels.keys().map(|key| format!("labels.{key}")).collect(),
            }),
        };
        self.client.content().update(super::request(message)).await.map_err(call("label", digest))?;
        Ok(())
    }

    async fn hold(&self, digest: &str, lease: &str) -> Result<()> {
        let message = AddResourceRequest {
            id: lease.to_owned(),
            resource: Some(Resource { id: digest.to_owned(), r#type: "content".to_owned() }),
        };
        self.client.leases().add_resource(super::request(message)).await.map_err(call("hold", digest))?;
        Ok(())
    }

    /// Writes a stream of messages. Returns whether they were taken; `false` when the content is there already.
    async fn write(
        &self,
        messages: mpsc::Receiver<WriteContentRequest>,
        blob: &Blob,
        lease: &str,
    ) -> Result<bool> {
        let failed = || call("write", blob.digest.clone());
        let stream = match self.client.content().write(leased(ReceiverStream::new(messages), lease)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(false),
            Err(status) => return Err(failed()(status)),
        };
        let mut answers = stream;
        let mut committed = false;
        loop {
            match answers.message().await {
                Ok(Some(answer)) => committed = answer.action == WriteAction::Commit as i32,
                Ok(None) => break,
                Err(status) if status.code() == Code::AlreadyExists => return Ok(false),
                Err(status) => return Err(failed()(status)),
            }
        }
        if committed {
            Ok(true)
        } else {
            Err(failed()(containerd_client::tonic::Status::aborted("the content was not taken to its end")))
        }
    }
}

/// Reads a blob into messages of the write `name`. Ends early when nobody takes them any more.
fn read(
    blob: &Blob,
    name: &str,
    labels: HashMap<String, String>,
    messages: &mpsc::Sender<WriteContentRequest>,
) -> std::io::Result<()> {
    let mut source: Box<dyn Read> = match &blob.data {
        BlobData::Source(source) => source.open()?,
        BlobData::Bytes(bytes) => Box::new(bytes.as_slice()),
    };
    let message = |action: WriteAction, offset: u64, data: Vec<u8>| WriteContentRequest {
        action: action as i32,
        r#ref: name.to_owned(),
        total: signed(blob.size),
        expected: blob.digest.clone(),
        offset: signed(offset),
        data,
        labels: HashMap::new(),
    };
    let mut offset = 0;
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        source.by_ref().take(CHUNK as u64).read_to_end(&mut data)?;
        if data.is_empty() {
            break;
        }
        let length = data.len() as u64;
        if messages.blocking_send(message(WriteAction::Write, offset, data)).is_err() {
            return Ok(());
        }
        offset += length;
    }
    let mut commit = message(WriteAction::Commit, offset, Vec::new());
    commit.labels = labels;
    // Not taken: the answer says why.
    let _ = messages.blocking_send(commit);
    Ok(())
}

/// Sizes are signed in containerd's messages.
pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(blob: &Blob) -> Vec<WriteContentRequest> {
        let (sender, mut receiver) = mpsc::channel(64);
        read(blob, "w", HashMap::from([("k".to_owned(), "v".to_owned())]), &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn a_blob_becomes_chunks_and_one_commit_with_the_labels() {
        let bytes = vec![7; CHUNK + 3];
        let blob = Blob {
            digest: "sha256:x".to_owned(),
            media_type: String::new(),
            size: bytes.len() as u64,
            data: BlobData::Bytes(bytes),
        };
        let messages = messages(&blob);
        let shape: Vec<_> =
            messages.iter().map(|m| (m.action, m.offset, m.data.len(), m.labels.len())).collect();
        let (write, commit) = (WriteAction::Write as i32, WriteAction::Commit as i32);
        let chunk = CHUNK as i64;
        assert_eq!(shape, [(write, 0, CHUNK, 0), (write, chunk, 3, 0), (commit, chunk + 3, 0, 1)]);
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let blob = Blob {
            digest: "sha256:x".to_owned(),
            media_type: String::new(),
            size: 1,
            data: BlobData::Source(BlobSource::File("/nonexistent/blob".into())),
        };
        let (sender, _receiver) = mpsc::channel(1);
        let error = read(&blob, "w", HashMap::new(), &sender).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/blob"), "{error}");
    }
}
