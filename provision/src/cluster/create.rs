//! Making a cluster.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Cancel,
    blocking::Steps,
    delete, demands,
    make::{Booted, boot},
    observe, pool, registry,
    reserve::{NodeImage, ensure_images, image_names},
    start::Bootstrap,
    unpacked,
};
use crate::{
    Error, Outcome, Paths, Reporter, Result, config, doctor,
    image::{InUse, Store},
    kubeconfig,
    state::{self, ClusterRecord, Phase},
    trace::{self, Trace},
};

/// What to make.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The cluster's configuration, after defaults and validation.
    pub config: config::Cluster,
    /// Overrides the configuration's name.
    pub name: Option<String>,
    /// Overrides the image of every node.
    pub image: Option<String>,
    /// How long to wait for the nodes to be Ready; zero does not wait.
    pub wait: Duration,
    /// Where to write the kubeconfig; what `KUBECONFIG` names, or `~/.kube/config`, when there is none.
    pub kubeconfig: Option<PathBuf>,
    /// Whether to keep what there is when making the cluster fails.
    pub retain: bool,
    /// Who makes the pod network.
    pub pod_network: PodNetwork,
    /// How the control plane is made.
    pub bootstrap: Bootstrap,
    /// Where it is recorded what happens when. The time before it was made belongs to nobody.
    pub trace: Trace,
}

/// Who makes the pod network of a cluster whose configuration does not leave it to the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// Kiln, before kubelet asks for it. Between several nodes an agent keeps the routes from then on, where the image
    /// brings one.
    #[default]
    Launcher,
    /// What the image's own manifest installs, such as kindnet.
    Image,
}

/// A cluster that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// The context in the kubeconfig.
    pub context: String,
    /// The kubeconfig that was written.
    pub kubeconfig: PathBuf,
}

/// Makes a cluster. When that fails or is cancelled, everything it made is removed again, unless `options.retain` says
/// otherwise.
///
/// # Errors
/// What went wrong first, or [`Error::Interrupted`].
pub async fn create(
    paths: &Paths,
    options: CreateOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Created> {
    let name = options.name.clone().unwrap_or_else(|| options.config.name.clone());
    state::validate_cluster_name(&name)?;
    // A half-made cluster without an owner is told apart from one that is being made by its lock.
    let lock = tokio::select! {
        lock = state::cluster_lock(paths, &name, reporter) => lock?,
        () = cancel.triggered() => return Err(Error::Interrupted),
    };
    let result = options.trace.follow(create_locked(paths, &name, &options, reporter, cancel)).await;
    // The lock's file stays with the cluster, and goes when there is none.
    if result.is_err() && !state::cluster_exists(paths, &name)? {
        lock.remove()?;
    }
    result
}

/// Checks whatever can be told before images are looked for.
pub(super) async fn check(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    reporter: &dyn Reporter,
) -> Result<()> {
    if state::cluster_exists(paths, name)? {
        return Err(Error::ClusterExists { name: name.to_owned() });
    }
    if state::is_long_name(name) {
        let text = format!(
            "Warning: the cluster name {name:?} is long; host names of its nodes may not work everywhere"
        );
        reporter.message(0, &text);
    }
    config::preflight(&options.config, "the configuration")?;
    doctor::preflight(paths)?;
    demands::check(&options.config).await
}

async fn create_locked(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Created> {
    check(paths, name, options, reporter).await?;

    reporter.message(0, &format!("Creating cluster {name:?} ..."));
    let steps = Steps::default();
    let making = async {
        let (images, promise) = ensure(paths, options, reporter, &steps).await?;
        let booted = match pool::take(paths, name, options, &images, reporter).await? {
            Some(taken) => taken,
            None => boot(paths, name, options, &images, promise, reporter, &steps).await?,
        };
        hand_over(paths, name, options, booted, reporter, &steps).await
    };
    let made = tokio::select! {
        made = making => made,
        () = cancel.triggered() => Err(Error::Interrupted),
    };
    // Before anything is removed, and only for what this call made: a cluster that was there keeps its own.
    observe::finish(paths, name, &options.trace, made.is_ok());
    match made {
        Err(error) => Err(give_up(paths, name, options, error, reporter, &steps).await?),
        created => created,
    }
}

/// Removes what there is of a cluster that could not be made, unless it is to be kept. Returns why it could not be.
///
/// # Errors
/// There is no place for a kubeconfig.
pub(super) async fn give_up(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    error: Error,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<Error> {
    if options.retain && !matches!(error, Error::Interrupted) {
        reporter.message(0, &format!("Keeping what there is of cluster {name:?} for inspection (--retain)"));
        return Ok(error);
    }
    reporter.step("cleaning up");
    steps.settle().await;
    // Nobody has been told of a standby.
    let locations = match paths.meant_standby(name) {
        Some(_) => None,
        None => Some(locate_kubeconfig(options.kubeconfig.as_deref())?),
    };
    match delete::remove_all(paths, name, locations.as_ref(), reporter).await {
        Ok(deleted) if !deleted.nodes.is_empty() => reporter.message(0, &deleted.summary()),
        Ok(_) => {}
        // The first error is the one to fix; this one says what is left.
        Err(left) => reporter.message(0, &format!("Warning: {left}; `kiln delete cluster` tries again")),
    }
    Ok(error)
}

/// Finds the image of each node, and keeps all of them from being removed for as long as the promise is held.
pub(super) async fn ensure(
    paths: &Paths,
    options: &CreateOptions,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<(Vec<NodeImage>, InUse)> {
    let leftovers = paths.clone();
    steps.run(move || unpacked::remove_leftovers(&leftovers)).await?;
    let store = Store::open(&paths.images())?;
    let wanted = image_names(options);
    let title = format!("Ensuring node image ({}) 🖼", wanted[0].split('@').next().unwrap_or_default());
    let sharing = store.clone();
    let promise = steps.run(move || sharing.share()).await?;
    let images = phase(reporter, &title, async {
        trace::step("", "ensure images").over(ensure_images(paths, &store, &wanted, steps, reporter)).await
    })
    .await?;
    Ok((images, promise))
}

/// Tells the user's kubeconfig, and the registries, of a cluster that is up.
async fn hand_over(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    booted: Booted,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<Created> {
    let Booted { record, access, .. } = booted;
    let Some((admin_conf, client)) = access else {
        return Ok(Created { name: name.to_owned(), context: String::new(), kubeconfig: PathBuf::new() });
    };
    let server = format!("https://{}", record.api);
    let admin = kubeconfig::rewrite(&admin_conf, name, Some(&server))?;
    fs_err::write(paths.cluster(name).join("admin.conf"), &admin_conf)
        .map_err(Error::file("keep the cluster's credentials"))?;
    let locations = locate_kubeconfig(options.kubeconfig.as_deref())?;
    // Another program may hold the file's lock for a while.
    let written = steps.run(move || kubeconfig::merge_into(&locations, &admin));
    let written = trace::step("", "write kubeconfig").over(written).await?;
    state::save_cluster(paths, &ClusterRecord { phase: Phase::Ready, ..record })?;
    // Only now: whoever makes a registry from here on tells the cluster himself.
    registry::tell_cluster(paths, name, &client, reporter).await?;
    Ok(Created { name: name.to_owned(), context: kubeconfig::key(name), kubeconfig: written })
}

/// Shows a phase while it runs.
pub(super) async fn phase<T>(
    reporter: &dyn Reporter,
    title: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    reporter.phase_started(title);
    let started = Instant::now();
    let result = trace::phase(title).over(work).await;
    reporter.phase_ended(title, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
    reporter.message(1, &format!("{title}: {:.1} s", started.elapsed().as_secs_f64()));
    result
}

/// Where this process's kubeconfig is.
pub(super) fn locate_kubeconfig(explicit: Option<&Path>) -> Result<kubeconfig::Locations> {
    let env = std::env::var_os("KUBECONFIG");
    let home = std::env::var_os("HOME").map(PathBuf::from);
    kubeconfig::locate(explicit, env.as_deref(), home.as_deref())
}
