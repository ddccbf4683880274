//! The files of an image archive by their paths.

use std::{
    collections::HashMap,
    io::{self, BufRead},
};

use super::{
    archive::{Archive, Entry, Kind},
    unpack::MAX_BYTES,
};

/// Files that an archive may have. Large images have hundreds.
const MAX_ENTRIES: usize = 100_000;
/// Links that may lead to each other.
const MAX_LINKS: usize = 8;

/// What an archive holds, by its own paths: where each file's content is, in whatever form that is told.
#[derive(Debug)]
pub(super) struct Members<T> {
    files: HashMap<String, T>,
    links: HashMap<String, String>,
}

impl<T> Members<T> {
    /// Goes through an archive and has `take` tell where the content of each file is. The entry that is being read is
    /// left in `current`.
    pub(super) fn read<R: BufRead>(
        archive: &mut Archive<R>,
        current: &mut Option<String>,
        mut take: impl FnMut(&mut Archive<R>, &Entry, &str) -> io::Result<T>,
    ) -> io::Result<Self> {
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut bytes = 0_u64;
        while let Some(entry) = archive.next()? {
            let path = normal("", &String::from_utf8_lossy(&entry.path));
            *current = Some(path.clone());
            bytes = bytes.saturating_add(entry.size);
            if files.len() + links.len() >= MAX_ENTRIES || bytes > MAX_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("it has more than {MAX_ENTRIES} files or {} GiB", MAX_BYTES >> 30),
                ));
            }
            if let Some(target) = link(&path, &entry) {
                links.insert(path, target);
            } else if entry.kind == Kind::File {
                let content = take(archive, &entry, &path)?;
                files.insert(path, content);
            }
        }
        Ok(Self { files, links })
    }

    /// A file, and its path once links are followed.
    pub(super) fn find(&self, path: &str) -> Option<(String, &T)> {
        let mut path = normal("", path);
        for _ in 0..MAX_LINKS {
            match (self.files.get(&path), self.links.get(&path)) {
                (Some(content), _) => return Some((path, content)),
                (None, Some(target)) => path.clone_from(target),
                (None, None) => return None,
            }
        }
        None
    }
}

/// Where a link leads: a symbolic one from its own directory, a hard one from the top.
fn link(path: &str, entry: &Entry) -> Option<String> {
    match &entry.kind {
        Kind::Symlink(target) => {
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            Some(normal(directory, &String::from_utf8_lossy(target)))
        }
        Kind::HardLink(target) => Some(normal("", &String::from_utf8_lossy(target))),
        _ => None,
    }
}

/// A path without `.` and `..`, as a key: it never names a file of the host.
pub(super) fn normal(directory: &str, path: &str) -> String {
    let mut parts = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_keys() {
        assert_eq!(normal("", "./a//b/"), "a/b");
        assert_eq!(normal("id", "../other/layer.tar"), "other/layer.tar");
        assert_eq!(normal("", "/../../etc/passwd"), "etc/passwd");
    }

    #[test]
    fn links_that_go_in_circles_lead_nowhere() {
        let links = [("a", "b"), ("b", "a"), ("d", "c")];
        let members = Members {
            files: HashMap::from([("c".to_owned(), 7)]),
            links: links.map(|(path, target)| (path.to_owned(), target.to_owned())).into(),
        };
        assert_eq!(members.find("a"), None);
        assert_eq!(members.find("./d"), Some(("c".to_owned(), &7)));
    }
}
