//! A registry as its clients see it: the distribution API over plain HTTP, on the loopback interface.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::TestImage;

/// A registry that answers on a port of `127.0.0.1`.
#[derive(Clone, Copy, Debug)]
pub struct Hub(pub u16);

/// What it answered.
#[derive(Debug)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Hub {
    /// Pushes an image: blobs, then the manifest under a tag.
    ///
    /// # Panics
    /// When the registry refuses any of it.
    #[track_caller]
    pub fn push(self, repository: &str, tag: &str, image: &TestImage) {
        for (digest, content) in image.blobs() {
            let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]).expecting(202);
            let location = begun.header("location").unwrap_or_else(|| panic!("no location: {}", begun.head));
            // A URL of this very host, or a path.
            let path = location
                .split_once("://")
                .map_or(location.as_str(), |(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
            let joint = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{joint}digest={digest}");
            let _ = self.ask("PUT", &path, "application/octet-stream", content).expecting(201);
        }
        let (kind, manifest) = image.manifest();
        let _ = self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), kind, &manifest).expecting(201);
    }

    /// What it answers to a GET, as JSON.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    #[must_use]
    pub fn get(self, path: &str) -> Value {
        let answer = self.ask("GET", path, "", &[]).expecting(200);
        serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.head))
    }

    #[track_caller]
    fn ask(self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let port = self.0;
        let fail = |error: std::io::Error| -> ! { panic!("{method} {path} of localhost:{port}: {error}") };
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_or_else(|error| fail(error));
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap_or_else(|error| fail(error));
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        // With the older version the answer ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost:{port}\r\n{kind}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .unwrap_or_else(|error| fail(error));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_else(|error| fail(error));
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(answer.len());
        let body = answer.split_off((end + 4).min(answer.len()));
        Answer { head: String::from_utf8_lossy(&answer).into_owned(), body }
    }
}

impl Answer {
    #[track_caller]
    fn expecting(self, status: u16) -> Self {
        let line = self.head.lines().next().unwrap_or_default();
        assert!(
            line.split(' ').nth(1) == Some(&status.to_string()),
            "{status} was expected:\n{}\n{}",
            self.head,
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    fn header(&self, name: &str) -> Option<String> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }
}
