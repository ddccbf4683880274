//! The proxy through which nodes reach the world: the caller's own, and what is not to go through it.
//!
//! Programs do not agree on the case of these variables, so nodes get both. The list of exceptions is kind's: without
//! it, a node would ask the proxy for its own cluster.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use kiln_network::Network;

use crate::config::Networking;

/// Where connections go that have no exception.
const PROXIES: [&str; 2] = ["HTTP_PROXY", "HTTPS_PROXY"];

/// What does not go there: addresses, networks, names and the ends of names, separated by commas.
const EXCEPTIONS: &str = "NO_PROXY";

/// What names of Services end in, as the search domains of pods let them be written.
const SERVICES: [&str; 3] = [".svc", ".svc.cluster", ".svc.cluster.local"];

/// The variables for a cluster's nodes as `NAME=VALUE`, made of those that `lookup` finds; none without any of them.
/// `nodes` are the names of all nodes, the load balancer's among them; `pool` has all networks of Kiln's.
pub(super) fn variables<'a>(
    network: &Network,
    pool: Option<Ipv4Net>,
    networking: &Networking,
    nodes: impl IntoIterator<Item = &'a str>,
    lookup: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let proxies = PROXIES.map(|name| (name, given(name, &lookup)));
    let own_exceptions = given(EXCEPTIONS, &lookup);
    if own_exceptions.is_none() && proxies.iter().all(|(_, value)| value.is_none()) {
        return Vec::new();
    }
    let subnets = network.ipv4.map(IpNet::V4).into_iter().chain(network.ipv6.map(IpNet::V6));
    let mut exceptions: Vec<String> = subnets.map(|subnet| subnet.to_string()).collect();
    // Registries come and go while a node keeps its variables.
    exceptions.extend(pool.map(|pool| pool.to_string()));
    exceptions.extend(own_exceptions);
    exceptions.push(networking.service_subnet.as_str().to_owned());
    exceptions.push(networking.pod_subnet.as_str().to_owned());
    exceptions.extend(nodes.into_iter().map(str::to_owned));
    exceptions.extend(SERVICES.map(str::to_owned));

    let mut variables = Vec::new();
    for (name, value) in proxies.into_iter().chain([(EXCEPTIONS, Some(exceptions.join(",")))]) {
        if let Some(value) = value {
            variables.push(format!("{name}={value}"));
            variables.push(format!("{}={value}", name.to_lowercase()));
        }
    }
    variables
}

/// Those of the caller's variables that [`variables`] are made of, as `NAME=VALUE`.
pub(super) fn given_variables(lookup: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let names = PROXIES.into_iter().chain([EXCEPTIONS]);
    names.filter_map(|name| given(name, &lookup).map(|value| format!("{name}={value}"))).collect()
}

/// The variables that name a proxy on this host's loopback, with its host: a node's loopback is its own.
pub(super) fn on_loopback(lookup: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let found = PROXIES.into_iter().filter_map(|name| {
        let value = given(name, &lookup)?;
        let host = host(&value);
        is_loopback(host).then(|| (name, host.to_owned()))
    });
    found.collect()
}

/// A variable in upper case, else in lower case; an empty one is not set.
fn given(name: &str, lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
    set(name).or_else(|| set(&name.to_lowercase()))
}

/// The host of a proxy's URL, whose scheme, credentials and port may be missing.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
        Some((address, _)) => address,
        None if place.parse::<IpAddr>().is_ok() => place,
        None => place.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        // To connect to the unspecified address is to connect to this host.
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IpFamily, Subnets};

    fn subnet(text: &str) -> Subnets {
        serde_json::from_value(text.into()).unwrap()
    }

    fn network() -> Network {
        Network {
            cluster: "c".to_owned(),
            bridge: Network::bridge_name("c"),
            ipv4: Some("172.30.1.0/24".parse().unwrap()),
            ipv6: None,
            mtu: 1500,
        }
    }

    fn networking() -> Networking {
        Networking {
            service_subnet: subnet("10.0.0.0/24"),
            pod_subnet: subnet("12.0.0.0/24"),
            ..Networking::new(IpFamily::Ipv4)
        }
    }

    fn made_of(env: &[(&str, &str)]) -> Vec<String> {
        let lookup = |name: &str| {
            env.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        variables(&network(), None, &networking(), ["c-control-plane", "c-worker"], lookup)
    }

    #[test]
    fn the_cases_of_kind() {
        const REST: &str =
            "10.0.0.0/24,12.0.0.0/24,c-control-plane,c-worker,.svc,.svc.cluster,.svc.cluster.local";
        assert_eq!(made_of(&[]), [""; 0]);
        assert_eq!(made_of(&[("HTTP_PROXY", ""), ("no_proxy", "")]), [""; 0]);
        for name in PROXIES {
            let lower = name.to_lowercase();
            let expected = [
                format!("{name}=5.5.5.5"),
                format!("{lower}=5.5.5.5"),
                format!("NO_PROXY=172.30.1.0/24,{REST}"),
                format!("no_proxy=172.30.1.0/24,{REST}"),
            ];
            assert_eq!(made_of(&[(name, "5.5.5.5")]), expected);
            assert_eq!(made_of(&[(&lower, "5.5.5.5")]), expected);
            assert_eq!(made_of(&[(name, "5.5.5.5"), (&lower, "6.6.6.6")]), expected, "upper case wins");
        }
        assert_eq!(
            made_of(&[("HTTPS_PROXY", "5.5.5.5"), ("NO_PROXY", "8.8.8.8")])[2..],
            [
                format!("NO_PROXY=172.30.1.0/24,8.8.8.8,{REST}"),
                format!("no_proxy=172.30.1.0/24,8.8.8.8,{REST}"),
            ]
        );
        assert_eq!(made_of(&[("no_proxy", "a.example")]).len(), 2, "exceptions alone are passed on too");
    }

    #[test]
    fn both_networks_of_a_cluster_are_exceptions() {
        let network = Network { ipv6: Some("fd00:6b69::/64".parse().unwrap()), ..network() };
        let networking = Networking::new(IpFamily::Dual);
        let pool = "172.30.0.0/16".parse().ok();
        let made = variables(&network, pool, &networking, [], |name| {
            (name == "HTTP_PROXY").then(|| "p:1".to_owned())
        });
        let expected = "NO_PROXY=172.30.1.0/24,fd00:6b69::/64,172.30.0.0/16,10.96.0.0/16,fd00:10:96::/112,\
                        10.244.0.0/16,fd00:10:244::/56,.svc,.svc.cluster,.svc.cluster.local";
        assert_eq!(made[2], expected);
    }

    #[test]
    fn a_proxy_on_this_hosts_loopback_is_found() {
        let found = |url: &str| {
            let url = url.to_owned();
            let found = on_loopback(move |name| (name == "https_proxy").then(|| url.clone()));
            found.into_iter().map(|(name, host)| format!("{name} {host}")).collect::<Vec<_>>()
        };
        for (url, host) in [
            ("http://127.0.0.1:3128", "127.0.0.1"),
            ("http://user:p@ss@localhost:3128/", "localhost"),
            ("LOCALHOST:8080", "LOCALHOST"),
            ("socks5://[::1]:1080", "::1"),
            ("::1", "::1"),
            ("http://127.8.9.10", "127.8.9.10"),
            ("http://[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1"),
            ("0.0.0.0:80", "0.0.0.0"),
            ("http://proxy.localhost:80", "proxy.localhost"),
        ] {
            assert_eq!(found(url), [format!("HTTPS_PROXY {host}")], "{url}");
        }
        for url in [
            "http://proxy.example:3128",
            "10.0.0.1:80",
            "http://localhost.example",
            "[fd00::1]:80",
            "://",
            "",
        ] {
            assert_eq!(found(url), [""; 0], "{url}");
        }
    }
}
