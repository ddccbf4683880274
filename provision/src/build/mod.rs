//! `kiln build node-image`: a node image from Debian packages and Go modules, a source tree of Kubernetes or an archive
//! of its programs.
//!
//! The recipe is data (`provision/node-image/`, part of the program): module pins with their checksums, lists of
//! packages, units, configuration, manifests. A build compiles the programs, installs the Debian root, puts the node's
//! own files together, makes the images of the control plane and lets the node's containerd unpack them, and packs
//! each of the three results as a layer. Each step is kept in the build cache under a key of everything it is made
//! from, so a second build does only what changed.

mod base;
mod cache;
mod changes;
mod compile;
mod component;
mod container;
mod debian;
mod elf;
mod gomod;
mod image_names;
mod layer;
mod mirror;
mod node;
mod preload;
mod program;
mod recipe;
mod registry;
mod server_archive;
mod source;
mod subset;
mod tools;
mod tree;
mod version;

use std::{future::Future, pin::pin};

pub(crate) use node::CHANGED_SOURCES;
pub use registry::{registry_image, registry_reference};

use base::BaseImage;
use cache::Cache;
use compile::Programs;
use futures_util::future::{Either, select};
pub use source::Source;
use tools::Tools;
use version::KubernetesVersion;

use crate::{
    Outcome, Paths, Reporter, Result,
    image::{Image, ImageSettings, Reference, Store, write_image},
};

/// The version of Kubernetes that the recipe pins, with everything that belongs to it.
pub const DEFAULT_KUBERNETES_VERSION: &str = "v1.34.4";

/// Space that a first build needs, in bytes: sources, objects, programs, roots and layers.
const FIRST_BUILD_SPACE: u64 = 4 << 30;

/// Space that a build needs which finds most things in the cache.
const LATER_BUILD_SPACE: u64 = 1 << 30;

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Where Kubernetes comes from.
    pub source: Source,
    /// The name of the image; `kiln/node:VERSION` when there is none.
    pub image: Option<Reference>,
    /// An image in the store to build on, instead of Debian's packages.
    pub base_image: Option<Reference>,
    /// Make everything anew. Otherwise Debian's packages are those of the first build.
    pub no_cache: bool,
}

/// The image that clusters are made of when none is named.
#[must_use]
pub fn default_image() -> Reference {
    image_for(DEFAULT_KUBERNETES_VERSION).expect("the default version is a valid tag")
}

/// The name of the node image for a version of Kubernetes, unless another one is asked for.
///
/// # Errors
/// [`crate::Error::KubernetesVersion`] when it is no version.
pub fn image_for(kubernetes_version: &str) -> Result<Reference> {
    let version: KubernetesVersion = kubernetes_version.parse()?;
    format!("kiln/node:{}", version.tag()).parse()
}

/// A running build.
struct Build<'a> {
    cache: Cache,
    tools: Tools,
    reporter: &'a dyn Reporter,
}

impl Build<'_> {
    /// Reports a step of the build while it runs.
    async fn phase<T>(&self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.reporter.phase_started(title);
        let result = work.await;
        self.reporter.phase_ended(title, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
        result
    }
}

/// Builds a node image and puts it into the store. When the future is dropped, what runs is told to end; whatever is
/// complete by then stays in the cache.
///
/// # Errors
/// [`crate::Error::MissingTools`] before anything is done; [`crate::Error::LittleSpace`]; [`crate::Error::BuildSource`];
/// [`crate::Error::Program`] with the last lines of what failed; [`crate::Error::KubernetesVersion`] when there is no
/// such version; [`crate::Error::Preload`]; the store's and the runtime's own.
pub async fn node_image(
    paths: &Paths,
    store: &Store,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<Image> {
    let tools = Tools::find(&paths.build_cache(), reporter).await?;
    let cache = Cache::open(paths, options.no_cache, reporter).await?;
    let first = options.no_cache || !cache.root().join("components").exists();
    cache.require_space(if first { FIRST_BUILD_SPACE } else { LATER_BUILD_SPACE })?;
    let build = Build { cache, tools, reporter };
    let base = match &options.base_image {
        Some(name) => Some(BaseImage::open(&build, store, name).await?),
        None => None,
    };
    let source = compile::prepare(&build, &options.source).await?;

    // Compiling is bound by processors, installing packages by the network and dpkg's waiting: side by side. The
    // packages are needed with another base, too: the container images are made of them.
    let compiling = pin!(compile::all(&build, &source));
    let installing = pin!(debian::root(&build));
    let (programs, debian) = match select(compiling, installing).await {
        Either::Left((programs, installing)) => {
            let programs = programs?;
            (programs, build.phase("Installing Debian packages 📦", installing).await?)
        }
        Either::Right((debian, compiling)) => {
            let debian = debian?;
            (compiling.await?, debian)
        }
    };
    report_times(&programs, reporter);

    let name = match &options.image {
        Some(name) => name.clone(),
        None => image_for(&programs.version.to_string())?,
    };
    let node = build.phase("Assembling the node 🧱", node::root(&build, &programs)).await?;
    let unpacking = preload::store(&build, paths, &programs, &debian, &node);
    let preloaded = build.phase("Unpacking container images 🫙", unpacking).await?;
    build
        .phase(&format!("Writing {} 💾", name.familiar()), async {
            // The layers have no name before the image has one.
            let _promise = store.share()?;
            let (mut layers, node, preloaded) = tokio::try_join!(
                base::layers(&build, store, &debian, base.as_ref()),
                layer::packed(&build, store, "node", &node.key, &node.root),
                layer::packed(&build, store, "containerd-store", &preloaded.key, &preloaded.root),
            )?;
            layers.extend([node, preloaded]);
            write_image(store, &name, layers, settings(&programs.version, base.as_ref()))
        })
        .await
}

/// What a container of the image is started with. kind's node images say the same.
fn settings(version: &KubernetesVersion, base: Option<&BaseImage>) -> ImageSettings {
    let own = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        // systemd behaves as in a container when it is set.
        "container=docker",
    ];
    let is_own = |variable: &String| {
        let name = variable.split('=').next();
        own.iter().any(|own| own.split('=').next() == name)
    };
    let mut env = base.map(BaseImage::environment).unwrap_or_default();
    env.retain(|variable| !is_own(variable));
    env.extend(own.map(str::to_owned));
    let mut labels = base.map(BaseImage::labels).unwrap_or_default();
    labels.insert("io.k8s.version".to_owned(), version.to_string());
    ImageSettings {
        entrypoint: vec!["/usr/local/bin/entrypoint".to_owned(), "/sbin/init".to_owned()],
        env,
        labels,
        // What systemd takes for "power off".
        stop_signal: Some("SIGRTMIN+3".to_owned()),
        ..Default::default()
    }
}

fn report_times(programs: &Programs, reporter: &dyn Reporter) {
    let times: Vec<_> = programs
        .times()
        .filter_map(|(name, took)| took.map(|took| format!("{name} {:.0} s", took.as_secs_f64())))
        .collect();
    if times.is_empty() {
        reporter.message(1, "all programs are in the cache");
    } else {
        reporter.message(0, &format!("compiled: {}", times.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_image_is_named_after_the_default_version() {
        assert_eq!(default_image().familiar(), "kiln/node:v1.34.4");
        assert_eq!(image_for("1.35.0").unwrap().familiar(), "kiln/node:v1.35.0");
        assert_eq!(
            image_for("v1.34.4-1+0123456789abcd").unwrap().familiar(),
            "kiln/node:v1.34.4-1_0123456789abcd"
        );
        assert!(image_for("stable").is_err());
    }
}
