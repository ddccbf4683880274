//! `images rm`, `images inspect`, `images prune` and `images verify`: this host's store.

use kiln_provision::{
    Error, cluster,
    image::{Image, Pruned, Store},
};

use super::{Session, transfer::references};
use crate::{
    arguments::{Format, ImagesInspect, ImagesRm, ImagesVerify},
    failure::{Context, Failure},
    json,
    progress::Progress,
    table,
};

/// Removes images from the store.
pub(super) fn rm(session: &Session, arguments: &ImagesRm) -> Result<(), Failure> {
    let names = references(&arguments.images)?;
    let progress = Progress::new(&session.shell);
    let removed = cluster::remove_images(&session.paths, &names, arguments.force, &progress);
    drop(progress);
    let removed = removed.context("failed to remove images")?;
    for name in &removed.names {
        session.shell.status(&format!("Removed {}", name.familiar()));
    }
    session.shell.status(&freed(&removed.pruned));
    Ok(())
}

/// Removes what nothing uses.
pub(super) fn prune(session: &Session) -> Result<(), Failure> {
    let pruned = cluster::prune_images(&session.paths).context("failed to prune the image store")?;
    session.shell.status(&freed(&pruned));
    Ok(())
}

/// Shows everything about images.
pub(super) fn inspect(session: &Session, arguments: &ImagesInspect) -> Result<(), Failure> {
    let names = references(&arguments.images)?;
    let store = Store::open(&session.paths.images())?;
    let mut list = Vec::new();
    for name in names {
        let missing = || Error::NoSuchImage { image: name.familiar() };
        let image = store.image(&name)?.ok_or_else(missing)?;
        let clusters = cluster::image_users(&session.paths, &image.name)?;
        list.push(described(&store, &image, clusters));
    }
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &list),
        Format::Text | Format::Wide => {
            session.shell.result(&list.iter().map(render).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Reads the whole store. Damage is a failure, after all of it has been told.
pub(super) fn verify(session: &Session, arguments: &ImagesVerify) -> Result<(), Failure> {
    let what = "failed to verify the image store";
    let store = Store::open(&session.paths.images()).context(what)?;
    let progress = Progress::new(&session.shell);
    let verified = store.verify(&progress);
    drop(progress);
    let verified = verified.context(what)?;
    let damage: Vec<_> = verified
        .damage
        .into_iter()
        .map(|damage| json::Damage { kind: damage.kind, name: damage.name, problem: damage.problem })
        .collect();
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &damage)?,
        Format::Text | Format::Wide => {
            let line =
                |damage: &json::Damage| format!("{} {}: {}\n", damage.kind, damage.name, damage.problem);
            session.shell.result(&damage.iter().map(line).collect::<String>())?;
        }
    }
    let (images, blobs, layers) = (verified.images, verified.blobs, verified.layers);
    session.shell.status(&format!(
        "Verified {}, {} and {}",
        count(images, "image"),
        count(blobs, "blob"),
        count(layers, "unpacked layer")
    ));
    match damage.len() {
        0 => Ok(()),
        many => Err(Failure::new(format!("{} in the image store", count(many, "damaged object")))
            .with_hint("`kiln images rm` the images, then pull or build them again")),
    }
}

fn described(store: &Store, image: &Image, clusters: Vec<String>) -> json::InspectedImage {
    let config = image.config.config().as_ref();
    let layers = image.layers.iter().map(|layer| json::Layer {
        digest: layer.digest.to_string(),
        diff_id: layer.diff_id.to_string(),
        media_type: layer.media_type.clone(),
        size: layer.size,
        unpacked: store.layer_path(&layer.diff_id).exists(),
    });
    let labels = config.and_then(|config| config.labels().clone()).unwrap_or_default();
    json::InspectedImage {
        name: image.name.to_string(),
        digest: image.manifest.to_string(),
        size: image.size,
        os: image.config.os().to_string(),
        architecture: image.config.architecture().to_string(),
        created: image.config.created().clone(),
        entrypoint: config.and_then(|config| config.entrypoint().clone()).unwrap_or_default(),
        cmd: config.and_then(|config| config.cmd().clone()).unwrap_or_default(),
        env: config.and_then(|config| config.env().clone()).unwrap_or_default(),
        labels: labels.into_iter().collect(),
        layers: layers.collect(),
        clusters,
    }
}

fn render(image: &json::InspectedImage) -> String {
    let mut text = format!(
        "Name:          {}\nDigest:        {}\nPlatform:      {}/{}\nSize:          {}\n",
        image.name,
        image.digest,
        image.os,
        image.architecture,
        table::bytes(image.size)
    );
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{:<15}{value}\n", format!("{name}:")));
        }
    };
    field("Created", image.created.clone().unwrap_or_default());
    field("Entrypoint", image.entrypoint.join(" "));
    field("Command", image.cmd.join(" "));
    field("Clusters", image.clusters.join(", "));
    for variable in &image.env {
        field("Environment", variable.clone());
    }
    for (name, value) in &image.labels {
        field("Label", format!("{name}={value}"));
    }
    let row = |layer: &json::Layer| {
        let unpacked = if layer.unpacked { "yes" } else { "no" };
        [layer.digest.clone(), table::bytes(layer.size), unpacked.to_owned()]
    };
    let rows: Vec<_> = image.layers.iter().map(row).collect();
    text.push_str(&table::render(["LAYER", "SIZE", "UNPACKED"], &rows));
    text
}

fn freed(pruned: &Pruned) -> String {
    match pruned {
        Pruned { blobs: 0, layers: 0, .. } => "Nothing is unused".to_owned(),
        Pruned { blobs, layers, bytes } => format!(
            "Freed {}: {} and {}",
            table::bytes(*bytes),
            count(*blobs, "blob"),
            count(*layers, "unpacked layer")
        ),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_is_counted() {
        assert_eq!(freed(&Pruned::default()), "Nothing is unused");
        let pruned = Pruned { blobs: 3, layers: 1, bytes: 1_500_000 };
        assert_eq!(freed(&pruned), "Freed 1.50 MB: 3 blobs and 1 unpacked layer");
    }

    #[test]
    fn an_image_is_shown_whole() {
        let image = json::InspectedImage {
            name: String::from("localhost:5000/a:1"),
            digest: String::from("sha256:01"),
            size: 1_234,
            os: String::from("linux"),
            architecture: String::from("amd64"),
            entrypoint: vec![String::from("/a"), String::from("-b")],
            env: vec![String::from("A=1"), String::from("B=2")],
            labels: [(String::from("l"), String::from("v"))].into(),
            layers: vec![json::Layer {
                digest: String::from("sha256:02"),
                size: 1_000,
                unpacked: true,
                ..json::Layer::default()
            }],
            clusters: vec![String::from("dev")],
            ..json::InspectedImage::default()
        };
        insta::assert_snapshot!(render(&image), @r"
        Name:          localhost:5000/a:1
        Digest:        sha256:01
        Platform:      linux/amd64
        Size:          1.23 kB
        Entrypoint:    /a -b
        Clusters:      dev
        Environment:   A=1
        Environment:   B=2
        Label:         l=v
        LAYER      SIZE     UNPACKED
        sha256:02  1.00 kB  yes
        ");
    }
}
