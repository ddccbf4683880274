//! Images of the host's own containerd, when there is one: with nerdctl, Docker or Kubernetes on the host, or alone.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use super::blocking::Steps;
use crate::{
    Error, Result,
    containerd::HostContainerd,
    error::with_causes,
    image::{Bundle, Reference},
};

/// Where containerd listens unless it was told otherwise.
const SOCKET: &str = "/run/containerd/containerd.sock";
/// The namespaces that are looked into, in this order: of nerdctl and `ctr`, of Kubernetes and of Docker.
const NAMESPACES: [&str; 3] = ["default", "k8s.io", "moby"];
/// The variables by which containerd's other clients are told the same.
const ADDRESS_VARIABLE: &str = "CONTAINERD_ADDRESS";
const NAMESPACE_VARIABLE: &str = "CONTAINERD_NAMESPACE";
/// How long it may take to say whether it has an image.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where an image is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Daemon {
    socket: PathBuf,
    namespaces: Vec<String>,
}

impl Daemon {
    /// The one that this process's environment is about.
    pub(super) fn of_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self::new(variable(ADDRESS_VARIABLE).as_deref(), variable(NAMESPACE_VARIABLE).as_deref())
    }

    fn new(address: Option<&OsStr>, namespace: Option<&OsStr>) -> Self {
        let address = address.map(OsStr::to_string_lossy);
        let socket = address.as_deref().map(|address| address.strip_prefix("unix://").unwrap_or(address));
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.to_string_lossy().into_owned()],
            None => NAMESPACES.map(str::to_owned).to_vec(),
        };
        Self { socket: PathBuf::from(socket.unwrap_or(SOCKET)), namespaces }
    }

    /// Asks for an image by its name or id. The inner error is why it does not have it, for people. What it has is read
    /// when it is needed.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub(super) async fn find(&self, name: &str) -> Result<Result<(String, Bundle), String>> {
        let socket = self.socket.display();
        if !self.socket.exists() {
            return Ok(Err(format!("containerd is not running ({socket})")));
        }
        match tokio::time::timeout(PATIENCE, self.look(name)).await {
            Ok(Ok(Some(found))) => Ok(Ok(found)),
            Ok(Ok(None)) => Ok(Err(format!("containerd ({socket}) does not have it"))),
            // Pulled for another platform, or unpacked by a runtime that keeps no layers: it may be elsewhere.
            Ok(Err(error @ (Error::ContentMissing { .. } | Error::NoPlatform { .. }))) => {
                Ok(Err(error.to_string()))
            }
            // Somebody else's containerd is not a reason to give up.
            Ok(Err(error @ (Error::ContainerdConnect { .. } | Error::ContainerdCall { .. }))) => {
                Ok(Err(with_causes(&error)))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Err(format!("containerd ({socket}) does not answer"))),
        }
    }

    async fn look(&self, name: &str) -> Result<Option<(String, Bundle)>> {
        let containerd = HostContainerd::connect(&self.socket).await?;
        let reference = Reference::try_new(name).ok();
        let full = reference.as_ref().map_or_else(|| name.to_owned(), ToString::to_string);
        for namespace in &self.namespaces {
            let Some(descriptor) = containerd.find(namespace, &full).await? else { continue };
            let origin = format!("containerd (namespace {namespace})");
            let (blobs, called) = (containerd.blobs(namespace), origin.clone());
            let steps = Steps::default();
            let bundle = steps.run(move || Bundle::of_blobs(&called, blobs, &descriptor, reference)).await?;
            return Ok(Some((origin, bundle)));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_socket_and_namespace() {
        let usual = Daemon::new(None, None);
        assert_eq!(usual.socket, PathBuf::from(SOCKET));
        assert_eq!(usual.namespaces, NAMESPACES);
        let told = Daemon::new(Some(OsStr::new("unix:///run/k3s/containerd.sock")), Some(OsStr::new("a")));
        assert_eq!((told.socket, told.namespaces), ("/run/k3s/containerd.sock".into(), vec!["a".to_owned()]));
        assert_eq!(Daemon::new(Some(OsStr::new("/x.sock")), None).socket, PathBuf::from("/x.sock"));
    }

    #[tokio::test]
    async fn a_containerd_that_is_not_there_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("containerd.sock");
        let daemon = Daemon::new(Some(socket.as_os_str()), None);
        let why = daemon.find("a:1").await.unwrap().unwrap_err();
        assert_eq!(why, format!("containerd is not running ({})", socket.display()));
        // What is left of one that was killed.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let why = daemon.find("a:1").await.unwrap().unwrap_err();
        assert!(why.contains("refused"), "{why}");
    }
}
