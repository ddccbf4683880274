//! Patches and documents that were fine before something happened to them: applied or refused, but always in the same way,
//! and what is written can be read. The configurations that patches come in are damaged in `config`.

use proptest::prelude::*;

use super::*;
use crate::damage::{Damage, cases};

/// Merge patches for kubeadm's objects.
const MERGES: [&str; 3] = [
    "kind: ClusterConfiguration\napiServer:\n  certSANs: [a.example]\n  extraArgs:\n    v: \"3\"\n    gone: null\n",
    "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n  - name: \
     max-pods\n    value: '9'\n---\nkind: ClusterConfiguration\nscheduler: &s {extraArgs: []}\nother: *s\n",
    r#"{"kind": "ClusterConfiguration", "a": {"b": [1, 2.5, true, null, "é\u0000"]}, "apiServer": null}"#,
];

/// Operations, as either of their users takes them.
const OPERATIONS: [&str; 3] = [
    "- {op: add, path: /apiServer/certSANs/-, value: b.example}\n- {op: remove, path: /apiServer/certSANs/0}\n",
    r#"[{"op": "test", "path": "/version", "value": 2}, {"op": "replace", "path": "/plugins/a~1b/c~0d", "value": {"x": []}}]"#,
    "- op: copy\n  from: /apiServer\n  path: /copy\n- op: move\n  from: /copy\n  path: /apiServer/deep\n",
];

/// Merge patches for containerd's configuration, and the configuration itself.
const TOMLS: [&str; 3] = [
    "version = 2\nroot = '/r'\n[plugins.'a/b']\n'c~d' = 1\ndate = 2020-01-01T00:00:00Z\n[[streams]]\nx = [[1], [2.5, -1]]\n",
    "version = 2\n[plugins.\"a/b\"]\n\"c~d\" = { x = \"\"\"\nlong\n\"\"\", y = true }\n",
    "version = 3\nimports = []\n[plugins]\n  [plugins.a]\n  b.c.d = 0x1F\n",
];

fn damaged(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let damages = prop::collection::vec(any::<Damage>(), 0..5);
    (prop::sample::select(texts), damages).prop_map(|(text, damages)| {
        let mut bytes = text.as_bytes().to_vec();
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn told(message: &str) -> bool {
    !message.is_empty() && message.len() < 20_000
}

#[test]
fn the_corpus_is_sound() {
    for text in MERGES {
        for objects in [OLD, NEW] {
            patched(objects, &[text], &[]).unwrap();
        }
    }
    OPERATIONS.iter().for_each(|text| check_operations(text).unwrap());
    for base in TOMLS {
        for patch in TOMLS {
            toml(base, &[patch], &[]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(1000)) })]

    #[test]
    fn damaged_patches_for_kubeadm_do_the_same_twice(
        old in any::<bool>(),
        merges in prop::collection::vec(damaged(&MERGES), 0..3),
        changes in prop::collection::vec(damaged(&OPERATIONS), 0..3),
    ) {
        let objects = if old { OLD } else { NEW };
        let merges: Vec<_> = merges.iter().map(String::as_str).collect();
        let operations: Vec<_> = changes.iter().map(|text| operations("ClusterConfiguration", text)).collect();
        let outcome = patched(objects, &merges, &operations);
        prop_assert_eq!(&outcome, &patched(objects, &merges, &operations));
        match outcome {
            // Written, read and written again, a document is the same.
            Ok(text) => prop_assert_eq!(&patched(&text, &[], &[]).unwrap(), &text),
            Err(message) => prop_assert!(told(&message), "{}", message),
        }
    }

    #[test]
    fn damaged_patches_for_containerd_do_the_same_twice(
        base in damaged(&TOMLS),
        merges in prop::collection::vec(damaged(&TOMLS), 0..3),
        changes in prop::collection::vec(damaged(&OPERATIONS), 0..2),
    ) {
        let merges: Vec<_> = merges.iter().map(String::as_str).collect();
        let changes: Vec<_> = changes.iter().map(String::as_str).collect();
        let outcome = toml(&base, &merges, &changes);
        prop_assert_eq!(&outcome, &toml(&base, &merges, &changes));
        match outcome {
            Ok(text) => prop_assert_eq!(&toml(&text, &[], &[]).unwrap(), &text),
            Err(message) => prop_assert!(told(&message), "{}", message),
        }
    }
}
