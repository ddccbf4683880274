//! Progress on the terminal.
//!
//! A phase is a line that spins, tells its elapsed time and what it is doing, and ends as `✓` or `✗`. Where there is
//! no terminal, in the log of a CI job for example, a phase is a line at its start and one at its end, as kind has it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kiln_provision::{Outcome, Reporter};

use crate::{
    duration,
    shell::{Shell, Style},
    table, text,
};

/// The spinner, a dot running around a braille cell.
const FRAMES: [&str; 8] = ["⠁", "⠈", "⠐", "⠠", "⢀", "⡀", "⠄", "⠂"];
/// How long a frame stays, and so how often the elapsed time is brought up to date.
const FRAME: Duration = Duration::from_millis(100);
/// Phases that took less than this do not tell how long they took.
const WORTH_TELLING: Duration = Duration::from_secs(1);
/// A step that takes longer than this tells for how long it has been waited for: it may be what is stuck.
const LONG_STEP: Duration = Duration::from_secs(3);

/// Between the time and the step.
const SEPARATOR: &str = " · ";
/// The fewest columns that are worth beginning a step in.
const LEAST_STEP: usize = 12;

/// Shows the progress of one operation; the live line is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    shell: Shell,
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
    start: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The running phases; several where they overlap. The last one is shown.
    phases: Vec<Phase>,
    step: String,
    /// When the step began.
    step_start: Option<Instant>,
    /// What has ended, in that order.
    timings: Vec<(String, Duration)>,
    frame: usize,
    ended: bool,
}

#[derive(Debug)]
struct Phase {
    title: String,
    start: Instant,
}

impl State {
    fn set_step(&mut self, text: &str) {
        text.clone_into(&mut self.step);
        self.step_start = (!text.is_empty()).then(Instant::now);
    }

    /// Whether there is nothing to show.
    fn is_idle(&self) -> bool {
        self.phases.is_empty() && self.step.is_empty()
    }
}

impl Progress {
    /// Progress on this shell.
    pub(crate) fn new(shell: &Shell) -> Self {
        let shared = Arc::new(Shared::default());
        let ticker = shell.is_live().then(|| {
            let (shell, shared) = (shell.clone(), Arc::clone(&shared));
            std::thread::spawn(move || spin(&shell, &shared))
        });
        Self { shell: shell.clone(), shared, ticker, start: Instant::now() }
    }

    /// How long everything has taken so far.
    pub(crate) fn timings(&self) -> Timings {
        let phases = self.state().timings.clone().into_iter();
        // As it will be shown: the table is as wide as its longest title.
        let phases = phases.map(|(title, took)| (self.shell.shown(&title).into_owned(), took));
        Timings { phases: phases.collect(), total: self.start.elapsed() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the live line at once: a phase may end before the next frame is due.
    fn redraw(&self, state: &State) {
        if let Some(line) = live_line(&self.shell, state, self.shell.live_width()) {
            self.shell.draw(&line);
        }
    }
}

impl Reporter for Progress {
    fn phase_started(&self, title: &str) {
        let mut state = self.state();
        state.phases.push(Phase { title: title.to_owned(), start: Instant::now() });
        state.set_step("");
        if self.shell.is_live() {
            self.redraw(&state);
            self.shared.changed.notify_one();
        } else {
            self.shell.status(&format!(" • {title}  ..."));
        }
    }

    fn phase_ended(&self, title: &str, outcome: Outcome) {
        let mut state = self.state();
        let Some(index) = state.phases.iter().rposition(|phase| phase.title == title) else {
            return;
        };
        let phase = state.phases.remove(index);
        let elapsed = phase.start.elapsed();
        state.timings.push((phase.title, elapsed));
        state.set_step("");
        self.shell.status(&final_line(&self.shell, title, outcome, elapsed));
        self.redraw(&state);
    }

    fn step(&self, text: &str) {
        let mut state = self.state();
        if state.step == text {
            return;
        }
        state.set_step(text);
        if self.shell.is_live() {
            self.redraw(&state);
            self.shared.changed.notify_one();
        } else {
            self.shell.detail(1, &format!("   {text}"));
        }
    }

    fn message(&self, verbosity: u8, text: &str) {
        self.shell.detail(verbosity, text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.state().ended = true;
        self.shared.changed.notify_one();
        if let Some(ticker) = self.ticker.take() {
            // It only fails by a panic, which has been reported already.
            let _ = ticker.join();
        }
        self.shell.clear();
    }
}

/// How long the phases of an operation took.
#[derive(Clone, Debug)]
pub(crate) struct Timings {
    phases: Vec<(String, Duration)>,
    total: Duration,
}

impl Timings {
    /// A table of the phases, and of everything together: phases may overlap, and there is work between them.
    pub(crate) fn table(&self) -> String {
        let seconds = |duration: &Duration| format!("{:>7.1}", duration.as_secs_f64());
        let row = |(title, took): &(String, Duration)| [plain(title), seconds(took)];
        let mut rows: Vec<_> = self.phases.iter().map(row).collect();
        rows.push([String::from("everything"), seconds(&self.total)]);
        table::render(["PHASE", "SECONDS"], &rows)
    }
}

/// A title without the pictures behind it, whose width on a terminal nobody knows.
fn plain(title: &str) -> String {
    title.trim_end_matches(|c: char| !c.is_ascii() || c == ' ').to_owned()
}

/// Draws frames while there is something to show, and sleeps while there is not.
fn spin(shell: &Shell, shared: &Shared) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.ended {
        // The clock is what is shown here: nothing happens that could wake this thread when a second has passed.
        state = if state.is_idle() {
            shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
        } else {
            shared.changed.wait_timeout(state, FRAME).unwrap_or_else(PoisonError::into_inner).0
        };
        state.frame = (state.frame + 1) % FRAMES.len();
        // Drawn under the lock: a line drawn after its phase's last line would stay on the screen.
        if let Some(line) = live_line(shell, &state, shell.live_width()) {
            shell.draw(&line);
        }
    }
}

/// The line of the running phase and its step, in so many columns; between phases, such as when cleaning up, that of the
/// step alone. Of what is too long for the terminal the step goes first, then the end of the title: never the time.
fn live_line(shell: &Shell, state: &State, columns: usize) -> Option<String> {
    let frame = shell.paint(Style::Good, FRAMES[state.frame % FRAMES.len()]);
    // A space, the frame and another space; and the last column, in which some terminals break the line already.
    let room = columns.saturating_sub(4);
    let step = shell.shown(state.step.lines().next().unwrap_or_default());
    // Without a phase there is no other time on the line.
    let long = if state.phases.is_empty() { WORTH_TELLING } else { LONG_STEP };
    let waited = state.step_start.map(|start| start.elapsed()).filter(|waited| *waited >= long);
    let waited = waited.map(|waited| format!(" ({}s)", waited.as_secs())).unwrap_or_default();
    let step_within = |room: usize| {
        let room = room.saturating_sub(waited.len());
        // "NODE: what it waits for": what is waited for says more, and most phases are of one node.
        let step = match step.split_once(": ") {
            Some((node, rest)) if text::width(&step) > room && !node.contains(' ') => rest,
            _ => &*step,
        };
        format!("{}{waited}", text::cut(step, room))
    };
    let Some(phase) = state.phases.last() else {
        return (!step.is_empty())
            .then(|| format!(" {frame} {}", shell.paint(Style::Faint, &step_within(room))));
    };
    let elapsed = duration::show(phase.start.elapsed());
    let title = shell.shown(&phase.title);
    let title = text::cut(&title, room.saturating_sub(elapsed.len() + 2));
    let left = room.saturating_sub(text::width(&title) + elapsed.len() + 2 + SEPARATOR.chars().count());
    let tail = if step.is_empty() || left < LEAST_STEP {
        elapsed
    } else {
        format!("{elapsed}{SEPARATOR}{}", step_within(left))
    };
    Some(format!(" {frame} {title}  {}", shell.paint(Style::Faint, &tail)))
}

/// The line that stays when a phase has ended. Plain logs keep to kind's form, without times.
fn final_line(shell: &Shell, title: &str, outcome: Outcome, elapsed: Duration) -> String {
    let mark = match outcome {
        Outcome::Done => shell.paint(Style::Good, "✓"),
        Outcome::Failed => shell.paint(Style::Bad, "✗"),
    };
    if shell.is_live() && elapsed >= WORTH_TELLING {
        format!(" {mark} {title}  {}", shell.paint(Style::Faint, &duration::show(elapsed)))
    } else {
        format!(" {mark} {title}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: &str) -> State {
        State {
            phases: vec![Phase {
                title: String::from("Starting control-plane 🕹️"), start: Instant::now()
            }],
            step: step.to_owned(),
            ..State::default()
        }
    }

    #[test]
    fn live_lines_tell_the_step() {
        let shell = Shell::mute(false, true);
        assert_eq!(live_line(&shell, &state(""), 100).as_deref(), Some(" ⠁ Starting control-plane 🕹️  0.0s"));
        assert_eq!(
            live_line(&shell, &state("etcd\nmore"), 100).as_deref(),
            Some(" ⠁ Starting control-plane 🕹️  0.0s · etcd")
        );
        assert_eq!(live_line(&shell, &State::default(), 100), None);
        let cleaning = State { step: String::from("cleaning up"), ..State::default() };
        assert_eq!(live_line(&shell, &cleaning, 100).as_deref(), Some(" ⠁ cleaning up"));
    }

    #[test]
    fn final_lines_tell_the_time_on_a_terminal_only() {
        let long = Duration::from_secs(12);
        let plain = Shell::mute(false, false);
        assert_eq!(final_line(&plain, "A 📦 ", Outcome::Done, long), " ✓ A 📦 ");
        let live = Shell::mute(false, true);
        assert_eq!(final_line(&live, "A", Outcome::Failed, long), " ✗ A  12s");
        assert_eq!(final_line(&live, "A", Outcome::Done, Duration::ZERO), " ✓ A");
    }

    #[test]
    fn a_step_that_is_waited_for_tells_how_long() {
        let shell = Shell::mute(false, true);
        let mut state = state("");
        state.set_step("kind-worker: waiting for systemd");
        let line = live_line(&shell, &state, 100).expect("a line");
        assert!(line.ends_with("· kind-worker: waiting for systemd"), "{line}");
        state.step_start = Instant::now().checked_sub(Duration::from_secs(8));
        let line = live_line(&shell, &state, 100).expect("a line");
        assert!(line.ends_with("waiting for systemd (8s)"), "{line}");
        // The next step begins anew.
        state.set_step("etcd");
        assert!(live_line(&shell, &state, 100).expect("a line").ends_with("· etcd"));
    }

    #[test]
    fn lines_fit_in_the_terminal() {
        let shell = Shell::mute(false, true);
        let mut state = state("kind-control-plane: container runtime network not ready: no network plugin");
        let lines: Vec<_> = [80, 60, 40, 30, 12, 3]
            .into_iter()
            .map(|columns| {
                let line = live_line(&shell, &state, columns).expect("a line");
                assert!(columns < 12 || text::width(&line) < columns, "{line}");
                line
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
        // For how long it has been waited stays, and the node goes first.
        state.step_start = Instant::now().checked_sub(Duration::from_secs(8));
        let line = live_line(&shell, &state, 80).expect("a line");
        assert!(line.contains("· container runtime network"), "{line}");
        assert!(line.ends_with("… (8s)") && text::width(&line) < 80, "{line}");
    }

    #[test]
    fn phases_end_up_in_a_table() {
        let progress = Progress::new(&Shell::mute(false, false));
        for title in ["Preparing nodes 📦 📦 ", "Waiting ≤ 1m0s for control-plane = Ready ⏳"] {
            progress.phase_started(title);
            progress.phase_ended(title, Outcome::Done);
        }
        let mut timings = progress.timings();
        timings.phases[0].1 = Duration::from_millis(1_250);
        timings.phases[1].1 = Duration::from_secs(12);
        timings.total = Duration::from_secs(114);
        insta::assert_snapshot!(timings.table(), @r"
        PHASE                                     SECONDS
        Preparing nodes                               1.2
        Waiting ≤ 1m0s for control-plane = Ready     12.0
        everything                                  114.0
        ");
    }

    #[test]
    fn phases_may_overlap() {
        let progress = Progress::new(&Shell::mute(false, false));
        progress.phase_started("a");
        progress.phase_started("b");
        progress.phase_ended("a", Outcome::Done);
        progress.phase_ended("unknown", Outcome::Done);
        let titles: Vec<_> = progress.state().phases.iter().map(|phase| phase.title.clone()).collect();
        assert_eq!(titles, ["b"]);
    }

    #[test]
    fn the_ticker_ends_with_the_progress() {
        let shell = Shell::mute(false, false);
        let mut progress = Progress::new(&shell);
        let (thread_shell, shared) = (shell.clone(), Arc::clone(&progress.shared));
        progress.ticker = Some(std::thread::spawn(move || spin(&thread_shell, &shared)));
        progress.phase_started("a");
        drop(progress);
    }
}
