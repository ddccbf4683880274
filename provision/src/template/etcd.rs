//! The little of etcd's API that templates need: read a range, put a value, have another member lead
//! (<https://etcd.io/docs/v3.6/learning/api/>).

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// The cause of a failure; the caller knows the node.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// All of a fresh cluster is less than a megabyte; one that is in use may be more than tonic's limit of four.
const LARGEST_ANSWER: usize = 256 << 20;

/// Requests under way at once. etcd writes those that come together as one.
const PARALLEL: usize = 128;

/// Between two tries of what nobody tells the time of.
const SOON: Duration = Duration::from_millis(20);

/// A connection to an etcd.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    channel: Channel,
}

/// What proves to an etcd who asks: all in PEM.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// A key with its value.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes, tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes, tag = "5")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    target_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MoveLeaderResponse {}

/// Who a member is, and who leads it: nobody is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) member: u64,
    pub(crate) leader: u64,
}

impl Etcd {
    /// Connects to a member of a cluster, at its address.
    pub(crate) async fn secure(address: SocketAddr, credentials: &Credentials) -> Result<Self, Cause> {
        let connector = connector(credentials)?;
        let connect = move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(
                    connector.connect(ServerName::from(address.ip()), stream).await?,
                ))
            }
        };
        let endpoint = Endpoint::from_static("http://etcd");
        Ok(Self { channel: endpoint.connect_with_connector(tower::service_fn(connect)).await? })
    }

    /// Returns when a member of a cluster serves its clients. Never ends if it never does: callers bound it.
    ///
    /// # Errors
    /// That the credentials cannot be used.
    pub(crate) async fn serves(address: SocketAddr, credentials: &Credentials) -> Result<(), Cause> {
        let connector = connector(credentials)?;
        loop {
            let connected = async {
                let stream = TcpStream::connect(address).await?;
                connector.connect(ServerName::from(address.ip()), stream).await
            };
            if connected.await.is_ok() {
                return Ok(());
            }
            // Nothing tells when a process in another namespace begins to listen.
            tokio::time::sleep(SOON).await;
        }
    }

    /// Connects to an etcd that listens on a socket of this host.
    pub(crate) async fn local(socket: PathBuf) -> Result<Self, Cause> {
        let connect = move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        };
        let endpoint = Endpoint::from_static("http://etcd");
        Ok(Self { channel: endpoint.connect_with_connector(tower::service_fn(connect)).await? })
    }

    /// Everything whose key begins with `prefix`, in the order of the keys.
    pub(super) async fn all(&self, prefix: &str) -> Result<Vec<KeyValue>, Cause> {
        let request = RangeRequest { key: prefix.into(), range_end: after(prefix.as_bytes()) };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs)
    }

    /// Puts values, many at a time.
    pub(crate) async fn put(&self, values: Vec<KeyValue>) -> Result<(), Cause> {
        stream::iter(values)
            .map(|KeyValue { key, value }| async {
                let _: PutResponse = self.call("/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
                Ok(())
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// Who this member is, and who leads it.
    pub(crate) async fn standing(&self) -> Result<Standing, Cause> {
        let answer: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        Ok(Standing { member: answer.header.unwrap_or_default().member_id, leader: answer.leader })
    }

    /// Has this member, which leads, give that to another, and returns when it has.
    pub(crate) async fn give_lead(&self, target_id: u64) -> Result<(), Cause> {
        let request = MoveLeaderRequest { target_id };
        let _: MoveLeaderResponse = self.call("/etcdserverpb.Maintenance/MoveLeader", request).await?;
        Ok(())
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Cause>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        grpc.ready().await?;
        let answer = grpc
            .unary(
                tonic::Request::new(request),
                PathAndQuery::from_static(path),
                ProstCodec::<Q, A>::default(),
            )
            .await?;
        Ok(answer.into_inner())
    }
}

fn connector(credentials: &Credentials) -> Result<TlsConnector, Cause> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(credentials.ca.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(credentials.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The first key that does not begin with `prefix`.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's word for "to the end".
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_what_does_not_begin_so() {
        assert_eq!(after(b"/registry/"), b"/registry0");
        assert_eq!(after(b"a\xff"), b"b");
        assert_eq!(after(b"\xff"), [0]);
    }
}
