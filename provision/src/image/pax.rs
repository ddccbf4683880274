//! The extended headers of tar archives (POSIX.1-2001): records of the form `LENGTH KEY=VALUE\n`.
//!
//! The length, not the newline, ends a record: values are arbitrary bytes (file capabilities are), which is why the
//! parser of the `tar` crate, which splits at newlines, does not do.

use std::io;

use rustix::fs::Timespec;

/// The prefix of the keys that carry extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// One key with its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Splits an extended header into its records, in order.
pub(super) fn parse(mut header: &[u8]) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    while !header.is_empty() {
        let (record, rest) = split_record(header).ok_or_else(|| malformed("an extended header"))?;
        records.push(record);
        header = rest;
    }
    Ok(records)
}

fn split_record(header: &[u8]) -> Option<(Record, &[u8])> {
    let space = header.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&header[..space]).ok()?).ok()?;
    let (record, rest) = header.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some(((body[..equals].to_vec(), body[equals + 1..].to_vec()), rest))
}

/// Appends a record to an extended header.
pub(super) fn push(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = " =\n".len() + key.len() + value.len();
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    header.extend_from_slice(length.to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(key);
    header.push(b'=');
    header.extend_from_slice(value);
    header.push(b'\n');
}

/// A non-negative decimal number, digits only.
pub(super) fn number(value: &[u8]) -> io::Result<u64> {
    let digits =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| malformed("a number"))
}

/// A time in seconds since the epoch, possibly negative, possibly with a fraction.
pub(super) fn time(value: &[u8]) -> io::Result<Timespec> {
    let problem = || malformed("a time");
    let text = std::str::from_utf8(value).map_err(|_| problem())?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(number(seconds.as_bytes())?).map_err(|_| problem())?;
    let mut nanoseconds = 0_i64;
    for position in 0..9 {
        let digit = fraction.as_bytes().get(position).copied().unwrap_or(b'0');
        nanoseconds = nanoseconds * 10 + i64::from(char::from(digit).to_digit(10).ok_or_else(problem)?);
    }
    // The fraction of a negative time counts downwards, a Timespec's always upwards.
    let (seconds, nanoseconds) = match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    };
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ })
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} of the archive is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_with_any_value() {
        // Around the lengths where the length grows a digit, with newlines and equals signs in the value.
        for length in (0..20).chain(85..105).chain(980..1005) {
            let mut header = Vec::new();
            let value = b"a=\n\0b".iter().copied().cycle().take(length).collect::<Vec<_>>();
            push(&mut header, b"SCHILY.xattr.user.a", &value);
            push(&mut header, b"path", b"x");
            assert_eq!(
                parse(&header).unwrap(),
                [(b"SCHILY.xattr.user.a".to_vec(), value), (b"path".to_vec(), b"x".to_vec())]
            );
        }
        let mut header = Vec::new();
        push(&mut header, b"path", b"x");
        assert_eq!(header, b"9 path=x\n");
    }

    #[test]
    fn malformed_records_are_errors() {
        for header in [
            "x",
            "10 path=x",
            "8 path=x\n",
            "11 path=x\n",
            "0 \n",
            " path=x\n",
            "-1 a=b\n",
            "99999999999999999999 a=b\n",
            "5 ab\n",
        ] {
            assert!(parse(header.as_bytes()).is_err(), "{header:?}");
        }
    }

    #[test]
    fn times_have_signs_and_fractions() {
        let at = |text: &str| time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec)).ok();
        assert_eq!(at("12"), Some((12, 0)));
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("0.0000000019"), Some((0, 1)));
        assert_eq!(at("-1"), Some((-1, 0)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        for bad in ["", "x", ".5", "1.x", "--1", "99999999999999999999"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
