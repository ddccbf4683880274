//! What a node knows of registries: files of its own, made from the registries' records.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::super::inside::Tree;
use super::upstream::Upstream;
use crate::{
    Result,
    state::{REGISTRY_PORT, RegistryRecord},
};

/// Where containerd looks for what it should know about a registry, one directory for each.
const DIRECTORY: &str = "/etc/containerd/certs.d";
const FILE: &str = "hosts.toml";
const NAMES: &str = "/etc/hosts";

/// How the files that Kiln has written begin, and the lines of `/etc/hosts` end.
const MARK: &str = "# kiln registry";

/// What every node should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// By the host part of image names: the file about it.
    files: BTreeMap<String, String>,
    /// Names and addresses.
    names: Vec<(String, Ipv4Addr)>,
}

impl Known {
    /// What there is to know about these registries.
    pub(super) fn of(registries: &[RegistryRecord]) -> Self {
        let mut known = Self::default();
        for record in registries {
            let Some(gateway) = record.gateway() else { continue };
            let mirror = format!("http://{gateway}:{REGISTRY_PORT}");
            let file = |server: &str| {
                format!(
                    "{MARK} {}\nserver = \"{server}\"\n\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
                    record.name
                )
            };
            for host in [format!("localhost:{}", record.port), format!("{}:{REGISTRY_PORT}", record.name)] {
                known.files.insert(host, file(&mirror));
            }
            if let Some(upstream) = record.proxy.as_deref().and_then(|url| Upstream::parse(url).ok()) {
                // When the cache is gone, or has trouble of its own, the registry itself is asked.
                known.files.insert(upstream.host, file(&upstream.url));
            }
            known.names.push((record.name.clone(), gateway));
        }
        known
    }

    /// Makes a node know this and nothing else. Returns the hosts that somebody else's files are about, which stay.
    ///
    /// # Errors
    /// [`crate::Error::NodeFile`].
    pub(super) fn apply(&self, tree: &Tree) -> Result<Vec<String>> {
        let path = |host: &str| format!("{DIRECTORY}/{host}/{FILE}");
        let mut foreign = Vec::new();
        for host in tree.list(DIRECTORY)? {
            let text = tree.read(&path(&host))?;
            let ours = text.is_some_and(|text| text.starts_with(MARK));
            if ours && !self.files.contains_key(&host) {
                tree.remove(DIRECTORY, &host, FILE)?;
            }
        }
        for (host, wanted) in &self.files {
            match tree.read(&path(host))? {
                Some(text) if text == *wanted => {}
                Some(text) if !text.starts_with(MARK) => foreign.push(host.clone()),
                _ => tree.write(&path(host), wanted)?,
            }
        }
        let names = tree.read(NAMES)?.unwrap_or_default();
        let wanted = self.named(&names);
        if wanted != names {
            tree.write(NAMES, &wanted)?;
        }
        Ok(foreign)
    }

    /// `/etc/hosts` with the registries' names at its end.
    fn named(&self, text: &str) -> String {
        let others = text.lines().filter(|line| !line.ends_with(MARK));
        let mut named: String = others.flat_map(|line| [line, "\n"]).collect();
        for (name, address) in &self.names {
            named.push_str(&format!("{address}\t{name}\t{MARK}\n"));
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry_record;

    fn known() -> Known {
        let mut cache = registry_record("cache");
        cache.port = 5002;
        cache.proxy = Some("https://registry.k8s.io".to_owned());
        cache.network.ipv4 = Some("172.30.8.0/24".parse().unwrap());
        Known::of(&[registry_record("r"), cache])
    }

    #[test]
    fn a_cache_stands_before_what_it_is_a_cache_of() {
        let known = known();
        let hosts: Vec<_> = known.files.keys().map(String::as_str).collect();
        assert_eq!(hosts, ["cache:5000", "localhost:5001", "localhost:5002", "r:5000", "registry.k8s.io"]);
        insta::assert_snapshot!(known.files["registry.k8s.io"], @r#"
        # kiln registry cache
        server = "https://registry.k8s.io"

        [host."http://172.30.8.1:5000"]
          capabilities = ["pull", "resolve"]
        "#);
        assert!(known.files["r:5000"].contains("server = \"http://172.30.7.1:5000\""));
        for file in known.files.values() {
            let _: toml::Table = file.parse().unwrap();
        }
    }

    #[test]
    fn nodes_are_put_right_and_left_as_they_were() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        fs_err::create_dir_all(at("/etc/containerd/certs.d/quay.io")).unwrap();
        fs_err::write(at("/etc/containerd/certs.d/quay.io/hosts.toml"), "server = \"x\"\n").unwrap();
        let names = "127.0.0.1\tlocalhost\n";
        fs_err::write(at(NAMES), names).unwrap();
        let tree = Tree::open("n", root.path()).unwrap();

        assert_eq!(known().apply(&tree).unwrap(), Vec::<String>::new());
        let text = fs_err::read_to_string(at(NAMES)).unwrap();
        assert!(
            text.ends_with("172.30.7.1\tr\t# kiln registry\n172.30.8.1\tcache\t# kiln registry\n"),
            "{text}"
        );
        assert!(at("/etc/containerd/certs.d/r:5000/hosts.toml").exists());
        known().apply(&tree).unwrap();
        assert_eq!(fs_err::read_to_string(at(NAMES)).unwrap(), text);

        Known::default().apply(&tree).unwrap();
        assert_eq!(fs_err::read_to_string(at(NAMES)).unwrap(), names);
        let left: Vec<_> =
            fs_err::read_dir(at(DIRECTORY)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["quay.io"]);
    }

    #[test]
    fn files_of_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/containerd/certs.d/registry.k8s.io");
        fs_err::create_dir_all(&directory).unwrap();
        fs_err::write(directory.join(FILE), "server = \"x\"\n").unwrap();
        let tree = Tree::open("n", root.path()).unwrap();
        assert_eq!(known().apply(&tree).unwrap(), ["registry.k8s.io"]);
        assert_eq!(fs_err::read_to_string(directory.join(FILE)).unwrap(), "server = \"x\"\n");
    }

    #[test]
    fn links_in_a_node_do_not_lead_out_of_it() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs_err::create_dir(root.path().join("etc")).unwrap();
        fs_err::os::unix::fs::symlink(outside.path(), root.path().join("etc/containerd")).unwrap();
        let tree = Tree::open("n", root.path()).unwrap();
        assert!(known().apply(&tree).is_err());
        assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 0);
    }
}
