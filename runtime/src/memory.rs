//! Giving back memory that a long-lived process only needed to start.

use std::path::Path;

use rustix::mm::{Advice, madvise};

/// Drops the program's code and constants from this process's memory, so that only what is used from now on comes back. The kernel maps
/// sixteen pages for each one that is touched, and starting touches code all over the binary: 2 MiB for a monitor
/// whose loop takes a few hundred KiB. Nothing is lost: the pages are read-only and stay in the page cache.
pub(crate) fn forget_code() {
    let Ok(program) = fs_err::read_link("/proc/self/exe") else { return };
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in code_ranges(&maps, &program) {
        drop_pages(start, length);
    }
}

#[expect(unsafe_code, reason = "madvise(2) has no safe wrapper")]
fn drop_pages(start: usize, length: usize) {
    // SAFETY: the range is a private mapping of a file that has never been writable (see `code_ranges`), so every page
    // of it is clean, and reading or executing it afterwards brings the same content back.
    let advised = unsafe { madvise(start as *mut std::ffi::c_void, length, Advice::LinuxDontNeed) };
    // It only saves memory.
    let _ = advised;
}

/// The program's code, and the constants at the start of its file, as start and length: proc_pid_maps(5). What else is
/// mapped read-only was written to by the loader first, and must be kept.
fn code_ranges(maps: &str, program: &Path) -> Vec<(usize, usize)> {
    let range = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (access, offset) = (fields.next()?, fields.next()?);
        let constants = access == "r--p" && offset.bytes().all(|digit| digit == b'0');
        if !(access == "r-xp" || constants) || Path::new(fields.nth(2)?) != program {
            return None;
        }
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        Some((start, end.checked_sub(start)?))
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_is_dropped() {
        let maps = "\
00200000-00400000 r--p 00000000 fe:00 1 /usr/bin/kiln
00400000-00501000 r-xp 00200000 fe:00 1 /usr/bin/kiln
00501000-00502000 r--p 00301000 fe:00 1 /usr/bin/kiln
00502000-00600000 rw-p 00302000 fe:00 1 /usr/bin/kiln
7f0000000000-7f0000001000 r-xp 00000000 fe:00 2 /usr/lib/libc.so.6
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]
";
        assert_eq!(
            code_ranges(maps, Path::new("/usr/bin/kiln")),
            [(0x20_0000, 0x20_0000), (0x40_0000, 0x10_1000)]
        );
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        forget_code();
        assert_eq!(format!("{}", 6 * 7), "42");
    }
}
