//! The one place for output.
//!
//! Standard output carries results, for programs and pipes. Standard error carries everything for people: progress,
//! warnings, errors. With `--quiet` nothing goes to standard error, as kind has it, and the exit status is all that
//! tells of an error.
//!
//! On a terminal the last line of standard error may be *live*: it is drawn again and again, and cleared whenever
//! something else is written. Drawing and writing share one lock, so that neither tears the other.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use clap::builder::StyledStr;

use crate::{failure::Failure, text};

/// Back to the first column, and clear to the end of the line.
const CLEAR_LINE: &str = "\r\x1b[2K";

/// The terminal, or whatever stands in for it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quiet: bool,
    verbosity: u8,
    color: bool,
    color_results: bool,
    live: bool,
    live_results: bool,
    /// Whether standard error, or standard output, is a terminal that shows ASCII alone.
    ascii: bool,
    ascii_results: bool,
    /// Whether a live line is on the screen now.
    drawn: Mutex<bool>,
}

/// What a piece of text means; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// It worked.
    Good,
    /// It may become a problem.
    Warning,
    /// It did not work.
    Bad,
    /// It matters less than what is around it.
    Faint,
}

impl Shell {
    /// A shell on this process's streams, with what the environment says about the terminal.
    pub(crate) fn new(quiet: bool, verbosity: u8) -> Self {
        let terminal = io::stderr().is_terminal();
        let kind = std::env::var("TERM").unwrap_or_default();
        // These cannot move the cursor, or show what is drawn over as garbage.
        let moves = !matches!(kind.as_str(), "" | "dumb" | "st-256color");
        // https://no-color.org: any value but the empty one counts.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // Into files and pipes goes what kind writes there, whatever the locale.
        let ascii = !text::has_unicode(|name| std::env::var(name).ok());
        let inner = Inner {
            quiet,
            verbosity,
            color: terminal && moves && !plain,
            color_results: io::stdout().is_terminal() && moves && !plain,
            live: terminal && moves && !quiet,
            live_results: io::stdout().is_terminal() && moves,
            ascii: terminal && ascii,
            ascii_results: io::stdout().is_terminal() && ascii,
            drawn: Mutex::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A shell that says nothing, as if on a terminal of that kind.
    #[cfg(test)]
    pub(crate) fn mute(color: bool, live: bool) -> Self {
        let inner = Inner {
            quiet: true,
            verbosity: 0,
            color,
            color_results: color,
            live,
            live_results: live,
            ascii: false,
            ascii_results: false,
            drawn: Mutex::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether a live line can be drawn.
    pub(crate) fn is_live(&self) -> bool {
        self.inner.live
    }

    /// The columns of the terminal that results go to; as many as there may be where they go elsewhere.
    pub(crate) fn width(&self) -> usize {
        rustix::termios::tcgetwinsize(rustix::stdio::stdout())
            .ok()
            .filter(|size| size.ws_col > 0)
            .map_or(usize::MAX, |size| size.ws_col.into())
    }

    /// Whether only results are wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inner.quiet
    }

    /// How much the user wants to read.
    pub(crate) fn verbosity(&self) -> u8 {
        self.inner.verbosity
    }

    /// The columns of the terminal that the live line is drawn on. Asked for every line: the window may have changed.
    pub(crate) fn live_width(&self) -> usize {
        rustix::termios::tcgetwinsize(rustix::stdio::stderr())
            .ok()
            .filter(|size| size.ws_col > 0)
            .map_or(usize::MAX, |size| size.ws_col.into())
    }

    /// The text as the terminal of the live line shows it.
    pub(crate) fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.inner.ascii { text::ascii(text) } else { Cow::Borrowed(text) }
    }

    /// How many characters fit into a line of standard output, where that is a terminal.
    pub(crate) fn result_width(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|width| *width > 0)
    }

    /// How many lines standard output shows at once, where that is a terminal.
    fn result_height(&self) -> usize {
        rustix::termios::tcgetwinsize(rustix::stdio::stdout())
            .ok()
            .filter(|size| size.ws_row > 0)
            .map_or(usize::MAX, |size| size.ws_row.into())
    }

    /// Writes a result to standard output, as it is.
    ///
    /// # Errors
    /// When standard output cannot be written; a reader that has gone ends the program with success.
    pub(crate) fn result(&self, text: &str) -> Result<(), Failure> {
        let text = if self.inner.ascii_results { text::ascii(text) } else { Cow::Borrowed(text) };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
            _ => Failure::because("failed to write to standard output", &error),
        })
    }

    /// Writes a result in the place of an earlier one of so many lines, where standard output is a terminal; elsewhere behind
    /// it, with an empty line between the two. Returns how many lines are on the screen now.
    ///
    /// # Errors
    /// As for [`result`](Self::result).
    pub(crate) fn next_result(&self, earlier: usize, text: &str) -> Result<usize, Failure> {
        if !self.inner.live_results {
            self.result(&if earlier == 0 { text.to_owned() } else { format!("\n{text}") })?;
            return Ok(text.lines().count());
        }
        let text = within(text, self.result_height());
        self.result(&in_place_of(earlier, &text))?;
        Ok(text.lines().count())
    }

    /// Clears the line of standard output that the cursor is on, where that is a terminal.
    ///
    /// # Errors
    /// As for [`result`](Self::result).
    pub(crate) fn clear_result_line(&self) -> Result<(), Failure> {
        if self.inner.live_results { self.result(CLEAR_LINE) } else { Ok(()) }
    }

    /// Writes a line for people.
    pub(crate) fn status(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Writes a line for people who asked for at least this much.
    pub(crate) fn detail(&self, verbosity: u8, text: &str) {
        if verbosity <= self.inner.verbosity {
            self.status(text);
        }
    }

    /// Writes a warning.
    pub(crate) fn warn(&self, text: &str) {
        self.status(&format!("{} {text}", self.paint(Style::Warning, "WARNING:")));
    }

    /// Writes advice beside something that is no failure.
    pub(crate) fn hint(&self, text: &str) {
        self.status(&format!("{} {text}", self.paint(Style::Faint, "hint:")));
    }

    /// Writes why the command failed, once and at its very end.
    pub(crate) fn failure(&self, failure: &Failure) {
        let Some(message) = failure.message() else { return };
        self.status(&format!("{} {message}", self.paint(Style::Bad, "ERROR:")));
        if let Some(hint) = failure.hint() {
            self.hint(hint);
        }
    }

    /// Draws the live line, in place of the one before.
    pub(crate) fn draw(&self, line: &str) {
        if !self.inner.live {
            return;
        }
        let line = self.shown(line);
        let mut drawn = self.lock();
        // Without the terminal's line wrapping, a line that is too long is cut off and not left behind.
        put(&format!("{CLEAR_LINE}\x1b[?7l{line}\x1b[?7h"));
        *drawn = true;
    }

    /// Takes the live line away.
    pub(crate) fn clear(&self) {
        let mut drawn = self.lock();
        if std::mem::take(&mut *drawn) {
            put(CLEAR_LINE);
        }
    }

    /// The text in the style's colour, where standard error has colours.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.inner.color { painted(style, text) } else { text.to_owned() }
    }

    /// The text in the style's colour, where standard output has colours.
    pub(crate) fn paint_result(&self, style: Style, text: &str) -> String {
        if self.inner.color_results { painted(style, text) } else { text.to_owned() }
    }

    /// A text of clap's, in its colours where standard output has some.
    pub(crate) fn styled_result(&self, text: &StyledStr) -> Result<(), Failure> {
        self.result(&if self.inner.color_results { text.ansi().to_string() } else { text.to_string() })
    }

    /// Writes to standard error, past a live line. Nobody can be told when that fails, so it is let go.
    fn write(&self, text: &str) {
        if self.inner.quiet {
            return;
        }
        let text = self.shown(text);
        let mut drawn = self.lock();
        if std::mem::take(&mut *drawn) {
            put(&format!("{CLEAR_LINE}{text}"));
        } else {
            put(&text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // A panic elsewhere leaves nothing worse than a stale line.
        self.inner.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn painted(style: Style, text: &str) -> String {
    let code = match style {
        Style::Good => "32",
        // Yellow cannot be read on a light ground.
        Style::Warning => "35",
        Style::Bad => "31",
        Style::Faint => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// What draws a text over the lines above the cursor. Lines are cut off where the terminal ends: wrapped, they would be more
/// than they are counted as.
fn in_place_of(lines: usize, text: &str) -> String {
    let text = text.replace('\n', "\x1b[K\n");
    let up = if lines == 0 { String::new() } else { format!("\x1b[{lines}A") };
    format!("\r{up}\x1b[?7l{text}\x1b[?7h\x1b[J")
}

/// As much of a text as a screen of that height shows with the cursor below it: the cursor cannot go back to what has been
/// scrolled away.
fn within(text: &str, height: usize) -> Cow<'_, str> {
    let (count, room) = (text.lines().count(), height.saturating_sub(1).max(2));
    if count <= room {
        return Cow::Borrowed(text);
    }
    let shown: Vec<&str> = text.lines().take(room - 1).collect();
    Cow::Owned(format!("{}\n… {} more\n", shown.join("\n"), count - shown.len()))
}

/// One write per piece: output of other processes on the same terminal stays outside of it.
fn put(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Lets `tracing-subscriber` write through the shell.
#[derive(Debug)]
pub(crate) struct LogLine {
    shell: Shell,
    text: Vec<u8>,
}

impl LogLine {
    /// An empty line, written when it is dropped.
    pub(crate) fn new(shell: &Shell) -> Self {
        Self { shell: shell.clone(), text: Vec::new() }
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        self.shell.write(&String::from_utf8_lossy(&self.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_only_where_there_is_one() {
        assert_eq!(Shell::mute(false, false).paint(Style::Bad, "x"), "x");
        assert_eq!(Shell::mute(true, false).paint(Style::Bad, "x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn a_result_takes_the_place_of_another() {
        assert_eq!(in_place_of(2, "a\nb\n"), "\r\x1b[2A\x1b[?7la\x1b[K\nb\x1b[K\n\x1b[?7h\x1b[J");
        assert_eq!(in_place_of(0, "a\n"), "\r\x1b[?7la\x1b[K\n\x1b[?7h\x1b[J");
    }

    #[test]
    fn a_result_that_is_drawn_again_fits_on_the_screen() {
        assert_eq!(within("a\nb\nc\n", 4), "a\nb\nc\n");
        assert_eq!(within("a\nb\nc\nd\n", 4), "a\nb\n… 2 more\n");
        assert_eq!(within("a\nb\nc\nd\n", 0), "a\n… 3 more\n");
    }

    #[test]
    fn nothing_is_drawn_without_a_terminal() {
        let shell = Shell::mute(false, false);
        shell.draw("x");
        assert!(!*shell.lock());
    }
}
