//! What kubectl makes of the files, beside what it does itself to copies of them.
//!
//! `KILN_TEST_KUBECTL` names the kubectl; node images hold one. Without it these tests are skipped.

use std::process::Command;

use serde_json::Value;

use super::*;

/// Files as people have them, not all of which kubectl wrote.
const FILES: [&str; 7] = [
    THEIRS,
    OURS,
    "",
    "apiVersion: v1\nkind: Config\n",
    // kubectl takes JSON as well.
    r#"{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "j", "cluster": {"server": "https://j"}}],
        "contexts": [], "users": [{"name": "j", "user": {"token": "0123", "username": "1e3"}}]}"#,
    // An entry of the same name, with what must not survive.
    "apiVersion: v1
kind: Config
clusters:
- name: kind-a
  cluster: {server: 'https://old', insecure-skip-tls-verify: true, proxy-url: 'http://old'}
- {name: \"on\", cluster: {server: https://x}}
contexts:
- name: kind-a
  context: {cluster: kind-a, user: kind-a, namespace: old}
- {name: \"0x1F\", context: {cluster: \"on\", user: \"~\", namespace: \"null\"}}
current-context: \"0x1F\"
users:
- name: kind-a
  user: {token: old}
- {name: \"~\", user: {password: \"007\", username: \"1_000\"}}
",
    // Comments, anchors, no order.
    "# mine
users: &none []
kind: Config # so it is
contexts: *none
clusters:
- cluster:
    server: >-
      https://folded
  name: folded
apiVersion: v1
",
];

struct Kubectl {
    program: PathBuf,
    home: TempDir,
}

impl Kubectl {
    fn find() -> Option<Self> {
        match std::env::var_os("KILN_TEST_KUBECTL").filter(|program| !program.is_empty()) {
            Some(program) => {
                Some(Self { program: PathBuf::from(program), home: tempfile::tempdir().unwrap() })
            }
            None => {
                eprintln!("skipped: KILN_TEST_KUBECTL names no kubectl");
                None
            }
        }
    }

    /// What it prints when it is run with these files as its kubeconfig.
    fn run(&self, files: &[&Path], args: &[&str]) -> Vec<u8> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("KUBECONFIG", std::env::join_paths(files).unwrap());
        let output = command.arg("config").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn view(&self, files: &[&Path]) -> Value {
        serde_json::from_slice(&self.run(files, &["view", "--raw", "-o", "json"])).unwrap()
    }
}

#[test]
fn merging_is_what_kubectl_sees_with_our_entries_in_front() {
    let Some(kubectl) = Kubectl::find() else { return };
    for before in FILES {
        let home = Home::with(before);
        let addition = home.path("ours");
        fs::write(&addition, ours()).unwrap();
        // Of several files, the first that has an entry decides about it.
        let expected = kubectl.view(&[&addition, &home.config()]);
        merge_into(&home.locations(), &ours()).unwrap();
        assert_eq!(kubectl.view(&[&home.config()]), expected, "{before}\n--- became\n{}", home.text());
    }
}

#[test]
fn removing_is_what_kubectl_does_entry_by_entry() {
    let Some(kubectl) = Kubectl::find() else { return };
    for before in FILES {
        let home = Home::with(before);
        merge_into(&home.locations(), &ours()).unwrap();
        let copy = home.path("copy");
        fs::copy(home.config(), &copy).unwrap();
        for args in [
            ["delete-context", "kind-a"],
            ["delete-cluster", "kind-a"],
            ["delete-user", "kind-a"],
            ["unset", "current-context"],
        ] {
            let _ = kubectl.run(&[&copy], &args);
        }
        assert!(remove_from(&home.locations(), "a").unwrap());
        assert_eq!(
            kubectl.view(&[&home.config()]),
            kubectl.view(&[&copy]),
            "{before}\n--- became\n{}",
            home.text()
        );
    }
}

#[test]
fn what_kubectl_wrote_is_written_back_to_the_byte() {
    let Some(kubectl) = Kubectl::find() else { return };
    for before in FILES {
        let home = Home::with(before);
        // It rewrites the whole file.
        let _ = kubectl.run(&[&home.config()], &["set-cluster", "kiln-test", "--server=https://kiln.test"]);
        let _ = kubectl.run(&[&home.config()], &["set-context", "kiln-test", "--cluster=kiln-test"]);
        let _ = kubectl.run(&[&home.config()], &["use-context", "kiln-test"]);
        let written = home.text();
        merge_into(&home.locations(), &rewrite(ADMIN_CONF, "other", None).unwrap()).unwrap();
        assert!(remove_from(&home.locations(), "other").unwrap());
        let expected = written.replace("current-context: kiln-test\n", "");
        // An empty list is written as none, which is the same to every reader.
        let expected = expected.replace("users: []\n", "").replace("users: null\n", "");
        assert_eq!(home.text(), expected, "{before}");
    }
}
