//! `make bench`: creates clusters of some shapes some times over, by kubeadm and from a template, and holds how long it took
//! and what they used against the bars; what many at once cost; how much TCP their network carries; and how long images take
//! into their nodes, and from a registry.
//!
//! Boots are measured by `kiln bench boot`, from outside, as it says itself. For the bars see [`bars`], for many at once
//! [`many`], for the throughput [`throughput`] and [`transfer`], for the images [`mod@load`] and [`pull`].

#![forbid(unsafe_code)]

mod bars;
mod boot;
mod load;
mod many;
mod plain;
mod pull;
mod report;
mod shape;
mod site;
mod throughput;
mod transfer;

use std::{error::Error, path::PathBuf, process::ExitCode};

use boot::{Boots, Way};
use clap::Parser;
use load::Load;
use many::Many;
use pull::Pull;
use serde_json::json;
use shape::Shape;
use site::Site;
use throughput::Throughput;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Measure how long creating and deleting clusters takes, what they use, what their network carries and how images get into
/// them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which clusters to create: control planes, or control planes and workers as 3+2; repeatable
    #[arg(long = "shape", value_name = "SHAPE", default_values_t = Shape::DEFAULT)]
    shapes: Vec<Shape>,
    /// How many clusters of one node to create in each way, one after another; none with 0
    #[arg(long, default_value_t = 5)]
    runs: u16,
    /// How many clusters of each other shape, in each way
    #[arg(long, default_value_t = 3)]
    runs_multi: u16,
    /// Measure what the network of one more cluster, with two workers, carries
    #[arg(long)]
    throughput: bool,
    /// How many transfers to measure each way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    transfers: u16,
    /// Measure how long an image takes into the nodes of one more cluster, with two workers
    #[arg(long)]
    load: bool,
    /// How many images to load each way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    loads: u16,
    /// Create so many clusters of one node in the same moment, and measure what they cost each; none with 0
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    many: u16,
    /// Measure how long the node image takes from a registry into an empty store
    #[arg(long)]
    pull: bool,
    /// How many times to pull it each way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pulls: u16,
    /// Node image, in place of the default one
    #[arg(long)]
    image: Option<String>,
    /// How control planes come up; repeatable. Both, unless one is named
    #[arg(long, value_enum, value_name = "WAY", default_values_t = Way::ALL)]
    bootstrap: Vec<Way>,
    /// Leave kind out, also where it is installed
    #[arg(long)]
    without_kind: bool,
    /// Write all measurements to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::tell(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let site = Site::open(arguments.image.clone())?;
    let boots = boots(&site, &arguments)?;
    let rows = bars::rows(&boots);
    report::boots(&boots, &rows)?;
    let throughput = measured(
        arguments.throughput,
        || Throughput::measure(&site, arguments.transfers),
        report::throughput,
    )?;
    let many = measured(arguments.many > 0, || Many::measure(&site, arguments.many), report::many)?;
    let load = measured(arguments.load, || Load::measure(&site, arguments.loads), report::load)?;
    let pull = measured(arguments.pull, || Pull::measure(&site, arguments.pulls), report::pull)?;

    let json = json!({
        "machine": report::machine(),
        "bars": rows,
        "boots": boots,
        "throughput": throughput,
        "many": many,
        "load": load,
        "pull": pull,
    });
    let text = serde_json::to_string_pretty(&json)?;
    if let Some(file) = &arguments.json {
        fs_err::write(file, format!("{text}\n"))?;
    }
    report::result(&format!("\n{text}\n"))
}

/// Measures one part and tells of it, if it is wanted.
fn measured<T>(
    wanted: bool,
    measure: impl FnOnce() -> Result<T>,
    tell: impl FnOnce(&T) -> Result<()>,
) -> Result<Option<T>> {
    if !wanted {
        return Ok(None);
    }
    let measured = measure()?;
    tell(&measured)?;
    Ok(Some(measured))
}

/// Creates and deletes clusters. Shapes and ways take turns, so that a busy hour of the host is not all one's. The first boot
/// of each comes after one that does not count: it fills the page cache, and leaves the template.
fn boots(site: &Site, arguments: &Arguments) -> Result<Vec<Boots>> {
    let wanted = |shape: Shape| if shape == Shape::ONE_NODE { arguments.runs } else { arguments.runs_multi };
    let mut all = Vec::new();
    for shape in arguments.shapes.iter().copied().filter(|shape| wanted(*shape) > 0) {
        let of = |way: &Way| Boots { shape, way: *way, runs: Vec::new(), kind: Vec::new() };
        all.extend(arguments.bootstrap.iter().map(of));
    }
    let has_kind = !arguments.without_kind && !all.is_empty() && site.has_kind();
    for number in 1..=arguments.runs.max(arguments.runs_multi) {
        for boots in all.iter_mut().filter(|boots| number <= wanted(boots.shape)) {
            let Boots { shape, way, runs, kind } = boots;
            // kind has one way, so it takes part in one of the two.
            let with_kind = has_kind && *way == Way::Kubeadm;
            let pair = site.boot(*shape, *way, u16::from(number == 1), with_kind)?;
            let which = format!("run {number} of {}", wanted(*shape));
            report::tell(&format!("{shape} by {way}, {which}: {}", pair.kiln.line()));
            runs.push(pair.kiln);
            if let Some(boot) = pair.kind {
                report::tell(&format!("kind: {shape}, {which}: {}", boot.line()));
                kind.push(boot);
            }
        }
    }
    Ok(all)
}
