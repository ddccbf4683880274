//! Whether the store is what it says: every blob, every image, every unpacked layer.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{
    Digest, Layer, Store,
    archive::{Archive, Entry, Kind},
    digest::Hashed,
    failed,
    index::Index,
    inode,
    manifest::read_image,
    stream::{Compression, decompress},
    unpack::MAX_BYTES,
    usage::digests,
};
use crate::{Reporter, Result, error::with_causes};

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Names with their images.
    pub images: usize,
    /// Blobs.
    pub blobs: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// What is damaged; nothing, if all is well.
    pub damage: Vec<Damage>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `image`, `blob` or `layer`.
    pub kind: &'static str,
    /// The image's name or the digest.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Store {
    /// Reads everything in the store: blobs must be what their digests say, images must have all that this host needs of
    /// them, and unpacked layers must have every file that their archives have, as it is there. Layers that were derived
    /// from an image must be as they were made; one whose archive is in no image of the store is not read.
    ///
    /// # Errors
    /// The store cannot be read. What is damaged is no error, but in what is returned.
    pub fn verify(&self, reporter: &dyn Reporter) -> Result<Verified> {
        let mut verified = Verified::default();
        let reading = |what: &str| failed(format!("read {what} of the image store"), self.root());
        let blobs = digests(&self.root().join("blobs/sha256")).map_err(reading("the blobs"))?;
        for (digest, path) in blobs {
            reporter.step(&format!("blob {}", digest.hex()));
            let hashed = fs_err::File::open(&path).and_then(|file| {
                let mut file = Hashed::new(file);
                io::copy(&mut file, &mut io::sink())?;
                Ok(file.into_parts().1)
            });
            verified.blobs += 1;
            match hashed {
                Ok(actual) if actual == digest => {}
                Ok(actual) => verified.add("blob", digest, format!("it has digest {actual}")),
                // Removed by another process meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => verified.blobs -= 1,
                Err(error) => verified.add("blob", digest, error.to_string()),
            }
        }
        let mut archives: BTreeMap<Digest, Layer> = BTreeMap::new();
        for (name, descriptor) in Index::read(self.root())?.entries() {
            verified.images += 1;
            match read_image(self, name, descriptor) {
                Ok(image) => {
                    for layer in &image.layers {
                        match fs_err::metadata(self.blob_path(&layer.digest)) {
                            Ok(metadata) if metadata.len() == layer.size => {
                                archives.insert(layer.diff_id, layer.clone());
                            }
                            Ok(metadata) => {
                                let (found, size) = (metadata.len(), layer.size);
                                let problem =
                                    format!("its layer {} has {found} bytes, not {size}", layer.digest);
                                verified.add("image", name.familiar(), problem);
                            }
                            Err(_) => {
                                let problem = format!("its layer {} is not there", layer.digest);
                                verified.add("image", name.familiar(), problem);
                            }
                        }
                    }
                }
                Err(error) => verified.add("image", name.familiar(), with_causes(&error)),
            }
        }
        for (digest, _) in digests(&self.root().join("layers")).map_err(reading("the layers"))? {
            reporter.step(&format!("layer {}", digest.hex()));
            verified.layers += 1;
            if let Some(problem) = self.layer_problem(&digest, archives.get(&digest)) {
                verified.add("layer", digest, problem);
            }
        }
        Ok(verified)
    }

    fn layer_problem(&self, diff_id: &Digest, layer: Option<&Layer>) -> Option<String> {
        let root = match fs_err::File::open(self.layer_path(diff_id)) {
            Ok(root) => root,
            // Removed by another process meanwhile.
            Err(_) if !self.layer_directory(diff_id).exists() => return None,
            Err(error) => return Some(error.to_string()),
        };
        if let Some(problem) = self.derived_problem(diff_id) {
            return Some(problem);
        }
        let layer = layer?;
        let compression = Compression::of_layer(&layer.media_type)?;
        // A blob that is damaged has been told as such.
        let blob = self.open_blob(&layer.digest).ok()?.into_parts().0;
        let compared = decompress(blob, compression, MAX_BYTES, |archive| {
            compare(&mut Archive::new(io::BufReader::new(archive)), root.file())
        });
        match compared {
            Ok((problem, _)) => problem,
            Err(error) => Some(format!("its archive cannot be read: {error}")),
        }
    }
}

impl Verified {
    fn add(&mut self, kind: &'static str, name: impl ToString, problem: String) {
        self.damage.push(Damage { kind, name: name.to_string(), problem });
    }
}

/// The first file of an archive that the tree does not have as the archive has it. Of a path that comes twice, the last
/// entry counts.
fn compare<R: io::BufRead>(archive: &mut Archive<R>, root: &File) -> io::Result<Option<String>> {
    let mut problems: BTreeMap<Vec<u8>, Option<String>> = BTreeMap::new();
    while let Some(entry) = archive.next()? {
        let name = entry.path.rsplit(|&byte| byte == b'/').find(|part| !part.is_empty()).unwrap_or_default();
        let is_whiteout = name.starts_with(b".wh.");
        // Where `..` leads depends on links that may have been replaced since.
        if is_whiteout || name.is_empty() || entry.path.split(|&byte| byte == b'/').any(|part| part == b"..")
        {
            continue;
        }
        let problem = difference(archive, &entry, root)?;
        problems.insert(entry.path, problem);
    }
    let first = problems.into_iter().find_map(|(path, problem)| Some((path, problem?)));
    Ok(first.map(|(path, problem)| format!("{:?} {problem}", String::from_utf8_lossy(&path))))
}

fn difference<R: io::BufRead>(
    archive: &mut Archive<R>,
    entry: &Entry,
    root: &File,
) -> io::Result<Option<String>> {
    let path = inode::to_path(&entry.path);
    let open = |flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(root.as_fd(), &path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    };
    let metadata = match open(OFlags::PATH) {
        Ok(file) => File::from(file).metadata()?,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Some("is not there".to_owned())),
        Err(error) => return Err(error.into()),
    };
    let kind = metadata.file_type();
    let same_kind = match entry.kind {
        Kind::File => kind.is_file(),
        Kind::Directory => kind.is_dir(),
        Kind::Symlink(_) => kind.is_symlink(),
        _ => true,
    };
    if !same_kind {
        return Ok(Some("is something else".to_owned()));
    }
    if entry.kind != Kind::File {
        return Ok(None);
    }
    if metadata.size() != entry.size {
        return Ok(Some(format!("has {} bytes, not {}", metadata.size(), entry.size)));
    }
    let mut comparison =
        Comparison { file: File::from(open(OFlags::RDONLY)?), buffer: Vec::new(), differs: false };
    // Files with holes are looked at only this far.
    if entry.is_sparse() {
        return Ok(None);
    }
    archive.write_content(entry, &mut comparison)?;
    Ok(comparison.differs.then(|| "has other content".to_owned()))
}

/// Takes the content of a file and compares it with what is in another.
struct Comparison {
    file: File,
    buffer: Vec<u8>,
    differs: bool,
}

impl Write for Comparison {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        if !self.differs {
            self.buffer.resize(content.len(), 0);
            match self.file.read_exact(&mut self.buffer) {
                Ok(()) => self.differs = self.buffer != content,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.differs = true,
                Err(error) => return Err(error),
            }
        }
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
