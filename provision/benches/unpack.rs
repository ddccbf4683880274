//! How long layers take to be unpacked, beside GNU tar with gzip and, where they are installed, skopeo and umoci. Prints a
//! table for each; needs root, the node image in the host's store, and GNU tar.
//!
//! One layer is the largest of the node image, packed anew by GNU tar with gzip: real files, the same on every host. The
//! other has [`SMALL_FILES`] small files, as layers of interpreted languages have. What Kiln does is what it does with a pulled layer: it verifies both digests and has everything on the disk when it is done,
//! which the others do not, so GNU tar comes a second time with a `sync` of its file system.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{Write, stderr, stdout},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use kiln_provision::image::{Digest, Image, ImageSettings, Layer, Reference, Store, write_image};
use serde_json::json;

const ROUNDS: usize = 5;
/// Files of the layer of small ones.
const SMALL_FILES: usize = 100_000;
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MEBIBYTE: f64 = (1 << 20) as f64;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// A name, and what unpacks into a directory.
type Way = (&'static str, fn(&Site, &Path) -> Result<()>);

fn main() -> Result<()> {
    let root =
        std::env::var_os("KILN_STATE_ROOT").map_or_else(|| PathBuf::from("/var/lib/kiln"), PathBuf::from);
    // Where clusters live, not where temporary files do: that may be memory.
    let directory = || tempfile::Builder::new().prefix("bench-unpack-").tempdir_in(&root);
    let small = directory()?;
    write_small_files(small.path())?;
    measure(&Site::prepare(&largest_layer(&Store::open(&root.join("images"))?)?, directory()?)?)?;
    measure(&Site::prepare(small.path(), directory()?)?)
}

/// Where the largest layer of the newest node image of the host is unpacked.
fn largest_layer(host: &Store) -> Result<PathBuf> {
    let mut images = host.images()?;
    images.retain(|image| image.name.path().ends_with("kiln/node"));
    let image = images.pop().ok_or("there is no node image in the store: `make node-image` builds it")?;
    let largest = image.layers.iter().max_by_key(|layer| layer.size).ok_or("the node image is empty")?;
    host.unpack(&image)?;
    Ok(host.layer_path(&largest.diff_id))
}

/// Files of up to 4 KiB of text, a hundred in each directory.
fn write_small_files(root: &Path) -> Result<()> {
    let text = "export const answer = require('./question').ask(42);\n".repeat(80);
    for number in 0..SMALL_FILES {
        let directory = root.join(format!("modules/{:03}/lib", number / 100));
        if number % 100 == 0 {
            fs_err::create_dir_all(&directory)?;
        }
        fs_err::write(directory.join(format!("{number}.js")), &text[..number * 37 % text.len().min(4096)])?;
    }
    Ok(())
}

/// Unpacks a layer each way and prints the rates.
fn measure(site: &Site) -> Result<()> {
    let mut ways: Vec<Way> = vec![
        ("Kiln, verified and on disk", Site::kiln),
        ("GNU tar with gzip", Site::tar),
        ("GNU tar with gzip, then `sync`", Site::tar_and_sync),
    ];
    if ["skopeo", "umoci"].iter().all(|program| is_installed(program)) {
        ways.push(("skopeo and umoci", Site::skopeo_and_umoci));
    } else {
        writeln!(stderr(), "without skopeo and umoci: they are not installed")?;
    }

    // One round more than counts: it fills the page cache. The ways take turns, so that a busy moment of the host is not all
    // one's.
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for ((_, way), rates) in ways.iter().zip(&mut rates) {
            let target = tempfile::Builder::new().prefix("target-").tempdir_in(site.directory.path())?;
            // What the way before has left in the page cache is not for this one to write.
            rustix::fs::syncfs(fs_err::File::open(target.path())?)?;
            let start = Instant::now();
            way(site, target.path())?;
            let seconds = start.elapsed().as_secs_f64();
            site.clear()?;
            if round > 0 {
                rates.push(site.bytes as f64 / MEBIBYTE / seconds);
            }
        }
    }

    let size = site.bytes as f64 / MEBIBYTE;
    let mut text = format!(
        "\n| unpacking {size:.0} MiB ({:.0} with gzip, {} files), {ROUNDS} rounds | min | median | max | |\n\
         |---|--:|--:|--:|---|\n",
        site.packed as f64 / MEBIBYTE,
        site.files,
    );
    let mut medians = Vec::new();
    for ((name, _), mut rates) in ways.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let (least, median, most) = (rates[0], rates[ROUNDS / 2], rates[ROUNDS - 1]);
        text.push_str(&format!("| {name} | {least:.0} | {median:.0} | {most:.0} | MiB/s |\n"));
        medians.push(median);
    }
    text.push_str("\n| Kiln, as a multiple of | median |\n|---|--:|\n");
    for ((name, _), median) in ways.iter().zip(&medians).skip(1) {
        text.push_str(&format!("| {name} | {:.2} |\n", medians[0] / median));
    }
    Ok(stdout().write_all(text.as_bytes())?)
}

/// The layer, as each of the ways wants it.
struct Site {
    directory: tempfile::TempDir,
    archive: PathBuf,
    layer: Layer,
    image: Image,
    store: Store,
    layout: PathBuf,
    bytes: u64,
    packed: u64,
    files: usize,
}

impl Site {
    /// Packs a tree.
    fn prepare(source: &Path, directory: tempfile::TempDir) -> Result<Self> {
        let (plain, archive) = (directory.path().join("layer.tar"), directory.path().join("layer.tar.gz"));
        run(Command::new("tar")
            .arg("--create")
            .arg("--file")
            .arg(&plain)
            .arg("--directory")
            .arg(source)
            .arg("."))?;
        run(Command::new("gzip").arg("--keep").arg(&plain))?;
        let diff_id = Digest::of(&fs_err::read(&plain)?);
        let listed = Command::new("tar").arg("--list").arg("--file").arg(&plain).output()?.stdout;
        let bytes = fs_err::metadata(&plain)?.len();
        fs_err::remove_file(&plain)?;

        let store = Store::open(&directory.path().join("store"))?;
        let (digest, size) = store.put_blob(&fs_err::read(&archive)?)?;
        let layer = Layer { digest, diff_id, media_type: GZIP.to_owned(), size };
        let name = Reference::try_new("bench.invalid/layer:1")?;
        let image = write_image(&store, &name, vec![layer.clone()], ImageSettings::default())?;
        let layout = directory.path().join("layout");
        write_layout(&store, &image, &layout)?;
        let files = listed.iter().filter(|byte| **byte == b'\n').count();
        Ok(Self { directory, archive, layer, image, store, layout, bytes, packed: size, files })
    }

    fn kiln(&self, _target: &Path) -> Result<()> {
        self.store.unpack(&self.image)?;
        Ok(())
    }

    /// Takes from the store what was unpacked in it.
    fn clear(&self) -> Result<()> {
        let layer = self.store.layer_path(&self.layer.diff_id);
        match layer.parent() {
            Some(directory) if directory.exists() => Ok(fs_err::remove_dir_all(directory)?),
            _ => Ok(()),
        }
    }

    fn tar(&self, target: &Path) -> Result<()> {
        let mut command = Command::new("tar");
        command.args(["--extract", "--gzip", "--preserve-permissions", "--same-owner", "--numeric-owner"]);
        run(command.arg("--file").arg(&self.archive).arg("--directory").arg(target))
    }

    fn tar_and_sync(&self, target: &Path) -> Result<()> {
        self.tar(target)?;
        Ok(rustix::fs::syncfs(fs_err::File::open(target)?)?)
    }

    fn skopeo_and_umoci(&self, target: &Path) -> Result<()> {
        let copy = target.join("layout");
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy"]);
        run(command.arg(oci("oci:", &self.layout)).arg(oci("oci:", &copy)))?;
        let mut command = Command::new("umoci");
        run(command.args(["unpack", "--image"]).arg(oci("", &copy)).arg(target.join("bundle")))
    }
}

/// The image as a layout with a name that other tools take. Blobs are hard links.
fn write_layout(store: &Store, image: &Image, layout: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs_err::create_dir_all(&blobs)?;
    for entry in fs_err::read_dir(store.root().join("blobs/sha256"))? {
        let entry = entry?;
        fs_err::hard_link(entry.path(), blobs.join(entry.file_name()))?;
    }
    let size = fs_err::metadata(store.blob_path(&image.manifest))?.len();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.manifest.to_string(),
            "size": size,
            "annotations": { "org.opencontainers.image.ref.name": "layer" },
        }],
    });
    fs_err::write(layout.join("index.json"), index.to_string())?;
    Ok(fs_err::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

fn oci(transport: &str, layout: &Path) -> String {
    format!("{transport}{}:layer", layout.display())
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
