//! How far a transfer has come.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes that have passed, of those that are to. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    done: Arc<AtomicU64>,
    total: u64,
    /// Bytes that came over the wire in this process.
    moved: Arc<AtomicU64>,
}

impl Meter {
    pub(super) fn new(total: u64) -> Self {
        Self { total, ..Self::default() }
    }

    /// These have just passed.
    pub(super) fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.there(bytes);
    }

    /// These need not pass, or have done so earlier.
    pub(super) fn there(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// These have to pass again.
    pub(super) fn lost(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn total_moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// For people: `12 of 345 MB`.
    pub(super) fn text(&self) -> String {
        let done = self.done.load(Ordering::Relaxed).min(self.total);
        let (unit, name) = match self.total {
            10_000_000.. => (1_000_000, "MB"),
            10_000.. => (1000, "kB"),
            _ => (1, "bytes"),
        };
        format!("{} of {} {name}", done / unit, self.total / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_count() {
        let meter = Meter::new(345_600_000);
        meter.clone().moved(10_000_000);
        meter.there(5_000_000);
        meter.lost(3_000_000);
        assert_eq!(meter.text(), "12 of 345 MB");
        assert_eq!(meter.total_moved(), 10_000_000);
        assert_eq!(Meter::new(7).text(), "0 of 7 bytes");
        let small = Meter::new(12_345);
        small.there(99_999);
        assert_eq!(small.text(), "12 of 12 kB");
    }
}
