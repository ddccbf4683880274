//! The HTTP client: TLS, authorities, proxies, redirections.

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Client, NoProxy, Proxy, Url, redirect::Policy};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::{Problem, endpoint::is_loopback};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// Redirections in a row.
const MAX_REDIRECTIONS: usize = 10;
/// What no proxy is asked for, as in Go's programs.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// A client that trusts the host's authorities and these, or anybody.
pub(super) fn client(
    authorities: &[PathBuf],
    skip_verify: bool,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Client, Problem> {
    let mut builder = Client::builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls(authorities, skip_verify)?)
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .redirect(redirections())
        .no_proxy();
    for proxy in proxies(lookup)? {
        builder = builder.proxy(proxy);
    }
    builder
        .build()
        .map_err(|error| Problem::Invalid { what: "the HTTP client".to_owned(), reason: chain(&error) })
}

fn tls(authorities: &[PathBuf], skip_verify: bool) -> Result<ClientConfig, Problem> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| Problem::Invalid { what: "TLS".to_owned(), reason: error.to_string() })?;
    if skip_verify {
        let anybody = Arc::new(Anybody(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    // SSL_CERT_FILE and SSL_CERT_DIR are heeded. A host without any certificates may still have a registry of its own.
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "an authority of this host is left out");
    }
    roots.add_parsable_certificates(native.certs);
    for path in authorities {
        let pem = fs_err::read(path).map_err(|error| Problem::settings(path, error))?;
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| Problem::settings(path, error))?;
            roots.add(certificate).map_err(|error| Problem::settings(path, error))?;
        }
        if roots.len() == before {
            return Err(Problem::settings(path, "there is no certificate in it"));
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Makes the proxy for some of the requests.
type Make = fn(&str) -> reqwest::Result<Proxy>;

/// The proxies of the environment, in upper or lower case.
fn proxies(lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<Proxy>, Problem> {
    let given = |name: &str| {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        set(&name.to_lowercase()).or_else(|| set(name))
    };
    let exceptions = match given("NO_PROXY") {
        Some(own) => format!("{LOOPBACK},{own}"),
        None => LOOPBACK.to_owned(),
    };
    let mut list = Vec::new();
    let kinds: [(&str, Make); 3] = [
        ("HTTPS_PROXY", |url| Proxy::https(url)),
        ("HTTP_PROXY", |url| Proxy::http(url)),
        ("ALL_PROXY", |url| Proxy::all(url)),
    ];
    for (name, make) in kinds {
        if let Some(value) = given(name) {
            // Credentials in it are nobody's business.
            let invalid =
                |_| Problem::Invalid { what: name.to_owned(), reason: "it is not a URL".to_owned() };
            list.push(make(&value).map_err(invalid)?.no_proxy(NoProxy::from_string(&exceptions)));
        }
    }
    Ok(list)
}

/// Follows redirections to storage, but never out of TLS. Credentials stay with the host they are for.
fn redirections() -> Policy {
    Policy::custom(|attempt| {
        let was_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if was_tls && attempt.url().scheme() != "https" {
            attempt.error("it leads from TLS to a place without it")
        } else if attempt.previous().len() > MAX_REDIRECTIONS {
            attempt.error("it leads on and on")
        } else {
            attempt.follow()
        }
    })
}

/// Whether something secret may be sent there.
pub(super) fn is_private(url: &Url, plain_http: bool) -> bool {
    url.scheme() == "https"
        || (url.scheme() == "http" && (plain_http || url.host_str().is_some_and(is_loopback)))
}

/// What a failed request means. `host` is where it went.
pub(super) fn failure(host: &str, error: reqwest::Error) -> Problem {
    use tokio_rustls::rustls::Error as Tls;
    let host = host.to_owned();
    // The cause of the deepest layer is the one that says something; the others say that something failed.
    let source: Box<dyn std::error::Error + Send + Sync> = chain(&error).into();
    match tls_error(&error) {
        Some(Tls::InvalidCertificate(_)) => Problem::Certificate { host, source },
        Some(Tls::InvalidMessage(_)) => Problem::NoTls { host },
        _ => Problem::Unreachable { host, source },
    }
}

/// Whether trying again may help at all.
pub(super) fn may_pass(error: &reqwest::Error) -> bool {
    tls_error(error).is_none() && !error.is_redirect() && !error.is_builder()
}

/// Whether the server's certificate is what is wrong.
pub(super) fn is_distrust(error: &reqwest::Error) -> bool {
    matches!(tls_error(error), Some(tokio_rustls::rustls::Error::InvalidCertificate(_)))
}

fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a tokio_rustls::rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // An I/O error does not count what it wraps among its causes, but the causes of that.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| tls_error(inner)) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// The innermost causes of a failed request, without its URL, which may have a signature in it.
fn chain(error: &reqwest::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !causes.last().is_some_and(|last| last.contains(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes.retain(|cause| cause != "client error (Connect)" && cause != "tcp connect error");
    if causes.is_empty() {
        causes.push(if error.is_timeout() {
            "it does not answer in time".to_owned()
        } else {
            error.to_string()
        });
    }
    causes.join(": ")
}

/// Takes any certificate; only where a file of the user's asks for it.
#[derive(Debug)]
struct Anybody(Arc<tokio_rustls::rustls::crypto::CryptoProvider>);

mod anybody {
    use tokio_rustls::rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{verify_tls12_signature, verify_tls13_signature},
    };

    use super::{Anybody, CertificateDer, ServerName, UnixTime};

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _certificate: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
