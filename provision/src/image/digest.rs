//! The name of content: its SHA-256.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

const PREFIX: &str = "sha256:";

/// The SHA-256 of some content, written `sha256:` and 64 lower-case hexadecimal digits. Other algorithms are not
/// known: no registry in use gives digests of any other kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads the form `sha256:HEX`.
    ///
    /// # Errors
    /// [`Error::InvalidDigest`] for anything else, upper-case digits included.
    pub fn try_new(value: &str) -> Result<Self> {
        let invalid = || Error::InvalidDigest { value: value.to_owned() };
        let hex = value.strip_prefix(PREFIX).ok_or_else(invalid)?.as_bytes();
        let mut bytes = [0; 32];
        if hex.len() != 2 * bytes.len() {
            return Err(invalid());
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = (nibble(pair[0]).ok_or_else(invalid)?, nibble(pair[1]).ok_or_else(invalid)?);
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }

    /// The digest of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The digest of all that a stream has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_reader(stream: impl Read) -> io::Result<Self> {
        let mut stream = Hashed::new(stream);
        io::copy(&mut stream, &mut io::sink())?;
        Ok(stream.into_parts().1)
    }

    /// The 64 hexadecimal digits without the algorithm: a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        self.to_string().split_off(PREFIX.len())
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        Self::try_new(value)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(value: String) -> Result<Self> {
        Self::try_new(&value)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = Error;

    fn try_from(digest: &oci_spec::image::Digest) -> Result<Self> {
        Self::try_new(digest.as_ref())
    }
}

impl From<Digest> for oci_spec::image::Digest {
    fn from(digest: Digest) -> Self {
        digest.to_string().parse().expect("every sha256 digest is a valid OCI digest")
    }
}

/// Computes a digest piece by piece.
#[derive(Debug, Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Passes a stream on and hashes it on its way, reading or writing.
#[derive(Debug)]
pub(super) struct Hashed<S> {
    stream: S,
    hasher: Hasher,
}

impl<S> Hashed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, hasher: Hasher::default() }
    }

    /// The stream, and the digest of all that passed.
    pub(super) fn into_parts(self) -> (S, Digest) {
        (self.stream, self.hasher.finish())
    }
}

impl<S: Read> Read for Hashed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for Hashed<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_round_trips_through_its_text() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.hex(), EMPTY[7..]);
        assert_eq!(serde_json::from_str::<Digest>(&format!("{EMPTY:?}")).unwrap(), digest);
        assert_eq!(Digest::try_from(&oci_spec::image::Digest::from(digest)).unwrap(), digest);
    }

    #[test]
    fn other_forms_are_refused() {
        let bad = [
            "",
            "sha256:",
            &EMPTY[7..],
            &EMPTY[..70],
            &format!("{EMPTY}0"),
            &EMPTY.replace('e', "E"),
            &EMPTY.replace('e', "g"),
            &EMPTY.replace("sha256", "sha512"),
            "sha256:../../../../../../../../../../../../../../../../../../../../../e",
        ];
        for value in bad {
            assert!(Digest::try_new(value).is_err(), "{value}");
        }
    }
}
