//! The names of the images that kubeadm wants, as `kubeadm config images list` prints them.

use crate::{Error, Result};

/// The images of a cluster's own containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageNames {
    pub(super) apiserver: String,
    pub(super) controller_manager: String,
    pub(super) scheduler: String,
    pub(super) proxy: String,
    pub(super) coredns: String,
    pub(super) pause: String,
    pub(super) etcd: String,
}

impl ImageNames {
    /// Reads kubeadm's list, one image a line.
    ///
    /// # Errors
    /// [`Error::Recipe`] when an image is missing.
    pub(super) fn parse(list: &str) -> Result<Self> {
        let find = |program: &str| {
            let named = |line: &&str| {
                line.rsplit('/').next().and_then(|last| last.split(':').next()) == Some(program)
            };
            list.lines().map(str::trim).find(named).map(str::to_owned).ok_or_else(|| Error::Recipe {
                object: "kubeadm".to_owned(),
                reason: format!("it names no image for {program}"),
            })
        };
        Ok(Self {
            apiserver: find("kube-apiserver")?,
            controller_manager: find("kube-controller-manager")?,
            scheduler: find("kube-scheduler")?,
            proxy: find("kube-proxy")?,
            coredns: find("coredns")?,
            pause: find("pause")?,
            etcd: find("etcd")?,
        })
    }

    /// The version of the etcd module: the tag without the number of the image's revision.
    pub(super) fn etcd_version(&self) -> Result<String> {
        let tag = tag(&self.etcd)?;
        Ok(format!("v{}", tag.split('-').next().unwrap_or(tag)))
    }

    /// The version of the CoreDNS module.
    pub(super) fn coredns_version(&self) -> Result<String> {
        tag(&self.coredns).map(str::to_owned)
    }
}

fn tag(image: &str) -> Result<&str> {
    let reason = || Error::Recipe { object: image.to_owned(), reason: "it has no tag".to_owned() };
    image.rsplit_once(':').map(|(_, tag)| tag).ok_or_else(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "registry.k8s.io/kube-apiserver:v1.34.4\nregistry.k8s.io/kube-controller-manager:v1.34.4\n\
        registry.k8s.io/kube-scheduler:v1.34.4\nregistry.k8s.io/kube-proxy:v1.34.4\n\
        registry.k8s.io/coredns/coredns:v1.12.1\nregistry.k8s.io/pause:3.10.1\nregistry.k8s.io/etcd:3.6.5-0\n";

    #[test]
    fn every_image_is_found_with_the_version_of_its_module() {
        let names = ImageNames::parse(LIST).unwrap();
        assert_eq!(names.pause, "registry.k8s.io/pause:3.10.1");
        assert_eq!(names.coredns, "registry.k8s.io/coredns/coredns:v1.12.1");
        assert_eq!(names.etcd_version().unwrap(), "v3.6.5");
        assert_eq!(names.coredns_version().unwrap(), "v1.12.1");
    }

    #[test]
    fn a_missing_image_is_named() {
        let error = ImageNames::parse("registry.k8s.io/pause:3.10.1").unwrap_err();
        assert!(error.to_string().contains("kube-apiserver"), "{error}");
    }
}
