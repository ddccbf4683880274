//! Asking an API server whether it is well: `GET /healthz` over TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::health::Finding;

/// For the whole of a check, a connection made anew included.
pub(super) const TIMEOUT: Duration = Duration::from_millis(900);

/// The head of an answer, and the body of one that is read to its end, are no longer. The API server's are a tenth.
const LARGEST: usize = 8 << 10;

/// Asks one API server, over one connection for as long as that lasts.
pub(super) struct Probe {
    address: SocketAddr,
    connector: TlsConnector,
    kept: Option<TlsStream<TcpStream>>,
}

impl Probe {
    pub(super) fn new(address: SocketAddr) -> Self {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has a suite for each version of TLS")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody { provider }))
            .with_no_client_auth();
        Self { address, connector: TlsConnector::from(Arc::new(config)), kept: None }
    }

    /// Asks once.
    pub(super) async fn ask(&mut self) -> Finding {
        match time::timeout(TIMEOUT, self.try_ask()).await {
            Ok(Ok(status)) => Finding::Status(status),
            Ok(Err(error)) => Finding::Failure(format!("no answer: {error}")),
            // The connection went with the question.
            Err(_) => Finding::Failure(format!("no answer within {} ms", TIMEOUT.as_millis())),
        }
    }

    async fn try_ask(&mut self) -> io::Result<u16> {
        // A server may close a connection that it finds idle, which says nothing of how it is.
        if let Some(stream) = self.kept.take()
            && let Ok(status) = self.exchange(stream).await
        {
            return Ok(status);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = self.connector.connect(name, stream).await?;
        self.exchange(stream).await
    }

    /// One request and the status of its answer. The connection is kept if the next one can use it.
    async fn exchange(&mut self, mut stream: TlsStream<TcpStream>) -> io::Result<u16> {
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nUser-Agent: kiln-balancer\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;

        let mut answer = Vec::new();
        let end = loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if answer.len() > LARGEST {
                return Err(no_http());
            }
        };
        let head = Head::parse(&answer[..end]).ok_or_else(no_http)?;
        if let Some(length) = head.reusable_after {
            let end = end + 4 + length;
            while answer.len() < end && stream.read_buf(&mut answer).await? > 0 {}
            if answer.len() == end {
                self.kept = Some(stream);
            }
        }
        Ok(head.status)
    }
}

fn no_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP")
}

/// What matters of the head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the body, when these are few and the connection can be used for another request after them.
    reusable_after: Option<usize>,
}

impl Head {
    fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(head).ok()?.split("\r\n");
        let (version, rest) = lines.next()?.split_once(' ')?;
        if !version.starts_with("HTTP/1.") {
            return None;
        }
        let status = rest.split(' ').next()?;
        let status = status.parse().ok().filter(|_| status.len() == 3)?;
        let (mut length, mut closes) = (None, version != "HTTP/1.1");
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok().filter(|length| *length <= LARGEST);
            } else if name.eq_ignore_ascii_case("connection") {
                closes |= value.eq_ignore_ascii_case("close");
            }
        }
        Some(Self { status, reusable_after: length.filter(|_| !closes) })
    }
}

/// Takes any certificate. The balancer starts before the cluster has a CA, sends nothing that is secret, and believes
/// nothing but that something answers; it is the client of the API server who checks whom it is talking to.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Option<(u16, Option<usize>)> {
        Head::parse(text.as_bytes()).map(|head| (head.status, head.reusable_after))
    }

    #[test]
    fn answers_are_understood() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 2"), Some((200, Some(2))));
        assert_eq!(head("HTTP/1.1 403\r\ncontent-length:17\r\nAudit-Id: a:b"), Some((403, Some(17))));
        assert_eq!(head("HTTP/1.1 500 Internal Server Error"), Some((500, None)));
    }

    #[test]
    fn connections_are_only_kept_when_that_is_safe() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close"), Some((200, None)));
        assert_eq!(head("HTTP/1.0 200 OK\r\nContent-Length: 2"), Some((200, None)));
        assert_eq!(head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"), Some((200, None)));
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615"), Some((200, None)));
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        for text in ["", "SSH-2.0-x", "HTTP/2 200", "HTTP/1.1 20", "HTTP/1.1 ok", "HTTP/1.1"] {
            assert_eq!(head(text), None, "{text:?}");
        }
        assert_eq!(Head::parse(b"HTTP/1.1 200 \xff"), None);
    }
}
