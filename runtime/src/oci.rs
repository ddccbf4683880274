//! The container's specification in OCI runtime terms.
//!
//! Privileged, as engines mean it, but computed from what this host grants: asking for a capability outside the
//! bounding set, or for more than a hard limit, is refused with EPERM, and CI sandboxes often lack CAP_SYS_RESOURCE.

use std::{collections::HashMap, path::Path};

use caps::{CapSet, Capability};
use oci_spec::runtime::{
    Capability as OciCapability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Mount as OciMount, MountBuilder,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::{ContainerSpec, Error, Mount, Propagation, Result, devices};

/// What `exec` and init search when the image sets no `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The runtime configuration of a container whose root is mounted at `rootfs` and whose network namespace is at
/// `netns`.
///
/// # Errors
/// [`Error::Specification`] when the builder refuses, [`Error::System`] when the bounding set cannot be read.
pub(crate) fn runtime_spec(spec: &ContainerSpec, rootfs: &Path, netns: &str, hybrid: bool) -> Result<Spec> {
    build(spec, rootfs, netns, hybrid, &bounding_set()?)
        .map_err(|source| Error::Specification { id: spec.id.clone(), source: source.into() })
}

fn build(
    spec: &ContainerSpec,
    rootfs: &Path,
    netns: &str,
    hybrid: bool,
    capabilities: &std::collections::HashSet<OciCapability>,
) -> Result<Spec, oci_spec::OciSpecError> {
    let mut env = spec.env.clone();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    let process = ProcessBuilder::default()
        .terminal(true)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
        .args(spec.args.clone())
        .env(env)
        .cwd("/")
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(capabilities.clone())
                .effective(capabilities.clone())
                .permitted(capabilities.clone())
                .inheritable(std::collections::HashSet::new())
                .ambient(std::collections::HashSet::new())
                .build()?,
        )
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .build()?;

    let mut namespaces = Vec::new();
    for typ in [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Cgroup,
    ] {
        namespaces.push(LinuxNamespaceBuilder::default().typ(typ).build()?);
    }
    namespaces.push(LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(netns).build()?);

    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .cgroups_path(spec.cgroup.path())
        .resources(
            LinuxResourcesBuilder::default()
                .devices(vec![LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build()?])
                .build()?,
        )
        .devices(devices::host_devices())
        .masked_paths(Vec::new())
        .readonly_paths(Vec::new())
        .sysctl(spec.sysctls.clone().into_iter().collect::<HashMap<_, _>>())
        .build()?;

    SpecBuilder::default()
        .version("1.0.2")
        .hostname(spec.hostname.clone())
        .process(process)
        .root(RootBuilder::default().path(rootfs).readonly(false).build()?)
        .mounts(mounts(spec, hybrid)?)
        .linux(linux)
        .build()
}

fn mounts(spec: &ContainerSpec, hybrid: bool) -> Result<Vec<OciMount>, oci_spec::OciSpecError> {
    let file_system = |destination: &str, typ: &str, source: &str, options: &[&str]| {
        MountBuilder::default()
            .destination(destination)
            .typ(typ)
            .source(source)
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
    };
    let mut mounts = vec![
        file_system("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        file_system("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        file_system(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        file_system("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        file_system("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        file_system("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev"])?,
        file_system("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"])?,
    ];
    if hybrid {
        // libcontainer mounts the v1 hierarchies and leaves this one out (rust.md A1); without it systemd takes the
        // host for a pure v1 one and runc inside cannot tell where it is.
        let options = ["nosuid", "noexec", "nodev", "relatime"];
        mounts.push(file_system("/sys/fs/cgroup/unified", "cgroup2", "cgroup2", &options)?);
    }
    mounts.push(file_system("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=755"])?);
    mounts.push(file_system("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"])?);
    // Those that are shared with the host are attached by the executor.
    let not_shared = |mount: &&Mount| mount.propagation != Propagation::Bidirectional;
    for mount in spec.mounts.iter().filter(not_shared) {
        let access = if mount.read_only { "ro" } else { "rw" };
        mounts.push(
            MountBuilder::default()
                .destination(&mount.destination)
                .typ("bind")
                .source(&mount.source)
                .options(vec!["rbind".to_owned(), access.to_owned(), mount.propagation.option().to_owned()])
                .build()?,
        );
    }
    Ok(mounts)
}

/// The capabilities this process could give away. Those newer than the libraries are left out.
fn bounding_set() -> Result<std::collections::HashSet<OciCapability>> {
    let held = caps::read(None, CapSet::Bounding)
        .map_err(|error| Error::system("read the bounding set")(std::io::Error::other(error)))?;
    Ok(held.into_iter().filter_map(oci_capability).collect())
}

fn oci_capability(capability: Capability) -> Option<OciCapability> {
    // Both crates know the kernel's names, with and without the prefix.
    capability.to_string().strip_prefix("CAP_")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cgroup, RootFilesystem};

    fn spec() -> ContainerSpec {
        ContainerSpec {
            id: "c-control-plane".to_owned(),
            directory: "/run/kiln/x".into(),
            console: "/console".into(),
            exit: "/exit".into(),
            root: RootFilesystem { lowers: vec!["/l".into()], upper: "/u".into(), work: "/w".into() },
            hostname: "c-control-plane".to_owned(),
            args: vec!["/sbin/init".to_owned()],
            env: vec!["container=kiln".to_owned()],
            mounts: vec![Mount {
                source: "/src".into(),
                destination: "/dst".into(),
                read_only: true,
                propagation: Propagation::HostToContainer,
            }],
            cgroup: Cgroup { parent: "kiln/c".to_owned(), leaf: "c-control-plane".to_owned() },
            sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        }
    }

    #[test]
    fn every_capability_of_the_kernel_headers_has_an_oci_name() {
        let unknown: Vec<_> = caps::all().into_iter().filter(|c| oci_capability(*c).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn capabilities_are_those_given_and_nothing_is_masked() {
        let held = [OciCapability::SysAdmin, OciCapability::Kill].into();
        let oci = build(&spec(), Path::new("/r"), "/proc/self/fd/5", false, &held).unwrap();
        let capabilities = oci.process().as_ref().unwrap().capabilities().as_ref().unwrap();
        assert_eq!(capabilities.bounding().as_ref(), Some(&held));
        assert_eq!(capabilities.effective().as_ref(), Some(&held));
        let linux = oci.linux().as_ref().unwrap();
        assert_eq!(linux.masked_paths().as_deref(), Some(&[][..]));
        assert_eq!(linux.readonly_paths().as_deref(), Some(&[][..]));
        assert_eq!(oci.process().as_ref().unwrap().rlimits().as_deref(), Some(&[][..]));
    }

    #[test]
    fn mounts_of_the_caller_come_last_with_their_propagation() {
        let oci = build(&spec(), Path::new("/r"), "/n", true, &Default::default()).unwrap();
        let mounts = oci.mounts().as_ref().unwrap();
        let last = mounts.last().unwrap();
        assert_eq!(last.destination(), Path::new("/dst"));
        assert_eq!(last.options().as_ref().unwrap(), &["rbind", "ro", "rslave"]);
        assert!(mounts.iter().any(|mount| mount.typ().as_deref() == Some("cgroup2")), "hybrid host");
    }
}
