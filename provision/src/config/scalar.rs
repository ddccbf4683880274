//! What an unquoted YAML scalar means.
//!
//! Configurations and patches are read by two dialects, because the tools whose files these are do so: in a
//! configuration only `true` and `false` are booleans by themselves (others where a boolean is expected), in
//! a patch the booleans of YAML 1.1 are too. Numbers are alike: prefixes `0x`, `0o`, `0b` and a plain leading
//! zero, and underscores between digits.

/// A scalar's meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// Text, to be taken as written.
    Text,
}

/// Which spellings are booleans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `true` and `false` only.
    Core,
    /// `yes`, `on`, `y` and their opposites too.
    Yaml11,
}

/// The meaning of an unquoted scalar.
pub(crate) fn resolve(text: &str, dialect: Dialect) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    if dialect == Dialect::Yaml11
        && let Some(value) = boolean_word(text)
    {
        return Scalar::Bool(value);
    }
    match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'+' | b'-') => number(&text.replace('_', "")),
        Some(b'.') => float(text),
        _ => Scalar::Text,
    }
}

/// The booleans of YAML 1.1 beyond `true` and `false`.
pub(crate) fn boolean_word(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Scalar {
    integer(text).map_or_else(|| float(text), Scalar::Integer)
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    (value >= i128::from(i64::MIN)).then_some(value)
}

fn float(text: &str) -> Scalar {
    // Rust's parser takes words such as `inf` and `nan`, which YAML spells with a dot.
    let numeric = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse() {
        Ok(value) if numeric => Scalar::Float(value),
        _ => Scalar::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_spellings() {
        for (text, expected) in [
            ("80", Scalar::Integer(80)),
            ("-1", Scalar::Integer(-1)),
            ("+7", Scalar::Integer(7)),
            ("0x1F", Scalar::Integer(31)),
            ("0o17", Scalar::Integer(15)),
            ("0777", Scalar::Integer(511)),
            ("0b101", Scalar::Integer(5)),
            ("1_000", Scalar::Integer(1000)),
            ("0", Scalar::Integer(0)),
            ("18446744073709551615", Scalar::Integer(18_446_744_073_709_551_615)),
            ("08", Scalar::Float(8.0)),
            ("1.5", Scalar::Float(1.5)),
            (".5", Scalar::Float(0.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("10.0.0.1", Scalar::Text),
            ("--5", Scalar::Text),
            ("-inf", Scalar::Text),
            ("nan", Scalar::Text),
            ("2001-01-01", Scalar::Text),
            ("0x", Scalar::Text),
            ("12:30", Scalar::Text),
        ] {
            assert_eq!(resolve(text, Dialect::Core), expected, "{text}");
        }
    }

    #[test]
    fn words_are_booleans_only_in_yaml_1_1() {
        for (text, core, yaml11) in [
            ("true", Scalar::Bool(true), Scalar::Bool(true)),
            ("yes", Scalar::Text, Scalar::Bool(true)),
            ("Off", Scalar::Text, Scalar::Bool(false)),
            ("n", Scalar::Text, Scalar::Bool(false)),
            ("yEs", Scalar::Text, Scalar::Text),
            ("~", Scalar::Null, Scalar::Null),
        ] {
            assert_eq!(resolve(text, Dialect::Core), core, "{text}");
            assert_eq!(resolve(text, Dialect::Yaml11), yaml11, "{text}");
        }
    }
}
