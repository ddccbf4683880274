//! Patches as users write them, and what becomes of the documents.

mod damage;

use serde_json::{Value, json};

use super::*;
use crate::config::JsonPatch;

/// Parses objects, patches them and writes them again.
fn patched(objects: &str, patches: &[&str], operations: &[JsonPatch]) -> Result<String, String> {
    let mut objects: Vec<Value> =
        yaml::split(objects).into_iter().map(|text| yaml::parse(text).unwrap()).collect();
    let patches: Vec<String> = patches.iter().map(ToString::to_string).collect();
    patch_objects(&mut objects, &patches, operations, "").map_err(chain)?;
    Ok(emit(&objects))
}

fn chain(error: Error) -> String {
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn operations(kind: &str, patch: &str) -> JsonPatch {
    JsonPatch { kind: kind.into(), patch: patch.into(), ..JsonPatch::default() }
}

const OLD: &str = "\
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
apiServer:
  certSANs: [localhost, \"127.0.0.1\"]
scheduler:
  extraArgs:
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
    max-pods: \"50\"
    node-ip: 10.20.0.7
---";

const NEW: &str = "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer:
  certSANs: [localhost]
  extraArgs:
  - {name: v, value: \"4\"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
  - {name: max-pods, value: \"50\"}
";

#[test]
fn without_patches_keys_are_sorted_and_nothing_else_changes() {
    let expected = "\
apiServer:
  certSANs:
  - localhost
  - 127.0.0.1
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
scheduler:
  extraArgs: null
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
    max-pods: \"50\"
    node-ip: 10.20.0.7
";
    assert_eq!(patched(OLD, &[], &[]).as_deref(), Ok(expected));
}

#[test]
fn one_text_may_patch_several_objects_and_operations_come_after() {
    let merge = "
kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta2
scheduler:
  extraArgs:
    leader-elect-lease: 30s
----
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
    v: \"4\"
    max-pods:
";
    let add = JsonPatch {
        group: "kubeadm.k8s.io".into(),
        version: "v1beta2".into(),
        ..operations("ClusterConfiguration", "- op: add\n  path: /apiServer/certSANs/-\n  value: api.example")
    };
    let expected = "\
apiServer:
  certSANs:
  - localhost
  - 127.0.0.1
  - api.example
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
scheduler:
  extraArgs:
    leader-elect-lease: 30s
---
apiVersion: kubeadm.k8s.io/v1beta2
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
    node-ip: 10.20.0.7
    v: \"4\"
";
    assert_eq!(patched(OLD, &[merge], &[add]).as_deref(), Ok(expected));
}

#[test]
fn v1beta4_merges_arguments_by_name_in_either_style() {
    let old_style = "\
kind: ClusterConfiguration
apiServer:
  extraArgs:
    v: \"5\"
    audit-log-maxage: \"7\"
  certSANs: [api.example, localhost]
---
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
    max-pods: null
    node-ip: 10.20.0.7
";
    let new_style = "\
kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta4
apiServer:
  certSANs: [api.example]
  extraArgs:
  - {name: audit-log-maxage, value: \"7\"}
  - {name: v, value: \"5\"}
---
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
  - {name: max-pods}
  - {name: node-ip, value: 10.20.0.7}
";
    let expected = "\
apiServer:
  certSANs:
  - localhost
  - api.example
  extraArgs:
  - name: v
    value: \"5\"
  - name: audit-log-maxage
    value: \"7\"
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  kubeletExtraArgs:
  - name: node-ip
    value: 10.20.0.7
";
    assert_eq!(patched(NEW, &[old_style], &[]).as_deref(), Ok(expected));
    assert_eq!(patched(NEW, &[new_style], &[]).as_deref(), Ok(expected));
}

#[test]
fn the_old_style_with_a_version_changes_no_arguments() {
    let versioned =
        "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\napiServer: {extraArgs: {v: '9'}}\n";
    assert_eq!(patched(NEW, &[versioned], &[]), patched(NEW, &[], &[]));
}

#[test]
fn v1beta3_unites_certificate_names_and_merges_mappings() {
    let object = "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta3\napiServer: {certSANs: [a], extraArgs: {v: '4'}}\n";
    let patch = "kind: ClusterConfiguration\napiServer: {certSANs: [b, a], extraArgs: {w: '5'}}\n";
    let expected = "\
apiServer:
  certSANs:
  - a
  - b
  extraArgs:
    v: \"4\"
    w: \"5\"
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
";
    assert_eq!(patched(object, &[patch], &[]).as_deref(), Ok(expected));
}

#[test]
fn patches_for_other_objects_do_nothing() {
    for patch in [
        "kind: ClusterConfiguration\napiVersion: kubeadm.k8s.io/v1beta3\nfoo: bar\n",
        "kind: Other\nfoo: bar\n",
        "foo: bar\n",
        "",
        "# a comment\n",
    ] {
        assert_eq!(patched(NEW, &[patch], &[]), patched(NEW, &[], &[]), "{patch}");
    }
    let unknown = operations("Other", "- {op: remove, path: /nowhere}");
    assert_eq!(patched(NEW, &[], &[unknown]), patched(NEW, &[], &[]));
}

#[test]
fn errors_name_the_patch_and_the_reason() {
    let remove = operations("ClusterConfiguration", "- {op: remove, path: /nowhere}");
    assert_eq!(
        patched(NEW, &[], &[remove]),
        Err("failed to apply kubeadmConfigPatchesJSON6902[0] of ClusterConfiguration: \
             remove: there is nothing at `/nowhere`"
            .into())
    );
    assert_eq!(
        patched(NEW, &["kind: X\n", "b o g u s"], &[]),
        Err("failed to apply kubeadmConfigPatches[1]: a merge patch must be a mapping with a kind".into())
    );
}

#[test]
fn what_is_written_reads_back_the_same() {
    let texts = [
        "",
        " ",
        "a",
        "a b",
        "a: b",
        "a #b",
        "true",
        "yes",
        "n",
        "null",
        "~",
        "1",
        "1.5",
        "0x1F",
        "1_000",
        "1e3",
        ".5",
        ".inf",
        "::",
        "::1",
        "fd00:10:244::/56",
        "10.244.0.0/16",
        "172.18.0.2",
        "0%",
        "1s",
        "12:30:45",
        "2001-01-01",
        "-",
        "- a",
        "?",
        "@a",
        "%a",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "{",
        "[",
        "'",
        "\"",
        "\\",
        "a\nb",
        "a\tb",
        "\u{1}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "é",
        "=",
        "<<",
        "---",
        "...",
        "#",
        "kind://kiln/a/b",
        "a=b,c=d",
        "\u{1f642}",
    ];
    let value: Value = texts.iter().map(|text| json!({*text: [text, {"k": text}, [text]]})).collect();
    let values = json!({"list": value, "empty": [{}, [], null], "numbers": [0, -5, 1.5, u64::MAX, true]});
    let written = emit([&values]);
    assert_eq!(yaml::parse(&written), Ok(values.clone()), "{written}");
    assert_eq!(emit([&yaml::parse(&written).unwrap()]), written);
}

#[test]
fn only_harmless_text_goes_without_quotes() {
    let value =
        json!(["kind-control-plane:6443", "10.96.0.0/16", "v1.36.1", "yes", "1.5", "::", "12:30", "a b", ""]);
    let expected = "\
- kind-control-plane:6443
- 10.96.0.0/16
- v1.36.1
- \"yes\"
- \"1.5\"
- \"::\"
- \"12:30\"
- \"a b\"
- \"\"
";
    assert_eq!(emit([&value]), expected);
}

const CONTAINERD: &str = "version = 2
imports = [\"one.toml\"]
[timeouts.shim]
  load = true
[runtimes.cri.pods.handlers.fast]
  kind = \"io.example.fast.v2\"";

/// The configuration above as it is written, with other values at the top.
fn written(top: &str) -> String {
    format!(
        "{top}
[runtimes]
  [runtimes.cri]
    [runtimes.cri.pods]
      [runtimes.cri.pods.handlers]
        [runtimes.cri.pods.handlers.fast]
          kind = \"io.example.fast.v2\"

[timeouts]
  [timeouts.shim]
    load = true
"
    )
}

fn toml(base: &str, patches: &[&str], operations: &[&str]) -> Result<String, String> {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    containerd(base, &owned(patches), &owned(operations)).map_err(chain)
}

#[test]
fn containerd_patches_merge_then_operate() {
    let remove = r#"[{"op": "remove", "path": "/imports"}]"#;
    let both = "imports = [\"one.toml\"]\nversion = 2\n";
    for (patches, operations, top) in [
        (&[][..], &[][..], both),
        (&["imports = []"], &[], "imports = []\nversion = 2\n"),
        (&["version = 3\nimports = ['bar']"], &[], both),
        (&["version = 2\nimports = ['baz']"], &[], "imports = [\"baz\"]\nversion = 2\n"),
        (&[], &[remove], "version = 2\n"),
        (&["imports = ['foo']"], &[remove], "version = 2\n"),
        (&[], &["- {op: replace, path: /version, value: 3}"], "imports = [\"one.toml\"]\nversion = 3\n"),
    ] {
        assert_eq!(toml(CONTAINERD, patches, operations), Ok(written(top)), "{patches:?} {operations:?}");
    }
}

#[test]
fn containerd_tables_keep_their_shape() {
    let base = "version = 3\n[[stream]]\nid = 'a b'\n[[stream]]\nlist = [1, 'x', {y = 1.5}]\n[\"quoted:5000\"]\nempty = {}\n";
    let expected = "\
version = 3

[\"quoted:5000\"]
  [\"quoted:5000\".empty]

[[stream]]
  id = \"a b\"

[[stream]]
  list = [1, \"x\", {y = 1.5}]
";
    assert_eq!(toml(base, &[], &[]).as_deref(), Ok(expected));
    assert_eq!(toml(expected, &[], &[]).as_deref(), Ok(expected));
}

#[test]
fn containerd_errors_name_what_is_wrong() {
    let base = "the base containerd configuration";
    for (config, patches, operations, expected) in [
        ("x", &[][..], &[][..], format!("failed to apply {base}: line 1, column 2: ")),
        ("version = \"five\"", &[], &[], format!("failed to apply {base}: `version` must be a whole number")),
        ("root = \"/x\"", &[], &[], format!("failed to apply {base}: it has no version")),
        (
            CONTAINERD,
            &["a = 1", "b = ["],
            &[],
            "failed to apply containerdConfigPatches[1]: line 1, column ".into(),
        ),
        (CONTAINERD, &[], &["["], "failed to apply containerdConfigPatchesJSON6902[0]: line ".into()),
        (
            CONTAINERD,
            &[],
            &[r#"[{"op": "remove", "path": "/nope"}]"#],
            "failed to apply containerdConfigPatchesJSON6902[0]: remove: there is nothing at `/nope`".into(),
        ),
        (
            CONTAINERD,
            &[],
            &[r#"[{"op": "add", "path": "/a", "value": [null]}]"#],
            format!("failed to apply {base}: the patches put null into a list, which TOML cannot"),
        ),
    ] {
        let error = toml(config, patches, operations).unwrap_err();
        assert!(error.starts_with(&expected), "{error}");
    }
}
