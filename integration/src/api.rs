//! The Kubernetes API through a kubeconfig, the way a user's tools on the host reach it.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A client for the current context of a kubeconfig's text.
async fn client(kubeconfig: &str) -> Result<Client, String> {
    let kubeconfig =
        Kubeconfig::from_yaml(kubeconfig).map_err(|error| format!("not a kubeconfig: {error}"))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| format!("the kubeconfig cannot be used: {error}"))?;
    // The proxy of the host's environment is for other addresses than its own.
    config.proxy_url = None;
    // Before the API is there, a packet to it may be lost without an answer.
    config.connect_timeout = Some(Duration::from_secs(1));
    Client::try_from(config).map_err(|error| format!("no client for the kubeconfig: {error}"))
}

/// The answer to a GET of `path`, certificate and all checked against the kubeconfig in `file`.
///
/// # Errors
/// A sentence for people.
pub fn get(file: &Path, path: &str) -> Result<String, String> {
    let text = fs_err::read_to_string(file).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let client = client(&text).await?;
        let request =
            http::Request::get(path).body(Vec::new()).map_err(|error| format!("{path}: {error}"))?;
        client.request_text(request).await.map_err(|error| format!("GET {path}: {error}"))
    })
}
