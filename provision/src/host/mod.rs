//! The host's kernel as clusters need it and change it.

mod capabilities;
mod mounts;
mod sysctl;

pub(crate) use capabilities::{cgroup_mode, cgroup_mounts, read_proc};
pub(crate) use mounts::{Sharing, sharing};

pub use capabilities::{Capabilities, CgroupMode, detect};
pub use sysctl::{Restored, remember, restore};
