//! Single objects of Kubernetes as etcd holds them, changed to be another cluster's.
//!
//! An object is an envelope (`runtime.Unknown`, apimachinery's `pkg/runtime/generated.proto`) around a message of its kind,
//! or JSON. The numbers of fields are those of Kubernetes' `generated.proto` files, which never change.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{
    etcd::KeyValue,
    signature::Signer,
    wire::{Message, Value},
};

/// What an object in protocol buffers begins with.
pub(super) const MAGIC: &[u8] = b"k8s\0";

/// The message of a kind, in the envelope.
pub(super) const RAW: u32 = 2;

/// `metadata`, of every kind.
pub(super) const METADATA: u32 = 1;
const METADATA_UID: u32 = 5;
const METADATA_CREATED: u32 = 8;
const METADATA_MANAGED: u32 = 17;
const MANAGED_TIME: u32 = 4;

/// Seconds and nanoseconds of a time.
const SECONDS: u32 = 1;
const NANOSECONDS: u32 = 2;

/// `data` of a ConfigMap.
const DATA: u32 = 2;
/// Key and value of an entry of a map.
const ENTRY_KEY: u32 = 1;
const ENTRY_VALUE: u32 = 2;

/// `status` of a workload.
pub(super) const STATUS: u32 = 3;

/// Length of a UID in its usual form.
const UID_LENGTH: usize = 36;

/// Workloads, whose status tells of pods that another cluster does not have.
const WORKLOADS: [&str; 3] = ["deployments", "replicasets", "daemonsets"];

/// Entries of ConfigMaps that hold a signature with another cluster's token.
pub(super) const SIGNATURES: &str = "jws-kubeconfig-";

/// The key of what everybody may know of a cluster ends so.
const CLUSTER_INFO: &str = "/kube-public/cluster-info";

/// What an object has to become.
#[derive(Debug)]
pub(super) struct Changes {
    /// Texts of ConfigMaps, and what stands in their place.
    pub(super) texts: Vec<(String, String)>,
    /// Identities, and what they become.
    pub(super) uids: HashMap<[u8; UID_LENGTH], [u8; UID_LENGTH]>,
    /// When everything was created.
    pub(super) created: Timestamp,
    /// What signs for the nodes that will join.
    pub(super) signer: Option<Signer>,
}

/// The kind of an object, as its key names it: the plural, in lower case.
pub(super) fn resource(key: &str) -> &str {
    let mut parts = key.split('/').skip(2);
    match parts.next() {
        // Services are kept below `services/specs`; resources of groups with a dot are below their group.
        Some(group) if group.contains('.') => parts.next().unwrap_or_default(),
        other => other.unwrap_or_default(),
    }
}

/// The identity of an object; `None` when it is not understood.
pub(super) fn uid(value: &[u8]) -> Option<[u8; UID_LENGTH]> {
    if let Some(envelope) = value.strip_prefix(MAGIC) {
        let object = Message::parse(Message::parse(envelope)?.bytes(RAW)?)?;
        return Message::parse(object.bytes(METADATA)?)?.bytes(METADATA_UID)?.try_into().ok();
    }
    let object: Json = serde_json::from_slice(value).ok()?;
    object["metadata"]["uid"].as_str()?.as_bytes().try_into().ok()
}

impl Changes {
    /// The object of another cluster. `None` when it is not understood.
    pub(super) fn apply(&self, key: &str, value: &[u8]) -> Option<Vec<u8>> {
        let mut value = value.to_vec();
        self.replace_uids(&mut value);
        if let Some(envelope) = value.strip_prefix(MAGIC) {
            let mut envelope = Message::parse(envelope)?;
            let mut object = Message::parse(envelope.bytes(RAW)?)?;
            self.change(key, &mut object);
            let mut bytes = Some(object.encode());
            envelope.edit(&[RAW], &mut |value| {
                if let Some(bytes) = bytes.take() {
                    *value = Value::Bytes(bytes);
                }
            });
            return Some([MAGIC, &envelope.encode()].concat());
        }
        let mut object: Json = serde_json::from_slice(&value).ok()?;
        let created = json!(timestamp(self.created));
        object["metadata"]["creationTimestamp"] = created.clone();
        for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
            entry["time"] = created.clone();
        }
        serde_json::to_vec(&object).ok()
    }

    fn change(&self, key: &str, object: &mut Message) {
        let time = time(self.created);
        let mut now = |value: &mut Value| *value = Value::Bytes(time.encode());
        object.edit(&[METADATA, METADATA_CREATED], &mut now);
        object.edit(&[METADATA, METADATA_MANAGED, MANAGED_TIME], &mut now);
        match resource(key) {
            kind if WORKLOADS.contains(&kind) => object.remove(STATUS),
            "configmaps" => {
                object.retain(DATA, |entry| {
                    entry.bytes(ENTRY_KEY).is_none_or(|name| !name.starts_with(SIGNATURES.as_bytes()))
                });
                object.edit(&[DATA, ENTRY_VALUE], &mut |value| {
                    if let Value::Bytes(bytes) = value
                        && let Ok(text) = std::str::from_utf8(bytes)
                    {
                        *bytes = self.replace_texts(text).into_bytes();
                    }
                });
                if key.ends_with(CLUSTER_INFO) {
                    self.sign(object);
                }
            }
            _ => {}
        }
    }

    fn sign(&self, information: &mut Message) {
        let content = information.all(DATA).filter_map(Message::parse).find_map(|entry| {
            let text = entry.bytes(ENTRY_VALUE).filter(|_| entry.bytes(ENTRY_KEY) == Some(b"kubeconfig"))?;
            String::from_utf8(text.to_vec()).ok()
        });
        let (Some(content), Some(signer)) = (content, &self.signer) else { return };
        let (name, text) = signer.entry(&content);
        let mut entry = Message::default();
        entry.push(ENTRY_KEY, Value::Bytes(name.into_bytes()));
        entry.push(ENTRY_VALUE, Value::Bytes(text.into_bytes()));
        information.push(DATA, Value::Bytes(entry.encode()));
    }

    fn replace_texts(&self, text: &str) -> String {
        self.texts.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// In place: identities have one length, and the lengths of what they are in stay true.
    fn replace_uids(&self, value: &mut [u8]) {
        let mut start = 0;
        while let Some(window) = value.get_mut(start..start + UID_LENGTH) {
            let known = <&[u8; UID_LENGTH]>::try_from(&*window).ok().and_then(|uid| self.uids.get(uid));
            if let Some(new) = known {
                window.copy_from_slice(new);
                start += UID_LENGTH;
            } else {
                start += 1;
            }
        }
    }
}

/// A time as a message, to the second.
pub(super) fn time(time: Timestamp) -> Message {
    let mut message = Message::default();
    message.push(SECONDS, Value::Varint(u64::try_from(time.as_second()).unwrap_or_default()));
    message.push(NANOSECONDS, Value::Varint(0));
    message
}

/// A time as JSON has it.
pub(super) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An object as JSON, which the API server reads as well, under the key that it looks for.
pub(super) fn written(key: &str, object: &Json) -> KeyValue {
    KeyValue { key: key.into(), value: object.to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8; UID_LENGTH] = b"01234567-89ab-cdef-0123-456789abcdef";
    const NEW: &[u8; UID_LENGTH] = b"fedcba98-7654-3210-fedc-ba9876543210";

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut message = Message::default();
        for (number, bytes) in fields {
            message.push(*number, Value::Bytes(bytes.to_vec()));
        }
        message.encode()
    }

    fn envelope(object: &[u8]) -> Vec<u8> {
        [MAGIC, &message(&[(1, b"types"), (RAW, object)])].concat()
    }

    fn object_of(value: &[u8]) -> Message {
        let envelope = Message::parse(value.strip_prefix(MAGIC).unwrap()).unwrap();
        Message::parse(envelope.bytes(RAW).unwrap()).unwrap()
    }

    fn changes() -> Changes {
        Changes {
            texts: vec![("https://old:6443".to_owned(), "https://newer:6443".to_owned())],
            uids: HashMap::from([(*OLD, *NEW)]),
            created: Timestamp::from_second(1_800_000_000).unwrap(),
            signer: Signer::new("123456.0123456789abcdef"),
        }
    }

    fn metadata() -> Vec<u8> {
        let time = message(&[]);
        message(&[(1, b"name"), (METADATA_UID, OLD), (METADATA_CREATED, &time)])
    }

    #[test]
    fn resources_are_told_by_their_keys() {
        assert_eq!(resource("/registry/configmaps/kube-system/kubeadm-config"), "configmaps");
        assert_eq!(resource("/registry/deployments/kube-system/coredns"), "deployments");
        assert_eq!(resource("/registry/apiregistration.k8s.io/apiservices/v1."), "apiservices");
        assert_eq!(resource("/registry/health"), "health");
    }

    #[test]
    fn identity_and_time_are_new_everywhere() {
        let object = message(&[(METADATA, &metadata()), (2, OLD)]);
        let value = envelope(&object);
        assert_eq!(uid(&value), Some(*OLD));
        let changed = changes().apply("/registry/namespaces/x", &value).unwrap();
        assert_eq!(uid(&changed), Some(*NEW));
        let object = object_of(&changed);
        assert_eq!(object.bytes(2), Some(&NEW[..]));
        let metadata = Message::parse(object.bytes(METADATA).unwrap()).unwrap();
        let created = Message::parse(metadata.bytes(METADATA_CREATED).unwrap()).unwrap();
        let mut expected = Message::default();
        expected.push(SECONDS, Value::Varint(1_800_000_000));
        expected.push(NANOSECONDS, Value::Varint(0));
        assert_eq!(created, expected);
    }

    #[test]
    fn config_maps_name_the_new_cluster_and_are_signed_anew() {
        let entry =
            |key: &str, value: &str| message(&[(ENTRY_KEY, key.as_bytes()), (ENTRY_VALUE, value.as_bytes())]);
        let object = message(&[
            (METADATA, &metadata()),
            (DATA, &entry("kubeconfig", "server: https://old:6443\n")),
            (DATA, &entry("jws-kubeconfig-abcdef", "signed")),
        ]);
        let changed =
            changes().apply("/registry/configmaps/kube-public/cluster-info", &envelope(&object)).unwrap();
        let text = String::from_utf8_lossy(&changed).into_owned();
        assert!(text.contains("https://newer:6443") && !text.contains("old"), "{text}");
        assert!(!text.contains("jws-kubeconfig-abcdef") && text.contains("jws-kubeconfig-123456"), "{text}");
        let other = changes().apply("/registry/configmaps/kube-system/x", &envelope(&object)).unwrap();
        assert!(!String::from_utf8_lossy(&other).contains("jws"));
    }

    #[test]
    fn workloads_begin_without_a_status() {
        let object = message(&[(METADATA, &metadata()), (2, b"spec"), (STATUS, b"ready")]);
        let changed =
            changes().apply("/registry/deployments/kube-system/coredns", &envelope(&object)).unwrap();
        assert_eq!(object_of(&changed).bytes(STATUS), None);
        let kept = changes().apply("/registry/pods/kube-system/x", &envelope(&object)).unwrap();
        assert_eq!(object_of(&kept).bytes(STATUS), Some(&b"ready"[..]));
    }

    #[test]
    fn json_is_changed_as_well_and_anything_else_refused() {
        let object =
            json!({"metadata": {"uid": std::str::from_utf8(OLD).unwrap(), "creationTimestamp": "x"}});
        let changed = changes().apply("/registry/x/y", object.to_string().as_bytes()).unwrap();
        let changed: Json = serde_json::from_slice(&changed).unwrap();
        assert_eq!(changed["metadata"]["creationTimestamp"], "2027-01-15T08:00:00Z");
        assert_eq!(changed["metadata"]["uid"], std::str::from_utf8(NEW).unwrap());
        assert_eq!(changes().apply("/registry/x/y", b"k8s:enc:aescbc"), None);
    }
}
