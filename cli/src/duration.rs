//! Durations as people write them for kind, which takes Go's notation: `90s`, `1h5m`, `1.5m`, `0`.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// In words that follow "invalid value".
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(String::from("a duration cannot be negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(String::from("a duration is a number and a unit, such as 30s or 5m"));
    }
    // Go's notation lets zero go without a unit.
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number
            .parse()
            .map_err(|_| format!("\"{text}\" is not a number and a unit, such as 30s or 5m"))?;
        let seconds = number * seconds_per(unit, text)?;
        total = Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("\"{text}\" is too long"))?;
        rest = tail;
    }
    Ok(total)
}

/// A duration for people: `0.4s`, `12s`, `2m 05s`.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        _ => format!("{}m {:02}s", seconds / 60, seconds % 60),
    }
}

/// How long ago something was, for tables: `45s`, `12m`, `3h5m`, `2d`.
pub(crate) fn age(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (days, hours) = (minutes / (24 * 60), minutes / 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{}s", duration.as_secs()),
        (0, 0, _) => format!("{minutes}m"),
        // Whoever looks at a cluster of this morning may want to know more than the hour.
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d"),
    }
}

fn seconds_per(unit: &str, text: &str) -> Result<f64, String> {
    match unit {
        "h" => Ok(3600.0),
        "m" => Ok(60.0),
        "s" => Ok(1.0),
        "ms" => Ok(1e-3),
        "us" | "µs" | "μs" => Ok(1e-6),
        "ns" => Ok(1e-9),
        "" => Err(format!("\"{text}\" has no unit; write {text}s for seconds")),
        _ => Err(format!("\"{unit}\" is not a unit of time; use h, m, s or ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_notation() {
        for (text, seconds) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("30s", 30.0),
            ("5m", 300.0),
            ("1h2m3s", 3723.0),
            ("1.5m", 90.0),
            ("250ms", 0.25),
            ("+1s", 1.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, part) in [
            ("5", "write 5s"),
            ("", "such as 30s"),
            ("-5s", "negative"),
            ("5d", "\"d\" is not a unit"),
            ("s", "not a number"),
            ("1..2s", "not a number"),
            ("99999999999999999999h", "too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn ages_have_one_or_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (11_100, "3h5m"),
            (86_400, "1d"),
            (1_000_000, "11d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn shown_for_people() {
        assert_eq!(show(Duration::from_millis(420)), "0.4s");
        assert_eq!(show(Duration::from_secs(12)), "12s");
        assert_eq!(show(Duration::from_secs(125)), "2m 05s");
    }
}
