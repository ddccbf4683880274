//! The signature by which a joining node knows the cluster whose token it has.
//!
//! `cluster-info` in `kube-public` is for everybody to read; next to the kubeconfig it holds a detached signature with each
//! bootstrap token (JSON Web Signature, RFC 7515 appendix F, with HMAC-SHA-256). Making it is kube-controller-manager's
//! task (`pkg/controller/bootstrap`), and late: its controllers start after the API. Nodes can join as soon as it is there.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

/// What signs with a bootstrap token.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    id: String,
    secret: String,
}

impl Signer {
    /// Of a token, `ID.SECRET`.
    pub(super) fn new(token: &str) -> Option<Self> {
        let (id, secret) = token.split_once('.')?;
        Some(Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The entry that belongs beside what was signed: its name and its text.
    pub(super) fn entry(&self, content: &str) -> (String, String) {
        // Names of a header are in their order, as the controller writes them: it leaves alone what it would have written.
        let header = serde_json::json!({ "alg": "HS256", "kid": self.id }).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        (format!("{}{}", super::object::SIGNATURES, self.id), format!("{header}..{signature}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_controller() {
        // From the tests of k8s.io/cluster-bootstrap (token/jws/jws_test.go).
        let content = "Hello from the other side. I must have called a thousand times.";
        let (name, text) = Signer::new("joshua.my voice is my passcode").unwrap().entry(content);
        assert_eq!(name, "jws-kubeconfig-joshua");
        assert_eq!(
            text,
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
        assert!(Signer::new("none").is_none());
    }
}
