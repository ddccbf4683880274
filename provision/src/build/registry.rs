//! The image of a registry: the distribution project's program, its configuration, and nothing else.

use std::path::Path;

use super::{
    Build,
    cache::{Cache, file_error},
    compile,
    component::REGISTRY,
    container, layer, recipe,
    recipe::Key,
    tools::Tools,
};
use crate::{
    Paths, Reporter, Result,
    image::{Image, ImageSettings, Reference, Store, write_image},
};

/// Counts changes of what is in the image beside the program.
const REVISION: &str = "1";

/// Space that a first build needs, in bytes: sources, objects, the program and its layer.
const SPACE: u64 = 1 << 30;

/// Where upstream's image has program and configuration.
const PROGRAM: &str = "bin/registry";
const CONFIG: &str = "etc/distribution/config.yml";

/// The name of the registry's image, by the version that the recipe pins.
#[must_use]
pub fn registry_reference() -> Reference {
    let name = format!("kiln/registry:{}", REGISTRY.pinned_version());
    name.parse().expect("a version is a valid tag")
}

/// Builds the image of a registry and puts it into the store under [`registry_reference`]. It takes Go and nothing else.
///
/// # Errors
/// [`crate::Error::MissingTools`], [`crate::Error::LittleSpace`], [`crate::Error::Program`] with the last lines of what
/// failed, and the store's own.
pub async fn registry_image(
    paths: &Paths,
    store: &Store,
    no_cache: bool,
    reporter: &dyn Reporter,
) -> Result<Image> {
    let tools = Tools::find_go(&paths.build_cache(), reporter).await?;
    let cache = Cache::open(paths, no_cache, reporter).await?;
    cache.require_space(SPACE)?;
    let build = Build { cache, tools, reporter };
    let compiled = compile::alone(&build, &REGISTRY).await?;
    let name = registry_reference();
    let writing = async {
        let scratch = build.cache.scratch()?;
        fill(scratch.path(), &compiled.directory.join(REGISTRY.name))
            .map_err(file_error("make the registry's image", build.cache.root()))?;
        let key = Key::default().with(REVISION).with(&compiled.key).finish();
        let layer = layer::packed(&build, store, REGISTRY.name, &key, scratch.path()).await?;
        write_image(store, &name, vec![layer], settings())
    };
    build.phase(&format!("Writing {} 💾", name.familiar()), writing).await
}

fn fill(root: &Path, program: &Path) -> std::io::Result<()> {
    container::base(root)?;
    for (path, source) in [(PROGRAM, Some(program)), (CONFIG, None)] {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            fs_err::create_dir_all(parent)?;
        }
        match source {
            // With its mode: it can be executed.
            Some(source) => fs_err::copy(source, target).map(drop)?,
            None => fs_err::write(target, recipe::text("registry/config.yml"))?,
        }
    }
    fs_err::create_dir_all(root.join("var/lib/registry"))
}

fn settings() -> ImageSettings {
    ImageSettings {
        entrypoint: vec![format!("/{PROGRAM}")],
        cmd: vec!["serve".to_owned(), format!("/{CONFIG}")],
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            // Without it the program looks for somebody to send traces to.
            "OTEL_TRACES_EXPORTER=none".to_owned(),
        ],
        labels: [("org.opencontainers.image.version".to_owned(), REGISTRY.pinned_version().to_owned())]
            .into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_named_after_the_version_of_its_program() {
        assert_eq!(registry_reference().familiar(), format!("kiln/registry:{}", REGISTRY.pinned_version()));
    }

    #[test]
    fn the_image_holds_what_its_command_names() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = other.path().join("registry");
        fs_err::write(&program, "#!").unwrap();
        fill(root.path(), &program).unwrap();
        let settings = settings();
        for path in [&settings.entrypoint[0], &settings.cmd[1]] {
            assert!(root.path().join(path.trim_start_matches('/')).is_file(), "{path}");
        }
        let config = fs_err::read_to_string(root.path().join(CONFIG)).unwrap();
        assert!(config.contains("addr: :5000"), "{config}");
    }
}
