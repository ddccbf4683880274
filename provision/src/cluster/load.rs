//! Bringing images into the nodes of a cluster.
//!
//! All nodes get an image side by side, and none what it has already. What some of them lack is read once, verified, and
//! put on the disk once: the nodes get hard links to it. Only a node where that cannot be is sent the bytes. What no node
//! lacks is never read. An archive that comes through a pipe, or is compressed, is read once and parked; its blobs are
//! hashed on that occasion, and it is them that the nodes get links to.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};

use super::{Cancel, blocking::Steps, daemon::Daemon, engine};
use crate::{
    Error, Outcome, Paths, Reporter, Result,
    containerd::{Containerd, ImportImage, ImportOptions, Supply},
    error::with_causes,
    image::{Bundle, Image, Parking, Reference, Store},
    registry::{self, RegistryOptions},
    state::{self, NodeRole},
};

/// How long a node's containerd may take to answer; it does at once unless it is just being started.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where images come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadSource {
    /// Docker's, Podman's or containerd's store if the host has one of them and it has the image, otherwise Kiln's own. What
    /// is in none of them is pulled into Kiln's.
    Name(String),
    /// A file that `docker save` has written, or an OCI archive; compressed with gzip or zstd, or not.
    Archive(PathBuf),
    /// The same from standard input.
    StandardInput,
    /// A directory in the form of an OCI image layout.
    Layout(PathBuf),
}

/// What is to be done with the images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The cluster.
    pub cluster: String,
    /// Only these nodes of it; all if there are none.
    pub nodes: Vec<String>,
    /// Unpack the images now, not when their first container starts.
    pub unpack: bool,
}

/// Loads images into nodes of a cluster. Those that are in all of these nodes already cost next to nothing.
///
/// # Errors
/// Before anything is read: [`Error::NoNodes`], [`Error::UnknownNode`], [`Error::NodesNotRunning`]. Then what is wrong
/// with a source, [`Error::ImageNotFound`], or [`Error::LoadImage`] with the nodes that could not be given an image.
/// [`Error::Interrupted`] when `cancel` was triggered. Images of earlier sources stay loaded.
pub async fn load(
    paths: &Paths,
    sources: Vec<LoadSource>,
    options: &LoadOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<()> {
    let targets = connect(paths, options).await?;
    let store = Store::open(&paths.images())?;
    let import = ImportOptions { unpack: options.unpack, ..ImportOptions::default() };
    let load = Load { paths, targets, store, import, reporter, cancel };
    let mut done = Vec::new();
    for source in sources {
        if done.contains(&source) {
            continue;
        }
        match &source {
            LoadSource::Name(name) => load.named(name).await?,
            LoadSource::Archive(path) => load.file(path).await?,
            LoadSource::StandardInput => load.archive("standard input", std::io::stdin()).await?,
            LoadSource::Layout(path) => load.layout(path.clone()).await?,
        }
        done.push(source);
    }
    Ok(())
}

/// A node that gets images.
struct Target {
    name: String,
    containerd: Containerd,
}

/// The nodes that were asked for, and a connection to each.
async fn connect(paths: &Paths, options: &LoadOptions) -> Result<Vec<Target>> {
    let cluster = &options.cluster;
    let mut records = state::load_nodes(paths, cluster)?;
    // The load balancer has no containerd.
    records.retain(|record| record.role != NodeRole::ExternalLoadBalancer);
    if records.is_empty() {
        let known = state::cluster_names(paths)?;
        return Err(Error::NoNodes { cluster: cluster.clone(), known });
    }
    if let Some(node) = options.nodes.iter().find(|node| records.iter().all(|record| record.name != **node)) {
        let known = records.into_iter().map(|record| record.name).collect();
        return Err(Error::UnknownNode { node: node.clone(), known });
    }
    let is_wanted = |name: &String| options.nodes.is_empty() || options.nodes.contains(name);
    let (mut running, mut stopped) = (Vec::new(), Vec::new());
    for record in records.into_iter().filter(|record| is_wanted(&record.name)) {
        match record.process.filter(kiln_runtime::Process::is_alive) {
            Some(process) => running.push((record.name, process)),
            None => stopped.push(record.name),
        }
    }
    if !stopped.is_empty() {
        return Err(Error::NodesNotRunning { nodes: stopped });
    }
    let connections = running.into_iter().map(|(name, process)| async move {
        match Containerd::wait_ready(&process, PATIENCE).await {
            Ok(containerd) => {
                let var = paths.node(cluster, &name).join("var");
                let containerd = containerd.with_links(&process, var).await;
                Ok(Target { name, containerd })
            }
            Err(error) => Err(Error::LoadIntoNode { node: name, source: Box::new(error) }),
        }
    });
    try_join_all(connections).await
}

/// A file that others have too.
struct Shared(Arc<fs_err::File>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

/// What all images of one operation share.
struct Load<'a> {
    paths: &'a Paths,
    targets: Vec<Target>,
    store: Store,
    import: ImportOptions,
    reporter: &'a dyn Reporter,
    cancel: &'a Cancel,
}

impl Load<'_> {
    /// Loads an image by its name from wherever the host has it.
    async fn named(&self, name: &str) -> Result<()> {
        let mut looked = Vec::new();
        for program in engine::PROGRAMS {
            match self.unless_cancelled(engine::find(program, name)).await? {
                Ok(found) => return self.saved(program, name, &found).await,
                Err(reason) => looked.push(reason),
            }
        }
        match self.unless_cancelled(Daemon::of_environment().find(name)).await? {
            Ok((origin, bundle)) => {
                self.reporter.message(0, &format!("Image {name:?} comes from {origin}"));
                return self.bundle(bundle, None).await;
            }
            Err(reason) => looked.push(reason),
        }
        let reference = Reference::try_new(name);
        let image = match &reference {
            Ok(reference) => self.store.image(reference)?,
            // It may have been an id, which only the programs know.
            Err(error) => {
                looked.push(error.to_string());
                None
            }
        };
        // What it is loaded from must not be taken away meanwhile.
        let _promise = self.store.share()?;
        let image = match image {
            Some(image) => {
                let place = self.store.root().display();
                self.reporter.message(0, &format!("Image {name:?} comes from the image store {place}"));
                image
            }
            None => {
                looked.push(format!("the image store {} does not have it", self.store.root().display()));
                let not_found = |looked| Error::ImageNotFound { image: name.to_owned(), looked };
                let Some(reference) = reference.ok().filter(registry::is_on_registries) else {
                    return Err(not_found(looked));
                };
                match self.pulled(&reference).await {
                    Err(Error::Pull { source, .. }) => {
                        looked.push(format!("{}: {}", reference.domain(), with_causes(&source)));
                        return Err(not_found(looked));
                    }
                    image => image?,
                }
            }
        };
        let names = vec![image.name.to_string()];
        self.place(name, &ImportImage::from_store(&self.store, &image, names)?, None).await
    }

    /// Pulls an image that is not on this host.
    async fn pulled(&self, name: &Reference) -> Result<Image> {
        let options = RegistryOptions::default();
        let pulling = registry::pull(self.paths, name, &options, self.reporter);
        let title = format!("Pulling image {:?} from {}", name.familiar(), name.domain());
        Ok(self.phase(&title, pulling).await?.image)
    }

    /// Loads an image that a program of the host has.
    async fn saved(&self, program: &str, name: &str, found: &engine::Found) -> Result<()> {
        let reference = Reference::try_new(name).ok().filter(|_| !found.is_called_by_id());
        // Saving takes long, and tells no more than the image's id does when all nodes have it.
        if let Some(reference) = reference.as_ref().filter(|_| !self.import.unpack) {
            let full = reference.to_string();
            let known = self.targets.iter().map(|target| target.containerd.has_name(&full, &found.id));
            if try_join_all(known).await?.into_iter().all(|known| known) {
                self.targets.iter().for_each(|target| self.present(name, &found.id, target));
                return Ok(());
            }
        }
        let (saving, pipe) = found.save()?;
        let origin = format!("image {name} from {program}");
        let both = async { tokio::join!(self.read(&origin, pipe), saving.end()) };
        let (bundle, saved) = self.unless_cancelled(async { Ok(both.await) }).await?;
        let (bundle, _parking) = match (bundle, saved) {
            // A program that fails leaves half an archive; one that nobody listens to any more fails for that.
            (Err(Error::ArchiveTruncated { .. } | Error::NotImages { .. }), Err(error)) => return Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
            (Ok(read), Ok(())) => read,
        };
        self.bundle(bundle, reference).await
    }

    /// Loads an archive from a file, from where it is if that can be.
    async fn file(&self, path: &Path) -> Result<()> {
        let origin = path.display().to_string();
        let opened = fs_err::File::open(path);
        let file = Arc::new(opened.map_err(|source| Error::ArchiveRead { origin: origin.clone(), source })?);
        let opening = {
            let (origin, file) = (origin.clone(), Arc::clone(&file));
            async move { Steps::default().run(move || Bundle::open_archive(&origin, &file)).await }
        };
        match self.unless_cancelled(opening).await? {
            Some(bundle) => self.bundle(bundle, None).await,
            None => self.archive(&origin, Shared(file)).await,
        }
    }

    async fn archive(&self, origin: &str, source: impl Read + Send + 'static) -> Result<()> {
        let (bundle, _parking) = self.read(origin, source).await?;
        self.bundle(bundle, None).await
    }

    async fn layout(&self, directory: PathBuf) -> Result<()> {
        let steps = Steps::default();
        let bundle = steps.run(move || Bundle::open_layout(&directory)).await?;
        self.bundle(bundle, None).await
    }

    /// Reads an archive. Its content stays for as long as the second value does: that is here and not with the thread
    /// that reads, which may be waiting for a pipe when the operation is given up.
    async fn read(&self, origin: &str, source: impl Read + Send + 'static) -> Result<(Bundle, Parking)> {
        let parking = self.store.parking()?;
        let (steps, owned, path) = (Steps::default(), origin.to_owned(), parking.path().to_owned());
        let reading = steps.run(move || Bundle::read_archive(&owned, source, &path));
        let bundle = self.phase(&format!("Reading {origin}"), reading).await?;
        Ok((bundle, parking))
    }

    /// Loads all images of a bundle; the first one also under a name that it was asked for by.
    async fn bundle(&self, bundle: Bundle, name: Option<Reference>) -> Result<()> {
        for (number, image) in bundle.images().iter().enumerate() {
            let mut image = image.clone();
            let asked = name.iter().filter(|name| number == 0 && !image.names.contains(name));
            image.names.splice(0..0, asked.cloned().collect::<Vec<_>>());
            let called = image.names.first().map_or_else(|| image.id().to_string(), Reference::familiar);
            if image.names.is_empty() {
                let note = format!("Image {called} has no name: pods can only refer to it by its ID");
                self.reporter.message(0, &note);
            }
            if let Some(platform) = &image.foreign {
                let note = format!("Image {called:?} is for {platform}: it only runs where that is emulated");
                self.reporter.message(0, &note);
            }
            let import = ImportImage::from_bundle(&bundle, &image);
            self.place(&called, &import, Some(&bundle)).await?;
        }
        Ok(())
    }

    /// Brings an image into the nodes that do not have it.
    async fn place(&self, called: &str, import: &ImportImage, source: Option<&Bundle>) -> Result<()> {
        let asked = self.targets.iter().map(|target| async move {
            let has = target.containerd.has_image(import, self.import).await;
            has.map_err(|error| (target, error))
        });
        let (mut lacking, mut failed) = (Vec::new(), Vec::new());
        for (target, answer) in self.targets.iter().zip(join_all(asked).await) {
            match answer {
                Ok(true) => self.present(called, &import.config.digest, target),
                Ok(false) => lacking.push(target),
                Err((target, error)) => failed.push(on(target, error)),
            }
        }
        if !lacking.is_empty() {
            let many = if lacking.len() == 1 {
                format!("node {}", lacking[0].name)
            } else {
                format!("{} nodes", lacking.len())
            };
            let sending = self.send(called, import, source, &lacking, failed);
            // Not by `phase`: the nodes are told when the operation is given up.
            let title = format!("Loading image {called:?} into {many}");
            self.reporter.phase_started(&title);
            let result = sending.await;
            self.reporter.phase_ended(&title, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
            result
        } else if failed.is_empty() {
            Ok(())
        } else {
            Err(Error::LoadImage { image: called.to_owned(), errors: failed })
        }
    }

    /// Brings an image into nodes, and adds what goes wrong to what already did.
    async fn send(
        &self,
        called: &str,
        import: &ImportImage,
        source: Option<&Bundle>,
        targets: &[&Target],
        mut failed: Vec<Error>,
    ) -> Result<()> {
        let supply = Supply::new(self.store.parking()?);
        let imports = targets.iter().map(|target| {
            target.containerd.import_until(import, self.import, Some(&supply), self.cancel.triggered())
        });
        let results = join_all(imports).await;
        supply.end().await;
        for (target, result) in targets.iter().zip(results) {
            match result {
                Ok(imported) => {
                    let (id, bytes) = (&import.config.digest, imported.bytes_sent);
                    let text =
                        format!("Image {called:?} (ID {id}): {bytes} bytes sent to node {}", target.name);
                    self.reporter.message(1, &text);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // Told once, and not as a node's.
                Err(Error::Unfit { source: cause }) => {
                    return Err(match (&*cause, source) {
                        (Error::DigestMismatch { expected, actual, .. }, Some(bundle)) => {
                            bundle.mismatch(expected, *actual)
                        }
                        _ => Error::Unfit { source: cause },
                    });
                }
                Err(error) => failed.push(on(target, error)),
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Error::LoadImage { image: called.to_owned(), errors: failed })
        }
    }

    fn present(&self, called: &str, id: &str, target: &Target) {
        let text = format!("Image {called:?} (ID {id}): present on node {}", target.name);
        self.reporter.message(0, &text);
    }

    /// Runs a part of the operation that may be dropped, as a phase of its own.
    async fn phase<T>(&self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.reporter.phase_started(title);
        let result = self.unless_cancelled(work).await;
        self.reporter.phase_ended(title, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
        result
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.cancel.triggered() => Err(Error::Interrupted),
        }
    }
}

fn on(target: &Target, error: Error) -> Error {
    Error::LoadIntoNode { node: target.name.clone(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Silent, state::NodeRecord};

    fn node(name: &str, role: NodeRole) -> NodeRecord {
        NodeRecord { role, layers: Vec::new(), ..NodeRecord::example(name) }
    }

    async fn refused(paths: &Paths, cluster: &str, nodes: &[&str]) -> Error {
        let options = LoadOptions {
            cluster: cluster.to_owned(),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
            unpack: false,
        };
        // Nobody could read it: the nodes are looked at first.
        let sources = vec![LoadSource::Archive("/nonexistent".into())];
        load(paths, sources, &options, &Silent, &Cancel::new()).await.unwrap_err()
    }

    #[tokio::test]
    async fn nodes_are_checked_before_anything_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        assert_eq!(refused(&paths, "a", &[]).await.to_string(), "no nodes found for cluster \"a\"");
        let balancer = node("a-external-load-balancer", NodeRole::ExternalLoadBalancer);
        state::save_node(&paths, "a", &balancer).unwrap();
        assert!(matches!(refused(&paths, "a", &[]).await, Error::NoNodes { .. }), "it has no containerd");
        for name in ["a-control-plane", "a-worker"] {
            state::save_node(&paths, "a", &node(name, NodeRole::Worker)).unwrap();
        }
        let error = refused(&paths, "a", &["a-worker", "b-worker"]).await;
        assert_eq!(error.to_string(), "unknown node: \"b-worker\"");
        assert_eq!(
            error.hint().as_deref(),
            Some("did you mean \"a-worker\"? There is a-control-plane, a-worker")
        );
        let error = refused(&paths, "a", &["a-external-load-balancer"]).await;
        assert!(matches!(error, Error::UnknownNode { .. }), "{error}");
        assert_eq!(refused(&paths, "a", &[]).await.to_string(), "not running: a-control-plane, a-worker");
        assert_eq!(refused(&paths, "a", &["a-worker"]).await.to_string(), "not running: a-worker");
    }

    #[test]
    fn every_node_that_failed_is_told_with_its_cause() {
        let failed = |node: &str| Error::LoadIntoNode {
            node: node.to_owned(),
            source: Box::new(Error::ContainerdGone { pid: 7 }),
        };
        let error = Error::LoadImage { image: "a:1".to_owned(), errors: vec![failed("n1"), failed("n2")] };
        let expected = "failed to load image a:1:\n  node n1: process 7 ended before its containerd answered\n  node n2: process 7 ended before its containerd answered";
        assert_eq!(error.to_string(), expected);
    }
}
