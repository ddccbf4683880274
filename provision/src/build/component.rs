//! What is compiled: one entry for each Go module of the recipe.

use super::{gomod, recipe, version::KubernetesVersion};

/// Programs that are compiled from one Go module.
#[derive(Debug)]
pub(super) struct Component {
    /// Its folder in the recipe, and its name in progress and cache.
    pub(super) name: &'static str,
    /// The module whose version is the component's.
    pub(super) module: &'static str,
    /// Modules that are released together with it, in the same version.
    pub(super) companions: &'static [&'static str],
    /// The packages, each of which becomes a program. `.` is the recipe's own package, which becomes `name`; those that
    /// begin with `./` are in the recipe, too.
    pub(super) packages: &'static [&'static str],
    /// Build tags.
    pub(super) tags: &'static str,
    /// The linker's variable that holds the version that the programs report, if upstream sets one.
    pub(super) version_variable: Option<&'static str>,
    /// Links C libraries, statically: the node's Debian may be older than the host that compiles.
    pub(super) cgo: bool,
}

/// Kubernetes itself. kubeadm knows which versions of the others belong to it.
pub(super) const KUBERNETES: Component = Component {
    name: "kubernetes",
    module: "k8s.io/kubernetes",
    companions: &[],
    packages: &[
        "k8s.io/kubernetes/cmd/kubeadm",
        "k8s.io/kubernetes/cmd/kubelet",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "./kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kube-proxy",
    ],
    tags: "",
    version_variable: None,
    cgo: false,
};

/// The container engine, without snapshotters that nodes cannot use.
pub(super) const CONTAINERD: Component = Component {
    name: "containerd",
    module: "github.com/containerd/containerd/v2",
    companions: &[],
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    tags: "no_btrfs no_zfs no_devmapper no_aufs",
    version_variable: Some("github.com/containerd/containerd/v2/version.Version"),
    cgo: false,
};

/// The CNI plug-ins.
pub(super) const CNI: Component = Component {
    name: "cni",
    module: "github.com/containernetworking/plugins",
    companions: &[],
    packages: &[
        "github.com/containernetworking/plugins/plugins/main/ptp",
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ],
    tags: "",
    version_variable: Some("github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion"),
    cgo: false,
};

/// Makes volumes of directories.
pub(super) const LOCAL_PATH_PROVISIONER: Component = Component {
    name: "local-path-provisioner",
    module: "github.com/rancher/local-path-provisioner",
    companions: &[],
    packages: &["github.com/rancher/local-path-provisioner"],
    tags: "",
    version_variable: Some("main.VERSION"),
    cgo: false,
};

/// Kubernetes' store, and the program to ask it with.
pub(super) const ETCD: Component = Component {
    name: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    companions: &["go.etcd.io/etcd/etcdctl/v3"],
    packages: &["."],
    tags: "",
    version_variable: None,
    cgo: false,
};

/// The cluster's DNS server.
pub(super) const COREDNS: Component = Component {
    name: "coredns",
    module: "github.com/coredns/coredns",
    companions: &[],
    packages: &["."],
    tags: "",
    version_variable: None,
    cgo: false,
};

/// Starts containers.
pub(super) const RUNC: Component = Component {
    name: "runc",
    module: "github.com/opencontainers/runc",
    companions: &[],
    packages: &["github.com/opencontainers/runc"],
    tags: "seccomp netgo osusergo",
    version_variable: None,
    cgo: true,
};

/// The registry of images; no part of node images, but an image of its own.
pub(super) const REGISTRY: Component = Component {
    name: "registry",
    module: "github.com/distribution/distribution/v3",
    companions: &[],
    packages: &["."],
    tags: "",
    version_variable: Some("github.com/distribution/distribution/v3/version.version"),
    cgo: false,
};

/// Talks to containerd the way kubelet does: what kind and people ask a node's images and containers with.
pub(super) const CRI_TOOLS: Component = Component {
    name: "cri-tools",
    module: "sigs.k8s.io/cri-tools",
    companions: &[],
    packages: &["sigs.k8s.io/cri-tools/cmd/crictl"],
    tags: "",
    version_variable: Some("sigs.k8s.io/cri-tools/pkg/version.Version"),
    cgo: false,
};

/// Every component of a node image, in the order in which they are built: kubeadm decides about the versions of later ones.
pub(super) const ALL: [&Component; 8] =
    [&KUBERNETES, &CONTAINERD, &RUNC, &CNI, &CRI_TOOLS, &ETCD, &COREDNS, &LOCAL_PATH_PROVISIONER];

impl Component {
    /// The version that the recipe pins, with the checksums of everything that belongs to it.
    pub(super) fn pinned_version(&self) -> &'static str {
        gomod::required(recipe::text(&format!("{}/go.mod", self.name)), self.module)
            .expect("each module of the recipe requires what it is named after")
    }

    /// The folder of the recipe with files that take the place of the component's own for a version that is older than
    /// what these are written for.
    pub(super) fn older_sources(&self, wanted: &str) -> Option<&'static str> {
        let version = gomod::parse_version(wanted.trim_start_matches('v'));
        (self.name == ETCD.name && version.is_some_and(|version| version < (3, 6, 0)))
            .then_some("etcd-before-3.6")
    }

    /// The arguments for the linker. `version` is that of Kubernetes.
    pub(super) fn linker_flags(&self, version: &KubernetesVersion) -> String {
        let mut flags = "-s -w".to_owned();
        if self.name == KUBERNETES.name {
            // As the recipe changes it.
            flags.push_str(&stamp(version, "dirty", None));
        }
        if let Some(variable) = self.version_variable {
            flags.push_str(&format!(" -X {variable}={}", self.pinned_version()));
        }
        if self.cgo {
            flags.push_str(" -extldflags -static");
        }
        flags
    }

    /// The file names of the programs.
    pub(super) fn programs(&self) -> impl Iterator<Item = &'static str> {
        let name = self.name;
        self.packages.iter().map(move |package| match package.rsplit('/').next() {
            Some(".") | None => name,
            Some(last) => last,
        })
    }
}

/// The linker's arguments for the version that Kubernetes' programs report and compare, as its own build sets them. The
/// state is that of the tree they are compiled from: `clean`, `dirty` or `archive`.
pub(super) fn stamp(version: &KubernetesVersion, state: &str, commit: Option<&str>) -> String {
    let mut values = vec![
        format!("gitVersion={version}"),
        format!("gitMajor={}", version.major()),
        format!("gitMinor={}", version.minor()),
        format!("gitTreeState={state}"),
    ];
    values.extend(commit.map(|commit| format!("gitCommit={commit}")));
    let mut flags = String::new();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for value in &values {
            flags.push_str(&format!(" -X {package}.{value}"));
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::DEFAULT_KUBERNETES_VERSION;

    #[test]
    fn the_default_version_is_the_pinned_one() {
        assert_eq!(KUBERNETES.pinned_version(), DEFAULT_KUBERNETES_VERSION);
    }

    #[test]
    fn older_versions_have_sources_of_their_own() {
        assert_eq!(ETCD.older_sources("v3.5.15"), Some("etcd-before-3.6"));
        assert_eq!(ETCD.older_sources(ETCD.pinned_version()), None);
        assert_eq!(COREDNS.older_sources("v1.11.3"), None);
        let files = recipe::files("etcd-before-3.6");
        assert_eq!(
            files.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
            [std::path::Path::new("main.go")]
        );
    }

    #[test]
    fn every_component_pins_a_version() {
        for component in ALL.into_iter().chain([&REGISTRY]) {
            assert!(component.pinned_version().starts_with('v'), "{}", component.name);
        }
    }

    #[test]
    fn packages_that_are_not_ours_belong_to_the_module() {
        for component in ALL.into_iter().chain([&REGISTRY]) {
            for package in component.packages {
                let ours = *package == "." || package.starts_with("./");
                assert!(ours || package.starts_with(component.module), "{package}");
            }
        }
    }

    #[test]
    fn programs_are_named_after_their_packages() {
        assert_eq!(ETCD.programs().collect::<Vec<_>>(), ["etcd"]);
        for component in ALL {
            let text = recipe::text(&format!("{}/go.mod", component.name));
            for companion in component.companions {
                assert_eq!(gomod::required(text, companion), Some(component.pinned_version()), "{companion}");
            }
        }
        assert_eq!(CONTAINERD.programs().last(), Some("ctr"));
    }

    #[test]
    fn programs_are_stamped_with_their_versions_and_only_runc_links_c() {
        let version = "v1.34.4".parse().unwrap();
        insta::assert_snapshot!(KUBERNETES.linker_flags(&version), @"-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34 -X k8s.io/component-base/version.gitTreeState=dirty -X k8s.io/client-go/pkg/version.gitVersion=v1.34.4 -X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=34 -X k8s.io/client-go/pkg/version.gitTreeState=dirty");
        assert_eq!(ETCD.linker_flags(&version), "-s -w");
        assert!(CNI.linker_flags(&version).ends_with(".BuildVersion=v1.9.1"));
        assert_eq!(RUNC.linker_flags(&version), "-s -w -extldflags -static");
    }
}
