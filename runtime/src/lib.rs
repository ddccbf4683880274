//! A Kubernetes node as a container: launched, entered and torn down without a daemon.
//!
//! The container is made by youki's `libcontainer`, which forks with a raw `clone3` and changes its caller's
//! process (dumpable flag, working directory, oom score). From a process with threads that deadlocks sooner or
//! later, in the child, on a lock some other thread held (youki #2425, #3011, #3027). So nothing here calls it
//! from the caller's process: [`launch`] executes this same binary again as a hidden, single-threaded
//! sub-command, which builds the container and then stays as its *monitor*: parent of the container's init,
//! reader of its console, writer of its exit record. [`exec_command`] uses a second hidden sub-command in the same
//! way. A program that uses this crate must call [`run_helper`] first thing in `main`.

mod cgroup;
mod console;
mod devices;
mod error;
mod exec;
mod executor;
mod exit;
mod freezer;
mod helper;
mod hierarchy;
mod launch;
mod memory;
mod monitor;
mod namespace;
mod oci;
mod process;
mod rootfs;
mod shared_mount;
mod spec;
mod teardown;
mod terminal;
mod user;
mod watch;

pub use cgroup::{Cgroup, CgroupUsage};
pub use error::{Error, Result};
pub use exec::{ExecSpec, exec_command};
pub use exit::ExitRecord;
pub use helper::run_helper;
pub use launch::launch;
pub use process::Process;
pub use spec::{ContainerSpec, Mount, Propagation, RootFilesystem};
pub use teardown::remove;
