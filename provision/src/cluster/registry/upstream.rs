//! What a registry is a cache of.

use crate::{Error, Result};

/// A registry elsewhere: by the name that images have of it, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    /// The host part of image names, `docker.io` for instance.
    pub(super) host: String,
    /// `https://registry-1.docker.io`, without a slash at the end.
    pub(super) url: String,
}

/// The registry of Docker Hub is not where its images' names say.
const DOCKER_HUB: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];

impl Upstream {
    /// Reads a URL. Without a scheme it is HTTPS.
    ///
    /// # Errors
    /// [`Error::RegistryUpstream`].
    pub(super) fn parse(url: &str) -> Result<Self> {
        let invalid =
            |reason: &str| Error::RegistryUpstream { url: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        if !matches!(scheme, "http" | "https") {
            return Err(invalid("its scheme is neither http nor https"));
        }
        let authority = rest.trim_end_matches('/');
        if authority.contains(['/', '?', '#']) {
            return Err(invalid("it has a path: caches are of whole registries"));
        }
        if authority.contains('@') {
            return Err(invalid("it has credentials in it, which are not supported"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(plain) {
            return Err(invalid("there is no host in it"));
        }
        let authority = authority.to_ascii_lowercase();
        let name = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        if name == "localhost" || name.starts_with("127.") || name == "[::1]" {
            return Err(invalid("a registry's localhost is its own: name an address of this host"));
        }
        if DOCKER_HUB.contains(&authority.as_str()) {
            let url = format!("https://{}", DOCKER_HUB[0]);
            return Ok(Self { host: "docker.io".to_owned(), url });
        }
        Ok(Self { url: format!("{scheme}://{authority}"), host: authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_after_the_host() {
        let parsed = |url: &str| {
            let upstream = Upstream::parse(url).unwrap();
            (upstream.host, upstream.url)
        };
        let pair = |host: &str, url: &str| (host.to_owned(), url.to_owned());
        assert_eq!(parsed("https://registry-1.docker.io"), pair("docker.io", "https://registry-1.docker.io"));
        assert_eq!(parsed("docker.io"), pair("docker.io", "https://registry-1.docker.io"));
        assert_eq!(parsed("https://registry.k8s.io/"), pair("registry.k8s.io", "https://registry.k8s.io"));
        assert_eq!(parsed("http://172.30.0.1:5000"), pair("172.30.0.1:5000", "http://172.30.0.1:5000"));
    }

    #[test]
    fn what_cannot_be_cached_is_refused() {
        for url in [
            "",
            "https://",
            "ftp://quay.io",
            "https://quay.io/org",
            "https://u:p@quay.io",
            "a b",
            "http://localhost:5001",
            "http://127.0.0.1:5000",
        ] {
            assert!(matches!(Upstream::parse(url), Err(Error::RegistryUpstream { .. })), "{url}");
        }
    }
}
