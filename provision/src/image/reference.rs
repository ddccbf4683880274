//! The name of an image, as Docker's command line understands it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Digest;
use crate::{Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// A complete image name: `DOMAIN/PATH[:TAG][@DIGEST]`, with a tag, a digest or both. Short names are completed as
/// Docker does it: `busybox` is `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a complete or a short name.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] says which rule is broken.
    pub fn try_new(value: &str) -> Result<Self> {
        parse(value).map_err(|problem| Error::InvalidReference { value: value.to_owned(), problem })
    }

    /// The registry's host and, if given, port: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The repository with its registry: `docker.io/library/busybox`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag; `None` only where there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the name pins.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The name as people write it: without `docker.io` and `library`, unless it would mean something else then.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix(DEFAULT_DOMAIN).and_then(|rest| rest.strip_prefix('/'));
        let shorter = short.and_then(|short| short.strip_prefix(OFFICIAL));
        // What comes first then could read as a registry, or as an image ID.
        let is_this = |form: &&str| parse(form).is_ok_and(|read| read == *self);
        [shorter, short].into_iter().flatten().find(is_this).unwrap_or(&full).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        Self::try_new(value)
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(value: String) -> Result<Self> {
        Self::try_new(&value)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

fn parse(value: &str) -> Result<Reference, &'static str> {
    if value.is_empty() {
        return Err("it is empty");
    }
    let (name, digest) = match value.split_once('@') {
        Some((name, digest)) => {
            (name, Some(Digest::try_new(digest).map_err(|_| "what follows \"@\" is not a sha256 digest")?))
        }
        None => (value, None),
    };
    // A colon before the last slash belongs to a port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }

    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest.to_owned()),
        Some(_) => (DEFAULT_DOMAIN, name.to_owned()),
        None => (DEFAULT_DOMAIN, format!("{OFFICIAL}{name}")),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    let path =
        if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path };
    check_domain(domain)?;
    check_path(&path)?;
    if name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits are an image ID");
    }

    let tag = match (tag, digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// Whether the first part of a name is a host rather than a part of the repository.
fn is_domain(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    let problem = "its registry is not a host name or address";
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(problem)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| problem)?;
            (None, port.strip_prefix(':').or_else(|| port.is_empty().then_some("0")).ok_or(problem)?)
        }
        None => {
            let (host, port) = domain.split_once(':').unwrap_or((domain, "0"));
            (Some(host), port)
        }
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return Err("its registry's port is not a number up to 65535");
    }
    let valid_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match host {
        Some(host) if !host.split('.').all(valid_label) => Err(problem),
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > MAX_PATH {
        return Err("its repository is longer than 255 bytes");
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("its repository has upper-case letters");
    }
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err(
            "the parts of its repository are lower-case letters and digits, with \".\", \"_\", \"__\" or \"-\" between them",
        )
    }
}

/// Runs of letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_component(part: &str) -> bool {
    let is_alphanumeric = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    is_alphanumeric(first)
        && is_alphanumeric(last)
        && bytes.split(|&byte| is_alphanumeric(byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
        })
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if tag.is_empty() || tag.len() > MAX_TAG || tag.starts_with(['.', '-']) || !tag.bytes().all(valid) {
        return Err(
            "its tag is not 1 to 128 letters, digits, \"_\", \".\" or \"-\" (the last two not first)",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_completed_and_shortened_again() {
        let cases = [
            ("kiln/node:v1.34.4", "docker.io/kiln/node:v1.34.4", "kiln/node:v1.34.4"),
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("index.docker.io/kindest/node", "docker.io/kindest/node:latest", "kindest/node:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a/b:T_1", "localhost:5000/a/b:T_1", "localhost:5000/a/b:T_1"),
            ("registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10.1"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[fe80::1]/a", "[fe80::1]/a:latest", "[fe80::1]/a:latest"),
            ("Host/a", "Host/a:latest", "Host/a:latest"),
            ("a--b/c__d.e", "docker.io/a--b/c__d.e:latest", "a--b/c__d.e:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("docker.io/localhost/a", "docker.io/localhost/a:latest", "docker.io/localhost/a:latest"),
            ("docker.io/a.b", "docker.io/library/a.b:latest", "a.b:latest"),
        ];
        for (given, full, familiar) in cases {
            let reference = Reference::try_new(given).unwrap();
            assert_eq!(reference.to_string(), full, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
            assert_eq!(Reference::try_new(familiar).unwrap(), reference, "{given}");
        }
        let like_an_id = format!("library/{HEX}:1");
        assert_eq!(Reference::try_new(&like_an_id).unwrap().familiar(), like_an_id);
    }

    #[test]
    fn digests_stand_beside_or_instead_of_tags() {
        let pinned = Reference::try_new(&format!("a@sha256:{HEX}")).unwrap();
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(Digest::of(b""))));
        let both = Reference::try_new(&format!("localhost:1/a:b@sha256:{HEX}")).unwrap();
        assert_eq!(both.to_string(), format!("localhost:1/a:b@sha256:{HEX}"));
        assert_eq!((both.domain(), both.path(), both.tag()), ("localhost:1", "a", Some("b")));
    }

    #[test]
    fn broken_names_are_refused() {
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a:",
            "a:.b",
            "a:b c",
            "a@",
            "a@sha256:12",
            "a@md5:12",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "..",
            "a/../b",
            "a.b:99999/c",
            "a.b:/c",
            "-x.y/c",
            "[::g]/a",
            "[::1]x/a",
            "http://a.b/c",
            "a:b:c",
            "é",
            HEX,
        ];
        for value in bad {
            assert!(Reference::try_new(value).is_err(), "{value}");
        }
        assert!(Reference::try_new(&format!("a:{}", "t".repeat(129))).is_err());
        assert!(Reference::try_new(&"a".repeat(256)).is_err());
    }
}
