//! Archives from recipes: text that stays a recipe whatever a fuzzer does to it.
//!
//! The first line has a letter for each thing that becomes of the whole, see [`Recipe::says`]:
//!
//! * `g`, `z`: it is compressed with gzip or zstd
//! * `u`: nothing marks its end
//! * `w`, `W`: the rest is no recipe but an archive; with `W`, what looks like headers gets a valid checksum
//!
//! Every other letter is for the target. Each further line is something of the archive:
//!
//! * `T|PATH|LINK|CONTENT`: an entry; `T` is its type, as in the header
//! * `x|KEY=VALUE|…`, `g|KEY=VALUE|…`: an extended header
//! * `L|NAME`, `K|NAME`: the long name, or the long target, of the entry that follows
//! * `h|OFFSET=BYTES|…`: what the header of the entry that follows has in another way
//! * `b|PATH|NAME|CONTENT`: a file that is named by its digest, with `PATH` before that; where `NAME` is a letter, later
//!   contents can speak of it: `@NAME` is its digest, `#NAME` its size, `^NAME` its path
//! * `r|BYTES`: a block as it is
//! * `d|OFFSET=BYTES|…`: bytes of the finished archive, compressed if it is, that are to be others
//! * `t|COUNT`: so many bytes are missing at its end
//!
//! In contents, `%n` is the end of a line, `%0` a zero byte, and `%p` fills the block with those.

use std::{collections::HashMap, io::Write};

use kiln_provision::image::Digest;

const BLOCK: usize = 512;
/// What a header or an archive can be told to have at a place is no larger than this.
const MAX_OFFSET: usize = 1 << 20;

/// An archive and what is known of it.
#[derive(Debug)]
pub struct Recipe<'a> {
    letters: &'a [u8],
    /// The finished archive.
    pub archive: Vec<u8>,
    /// Paths and contents of its files; those of an archive that was no recipe are not known.
    pub files: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Recipe<'a> {
    /// Makes the archive of a recipe.
    #[must_use]
    pub fn follow(data: &'a [u8]) -> Self {
        let (letters, rest) = split(data, b'\n');
        let mut kitchen = Kitchen::default();
        if letters.contains(&b'w') || letters.contains(&b'W') {
            kitchen.archive = rest.to_vec();
        } else {
            rest.split(|&byte| byte == b'\n').for_each(|line| kitchen.line(line));
            if !letters.contains(&b'u') {
                kitchen.archive.extend([0; 2 * BLOCK]);
            }
        }
        if letters.contains(&b'W') {
            repair(&mut kitchen.archive);
        }
        let mut recipe = Self { letters, archive: kitchen.archive, files: kitchen.files };
        recipe.archive = recipe.compressed();
        for (offset, bytes) in kitchen.damages {
            overwrite(&mut recipe.archive, offset, &bytes);
        }
        recipe.archive.truncate(recipe.archive.len().saturating_sub(kitchen.missing));
        recipe
    }

    /// Whether its first line has a letter.
    #[must_use]
    pub fn says(&self, letter: u8) -> bool {
        self.letters.contains(&letter)
    }

    fn compressed(&self) -> Vec<u8> {
        if self.says(b'g') {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&self.archive).expect("writing to memory does not fail");
            encoder.finish().expect("writing to memory does not fail")
        } else if self.says(b'z') {
            zstd::encode_all(&self.archive[..], 1).expect("reading from memory does not fail")
        } else {
            self.archive.clone()
        }
    }
}

/// What has been made so far, and what is to come.
#[derive(Default)]
struct Kitchen {
    archive: Vec<u8>,
    files: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of the next header.
    patches: Vec<(usize, Vec<u8>)>,
    /// Of the finished archive.
    damages: Vec<(usize, Vec<u8>)>,
    missing: usize,
    blobs: HashMap<u8, Blob>,
}

/// What can be said of a file that is named by its digest.
struct Blob {
    digest: Digest,
    size: usize,
    path: Vec<u8>,
}

impl Kitchen {
    fn line(&mut self, line: &[u8]) {
        let Some((&kind, rest)) = line.split_first() else { return };
        let rest = rest.strip_prefix(b"|").unwrap_or(rest);
        match kind {
            b'h' => self.patches.extend(placed(rest)),
            b'd' => self.damages.extend(placed(rest)),
            b't' => self.missing = number(rest).unwrap_or_default(),
            b'r' => self.block(rest),
            b'x' | b'g' => {
                let content = rest.split(|&byte| byte == b'|').flat_map(record).collect::<Vec<_>>();
                self.entry(kind, b"extended", b"", &content);
            }
            b'L' | b'K' => self.entry(kind, b"long", b"", &[rest, b"\0"].concat()),
            _ => {
                let (path, rest) = split(rest, b'|');
                let (link, content) = split(rest, b'|');
                let content = self.content(content);
                if kind == b'b' {
                    self.blob(path, link, content);
                } else {
                    self.entry(kind, path, link, &content);
                    self.files.push((path.to_vec(), content));
                }
            }
        }
    }

    fn blob(&mut self, directory: &[u8], name: &[u8], content: Vec<u8>) {
        let digest = Digest::of(&content);
        let path = [directory, digest.hex().as_bytes()].concat();
        self.entry(b'0', &path, b"", &content);
        if let &[name] = name {
            self.blobs.insert(name, Blob { digest, size: content.len(), path: path.clone() });
        }
        self.files.push((path, content));
    }

    fn entry(&mut self, kind: u8, path: &[u8], link: &[u8], content: &[u8]) {
        let mut header = [0; BLOCK];
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for (offset, value) in [
            (0, &path[..path.len().min(100)]),
            (100, format!("{mode:07o}").as_bytes()),
            (108, format!("{uid:07o}").as_bytes()),
            (116, format!("{gid:07o}").as_bytes()),
            (124, format!("{:011o}", content.len()).as_bytes()),
            (136, b"14525237400"),
            (156, &[kind]),
            (157, &link[..link.len().min(100)]),
            (257, b"ustar\x0000"),
        ] {
            overwrite(&mut header, offset, value);
        }
        for (offset, value) in self.patches.drain(..) {
            overwrite(&mut header, offset, &value);
        }
        seal(&mut header);
        self.block(&header);
        self.block(content);
    }

    /// Adds bytes and fills their last block.
    fn block(&mut self, bytes: &[u8]) {
        self.archive.extend(bytes);
        self.archive.resize(self.archive.len().next_multiple_of(BLOCK), 0);
    }

    /// A content with what stands for something else replaced by it.
    fn content(&self, text: &[u8]) -> Vec<u8> {
        let mut content = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((&first, after)) = rest.split_first() {
            let replaced = after.first().and_then(|&second| self.meaning(first, second, content.len()));
            rest = match replaced {
                Some(meaning) => {
                    content.extend(meaning);
                    &after[1..]
                }
                None => {
                    content.push(first);
                    after
                }
            };
        }
        content
    }

    fn meaning(&self, sign: u8, name: u8, position: usize) -> Option<Vec<u8>> {
        match (sign, name) {
            (b'%', b'n') => return Some(b"\n".to_vec()),
            (b'%', b'0') => return Some(b"\0".to_vec()),
            (b'%', b'p') => return Some(vec![0; position.next_multiple_of(BLOCK) - position]),
            _ => {}
        }
        let blob = self.blobs.get(&name)?;
        match sign {
            b'@' => Some(blob.digest.to_string().into_bytes()),
            b'#' => Some(blob.size.to_string().into_bytes()),
            b'^' => Some(blob.path.clone()),
            _ => None,
        }
    }
}

/// What is before the first such byte, and what is after it.
fn split(bytes: &[u8], at: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == at) {
        Some(place) => (&bytes[..place], &bytes[place + 1..]),
        None => (bytes, &[]),
    }
}

/// Bytes and the places where they are to be.
fn placed(fields: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    fields.split(|&byte| byte == b'|').filter_map(|field| {
        let (offset, bytes) = split(field, b'=');
        Some((number(offset)?, bytes.to_vec()))
    })
}

fn number(text: &[u8]) -> Option<usize> {
    let number: usize = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number <= MAX_OFFSET).then_some(number)
}

/// A record of an extended header, whose length counts itself; what has no value is left as it is.
fn record(field: &[u8]) -> Vec<u8> {
    if !field.contains(&b'=') {
        return field.to_vec();
    }
    let rest = field.len() + 2;
    let digits = |length: usize| length.to_string().len();
    let length = rest + digits(rest + digits(rest));
    [length.to_string().as_bytes(), b" ", field, b"\n"].concat()
}

/// Replaces bytes that are there; nothing grows.
fn overwrite(bytes: &mut [u8], offset: usize, value: &[u8]) {
    for (place, &byte) in bytes.iter_mut().skip(offset).zip(value) {
        *place = byte;
    }
}

/// Gives a header its checksum.
fn seal(header: &mut [u8]) {
    overwrite(header, 148, b"        ");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    overwrite(header, 148, format!("{sum:06o}\0 ").as_bytes());
}

fn repair(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        seal(block);
    }
}
