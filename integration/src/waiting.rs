//! Waiting for what nothing tells of when it happens.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Looks every so often until something holds; when it does not in time, the test fails for the reason that `otherwise` gives then.
#[track_caller]
pub fn eventually(
    limit: Duration,
    every: Duration,
    mut holds: impl FnMut() -> bool,
    otherwise: impl FnOnce() -> String,
) {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= deadline {
            panic!("{}", otherwise());
        }
        thread::sleep(every);
    }
}
