//! The records of registries: `registries/NAME/registry.json`.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use fs_err as fs;
use jiff::Timestamp;
use kiln_network::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};

use super::{
    record::{Phase, directories, load},
    validate_cluster_name, write_json,
};
use crate::{Error, Paths, Result};

/// The port that a registry listens on, in its own container and where nodes reach it.
pub const REGISTRY_PORT: u16 = 5000;

/// What is known about a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryRecord {
    /// The layout's version, [`SCHEMA`](super::SCHEMA).
    pub schema: u32,
    /// The registry's name.
    pub name: String,
    /// When its creation began.
    pub created: Timestamp,
    /// The image that it runs.
    pub image: String,
    /// The port of the host's `127.0.0.1` that it answers on.
    pub port: u16,
    /// Whether it answers on that port of `[::1]` as well, which `localhost` may mean: where the host has IPv6.
    #[serde(default)]
    pub ipv6: bool,
    /// The registry that it is a cache of, as a URL.
    pub proxy: Option<String>,
    /// The network between the host and it.
    pub network: kiln_network::Network,
    /// How it is wired.
    pub endpoint: kiln_network::Endpoint,
    /// Its process; `None` until it is started.
    pub process: Option<kiln_runtime::Process>,
    /// How far its life has come.
    pub phase: Phase,
}

impl RegistryRecord {
    /// The address at which nodes of all clusters reach it: one of the host's, from where it is translated. Nodes reach
    /// published ports on the host's addresses, while they are kept away from other networks of Kiln's.
    #[must_use]
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.network.gateway_v4()
    }

    /// The ports of the host that lead to it.
    #[must_use]
    pub fn ports(&self) -> Vec<PortMapping> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let loopback =
            loopback.into_iter().take(1 + usize::from(self.ipv6)).map(|listen| (listen, self.port));
        let gateway = self.gateway().map(|gateway| (IpAddr::V4(gateway), REGISTRY_PORT));
        let mapping = |(listen, host_port): (IpAddr, u16)| {
            Some(PortMapping {
                protocol: Protocol::Tcp,
                listen,
                host_port,
                target: IpAddr::V4(self.endpoint.ipv4?),
                target_port: REGISTRY_PORT,
            })
        };
        loopback.chain(gateway).filter_map(mapping).collect()
    }
}

/// Writes a registry's record, and its directory when it is missing. The caller holds the registries' lock.
///
/// # Errors
/// [`Error::InvalidName`], or [`Error::File`] when the disk refuses.
pub fn save_registry(paths: &Paths, record: &RegistryRecord) -> Result<()> {
    write_json(&file(paths, &record.name)?, record)
}

/// Reads a registry's record; `None` when there is none, which [`registry_exists`] tells apart from a registry whose
/// creation was killed.
///
/// # Errors
/// As [`load_cluster`](super::load_cluster).
pub fn load_registry(paths: &Paths, name: &str) -> Result<Option<RegistryRecord>> {
    load(&file(paths, name)?)
}

/// The records of all registries, oldest first. Those without one, or with a damaged one, are left out.
///
/// # Errors
/// [`Error::File`] when a directory cannot be read.
pub fn load_registries(paths: &Paths) -> Result<Vec<RegistryRecord>> {
    let names = registry_names(paths)?;
    let records = names.iter().filter_map(|name| load_registry(paths, name).ok().flatten());
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|record| record.created);
    Ok(records)
}

/// Whether anything of a registry is there, but for what it had stored.
///
/// # Errors
/// [`Error::InvalidName`].
pub fn registry_exists(paths: &Paths, name: &str) -> Result<bool> {
    validate_cluster_name(name)?;
    Ok(paths.registry(name).exists() || paths.registry_run(name).exists())
}

/// The names of all registries, sorted. One whose making or removal was killed counts, so that it can be removed.
///
/// # Errors
/// [`Error::File`] when a directory cannot be read.
pub fn registry_names(paths: &Paths) -> Result<Vec<String>> {
    let mut names: BTreeSet<String> = directories(&paths.registries())?.into_iter().collect();
    names.extend(directories(&paths.run().join("registries"))?);
    Ok(names.into_iter().filter(|name| validate_cluster_name(name).is_ok()).collect())
}

/// Removes what both roots have of a registry, its record last. What it has stored stays. The caller holds the registries'
/// lock and has stopped it.
///
/// # Errors
/// [`Error::File`] when something cannot be removed.
pub fn remove_registry(paths: &Paths, name: &str) -> Result<()> {
    validate_cluster_name(name)?;
    for directory in [paths.registry_run(name), paths.registry(name)] {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::File { what: "remove a registry's state", source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

fn file(paths: &Paths, name: &str) -> Result<PathBuf> {
    validate_cluster_name(name)?;
    Ok(paths.registry(name).join("registry.json"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::SCHEMA;

    pub(crate) fn registry(name: &str) -> RegistryRecord {
        RegistryRecord {
            schema: SCHEMA,
            name: name.to_owned(),
            created: "2026-11-24T13:00:00Z".parse().unwrap(),
            image: "kiln/registry:v3.1.2".to_owned(),
            port: 5001,
            ipv6: false,
            proxy: None,
            network: kiln_network::Network {
                cluster: format!("registry_{name}"),
                bridge: "kiln-0a".to_owned(),
                ipv4: Some("172.30.7.0/24".parse().unwrap()),
                ipv6: None,
                mtu: 1500,
            },
            endpoint: kiln_network::Endpoint {
                node: name.to_owned(),
                link: "kn0a1b2c3d".to_owned(),
                mac: [2, 0, 0, 0, 0, 1],
                ipv4: Some("172.30.7.2".parse().unwrap()),
                ipv6: None,
            },
            process: None,
            phase: Phase::Ready,
        }
    }

    #[test]
    fn records_come_back_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        assert_eq!(load_registry(&paths, "r").unwrap(), None);
        let later = RegistryRecord { created: "2026-11-25T13:00:00Z".parse().unwrap(), ..registry("a") };
        save_registry(&paths, &later).unwrap();
        save_registry(&paths, &registry("r")).unwrap();
        fs::create_dir_all(paths.registry_run("half")).unwrap();
        fs::create_dir_all(paths.registry_data("r")).unwrap();
        assert_eq!(load_registries(&paths).unwrap(), [registry("r"), later]);
        assert_eq!(registry_names(&paths).unwrap(), ["a", "half", "r"]);
        for name in ["a", "half", "r"] {
            remove_registry(&paths, name).unwrap();
            assert!(!registry_exists(&paths, name).unwrap());
        }
        assert!(paths.registry_data("r").exists());
        assert!(load_registry(&paths, "../r").is_err());
    }

    #[test]
    fn it_is_reached_from_the_host_alone_and_from_nodes() {
        let ports: Vec<_> = registry("r").ports().iter().map(ToString::to_string).collect();
        assert_eq!(
            ports,
            ["127.0.0.1:5001/tcp to 172.30.7.2:5000", "172.30.7.1:5000/tcp to 172.30.7.2:5000"]
        );
        let ports = RegistryRecord { ipv6: true, ..registry("r") }.ports();
        assert_eq!(ports[1].to_string(), "[::1]:5001/tcp to 172.30.7.2:5000");
        assert!(ports.len() == 3 && !ports[1].is_translatable());
    }
}
