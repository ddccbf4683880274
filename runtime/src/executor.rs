//! The last steps inside a container before its init is executed.

use std::sync::Arc;

use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorValidationError, default::DefaultExecutor},
};
use nix::mount::{MsFlags, mount};

use crate::shared_mount::SharedMount;

/// Executes init after making good what `libcontainer` 0.7.0 leaves out of the mounts.
///
/// * It drops the propagation options of mounts (youki #3604; fixed by #3699, which is not in 0.7.0): they are
///   applied here.
/// * It refuses `rshared` for the root: the root is made shared here, as systemd and kubelet expect it (kubelet's
///   volumes with `Bidirectional` propagation fail otherwise). It is a peer group of its own: the monitor's mount
///   namespace is a slave of the host's.
///
/// To be dropped with the first release that has both. Mounts that are shared with the host are put in place here as
/// well: they were taken from it before the monitor left its mount namespace.
#[derive(Clone, Debug)]
pub(crate) struct NodeExecutor {
    pub(crate) shared: Arc<Vec<SharedMount>>,
}

impl Executor for NodeExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        set_propagation("/", MsFlags::MS_SHARED | MsFlags::MS_REC)?;
        for entry in spec.mounts().iter().flatten() {
            for option in entry.options().iter().flatten() {
                let flags = match option.as_str() {
                    "rshared" => MsFlags::MS_SHARED,
                    "rslave" => MsFlags::MS_SLAVE,
                    "rprivate" => MsFlags::MS_PRIVATE,
                    _ => continue,
                };
                set_propagation(&entry.destination().to_string_lossy(), flags | MsFlags::MS_REC)?;
            }
        }
        for mount in self.shared.iter() {
            mount.attach().map_err(|error| ExecutorError::Other(error.to_string()))?;
        }
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}

fn set_propagation(path: &str, flags: MsFlags) -> Result<(), ExecutorError> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .map_err(|error| ExecutorError::Other(format!("failed to set the propagation of {path}: {error}")))
}
