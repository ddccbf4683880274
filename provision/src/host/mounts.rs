//! How the host's mounts propagate.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::{Error, Result};

/// Whether mounts made below a path reach others, and are reached by theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Neither.
    Private,
    /// It receives mounts and gives none.
    Slave,
    /// Both.
    Shared,
}

/// How the mount that holds `path` propagates.
///
/// # Errors
/// [`Error::File`] when the path or the mount table cannot be read.
pub(crate) fn sharing(path: &Path) -> Result<Sharing> {
    let path = fs::canonicalize(path).map_err(Error::file("resolve a path"))?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(Error::file("read the mount table"))?;
    Ok(of(&table, &path))
}

fn of(table: &str, path: &Path) -> Sharing {
    let mut found = Sharing::Private;
    let mut longest = 0;
    for line in table.lines() {
        // proc_pid_mountinfo(5): the fifth field is the mount point, optional fields from the seventh on end at `-`.
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(point) = fields.get(4).map(|point| unescape(point)) else { continue };
        // A later mount at the same place hides the earlier one.
        let length = point.components().count();
        if !path.starts_with(&point) || length < longest {
            continue;
        }
        longest = length;
        let optional = || fields.iter().skip(6).take_while(|field| **field != "-");
        found = if optional().any(|field| field.starts_with("shared:")) {
            Sharing::Shared
        } else if optional().any(|field| field.starts_with("master:")) {
            Sharing::Slave
        } else {
            Sharing::Private
        };
    }
    found
}

/// The table writes a blank as `\040`, and likewise tabs, newlines and backslashes.
fn unescape(text: &str) -> PathBuf {
    let replaced = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter));
    PathBuf::from(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        30 27 0:30 / /mnt rw shared:5 - tmpfs t rw\n\
        31 30 0:31 / /mnt/sl\\040ave rw master:5 - tmpfs t rw\n\
        32 30 0:32 / /mnt/both rw shared:7 master:5 - tmpfs t rw\n\
        33 30 0:33 / /mnt/hidden rw shared:8 - tmpfs t rw\n\
        34 33 0:34 / /mnt/hidden rw - tmpfs t rw\n";

    #[test]
    fn the_innermost_mount_decides() {
        for (path, expected) in [
            ("/home", Sharing::Private),
            ("/mnt/a/b", Sharing::Shared),
            ("/mnt/sl ave/x", Sharing::Slave),
            ("/mnt/both", Sharing::Shared),
            ("/mnt/hidden", Sharing::Private),
            ("/mnt2", Sharing::Private),
        ] {
            assert_eq!(of(TABLE, Path::new(path)), expected, "{path}");
        }
    }
}
