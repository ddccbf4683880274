//! Removing clusters that were booted ahead.

use super::super::delete;
use crate::{
    Error, Paths, Reporter, Result,
    state::{self, Lock, Standby},
};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// The standbys.
    pub standbys: Vec<Standby>,
}

/// Removes the standbys of a name, or all of them. None is no error.
///
/// # Errors
/// [`Error::InvalidName`], or [`Error::Leftovers`] of the first that could not be removed; the others are tried all the same.
pub async fn drain(paths: &Paths, name: Option<&str>, reporter: &dyn Reporter) -> Result<Drained> {
    if let Some(name) = name {
        state::validate_cluster_name(name)?;
    }
    let wanted = |standby: &Standby| name.is_none_or(|name| standby.cluster == name);
    let mut names: Vec<String> =
        state::standbys(paths)?.into_iter().filter(wanted).map(|standby| standby.cluster).collect();
    names.dedup();
    let (mut drained, mut first) = (Drained::default(), None);
    for name in names {
        let pool = state::pool_lock(paths, &name, reporter).await?;
        for standby in state::standbys(paths)?.into_iter().filter(|standby| standby.cluster == name) {
            let lock = state::cluster_lock(&standby.paths(paths), &name, reporter).await?;
            // It may have been taken while this waited for it.
            if !state::standbys(paths)?.contains(&standby) {
                lock.remove()?;
                continue;
            }
            match remove(paths, &standby, lock, reporter).await {
                Ok(()) => drained.standbys.push(standby),
                Err(error) => first = first.or(Some(error)),
            }
        }
        pool.remove()?;
    }
    first.map_or(Ok(drained), Err)
}

/// Removes one, whose lock the caller has.
///
/// # Errors
/// [`Error::Leftovers`].
pub(super) async fn remove(
    paths: &Paths,
    standby: &Standby,
    lock: Lock,
    reporter: &dyn Reporter,
) -> Result<()> {
    delete::remove_all(&standby.paths(paths), &standby.cluster, None, reporter).await.map_err(|error| {
        match error {
            Error::Leftovers { errors, .. } => Error::Leftovers { cluster: standby.handle(), errors },
            error => error,
        }
    })?;
    lock.remove()
}
