//! Where a registry answers: mirrors first, then itself.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::Deserialize;

use super::{Problem, RegistryOptions};

/// The registry that names without one are for, and where it really answers.
const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    Tls,
    Plain,
    /// As the server does; on loopback only, where nobody listens in between.
    Either,
}

/// A server with the images of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) security: Security,
    /// Host and port, as in a URL.
    pub(super) authority: String,
    /// What precedes the names of repositories: `/v2`, or more.
    pub(super) prefix: String,
    /// The registry that it stands in for, if it is a mirror: passed on for those that mirror several.
    pub(super) mirrored: Option<String>,
    /// Authorities that are trusted in addition to the host's.
    pub(super) authorities: Vec<PathBuf>,
    /// Whether any certificate will do.
    pub(super) skip_verify: bool,
    /// Whether it answers requests that read tags; blobs and digests it always does.
    pub(super) resolves: bool,
}

/// A `hosts.toml` as containerd has it, as far as it applies here.
#[derive(Debug, Default, Deserialize)]
struct Hosts {
    server: Option<String>,
    #[serde(default)]
    ca: OneOrMore,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    host: toml::Table,
}

#[derive(Debug, Default, Deserialize)]
struct Host {
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    ca: OneOrMore,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    #[default]
    None,
    One(PathBuf),
    More(Vec<PathBuf>),
}

impl OneOrMore {
    fn list(self, directory: &Path) -> Vec<PathBuf> {
        let list = match self {
            Self::None => Vec::new(),
            Self::One(path) => vec![path],
            Self::More(list) => list,
        };
        list.into_iter().map(|path| directory.join(path)).collect()
    }
}

/// The servers to ask for images of `registry`, in this order, the last one itself. `certs` is the directory with a
/// directory for each registry.
pub(super) fn endpoints(
    registry: &str,
    options: &RegistryOptions,
    certs: &Path,
) -> Result<Vec<Endpoint>, Problem> {
    let mut list = Vec::new();
    for mirror in &options.mirrors {
        if mirror.registry.as_deref().is_none_or(|only| only == registry) {
            list.push(mirror_at(&mirror.url, registry, false)?);
        }
    }
    let mut own = itself(registry);
    if let Some((path, hosts)) = read_hosts(registry, certs)? {
        let directory = path.parent().unwrap_or(certs);
        for (url, value) in hosts.host {
            let host: Host = value.try_into().map_err(|error| Problem::settings(&path, error))?;
            let can = |what: &str| {
                host.capabilities.as_ref().is_none_or(|list| list.iter().any(|capability| capability == what))
            };
            if can("pull") {
                let resolves = can("resolve");
                let endpoint = mirror_at(&url, registry, host.override_path)?;
                let authorities = host.ca.list(directory);
                list.push(Endpoint { authorities, skip_verify: host.skip_verify, resolves, ..endpoint });
            }
        }
        if let Some(server) = hosts.server {
            own = Endpoint { mirrored: None, ..mirror_at(&server, registry, false)? };
        }
        own.authorities = hosts.ca.list(directory);
        own.skip_verify = hosts.skip_verify;
    }
    if options.plain_http {
        own.security = Security::Plain;
    }
    list.push(own);
    for endpoint in &mut list {
        endpoint.authorities.extend(options.ca_file.clone());
    }
    Ok(list)
}

fn itself(registry: &str) -> Endpoint {
    let authority = if registry == DOCKER { DOCKER_HOST } else { registry };
    Endpoint {
        security: if is_loopback(authority) { Security::Either } else { Security::Tls },
        authority: authority.to_owned(),
        prefix: "/v2".to_owned(),
        mirrored: None,
        authorities: Vec::new(),
        skip_verify: false,
        resolves: true,
    }
}

fn mirror_at(url: &str, registry: &str, override_path: bool) -> Result<Endpoint, Problem> {
    let invalid = |reason| Problem::Invalid { what: format!("the mirror {url:?}"), reason };
    let (security, url) = parse(url).map_err(invalid)?;
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = url.path().trim_end_matches('/');
    let whole = override_path || path.ends_with("/v2");
    Ok(Endpoint {
        security,
        prefix: if whole { path.to_owned() } else { format!("{path}/v2") },
        mirrored: Some(registry.to_owned()),
        ..itself(&authority)
    })
}

/// An address with or without its scheme.
pub(super) fn parse(text: &str) -> Result<(Security, Url), String> {
    let (security, full) = match text.split_once("://") {
        Some(("http", _)) => (Some(Security::Plain), text.to_owned()),
        Some(("https", _)) => (Some(Security::Tls), text.to_owned()),
        Some((scheme, _)) => return Err(format!("{scheme:?} is neither http nor https")),
        None => (None, format!("https://{text}")),
    };
    let url = Url::parse(&full).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("it has no host")?;
    let default = if is_loopback(host) { Security::Either } else { Security::Tls };
    Ok((security.unwrap_or(default), url))
}

/// Whether a host, with or without a port, is this one by way of loopback.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_hosts(registry: &str, certs: &Path) -> Result<Option<(PathBuf, Hosts)>, Problem> {
    for directory in [registry, "_default"] {
        let path = certs.join(directory).join("hosts.toml");
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Problem::settings(&path, error)),
        };
        let hosts = toml::from_str(&text).map_err(|error| Problem::settings(&path, error))?;
        return Ok(Some((path, hosts)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(registry: &str, options: &RegistryOptions, certs: &Path) -> Vec<String> {
        let list = endpoints(registry, options, certs).unwrap();
        let place = |endpoint: &Endpoint| {
            format!("{:?} {}{}", endpoint.security, endpoint.authority, endpoint.prefix)
        };
        list.iter().map(place).collect()
    }

    #[test]
    fn only_loopback_may_do_without_tls() {
        let (options, none) = (RegistryOptions::default(), Path::new("/nonexistent"));
        assert_eq!(places("docker.io", &options, none), ["Tls registry-1.docker.io/v2"]);
        for loopback in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(places(loopback, &options, none), [format!("Either {loopback}/v2")]);
        }
        for other in ["10.0.0.1:5000", "localhost.example:5000", "registry:5000", "[fe80::1]"] {
            assert_eq!(places(other, &options, none), [format!("Tls {other}/v2")]);
        }
        let plain = RegistryOptions { plain_http: true, ..RegistryOptions::default() };
        assert_eq!(places("registry:5000", &plain, none), ["Plain registry:5000/v2"]);
    }

    #[test]
    fn mirrors_come_first() {
        let mirrors = ["docker.io=http://m1:5000", "https://m2/all/", "quay.io=m3", "localhost:5000/v2"];
        let mirrors = mirrors.map(|text| text.parse().unwrap()).to_vec();
        let options = RegistryOptions { mirrors, ..RegistryOptions::default() };
        assert_eq!(
            places("docker.io", &options, Path::new("/nonexistent")),
            ["Plain m1:5000/v2", "Tls m2/all/v2", "Either localhost:5000/v2", "Tls registry-1.docker.io/v2"]
        );
        for wrong in ["ftp://x", "=x", "a/b=x", "http://"] {
            assert!(wrong.parse::<super::super::Mirror>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_name_mirrors_in_their_order() {
        let certs = tempfile::tempdir().unwrap();
        let directory = certs.path().join("docker.io");
        fs_err::create_dir(&directory).unwrap();
        let text = "server = 'https://own'\nca = 'own.pem'\n[host.'http://z:1']\ncapabilities = ['pull']\n\
                    [host.'https://a/cache']\noverride_path = true\nca = ['/x.pem']\nskip_verify = true\n\
                    [host.'https://push-only']\ncapabilities = ['push']\n";
        fs_err::write(directory.join("hosts.toml"), text).unwrap();
        let options = RegistryOptions { ca_file: Some("/more.pem".into()), ..RegistryOptions::default() };
        assert_eq!(
            places("docker.io", &options, certs.path()),
            ["Plain z:1/v2", "Tls a/cache", "Tls own/v2"]
        );
        let list = endpoints("docker.io", &options, certs.path()).unwrap();
        assert!(!list[0].resolves && list[1].resolves && list[1].skip_verify && !list[2].skip_verify);
        assert_eq!(list[1].authorities, [Path::new("/x.pem"), Path::new("/more.pem")]);
        assert_eq!(list[2].authorities, [directory.join("own.pem"), "/more.pem".into()]);

        fs_err::write(directory.join("hosts.toml"), "server = 1").unwrap();
        let error = endpoints("docker.io", &options, certs.path()).unwrap_err();
        assert!(error.to_string().ends_with("docker.io/hosts.toml cannot be used"), "{error}");
    }
}
