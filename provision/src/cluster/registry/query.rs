//! Listing registries.

use kiln_runtime::{ExitRecord, Process};
use serde::Serialize;

use crate::{
    Error, Paths, Result,
    state::{self, Phase, RegistryRecord},
};

/// Whether a registry can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryState {
    /// It is being made or removed.
    Changing,
    /// It answers, as far as its process being there can tell.
    Running,
    /// Its process has ended.
    Exited,
    /// Its making or removal was interrupted, or its record is damaged.
    Broken,
}

impl RegistryState {
    /// The state as listings have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changing => "changing",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Broken => "broken",
        }
    }
}

/// A registry as it is now.
#[derive(Clone, Debug)]
pub struct RegistryStatus {
    /// The registry's name.
    pub name: String,
    /// Whether it can be used.
    pub state: RegistryState,
    /// What is known about it; `None` when there is no record, or a damaged one.
    pub record: Option<RegistryRecord>,
    /// How its process ended, when it has.
    pub exit: Option<ExitRecord>,
}

/// All registries, by name.
///
/// # Errors
/// [`Error::File`] when the state cannot be read at all.
pub fn registries(paths: &Paths) -> Result<Vec<RegistryStatus>> {
    let names = state::registry_names(paths)?;
    names.into_iter().map(|name| status(paths, name)).collect()
}

fn status(paths: &Paths, name: String) -> Result<RegistryStatus> {
    let record = match state::load_registry(paths, &name) {
        Ok(record) => record,
        Err(Error::Damaged { .. } | Error::StateSchema { .. }) => None,
        Err(error) => return Err(error),
    };
    let alive = record.as_ref().and_then(|record| record.process.as_ref()).is_some_and(Process::is_alive);
    let exit = if alive { None } else { ExitRecord::load(&paths.registry(&name).join("exit.json"))? };
    let state = match record.as_ref().map(|record| record.phase) {
        Some(Phase::Ready) if alive => RegistryState::Running,
        Some(Phase::Ready) => RegistryState::Exited,
        _ if state::registries_locked(paths)? => RegistryState::Changing,
        _ => RegistryState::Broken,
    };
    Ok(RegistryStatus { name, state, record, exit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry_record;

    #[test]
    fn what_is_half_made_is_broken_unless_somebody_is_at_it() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        assert!(registries(&paths).unwrap().is_empty());
        fs_err::create_dir_all(paths.registry("half")).unwrap();
        state::save_registry(&paths, &registry_record("r")).unwrap();
        let states = || {
            let list = registries(&paths).unwrap();
            list.into_iter().map(|status| (status.name, status.state)).collect::<Vec<_>>()
        };
        let expected = |half| [("half".to_owned(), half), ("r".to_owned(), RegistryState::Exited)];
        assert_eq!(states(), expected(RegistryState::Broken));
        let _lock = state::try_registry_lock(&paths).unwrap().unwrap();
        assert_eq!(states(), expected(RegistryState::Changing));
    }
}
