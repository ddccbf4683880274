//! `build node-image` and `build registry-image`

use kiln_provision::{
    build::{self, BuildOptions, Source},
    image::{Reference, Store},
};

use super::{Session, block_on, version::architecture};
use crate::{
    arguments::{BuildNodeImage, BuildRegistryImage},
    failure::{Context, Failure, require_root},
    progress::Progress,
    signal,
};

const FAILED: &str = "failed to build node image";

/// Builds a node image into the host's store.
pub(super) fn node_image(session: &Session, arguments: &BuildNodeImage) -> Result<(), Failure> {
    let options = options(arguments)?;
    require_root("building a node image")?;
    let store = Store::open(&session.paths.images()).context(FAILED)?;
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

/// What is asked for. Empty values ask for nothing, as with kind.
fn options(arguments: &BuildNodeImage) -> Result<BuildOptions, Failure> {
    let host = architecture(std::env::consts::ARCH);
    if let Some(arch) = arguments.arch.as_deref().filter(|arch| !arch.is_empty() && *arch != host) {
        let what = format!("an image for {arch} cannot be built on {host}");
        return Err(Failure::new(what).within(FAILED).with_hint(format!("build it on a host with {arch}")));
    }
    let name = |name: &Option<String>| {
        let given = name.as_deref().filter(|name| !name.is_empty());
        given.map(Reference::try_new).transpose().context(FAILED)
    };
    let source = Source::detect(
        arguments.source.as_deref(),
        arguments.source_type.as_deref(),
        arguments.kubernetes_version.as_deref(),
    );
    Ok(BuildOptions {
        source: source.context(FAILED)?,
        image: name(&arguments.image)?,
        base_image: name(&arguments.base_image)?,
        no_cache: arguments.no_cache,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Build, BuildCommand, Command};

    fn parse(line: &str) -> Result<BuildOptions, Failure> {
        let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
        match arguments.command {
            Some(Command::Build(Build { command: Some(BuildCommand::NodeImage(arguments)) })) => {
                options(&arguments)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_built_is_refused_with_what_to_do_instead() {
        for (flags, words, hint) in [
            ("--type ci latest", "single commits", "kiln build node-image DIR"),
            ("--type bazel", "--type \"bazel\"", "source"),
            ("./kubernetes --image x", "\"./kubernetes\"", "build node-image v1.34.4`"),
            ("--kubernetes-version stable", "there is no Kubernetes \"stable\"", "such as v1.34.4"),
            ("--arch s390x", "s390x", "s390x"),
        ] {
            let failure = parse(&format!("kind build node-image {flags}")).expect_err(flags);
            let message = failure.message().expect(flags);
            assert!(message.starts_with("failed to build node image: "), "{flags}: {message}");
            assert!(message.contains(words), "{flags}: {message}");
            assert!(failure.hint().is_some_and(|it| it.contains(hint)), "{flags}: {failure:?}");
        }
    }

    #[test]
    fn flags_say_what_is_built_from_what() {
        let options = parse("kind build node-image --base-image base --image x:y 1.33.1").expect("a release");
        assert_eq!(options.source, Source::Release("v1.33.1".to_owned()));
        assert_eq!(options.base_image.map(|image| image.familiar()).as_deref(), Some("base:latest"));
        assert_eq!(options.image.map(|image| image.familiar()).as_deref(), Some("x:y"));
        let options =
            parse("kind build node-image --type source / --kubernetes-version v1.1.1-x").expect("a tree");
        assert_eq!(
            options.source,
            Source::Tree { directory: "/".into(), version: Some("v1.1.1-x".to_owned()) }
        );
    }

    #[test]
    fn flags_without_a_value_or_with_the_hosts_ask_for_nothing() {
        let host = architecture(std::env::consts::ARCH);
        for flags in ["--type= --base-image= --image=", &format!("--arch {host}")] {
            let options = parse(&format!("kind build node-image {flags}")).expect(flags);
            assert_eq!(options.source, Source::default(), "{flags}");
            assert!(options.image.is_none() && options.base_image.is_none(), "{flags}");
        }
    }
}
