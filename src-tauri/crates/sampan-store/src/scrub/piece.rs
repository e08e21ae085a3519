//! One blob under the eyes of a scrub, a piece at a time, so that a large one holds up nobody.

use std::io;
use std::sync::Arc;

use sampan_oci::{Digest, Hasher};

use crate::backend::{Object, Opened, State};
use crate::error::StoreError;
use crate::index;
use crate::publish::Origin;
use crate::store::Inner;

/// How much is read and hashed at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// What is known after a piece.
pub(super) enum Step {
    /// There is more to read.
    More(Box<Looking>),
    /// All of it was read, and it is what its digest names. `was_unknown`: the index did not know it, or not its size.
    Right { was_unknown: bool },
    /// It is not, or is no regular file.
    Damaged,
    /// The index knew it, and there is nothing of its name.
    Missing,
    /// It went, or was replaced, while it was looked at: nothing is to be said of it.
    Gone,
    /// The disk did not give its bytes.
    Unreadable(io::Error),
}

/// A blob that is being read.
pub(super) struct Looking {
    digest: Digest,
    known: Option<u64>,
    drop_pages: bool,
    open: Option<Open>,
}

struct Open {
    object: Arc<dyn Object>,
    /// As it was before the first byte was read.
    was: State,
    hasher: Hasher,
    offset: u64,
    buffer: Vec<u8>,
}

impl Looking {
    pub(super) fn new(digest: Digest, known: Option<u64>, drop_pages: bool) -> Self {
        Self { digest, known, drop_pages, open: None }
    }

    /// Reads on; returns also how many bytes it read. Blocks.
    pub(super) fn step(mut self, store: &Inner) -> Result<(Step, u64), StoreError> {
        let mut open = match self.open.take().map_or_else(|| self.open(store), |open| Ok(Some(open))) {
            Ok(Some(open)) => open,
            Ok(None) => return Ok((self.not_a_file(store)?, 0)),
            Err(error) => return Ok((Step::Unreadable(error), 0)),
        };
        let filled = match open.object.read_full_at(&mut open.buffer, open.offset) {
            Ok(filled) => filled,
            Err(error) => return Ok((Step::Unreadable(error), 0)),
        };
        open.hasher.update(&open.buffer[..filled]);
        if self.drop_pages {
            drop_pages(&*open.object, open.offset, filled as u64);
        }
        open.offset += filled as u64;
        // A file that grows while it is read must not be read for ever.
        let step = if filled == open.buffer.len() && open.offset <= open.was.size {
            self.open = Some(open);
            Step::More(Box::new(self))
        } else {
            self.judge(store, open)?
        };
        Ok((step, filled as u64))
    }

    fn open(&self, store: &Inner) -> io::Result<Option<Open>> {
        let Some(object) = store.layout.open_blob(&self.digest)? else { return Ok(None) };
        let was = object.state()?;
        // One byte more than the file has, so that its end is seen without asking again.
        let length = usize::try_from(was.size).map_or(PIECE_BYTES, |size| (size + 1).min(PIECE_BYTES));
        let (hasher, buffer) = (self.digest.hasher(), vec![0; length]);
        Ok(Some(Open { object, was, hasher, offset: 0, buffer }))
    }

    fn not_a_file(&self, store: &Inner) -> Result<Step, StoreError> {
        match store.layout.backend().open(&self.digest).map_err(StoreError::Io)? {
            Opened::Foreign => {
                writable(store.quarantine(&self.digest))?;
                Ok(Step::Damaged)
            }
            // It came back since.
            Opened::Object(_) => Ok(Step::Gone),
            Opened::Missing => self.missing(store),
        }
    }

    fn missing(&self, store: &Inner) -> Result<Step, StoreError> {
        let forgotten = store.index.change(|change| {
            // Looked at again where nothing can be published: it may have come, or been cleared, since the survey.
            let back = !matches!(store.layout.backend().open(&self.digest)?, Opened::Missing);
            if back || !change.holds(&self.digest)? {
                return Ok(false);
            }
            store.verified.remove(&self.digest);
            change.forget_blob(&self.digest)?;
            tracing::warn!(digest = %self.digest, "a blob's file is missing; it is fetched again when asked for");
            Ok(true)
        });
        Ok(if writable(forgotten)? == Some(false) { Step::Gone } else { Step::Missing })
    }

    fn judge(&self, store: &Inner, open: Open) -> Result<Step, StoreError> {
        let Open { was, hasher, offset, .. } = open;
        let id = was.identity;
        let digest = self.digest;
        if hasher.finish() != digest {
            store.verified.remove(&digest);
            let taken = writable(store.quarantine_file(&digest, Some(&id)))?;
            return Ok(if taken == Some(false) { Step::Gone } else { Step::Damaged });
        }
        store.verified.insert(digest, id);
        if self.known == Some(offset) {
            return Ok(Step::Right { was_unknown: false });
        }
        let recorded = store.index.change(|change| {
            if store.layout.blob_size(&digest)? != Some(offset) {
                return Ok(false);
            }
            // What was published since the survey is not foreign.
            let known = self.known.is_none() && change.holds(&digest)?;
            let now = store.clock.now();
            // Nobody saw it come: as what a start finds, it counts as fetched.
            change.record_blob(&digest, offset, Origin::Link, now)?;
            index::damage::heal(change, &digest, now)?;
            Ok(!known)
        });
        Ok(Step::Right { was_unknown: writable(recorded)?.unwrap_or(true) })
    }
}

/// `None`: the cache cannot be written; that is no reason to stop looking.
fn writable<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error @ (StoreError::ReadOnly | StoreError::Full)) => {
            tracing::warn!(%error, "what a scrub found cannot be acted on");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(target_os = "linux")]
fn drop_pages(object: &dyn Object, offset: u64, length: u64) {
    if let (Some(file), Some(length)) = (object.as_file(), std::num::NonZeroU64::new(length)) {
        // Advice: refused or not, the bytes were read.
        let _ = rustix::fs::fadvise(file, offset, Some(length), rustix::fs::Advice::DontNeed);
    }
}

#[cfg(not(target_os = "linux"))]
fn drop_pages(_: &dyn Object, _: u64, _: u64) {}
