//! `build node-image` and `build registry-image`

use kiln_provision::{
    build::{self, BuildOptions},
    image::{Reference, Store},
};

use super::{Session, block_on, version::architecture, version_tag};
use crate::{
    arguments::{BuildNodeImage, BuildRegistryImage},
    failure::{Context, Failure, require_root},
    progress::Progress,
    signal,
};

const FAILED: &str = "failed to build node image";

/// Builds a node image into the host's store.
pub(super) fn node_image(session: &Session, arguments: &BuildNodeImage) -> Result<(), Failure> {
    check_source(arguments)?;
    let version = version_tag(&arguments.kubernetes_version);
    let name = match arguments.image.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Reference::try_new(name),
        None => build::image_for(&version),
    };
    let name = name.context(FAILED)?;
    require_root("building a node image")?;
    let store = Store::open(&session.paths.images()).context(FAILED)?;
    let options = BuildOptions { kubernetes_version: version, image: name, no_cache: arguments.no_cache };
    let image = block_on(async {
        let progress = Progress::new(&session.shell);
        signal::until_interrupted(async {
            build::node_image(&session.paths, &store, &options, &progress).await.context(FAILED)
        })
        .await
    })?;
    session.shell.status(&format!("Built image {} ({})", image.name.familiar(), image.manifest));
    Ok(())
}

/// Builds the image of a registry into the host's store.
pub(super) fn registry_image(session: &Session, arguments: &BuildRegistryImage) -> Result<(), Failure> {
    const FAILED: &str = "failed to build the registry's image";
    require_root("building an image")?;
    let store = Store::open(&session.paths.images()).context(FAILED)?;
    let image = block_on(async {
        let progress = Progress::new(&session.shell);
        signal::until_interrupted(async {
            build::registry_image(&session.paths, &store, arguments.no_cache, &progress).await.context(FAILED)
        })
        .await
    })?;
    session.shell.status(&format!("Built image {} ({})", image.name.familiar(), image.manifest));
    Ok(())
}

/// Refuses what kind builds from and Kiln does not: an image from something else than what was asked for would be worse
/// than none.
fn check_source(arguments: &BuildNodeImage) -> Result<(), Failure> {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let from_modules = |version: &str| {
        format!(
            "Kiln builds Kubernetes from the Go modules of a released version: \
             `kiln build node-image --kubernetes-version {version}`"
        )
    };
    let refuse = |what: String, hint: String| Err(Failure::new(what).within(FAILED).with_hint(hint));
    let source = given(&arguments.source);
    // A version among the sources is what the hint can offer.
    let version = source.as_deref().filter(|source| is_version(source)).map(version_tag);
    let version = version.as_deref().unwrap_or(build::DEFAULT_KUBERNETES_VERSION);
    if let Some(kind) = given(&arguments.source_type) {
        return match kind.as_str() {
            "url" | "release" | "ci" => refuse(
                format!("--type {kind} downloads binaries, which Kiln does not"),
                from_modules(version),
            ),
            "file" => refuse(
                "--type file unpacks released binaries, which Kiln does not".to_owned(),
                from_modules(version),
            ),
            "source" => refuse(
                "--type source compiles a source tree, which Kiln does not".to_owned(),
                from_modules(version),
            ),
            _ => refuse(
                format!("there is no --type {kind:?}: kind knows url, file, release, ci and source"),
                from_modules(version),
            ),
        };
    }
    if let Some(source) = source {
        return refuse(format!("{source:?} is not what Kiln builds from"), from_modules(version));
    }
    if given(&arguments.base_image).is_some() {
        return refuse(
            "--base-image has no meaning here".to_owned(),
            "the image is made of Debian packages: leave the flag out".to_owned(),
        );
    }
    let host = architecture(std::env::consts::ARCH);
    match given(&arguments.arch) {
        Some(arch) if arch != host => refuse(
            format!("an image for {arch} cannot be built on {host}"),
            format!("build it on a host with {arch}"),
        ),
        _ => Ok(()),
    }
}

/// Whether a source looks like a version: `v1.34.4` or `1.34.4`.
fn is_version(source: &str) -> bool {
    let mut parts = source.strip_prefix('v').unwrap_or(source).splitn(3, '.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.next().is_some_and(number)
        && parts.next().is_some_and(number)
        && parts.next().is_some_and(|patch| patch.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Build, BuildCommand, Command};

    fn check(line: &str) -> Result<(), Failure> {
        let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
        match arguments.command {
            Some(Command::Build(Build { command: Some(BuildCommand::NodeImage(arguments)) })) => {
                check_source(&arguments)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_kind_builds_from_is_refused_with_what_to_do_instead() {
        for (flags, words, hint) in [
            ("--type release v1.33.1", "--type release", "--kubernetes-version v1.33.1`"),
            ("--type=url https://dl.k8s.io/x.tar.gz", "--type url", "--kubernetes-version v1.34.4`"),
            ("--type ci latest", "--type ci", "--kubernetes-version"),
            ("--type file ./x.tar.gz", "--type file", "--kubernetes-version"),
            ("--type source .", "--type source", "--kubernetes-version"),
            ("--type bazel", "no --type \"bazel\"", "--kubernetes-version"),
            ("1.33.1", "\"1.33.1\"", "--kubernetes-version v1.33.1`"),
            ("./kubernetes --image x", "\"./kubernetes\"", "--kubernetes-version"),
            ("--base-image docker.io/kindest/base:v1", "--base-image", "Debian"),
            ("--arch s390x", "s390x", "s390x"),
        ] {
            let failure = check(&format!("kind build node-image {flags}")).expect_err(flags);
            let message = failure.message().expect(flags);
            assert!(message.starts_with("failed to build node image: "), "{flags}: {message}");
            assert!(message.contains(words), "{flags}: {message}");
            assert!(failure.hint().expect(flags).contains(hint), "{flags}: {failure:?}");
        }
    }

    #[test]
    fn flags_without_a_value_or_with_the_hosts_ask_for_nothing() {
        let host = architecture(std::env::consts::ARCH);
        for flags in ["--type= --base-image=", "--image x", &format!("--arch {host}")] {
            check(&format!("kind build node-image {flags}")).expect(flags);
        }
    }
}
