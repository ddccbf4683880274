//! A script as people have them for kind, run with Kiln under kind's name.
//!
//! `delete clusters --all` is part of it, so it has a state root of its own, in which the host's images are a link.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use kiln_integration::{Fixture, Kiln, host::text, kiln::LONG};

/// Everything up to the nodes is the same with and without Kubernetes in them, and this is quick.
const SCRIPT: &str = r#"
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
# same WHAT EXPECTED FOUND
same() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; }
# told WHAT FILE: a line of the file is exactly that
told() { grep -qxF -- "$1" "$2" || fail "no line '$1' in: $(cat "$2")"; }

same "no clusters" "No kind clusters found." "$(kind get clusters 2>&1)"
same "no clusters, for programs" "" "$(kind get clusters 2>/dev/null)"
same "no nodes" 'No kind nodes found for cluster "it-first".' "$(kind get nodes --name it-first 2>&1)"
kind version | grep -Eq '^kind v[0-9]+\.[0-9]+\.[0-9]+ [^ ]+ linux/[a-z0-9]+$' || fail "version: $(kind version)"
same "the version alone" "$(kind version -q)" "$(kind --version | cut -d' ' -f3)"
if kind get nods >help 2>error; then fail "a misspelt command"; fi
told "ERROR: Subcommand is required" error
grep -q nodes help || fail "no help on standard output"
if kind get clusters --bogus 2>error; then fail "an unknown flag"; fi
told "ERROR: unknown flag: --bogus" error
if kind -q get kubeconfig --name it-first 2>error; then fail "a quiet error"; fi
same "a quiet error" "" "$(cat error)"
if kind export kubeconfig --name it-first 2>error; then fail "a cluster that is not there"; fi
told "ERROR: could not locate any control plane nodes for cluster named 'it-first'. Use the --name option to select a different cluster" error
kind delete cluster --name=it-first 2>error || fail "deleting what is not there"
same "deleting what is not there" 'Deleting cluster "it-first" ...' "$(cat error)"

export KIND_CLUSTER_NAME=it-first KIND_EXPERIMENTAL_PROVIDER=docker
cat <<EOF | kind create cluster --retain=false --wait 1m --config=- >out 2>log
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  extraPortMappings: [{containerPort: 80, hostPort: 0, listenAddress: 127.0.0.1}]
- role: worker
EOF
same "standard output" "" "$(cat out)"
told 'Creating cluster "it-first" ...' log
told ' ✓ Preparing nodes 📦 📦 ' log
unset KIND_EXPERIMENTAL_PROVIDER

printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: it-ignored\n' >second.yaml
HTTP_PROXY=http://127.0.0.1:3128 no_proxy=corp.example kind create cluster -n=it-second --config second.yaml 2>log
grep -q 'Warning: HTTP_PROXY leads to 127.0.0.1' log || fail "no warning of the proxy: $(cat log)"
inside() { kind exec it-second-control-plane -- "$@"; }
same "proxy" http://127.0.0.1:3128 "$(inside printenv http_proxy)"
inside printenv NO_PROXY | grep -q \
  ',corp.example,10.96.0.0/16,10.244.0.0/16,it-second-control-plane,.svc,.svc.cluster,.svc.cluster.local$' \
  || fail "exceptions: $(inside printenv NO_PROXY)"
inside cat /etc/systemd/system.conf.d/20-proxy.conf | grep -qF '"http_proxy=http://127.0.0.1:3128"' || fail "systemd"
same "clusters" "it-first it-second" "$(kind get clusters | xargs)"
same "nodes" "it-first-control-plane it-first-worker" "$(kind get nodes | sort | xargs)"
same "all nodes" "it-first-control-plane it-first-worker it-second-control-plane" "$(kind get nodes -A | sort | xargs)"
if kind create cluster 2>error; then fail "the same name twice"; fi
told 'ERROR: failed to create cluster: node(s) already exist for a cluster with the name "it-first"' error
for node in $(kind get nodes); do
  same "host name" "$node" "$(kind exec "$node" -- hostname)"
done

# What kubeadm leaves: Kubernetes itself is not part of this.
cp admin.conf "$KILN_ROOT/clusters/it-first/admin.conf"
kind export kubeconfig --internal 2>log
told 'Set kubectl context to "kind-it-first"' log
grep -q 'server: https://it-first-control-plane:6443$' "$KUBECONFIG" || fail "internal: $(cat "$KUBECONFIG")"
kind export kubeconfig --kubeconfig ./other 2>log
grep -Eq 'server: https://127.0.0.1:[0-9]+$' other || fail "external: $(cat other)"
kind get kubeconfig >printed
diff printed <(cat other; echo) || fail "get kubeconfig and export kubeconfig"

kind delete cluster 2>log
told 'Deleting cluster "it-first" ...' log
told 'Deleted nodes: ["it-first-control-plane" "it-first-worker"]' log
if grep -q it-first "$KUBECONFIG"; then fail "the entry stays: $(cat "$KUBECONFIG")"; fi
if kind delete clusters 2>error; then fail "no names"; fi
told "ERROR: no cluster names provided" error
kind -q create cluster --name it-third
kind -q create cluster --name it-fourth
if kind delete clusters It-third it-third it-third 2>log; then fail "a name that cannot be one"; fi
grep -q '^ERROR: failed to delete cluster "It-third"' log || fail "nothing of It-third: $(cat log)"
told 'Deleted clusters: ["it-third"]' log
kind delete clusters --all 2>log
told 'Deleted clusters: ["it-fourth" "it-second"]' log
same "no clusters again" "No kind clusters found." "$(kind get clusters 2>&1)"
"#;

/// A kubeconfig of kubeadm's form.
const ADMIN_CONF: &str = "\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://it-first-control-plane:6443
  name: it-first
contexts:
- context:
    cluster: it-first
    user: kubernetes-admin
  name: kubernetes-admin@it-first
current-context: kubernetes-admin@it-first
kind: Config
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
";

/// A state root in a directory of the test's, and the binary as `kind` before everything else in `PATH`.
struct OwnRoot {
    kind: Kiln,
    directory: PathBuf,
}

impl OwnRoot {
    fn new(fixture: &Fixture) -> Self {
        let directory = fixture.directory().join("scripts");
        let (root, programs) = (directory.join("root"), directory.join("bin"));
        for made in [&root, &programs] {
            fs_err::create_dir_all(made).expect("a directory of the test");
        }
        // Not a mount: removing the directory must not reach the images, whatever goes wrong.
        symlink(fixture.state_root().join("images"), root.join("images")).expect("a new directory");
        symlink(fixture.kiln().binary(), programs.join("kind")).expect("a new directory");
        fs_err::write(directory.join("admin.conf"), ADMIN_CONF).expect("a new directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let kind = fixture
            .kiln()
            .with_env("PATH", format!("{}:{path}", text(&programs)))
            .with_env("KILN_RUN_ROOT", root.join("run"))
            .with_env("KILN_ROOT", &root)
            .with_env("KILN_STOP_AFTER", "nodes");
        Self { kind, directory }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for OwnRoot {
    fn drop(&mut self) {
        // After a failure there are some, which the fixture does not know of.
        let _ = self.kind.command().args(["-q", "delete", "clusters", "--all"]).status();
    }
}

#[test]
fn a_script_for_kind_runs_as_it_is() {
    let Some(fixture) = Fixture::open() else { return };
    let root = OwnRoot::new(&fixture);
    let script = format!("cd '{}'\n{SCRIPT}", text(root.directory()));
    let finished = root.kind.run_other("bash", &["-c", &script], LONG).succeeded();
    assert!(!finished.stderr().contains("FAILED"), "{}", finished.report());
    drop(root);
    fixture.assert_nothing_left();
}
