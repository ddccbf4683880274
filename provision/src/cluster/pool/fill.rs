//! Booting clusters ahead.

use std::time::{Duration, Instant};

use super::{
    super::{
        Cancel, CreateOptions,
        blocking::Steps,
        create::{check, ensure, give_up, phase},
        make::{Booted, boot},
        reserve::NodeImage,
    },
    drain, park, request,
};
use crate::{
    Error, Paths, Reporter, Result,
    image::Store,
    state::{self, Standby, StandbyRecord},
};

/// How long the nodes of a standby may take to be Ready, where nothing else was asked for.
const READY: Duration = Duration::from_secs(300);

/// What to boot ahead.
#[derive(Clone, Debug)]
pub struct FillOptions {
    /// What the clusters are to be. `kubeconfig` and `wait` mean nothing before one is asked for, but that a `wait` is how
    /// long the nodes may take to be Ready.
    pub create: CreateOptions,
    /// How many of them there are to be.
    pub count: u32,
}

/// What the pool of one name has become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Those that were booted now, by number.
    pub booted: Vec<u32>,
    /// Those that were there and are as asked for.
    pub kept: Vec<u32>,
    /// Those that were removed: of another configuration or image, half-made, or ended.
    pub removed: Vec<u32>,
}

/// Boots clusters until there are as many standbys as asked for. Those that no cluster like it can become are removed, as
/// are those beyond the count.
///
/// # Errors
/// What went wrong first, or [`Error::Interrupted`]; standbys that were finished stay.
pub async fn fill(
    paths: &Paths,
    options: &FillOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Filled> {
    let create = &options.create;
    let name = create.name.clone().unwrap_or_else(|| create.config.name.clone());
    state::validate_cluster_name(&name)?;
    if create.config.networking.disable_default_cni {
        return Err(Error::NoStandby {
            reason: "with disableDefaultCNI its nodes are never Ready by themselves".to_owned(),
        });
    }
    let lock = tokio::select! {
        lock = state::pool_lock(paths, &name, reporter) => lock?,
        () = cancel.triggered() => return Err(Error::Interrupted),
    };
    let filled = fill_locked(paths, &name, options, reporter, cancel).await;
    lock.remove()?;
    filled
}

async fn fill_locked(
    paths: &Paths,
    name: &str,
    options: &FillOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Filled> {
    let create = &options.create;
    let steps = Steps::default();
    let mut filled = Filled::default();
    let count = usize::try_from(options.count).unwrap_or(usize::MAX);
    let (images, _promise) = tokio::select! {
        ensured = ensure(paths, create, reporter, &steps) => ensured?,
        () = cancel.triggered() => return Err(Error::Interrupted),
    };
    let wanted = request(name, create, &images);
    for standby in state::standbys(paths)?.into_iter().filter(|standby| standby.cluster == *name) {
        // Taken, or being taken, in this very moment.
        let Some(lock) = state::try_cluster_lock(&standby.paths(paths), name)? else { continue };
        let record = state::load_standby(paths, &standby).ok().flatten();
        let usable =
            record.is_some_and(|record| record.request == wanted) && super::list::is_alive(paths, &standby);
        if usable && filled.kept.len() < count {
            filled.kept.push(standby.number);
            continue;
        }
        reporter.message(0, &format!("Removing {standby}"));
        drain::remove(paths, &standby, lock, reporter).await?;
        filled.removed.push(standby.number);
    }
    while filled.kept.len() + filled.booted.len() < count {
        filled.booted.push(add(paths, name, create, &images, reporter, cancel).await?);
    }
    Ok(filled)
}

/// Boots one more. The caller holds the lock of the name's standbys.
async fn add(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    images: &[NodeImage],
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<u32> {
    let free = |number: &u32| {
        let standby = Standby { cluster: name.to_owned(), number: *number };
        !state::cluster_exists(&standby.paths(paths), name).unwrap_or(true)
    };
    let number = (1..).find(free).unwrap_or(u32::MAX);
    let standby = Standby { cluster: name.to_owned(), number };
    let ahead = standby.paths(paths);
    let lock = tokio::select! {
        lock = state::cluster_lock(&ahead, name, reporter) => lock?,
        () = cancel.triggered() => return Err(Error::Interrupted),
    };
    let wait = if options.wait.is_zero() { READY } else { options.wait };
    let options = CreateOptions { wait, ..options.clone() };
    let steps = Steps::default();
    check(&ahead, name, &options, reporter).await?;
    reporter.message(0, &format!("Booting {standby} ..."));
    let made = tokio::select! {
        made = make(paths, &standby, &options, images, reporter, &steps) => made,
        () = cancel.triggered() => Err(Error::Interrupted),
    };
    match made {
        Ok(()) => {
            lock.remove()?;
            Ok(number)
        }
        Err(error) => {
            let error = give_up(&ahead, name, &options, error, reporter, &steps).await?;
            if !state::cluster_exists(&ahead, name)? {
                lock.remove()?;
            }
            Err(error)
        }
    }
}

async fn make(
    paths: &Paths,
    standby: &Standby,
    options: &CreateOptions,
    images: &[NodeImage],
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<()> {
    let (name, ahead) = (&standby.cluster, standby.paths(paths));
    let started = Instant::now();
    let store = Store::open(&paths.images())?;
    let promise = steps.run(move || store.share()).await?;
    let Booted { access, .. } = boot(&ahead, name, options, images, promise, reporter, steps).await?;
    let Some((admin_conf, client)) = access else { return Ok(()) };
    phase(reporter, "Waiting for everything in it", park::settled(name, &client, reporter)).await?;
    let boot_seconds = started.elapsed().as_secs_f64();
    let nodes = state::load_nodes(&ahead, name)?;
    let parking = park::park(&ahead, name, &nodes, &client, reporter, steps);
    let reports = phase(reporter, "Freezing it 🧊", parking).await?;
    fs_err::write(ahead.cluster(name).join("admin.conf"), &admin_conf)
        .map_err(Error::file("keep the cluster's credentials"))?;
    let record = StandbyRecord::new(boot_seconds, request(name, options, images), reports);
    state::save_standby(paths, standby, &record)
}
