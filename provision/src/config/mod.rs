//! Cluster configurations in the format `kind.x-k8s.io/v1alpha4`.
//!
//! [`load`] reads a file's text into a [`Cluster`] with every default filled in and every rule checked, or
//! tells all that is wrong with it at once, with line and column. It accepts what kind accepts, except
//! for port mappings that no container engine would have taken. [`preflight`] checks what else kind leaves to
//! that engine, and [`render()`] shows what each node would be configured with.

mod decode;
pub(crate) mod document;
mod name;
mod port;
mod problem;
mod reader;
mod render;
pub(crate) mod scalar;
mod schema;
mod source;
mod subnet;
mod types;

#[cfg(test)]
mod tests;

pub use document::Position;
pub(crate) use name::is_valid_name;
pub use name::{DEFAULT_NAME, NamedNode, control_plane_endpoint, node_names};
pub use port::preflight;
pub(crate) use problem::nearest;
pub use problem::{Problem, Problems};
pub use render::{Rendered, RenderedNode, render};
pub use schema::{EXAMPLE, FULL_EXAMPLE, SCHEMA};
pub use source::{read, read_stream};
pub use subnet::BadSubnet;
pub use types::{
    Cluster, IpFamily, JsonPatch, KubeProxyMode, Mount, MountPropagation, Networking, Node, PortMapping,
    Protocol, Role, Subnets,
};

use crate::{Error, Result};

/// Reads a configuration. `origin` is what the text came from, for messages; only the first YAML document
/// counts.
///
/// # Errors
/// [`Error::Config`] with every problem of the text: syntax, unknown fields, wrong types, broken rules, and
/// patches that cannot be parsed.
pub fn load(text: &str, origin: &str) -> Result<Cluster> {
    load_named(text, origin, None)
}

/// Reads a configuration for a cluster whose name was given elsewhere: then the name in the file is not
/// looked at.
///
/// # Errors
/// As [`load`]; a bad `name` counts as a problem of the configuration.
pub fn load_named(text: &str, origin: &str, name: Option<&str>) -> Result<Cluster> {
    decode::cluster(text, name).map_err(|problems| Error::Config {
        origin: origin.to_owned(),
        problems: Problems::new(problems, text),
    })
}
