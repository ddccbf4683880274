//! The container images that are inside the node image: scratch and what one program needs.

use std::{
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    compile::{PAUSE, Programs},
    component::{COREDNS, ETCD, KUBERNETES, LOCAL_PATH_PROVISIONER},
    elf,
    subset::{Subset, copy_file, resolve},
};
use crate::{
    Error, Result,
    image::{Image, ImageSettings, Store, pack_layer, write_image},
    service::NETWORK_AGENT,
};

/// Small tools: what local volumes are made with, and a first pod where no registry can be reached.
pub(super) const BUSYBOX_IMAGE: &str = "docker.io/library/busybox:stable";

/// Counts changes of the network agent within a version of Kiln. The content of the program itself is no part of the
/// key that images are cached by: every other change of Kiln would cost a new unpacking of all of them.
const AGENT_REVISION: u32 = 1;

/// Where containers look for programs.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Certificates of public authorities, in Debian's place.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What kube-proxy calls, for each of its modes.
const PROXY_TOOLS: [&str; 23] = [
    "/usr/sbin/iptables",
    "/usr/sbin/iptables-restore",
    "/usr/sbin/iptables-save",
    "/usr/sbin/ip6tables",
    "/usr/sbin/ip6tables-restore",
    "/usr/sbin/ip6tables-save",
    "/usr/sbin/iptables-nft",
    "/usr/sbin/iptables-nft-restore",
    "/usr/sbin/iptables-nft-save",
    "/usr/sbin/ip6tables-nft",
    "/usr/sbin/ip6tables-nft-restore",
    "/usr/sbin/ip6tables-nft-save",
    "/usr/sbin/iptables-legacy",
    "/usr/sbin/iptables-legacy-restore",
    "/usr/sbin/iptables-legacy-save",
    "/usr/sbin/ip6tables-legacy",
    "/usr/sbin/ip6tables-legacy-restore",
    "/usr/sbin/ip6tables-legacy-save",
    "/usr/sbin/nft",
    "/usr/sbin/conntrack",
    "/usr/sbin/ipset",
    "/usr/sbin/modprobe",
    "/usr/bin/kmod",
];

/// One image to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// Its full name with a tag.
    pub(super) name: String,
    /// What is in it.
    content: Content,
    /// What runs when a pod names no command.
    entrypoint: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// One static program at a path, with or without another name beside it, and certificates to check TLS peers with.
    Program { program: PathBuf, path: &'static str, alias: Option<&'static str>, certificates: bool },
    /// kube-proxy and the tools it calls.
    Proxy { program: PathBuf },
    /// Debian's busybox under the names of its applets.
    Busybox { applets: Vec<String> },
    /// This program, as the network agent.
    Agent { revision: u32 },
    /// An image that exists already, in an archive.
    Archive { path: PathBuf },
}

impl Container {
    /// The archive that has the image, if it need not be made.
    pub(super) fn archive(&self) -> Option<&Path> {
        match &self.content {
            Content::Archive { path } => Some(path),
            _ => None,
        }
    }
}

/// The image of the local volume provisioner, by the version of its module.
pub(super) fn provisioner_image() -> String {
    format!("docker.io/rancher/{}:{}", LOCAL_PATH_PROVISIONER.name, LOCAL_PATH_PROVISIONER.pinned_version())
}

/// The image of the network agent, by the version of Kiln.
pub(super) fn agent_image() -> String {
    format!("docker.io/kiln/agent:v{}", env!("CARGO_PKG_VERSION"))
}

/// All images, in the order of their importance to a first boot.
pub(super) fn containers(programs: &Programs, applets: &[String]) -> Vec<Container> {
    let names = &programs.names;
    // Kubernetes' own, around what was compiled or as they came. kubeadm names the command in their pods.
    let kubernetes = |name: &str, program: &str, content: &dyn Fn(PathBuf) -> Content| Container {
        name: name.to_owned(),
        content: match programs.has_images {
            true => Content::Archive { path: programs.path(KUBERNETES.name, &format!("{program}.tar")) },
            false => content(programs.path(KUBERNETES.name, program)),
        },
        entrypoint: Vec::new(),
    };
    let content = |program, path, certificates| Content::Program { program, path, alias: None, certificates };
    let served = |path: &'static str| move |program| content(program, path, true);
    let program =
        |name: &str, component: &str, program: &str, path: &'static str, certificates: bool| Container {
            name: name.to_owned(),
            content: content(programs.path(component, program), path, certificates),
            entrypoint: vec![format!("/{path}")],
        };
    vec![
        program(&names.pause, PAUSE, PAUSE, "pause", false),
        Container {
            name: names.etcd.clone(),
            content: Content::Program {
                program: programs.path(ETCD.name, "etcd"),
                path: "usr/local/bin/etcd",
                alias: Some("etcdctl"),
                certificates: false,
            },
            entrypoint: Vec::new(),
        },
        kubernetes(&names.apiserver, "kube-apiserver", &served("usr/local/bin/kube-apiserver")),
        kubernetes(
            &names.controller_manager,
            "kube-controller-manager",
            &served("usr/local/bin/kube-controller-manager"),
        ),
        kubernetes(&names.scheduler, "kube-scheduler", &served("usr/local/bin/kube-scheduler")),
        kubernetes(&names.proxy, "kube-proxy", &|program| Content::Proxy { program }),
        program(&names.coredns, COREDNS.name, "coredns", "coredns", true),
        program(
            &provisioner_image(),
            LOCAL_PATH_PROVISIONER.name,
            "local-path-provisioner",
            "usr/bin/local-path-provisioner",
            false,
        ),
        Container {
            name: BUSYBOX_IMAGE.to_owned(),
            content: Content::Busybox { applets: applets.to_vec() },
            entrypoint: Vec::new(),
        },
        Container {
            name: agent_image(),
            content: Content::Agent { revision: AGENT_REVISION },
            entrypoint: vec!["/kiln".to_owned(), NETWORK_AGENT.to_owned()],
        },
    ]
}

/// Makes an image and puts it into a store. `scratch` is an empty directory that takes its files.
///
/// # Errors
/// [`Error::Recipe`] when it has an archive already, or when something that belongs into it is not in the Debian root, [`Error::File`].
pub(super) fn write(container: &Container, debian: &Path, scratch: &Path, store: &Store) -> Result<Image> {
    let filling = |source| Error::File { what: "make a container image", source };
    base(scratch).map_err(filling)?;
    let mut settings = ImageSettings {
        env: vec![PATH.to_owned()],
        entrypoint: container.entrypoint.clone(),
        ..Default::default()
    };
    match &container.content {
        Content::Program { program, path, alias, certificates } => {
            place(program, scratch, path).map_err(filling)?;
            if let Some(alias) = alias {
                let program = Path::new(path).file_name().unwrap_or_default();
                symlink(program, scratch.join(path).with_file_name(alias)).map_err(filling)?;
            }
            if *certificates {
                Subset::new(debian, scratch).take(Path::new(CERTIFICATES)).map_err(filling)?;
            }
        }
        Content::Proxy { program } => {
            proxy_tools(debian, scratch)?;
            place(program, scratch, "usr/local/bin/kube-proxy").map_err(filling)?;
        }
        Content::Busybox { applets } => {
            busybox(debian, scratch, applets).map_err(filling)?;
            settings.cmd = vec!["sh".to_owned()];
        }
        Content::Agent { .. } => agent(scratch).map_err(filling)?,
        Content::Archive { path } => {
            let reason = "it is an image already".to_owned();
            return Err(Error::Recipe { object: path.display().to_string(), reason });
        }
    }
    let layer = pack_layer(store, scratch, |_| true)?;
    write_image(store, &container.name.parse()?, vec![layer], settings)
}

/// What every image has: users for programs that look themselves up, and directories to write into.
pub(super) fn base(root: &Path) -> io::Result<()> {
    let mode =
        |path: &str, mode| fs_err::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode));
    mode("", 0o755)?;
    for directory in ["etc", "run", "tmp"] {
        fs_err::create_dir(root.join(directory))?;
        mode(directory, 0o755)?;
    }
    mode("tmp", 0o1777)?;
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
    fs_err::write(root.join("etc/passwd"), passwd)?;
    fs_err::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    mode("etc/passwd", 0o644)?;
    mode("etc/group", 0o644)
}

fn place(program: &Path, root: &Path, path: &str) -> io::Result<()> {
    let target = root.join(path);
    let mut parent = root.to_owned();
    for name in Path::new(path).parent().unwrap_or(Path::new("")) {
        parent.push(name);
        if !parent.exists() {
            fs_err::create_dir(&parent)?;
            fs_err::set_permissions(&parent, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    copy_file(program, &target)
}

/// Takes kube-proxy's tools from the Debian root, with the plug-ins that iptables loads by name and the libraries of
/// all of them. The plug-ins link some that the programs do not.
fn proxy_tools(debian: &Path, root: &Path) -> Result<()> {
    let missing = |path: &Path| Error::Recipe {
        object: path.display().to_string(),
        reason: "it is not in the Debian root".to_owned(),
    };
    let mut files: Vec<PathBuf> = PROXY_TOOLS.iter().map(PathBuf::from).collect();
    let plugins =
        plugins(debian).map_err(|source| Error::File { what: "look for iptables' plug-ins", source })?;
    if plugins.is_empty() {
        return Err(missing(Path::new("/usr/lib/*/xtables")));
    }
    files.extend(plugins);
    let mut subset = Subset::new(debian, root);
    let taking = |source| Error::File { what: "make a container image", source };
    // Programs name each other by paths of a root with and without merged /usr.
    for link in ["/bin", "/lib", "/lib64", "/sbin"] {
        subset.take(Path::new(link)).map_err(taking)?;
    }
    for file in &files {
        resolve(debian, file).ok_or_else(|| missing(file))?;
        subset.take(file).map_err(taking)?;
    }
    for library in elf::libraries(debian, &files)? {
        subset.take(&library).map_err(taking)?;
    }
    subset.take(Path::new(CERTIFICATES)).map_err(taking)
}

fn plugins(debian: &Path) -> io::Result<Vec<PathBuf>> {
    let mut plugins = Vec::new();
    for directory in fs_err::read_dir(debian.join("usr/lib"))? {
        let folder = directory?.path().join("xtables");
        let Ok(entries) = fs_err::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "so")
                && let Ok(inside) = path.strip_prefix(debian)
            {
                plugins.push(Path::new("/").join(inside));
            }
        }
    }
    plugins.sort();
    Ok(plugins)
}

fn busybox(debian: &Path, root: &Path, applets: &[String]) -> io::Result<()> {
    let program = resolve(debian, Path::new("/bin/busybox"));
    let program = program.ok_or_else(|| io::Error::other("busybox is not in the Debian root"))?;
    place(&program, root, "bin/busybox")?;
    for applet in applets.iter().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs_err::create_dir(root.join("usr"))?;
    fs_err::set_permissions(root.join("usr"), std::fs::Permissions::from_mode(0o755))?;
    symlink("bin", root.join("sbin"))?;
    symlink("../bin", root.join("usr/bin"))?;
    symlink("../bin", root.join("usr/sbin"))?;
    for (directory, mode) in [("root", 0o700), ("home", 0o755), ("dev", 0o755), ("var", 0o755)] {
        fs_err::create_dir(root.join(directory))?;
        fs_err::set_permissions(root.join(directory), std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The program that is running, which is static as it is released. It needs nothing beside it but to be told that
/// names are looked up in the node's `/etc/hosts` first, where the control plane's is.
fn agent(root: &Path) -> io::Result<()> {
    place(Path::new("/proc/self/exe"), root, "kiln")?;
    fs_err::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    for (path, mode) in [("kiln", 0o755), ("etc/nsswitch.conf", 0o644)] {
        fs_err::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provisioner_is_named_after_its_module_and_version() {
        assert_eq!(provisioner_image(), "docker.io/rancher/local-path-provisioner:v0.0.30");
    }

    #[test]
    fn the_agent_is_this_program() {
        assert_eq!(agent_image(), concat!("docker.io/kiln/agent:v", env!("CARGO_PKG_VERSION")));
        let root = tempfile::tempdir().unwrap();
        base(root.path()).unwrap();
        agent(root.path()).unwrap();
        let program = fs_err::symlink_metadata(root.path().join("kiln")).unwrap();
        assert!(program.is_file() && program.permissions().mode() & 0o7777 == 0o755);
        assert_eq!(program.len(), fs_err::metadata("/proc/self/exe").unwrap().len());
    }

    #[test]
    fn busybox_answers_to_its_names() {
        let (debian, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs_err::create_dir(debian.path().join("bin")).unwrap();
        fs_err::write(debian.path().join("bin/busybox"), "program").unwrap();
        base(root.path()).unwrap();
        let applets = ["busybox", "sh", "nslookup"].map(str::to_owned);
        busybox(debian.path(), root.path(), &applets).unwrap();
        for path in ["bin/sh", "usr/bin/nslookup", "sbin/sh", "bin/busybox"] {
            assert_eq!(fs_err::read_to_string(root.path().join(path)).unwrap(), "program", "{path}");
        }
        let mode = fs_err::metadata(root.path().join("tmp")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
    }

    #[test]
    fn a_tool_that_debian_lacks_is_named() {
        let (debian, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugins = debian.path().join("usr/lib/x86_64-linux-gnu/xtables");
        fs_err::create_dir_all(&plugins).unwrap();
        fs_err::write(plugins.join("libxt_tcp.so"), "").unwrap();
        for link in ["bin", "lib", "lib64", "sbin"] {
            fs_err::create_dir(debian.path().join(link)).unwrap();
        }
        let error = proxy_tools(debian.path(), root.path()).unwrap_err();
        assert!(error.to_string().starts_with("/usr/sbin/iptables is not usable"), "{error}");
    }
}
