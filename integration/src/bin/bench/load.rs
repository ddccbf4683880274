//! How long an image of 300 MB takes into one node and into three, beside `ctr images import` in a node.
//!
//! The image is one that `docker save` might have written: plain, of one layer, with content that does not compress and that
//! is another one each time, so that no node has any of it. It lies in the page cache, and so does what `ctr` reads: a copy
//! in the node's `/var`.

use std::{path::Path, time::Instant};

use kiln_integration::{TestImage, fixture, kiln::SHORT};
use serde::Serialize;

use crate::{
    Result, report,
    site::{CLUSTER, Site},
};

/// Bytes of the image.
pub(crate) const SIZE: usize = 300_000_000;

const NODES: [&str; 3] = ["it-bench-control-plane", "it-bench-worker", "it-bench-worker2"];
const ALL: &str = "it-bench-control-plane,it-bench-worker,it-bench-worker2";
/// The node that is given images alone.
const NODE: &str = NODES[1];
const NAME: &str = "bench.invalid/image:1";
/// Where the archive lies in the node.
const IN_NODE: &str = "/var/tmp/image.tar";

/// The seconds that each way took.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Load {
    /// `kiln load` into one node.
    pub(crate) one_seconds: Vec<f64>,
    /// `ctr images import --no-unpack` in it.
    pub(crate) import_seconds: Vec<f64>,
    /// `kiln load --unpack` into one node.
    pub(crate) unpack_seconds: Vec<f64>,
    /// `ctr images import` in it.
    pub(crate) import_unpack_seconds: Vec<f64>,
    /// `kiln load` into three nodes.
    pub(crate) three_seconds: Vec<f64>,
    /// The same once more.
    pub(crate) present_seconds: Vec<f64>,
    /// `ctr images import --no-unpack` in three nodes at once.
    pub(crate) import_three_seconds: Vec<f64>,
}

impl Load {
    /// Creates a cluster of three nodes, loads so many images each way and deletes the cluster.
    pub(crate) fn measure(site: &Site, times: u16) -> Result<Self> {
        site.with_workers(|| in_cluster(site, times))
    }
}

fn in_cluster(site: &Site, times: u16) -> Result<Load> {
    let mut load = Load::default();
    // The first round is not counted. The ways take turns, so that a busy moment of the host is not all one's.
    for number in 0..=times {
        let mut round = Round { site, number };
        let one = round.kiln(NODE, &[])?;
        let import = round.ctr(&[NODE], &["--no-unpack"])?;
        let unpack = round.kiln(NODE, &["--unpack"])?;
        let import_unpack = round.ctr(&[NODE], &[])?;
        let (three, present) = round.three()?;
        let import_three = round.ctr(&NODES, &["--no-unpack"])?;
        if number > 0 {
            load.one_seconds.push(one);
            load.import_seconds.push(import);
            load.unpack_seconds.push(unpack);
            load.import_unpack_seconds.push(import_unpack);
            load.three_seconds.push(three);
            load.present_seconds.push(present);
            load.import_three_seconds.push(import_three);
            report::tell(&format!(
                "load {number} of {times}: one {one:.2} s, import {import:.2}; unpacked {unpack:.2}, import \
                 {import_unpack:.2}; three {three:.2}, present {present:.3}, import {import_three:.2}"
            ));
        }
    }
    Ok(load)
}

struct Round<'a> {
    site: &'a Site,
    number: u16,
}

impl Round<'_> {
    /// Loads a new image into one node, and takes it away again.
    fn kiln(&mut self, node: &str, flags: &[&str]) -> Result<f64> {
        let archive = self.archive(1 + flags.len())?;
        let seconds = self.load(&archive, node, flags)?;
        self.remove(node)?;
        Ok(seconds)
    }

    fn three(&mut self) -> Result<(f64, f64)> {
        let archive = self.archive(3)?;
        let three = self.load(&archive, ALL, &[])?;
        let present = self.load(&archive, ALL, &[])?;
        for node in NODES {
            self.remove(node)?;
        }
        Ok((three, present))
    }

    /// Has nodes import a new image side by side, each from a copy of its own, and takes it away again.
    fn ctr(&mut self, nodes: &[&str], flags: &[&str]) -> Result<f64> {
        let archive = self.archive(5 + flags.len() + 10 * nodes.len())?;
        let (state_root, _) = fixture::roots();
        let mut copies = Vec::new();
        for node in nodes {
            let var = state_root.join("clusters").join(CLUSTER).join("nodes").join(node).join("var");
            let copy = var.join(IN_NODE.trim_start_matches("/var/"));
            fs_err::copy(&archive, &copy)?;
            copies.push(copy);
        }
        settle(&archive)?;
        let started = Instant::now();
        let imports: Vec<_> = nodes
            .iter()
            .map(|node| {
                let import = ["exec", node, "--", "ctr", "-n", "k8s.io", "images", "import"];
                self.site.kiln().start(&[&import, flags, &[IN_NODE]].concat())
            })
            .collect();
        for import in imports {
            let finished = import.wait(SHORT);
            if finished.code() != 0 {
                return Err(finished.report().into());
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        for (node, copy) in nodes.iter().zip(copies) {
            fs_err::remove_file(copy)?;
            self.remove(node)?;
        }
        Ok(seconds)
    }

    /// An image that no node has anything of.
    fn archive(&self, way: usize) -> Result<std::path::PathBuf> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (u64::from(self.number) << 8) ^ way as u64;
        let mut content = Vec::with_capacity(SIZE);
        while content.len() < SIZE {
            // Xorshift: it shall not compress, no more.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        let path = self.site.directory().join("image.tar");
        fs_err::write(&path, TestImage::new(&content).docker_archive(NAME))?;
        settle(&path)?;
        Ok(path)
    }

    fn load(&self, archive: &Path, nodes: &str, flags: &[&str]) -> Result<f64> {
        let archive = archive.to_str().ok_or("the directory's name is no text")?;
        let load = ["load", "image-archive", archive, "--name", CLUSTER, "--nodes", nodes];
        self.timed(&[&load, flags].concat())
    }

    fn remove(&self, node: &str) -> Result<()> {
        // Under its name and, where CRI has seen it, its id, which CRI may be faster to remove. What nothing refers to any
        // more is gone when the last one is.
        let script = format!(
            "digest=$(ctr -n k8s.io images ls | awk -v name={NAME} '$1 == name {{ print $3 }}')\n\
             ctr -n k8s.io images ls | awk -v digest=\"$digest\" '$3 == digest {{ print $1 }}' |\n\
             xargs ctr -n k8s.io images rm --sync || true"
        );
        self.timed(&["exec", node, "--", "sh", "-c", &script]).map(drop)
    }

    fn timed(&self, args: &[&str]) -> Result<f64> {
        let started = Instant::now();
        let finished = self.site.kiln().run(args);
        let seconds = started.elapsed().as_secs_f64();
        if finished.code() == 0 { Ok(seconds) } else { Err(finished.report().into()) }
    }
}

/// Has everything written that waits to be: it would be written while something else is measured.
fn settle(path: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(fs_err::File::open(path)?)?)
}
