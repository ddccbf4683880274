//! Clusters that a killed run left half made or half removed.

use super::Finding;
use crate::{
    Paths, Result,
    state::{self, Phase},
};

const CHECK: &str = "leftovers";

pub(super) fn finding(paths: &Paths) -> Finding {
    let abandoned = match abandoned(paths) {
        Ok(abandoned) => abandoned,
        Err(error) => {
            let cure = error.hint().unwrap_or_else(|| "run doctor as root".to_owned());
            return Finding::warning(CHECK, error.to_string(), cure);
        }
    };
    let Some(first) = abandoned.first() else {
        return Finding::ok(CHECK, "none");
    };
    Finding::warning(
        CHECK,
        format!("of killed runs: {}", abandoned.join(", ")),
        format!("kiln delete cluster --name {first}"),
    )
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
    }
}
