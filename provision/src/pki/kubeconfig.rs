//! The kubeconfigs of a control plane's components, in the form that kubeadm writes.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Where a user's certificate and key are.
pub(super) enum Credentials<'a> {
    /// In the kubeconfig; both in PEM.
    Data { certificate: &'a str, key: &'a str },
    /// Both in this file.
    File { path: &'a str },
}

pub(super) fn render(
    cluster: &str,
    user: &str,
    server: &str,
    ca: &str,
    credentials: &Credentials<'_>,
) -> String {
    let data = |text: &str| STANDARD.encode(text);
    let ca = data(ca);
    let credentials = match credentials {
        Credentials::Data { certificate, key } => {
            format!("client-certificate-data: {}\n    client-key-data: {}", data(certificate), data(key))
        }
        Credentials::File { path } => format!("client-certificate: {path}\n    client-key: {path}"),
    };
    format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: {server}
  name: {cluster}
contexts:
- context:
    cluster: {cluster}
    user: {user}
  name: {user}@{cluster}
current-context: {user}@{cluster}
kind: Config
users:
- name: {user}
  user:
    {credentials}
"
    )
}
