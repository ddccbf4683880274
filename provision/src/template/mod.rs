//! Templates: what `kubeadm init` makes of an image and a configuration, kept without what is one cluster's own.
//!
//! kubeadm asks a new API server for three hundred objects one by one, and the control plane makes as many for itself
//! while it comes up the first time. All of them are the same for every cluster of one image and configuration but for
//! the names and keys of the cluster, and identities and times. So the first such cluster leaves a template, and later
//! ones begin with etcd as that one had it: with keys, identities and times of their own, and nothing that belongs to a
//! node. kubeadm stays the authority: what it has not made is not in a template.
//!
//! A template is one file, and worth nothing by itself: one that is damaged, or of another Kiln, is thrown away.

mod etcd;
mod member;
mod object;
mod origin;
mod pod;
mod seed;
mod shelf;
mod signature;
mod wire;

use std::collections::{BTreeMap, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use self::{
    etcd::{Cause, Credentials, Etcd, KeyValue},
    member::{CONTROL_PLANE_TAINT, EXCLUDE_LABEL, Member},
    origin::Origin,
    seed::{Seed, read},
    shelf::{TemplateKey, discard, extend, find, save},
};
use self::{object::Changes, signature::Signer};
use crate::{Result, pki::Keys};

/// What stands for a change of what templates hold, or of how they are used.
const FORMAT: u32 = 2;

/// Where the API server keeps everything.
const REGISTRY: &str = "/registry/";

/// What `kubeadm init` leaves, less what is one cluster's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Template {
    objects: Vec<Object>,
    /// The add-ons' pods, as the scheduler has bound them.
    pods: Vec<Object>,
    /// The first node, and with it the cluster that all comes from.
    first: Member,
    /// Nodes that may follow it, one of each kind.
    followers: Vec<Member>,
}

/// An object as etcd holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Object {
    key: String,
    #[serde(with = "encoded")]
    value: Vec<u8>,
}

/// What a new cluster begins with.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub(crate) values: Vec<KeyValue>,
    /// Files of the first node, by their paths.
    pub(crate) files: Vec<(String, String)>,
    /// Files of the nodes that follow it, by their names, for those that the template knows.
    pub(crate) followers: BTreeMap<String, Vec<(String, String)>>,
    /// The pod ranges that nodes have from the beginning, by the nodes' names.
    pub(crate) ranges: BTreeMap<String, Vec<IpNet>>,
}

/// A cluster that is to begin with a template.
#[derive(Debug)]
pub(crate) struct Newcomer<'a> {
    /// Its names, with those of its first node.
    pub(crate) origin: &'a Origin,
    pub(crate) keys: &'a Keys,
    /// The bootstrap token.
    pub(crate) token: &'a str,
    /// The pod ranges of the first node, if they are known already.
    pub(crate) ranges: Vec<IpNet>,
    /// The taints of the first node as a control plane; `None` where it is alone, and is to run everything.
    pub(crate) taints: Option<Vec<Value>>,
    /// All other nodes.
    pub(crate) followers: Vec<Follower>,
}

/// A node of a new cluster that is not its first.
#[derive(Debug)]
pub(crate) struct Follower {
    /// What is asked of it.
    pub(crate) key: Option<TemplateKey>,
    /// The cluster's names, with those of this node.
    pub(crate) origin: Origin,
    /// Its pod ranges, if they are known already.
    pub(crate) ranges: Vec<IpNet>,
    /// Its taints as a control plane, if it is one.
    pub(crate) taints: Option<Vec<Value>>,
}

impl Template {
    /// Whether it holds a node of this kind that follows the first.
    pub(crate) fn knows(&self, follower: &TemplateKey) -> bool {
        self.follower(follower).is_some()
    }

    fn follower(&self, key: &TemplateKey) -> Option<&Member> {
        self.followers.iter().find(|known| known.key == *key)
    }

    /// A file of the first node, as it was in the cluster that all comes from.
    pub(crate) fn file(&self, path: &str) -> Option<&str> {
        self.first.files.iter().find(|(other, _)| other == path).map(|(_, text)| text.as_str())
    }

    /// What another cluster begins with.
    ///
    /// # Errors
    /// What is not understood, or that the kernel gives no randomness.
    pub(crate) fn beginning(&self, new: &Newcomer<'_>) -> Result<Beginning, Cause> {
        let Newcomer { origin, keys, token, .. } = *new;
        let alone = new.taints.is_none();
        let created = Timestamp::now();
        let all = || self.objects.iter().chain(&self.pods);
        let old: Vec<_> = all().filter_map(|object| object::uid(&object.value)).collect();
        let uids: HashMap<_, _> = old.iter().copied().zip(random_uids(old.len())?).collect();
        let signer = Signer::new(token);
        let changes = Changes { texts: self.first.origin.texts(origin, keys), uids, created, signer };
        let mut values = Vec::new();
        let puzzling = |key: &str| format!("{key} is not understood");
        let change =
            |object: &Object| changes.apply(&object.key, &object.value).ok_or_else(|| puzzling(&object.key));
        for object in &self.objects {
            values.push(KeyValue { key: object.key.clone().into_bytes(), value: change(object)? });
        }
        for pod in &self.pods {
            let bound = pod::bind(&pod.key, &change(pod)?, &origin.node, alone, created);
            // The scheduler will find another node for one that may not run on the first.
            values.extend(bound.ok_or_else(|| puzzling(&pod.key))?);
        }
        values.extend(bootstrap_token(token, created));
        let first = self.first.begin(origin, keys, &new.ranges, new.taints.as_deref(), created)?;
        values.push(first.value);
        let mut followers = BTreeMap::new();
        let mut ranges = BTreeMap::from([(origin.node.clone(), new.ranges.clone())]);
        for follower in &new.followers {
            let known = follower.key.as_ref().and_then(|key| self.follower(key));
            let Some(known) = known else { continue };
            let begun =
                known.begin(&follower.origin, keys, &follower.ranges, follower.taints.as_deref(), created)?;
            values.push(begun.value);
            followers.insert(follower.origin.node.clone(), begun.files);
            ranges.insert(follower.origin.node.clone(), follower.ranges.clone());
        }
        ranges.retain(|_, ranges| !ranges.is_empty());
        Ok(Beginning { values, files: first.files, followers, ranges })
    }
}

/// How long a bootstrap token is good for, in kubeadm's configuration by default.
const TOKEN_HOURS: i64 = 24;

/// The Secret of a bootstrap token
/// (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>).
fn bootstrap_token(token: &str, created: Timestamp) -> Option<KeyValue> {
    let (id, secret) = token.split_once('.')?;
    let expires = created.checked_add(jiff::SignedDuration::from_hours(TOKEN_HOURS)).ok()?;
    let data = |text: &str| STANDARD.encode(text);
    let name = format!("bootstrap-token-{id}");
    let uid = random_uids(1).ok()?.first().copied()?;
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "uid": String::from_utf8_lossy(&uid),
            "creationTimestamp": object::timestamp(created),
        },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "auth-extra-groups": data("system:bootstrappers:kubeadm:default-node-token"),
            "expiration": data(&object::timestamp(expires)),
            "token-id": data(id),
            "token-secret": data(secret),
            "usage-bootstrap-authentication": data("true"),
            "usage-bootstrap-signing": data("true"),
        },
    });
    Some(object::written(&format!("{REGISTRY}secrets/kube-system/{name}"), &object))
}

/// Identities of the kernel's randomness, in the form of version 4 (RFC 9562).
fn random_uids(count: usize) -> Result<Vec<[u8; 36]>> {
    use std::io::Read as _;

    let failed = crate::Error::file("read random bytes");
    let mut bytes = vec![0; count * 16];
    fs_err::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(failed)?;
    Ok(bytes.chunks_exact(16).map(uid_of).collect())
}

fn uid_of(random: &[u8]) -> [u8; 36] {
    let mut uid = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (place, digit) in places.zip(digits) {
        let digit = match place {
            14 => 4,
            19 => digit & 3 | 8,
            _ => digit,
        };
        uid[place] = b"0123456789abcdef"[usize::from(digit)];
    }
    uid
}

mod encoded {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_have_their_form() {
        let zero = uid_of(&[0; 16]);
        assert_eq!(std::str::from_utf8(&zero).unwrap(), "00000000-0000-4000-8000-000000000000");
        let ones = uid_of(&[255; 16]);
        assert_eq!(std::str::from_utf8(&ones).unwrap(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let random = random_uids(2).unwrap();
        assert_ne!(random[0], random[1]);
    }

    #[test]
    fn a_token_becomes_a_secret_that_expires() {
        let created = Timestamp::from_second(1_800_000_000).unwrap();
        let KeyValue { key, value } = bootstrap_token("abcdef.0123456789abcdef", created).unwrap();
        assert_eq!(key, b"/registry/secrets/kube-system/bootstrap-token-abcdef");
        let secret: serde_json::Value = serde_json::from_slice(&value).unwrap();
        let expiration = STANDARD.decode(secret["data"]["expiration"].as_str().unwrap()).unwrap();
        assert_eq!(expiration, b"2027-01-16T08:00:00Z");
        assert_eq!(bootstrap_token("none", created), None);
    }
}
