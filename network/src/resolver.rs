//! Name servers for nodes: the host's, past a resolver that only the host itself can reach.

use std::{fmt::Write, io, net::IpAddr, path::Path};

use crate::{Error, Result};

/// Where to look, in this order. systemd-resolved puts its stub on 127.0.0.53 into the first, and the name servers
/// behind it into the second.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// What a `resolv.conf` says, less what is of no use in a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Name servers that can be reached from another network namespace, in order.
    pub nameservers: Vec<IpAddr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Options of the resolver, such as `ndots:2`.
    pub options: Vec<String>,
}

impl Resolvers {
    /// As the text of a `resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self) -> String {
        let mut text = String::new();
        for nameserver in &self.nameservers {
            let _ = writeln!(text, "nameserver {nameserver}");
        }
        for (keyword, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                let _ = writeln!(text, "{keyword} {}", words.join(" "));
            }
        }
        text
    }
}

/// Reads the text of a `resolv.conf`, without name servers on a loopback, unspecified or IPv6 link-local address: in
/// a node, those mean the node itself, or nothing.
#[must_use]
pub fn host_resolvers(resolv_conf: &str) -> Resolvers {
    let mut resolvers = Resolvers::default();
    for line in resolv_conf.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            // An address with a scope (`fe80::1%eth0`) does not parse, and is link-local anyway.
            Some("nameserver") => {
                let address = words.next().and_then(|word| word.parse().ok());
                resolvers.nameservers.extend(address.filter(is_reachable));
            }
            // The last of them counts. `.` is the root, which is searched last in any case.
            Some("search" | "domain") => {
                resolvers.search = words.filter(|word| *word != ".").map(str::to_owned).collect();
            }
            Some("options") => resolvers.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    resolvers
}

/// The `resolv.conf` for nodes, made from the host's files.
///
/// `fallback` is the name server when the host has none that a node could reach, for instance because it runs
/// dnsmasq on 127.0.0.1. There must be one: CoreDNS does not start without. The cluster's gateway is a good choice:
/// it answers, if only with a refusal.
///
/// # Errors
///
/// [`Error::Resolvers`] when a file exists and cannot be read.
pub fn node_resolv_conf(fallback: IpAddr) -> Result<String> {
    let mut resolvers = from_files(FILES.map(Path::new)).map_err(Error::Resolvers)?;
    if resolvers.nameservers.is_empty() {
        resolvers.nameservers.push(fallback);
    }
    Ok(resolvers.resolv_conf())
}

/// What the first file says that has a usable name server, else what the first says.
fn from_files<'a>(files: impl IntoIterator<Item = &'a Path>) -> io::Result<Resolvers> {
    let mut first = None;
    for file in files {
        let resolvers = match fs_err::read_to_string(file) {
            Ok(text) => host_resolvers(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !resolvers.nameservers.is_empty() {
            return Ok(resolvers);
        }
        first.get_or_insert(resolvers);
    }
    Ok(first.unwrap_or_default())
}

fn is_reachable(address: &IpAddr) -> bool {
    // IPv4's link-local addresses pass: clouds put name servers there (169.254.169.253), and they can be routed to.
    let link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !(address.is_loopback() || address.is_unspecified() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";

    #[test]
    fn useless_name_servers_are_dropped() {
        let text = "# made by hand\nnameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n\
                    nameserver fe80::1\nnameserver 0.0.0.0\nnameserver 10.0.0.2 # good\nnameserver 2001:db8::53\n";
        let expected: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        assert_eq!(host_resolvers(text).nameservers, expected);
    }

    #[test]
    fn search_and_options_are_kept() {
        let resolvers = host_resolvers(
            "domain old.example\nsearch a.example b.example\noptions ndots:2\noptions rotate\n",
        );
        assert_eq!(resolvers.search, ["a.example", "b.example"]);
        assert_eq!(resolvers.options, ["ndots:2", "rotate"]);
        assert_eq!(resolvers.resolv_conf(), "search a.example b.example\noptions ndots:2 rotate\n");
    }

    #[test]
    fn the_stub_leads_to_the_servers_behind_it() {
        let directory = tempfile::tempdir().unwrap();
        let (stub, behind) = (directory.path().join("stub"), directory.path().join("behind"));
        fs_err::write(&stub, STUB).unwrap();
        assert_eq!(from_files([stub.as_path(), &behind]).unwrap(), host_resolvers(STUB));

        fs_err::write(&behind, "nameserver 192.0.2.53\nsearch corp.example\n").unwrap();
        let resolvers = from_files([stub.as_path(), &behind]).unwrap();
        assert_eq!(resolvers.resolv_conf(), "nameserver 192.0.2.53\nsearch corp.example\n");
    }

    #[test]
    fn the_first_file_wins_when_it_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, other) = (directory.path().join("plain"), directory.path().join("other"));
        fs_err::write(&plain, "nameserver 192.0.2.1\n").unwrap();
        fs_err::write(&other, "nameserver 192.0.2.2\n").unwrap();
        assert_eq!(from_files([plain.as_path(), &other]).unwrap().resolv_conf(), "nameserver 192.0.2.1\n");
    }
}
