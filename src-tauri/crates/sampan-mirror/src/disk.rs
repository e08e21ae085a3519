//! A blob from the cache: hashed on its first read since start, so that damage on disk is found before a client has it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sampan_oci::{Digest, Hasher};
use sampan_store::{BlobFile, Store, StoreError};

use crate::body::Course;
use crate::download::{READ_BYTES, SMALL_BYTES, TAIL_BYTES, releasable};
use crate::error::PullError;
use crate::sendfile::Conduit;

/// How long a client waits for its head while a blob is hashed of which it wants a part. Damage that is found by then is
/// mended without its noticing; a large blob on a slow disk takes longer than it would wait (CLIENTS.md 2).
pub(crate) const HASHED_WITHIN: Duration = Duration::from_secs(2);

/// The hashing of a blob on disk: whether it is right. It goes on whoever waits for it.
pub(crate) type Check = BoxFuture<'static, Result<bool, PullError>>;

/// What is known of a blob on disk.
pub(crate) enum Soundness {
    /// It may be served: it is right, or will be hashed on its way to the client.
    Sound,
    /// It is damaged, and was taken out of the cache.
    Damaged,
    /// It is being hashed. Until that is done, all but the end of an answer may be let out.
    Awaited(Check),
}

/// Finds out whether `file` may be served. A whole large blob is not read twice: [`DiskReader`] hashes it on its way to the
/// client. Otherwise `check` is begun, which is [`check`], and waited for so long; `None`: to its end.
pub(crate) async fn sound(
    file: &BlobFile,
    whole: bool,
    check: impl FnOnce() -> Check,
    within: Option<Duration>,
) -> Result<Soundness, PullError> {
    if file.verified() || (whole && file.size() > SMALL_BYTES) {
        return Ok(Soundness::Sound);
    }
    let mut check = check();
    let checked = match within {
        Some(within) => tokio::time::timeout(within, &mut check).await,
        None => Ok((&mut check).await),
    };
    match checked {
        Err(_) => Ok(Soundness::Awaited(check)),
        Ok(checked) => Ok(if checked? { Soundness::Sound } else { Soundness::Damaged }),
    }
}

/// Hashes a file, and takes it out of the cache if it is damaged; what the disk cannot read is damaged as well.
pub(crate) async fn check(store: &Store, file: &BlobFile) -> Result<bool, PullError> {
    let sound = match file.verify().await {
        Err(StoreError::Io(error)) if unreadable(&error) => false,
        checked => checked?,
    };
    if !sound {
        tracing::warn!(digest = %file.digest(), "a blob was damaged on disk; it is fetched again");
        give_up(store, file).await;
    }
    Ok(sound)
}

/// Whether the disk has lost the bytes it was asked for: damage as much as wrong bytes are, but told by the disk itself.
pub(crate) fn unreadable(error: &io::Error) -> bool {
    // EIO; on Windows ERROR_CRC.
    error.raw_os_error() == Some(if cfg!(windows) { 23 } else { 5 })
}

/// Takes a damaged blob out of the cache. On a disk that cannot be written it stays, and is not served all the same.
pub(crate) async fn give_up(store: &Store, file: &BlobFile) {
    if let Err(error) = store.quarantine_file(file).await {
        tracing::warn!(digest = %file.digest(), %error, "a damaged blob could not be removed");
    }
}

/// Reads `start..end` of a blob on disk.
pub(crate) struct DiskReader {
    store: Store,
    digest: Digest,
    file: BlobFile,
    at: u64,
    end: u64,
    /// Present while an unverified blob is read whole.
    hasher: Option<Hasher>,
    /// Present while the blob is hashed beside this answer.
    check: Option<Check>,
    /// How a verified file gets to the client without being read, and the answer it is sent for; `None`: it has to be read.
    conduit: Option<(Conduit, Arc<Course>)>,
}

impl DiskReader {
    /// [`sound`] must have allowed it for the same range, which is not empty; `check` is what it said to wait for.
    pub(crate) fn new(
        store: Store,
        file: BlobFile,
        check: Option<Check>,
        start: u64,
        end: u64,
        conduit: Option<(Conduit, Arc<Course>)>,
    ) -> Self {
        let digest = file.digest();
        let whole = start == 0 && end == file.size();
        // A part is never hashed by itself: it was waited for, or is being waited for.
        let hasher = (whole && check.is_none() && !file.verified()).then(|| digest.hasher());
        Self { store, digest, file, at: start, end, hasher, check, conduit }
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        if self.at == self.end {
            return Ok(None);
        }
        // Whoever hashed it has taken it out of the cache.
        let Some(limit) = self.limit().await? else { return Err(self.broken_off(self.digest)) };
        if let Some(stand_in) = self.send().await? {
            return Ok(Some(stand_in));
        }
        let mut wanted = usize::try_from(limit - self.at).unwrap_or(READ_BYTES).min(READ_BYTES);
        // The tail is read last and by itself: it is the part that is held back until the digest is known.
        let tail_at = self.end.saturating_sub(TAIL_BYTES);
        if self.hasher.is_some() && self.at < tail_at {
            wanted = wanted.min(usize::try_from(tail_at - self.at).unwrap_or(wanted));
        }
        let bytes = match self.file.read_at(self.at, wanted).await {
            Ok(bytes) => bytes,
            Err(error) if unreadable(&error) => return self.damaged(self.digest).await,
            Err(error) => return Err(StoreError::from(error).into()),
        };
        self.at += bytes.len() as u64;
        let ended = self.at == self.end;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        if bytes.is_empty() {
            return self.damaged(self.digest).await;
        }
        if ended && let Some(hasher) = self.hasher.take() {
            let actual = hasher.finish();
            if actual != self.digest {
                return self.damaged(actual).await;
            }
            self.file.mark_verified();
        }
        Ok(Some(bytes))
    }

    /// Up to where bytes may be let out now; waits for the blob's hashing where that is before the next one. `None`: it is
    /// damaged.
    async fn limit(&mut self) -> Result<Option<u64>, PullError> {
        let Some(check) = &mut self.check else { return Ok(Some(self.end)) };
        let size = self.file.size();
        let limit = releasable(size, size, self.end);
        // Whoever takes long is not held back longer than the hashing takes, and learns early of damage.
        let done = if self.at < limit { check.now_or_never() } else { Some(check.await) };
        let Some(checked) = done else { return Ok(Some(limit)) };
        self.check = None;
        Ok(checked?.then_some(self.end))
    }

    /// Has the next bytes sent straight from the file, where that can be done; returns what stands for them. Bytes that are
    /// still to be hashed have to be read anyway: hashing is what that answer costs, not the copying.
    async fn send(&mut self) -> Result<Option<Bytes>, PullError> {
        let Some((conduit, course)) =
            self.conduit.as_ref().filter(|_| self.hasher.is_none() && self.check.is_none())
        else {
            return Ok(None);
        };
        let Some(len) = conduit.fits(&self.file, self.end - self.at) else { return Ok(None) };
        match conduit.bring(&self.file, self.at, len).await {
            Ok(true) => {}
            Ok(false) => return self.damaged(self.digest).await,
            Err(error) if unreadable(&error) => return self.damaged(self.digest).await,
            Err(error) => return Err(StoreError::from(error).into()),
        }
        let next = self.at + len as u64;
        let stand_in = conduit.announce(&self.file, self.at, len, next < self.end, course);
        self.at = next;
        Ok(Some(stand_in))
    }

    async fn damaged(&mut self, actual: Digest) -> Result<Option<Bytes>, PullError> {
        give_up(&self.store, &self.file).await;
        Err(self.broken_off(actual))
    }

    fn broken_off(&self, actual: Digest) -> PullError {
        tracing::warn!(digest = %self.digest, "a blob was damaged on disk; the answer is broken off");
        StoreError::Mismatch { expected: self.digest, actual: Box::new(actual) }.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use sampan_store::{Disk, Operation, StoreOptions, Verdict, Witness};
    use sampan_testkit::{TestClock, random_bytes};

    use super::*;

    const SIZE: usize = 8 * 1024 * 1024;
    /// Where the slow disk keeps its reader waiting. What the tests ask for lies behind it.
    const SLOW: u64 = 1024 * 1024;
    const START: u64 = 5_000_000;
    /// How long a test waits for what it expects not to happen.
    const MOMENT: Duration = Duration::from_millis(30);

    /// A disk that does not give back one place of a file until it is told to.
    #[derive(Debug, Default)]
    struct SlowDisk(Mutex<bool>, Condvar);

    impl SlowDisk {
        fn go_on(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }
    }

    impl Witness for SlowDisk {
        fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
            if matches!(operation, Operation::Read { offset, .. } if *offset == SLOW) {
                let ready = self.0.lock().unwrap();
                drop(self.1.wait_while(ready, |ready| !*ready).unwrap());
            }
            Ok(Verdict::Go)
        }
    }

    struct Scene {
        store: Store,
        disk: Arc<SlowDisk>,
        file: BlobFile,
        bytes: Bytes,
        path: std::path::PathBuf,
        _dir: tempfile::TempDir,
    }

    /// A blob that was not hashed since the start; with `damage`, a wrong byte where the hashing comes last.
    async fn scene(damage: bool) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(dir.path().join("cache"), Arc::new(TestClock::new()));
        let (store, bytes) = (Store::open(options.clone()).unwrap(), random_bytes(1, SIZE));
        let digest = Digest::of(&bytes);
        store.put(&digest, bytes.clone()).await.unwrap();
        drop(store);
        let path = dir.path().join("cache/blobs/sha256").join(digest.hex());
        if damage {
            let mut wrong = bytes.to_vec();
            wrong[SIZE - 1] ^= 1;
            std::fs::write(&path, wrong).unwrap();
        }
        let disk = Arc::new(SlowDisk::default());
        let store = Store::open(StoreOptions { disk: Disk::watched(disk.clone()), ..options }).unwrap();
        let file = store.open_blob(&digest).await.unwrap().unwrap();
        Scene { store, disk, file, bytes, path, _dir: dir }
    }

    impl Scene {
        /// A reader of `START..end`, from before the hashing has ended.
        async fn reader(&self, end: u64) -> DiskReader {
            let (store, file) = (self.store.clone(), self.file.clone());
            let begin = || async move { check(&store, &file).await }.boxed();
            let sound = sound(&self.file, false, begin, Some(MOMENT)).await.unwrap();
            let Soundness::Awaited(check) = sound else { panic!("it cannot be known yet") };
            DiskReader::new(self.store.clone(), self.file.clone(), Some(check), START, end, None)
        }
    }

    /// What comes of itself.
    async fn at_once(reader: &mut DiskReader) -> Vec<u8> {
        let mut read = Vec::new();
        while let Ok(next) = tokio::time::timeout(MOMENT, reader.next()).await {
            read.extend(next.unwrap().expect("the end has to wait"));
        }
        read
    }

    #[tokio::test]
    async fn a_part_flows_while_the_blob_is_hashed_and_its_end_waits_for_that() {
        let size = SIZE as u64;
        for (end, first) in [(size, size - TAIL_BYTES), (6_000_000, 5_999_999), (START + 1, START)] {
            let scene = scene(false).await;
            let mut reader = scene.reader(end).await;
            let mut read = at_once(&mut reader).await;
            assert_eq!(START + read.len() as u64, first, "up to {end}: all but the end comes at once");
            scene.disk.go_on();
            while let Some(bytes) = reader.next().await.unwrap() {
                read.extend(bytes);
            }
            assert!(read == scene.bytes[5_000_000..usize::try_from(end).unwrap()]);
            assert!(scene.file.verified(), "and the next answer need not wait");
        }
    }

    #[tokio::test]
    async fn a_part_of_a_blob_that_turns_out_damaged_is_never_completed() {
        let scene = scene(true).await;
        let mut reader = scene.reader(6_000_000).await;
        let read = at_once(&mut reader).await;
        assert_eq!(read.len(), 999_999);
        scene.disk.go_on();
        reader.next().await.unwrap_err();
        assert!(!scene.path.exists(), "and the blob is set aside");
    }

    #[tokio::test]
    async fn damage_that_is_found_in_time_is_never_seen_by_a_client() {
        let scene = scene(true).await;
        scene.disk.go_on();
        let (store, file) = (scene.store.clone(), scene.file.clone());
        let begin = || async move { check(&store, &file).await }.boxed();
        let sound = sound(&scene.file, false, begin, Some(Duration::from_mins(1))).await.unwrap();
        assert!(matches!(sound, Soundness::Damaged));
        assert!(!scene.path.exists());
    }
}
