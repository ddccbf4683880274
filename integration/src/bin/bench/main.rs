//! `make bench`: creates clusters of some shapes some times over and tells how long it took and what they used, seen from
//! outside; how much TCP their network carries; and how long images take into their nodes.
//!
//! Nothing of Kiln's own timing is used. Time zero is the start of the `kiln create` process. The marks:
//!
//! * *created*: the process has ended (no `--wait`);
//! * *api*: `/readyz` answered "ok" through the published port, asked every [`marks::PERIOD`];
//! * *nodes*: all nodes of the shape have registered and are Ready, by a watch;
//! * *dns*: both CoreDNS pods Ready, by a watch;
//! * *pod*: a pod that was made at the *nodes* mark got an answer for `kubernetes.default`, by the time stamp that its
//!   node's container runtime gave its line of log.
//!
//! For the throughput see [`throughput`] and [`transfer`], for the images [`mod@load`].

#![forbid(unsafe_code)]

mod boot;
mod load;
mod marks;
mod plain;
mod report;
mod shape;
mod site;
mod throughput;
mod transfer;
mod usage;

use std::{error::Error, path::PathBuf, process::ExitCode};

use boot::Boot;
use clap::Parser;
use load::Load;
use report::Boots;
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
    /// How many clusters of one node to create, one after another; none with 0
    #[arg(long, default_value_t = 5)]
    runs: u16,
    /// How many clusters of each other shape
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
    /// Node image, in place of the default one
    #[arg(long)]
    image: Option<String>,
    /// How control planes come up: auto, kubeadm or template. With auto, the first of a shape may leave a template
    #[arg(long, default_value = "auto")]
    bootstrap: String,
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
    let site = Site::open(arguments.image, arguments.bootstrap)?;
    let boots = boots(&site, &arguments.shapes, arguments.runs, arguments.runs_multi)?;
    report::boots(&boots)?;
    let throughput = if arguments.throughput {
        let measured = Throughput::measure(&site, arguments.transfers)?;
        report::throughput(&measured)?;
        Some(measured)
    } else {
        None
    };
    let load = if arguments.load {
        let measured = Load::measure(&site, arguments.loads)?;
        report::load(&measured)?;
        Some(measured)
    } else {
        None
    };

    let json =
        json!({ "machine": report::machine(), "boots": boots, "throughput": throughput, "load": load });
    let text = serde_json::to_string_pretty(&json)?;
    if let Some(file) = &arguments.json {
        fs_err::write(file, format!("{text}\n"))?;
    }
    report::result(&format!("\n{text}\n"))
}

/// Creates and deletes clusters. The shapes take turns, so that a busy hour of the host is not all one's.
fn boots(site: &Site, shapes: &[Shape], runs: u16, runs_multi: u16) -> Result<Vec<Boots>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = |shape: Shape| if shape == Shape::ONE_NODE { runs } else { runs_multi };
    let shapes = shapes.iter().copied().filter(|shape| wanted(*shape) > 0);
    let mut all: Vec<Boots> = shapes.map(|shape| Boots { shape, runs: Vec::new() }).collect();
    for number in 1..=runs.max(runs_multi) {
        for Boots { shape, runs } in all.iter_mut().filter(|boots| number <= wanted(boots.shape)) {
            let boot = Boot::measure(site, &runtime, *shape)?;
            report::tell(&format!("{shape}, run {number} of {}: {}", wanted(*shape), boot.line()));
            runs.push(boot);
        }
    }
    Ok(all)
}
