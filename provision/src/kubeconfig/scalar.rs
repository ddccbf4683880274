//! How a text is written as a YAML scalar: as it is where every reader takes it for a text, else quoted.
//!
//! The choices are those of the YAML library of Kubernetes' Go programs, so that a file does not change its looks with
//! the program that wrote it last. Where that library's output would be read differently by YAML 1.2 parsers (Unicode
//! line separators, the merge key `<<`, numbers beyond any range), the text is quoted here although it is not there.

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As it is.
    Plain,
    /// In `'`.
    Single,
    /// In `"`, with escapes.
    Double,
    /// After `|`, line by line.
    Literal,
}

/// Chooses the style of `text`, which is a key of a mapping or a value.
pub(super) fn style(text: &str, is_key: bool) -> Style {
    let shape = Shape::of(text);
    if shape.special {
        return Style::Double;
    }
    if text.contains('\n') {
        let literal = !is_key && !shape.trailing_space && !shape.space_before_break;
        return if literal { Style::Literal } else { Style::Double };
    }
    if has_other_meaning(text) {
        Style::Double
    } else if shape.indicators || shape.leading_space || shape.trailing_space {
        Style::Single
    } else {
        Style::Plain
    }
}

/// Whether a character must be escaped: anything YAML 1.1 does not call printable, and line breaks other than `\n`.
pub(super) fn is_special(character: char) -> bool {
    !matches!(
        character,
        '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}'
    )
}

/// What matters about a text's characters.
#[derive(Debug, Default)]
struct Shape {
    special: bool,
    indicators: bool,
    leading_space: bool,
    trailing_space: bool,
    space_before_break: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut shape = Self {
            leading_space: text.starts_with(' '),
            trailing_space: text.ends_with(' '),
            // Markers of a document's begin and end.
            indicators: text.starts_with("---") || text.starts_with("..."),
            space_before_break: text.contains(" \n"),
            ..Self::default()
        };
        let mut previous = None;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let before_blank = characters.peek().is_none_or(|next| *next == ' ');
            shape.special |= is_special(character);
            shape.indicators |= match (character, previous) {
                (
                    '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                    | '`',
                    None,
                ) => true,
                ('?' | '-', None) | (':', _) => before_blank,
                ('#', Some(' ' | '\n')) => true,
                _ => false,
            };
            previous = Some(character);
        }
        shape
    }
}

/// Whether a reader would take the plain text for something else than a text.
fn has_other_meaning(text: &str) -> bool {
    is_word(text) || is_number(text) || is_sexagesimal(text) || is_timestamp(text)
}

/// Words for truth, absence and special numbers: in lower case, upper case or with a capital; `tRUE` is a text.
fn is_word(text: &str) -> bool {
    const WORDS: [&str; 11] = ["y", "yes", "true", "on", "n", "no", "false", "off", "null", ".nan", ".inf"];
    let word = match text {
        "" | "~" | "<<" | ".NaN" => return true,
        // A sign belongs to infinity alone.
        _ => text.strip_prefix(['+', '-']).filter(|rest| rest.eq_ignore_ascii_case(".inf")).unwrap_or(text),
    };
    let lower = word.to_ascii_lowercase();
    WORDS.contains(&lower.as_str()) && {
        let rest = word.get(1..).unwrap_or_default();
        word == lower || word == word.to_ascii_uppercase() || rest == &lower[1..] || word == ".Inf"
    }
}

/// Integers of any base and floating-point numbers, with the underscores that YAML 1.1 allows among digits.
fn is_number(text: &str) -> bool {
    let digits = text.replace('_', "");
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    if !text.starts_with(['+', '-', '.']) && !text.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    let radix = |prefixes: [&str; 2], radix: u32| {
        prefixes.iter().any(|prefix| {
            unsigned
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|digit| digit.is_digit(radix)))
        })
    };
    radix(["0x", "0X"], 16) || radix(["0o", "0O"], 8) || radix(["0b", "0B"], 2) || is_decimal(unsigned)
}

/// Digits, with a point anywhere and an exponent at the end.
fn is_decimal(unsigned: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => is_digits(fraction),
        Some((whole, fraction)) => is_digits(whole) && (fraction.is_empty() || is_digits(fraction)),
        None => is_digits(mantissa),
    };
    mantissa && exponent.is_none_or(is_digits)
}

/// YAML 1.1's numbers to the base of 60, such as `12:30:45`.
fn is_sexagesimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut parts = whole.split(':');
    let first = parts.next().unwrap_or_default();
    let mut rest = parts.peekable();
    first.starts_with(|first: char| first.is_ascii_digit())
        && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        && rest.peek().is_some()
        && rest.all(|part| number(part, 2).is_some_and(|value| value < 60))
        && fraction.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
}

/// Dates, alone or with a time.
fn is_timestamp(text: &str) -> bool {
    let Some((year, rest)) = text.split_once('-') else {
        return false;
    };
    let Some((month, rest)) = rest.split_once('-') else {
        return false;
    };
    let day_length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (day, time) = rest.split_at(day_length);
    let date = (year.len() == 4).then_some(()).and_then(|()| {
        jiff::civil::Date::new(
            number(year, 4)?.try_into().ok()?,
            number(month, 2)?.try_into().ok()?,
            number(day, 2)?.try_into().ok()?,
        )
        .ok()
    });
    date.is_some()
        && match time.as_bytes().first() {
            None => true,
            Some(b' ') => is_time(&time[1..]),
            Some(b'T' | b't') => without_zone(&time[1..]).is_some_and(is_time),
            _ => false,
        }
}

/// `HOUR:MINUTE:SECOND`, with a fraction or not.
fn is_time(text: &str) -> bool {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let parts: Vec<_> = whole.split(':').map(|part| number(part, 2)).collect();
    matches!(parts[..], [Some(0..24), Some(0..60), Some(0..60)])
        && fraction
            .is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `text` without the `Z` or `±HH:MM` at its end.
fn without_zone(text: &str) -> Option<&str> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some(time);
    }
    let (time, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    (hours.len() == 2 && number(hours, 2)? <= 24 && minutes.len() == 2 && number(minutes, 2)? <= 60)
        .then_some(time)
}

/// The value of one to `most` digits.
fn number(digits: &str, most: usize) -> Option<u32> {
    let fine = !digits.is_empty() && digits.len() <= most && digits.bytes().all(|byte| byte.is_ascii_digit());
    fine.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(style_of: Style, texts: &[&str]) {
        for text in texts {
            assert_eq!(style(text, false), style_of, "{text:?}");
        }
    }

    #[test]
    fn texts_that_look_like_texts_are_plain() {
        all(
            Style::Plain,
            &[
                "kind-kind",
                "https://127.0.0.1:6443",
                "-x",
                "?x",
                ":x",
                "a#b",
                "a, b",
                "tRUE",
                "nope",
                "1.2.3",
                "0x",
                "0xg",
                "12e",
                "1-2",
                "2024-13-01",
                "2024-02-30",
                "2024-01-01-backup",
                "2024-01-01T10:00:00",
                "12:60",
                "ä ö",
                "=",
                ".",
                ".Nan",
                "Mon, 01 Jan 2024 10:00:00 UTC",
            ],
        );
    }

    #[test]
    fn what_has_another_meaning_is_in_double_quotes() {
        all(
            Style::Double,
            &[
                "",
                "~",
                "<<",
                "null",
                "Null",
                "NULL",
                "y",
                "Y",
                "yes",
                "No",
                "TRUE",
                "off",
                ".inf",
                "-.Inf",
                "+.INF",
                ".NaN",
                "1",
                "-1",
                "+1",
                "007",
                "1_000",
                "0x1F",
                "0o17",
                "0b11",
                "1.5",
                "1.",
                ".5",
                "1e3",
                "1E-3",
                "1e999",
                "12:30:45",
                "1:30",
                "2024-01-01",
                "2024-1-1",
                "2024-01-01T10:00:00Z",
                "2024-01-01t1:2:3.4+02:00",
                "2024-01-01 10:00:00",
                "a\tb",
                "a\r",
                "a\u{85}",
                "a\u{2028}b",
                "\u{feff}",
                "😀",
                "\u{7f}",
                "a \nb",
                "a\n ",
                "\ta\nb",
            ],
        );
    }

    #[test]
    fn what_has_indicators_is_in_single_quotes() {
        all(
            Style::Single,
            &[
                "- x", "-", "? x", ": x", "a: b", "a:", "a #b", "#a", "[a", "{a", "]", "}", ",", "&a", "*a",
                "!a", "|", ">", "'", "\"", "%a", "@a", "`a", "---", "--- a", "...", " a", "a ", "----",
            ],
        );
    }

    #[test]
    fn lines_are_literal_except_in_keys() {
        all(Style::Literal, &["a\nb", "a\n", "\n", "\n\n", " a\nb", "a\n b", "a: b\n# c\n"]);
        assert_eq!(style("a\nb", true), Style::Double);
    }
}
