//! What goes wrong between Kiln and a registry.

use std::{io, path::PathBuf};

use crate::{Error, image::Digest};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an image could not be pulled or pushed. The error around it names the image and the registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing answers, or not as a registry does.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// The host and port.
        host: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A server wants TLS's certificate checked, and it does not pass.
    #[error("{host} has a certificate that is not trusted")]
    Certificate {
        /// The host and port.
        host: String,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// A server answers in plain text.
    #[error("{host} speaks no TLS")]
    NoTls {
        /// The host and port.
        host: String,
    },
    /// A connection was lost again and again.
    #[error("the connection to {host} was lost at {done} of {size} bytes of {digest}")]
    Cut {
        /// The host and port.
        host: String,
        /// The blob.
        digest: Digest,
        /// Bytes that had come.
        done: u64,
        /// Bytes that should have come.
        size: u64,
        /// The cause.
        #[source]
        source: Option<Cause>,
    },
    /// The registry has no such repository or tag, or does not tell.
    #[error("there is no such image{}", said(message))]
    NotFound {
        /// What the registry says.
        message: String,
    },
    /// The registry wants to know who asks, or does not know whom it was told (401).
    #[error("{}{}", if *known { "the credentials are not accepted" } else { "it wants credentials, and there are none for it" }, said(message))]
    Unauthorized {
        /// The registry.
        registry: String,
        /// Whether there were credentials.
        known: bool,
        /// What the registry says.
        message: String,
    },
    /// Whoever asks may not (403).
    #[error("access is denied{}", said(message))]
    Forbidden {
        /// The registry.
        registry: String,
        /// What the registry says.
        message: String,
    },
    /// The registry has had too many requests (429), after all patience.
    #[error("it has had too many requests{}", said(message))]
    TooManyRequests {
        /// What the registry says.
        message: String,
    },
    /// The registry answers with an error that means nothing else.
    #[error("it answers {status}{}", said(message))]
    Status {
        /// The status, such as `500 Internal Server Error`.
        status: String,
        /// What the registry says.
        message: String,
    },
    /// The registry sends something else than what was asked for.
    #[error("it sent something else than {expected}: {actual}")]
    Mismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: String,
    },
    /// The registry sends something that cannot be understood.
    #[error("it sent {what} that cannot be understood")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: Cause,
    },
    /// What has that name is not an image.
    #[error("it is not an image but {what}")]
    NotAnImage {
        /// What it is: a media type.
        what: String,
    },
    /// The image is for other platforms.
    #[error("it has no variant for {platform}")]
    NoPlatform {
        /// This host's platform.
        platform: String,
        /// Those it is for.
        present: Vec<String>,
    },
    /// The user's credentials cannot be had.
    #[error("the credentials for {registry} cannot be had: {what}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What was attempted.
        what: String,
        /// The cause.
        #[source]
        source: Option<Cause>,
    },
    /// A file that says how to reach registries cannot be used.
    #[error("{} cannot be used", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// A name, an address or a variable cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Invalid {
        /// What it is, with its value.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The store is at fault, not the registry.
    #[error(transparent)]
    Store(#[from] Box<Error>),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Problem {
    /// For a settings file that cannot be used.
    pub(super) fn settings(path: &std::path::Path, source: impl Into<Cause>) -> Self {
        Self::Settings { path: path.to_owned(), source: source.into() }
    }

    /// For credentials that cannot be had.
    pub(super) fn credentials(registry: &str, what: impl Into<String>, source: Option<io::Error>) -> Self {
        let source = source.map(Cause::from);
        Self::Credentials { registry: registry.to_owned(), what: what.into(), source }
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Certificate { .. } => Some(String::from(
                "trust who has signed it: --ca-file, SSL_CERT_FILE, or \"ca\" in certs.d/REGISTRY/hosts.toml of the state root",
            )),
            Self::NoTls { .. } => Some(String::from(
                "--plain-http asks it without TLS, for all on the way to read and to change",
            )),
            Self::Unreachable { .. } => Some(String::from(
                "check the registry's name and the network; HTTPS_PROXY and NO_PROXY say what goes through a proxy, --mirror who else has the image",
            )),
            Self::Cut { .. } => {
                Some(String::from("what has come is kept: try again, and it goes on from there"))
            }
            Self::NotFound { .. } => Some(String::from("check the name and the tag")),
            Self::Unauthorized { registry, known, .. } => Some(match known {
                true => format!("log in anew with `docker login {registry}` or `podman login {registry}`"),
                false => format!(
                    "check the name: a registry may not tell what does not exist from what is private; `docker login {registry}` \
                     writes credentials to ~/.docker/config.json, and DOCKER_CONFIG names another directory"
                ),
            }),
            Self::Forbidden { registry, .. } => Some(format!(
                "the account that `docker login {registry}` has stored needs the right to do this"
            )),
            Self::TooManyRequests { .. } => Some(String::from(
                "try again later, log in (registries allow more to those they know), or name a mirror with --mirror",
            )),
            Self::Status { status, .. } if status.starts_with('5') => {
                Some(String::from("the error is the registry's: try again later"))
            }
            Self::Mismatch { .. } => Some(String::from(
                "something on the way changes what it passes on, or the registry is damaged; nothing of it was kept",
            )),
            Self::NoPlatform { present, .. } if !present.is_empty() => {
                Some(format!("it is for {}", present.join(", ")))
            }
            Self::Credentials { .. } => Some(String::from(
                "see credHelpers and credsStore in ~/.docker/config.json, or the one that DOCKER_CONFIG names",
            )),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// What a registry says, as the end of a sentence.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
