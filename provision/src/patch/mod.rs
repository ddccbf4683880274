//! Patches for what nodes are configured with.
//!
//! Two kinds of documents are patched: the YAML objects kubeadm reads, where a patch finds its object by kind
//! (and `apiVersion`, if it names one), and containerd's TOML. Both take merge patches (RFC 7386) and
//! operations (RFC 6902), merges first. What a patch does here is what it does in kind, including what kind
//! adds to the standards: extra arguments of kubeadm's `v1beta4` merge by name and certificate names are
//! united.

mod containerd;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod kubeadm;
mod merge;
mod object;
mod operation;
mod yaml;

#[cfg(test)]
mod tests;

use std::fmt;

pub use containerd::{check as check_toml, patch as containerd};
pub use object::{check as check_merge, patch_objects};
pub use yaml::emit;

use crate::Error;

/// Why a patch cannot be read or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// As this crate's error, naming the patch.
    fn in_patch(self, patch: impl Into<String>) -> Error {
        Error::Patch { patch: patch.into(), source: self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// Checks that a text holds RFC 6902 operations, as YAML or JSON. Whether they apply shows only with a
/// document.
///
/// # Errors
/// When it is not YAML, or not a list of mappings.
pub fn check_operations(text: &str) -> Result<(), Invalid> {
    operation::parse(text).map(drop)
}
