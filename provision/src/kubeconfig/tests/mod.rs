//! The kubeconfig as a whole: files on disk before and after.

mod kubectl;
mod odd_files;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use fs_err as fs;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tempfile::TempDir;

use super::*;
use crate::Error;

const ADMIN_CONF: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://a-control-plane:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: kubernetes-admin
  name: kubernetes-admin@kubernetes
current-context: kubernetes-admin@kubernetes
kind: Config
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

const OURS: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://127.0.0.1:40001
  name: kind-a
contexts:
- context:
    cluster: kind-a
    user: kind-a
  name: kind-a
current-context: kind-a
kind: Config
preferences: {}
users:
- name: kind-a
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

/// Two clusters, and much that Kiln knows nothing of.
const THEIRS: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority: /home/u/.minikube/ca.crt
    extensions:
    - extension:
        last-update: Mon, 23 Nov 2026 10:00:00 UTC
        version: v1.34.0
      name: cluster_info
    server: https://192.168.49.2:8443
  name: minikube
- cluster:
    insecure-skip-tls-verify: true
    server: https://example.com
  name: \"1234\"
contexts:
- context:
    cluster: minikube
    namespace: default
    user: minikube
  name: minikube
- context:
    cluster: \"1234\"
    user: sso
  name: \"yes\"
current-context: minikube
extensions:
- extension:
    weight: 1.5
  name: later
kind: Config
preferences:
  colors: true
users:
- name: minikube
  user:
    client-certificate: /home/u/.minikube/client.crt
    client-key: /home/u/.minikube/client.key
- name: sso
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args:
      - get-token
      - --login=devicecode
      command: kubelogin
      env: null
      installHint: |
        Install it first:
          apt install kubelogin
      interactiveMode: IfAvailable
      provideClusterInfo: false
";

struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn with(config: &str) -> Self {
        let home = Self::new();
        fs::create_dir(home.path(".kube")).unwrap();
        fs::write(home.config(), config).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path(".kube/config")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn locations(&self) -> Locations {
        locate(None, None, Some(self.directory.path())).unwrap()
    }

    /// The names in `.kube`.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(".kube"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn ours() -> String {
    rewrite(ADMIN_CONF, "a", Some("https://127.0.0.1:40001")).unwrap()
}

#[test]
fn kubeadms_file_becomes_kinds() {
    assert_eq!(ours(), OURS);
    let internal = rewrite(ADMIN_CONF, "a", None).unwrap();
    assert_eq!(internal, OURS.replace("127.0.0.1:40001", "a-control-plane:6443"));
}

#[test]
fn kubeadms_file_must_have_one_of_each() {
    let two = THEIRS;
    let none = "apiVersion: v1\nkind: Config\n";
    for text in [two, none, ""] {
        let error = rewrite(text, "a", None).unwrap_err();
        assert!(error.to_string().contains("where exactly one is expected"), "{error}");
    }
    assert!(matches!(rewrite("clusters: [", "a", None), Err(Error::KubeconfigSyntax { .. })));
}

#[test]
fn a_new_file_is_private() {
    let home = Home::new();
    let path = merge_into(&home.locations(), &ours()).unwrap();
    assert_eq!(path, home.config());
    assert_eq!(home.text(), OURS);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(home.names(), ["config"], "neither lock nor intermediate file is left");
}

#[test]
fn other_clusters_are_kept_to_the_byte() {
    let home = Home::with(THEIRS);
    merge_into(&home.locations(), &ours()).unwrap();
    let merged = home.text();
    assert!(merged.contains("current-context: kind-a\n"), "{merged}");
    assert!(
        merged.contains("  name: \"1234\"\n- cluster:\n    certificate-authority-data: Q0E="),
        "{merged}"
    );
    assert!(remove_from(&home.locations(), "a").unwrap());
    assert_eq!(home.text(), THEIRS.replace("current-context: minikube\n", ""));
    assert!(!remove_from(&home.locations(), "a").unwrap());
}

#[test]
fn entries_of_the_same_name_are_replaced_in_place() {
    let home = Home::with(&OURS.replace("Q0E=", "T0xE").replace("40001", "1"));
    merge_into(&home.locations(), &rewrite(ADMIN_CONF, "b", Some("https://127.0.0.1:2")).unwrap()).unwrap();
    merge_into(&home.locations(), &ours()).unwrap();
    let merged = home.text();
    assert_eq!(merged.matches("name: kind-a\n").count(), 3, "{merged}");
    assert!(merged.find("40001").unwrap() < merged.find("https://127.0.0.1:2").unwrap(), "{merged}");
    assert!(!merged.contains("T0xE"), "{merged}");
    assert!(merged.contains("current-context: kind-a\n"), "{merged}");
}

#[test]
fn the_current_context_of_another_cluster_stays() {
    let home = Home::with(THEIRS);
    merge_into(&home.locations(), &ours()).unwrap();
    merge_into(&home.locations(), &rewrite(ADMIN_CONF, "b", None).unwrap()).unwrap();
    assert!(remove_from(&home.locations(), "a").unwrap());
    assert!(home.text().contains("current-context: kind-b\n"));
}

#[test]
fn files_without_fields_of_their_own_get_apiversion_and_kind() {
    for empty in ["", "clusters: null\ncontexts: []\ncurrent-context: \"\"\nusers: null\n", "# nothing\n"] {
        let home = Home::with(empty);
        merge_into(&home.locations(), &ours()).unwrap();
        assert_eq!(home.text(), OURS);
    }
    let home = Home::with("preferences: {}\n");
    merge_into(&home.locations(), &ours()).unwrap();
    assert_eq!(home.text(), OURS.replace("apiVersion: v1\n", "").replace("kind: Config\n", ""));
}

#[test]
fn what_remains_of_a_file_of_our_own_is_kinds() {
    let home = Home::with(OURS);
    assert!(remove_from(&home.locations(), "a").unwrap());
    assert_eq!(home.text(), "apiVersion: v1\nkind: Config\npreferences: {}\n");
    let entries =
        OURS.replace("apiVersion: v1\n", "").replace("kind: Config\n", "").replace("preferences: {}\n", "");
    let home = Home::with(&entries);
    assert!(remove_from(&home.locations(), "a").unwrap());
    assert_eq!(home.text(), "");
}

#[test]
fn removal_looks_into_every_file_and_only_for_whole_names() {
    let home = Home::with(OURS);
    let other = home.path("other");
    fs::write(&other, OURS.replace("kind-a", "kind-ab")).unwrap();
    let env =
        format!("{}:{}:{}", home.path("absent/config").display(), other.display(), home.config().display());
    let locations = locate(None, Some(env.as_ref()), None).unwrap();
    assert_eq!(files_with(&locations, "a").unwrap(), [home.config()]);
    assert!(remove_from(&locations, "a").unwrap());
    assert!(files_with(&locations, "a").unwrap().is_empty());
    assert!(!home.text().contains("kind-a"));
    assert_eq!(fs::read_to_string(&other).unwrap(), OURS.replace("kind-a", "kind-ab"));
    assert!(!home.path("absent").exists());
}

#[test]
fn a_broken_file_is_left_alone_and_the_others_are_done() {
    let broken = format!("{OURS}  }}: [\n");
    let home = Home::with(OURS);
    let other = home.path("other");
    fs::write(&other, &broken).unwrap();
    let env = format!("{}:{}", other.display(), home.config().display());
    let locations = locate(None, Some(env.as_ref()), None).unwrap();

    let error = merge_into(&locations, &ours()).unwrap_err();
    assert!(matches!(error, Error::KubeconfigSyntax { .. }), "{error:?}");
    assert!(error.to_string().contains(other.to_str().unwrap()), "{error}");
    let causes = format!("{error:?}");
    assert!(!causes.contains("S0VZ"), "keys do not belong into messages: {causes}");
    assert!(error.hint().is_some());

    assert!(remove_from(&locations, "a").is_err());
    assert_eq!(fs::read_to_string(&other).unwrap(), broken);
    assert!(!home.text().contains("kind-a"));

    // Nothing of ours in it: no reason to complain.
    fs::write(&other, "}: [\n").unwrap();
    assert!(!remove_from(&locations, "a").unwrap());
}

#[test]
fn other_yaml_is_refused() {
    for text in ["- a\n", "text\n", "clusters: {}\n", "users: [1]\n"] {
        let home = Home::with(text);
        let error = merge_into(&home.locations(), &ours()).unwrap_err();
        assert!(matches!(error, Error::KubeconfigShape { .. }), "{text}: {error:?}");
        assert_eq!(home.text(), text);
        assert_eq!(home.names(), ["config"]);
    }
}

#[test]
fn a_link_stays_a_link() {
    let home = Home::with("");
    fs::remove_file(home.config()).unwrap();
    fs::create_dir(home.path("real")).unwrap();
    symlink("../link2", home.config()).unwrap();
    symlink("real/config", home.path("link2")).unwrap();

    // To a file that is not there yet.
    merge_into(&home.locations(), &ours()).unwrap();
    assert_eq!(fs::read_to_string(home.path("real/config")).unwrap(), OURS);
    // And to one that is.
    assert!(remove_from(&home.locations(), "a").unwrap());
    assert!(!fs::read_to_string(home.path("real/config")).unwrap().contains("kind-a"));
    assert!(fs::symlink_metadata(home.config()).unwrap().is_symlink());
    assert!(fs::symlink_metadata(home.path("link2")).unwrap().is_symlink());

    fs::remove_file(home.path("link2")).unwrap();
    symlink(".kube/config", home.path("link2")).unwrap();
    assert!(merge_into(&home.locations(), &ours()).is_err(), "a loop");
}

#[test]
fn mode_and_owner_are_kept() {
    let home = Home::with(THEIRS);
    fs::set_permissions(home.config(), PermissionsExt::from_mode(0o640)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(home.config(), Some(1234), Some(5678)).unwrap();
    }
    merge_into(&home.locations(), &ours()).unwrap();
    let metadata = fs::metadata(home.config()).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    if root {
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
    }
}

#[test]
fn a_read_only_file_is_not_replaced() {
    let home = Home::with(OURS);
    fs::set_permissions(home.config(), PermissionsExt::from_mode(0o400)).unwrap();
    let errors = std::thread::scope(|scope| {
        let attempt = || {
            // Root may write anything; without this capability it is held to the permissions. Capabilities belong to
            // the thread, and this one is the test's own.
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE);
            set_capabilities(None, sets).unwrap();
            [
                merge_into(&home.locations(), &ours()).unwrap_err(),
                remove_from(&home.locations(), "a").unwrap_err(),
            ]
        };
        scope.spawn(attempt).join().unwrap()
    });
    for error in errors {
        assert!(matches!(error, Error::KubeconfigFile { what: "write", .. }), "{error:?}");
        assert!(error.to_string().contains(home.config().to_str().unwrap()), "{error}");
        assert!(error.hint().unwrap().contains("writable"));
    }
    assert_eq!(home.text(), OURS);
    assert_eq!(home.names(), ["config"]);
}

#[test]
fn what_a_killed_kiln_left_is_cleared() {
    let home = Home::with(THEIRS);
    fs::write(home.path(".kube/.config.kiln-new"), "half a ku").unwrap();
    fs::write(home.path(".kube/config.lock"), "kiln\n").unwrap();
    merge_into(&home.locations(), &ours()).unwrap();
    assert!(home.text().contains("kind-a"));
    assert_eq!(home.names(), ["config"]);
}

#[test]
fn a_held_lock_leaves_the_file_alone() {
    let home = Home::with(OURS);
    fs::write(home.path(".kube/config.lock"), "").unwrap();
    let error = remove_from(&home.locations(), "a").unwrap_err();
    assert!(matches!(error, Error::KubeconfigLocked { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("rm "));
    assert_eq!(home.text(), OURS);
}
