//! Secrets do not belong into logs that are handed on.
//!
//! What looks like one is overwritten in place: the length stays, so files that are not text (journals) stay readable.
//! Looked for are bootstrap tokens, private keys in PEM, plain or encoded once more as in kubeconfigs, and service account
//! tokens.

use std::io::{self, Write};

/// What is put in the place of each byte of a secret.
const MASK: u8 = b'*';
/// Bytes without a line's end that are looked at as one line. Longer runs are not text.
const MAX_LINE: usize = 1 << 20;
/// Lines of a private key in PEM, generously: one whose end is missing must not hide the rest of a log.
const MAX_KEY_LINES: usize = 200;

const TOKEN_ID: usize = 6;
const TOKEN_SECRET: usize = 16;
const BEGIN: &[u8] = b"-----BEGIN ";
const PRIVATE: &[u8] = b"PRIVATE KEY-----";
const END: &[u8] = b"-----END ";
/// How `-----BEGIN RSA PRIVATE KEY`, `… EC PRIVATE KEY` and `… PRIVATE KEY` begin in base64.
const ENCODED_KEYS: [&[u8]; 3] = [
    b"LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVk",
    b"LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS",
    b"LS0tLS1CRUdJTiBQUklWQVRFIEtFWS",
];
/// How the header of a signed JSON web token begins in base64: `{"alg":`.
const WEB_TOKEN: &[u8] = b"eyJhbGciOi";

/// Passes on what is written to it, without the secrets.
#[derive(Debug)]
pub(super) struct Redactor<W: Write> {
    output: W,
    line: Vec<u8>,
    /// Lines that may still belong to a private key.
    key_lines: usize,
}

impl<W: Write> Redactor<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output, line: Vec::new(), key_lines: 0 }
    }

    /// Writes what is left: the last line may have no end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.pass_on()?;
        self.output.flush()
    }

    fn pass_on(&mut self) -> io::Result<()> {
        redact(&mut self.line, &mut self.key_lines);
        self.output.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for Redactor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                self.pass_on()?;
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn redact(line: &mut [u8], key_lines: &mut usize) {
    hide_keys(line, key_lines);
    hide_runs(line);
    hide_tokens(line);
}

/// Private keys in PEM, on many lines or, with escaped line ends, on one.
fn hide_keys(line: &mut [u8], key_lines: &mut usize) {
    let mut at = 0;
    loop {
        if *key_lines == 0 {
            let Some(begin) = find(&line[at..], BEGIN) else { return };
            // The kind of what begins here is a few words at most.
            let kind = &line[at + begin..(at + begin + 64).min(line.len())];
            match find(kind, PRIVATE) {
                Some(end) => at += begin + end + PRIVATE.len(),
                None => {
                    at += begin + BEGIN.len();
                    continue;
                }
            }
            *key_lines = MAX_KEY_LINES;
        }
        let Some(end) = find(&line[at..], END) else {
            mask(&mut line[at..]);
            *key_lines -= 1;
            return;
        };
        mask(&mut line[at..at + end]);
        at += end;
        *key_lines = 0;
    }
}

/// Secrets of which only the beginning is known, and the characters they consist of.
fn hide_runs(line: &mut [u8]) {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    for prefix in ENCODED_KEYS {
        hide_run(line, prefix, base64);
    }
    hide_run(line, WEB_TOKEN, |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
}

fn hide_run(line: &mut [u8], prefix: &[u8], belongs: impl Fn(u8) -> bool) {
    let mut at = 0;
    while let Some(found) = find(&line[at..], prefix) {
        let start = at + found + prefix.len();
        let length = line[start..].iter().take_while(|&&byte| belongs(byte)).count();
        mask(&mut line[start..start + length]);
        at = start + length;
    }
}

/// kubeadm's bootstrap tokens, `[a-z0-9]{6}\.[a-z0-9]{16}`. They stand alone: the names of events (`a-worker.17d…`) have
/// the same form at their end.
fn hide_tokens(line: &mut [u8]) {
    let part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let mut at = TOKEN_ID;
    while let Some(found) = line.get(at..).and_then(|rest| find(rest, b".")) {
        let dot = at + found;
        let secret = dot + 1..dot + 1 + TOKEN_SECRET;
        let start = dot - TOKEN_ID;
        at = dot + 1;
        let Some(bytes) = line.get(secret.clone()) else { return };
        if !bytes.iter().chain(&line[start..dot]).all(|&byte| part(byte)) {
            continue;
        }
        // An escaped line end before it is no part of it.
        let escape = start >= 2 && line[start - 2] == b'\\' && b"nrt".contains(&line[start - 1]);
        let before = start > 0 && !escape && (word(line[start - 1]) || line[start - 1] == b'.');
        let after = line.get(secret.end).is_some_and(|&byte| word(byte));
        if !before && !after {
            mask(&mut line[secret]);
        }
    }
}

/// Overwrites what can be part of a secret, and leaves the ends of lines.
fn mask(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| byte.is_ascii_graphic()).for_each(|byte| *byte = MASK);
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // Few bytes are the first one: the rest is compared rarely.
    let first = *needle.first()?;
    let mut at = 0;
    loop {
        at += haystack.get(at..)?.iter().position(|&byte| byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        let mut output = Vec::new();
        let mut redactor = Redactor::new(&mut output);
        redactor.write_all(text.as_bytes()).unwrap();
        redactor.finish().unwrap();
        String::from_utf8(output).unwrap()
    }

    const TOKEN: &str = "abcdef.0123456789abcdef";
    const HIDDEN: &str = "abcdef.****************";

    #[test]
    fn tokens_are_hidden_wherever_they_stand() {
        for (before, after) in [
            ("", ""),
            ("- token: ", "\n"),
            ("token: \"", "\""),
            ("kubeadm join 10.0.0.2:6443 --token ", " \\\n"),
            ("--token=", " --x"),
            ("a\\n", "\\n b"),
            ("see ", "."),
            ("ä", "ö"),
        ] {
            assert_eq!(redacted(&format!("{before}{TOKEN}{after}")), format!("{before}{HIDDEN}{after}"));
        }
        assert_eq!(redacted(&format!("{TOKEN},{TOKEN}")), format!("{HIDDEN},{HIDDEN}"));
    }

    #[test]
    fn what_only_resembles_a_token_stays() {
        for text in [
            "kind-worker.18a5d7c3f0b1e2d4",
            "xabcdef.0123456789abcdef",
            "abcdef.0123456789abcdef0",
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789ABCDEF",
            "abcde.0123456789abcdef",
            "server.example.org 10.244.0.1 v1.34.4",
            "a.b.c...",
            ".",
            "",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn private_keys_lose_their_content_and_nothing_else_does() {
        let log =
            "before\n-----BEGIN RSA PRIVATE KEY-----\nMIIE+a/=\nabc\n-----END RSA PRIVATE KEY-----\nafter\n";
        assert_eq!(
            redacted(log),
            "before\n-----BEGIN RSA PRIVATE KEY-----\n********\n***\n-----END RSA PRIVATE KEY-----\nafter\n"
        );
        let line = r#"{"key":"-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n","x":1}"#;
        let hidden = redacted(line);
        assert!(
            !hidden.contains("MII") && hidden.ends_with(r#"-----END PRIVATE KEY-----\n","x":1}"#),
            "{hidden}"
        );
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n";
        assert_eq!(redacted(certificate), certificate);
    }

    #[test]
    fn a_key_without_an_end_does_not_hide_the_rest() {
        let log = format!("-----BEGIN PRIVATE KEY-----\n{}", "line\n".repeat(MAX_KEY_LINES + 1));
        let hidden = redacted(&log);
        assert!(hidden.ends_with("****\nline\nline\n"), "{hidden}");
    }

    #[test]
    fn encoded_keys_and_web_tokens_are_hidden() {
        let key = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlF";
        let hidden = redacted(&format!("client-key-data: {key}==\nx"));
        assert!(!hidden.contains("NSUlF") && hidden.ends_with("**\nx"), "{hidden}");
        let hidden = redacted("Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJr.c2ln next");
        assert!(
            hidden.starts_with("Authorization: Bearer eyJhbGciOi***") && hidden.ends_with("* next"),
            "{hidden}"
        );
        assert!(!hidden.contains("c2ln"));
    }

    #[test]
    fn writes_may_split_a_secret() {
        let text = format!(
            "a {TOKEN}\n-----BEGIN EC PRIVATE KEY-----\nsecret\n-----END EC PRIVATE KEY-----\nb {TOKEN}"
        );
        for size in [1, 3, 7] {
            let mut output = Vec::new();
            let mut redactor = Redactor::new(&mut output);
            text.as_bytes().chunks(size).for_each(|chunk| redactor.write_all(chunk).unwrap());
            redactor.finish().unwrap();
            assert_eq!(String::from_utf8(output).unwrap(), redacted(&text));
        }
        assert!(!redacted(&text).contains("secret"));
    }

    #[test]
    fn lengths_stay_even_without_lines() {
        let mut data = vec![0; 3 * MAX_LINE];
        data[10..10 + TOKEN.len()].copy_from_slice(TOKEN.as_bytes());
        let mut output = Vec::new();
        let mut redactor = Redactor::new(&mut output);
        redactor.write_all(&data).unwrap();
        redactor.finish().unwrap();
        assert_eq!(output.len(), data.len());
        assert_eq!(&output[10..10 + HIDDEN.len()], HIDDEN.as_bytes());
    }
}
