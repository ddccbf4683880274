//! What a node has on top of Debian: Kubernetes' and containerd's programs, units, configuration, manifests.

use std::{
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{
    Build,
    cache::file_error,
    compile::{self, Programs},
    component::{CNI, CONTAINERD, CRI_TOOLS, KUBERNETES, RUNC},
    container,
    recipe::{self, Key},
    subset::copy_file,
};
use crate::{Error, Result};

/// Where each program goes: component, program, directory.
const PROGRAMS: [(&str, &str, &str); 13] = [
    (KUBERNETES.name, "kubeadm", "usr/bin"),
    (KUBERNETES.name, "kubelet", "usr/bin"),
    (KUBERNETES.name, "kubectl", "usr/bin"),
    (CONTAINERD.name, "containerd", "usr/local/bin"),
    (CONTAINERD.name, "containerd-shim-runc-v2", "usr/local/bin"),
    (CONTAINERD.name, "ctr", "usr/local/bin"),
    (CRI_TOOLS.name, "crictl", "usr/local/bin"),
    (RUNC.name, "runc", "usr/local/sbin"),
    (CNI.name, "bridge", "opt/cni/bin"),
    (CNI.name, "host-local", "opt/cni/bin"),
    (CNI.name, "loopback", "opt/cni/bin"),
    (CNI.name, "portmap", "opt/cni/bin"),
    (CNI.name, "ptp", "opt/cni/bin"),
];

/// In a node: which files of upstream's sources were changed before its programs were compiled, one in a line with its module
/// before it. An image without it has programs that somebody else compiled, or as upstream has them.
pub(crate) const CHANGED_SOURCES: &str = "/kind/changed-sources";

/// The directories and files of a node that are not Debian's.
#[derive(Debug)]
pub(super) struct Node {
    /// The directory that holds them under their paths.
    pub(super) root: PathBuf,
    /// What it was made from.
    pub(super) key: String,
}

/// Puts them together, or finds them in the cache.
pub(super) async fn root(build: &Build<'_>, programs: &Programs) -> Result<Node> {
    let version = &programs.version;
    let values = values(programs);
    let mut key = Key::default()
        .with_files("rootfs")
        .with(recipe::text("links"))
        .with(recipe::text("directories"))
        .with(version.to_string());
    for (component, program, directory) in PROGRAMS {
        key = key.with(programs.key(component)).with(program).with(directory);
    }
    for (_, value) in &values {
        key = key.with(value);
    }
    let key = key.finish();
    if let Some(root) = build.cache.find("node", &key) {
        return Ok(Node { root, key });
    }
    let scratch = build.cache.scratch()?;
    let root = scratch.path().join("root");
    let placed: Vec<_> = PROGRAMS
        .iter()
        .map(|(component, program, directory)| {
            (programs.path(component, program), Path::new(directory).join(program))
        })
        .collect();
    let components = PROGRAMS.chunk_by(|(one, ..), (next, ..)| one == next).map(|chunk| chunk[0].0);
    let changed = components.map(|component| programs.path(component, compile::CHANGED)).collect::<Vec<_>>();
    let assembled = tokio::task::spawn_blocking({
        let (root, version) = (root.clone(), version.to_string());
        move || assemble(&root, &placed, &changed, &values, &version)
    });
    let assembling = file_error("assemble the node's files", build.cache.root());
    assembled.await.map_err(io::Error::other).and_then(|result| result).map_err(assembling)?;
    check(&root)?;
    let root = build.cache.commit(&root, "node", &key)?;
    Ok(Node { root, key })
}

/// What stands for the placeholders in the recipe's files.
fn values(programs: &Programs) -> Vec<(&'static str, String)> {
    vec![
        ("@SANDBOX_IMAGE@", programs.names.pause.clone()),
        ("@PROVISIONER_IMAGE@", container::provisioner_image()),
        ("@HELPER_IMAGE@", container::BUSYBOX_IMAGE.to_owned()),
        ("@AGENT_IMAGE@", container::agent_image()),
    ]
}

fn assemble(
    root: &Path,
    programs: &[(PathBuf, PathBuf)],
    changed: &[PathBuf],
    values: &[(&str, String)],
    version: &str,
) -> io::Result<()> {
    for directory in recipe::lines("directories") {
        fs_err::create_dir_all(root.join(directory))?;
    }
    for (path, contents) in recipe::files("rootfs") {
        let mut text = String::from_utf8_lossy(contents).into_owned();
        for (placeholder, value) in values {
            text = text.replace(placeholder, value);
        }
        let target = with_parent(root, path)?;
        fs_err::write(&target, &text)?;
        let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
        fs_err::set_permissions(target, std::fs::Permissions::from_mode(mode))?;
    }
    // What was not compiled from its modules was not changed, and has no such file.
    let mut sources = String::new();
    for path in changed.iter().filter(|path| path.exists()) {
        sources.push_str(&fs_err::read_to_string(path)?);
    }
    for (path, content) in [("kind/version", version), (CHANGED_SOURCES.trim_start_matches('/'), &sources)] {
        let target = with_parent(root, Path::new(path))?;
        fs_err::write(&target, content)?;
        fs_err::set_permissions(target, std::fs::Permissions::from_mode(0o644))?;
    }
    for line in recipe::lines("links") {
        let (path, link) = line.split_once(char::is_whitespace).ok_or_else(|| io::Error::other(line))?;
        symlink(link.trim(), with_parent(root, Path::new(path))?)?;
    }
    for (program, path) in programs {
        let target = with_parent(root, path)?;
        copy_file(program, &target)?;
        fs_err::set_permissions(target, std::fs::Permissions::from_mode(0o755))?;
    }
    open_directories(root)
}

fn with_parent(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let target = root.join(path);
    if let Some(parent) = target.parent() {
        fs_err::create_dir_all(parent)?;
    }
    Ok(target)
}

/// The directories were made with whatever the caller's umask leaves; a node's are for everybody. A closed `/kind`
/// keeps pods with user namespaces from starting.
fn open_directories(directory: &Path) -> io::Result<()> {
    fs_err::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_directories(&entry.path())?;
        }
    }
    Ok(())
}

/// A placeholder that nothing stands for would only be noticed in a cluster.
fn check(root: &Path) -> Result<()> {
    for (path, _) in recipe::files("rootfs") {
        let text = fs_err::read_to_string(root.join(path))
            .map_err(|source| Error::File { what: "check the node's files", source })?;
        if let Some(word) = text
            .split(|c: char| !(c == '@' || c == '_' || c.is_ascii_uppercase()))
            .find(|word| word.len() > 2 && word.starts_with('@') && word.ends_with('@'))
        {
            let reason = format!("nothing stands for {word}");
            return Err(Error::Recipe { object: path.display().to_string(), reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(values: &[(&str, String)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs_err::write(&program, "").unwrap();
        let programs = [(program, PathBuf::from("usr/bin/kubeadm"))];
        let changed = directory.path().join("changed");
        fs_err::write(&changed, "m a/b.go\n").unwrap();
        let changed = [changed, directory.path().join("not compiled from modules")];
        assemble(&directory.path().join("root"), &programs, &changed, values, "v1.34.4").unwrap();
        directory
    }

    fn mode(path: &Path) -> u32 {
        fs_err::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn scripts_and_programs_can_be_run_and_directories_entered() {
        let directory = node(&[]);
        let root = directory.path().join("root");
        for path in
            ["usr/local/bin/entrypoint", "kind/bin/prepare-kubelet-cgroups", "usr/bin/kubeadm", "kind", "."]
        {
            assert_eq!(mode(&root.join(path)), 0o755, "{path}");
        }
        assert_eq!(mode(&root.join("etc/containerd/config.toml")), 0o644);
        assert_eq!(fs_err::read_to_string(root.join("kind/version")).unwrap(), "v1.34.4");
        assert_eq!(fs_err::read_to_string(root.join("kind/changed-sources")).unwrap(), "m a/b.go\n");
        let target = fs_err::read_link(root.join("etc/systemd/system/default.target")).unwrap();
        assert_eq!(target, Path::new("/usr/lib/systemd/system/multi-user.target"));
    }

    #[test]
    fn a_placeholder_without_a_value_is_found() {
        let values = [
            ("@SANDBOX_IMAGE@", "p".to_owned()),
            ("@PROVISIONER_IMAGE@", "l".to_owned()),
            ("@HELPER_IMAGE@", "b".to_owned()),
            ("@AGENT_IMAGE@", "a".to_owned()),
        ];
        check(&node(&values).path().join("root")).unwrap();
        let error = check(&node(&values[1..]).path().join("root")).unwrap_err();
        assert!(error.to_string().contains("@SANDBOX_IMAGE@"), "{error}");
    }

    #[test]
    fn nothing_of_the_recipe_hides_a_link_of_debian() {
        // In a root with merged /usr these are links: a directory of that name in a layer above would replace them.
        let merged = ["bin", "lib", "lib64", "sbin"];
        let links = recipe::lines("links").map(Path::new);
        let paths = recipe::files("rootfs").into_iter().map(|(path, _)| path);
        for path in paths.chain(links).chain(recipe::lines("directories").map(Path::new)) {
            let first = path.components().next().unwrap();
            assert!(!merged.iter().any(|name| first.as_os_str() == *name), "{}", path.display());
        }
    }
}
