//! The load balancer of a cluster with several control planes: connections go to API servers that are well.
//!
//! It runs as `kiln __balance FILE`, alone in a container that holds nothing but the binary and that file.

mod health;
mod probe;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use fs_err as fs;
use futures_util::future::join_all;
use kiln_network::proxy::{self, Backends, Limits};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{self, Instant},
};

use self::{health::Health, probe::Probe};
use crate::{Error, Result, cluster::Cancel, service};

/// What the balancer is to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalancerConfig {
    /// Where clients connect to. `0.0.0.0` and `::` may be there both.
    pub(crate) listen: Vec<SocketAddr>,
    /// The API servers.
    pub(crate) backends: Vec<SocketAddr>,
    /// Connections at a time on each address of `listen`.
    pub(crate) connections: usize,
    /// How long connections may go on after the balancer was told to stop.
    pub(crate) drain_seconds: u64,
}

impl BalancerConfig {
    fn check(&self) -> io::Result<()> {
        let problem = if self.listen.is_empty() {
            "there is no address to listen on"
        } else if self.backends.is_empty() {
            "there is no backend"
        } else if self.connections == 0 {
            "no connections are allowed"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
    }
}

/// Balances as the file says, until cancelled.
pub(crate) async fn main(file: Option<PathBuf>, cancel: Cancel) -> Result<()> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "no file was named");
    let path = file.ok_or_else(missing).map_err(Error::service("find the balancer's configuration"))?;
    let text = fs::read(&path).map_err(Error::file("read the balancer's configuration"))?;
    let config: BalancerConfig = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .and_then(|config: BalancerConfig| config.check().map(|()| config))
        .map_err(|source| Error::Damaged { path, source: source.into() })?;

    let listeners: Vec<_> =
        config.listen.iter().map(|address| proxy::listen(*address)).collect::<Result<_, _>>()?;
    service::log(&format!("balancing {} among {}", list(&config.listen), list(&config.backends)));
    balance(listeners, &config, &cancel, service::log).await;
    service::log("stopped");
    Ok(())
}

/// Serves until cancelled, and reports what becomes of the backends.
async fn balance(listeners: Vec<TcpListener>, config: &BalancerConfig, cancel: &Cancel, report: fn(&str)) {
    let backends = Backends::new(config.backends.iter().copied());
    // They end with this function, and so go on while connections are drained.
    let mut checks = JoinSet::new();
    for address in &config.backends {
        checks.spawn(watch(*address, backends.clone(), report));
    }
    let limits = Limits { connections: config.connections, drain: Duration::from_secs(config.drain_seconds) };
    join_all(listeners.into_iter().map(|listener| {
        let cancel = cancel.clone();
        proxy::serve(listener, backends.clone(), limits, async move { cancel.triggered().await })
    }))
    .await;
}

/// Keeps the state of one backend.
async fn watch(address: SocketAddr, backends: Backends, report: fn(&str)) {
    let mut probe = Probe::new(address);
    let mut health = Health::default();
    loop {
        let began = Instant::now();
        let finding = probe.ask().await;
        if backends.set(address, health.learn(&finding)) {
            report(&format!("backend {address} is {}: {finding}", health.state()));
        }
        // There is nothing to wait for: a machine that dies does not tell.
        time::sleep_until(began + health.pause()).await;
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}
