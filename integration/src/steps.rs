//! Named steps of one long test that share an expensive cluster: each is reported by itself, and one that fails does
//! not hide those after it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// Runs and counts steps. [`Steps::finish`] fails the test when one of them has failed.
#[derive(Debug, Default)]
#[must_use = "steps that are never finished fail nothing"]
pub struct Steps {
    passed: usize,
    failed: Vec<String>,
}

impl Steps {
    /// Runs one step, reports it and returns whether it passed.
    pub fn step(&mut self, name: &str, run: impl FnOnce()) -> bool {
        let started = Instant::now();
        // Nothing half-changed is used after a panic: steps share the cluster and no data.
        let result = catch_unwind(AssertUnwindSafe(run));
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                eprintln!("  step {name} ... ok ({seconds:.1} s)");
                self.passed += 1;
                true
            }
            Err(payload) => {
                eprintln!("  step {name} ... FAILED ({seconds:.1} s)");
                self.failed.push(format!("{name}: {}", message(payload.as_ref())));
                false
            }
        }
    }

    /// Panics with the list of failed steps, if there are any.
    #[track_caller]
    pub fn finish(self) {
        let total = self.passed + self.failed.len();
        assert!(
            self.failed.is_empty(),
            "{} of {total} steps failed:\n- {}",
            self.failed.len(),
            self.failed.join("\n- ")
        );
        eprintln!("  {total} steps passed");
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_hide_the_next() {
        let mut steps = Steps::default();
        assert!(!steps.step("first", || panic!("no {}", "luck")));
        assert!(steps.step("second", || {}));
        let failure =
            catch_unwind(AssertUnwindSafe(|| steps.finish())).expect_err("a failed step fails the test");
        let told = message(failure.as_ref());
        assert!(told.contains("1 of 2 steps failed") && told.contains("first: no luck"), "{told}");
    }

    #[test]
    fn steps_that_pass_finish() {
        let mut steps = Steps::default();
        let _ = steps.step("only", || {});
        steps.finish();
    }
}
