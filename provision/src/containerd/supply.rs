//! Content for several nodes: each blob is read when the first node asks for it, and for all of them.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::OnceCell;

use super::Blob;
use crate::{
    Error, Result,
    cluster::Steps,
    image::{BlobSource, Digest, Parking},
};

/// Where a blob is staged, or why it is not: the same for all who ask.
type Outcome = Result<PathBuf, Arc<Error>>;

/// The blobs that some nodes lack. What was staged goes with this.
#[derive(Debug)]
pub(crate) struct Supply {
    parking: Arc<Parking>,
    blobs: Mutex<HashMap<String, Arc<OnceCell<Outcome>>>>,
    given_up: Arc<AtomicBool>,
    reading: Steps,
}

impl Supply {
    pub(crate) fn new(parking: Parking) -> Self {
        Self {
            parking: Arc::new(parking),
            blobs: Mutex::default(),
            given_up: Arc::default(),
            reading: Steps::default(),
        }
    }

    /// The file of a blob, verified and on disk: see [`Parking::stage`]. It takes as long as reading the blob for the first
    /// who asks, and for those who ask meanwhile.
    ///
    /// # Errors
    /// [`Error::Unfit`] with the cause, which is no node's.
    pub(super) async fn staged(&self, blob: &Blob, source: &BlobSource) -> Result<PathBuf> {
        let cell = {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(blobs.entry(blob.digest.clone()).or_default())
        };
        let outcome = cell.get_or_init(|| async { self.stage(blob, source).await.map_err(Arc::new) }).await;
        outcome.clone().map_err(|source| Error::Unfit { source })
    }

    async fn stage(&self, blob: &Blob, source: &BlobSource) -> Result<PathBuf> {
        let (digest, size, source) = (Digest::try_new(&blob.digest)?, blob.size, source.clone());
        let (parking, given_up) = (Arc::clone(&self.parking), Arc::clone(&self.given_up));
        self.reading.run(move || parking.stage(&source, &digest, size, &given_up)).await
    }

    /// Ends it. Returns when nothing reads any more, and what was staged is gone: a process that ends earlier leaves it.
    pub(crate) async fn end(self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.reading.settle().await;
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        // A thread that still reads lets go of the directory, which is removed then.
        self.given_up.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read},
        sync::atomic::AtomicUsize,
    };

    use super::*;
    use crate::image::{Blobs, Store};

    /// Content that counts how often it is read.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl Blobs for Counted {
        fn size(&self, _: &Digest) -> io::Result<Option<u64>> {
            Ok(Some(7))
        }

        fn open(&self, _: &Digest) -> io::Result<Box<dyn Read + Send>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(&b"content"[..]))
        }
    }

    fn blob(digest: Digest) -> Blob {
        let data = super::super::BlobData::Bytes(Vec::new());
        Blob { digest: digest.to_string(), media_type: String::new(), size: 7, data }
    }

    #[tokio::test]
    async fn content_is_read_once_for_all_and_gone_with_the_supply() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let supply = Supply::new(store.parking().unwrap());
        let counted = Arc::new(Counted::default());
        let ask = |digest| {
            let source = BlobSource::Elsewhere(Arc::clone(&counted) as Arc<dyn Blobs>, digest);
            let supply = &supply;
            async move { supply.staged(&blob(digest), &source).await }
        };
        let digest = Digest::of(b"content");
        let (one, other) = tokio::join!(ask(digest), ask(digest));
        let path = one.unwrap();
        assert_eq!(path, other.unwrap());
        assert_eq!(fs_err::read(&path).unwrap(), b"content");
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);

        // What is wrong is not read again to find that out again.
        let (one, other) = tokio::join!(ask(Digest::of(b"")), ask(Digest::of(b"")));
        for error in [one.unwrap_err(), other.unwrap_err()] {
            assert!(error.to_string().contains("has digest"), "{error}");
        }
        assert_eq!(counted.0.load(Ordering::Relaxed), 2);
        drop(supply);
        assert_eq!(fs_err::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }

    /// Content that is not there before somebody says so.
    #[derive(Debug)]
    struct Slow(Mutex<std::sync::mpsc::Receiver<()>>, tokio::sync::Notify);

    impl Blobs for Slow {
        fn size(&self, _: &Digest) -> io::Result<Option<u64>> {
            Ok(Some(7))
        }

        fn open(&self, _: &Digest) -> io::Result<Box<dyn Read + Send>> {
            self.1.notify_one();
            let _ = self.0.lock().unwrap().recv();
            Ok(Box::new(&b"content"[..]))
        }
    }

    #[tokio::test]
    async fn ending_waits_for_what_still_reads_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let supply = Supply::new(store.parking().unwrap());
        let parked = supply.parking.path().to_owned();
        let (release, released) = std::sync::mpsc::channel();
        let slow = Arc::new(Slow(Mutex::new(released), tokio::sync::Notify::new()));
        let digest = Digest::of(b"content");
        let source = BlobSource::Elsewhere(Arc::clone(&slow) as Arc<dyn Blobs>, digest);
        let blob = blob(digest);
        tokio::select! {
            _ = supply.staged(&blob, &source) => panic!("it has read what is not there"),
            () = slow.1.notified() => {}
        }
        let mut ending = std::pin::pin!(supply.end());
        let ended = tokio::time::timeout(std::time::Duration::from_millis(50), &mut ending).await;
        assert!(ended.is_err() && parked.is_dir(), "the thread still reads");
        release.send(()).unwrap();
        ending.await;
        assert!(!parked.exists());
    }
}
