//! Clearing with a way back: a single entry is hidden at once, and removed a little later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sampan_oci::{Digest, ImageName, Millis, Tag};

use crate::catalog::{Entry, ImageEntry};
use crate::clear::{Choice, Cleared, Selection};
use crate::error::StoreError;
use crate::store::{Inner, Store};

/// How long a cleared entry can be brought back, in milliseconds.
const UNDO_MILLIS: u64 = 10_000;

/// How many cleared entries can be brought back at once; beyond it the oldest goes.
const WAITING_MAX: usize = 16;

/// What brings a cleared entry back: a number that means nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Undo(u64);

impl Undo {
    /// The number, to be told to somebody who may bring it back.
    pub fn number(self) -> u64 {
        self.0
    }

    /// What that somebody brought back. A number that was never given undoes nothing.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

/// An entry that a person cleared, and may want back.
#[derive(Clone, Debug)]
pub(crate) struct Hidden {
    undo: Undo,
    pub(crate) image: ImageName,
    tag: Option<Tag>,
    digest: Digest,
    /// Whether the whole image was cleared, of which this is the only entry.
    pub(crate) whole: bool,
    was: Uses,
    since: Millis,
    begun: Instant,
    /// It is being removed: too late.
    settling: bool,
}

/// How an entry was used.
#[derive(Clone, Copy, Debug)]
struct Uses {
    last_used: Millis,
    hits: u64,
    pinned: bool,
    /// The last use by a count that no clock sets back.
    aged: i64,
}

impl Uses {
    fn of(entry: &Entry) -> Self {
        let Entry { aged, shown: ImageEntry { last_used, hits, pinned, .. }, .. } = entry;
        Self { last_used: *last_used, hits: *hits, pinned: *pinned, aged: *aged }
    }
}

impl Hidden {
    pub(crate) fn is(&self, entry: &ImageEntry) -> bool {
        self.digest == entry.digest && self.tag == entry.tag && self.image == entry.image
    }

    /// Whether the entry was used or pinned after it was cleared: whoever did that wants it.
    pub(crate) fn was_used(&self, entry: &Entry) -> bool {
        let (was, is) = (self.was, Uses::of(entry));
        is.last_used > was.last_used || is.hits > was.hits || is.aged != was.aged || is.pinned && !was.pinned
    }

    /// By the store's clock, or by one that is never set back: that would hide it for as long again.
    fn is_due(&self, now: Millis, instant: Instant) -> bool {
        now.since(self.since) >= UNDO_MILLIS
            || instant.saturating_duration_since(self.begun) >= Duration::from_millis(UNDO_MILLIS)
    }
}

/// The entries that were cleared and are not removed yet, the oldest first. They do not outlive the process: what was
/// not settled then is there again.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    entries: Vec<Hidden>,
    last: u64,
}

impl Waiting {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hide(&self, hidden: &Entry, whole: bool, now: Millis) -> Undo {
        let entry = &hidden.shown;
        let mut list = self.list();
        // Cleared twice: the later one counts, and the earlier one brings nothing back.
        list.entries.retain(|hidden| hidden.settling || !hidden.is(entry));
        list.last += 1;
        let undo = Undo(list.last);
        list.entries.push(Hidden {
            undo,
            image: entry.image.clone(),
            tag: entry.tag.clone(),
            digest: entry.digest,
            whole,
            was: Uses::of(hidden),
            since: now,
            begun: Instant::now(),
            settling: false,
        });
        undo
    }

    fn bring_back(&self, undo: Undo) -> bool {
        let mut list = self.list();
        let before = list.entries.len();
        list.entries.retain(|hidden| hidden.settling || hidden.undo != undo);
        list.entries.len() < before
    }

    /// Whether a person cleared the entry.
    pub(crate) fn hides(&self, entry: &ImageEntry) -> bool {
        self.list().entries.iter().any(|hidden| hidden.is(entry))
    }

    /// Forgets entries that are gone by other ways.
    pub(crate) fn forget(&self, gone: &[ImageEntry]) {
        self.list().entries.retain(|hidden| hidden.settling || !gone.iter().any(|entry| hidden.is(entry)));
    }

    /// Begins to settle those of which `due` says so, told their place from the newest.
    fn take(&self, due: impl Fn(&Hidden, usize) -> bool) -> Vec<Hidden> {
        let mut list = self.list();
        let count = list.entries.len();
        let waiting = list.entries.iter_mut().enumerate().filter(|(_, hidden)| !hidden.settling);
        let mut taken = Vec::new();
        for (place, hidden) in waiting {
            if due(hidden, count - place) {
                hidden.settling = true;
                taken.push(hidden.clone());
            }
        }
        taken
    }

    fn settled(&self, taken: &[Hidden]) {
        self.list().entries.retain(|hidden| !taken.iter().any(|taken| taken.undo == hidden.undo));
    }
}

impl Store {
    /// Clears with a way back. A selection that takes a single entry hides it now: it is not listed, still served, still
    /// on disk, and removed by [`settle_clears`](Self::settle_clears) 10 s later. Anything else goes at once, as with
    /// [`clear`](Self::clear), and without an [`Undo`]. At most 16 entries wait: of more, the oldest goes at once.
    /// `Cleared` is what goes, or will go.
    /// # Errors
    /// As [`clear`](Self::clear).
    pub async fn clear_later(&self, selection: &Selection) -> Result<(Cleared, Option<Undo>), StoreError> {
        let selection = selection.clone();
        self.run(move |inner| inner.clear_later(&selection)).await
    }

    /// Brings back what [`clear_later`](Self::clear_later) hid. `false`: too late, or never hidden.
    pub fn undo_clear(&self, undo: &Undo) -> bool {
        self.0.waiting.bring_back(*undo)
    }

    /// Removes what was hidden at least 10 s ago, by the store's clock or by one that is never set back. What was used or
    /// pinned since it was hidden stays, and is listed again.
    /// # Errors
    /// As [`clear`](Self::clear); what could not be removed is listed again.
    pub async fn settle_clears(&self) -> Result<(), StoreError> {
        self.run(|inner| {
            let now = inner.clock.now();
            inner.settle(|hidden, _| hidden.is_due(now, Instant::now()))
        })
        .await
    }
}

impl Inner {
    fn clear_later(&self, selection: &Selection) -> Result<(Cleared, Option<Undo>), StoreError> {
        // Else it would be hidden for 10 s and then be there again.
        self.refuse_if_read_only()?;
        self.write_touched();
        let (_, cleared) = self.plan_clear(&Choice::Selected(selection.clone()))?;
        let (Selection::Images(selected), [entry]) = (selection, &cleared.images[..]) else {
            return Ok((self.clear(&Choice::Selected(selection.clone()))?, None));
        };
        let whole = selected.iter().any(|selected| selected.reference.is_none());
        let (_, entries) = self.entries()?;
        let Some(entry) = entries.iter().find(|found| {
            (&found.shown.image, &found.shown.tag, found.shown.digest)
                == (&entry.image, &entry.tag, entry.digest)
        }) else {
            // Gone in between.
            return Ok((Cleared::default(), None));
        };
        let undo = self.waiting.hide(entry, whole, self.clock.now());
        if let Err(error) = self.settle(|_, place| place > WAITING_MAX) {
            // Nobody would get the way back: who is told that it failed must not see it go.
            self.waiting.bring_back(undo);
            return Err(error);
        }
        Ok((cleared, Some(undo)))
    }

    /// Removes all that waits, for the end.
    pub(crate) fn settle_all(&self) -> Result<(), StoreError> {
        self.settle(|_, _| true)
    }

    fn settle(&self, due: impl Fn(&Hidden, usize) -> bool) -> Result<(), StoreError> {
        let taken = self.waiting.take(due);
        if taken.is_empty() {
            return Ok(());
        }
        let done = self.clear(&Choice::Hidden(taken.clone()));
        self.waiting.settled(&taken);
        done.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_neither_shortens_nor_lengthens_the_ten_seconds() {
        let (waiting, begun) = (Waiting::default(), Instant::now());
        let shown = ImageEntry {
            image: "docker.io/library/alpine".parse().unwrap(),
            tag: None,
            digest: Digest::of(b"m"),
            platforms: Vec::new(),
            size_bytes: 0,
            own_bytes: 0,
            fetched_bytes: 0,
            created: Millis(0),
            last_used: Millis(0),
            hits: 0,
            pinned: false,
            unconfirmed: false,
            frozen: false,
            gone: None,
            history: Vec::new(),
        };
        waiting.hide(&Entry { key: 1, reach: [shown.digest].into(), aged: 0, shown }, false, Millis(50_000));
        let due = |now: i64, seconds: u64| {
            let at = begun + Duration::from_secs(seconds);
            waiting.list().entries[0].is_due(Millis(now), at)
        };
        assert!(!due(59_999, 1));
        assert!(due(60_000, 1), "by the store's clock");
        assert!(!due(0, 1), "which was set back");
        assert!(due(0, 11), "and is then not the one that counts");
    }
}
