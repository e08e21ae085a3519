//! Scrubbing: every blob is read and hashed again, the one checked the longest ago first.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use sampan_oci::{Digest, Millis};
use tokio::time::Instant;

use crate::error::{StoreError, blocking};
use crate::index;
use crate::reopen::Current;
use crate::scrub::piece::{Looking, Step};
use crate::store::{Inner, Store};

mod piece;

/// How many blobs that were found right are written into the index together.
const CHECKED_BATCH: usize = 512;
/// The most digests a report lists.
const LISTED_MAX: usize = 1_000;
/// How long to wait before looking again whether others are still busy.
const BUSY_STEP: Duration = Duration::from_secs(1);
/// Waits shorter than this are saved up.
const WAIT_MIN: Duration = Duration::from_millis(5);
/// What even the smallest blob counts for in the pace, in bytes: opening it costs about as much as reading this.
const BLOB_COST_BYTES: u64 = 4096;

/// How fast and how far a scrub goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// The most bytes read in a second; `None`: as fast as the disk gives them.
    pub bytes_per_second: Option<u64>,
    /// Blobs that were found right by a scrub within this time are left out.
    pub older_than: Duration,
    /// Tell the system to forget what was read: for a scrub beside pulls, which need the memory more. Linux only.
    pub drop_pages: bool,
}

impl ScrubPace {
    /// Everything, at once.
    pub const FULL: Self = Self { bytes_per_second: None, older_than: Duration::ZERO, drop_pages: false };
}

/// How far a running scrub is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Blobs looked at.
    pub blobs_done: u64,
    /// Blobs to look at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes_done: u64,
    /// Bytes to read.
    pub bytes: u64,
    /// Damaged blobs found so far.
    pub damaged: u64,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Blobs looked at to their end.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How many were damaged. They are taken out of the cache, where it can be written.
    pub damaged_blobs: u64,
    /// The first 1,000 of them.
    pub damaged: Vec<Digest>,
    /// Blobs the index knew and that are not there; it does not know them any more.
    pub missing: u64,
    /// Right blobs the index did not know, or knew with another size; it knows them now.
    pub foreign: u64,
    /// Files that could not be read: nothing is known of them, and they stay.
    pub unreadable: u64,
    /// Whether it came to its end. If not, the next one goes on with what was checked the longest ago.
    pub complete: bool,
}

impl Store {
    /// Hashes the blobs again, the one checked the longest ago first. Damaged ones, and what is no regular file, are taken
    /// out as by [`quarantine`](Self::quarantine); those found right need no hashing before they are served. While `busy`
    /// says true it waits, in steps of 1 s. It ends early when `stop` is ready, within the time it takes to read 1 MiB.
    /// `progress` is told after each MiB and each blob. On a cache that cannot be written it looks and reports.
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be listed, [`StoreError::Index`], [`StoreError::Stopped`].
    /// # Cancel safety
    /// Dropping the future forgets up to 512 checks, which the next scrub does again.
    pub async fn scrub(
        &self,
        pace: ScrubPace,
        busy: impl Fn() -> bool + Send,
        progress: impl FnMut(ScrubProgress) + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<ScrubReport, StoreError> {
        let survey = self.run(move |inner| survey(inner, pace.older_than)).await?;
        let mut stop = pin!(stop);
        let mut scrub = Scrub {
            store: self.0.clone(),
            pace,
            busy,
            told: progress,
            progress: ScrubProgress {
                blobs: survey.len() as u64,
                bytes: survey.iter().map(|due| due.size.unwrap_or(0)).sum(),
                ..ScrubProgress::default()
            },
            report: ScrubReport::default(),
            right: Vec::new(),
            next: Instant::now(),
        };
        for due in survey {
            if !scrub.check(due, stop.as_mut()).await? {
                scrub.write_checked().await?;
                return Ok(scrub.report);
            }
        }
        scrub.write_checked().await?;
        scrub.report.complete = true;
        Ok(scrub.report)
    }
}

/// One thing to look at.
#[derive(Clone, Copy, Debug)]
struct Due {
    digest: Digest,
    /// The size of its file in bytes; `None`: there is no regular file of its name.
    size: Option<u64>,
    /// The size the index knows.
    known: Option<u64>,
}

/// What is to be looked at: first what the index and the folder disagree about, then by the last check.
fn survey(store: &Inner, older_than: Duration) -> Result<Vec<Due>, StoreError> {
    let rows = store.index.report(|connection| index::damage::by_last_check(connection))?;
    let entries = store.layout.blob_entries().map_err(StoreError::Io)?;
    let mut entries: HashMap<Digest, Option<u64>> = entries.into_iter().collect();
    let now = store.clock.now();
    // A check from the future tells that the clock was set back, and nothing else.
    let is_due = |checked: Millis| {
        checked.0 == 0 || checked > now || u128::from(now.since(checked)) >= older_than.as_millis()
    };
    let (mut odd, mut due) = (Vec::new(), Vec::new());
    for (digest, known, checked) in rows {
        let size = entries.remove(&digest).flatten();
        let known = Some(known);
        if size != known {
            odd.push(Due { digest, size, known });
        } else if is_due(checked) {
            due.push(Due { digest, size, known });
        }
    }
    odd.extend(entries.into_iter().map(|(digest, size)| Due { digest, size, known: None }));
    odd.append(&mut due);
    Ok(odd)
}

struct Scrub<B, P> {
    /// Looked through at each step: a cache that could only be read may be open for writing by the next.
    store: Current,
    pace: ScrubPace,
    busy: B,
    told: P,
    progress: ScrubProgress,
    report: ScrubReport,
    /// Found right, and not yet written into the index.
    right: Vec<Digest>,
    /// When the pace allows the next bytes.
    next: Instant,
}

impl<B: Fn() -> bool + Send, P: FnMut(ScrubProgress) + Send> Scrub<B, P> {
    /// Looks at one blob; `false`: it was told to stop before the end of it.
    async fn check(
        &mut self,
        due: Due,
        mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<bool, StoreError> {
        let mut looking = Box::new(Looking::new(due.digest, due.known, self.pace.drop_pages));
        loop {
            tokio::select! {
                biased;
                () = stop.as_mut() => return Ok(false),
                () = self.turn() => {}
            }
            let store = Arc::clone(&*self.store);
            let (seen, read) = blocking(move || looking.step(&store)).await?;
            self.count(read);
            match seen {
                Step::More(more) => {
                    looking = more;
                    continue;
                }
                Step::Right { was_unknown } => {
                    self.report.foreign += u64::from(was_unknown);
                    self.right.push(due.digest);
                }
                Step::Damaged => {
                    self.report.damaged_blobs += 1;
                    self.progress.damaged += 1;
                    if self.report.damaged.len() < LISTED_MAX {
                        self.report.damaged.push(due.digest);
                    }
                }
                Step::Missing => self.report.missing += 1,
                Step::Gone => {}
                Step::Unreadable(error) => {
                    tracing::warn!(digest = %due.digest, %error, "a blob cannot be read");
                    self.report.unreadable += 1;
                }
            }
            self.report.blobs += 1;
            self.progress.blobs_done += 1;
            (self.told)(self.progress);
            if self.right.len() >= CHECKED_BATCH {
                self.write_checked().await?;
            }
            return Ok(true);
        }
    }

    /// Waits until the next bytes may be read.
    async fn turn(&mut self) {
        while (self.busy)() {
            tokio::time::sleep(BUSY_STEP).await;
        }
        let now = Instant::now();
        if self.next > now + WAIT_MIN {
            tokio::time::sleep_until(self.next).await;
        }
    }

    fn count(&mut self, read: u64) {
        self.report.bytes += read;
        self.progress.bytes_done += read;
        if read > 0 {
            (self.told)(self.progress);
        }
        if let Some(rate) = self.pace.bytes_per_second {
            // Time that was spent waiting for others is not made up for.
            let from = self.next.max(Instant::now());
            let cost = u32::try_from(read.max(BLOB_COST_BYTES)).unwrap_or(u32::MAX);
            self.next = from + Duration::from_secs(1) * cost / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
        }
    }

    async fn write_checked(&mut self) -> Result<(), StoreError> {
        let (store, right) = (Arc::clone(&*self.store), std::mem::take(&mut self.right));
        let written = blocking(move || {
            store
                .index
                .change_quietly(|change| index::damage::record_checked(change, &right, store.clock.now()))
        });
        match written.await {
            // Looking is worth it all the same; the next scrub looks again.
            Err(StoreError::ReadOnly | StoreError::Full) => {
                tracing::warn!("what was found right cannot be written down");
                Ok(())
            }
            done => done,
        }
    }
}
