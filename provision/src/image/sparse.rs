//! Sparse files in archives: which parts of a file are there, and which are holes.

use std::io;

use super::{archive::invalid, pax};

/// A part of a file that is in the archive; what lies between them are holes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// What extended headers say about a sparse file.
#[derive(Default)]
pub(super) struct Sparse {
    pub(super) major: u64,
    pub(super) size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Offset, length, offset, length…
    map: Vec<u64>,
}

impl Sparse {
    pub(super) fn record(&mut self, key: &[u8], value: Vec<u8>) -> io::Result<()> {
        match key {
            b"major" => self.major = pax::number(&value)?,
            b"name" => self.name = Some(value),
            b"size" | b"realsize" => self.size = Some(pax::number(&value)?),
            // Format 0.0 has a record for each number, 0.1 one for all.
            b"offset" | b"numbytes" => self.map.push(pax::number(&value)?),
            b"map" => {
                let numbers = value.split(|&byte| byte == b',').filter(|number| !number.is_empty());
                self.map = numbers.map(pax::number).collect::<io::Result<_>>()?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn segments(&self) -> io::Result<Vec<Segment>> {
        if !self.map.len().is_multiple_of(2) {
            return Err(invalid("its map of holes is malformed"));
        }
        Ok(self.map.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
    }
}

/// Makes sure that segments follow each other within the file and that the archive has all of their content.
pub(super) fn check_segments(segments: &[Segment], size: u64, content: u64) -> io::Result<()> {
    let (mut end, mut total) = (0, 0_u64);
    for segment in segments {
        let next =
            segment.offset.checked_add(segment.length).filter(|&next| segment.offset >= end && next <= size);
        end = next.ok_or_else(|| invalid("its map of holes is malformed"))?;
        // Cannot overflow: segments do not overlap.
        total += segment.length;
    }
    if total > content { Err(invalid("its content is too short for its map of holes")) } else { Ok(()) }
}
