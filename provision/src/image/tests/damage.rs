//! Archives that were fine before something happened to them. `make damage` does it for longer; the fuzz targets do
//! it as well, and see where their inputs lead.

use std::{
    io::Read,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    Tar,
    bundles::{Host, oci_archive},
    hostile::Scene,
    unpack,
};
use crate::{
    damage::{Damage, cases},
    image::{
        stream::{Compression, decompress},
        unpack::extract,
    },
};

/// What the slowest case may take: far more than any needs, far less than one that does not end.
const PATIENCE: Duration = Duration::from_secs(20);

/// An archive with every kind of entry.
fn sample() -> Vec<u8> {
    let mut archive = Tar::default();
    archive.directory("d").file("d/file", "some content").symlink("d/link", "../d").link("hard", "d/file");
    archive.pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"b")]).file("x", "more content");
    archive.entry(b'L', "long", "", 0, &[b"d/", &[b'n'; 120][..], b"\0"].concat()).file("x", "y");
    archive.symlink("up", "/").file("up/d/new", "x").file("d/.wh.gone", "").file("d/.wh..wh..opq", "");
    archive.device("null", 1, 3).entry(b'6', "fifo", "", 0o644, b"");
    archive.pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"0,2,8000,3")]).file("old", "12345");
    archive
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9000")])
        .file("new", &format!("{:\0<512}12345", "2\n0\n2\n8000\n3\n"));
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..6].copy_from_slice(b"sparse");
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(5);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize = *b"00000021450\0";
    gnu.sparse[0].offset = *b"00000000000\0";
    gnu.sparse[0].numbytes = *b"00000000002\0";
    gnu.sparse[1].offset = *b"00000017500\0";
    gnu.sparse[1].numbytes = *b"00000000003\0";
    archive.header(header, b"12345").directory("d");
    archive.bytes()
}

/// Makes headers valid again, so that damage gets past their checksums into the rest.
fn repair(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}

#[test]
fn the_sample_is_sound() {
    Scene::new().watched(|root| match unpack(&sample(), root) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => println!("skipped: needs root"),
        outcome => outcome.unwrap(),
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(400)) })]

    #[test]
    fn damaged_archives_neither_panic_nor_escape(
        damages in prop::collection::vec(any::<Damage>(), 0..6),
        repaired in any::<bool>(),
    ) {
        let mut bytes = sample();
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        if repaired {
            repair(&mut bytes);
        }
        let started = Instant::now();
        let _ = Scene::new().watched(|root| unpack(&bytes, root));
        prop_assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    }

    #[test]
    fn damaged_compression_is_an_error_or_nothing(
        damages in prop::collection::vec(any::<Damage>(), 1..6),
        zstd in any::<bool>(),
    ) {
        let (compression, mut bytes) = if zstd {
            (Compression::Zstd, zstd::encode_all(&sample()[..], 3).unwrap())
        } else {
            let sample = sample();
            let mut encoder = flate2::read::GzEncoder::new(&sample[..], flate2::Compression::fast());
            let mut bytes = Vec::new();
            encoder.read_to_end(&mut bytes).unwrap();
            (Compression::Gzip, bytes)
        };
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        let started = Instant::now();
        let _ = Scene::new().watched(|root| {
            let root = fs_err::File::open(root).unwrap();
            decompress(&bytes[..], compression, 64 << 20, |archive| {
                extract(archive, root.as_fd(), &mut None)
            })
        });
        prop_assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    }

    #[test]
    fn damaged_archives_of_images_leave_nothing(damages in prop::collection::vec(any::<Damage>(), 0..6)) {
        let mut bytes = oci_archive(Some("example.com/a:1")).0.bytes();
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        repair(&mut bytes);
        // Reading makes sure that what it says is there is so, and that nothing is left in the store.
        let host = Host::new();
        if let Err(error) = host.park(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
        // Where it is, what no image needs may be wrong.
        if let Err(error) = host.locate(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
