//! Registries: pulling images into the store, and pushing them from there.
//!
//! A registry is asked by the distribution protocol, OCI's and Docker's. What it sends is verified while it comes in, blob
//! by blob, and goes through [`Partial`](crate::image::Partial) files: a blob that was cut is continued, within one pull
//! and by the next one, and of two pulls that want the same blob one waits for the other. An image gets its name when all
//! of it is there.
//!
//! Where a registry answers, and which mirrors are asked before it, is said by [`RegistryOptions`] and by
//! `certs.d/REGISTRY/hosts.toml` in the state root, which is containerd's format. Credentials are Docker's.

mod authorization;
mod challenge;
mod credential;
mod document;
mod download;
mod endpoint;
mod http;
mod meter;
mod problem;
mod pull;
mod push;
mod retry;
mod session;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, str::FromStr};

pub use problem::Problem;
pub use pull::{Pulled, pull};
pub use push::{Pushed, push};
pub use retry::Retry;

use crate::{Error, Result, image::Reference};

/// How registries are to be reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Asked before the registries themselves, in this order.
    pub mirrors: Vec<Mirror>,
    /// Certificates of authorities that are trusted in addition to the host's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Ask the registry without TLS. On loopback that is done without asking when it speaks no TLS.
    pub plain_http: bool,
    /// How failures that may pass are met.
    pub retry: Retry,
}

/// A server that has what a registry has: `URL` for any registry, or `REGISTRY=URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry whose images it has, such as `docker.io`; any, if there is none.
    pub registry: Option<String>,
    /// Where it answers: `https://HOST[:PORT][/PATH]`, `http://…`, or without the scheme.
    pub url: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (registry, url) = match text.split_once('=') {
            Some((registry, url)) => (Some(registry.to_owned()), url),
            None => (None, text),
        };
        endpoint::parse(url)?;
        if registry.as_ref().is_some_and(|registry| registry.is_empty() || registry.contains('/')) {
            return Err(String::from("what precedes \"=\" is not a registry such as docker.io"));
        }
        Ok(Self { registry, url: url.to_owned() })
    }
}

/// Whether a registry may be asked for an image. Kiln's own node images are on none: a name like theirs must not lead to
/// what a stranger has put there.
#[must_use]
pub fn is_on_registries(name: &Reference) -> bool {
    name.repository() != crate::build::default_image().repository()
}

/// The name of an image that is to be pulled or pushed.
fn check_name(name: &Reference) -> Result<()> {
    if is_on_registries(name) { Ok(()) } else { Err(Error::NoSuchImage { image: name.familiar() }) }
}
