//! Pods of a template: bound already, so that kubelet starts them as soon as it sees the API.

use jiff::Timestamp;

use super::{
    etcd::KeyValue,
    object::{MAGIC, METADATA, RAW, STATUS, time},
    wire::{Message, Value},
};

const NAME: u32 = 1;
const OWNERS: u32 = 13;
const OWNER_KIND: u32 = 1;
const MANAGED: u32 = 17;
const MANAGED_SUBRESOURCE: u32 = 8;

const SPEC: u32 = 2;
const NODE_NAME: u32 = 10;
/// Where a DaemonSet's pod names its node: affinity, node affinity, required, terms, fields, values.
const AFFINITY: [u32; 7] = [SPEC, 18, 1, 1, 1, 2, 3];
const TOLERATIONS: u32 = 22;
const TOLERATION_KEY: u32 = 1;
const TOLERATION_OPERATOR: u32 = 2;

const PHASE: u32 = 1;
const CONDITIONS: u32 = 2;
const QOS_CLASS: u32 = 9;

/// What keeps ordinary pods off the control planes of clusters with workers.
const CONTROL_PLANE: &[u8] = b"node-role.kubernetes.io/control-plane";

/// What a generated name ends with, and the letters that it is made of (apimachinery's `util/rand`).
const SUFFIX: usize = 5;
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

fn open(value: &[u8]) -> Option<(Message, Message)> {
    let envelope = Message::parse(value.strip_prefix(MAGIC)?)?;
    let object = Message::parse(envelope.bytes(RAW)?)?;
    Some((envelope, object))
}

/// What a pod of the seeding cluster is to the template: the node that it is bound to, if it belongs to an add-on.
/// `Some(None)` for a pod that kubelet itself has made, and which no template wants.
pub(super) fn bound_to(value: &[u8]) -> Option<Option<String>> {
    let (_, object) = open(value)?;
    let metadata = Message::parse(object.bytes(METADATA)?)?;
    let owner = metadata.bytes(OWNERS).and_then(Message::parse);
    if owner.is_none_or(|owner| owner.bytes(OWNER_KIND) == Some(b"Node")) {
        return Some(None);
    }
    let spec = Message::parse(object.bytes(SPEC)?)?;
    let node = spec.bytes(NODE_NAME).unwrap_or_default();
    Some(Some(String::from_utf8_lossy(node).into_owned()))
}

/// The pod bound to the first node of another cluster, with a name of its own. `Some(None)` when it may not run there;
/// `None` when it is not understood.
#[expect(clippy::option_option, reason = "not understood and not wanted are not the same")]
pub(super) fn bind(
    key: &str,
    value: &[u8],
    node: &str,
    alone: bool,
    now: Timestamp,
) -> Option<Option<KeyValue>> {
    let (mut envelope, mut object) = open(value)?;
    let spec = Message::parse(object.bytes(SPEC)?)?;
    if !alone && !tolerates_control_planes(&spec) {
        return Some(None);
    }
    let name = Message::parse(object.bytes(METADATA)?)?.bytes(NAME)?.to_vec();
    let kept = name.len().checked_sub(SUFFIX)?;
    let suffix = random_suffix().ok()?;
    let renamed = [&name[..kept], &suffix].concat();
    let key = key.strip_suffix(std::str::from_utf8(&name).ok()?)?;
    let key = [key.as_bytes(), &renamed].concat();
    // What kubelet has reported names addresses, in these as well.
    object.edit(&[METADATA], &mut |value| {
        if let Value::Bytes(bytes) = value
            && let Some(mut metadata) = Message::parse(bytes)
        {
            metadata.retain(MANAGED, |entry| entry.bytes(MANAGED_SUBRESOURCE) != Some(b"status"));
            *bytes = metadata.encode();
        }
    });
    object.edit(&[METADATA, NAME], &mut |value| *value = Value::Bytes(renamed.clone()));
    object.edit(&[SPEC, NODE_NAME], &mut |value| *value = Value::Bytes(node.into()));
    object.edit(&AFFINITY, &mut |value| *value = Value::Bytes(node.into()));
    let mut status = pending(now);
    // Set when a pod is created, and never changed after that.
    let class = Message::parse(object.bytes(STATUS)?)?.bytes(QOS_CLASS)?.to_vec();
    status.push(QOS_CLASS, Value::Bytes(class));
    object.remove(STATUS);
    object.push(STATUS, Value::Bytes(status.encode()));
    envelope.edit(&[RAW], &mut |value| *value = Value::Bytes(object.encode()));
    Some(Some(KeyValue { key, value: [MAGIC, &envelope.encode()].concat() }))
}

fn tolerates_control_planes(spec: &Message) -> bool {
    spec.all(TOLERATIONS).filter_map(Message::parse).any(|toleration| {
        let key = toleration.bytes(TOLERATION_KEY).unwrap_or_default();
        // Without a key and with this operator, everything is tolerated.
        key == CONTROL_PLANE || key.is_empty() && toleration.bytes(TOLERATION_OPERATOR) == Some(b"Exists")
    })
}

/// The status of a pod that the scheduler has just bound.
fn pending(now: Timestamp) -> Message {
    let mut condition = Message::default();
    condition.push(1, Value::Bytes(b"PodScheduled".to_vec()));
    condition.push(2, Value::Bytes(b"True".to_vec()));
    condition.push(4, Value::Bytes(time(now).encode()));
    let mut status = Message::default();
    status.push(PHASE, Value::Bytes(b"Pending".to_vec()));
    status.push(CONDITIONS, Value::Bytes(condition.encode()));
    status
}

fn random_suffix() -> crate::Result<Vec<u8>> {
    let uid = super::random_uids(1)?[0];
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as usize;
    // Two digits make a byte, which is near enough to fair among 27 letters for a name.
    let pairs = [0, 2, 4, 6, 9].map(|at| digit(uid[at]) * 16 + digit(uid[at + 1]));
    Ok(pairs.iter().map(|byte| LETTERS[byte % LETTERS.len()]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut message = Message::default();
        for (number, bytes) in fields {
            message.push(*number, Value::Bytes(bytes.to_vec()));
        }
        message.encode()
    }

    fn pod(owner: &str, tolerated: &[u8]) -> Vec<u8> {
        let owner = message(&[(OWNER_KIND, owner.as_bytes())]);
        let metadata = message(&[(NAME, b"coredns-6f6b679f8f-abcde"), (OWNERS, &owner)]);
        let toleration = message(&[(TOLERATION_KEY, tolerated)]);
        let spec = message(&[(NODE_NAME, b"old-control-plane"), (TOLERATIONS, &toleration)]);
        let object = message(&[
            (METADATA, &metadata),
            (SPEC, &spec),
            (STATUS, &message(&[(QOS_CLASS, b"Burstable")])),
        ]);
        [MAGIC, &message(&[(RAW, &object)])].concat()
    }

    const KEY: &str = "/registry/pods/kube-system/coredns-6f6b679f8f-abcde";

    #[test]
    fn pods_of_add_ons_are_told_from_those_of_kubelet() {
        assert_eq!(bound_to(&pod("ReplicaSet", b"")), Some(Some("old-control-plane".to_owned())));
        assert_eq!(bound_to(&pod("Node", b"")), Some(None));
        assert_eq!(bound_to(b"{}"), None);
    }

    #[test]
    fn a_pod_is_bound_to_the_new_node_under_a_new_name() {
        let now = Timestamp::now();
        let bound = bind(KEY, &pod("ReplicaSet", CONTROL_PLANE), "n", false, now).unwrap().unwrap();
        let key = String::from_utf8(bound.key).unwrap();
        assert!(key.starts_with("/registry/pods/kube-system/coredns-6f6b679f8f-") && key != KEY, "{key}");
        assert_eq!(key.len(), KEY.len());
        let (_, object) = open(&bound.value).unwrap();
        let spec = Message::parse(object.bytes(SPEC).unwrap()).unwrap();
        assert_eq!(spec.bytes(NODE_NAME), Some(&b"n"[..]));
        let status = Message::parse(object.bytes(STATUS).unwrap()).unwrap();
        assert_eq!(status.bytes(PHASE), Some(&b"Pending"[..]));
        assert_eq!(status.bytes(QOS_CLASS), Some(&b"Burstable"[..]));
    }

    #[test]
    fn control_planes_of_clusters_with_workers_are_for_those_who_tolerate_them() {
        let now = Timestamp::now();
        assert_eq!(bind(KEY, &pod("ReplicaSet", b"other"), "n", false, now), Some(None));
        assert!(bind(KEY, &pod("ReplicaSet", b"other"), "n", true, now).unwrap().is_some());
    }
}
