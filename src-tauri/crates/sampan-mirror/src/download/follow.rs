//! One download as its clients see it: how far it is, and readers that follow it while it grows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sampan_oci::RangeSet;
use sampan_store::{BlobFile, StoreError};
use tokio::sync::watch;

use super::demand::Demand;
use super::{READ_BYTES, releasable};
use crate::error::PullError;

/// How far a download is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// The upstream was asked.
    Asking,
    /// The upstream answered, or bytes of an earlier run are there: more will come.
    Flowing,
    /// All bytes are there and are the right ones; the blob is published.
    Verified,
    /// It ended without success.
    Failed(PullError),
}

#[derive(Clone, Debug)]
struct Progress {
    phase: Phase,
    /// The growing file and the whole blob's size; `None` while the size is not known.
    file: Option<(BlobFile, u64)>,
    /// What of it is written.
    held: RangeSet,
    /// Counts from 0; a new one begins when the bytes of the last turned out wrong.
    attempt: u32,
    /// Why the last attempt was given up.
    wrong: Option<PullError>,
}

/// One download. It belongs to the mirror: it goes on when every client has left.
#[derive(Debug)]
pub(crate) struct Download {
    progress: watch::Sender<Progress>,
    /// Where each reader is. The slowest is served first.
    readers: Mutex<BTreeMap<u64, u64>>,
    next_reader: AtomicU64,
    hopeful: AtomicBool,
    promised: AtomicBool,
    demand: Demand,
}

impl Download {
    pub(super) fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress {
                phase: Phase::Asking,
                file: None,
                held: RangeSet::new(),
                attempt: 0,
                wrong: None,
            }),
            readers: Mutex::default(),
            next_reader: AtomicU64::new(0),
            hopeful: AtomicBool::new(false),
            promised: AtomicBool::new(false),
            demand: Demand::default(),
        }
    }

    /// Who wants it.
    pub(super) fn demand(&self) -> &Demand {
        &self.demand
    }

    /// How many of its bytes are on disk, as far as is known.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.progress.borrow().held.len()
    }

    /// A client is told that the bytes will come, before the upstream has answered: from here on an outage is waited out.
    pub(crate) fn promise(&self) {
        self.promised.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_promised(&self) -> bool {
        self.promised.load(Ordering::Relaxed)
    }

    /// Whether, when it began, bytes of the blob were there, or some of another one of its upstream had come lately.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.hopeful.load(Ordering::Relaxed)
    }

    pub(super) fn set_hopeful(&self, hopeful: bool) {
        self.hopeful.store(hopeful, Ordering::Relaxed);
    }

    /// Waits until bytes can be expected, and returns the whole blob's size.
    pub(crate) async fn opened(&self) -> Result<u64, PullError> {
        let mut progress = self.progress.subscribe();
        let settled = progress.wait_for(|p| !matches!(p.phase, Phase::Asking)).await;
        match settled.map(|p| (p.phase.clone(), p.file.as_ref().map(|(_, size)| *size))) {
            Ok((Phase::Failed(error), _)) => Err(error),
            Ok((_, Some(size))) => Ok(size),
            Ok((_, None)) | Err(_) => Err(PullError::Stopping),
        }
    }

    /// Waits until the blob is whole and right.
    pub(crate) async fn verified(&self) -> Result<(), PullError> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|p| matches!(p.phase, Phase::Verified | Phase::Failed(_))).await;
        match ended.map(|p| p.phase.clone()) {
            Ok(Phase::Failed(error)) => Err(error),
            Ok(Phase::Asking | Phase::Flowing | Phase::Verified) => Ok(()),
            Err(_) => Err(PullError::Stopping),
        }
    }

    /// The file, and what of it is written: for going on elsewhere when the disk is full.
    pub(crate) fn remains(&self) -> Option<(BlobFile, RangeSet)> {
        let progress = self.progress.borrow();
        progress.file.as_ref().map(|(file, _)| (file.clone(), progress.held.clone()))
    }

    /// A reader of bytes `start..end` of a blob whose client was told that it has `size` bytes.
    pub(crate) fn follow(self: &Arc<Self>, start: u64, end: u64, size: u64) -> Follower {
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        self.readers().insert(id, start);
        let progress = self.progress.subscribe();
        let attempt = progress.borrow().attempt;
        Follower { id, download: self.clone(), progress, start, at: start, end, size, attempt }
    }

    /// Where the `turn`th reader is, counted round and round; `None` while nobody reads.
    pub(super) fn reader(&self, turn: usize) -> Option<u64> {
        let readers = self.readers();
        readers.values().nth(turn.checked_rem(readers.len())?).copied()
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes can be expected, into this file.
    pub(super) fn open(&self, file: BlobFile, size: u64) {
        self.progress.send_modify(|p| (p.file, p.phase) = (Some((file, size)), Phase::Flowing));
    }

    /// The file there is, before anything is known of the upstream.
    pub(super) fn prepare(&self, file: BlobFile, size: u64, held: RangeSet) {
        self.progress.send_modify(|p| (p.file, p.held) = (Some((file, size)), held));
    }

    /// The upstream answered.
    pub(super) fn flow(&self) {
        self.progress.send_if_modified(|p| {
            let asking = matches!(p.phase, Phase::Asking);
            if asking {
                p.phase = Phase::Flowing;
            }
            asking
        });
    }

    /// These ranges were written.
    pub(super) fn grow(&self, written: &[std::ops::Range<u64>]) {
        self.progress.send_modify(|p| {
            for range in written {
                p.held.insert(range.clone());
            }
        });
    }

    /// What was written is wrong: it begins again, in another file.
    pub(super) fn begin_again(&self, file: BlobFile, size: u64, why: PullError) {
        self.progress.send_modify(|p| {
            (p.file, p.held) = (Some((file, size)), RangeSet::new());
            (p.attempt, p.wrong) = (p.attempt + 1, Some(why));
        });
    }

    /// It ended.
    pub(super) fn settle(&self, result: Result<(), PullError>) {
        let phase = result.map_or_else(Phase::Failed, |()| Phase::Verified);
        self.progress.send_modify(|p| p.phase = phase);
    }

    pub(super) fn is_settled(&self) -> bool {
        matches!(self.progress.borrow().phase, Phase::Verified | Phase::Failed(_))
    }
}

/// Reads a download in order, as fast as it grows and as its client takes it. A slow one slows nobody else.
#[derive(Debug)]
pub(crate) struct Follower {
    id: u64,
    download: Arc<Download>,
    progress: watch::Receiver<Progress>,
    start: u64,
    at: u64,
    end: u64,
    size: u64,
    attempt: u32,
}

impl Follower {
    /// Where the next byte comes from.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next bytes; `None` after the last of the range. An error means that no more may be sent.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        while self.at < self.end {
            let Some((file, limit)) = self.look()? else {
                self.progress.changed().await.map_err(|_| PullError::Stopping)?;
                continue;
            };
            let wanted = usize::try_from(limit - self.at).unwrap_or(READ_BYTES).min(READ_BYTES);
            let bytes = file.read_at(self.at, wanted).await.map_err(StoreError::from)?;
            if bytes.is_empty() {
                return Err(StoreError::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).into());
            }
            // The file may have been given up between the look and the read.
            if self.progress.borrow().attempt != self.attempt {
                continue;
            }
            self.at += bytes.len() as u64;
            self.download.readers().insert(self.id, self.at);
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    /// The file, and up to where it may be read now; `None`: nothing new yet.
    fn look(&mut self) -> Result<Option<(BlobFile, u64)>, PullError> {
        let progress = self.progress.borrow_and_update();
        if progress.attempt != self.attempt {
            // Nothing right can follow bytes of an attempt that went wrong.
            if let Some(wrong) = progress.wrong.clone().filter(|_| self.at != self.start) {
                return Err(wrong);
            }
            self.attempt = progress.attempt;
        }
        if let Some((file, size)) = &progress.file {
            if *size != self.size {
                // Two manifests disagree, and this client was told the other one's size.
                return Err(StoreError::Size { expected: self.size, actual: *size }.into());
            }
            let limit = if matches!(progress.phase, Phase::Verified) {
                self.end
            } else {
                releasable(progress.held.end_of_run(self.at), *size, self.end)
            };
            if self.at < limit {
                return Ok(Some((file.clone(), limit)));
            }
        }
        match &progress.phase {
            Phase::Failed(error) => Err(error.clone()),
            Phase::Asking | Phase::Flowing | Phase::Verified => Ok(None),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.download.readers().remove(&self.id);
    }
}
