//! Bootstrap tokens.

use std::io::Read;

use crate::{Error, Result};

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// The lengths of a token's parts: its id, which may be known, and its secret.
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// A bootstrap token of the kernel's randomness, in kubeadm's form `[a-z0-9]{6}.[a-z0-9]{16}`.
///
/// # Errors
/// [`Error::File`] when the kernel gives none.
pub fn random_token() -> Result<String> {
    let failed = |source| Error::File { what: "read random bytes", source };
    let mut source = fs_err::File::open("/dev/urandom").map_err(failed)?;
    let mut token = String::new();
    let mut bytes = [0; 32];
    while token.len() < ID_LENGTH + 1 + SECRET_LENGTH {
        source.read_exact(&mut bytes).map_err(failed)?;
        extend(&mut token, &bytes);
    }
    Ok(token)
}

/// Adds to a token until it is complete or the bytes are used up.
fn extend(token: &mut String, bytes: &[u8]) {
    // Bytes beyond the last whole multiple of the alphabet would make its first letters likelier.
    let limit = u8::try_from(256 / ALPHABET.len() * ALPHABET.len()).unwrap_or(u8::MAX);
    for byte in bytes.iter().filter(|byte| **byte < limit) {
        if token.len() == ID_LENGTH {
            token.push('.');
        }
        if token.len() < ID_LENGTH + 1 + SECRET_LENGTH {
            token.push(char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_kubeadms_form_and_differ() {
        let token = random_token().unwrap();
        let (id, secret) = token.split_once('.').unwrap();
        assert_eq!((id.len(), secret.len()), (6, 16));
        assert!((id.to_owned() + secret).bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_ne!(token, random_token().unwrap());
    }

    #[test]
    fn bytes_that_would_be_unfair_are_skipped() {
        let mut token = String::new();
        extend(&mut token, &[0, 252, 255, 35, 36, 251]);
        assert_eq!(token, "a9a9");
    }
}
