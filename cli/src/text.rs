//! What a terminal can show: how wide a text is on it, and what stands for characters that it does not have.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether the terminal shows more than ASCII, by the variables that `lookup` knows: `TERM`, and the locale.
pub(crate) fn has_unicode(lookup: impl Fn(&str) -> Option<String>) -> bool {
    let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
    // The kernel's own console reads UTF-8, but its fonts have neither pictures nor spinners.
    if value("TERM").as_deref() == Some("linux") {
        return false;
    }
    // locale(7): the first that is set counts, and none is the same as C.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The text with the signs of Kiln's own as ASCII, and without pictures. Letters stay: they are part of names.
pub(crate) fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match stand_in(c) {
            Some(sign) => plain.push_str(sign),
            None if is_picture(c) => {
                // The space that kept it away from the word before.
                if plain.ends_with(' ') {
                    plain.pop();
                }
            }
            None if is_joiner(c) => {}
            None => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// Signs that have one in ASCII, mostly as wide.
fn stand_in(c: char) -> Option<&'static str> {
    Some(match c {
        '✓' => "+",
        '✗' => "x",
        '•' | '◆' => "*",
        '·' => "-",
        '…' => "~",
        '→' => ">",
        '≤' => "<=",
        '≥' => ">=",
        '░' => ".",
        '▒' => "=",
        '█' => "#",
        // The spinner: a dot that runs around its cell.
        '⠁' | '⢀' => "|",
        '⠈' | '⡀' => "/",
        '⠐' | '⠄' => "-",
        '⠠' | '⠂' => "\\",
        _ => return None,
    })
}

/// Symbols and emoji, which are there for their looks.
fn is_picture(c: char) -> bool {
    matches!(c, '\u{2300}'..='\u{23ff}' | '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}')
}

/// What says how the character before it is to look.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{200d}')
}

/// The columns that a text without escapes takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or its beginning and a `…` where it takes more columns than that.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let (mut end, mut taken) = (0, 0);
    for (at, c) in text.char_indices() {
        taken += c.width().unwrap_or(0);
        if taken >= columns {
            break;
        }
        end = at + c.len_utf8();
    }
    match columns {
        0 => Cow::Borrowed(""),
        _ => Cow::Owned(format!("{}…", text[..end].trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_tells_what_the_terminal_shows() {
        let shows = |variables: &[(&str, &str)]| {
            has_unicode(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(shows(&[("LANG", "en_GB.UTF-8")]) && shows(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(shows(&[("LC_ALL", "C.UTF-8"), ("LANG", "C")]));
        assert!(!shows(&[]) && !shows(&[("LANG", "C")]) && !shows(&[("LANG", "de_DE.ISO-8859-1")]));
        assert!(!shows(&[("LC_ALL", "POSIX"), ("LANG", "en_GB.UTF-8")]));
        assert!(!shows(&[("TERM", "linux"), ("LANG", "en_GB.UTF-8")]));
    }

    #[test]
    fn pictures_go_and_signs_become_ascii() {
        for (text, plain) in [
            (" ✓ Preparing nodes 📦 📦 ", " + Preparing nodes "),
            (
                " \u{1b}[32m✗\u{1b}[0m Starting control-plane 🕹️  12s",
                " \u{1b}[32mx\u{1b}[0m Starting control-plane  12s",
            ),
            (
                " ⠁ Waiting ≤ 5m0s for control-plane = Ready ⏳  1.0s · etcd",
                " | Waiting <= 5m0s for control-plane = Ready  1.0s - etcd",
            ),
            ("Still warm: try it at once ☕", "Still warm: try it at once"),
            ("/home/jörg: nothing", "/home/jörg: nothing"),
        ] {
            assert_eq!(ascii(text), plain);
        }
    }

    #[test]
    fn texts_are_cut_by_their_columns() {
        for (text, columns, expected) in [
            ("etcd", 4, "etcd"),
            ("etcd", 3, "et…"),
            ("📦📦📦", 6, "📦📦📦"),
            ("📦📦📦", 5, "📦📦…"),
            ("📦📦📦", 4, "📦…"),
            ("one two", 5, "one…"),
            ("etcd", 1, "…"),
            ("etcd", 0, ""),
        ] {
            assert_eq!(cut(text, columns), expected, "{text} in {columns}");
            assert!(width(&cut(text, columns)) <= columns);
        }
    }
}
