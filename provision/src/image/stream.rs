//! Reading a compressed layer: decompressed on one thread, used on another, hashed on both.

use std::{
    io::{self, BufRead, BufReader, Read},
    mem, panic,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use flate2::bufread::MultiGzDecoder;

use super::{
    Digest,
    digest::{Hashed, Hasher},
};

/// Bytes that go from one thread to the other at a time: large enough to make hand-over cheap, small enough to stay
/// in the processor's cache.
const CHUNK: usize = 256 * 1024;
/// Chunks that may wait for the user, so that neither thread stops for the hiccups of the other.
const QUEUE: usize = 8;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// What the media type of a layer says, Docker's or OCI's, distributable or not; `None` if it is no layer.
    pub(super) fn of_layer(media_type: &str) -> Option<Self> {
        let kind = media_type
            .strip_prefix("application/vnd.oci.image.layer.v1.")
            .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1."))
            .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff."))
            .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff."))?;
        match kind {
            "tar" => Some(Self::None),
            "tar+gzip" | "tar.gzip" => Some(Self::Gzip),
            "tar+zstd" | "tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The two names of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    /// Of the layer as stored.
    pub(super) compressed: Digest,
    /// Of the archive in it.
    pub(super) content: Digest,
}

/// Decompresses `source` for `consume`, which need not read to the end, and returns what it returns and the digests of
/// everything. More than `limit` decompressed bytes are an error.
pub(super) fn decompress<T>(
    source: impl Read + Send,
    compression: Compression,
    limit: u64,
    consume: impl FnOnce(&mut Stream) -> io::Result<T>,
) -> io::Result<(T, Digests)> {
    let (chunks, incoming) = sync_channel(QUEUE);
    let (spent, empty) = channel();
    thread::scope(|scope| {
        let producer = scope.spawn(move || produce(source, compression, &chunks, &empty));
        let mut stream = Stream {
            incoming,
            spent,
            chunk: Vec::new(),
            position: 0,
            hasher: Hasher::default(),
            left: limit,
            limit,
        };
        let outcome = consume(&mut stream).and_then(|value| {
            stream.drain()?;
            Ok(value)
        });
        // Without a receiver the producer ends at its next chunk.
        let content = mem::take(&mut stream.hasher).finish();
        drop(stream);
        let compressed = producer.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
        Ok((outcome?, Digests { compressed: compressed?, content }))
    })
}

/// The decompressed side.
#[derive(Debug)]
pub(super) struct Stream {
    incoming: Receiver<io::Result<Vec<u8>>>,
    spent: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    hasher: Hasher,
    left: u64,
    limit: u64,
}

impl Stream {
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let count = self.fill_buf()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.chunk.len() {
            self.position = 0;
            // The producer may be gone already: then nobody needs the buffer.
            let _ = self.spent.send(mem::take(&mut self.chunk));
            if let Ok(chunk) = self.incoming.recv() {
                let chunk = chunk?;
                self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::FileTooLarge,
                        format!("it decompresses to more than {} GiB", self.limit >> 30),
                    )
                })?;
                self.hasher.update(&chunk);
                self.chunk = chunk;
            }
        }
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let count = available.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Sends the decompressed `source`, or the error that ends it, and returns the digest of the compressed bytes.
fn produce(
    source: impl Read,
    compression: Compression,
    chunks: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Digest> {
    let mut source = Hashed::new(source);
    let outcome = match compression {
        Compression::None => pump(&mut source, chunks, empty),
        // Tools for parallel compression write several members.
        Compression::Gzip => {
            pump(&mut MultiGzDecoder::new(BufReader::with_capacity(CHUNK, &mut source)), chunks, empty)
        }
        Compression::Zstd => {
            zstd::Decoder::new(&mut source).and_then(|mut decoder| pump(&mut decoder, chunks, empty))
        }
    };
    match outcome {
        // What follows the compressed stream belongs to the blob.
        Ok(End::Source) => drop(io::copy(&mut source, &mut io::sink())?),
        // A receiver that is gone has an error of its own: nobody asks for the digest any more.
        Ok(End::Receiver) => {}
        Err(error) => drop(chunks.send(Err(error))),
    }
    Ok(source.into_parts().1)
}

/// What ended a transfer.
enum End {
    Source,
    Receiver,
}

fn pump(
    source: &mut impl Read,
    chunks: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<End> {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match source.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        chunk.truncate(filled);
        if filled == 0 {
            return Ok(End::Source);
        }
        if chunks.send(Ok(chunk)).is_err() {
            return Ok(End::Receiver);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(stream: &mut Stream) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        stream.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn content_and_digests_are_those_of_the_input() {
        let content: Vec<u8> = (0..3 * CHUNK as u32).flat_map(u32::to_le_bytes).collect();
        let members = [gzip(&content[..1000]), gzip(&content[1000..])].concat();
        let frames = zstd::encode_all(&content[..], 1).unwrap();
        for (compression, blob) in
            [(Compression::None, content.clone()), (Compression::Gzip, members), (Compression::Zstd, frames)]
        {
            let (read, digests) = decompress(&blob[..], compression, u64::MAX, read_all).unwrap();
            assert!(read == content, "{compression:?}");
            assert_eq!(digests, Digests { compressed: Digest::of(&blob), content: Digest::of(&content) });
            // A user that stops early changes nothing about the digests.
            let (_, early) = decompress(&blob[..], compression, u64::MAX, |_| Ok(())).unwrap();
            assert_eq!(early, digests);
            let error = decompress(&blob[..], compression, content.len() as u64 - 1, read_all).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn truncated_and_broken_streams_are_errors() {
        let content = vec![7; 1 << 20];
        for (compression, blob) in [
            (Compression::Gzip, gzip(&content)),
            (Compression::Zstd, zstd::encode_all(&content[..], 1).unwrap()),
        ] {
            decompress(&blob[..blob.len() - 1], compression, u64::MAX, read_all).unwrap_err();
            decompress(&b"not compressed"[..], compression, u64::MAX, read_all).unwrap_err();
        }
    }

    #[test]
    fn an_error_of_the_user_ends_the_stream() {
        let error = decompress(io::repeat(0), Compression::None, u64::MAX, |_| {
            Err::<(), _>(io::Error::other("enough"))
        });
        assert_eq!(error.unwrap_err().to_string(), "enough");
    }

    #[test]
    fn media_types_name_the_compression() {
        let of = Compression::of_layer;
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar"), Some(Compression::None));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd"), Some(Compression::Zstd));
        assert_eq!(of("application/vnd.docker.image.rootfs.diff.tar.gzip"), Some(Compression::Gzip));
        assert_eq!(of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), Some(Compression::Gzip));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+lzma"), None);
        assert_eq!(of("application/vnd.oci.image.config.v1+json"), None);
    }
}
