//! What a registry answers to whom it does not know: `WWW-Authenticate`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By name and password.
    Basic,
    /// By a token, which `realm` hands out.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenge of an answer that Kiln can meet; a token rather than a password where both are taken.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<_> = values.flat_map(parse).collect();
    let bearer = all.iter().find(|challenge| **challenge != Challenge::Basic);
    bearer.or(all.first()).cloned()
}

/// The challenges of one header: schemes with parameters, all separated by commas.
fn parse(header: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in split(header) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let words: Vec<&str> = name.split_whitespace().collect();
        let key = match words[..] {
            // A scheme with its first parameter, or without any.
            [scheme, key] => {
                schemes.push((scheme.to_ascii_lowercase(), Vec::new()));
                key
            }
            [scheme] if !part.contains('=') => {
                schemes.push((scheme.to_ascii_lowercase(), Vec::new()));
                continue;
            }
            [key] => key,
            _ => continue,
        };
        if let Some((_, parameters)) = schemes.last_mut() {
            parameters.push((key.to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    let known = schemes.into_iter().filter_map(|(scheme, mut parameters)| {
        let mut take = |key: &str| {
            let index = parameters.iter().position(|(known, _)| known == key)?;
            Some(parameters.swap_remove(index).1)
        };
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: take("realm")?,
                service: take("service"),
                scope: take("scope"),
            }),
            _ => None,
        }
    });
    known.collect()
}

/// Splits at commas that are not within quotes.
fn split(header: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, character) in header.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(header[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(header[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let [service, scope] = [service, scope].map(|value| value.map(str::to_owned));
        Challenge::Bearer { realm: realm.to_owned(), service, scope }
    }

    #[test]
    fn challenges_are_read_in_all_their_forms() {
        let scope = "repository:a/b:pull,push";
        let cases = [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://t/token\",service=\"s\",scope=\"repository:a/b:pull,push\"",
                vec![bearer("https://t/token", Some("s"), Some(scope))],
            ),
            (
                "BEARER Realm=https://t , SERVICE = \"a \\\"b\\\"\", error=\"x\"",
                vec![bearer("https://t", Some("a \"b\""), None)],
            ),
            ("Basic realm=x, Bearer realm=y", vec![Challenge::Basic, bearer("y", None, None)]),
            ("Negotiate, Basic realm=x", vec![Challenge::Basic]),
            ("Bearer service=s", vec![]),
            ("", vec![]),
            ("a b c d=e,=,\",", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_token_is_preferred() {
        let mut headers = HeaderMap::new();
        assert_eq!(challenge(&headers), None);
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        assert_eq!(challenge(&headers), Some(Challenge::Basic));
        headers.append(WWW_AUTHENTICATE, "Bearer realm=y".parse().unwrap());
        assert_eq!(challenge(&headers), Some(bearer("y", None, None)));
    }
}
