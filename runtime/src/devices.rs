//! The host's device nodes, which a privileged container gets all of.

use std::{
    fs::Metadata,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

/// Directories below `/dev` that are file systems of their own in every container.
const OWN_FILE_SYSTEMS: [&str; 4] = ["pts", "shm", "mqueue", "fd"];

/// Nodes that the runtime makes by itself, or that mean something else inside.
const MADE_BY_RUNTIME: [&str; 8] = ["console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];

/// Devices that a node needs and a host may have no node for: `(path, major, minor)`.
const ALWAYS: [(&str, i64, i64); 2] = [("/dev/kmsg", 1, 11), ("/dev/fuse", 10, 229)];

/// All character and block devices below `/dev`, but for terminals and what every container gets anyway.
/// Entries that vanish or cannot be read while looking are left out.
pub(crate) fn host_devices() -> Vec<LinuxDevice> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), 0, &mut devices);
    for (path, major, minor) in ALWAYS {
        if !devices.iter().any(|device: &LinuxDevice| device.path() == Path::new(path)) {
            let device = LinuxDeviceBuilder::default()
                .path(path)
                .typ(LinuxDeviceType::C)
                .major(major)
                .minor(minor)
                .file_mode(0o666_u32)
                .uid(0_u32)
                .gid(0_u32)
                .build();
            devices.extend(device);
        }
    }
    devices
}

fn collect(directory: &Path, depth: usize, devices: &mut Vec<LinuxDevice>) {
    // Device trees are shallow; the bound only guards against a /dev that is not one.
    if depth > 4 {
        return;
    }
    let Ok(entries) = fs_err::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            if depth > 0 || !OWN_FILE_SYSTEMS.contains(&&*name) {
                collect(&entry.path(), depth + 1, devices);
            }
        } else if depth > 0 || !MADE_BY_RUNTIME.contains(&&*name) {
            devices.extend(device(&entry.path(), &metadata));
        }
    }
}

fn device(path: &Path, metadata: &Metadata) -> Option<LinuxDevice> {
    let kind = metadata.file_type();
    let typ = if kind.is_char_device() {
        LinuxDeviceType::C
    } else if kind.is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(typ)
        .major(i64::from(rustix::fs::major(metadata.rdev())))
        .minor(i64::from(rustix::fs::minor(metadata.rdev())))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kmsg_and_fuse_are_always_there_and_terminals_never() {
        let devices = host_devices();
        let has = |path: &str| devices.iter().filter(|d| d.path() == Path::new(path)).count();
        assert_eq!((has("/dev/kmsg"), has("/dev/fuse")), (1, 1));
        assert_eq!((has("/dev/console"), has("/dev/ptmx"), has("/dev/null")), (0, 0, 0));
        assert!(!devices.iter().any(|d| d.path().starts_with("/dev/pts")));
    }
}
