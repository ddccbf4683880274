//! The kernel's network settings, of the namespace of the calling thread.

use crate::{Error, Result};

/// Sets a switch under `/proc/sys/net`, such as `["ipv4", "ip_forward"]`, to 1 unless it is.
///
/// A path and not sysctl's dotted notation, because a link's name may hold dots.
pub(crate) fn enable(path: &[&str]) -> Result<()> {
    let file = format!("/proc/sys/net/{}", path.join("/"));
    let failed = |source| Error::Sysctl { setting: format!("net.{}", path.join(".")), source };
    // Read first: where it is on already, a read-only /proc/sys does no harm.
    if fs_err::read_to_string(&file).map_err(failed)?.trim() == "0" {
        fs_err::write(&file, "1").map_err(failed)?;
    }
    Ok(())
}
