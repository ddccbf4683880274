//! The host's kernel as clusters need it and change it.

mod capabilities;
mod sysctl;

pub(crate) use capabilities::{cgroup_mode, cgroup_mounts, read_proc};

pub use capabilities::{Capabilities, CgroupMode, detect};
pub use sysctl::{Restored, remember, restore};
