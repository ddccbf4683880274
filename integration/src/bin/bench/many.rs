//! What clusters of one node cost each that are created in the same moment, and how long they take.

use std::thread;

use kiln_integration::{Finished, Kiln, kiln::LONG};
use serde::Serialize;

use crate::{
    Result, report,
    site::{CLUSTER, Site},
};

/// What it took.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Many {
    /// From the moment all were begun until each was created and Ready, in ascending order.
    pub(crate) ready_seconds: Vec<f64>,
    /// What the nodes hold and the kernel cannot take back at once.
    pub(crate) memory_bytes: Vec<u64>,
    /// What they do not share with the image store.
    pub(crate) disk_bytes: Vec<u64>,
    /// `kiln delete clusters`, of all of them.
    pub(crate) delete_seconds: f64,
}

impl Many {
    /// Creates so many clusters at once, from a template, and deletes them.
    pub(crate) fn measure(site: &Site, count: u16) -> Result<Self> {
        let names: Vec<_> = (1..=count).map(|number| format!("{CLUSTER}-{number}")).collect();
        // Leaves the template, and fills the page cache.
        let created =
            create(site, CLUSTER).and_then(|_| run(site.kiln(), &["delete", "cluster", "--name", CLUSTER]));
        let many = created.and_then(|_| Self::of(site, &names));
        let arguments: Vec<_> =
            ["delete", "clusters"].into_iter().chain(names.iter().map(String::as_str)).collect();
        // Also those of an attempt that failed.
        let deleted = run(site.kiln(), &arguments);
        let mut many = many?;
        many.delete_seconds = deleted?.took().as_secs_f64();
        report::tell(&format!(
            "{count} at once: the last is Ready after {:.1} s",
            many.ready_seconds.last().copied().unwrap_or_default()
        ));
        Ok(many)
    }

    fn of(site: &Site, names: &[String]) -> Result<Self> {
        let mut ready_seconds: Vec<f64> = thread::scope(|scope| {
            let creating: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| create(site, name).map_err(|error| error.to_string())))
                .collect();
            creating
                .into_iter()
                .map(|created| created.join().map_err(|_| "a create was not measured".to_owned())?)
                .collect::<Result<_, _>>()
        })?;
        ready_seconds.sort_by(f64::total_cmp);
        let usage = run(site.kiln(), &["top", "--all-clusters", "--output", "json"])?;
        let usage: serde_json::Value = serde_json::from_slice(usage.bytes())?;
        let nodes = usage.as_array().into_iter().flatten().filter(|node| {
            node["cluster"].as_str().is_some_and(|cluster| names.iter().any(|name| name == cluster))
        });
        let mut many = Self { ready_seconds, ..Self::default() };
        for node in nodes {
            many.memory_bytes.extend(node["memory_bytes"].as_u64());
            many.disk_bytes.extend(node["disk_bytes"].as_u64());
        }
        Ok(many)
    }
}

/// Creates a cluster. Returns the seconds it took.
fn create(site: &Site, name: &str) -> Result<f64> {
    let mut arguments = vec!["create", "cluster", "--name", name, "--wait", "5m"];
    arguments.extend(site.image().into_iter().flat_map(|image| ["--image", image]));
    Ok(run(site.kiln(), &arguments)?.took().as_secs_f64())
}

fn run(kiln: &Kiln, arguments: &[&str]) -> Result<Finished> {
    let finished = kiln.start(arguments).wait(2 * LONG);
    if finished.code() == 0 { Ok(finished) } else { Err(finished.report().into()) }
}
