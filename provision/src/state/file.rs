//! JSON files that are either the old or the new version, whatever happens while they are written.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Writes `value` as `path`, durably: when this returns the file is on disk, and a crash at any point leaves either
/// the former file or the new one. The directory is made when it is missing.
///
/// There must be one writer at a time (a lock is held): the intermediate file has a fixed name, so that a killed
/// writer leaves at most one, which the next one replaces.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| Error::File {
        what: "turn a record into JSON",
        source: io::Error::new(io::ErrorKind::InvalidData, format!("{}: {source}", path.display())),
    })?;
    text.push(b'\n');
    write_atomically(path, &text).map_err(|source| Error::File { what: "save a record", source })
}

/// Reads the JSON file `path`; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::File { what: "read a record", source });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::Damaged { path: path.to_owned(), source: Box::new(source) })
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(directory)?;
    let intermediate = intermediate(path);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&intermediate)?;
    file.write_all(content)?;
    // Before the rename: otherwise a power cut may leave the new name with no content.
    file.sync_all()?;
    fs::rename(&intermediate, path)?;
    // The name is on disk only when its directory is.
    fs::File::open(directory)?.sync_all()
}

fn intermediate(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/record.json");
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2, 3]).unwrap();
        write_json(&path, &vec![4]).unwrap();
        assert_eq!(read_json::<Vec<u8>>(&path).unwrap(), Some(vec![4]));
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["record.json"]);
    }

    #[test]
    fn what_a_killed_writer_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        fs::write(directory.path().join("record.json.new"), "[1, 2, 3, 4, 5, 6, 7, 8").unwrap();
        write_json(&path, &vec![4]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  4\n]\n");
        assert!(!directory.path().join("record.json.new").exists());
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        fs::write(&path, "[1,").unwrap();
        let error = read_json::<Vec<u8>>(&path).unwrap_err();
        assert!(error.to_string().contains("record.json is damaged"), "{error}");
    }

    #[test]
    fn a_file_that_is_gone_counts_as_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        fs::write(&path, "").unwrap();
        remove_if_exists(&path).unwrap();
        remove_if_exists(&path).unwrap();
        assert!(remove_if_exists(directory.path()).is_err(), "a directory is not a file");
    }
}
