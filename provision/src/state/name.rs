//! Names of clusters: kind's rule, and what a directory needs.

use crate::{Error, Result, config};

/// Names longer than this many bytes are accepted with a warning: node names derived from them meet limits elsewhere
/// (host names have 63 bytes).
pub const LONG_NAME: usize = 50;

/// Directory entries have at most 255 bytes, and node names and lock files add to the cluster's name.
const LONGEST_NAME: usize = 200;

/// Checks that `name` can name a cluster: one or more of `a-z`, `0-9`, `.` and `-`, at most 200 bytes, and not one of
/// the names that mean a directory itself or its parent.
///
/// # Errors
/// [`Error::InvalidName`] says which rule is broken.
pub fn validate_cluster_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if !config::is_valid_name(name) {
        "only lower-case letters, digits, '.' and '-' are allowed"
    } else if name == "." || name == ".." {
        "it means a directory"
    } else if name.len() > LONGEST_NAME {
        "it has more than 200 characters"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName { name: name.to_owned(), reason })
}

/// Whether a name is long enough for a warning.
#[must_use]
pub fn is_long_name(name: &str) -> bool {
    name.len() > LONG_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kinds_rule() {
        for name in ["kind", "a", "0", "a.b-c", "-", "...", "1.2.3", "-x."] {
            validate_cluster_name(name).unwrap();
        }
        for name in ["", "Kind", "a_b", "a b", "a/b", "ä", "a\n", ".", "..", "../x"] {
            assert!(validate_cluster_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_fit_into_a_directory_entry() {
        validate_cluster_name(&"a".repeat(200)).unwrap();
        let error = validate_cluster_name(&"a".repeat(201)).unwrap_err();
        assert!(error.to_string().contains("more than 200"), "{error}");
    }

    #[test]
    fn long_names_are_noticed() {
        assert!(!is_long_name(&"a".repeat(50)));
        assert!(is_long_name(&"a".repeat(51)));
    }
}
