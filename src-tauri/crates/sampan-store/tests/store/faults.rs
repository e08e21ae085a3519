//! Disks that fail on demand, and what one failure may do.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::io::Errno;
use sampan_oci::Digest;
use sampan_store::{Disk, Operation, StoreError, Verdict, Witness};

use crate::setting::{Cache, noise};

/// Fails one of the operations that match, counted since it was armed. Before that it fails none.
#[derive(Debug)]
pub(crate) struct FailNth {
    matches: fn(&Operation<'_>) -> bool,
    armed: Mutex<Option<Armed>>,
}

#[derive(Debug)]
struct Armed {
    nth: u64,
    fault: Fault,
    times: Times,
    seen: u64,
}

/// How to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Error(Errno),
    /// A read or a write does half of what it was asked for; anything else is done.
    Short,
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Error(error)
    }
}

/// How often to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    /// That one and all that follow. Not for `EINTR`, which means "again".
    ForEver,
}

impl FailNth {
    pub(crate) fn new(matches: fn(&Operation<'_>) -> bool) -> Arc<Self> {
        Arc::new(Self { matches, armed: Mutex::default() })
    }

    /// Fails the `nth` matching operation from now on, counted from 1.
    pub(crate) fn arm(&self, nth: u64, fault: impl Into<Fault>, times: Times) {
        *self.armed.lock().unwrap() = Some(Armed { nth, fault: fault.into(), times, seen: 0 });
    }

    /// Fails nothing more. Returns whether it has failed anything since it was armed.
    pub(crate) fn disarm(&self) -> bool {
        self.armed.lock().unwrap().take().is_some_and(|armed| armed.seen >= armed.nth)
    }

    pub(crate) fn disk(self: &Arc<Self>) -> Disk {
        Disk::watched(self.clone())
    }
}

impl Fault {
    fn verdict(self, operation: &Operation<'_>) -> io::Result<Verdict> {
        match self {
            Self::Error(error) => Err(error.into()),
            Self::Short => Ok(match *operation {
                Operation::Write { bytes, .. } if bytes.len() > 1 => Verdict::Short(bytes.len() / 2),
                Operation::Read { len, .. } if len > 1 => Verdict::Short(len / 2),
                Operation::Write { .. }
                | Operation::Read { .. }
                | Operation::Open { .. }
                | Operation::Create { .. }
                | Operation::SetLen { .. }
                | Operation::SyncFile { .. }
                | Operation::SyncFolder { .. }
                | Operation::Rename { .. }
                | Operation::Remove { .. }
                | Operation::List { .. }
                | Operation::MakeFolder { .. }
                | Operation::Metadata { .. } => Verdict::Go,
            }),
        }
    }
}

impl Witness for FailNth {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        let mut armed = self.armed.lock().unwrap();
        if let Some(armed) = armed.as_mut().filter(|_| (self.matches)(operation)) {
            armed.seen += 1;
            if armed.seen == armed.nth || (armed.seen > armed.nth && armed.times == Times::ForEver) {
                return armed.fault.verdict(operation);
            }
        }
        Ok(Verdict::Go)
    }
}

#[tokio::test]
async fn a_put_that_fails_at_any_operation_leaves_no_half_blob_and_can_be_done_again() {
    let bytes = noise(1, 10_000);
    let digest = Digest::of(&bytes);
    for error in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::ACCESS, Errno::MFILE] {
        for times in [Times::Once, Times::ForEver] {
            let mut nth = 1;
            loop {
                let cache = Cache::new();
                let witness = FailNth::new(|_| true);
                let store = cache.try_open_on(witness.disk()).unwrap();
                witness.arm(nth, error, times);
                let put = store.put(&digest, bytes.clone()).await;
                if !witness.disarm() {
                    put.unwrap();
                    break;
                }
                let case = format!("{error:?} {times:?} at operation {nth}: {put:?}");
                let held = store.open_blob(&digest).await.unwrap();
                if let Some(held) = &held {
                    assert!(held.verify().await.unwrap(), "{case}");
                }
                // Clean-up that failed as well is all that may be left, for the next start to sweep.
                let usage = store.usage().await.unwrap();
                if times == Times::Once {
                    assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "{case}");
                    assert_eq!(held.is_some(), put.is_ok(), "{case}: kept if and only if it says so");
                    assert_eq!(cache.partials(), 0, "{case}");
                }
                drop((held, store));
                let store = cache.open();
                let usage = store.usage().await.unwrap();
                assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "{case}");
                assert_eq!(cache.partials(), 0, "{case}");
                store.put(&digest, bytes.clone()).await.unwrap();
                assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap(), "{case}");
                nth += 1;
            }
            assert!(nth > 8, "a put is more than {nth} operations");
        }
    }
}

#[tokio::test]
async fn an_operation_that_a_signal_interrupts_is_done_again() {
    let bytes = noise(2, 10_000);
    let digest = Digest::of(&bytes);
    let cache = Cache::new();
    let witness = FailNth::new(|_| true);
    for nth in 1.. {
        witness.arm(nth, Errno::INTR, Times::Once);
        let store = cache.try_open_on(witness.disk()).unwrap();
        store.put(&digest, bytes.clone()).await.unwrap();
        let mut partial = store.partial(&Digest::of(b"partial"), 7).await.unwrap();
        partial.write(vec![(0, Bytes::from_static(b"part"))]).await.unwrap();
        partial.sync().await.unwrap();
        drop(partial);
        let mut partial = store.partial(&Digest::of(b"partial"), 7).await.unwrap();
        assert_eq!(partial.held().len(), 4);
        partial.write(vec![(4, Bytes::from_static(b"ial"))]).await.unwrap();
        partial.publish().await.unwrap();
        assert_eq!(store.quarantine(&digest).await.ok(), Some(()));
        if !witness.disarm() {
            assert!(nth > 30, "all of that is more than {nth} operations");
            break;
        }
    }
}

/// Lets through a few bytes at a time.
#[derive(Debug, Default)]
struct Trickle(AtomicUsize);

impl Witness for Trickle {
    fn before(&self, _: &Operation<'_>) -> io::Result<Verdict> {
        Ok(Verdict::Short(1 + self.0.fetch_add(1, Ordering::Relaxed) % 97))
    }
}

#[tokio::test]
async fn short_reads_and_writes_are_gone_on_with() {
    let bytes = noise(3, 10_000);
    let digest = Digest::of(&bytes);
    let cache = Cache::new();
    let store = cache.try_open_on(Disk::watched(Arc::new(Trickle::default()))).unwrap();
    let mut partial = store.partial(&digest, 10_000).await.unwrap();
    partial.write(vec![(5000, bytes.slice(5000..))]).await.unwrap();
    drop(partial);
    let mut partial = store.partial(&digest, 10_000).await.unwrap();
    assert_eq!(partial.held().len(), 5000, "its ledger was written and read whole");
    partial.write(vec![(0, bytes.clone())]).await.unwrap();
    partial.publish().await.unwrap();
    assert_eq!(std::fs::read(cache.blob_path(&digest)).unwrap(), bytes);
    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    assert_eq!(blob.read_at(0, 10_000).await.unwrap(), bytes);
    assert!(blob.as_file().is_none(), "nothing is read behind the witness's back");
}

/// Writes down what was done, without the bytes.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Witness for Log {
    fn before(&self, _: &Operation<'_>) -> io::Result<Verdict> {
        Ok(Verdict::Go)
    }

    fn after(&self, operation: &Operation<'_>) {
        let line = match operation {
            Operation::Create { path, exclusive: true, .. } => format!("create {}", kind(path)),
            Operation::Write { bytes, .. } => format!("write {}", bytes.len()),
            Operation::SyncFile { .. } => "sync file".to_owned(),
            Operation::Rename { from, to } => format!("rename {} {}", kind(from), kind(to)),
            Operation::SyncFolder { path } => format!("sync {path}"),
            Operation::Create { .. }
            | Operation::Open { .. }
            | Operation::Read { .. }
            | Operation::SetLen { .. }
            | Operation::Remove { .. }
            | Operation::List { .. }
            | Operation::MakeFolder { .. }
            | Operation::Metadata { .. } => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

fn kind(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(folder, _)| folder)
}

#[tokio::test]
async fn a_blob_is_written_then_synced_then_renamed_then_its_folder_is_synced() {
    let log = Arc::new(Log::default());
    let cache = Cache::new();
    let store = cache.try_open_on(Disk::watched(log.clone())).unwrap();
    log.0.lock().unwrap().clear();
    store.put(&Digest::of(b"whole"), Bytes::from_static(b"whole")).await.unwrap();
    let expected =
        ["create partial", "write 5", "sync file", "rename partial blobs/sha256", "sync blobs/sha256"];
    assert_eq!(*log.0.lock().unwrap(), expected, "(R60)");
    let refused = store.put(&Digest::of(b"whole"), Bytes::from_static(b"other")).await;
    assert!(matches!(refused, Err(StoreError::Mismatch { .. })));
    assert_eq!(
        log.0.lock().unwrap().len(),
        expected.len() + 2,
        "wrong bytes are created and written, and no more"
    );
}
