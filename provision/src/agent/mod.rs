//! The network agent: the pod network of one node, kept from inside the cluster.
//!
//! Where Kiln launches a cluster it sets this network up itself, and no agent runs. The agent does the same from what
//! the API says: in a cluster that another tool launched from Kiln's node image and applied its manifest to, and in one
//! whose nodes come, go or get other pod ranges later. Both write the same things, so that either may take over from the
//! other.
//!
//! It runs as `kiln __network-agent`, in a pod on each node and in the node's network namespace.

mod keeper;
mod nodes;
mod settings;

use std::{pin::pin, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client, Config,
    api::Api,
    runtime::{WatchStreamExt, watcher},
};
use tokio::net::TcpStream;

use self::{keeper::Keeper, nodes::Nodes, settings::Settings};
use crate::{
    Error, Result,
    cluster::Cancel,
    service::{explain, log},
};

/// How long the control plane may take to answer before the API is looked for under its Service.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long after a failure everything is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the network of this node until cancelled.
///
/// # Errors
/// [`Error::Variable`], [`Error::PodAccess`]. What fails later is logged and tried again.
pub(crate) async fn serve(cancel: Cancel) -> Result<()> {
    tokio::select! {
        result = keep() => result,
        () = cancel.triggered() => Ok(()),
    }
}

async fn keep() -> Result<()> {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let client = connect(settings.endpoint.as_deref()).await?;
    let mut events = pin!(watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff());
    let mut nodes = Nodes::default();
    let mut keeper = Keeper::new(settings);
    let mut failed = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if !nodes.update(event) {
                        continue;
                    }
                }
                // It tries again by itself.
                Some(Err(error)) => {
                    log(&explain(&error));
                    continue;
                }
                None => return Ok(()),
            },
            // What is in the way may be a link that is not up yet, or another program: none of them tells when it is
            // out of the way.
            () = tokio::time::sleep(RETRY), if failed => {}
        }
        // Also when the event is none of a change that matters here. Nodes report every few minutes, so what somebody
        // else has removed is back by then.
        failed = !keeper.keep(&nodes).await;
    }
}

/// A client for the API with the rights of this pod.
async fn connect(endpoint: Option<&str>) -> Result<Client> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| Error::PodAccess { source };
    let mut config = Config::incluster().map_err(|error| unusable(error.into()))?;
    // The Service's address needs kube-proxy, which may come up after this.
    if let Some(endpoint) = endpoint {
        if answers(endpoint).await {
            config.cluster_url = format!("https://{endpoint}").parse().map_err(|error| {
                let error: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
                unusable(error)
            })?;
        } else {
            log(&format!("{endpoint} does not answer, using {}", config.cluster_url));
        }
    }
    Client::try_from(config).map_err(Error::api("make a client for the API".to_owned()))
}

async fn answers(endpoint: &str) -> bool {
    matches!(tokio::time::timeout(ENDPOINT_TIMEOUT, TcpStream::connect(endpoint)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_an_endpoint_that_listens_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(answers(&address).await);
        drop(listener);
        assert!(!answers(&address).await);
        assert!(!answers("no-port").await);
    }
}
