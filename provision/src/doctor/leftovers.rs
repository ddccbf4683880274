//! Clusters and registries that a killed run left half made or half removed.

use super::Finding;
use crate::{
    Paths, Result,
    state::{self, Phase},
};

const CHECK: &str = "leftovers";

pub(super) fn finding(paths: &Paths) -> Finding {
    let found = abandoned(paths).and_then(|clusters| Ok((clusters, abandoned_registries(paths)?)));
    let (clusters, registries) = match found {
        Ok(found) => found,
        Err(error) => {
            let cure = error.hint().unwrap_or_else(|| "run doctor as root".to_owned());
            return Finding::warning(CHECK, error.to_string(), cure);
        }
    };
    let cure = match (clusters.first(), registries.first()) {
        (Some(first), _) => format!("kiln delete cluster --name {first}"),
        (None, Some(first)) => format!("kiln registry delete {first}"),
        (None, None) => return Finding::ok(CHECK, "none"),
    };
    let registries = registries.into_iter().map(|name| format!("registry {name}"));
    let all: Vec<_> = clusters.into_iter().chain(registries).collect();
    Finding::warning(CHECK, format!("of killed runs: {}", all.join(", ")), cure)
}

/// The registries that are neither complete nor being worked on.
fn abandoned_registries(paths: &Paths) -> Result<Vec<String>> {
    let unfinished = || -> Result<Vec<String>> {
        let names = state::registry_names(paths)?.into_iter();
        let ready = |name: &str| matches!(state::load_registry(paths, name), Ok(Some(record)) if record.phase == Phase::Ready);
        Ok(names.filter(|name| !ready(name)).collect())
    };
    if unfinished()?.is_empty() {
        return Ok(Vec::new());
    }
    // Looked at again under the lock, as for clusters.
    match state::try_registry_lock(paths)? {
        Some(_lock) => unfinished(),
        None => Ok(Vec::new()),
    }
}

/// The clusters that are neither complete nor being worked on.
fn abandoned(paths: &Paths) -> Result<Vec<String>> {
    let mut abandoned = Vec::new();
    for name in state::cluster_names(paths)? {
        // Damaged records count: such a cluster can only be removed.
        let ready =
            || matches!(state::load_cluster(paths, &name), Ok(Some(record)) if record.phase == Phase::Ready);
        if ready() {
            continue;
        }
        // Whoever works on it holds the lock. It is had for a moment only, and looked again under it: the work may have
        // been finished in between.
        if let Some(_lock) = state::try_cluster_lock(paths, &name)?
            && !ready()
            && state::cluster_exists(paths, &name)?
        {
            abandoned.push(name);
        }
    }
    Ok(abandoned)
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;
    use crate::doctor::Status;

    #[test]
    fn clusters_that_nobody_works_on_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        assert_eq!(finding(&paths).status, Status::Ok);
        for name in ["a", "b"] {
            fs::create_dir_all(paths.cluster(name)).unwrap();
        }
        let worker = state::try_cluster_lock(&paths, "a").unwrap().unwrap();
        let found = finding(&paths);
        assert_eq!((found.status, found.detail.as_str()), (Status::Warning, "of killed runs: b"));
        assert_eq!(found.cure.as_deref(), Some("kiln delete cluster --name b"));
        drop(worker);
        assert_eq!(finding(&paths).detail, "of killed runs: a, b");
        fs::create_dir_all(paths.registry("r")).unwrap();
        let registry = state::try_registry_lock(&paths).unwrap().unwrap();
        assert_eq!(finding(&paths).detail, "of killed runs: a, b");
        drop(registry);
        assert_eq!(finding(&paths).detail, "of killed runs: a, b, registry r");
        for name in ["a", "b"] {
            fs::remove_dir(paths.cluster(name)).unwrap();
        }
        assert_eq!(finding(&paths).cure.as_deref(), Some("kiln registry delete r"));
    }
}
