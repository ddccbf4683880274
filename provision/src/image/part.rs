//! A part of a file, read where it is.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use fs_err::{File, os::unix::fs::FileExt};

/// So many bytes of an open file from one offset on. Any number of readers may read it at once.
#[derive(Clone, Debug)]
pub struct FilePart {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl FilePart {
    /// All of a file.
    pub(super) fn whole(file: Arc<File>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, offset: 0, length })
    }

    /// A part of this part.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when it does not reach so far.
    pub(super) fn part(&self, offset: u64, length: u64) -> io::Result<Self> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => {
                Ok(Self { file: Arc::clone(&self.file), offset: self.offset + offset, length })
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads it from its beginning. That it ends early, because somebody has cut the file, is an error.
    #[must_use]
    pub fn reader(&self) -> PartReader {
        PartReader { part: self.clone(), position: 0 }
    }
}

/// A reader of a [`FilePart`], with a position of its own.
#[derive(Debug)]
pub struct PartReader {
    part: FilePart,
    position: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.part.length.saturating_sub(self.position);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.part.file.read_at(&mut buffer[..wanted], self.part.offset + self.position)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for PartReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.part.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_side_by_side_and_end_where_they_should() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs_err::write(&path, "0123456789").unwrap();
        let whole = FilePart::whole(Arc::new(File::open(&path).unwrap())).unwrap();
        let part = whole.part(2, 5).unwrap();
        let (mut one, mut other) = (part.reader(), part.reader());
        let mut start = [0; 3];
        one.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"234");
        assert_eq!(io::read_to_string(&mut other).unwrap(), "23456");
        assert_eq!(io::read_to_string(&mut one).unwrap(), "56");
        one.seek(SeekFrom::End(-1)).unwrap();
        assert_eq!(io::read_to_string(&mut one).unwrap(), "6");
        assert_eq!(io::read_to_string(part.part(4, 1).unwrap().reader()).unwrap(), "6");
        assert_eq!(part.part(4, 2).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(part.part(u64::MAX, 2).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        fs_err::write(&path, "012").unwrap();
        let error = io::read_to_string(part.reader()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
