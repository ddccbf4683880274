//! The images of a containerd that the host runs itself, which are only read.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use containerd_client::{
    Client,
    services::v1::{GetImageRequest, InfoRequest, ReadContentRequest, ReadContentResponse},
    tonic::{Code, Status, Streaming, transport::Channel},
};
use oci_spec::image::{Descriptor, MediaType};
use tokio::runtime::Handle;

use super::{call, in_namespace};
use crate::{
    Error, Result,
    image::{Blobs, Digest},
};

/// A connection to the host's containerd.
pub(crate) struct HostContainerd(Channel);

impl HostContainerd {
    /// Connects to the containerd that listens on `socket`.
    ///
    /// # Errors
    /// [`Error::ContainerdConnect`] when nobody does.
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let connected = containerd_client::connect(socket).await;
        connected
            .map(Self)
            .map_err(|source| Error::ContainerdConnect { socket: socket.to_owned(), source: source.into() })
    }

    /// What a name stands for in a namespace.
    ///
    /// # Errors
    /// [`Error::ContainerdCall`], [`Error::InvalidDigest`].
    pub(crate) async fn find(&self, namespace: &str, name: &str) -> Result<Option<Descriptor>> {
        let message = in_namespace(namespace, GetImageRequest { name: name.to_owned() });
        let target = match Client::from(self.0.clone()).images().get(message).await {
            Ok(answer) => answer.into_inner().image.and_then(|image| image.target),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(call("look for the image", name)(status)),
        };
        target
            .map(|target| {
                let digest = Digest::try_new(&target.digest)?;
                let size = u64::try_from(target.size).unwrap_or_default();
                Ok(Descriptor::new(MediaType::from(target.media_type.as_str()), size, digest))
            })
            .transpose()
    }

    /// The content of a namespace. To be read by threads that may block, while the runtime of the caller lives.
    pub(crate) fn blobs(&self, namespace: &str) -> Arc<dyn Blobs> {
        let namespace = namespace.to_owned();
        Arc::new(HostBlobs { channel: self.0.clone(), namespace, runtime: Handle::current() })
    }
}

struct HostBlobs {
    channel: Channel,
    namespace: String,
    runtime: Handle,
}

impl fmt::Debug for HostBlobs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HostBlobs").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Blobs for HostBlobs {
    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        let message = in_namespace(&self.namespace, InfoRequest { digest: digest.to_string() });
        match self.runtime.block_on(Client::from(self.channel.clone()).content().info(message)) {
            Ok(answer) => {
                let size = answer.into_inner().info.map(|info| info.size).unwrap_or_default();
                Ok(Some(u64::try_from(size).unwrap_or_default()))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(status)),
        }
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let message = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let message = in_namespace(&self.namespace, message);
        let stream = self.runtime.block_on(Client::from(self.channel.clone()).content().read(message));
        let stream = stream.map_err(failed)?.into_inner();
        let mut reader =
            HostReader { stream, runtime: self.runtime.clone(), piece: io::Cursor::new(Vec::new()) };
        // That there is no such content is said in place of the first piece.
        reader.advance()?;
        Ok(Box::new(reader))
    }
}

/// Content on its way from containerd.
struct HostReader {
    stream: Streaming<ReadContentResponse>,
    runtime: Handle,
    piece: io::Cursor<Vec<u8>>,
}

impl HostReader {
    /// Takes the next piece. Without one, the last stays, which has been read to its end.
    fn advance(&mut self) -> io::Result<bool> {
        match self.runtime.block_on(self.stream.message()).map_err(failed)? {
            Some(answer) => {
                self.piece = io::Cursor::new(answer.data);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

impl Read for HostReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() || !self.advance()? {
                return Ok(count);
            }
        }
    }
}

fn failed(status: Status) -> io::Error {
    let kind = if status.code() == Code::NotFound { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
    io::Error::new(kind, status)
}
