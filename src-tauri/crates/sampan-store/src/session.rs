//! Whose turn it is with a partial download's files, and how much of the disk they take.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_oci::{Digest, Millis};

use crate::error::StoreError;
use crate::folder::Folder;
use crate::ledger::Names;
use crate::leftover::{self, Left, PARTIAL_AGE_MAX};
use crate::moment::Moment;
use crate::quota::Evicted;
use crate::room::Room;
use crate::store::Inner;

/// The partial downloads there are, idle or open.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    known: Mutex<HashMap<Digest, Known>>,
    /// Told when a partial is open, and when a session ends.
    settled: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// What it held when it was opened; what was written since is in [`Running`](crate::room::Running).
    bytes: u64,
    turn: Turn,
    /// Since when nobody has it, and how old it was by then.
    rests: (Moment, Duration),
}

impl Known {
    fn idle(bytes: u64, age: Duration) -> Self {
        Self { bytes, turn: Turn::Idle, rests: (Moment::now(), age) }
    }

    /// Whether nobody went on with it for too long. By time that this process has seen pass, after what was known when it
    /// began: no step of the wall clock makes anything old (SECURITY.md R75).
    fn is_old(&self, now: Moment) -> bool {
        let (since, before) = self.rests;
        self.turn == Turn::Idle && before.saturating_add(now.since(since)) > PARTIAL_AGE_MAX
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Idle,
    /// Its files are being read, for somebody who may have left meanwhile.
    Opening,
    Open,
    /// Given up, while the last thing it was told to do is still being done.
    Leaving,
}

impl Partials {
    /// Takes what the sweep at start found: the partials that stay.
    pub(crate) fn new(idle: HashMap<Digest, Left>) -> Self {
        let known = idle.into_iter().map(|(digest, left)| (digest, Known::idle(left.bytes, left.age)));
        Self { known: Mutex::new(known.collect()), settled: Condvar::new() }
    }

    /// The bytes in all partials, without what was written since they were opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.known().values().map(|known| known.bytes).sum()
    }

    /// The bytes in the partial of this digest, without what was written since it was opened.
    pub(crate) fn bytes_of(&self, digest: &Digest) -> u64 {
        self.known().get(digest).map_or(0, |known| known.bytes)
    }

    /// The bytes in partials that nobody has open.
    pub(crate) fn idle_bytes(&self) -> u64 {
        self.known().values().filter(|known| known.turn == Turn::Idle).map(|known| known.bytes).sum()
    }

    /// Removes the partials that nobody has open. Returns how many bytes they held.
    pub(crate) fn remove_idle(&self, folder: &Folder) -> io::Result<u64> {
        let (removed, failed) = self.remove_all(folder, |known| known.turn == Turn::Idle);
        failed.map_or(Ok(removed.freed_bytes), Err)
    }

    /// Removes the partials that nobody went on with for 14 days. What cannot be removed is tried again.
    pub(crate) fn remove_old(&self, folder: &Folder, now: Moment) -> Evicted {
        let (removed, failed) = self.remove_all(folder, |known| known.is_old(now));
        if let Some(error) = failed {
            tracing::warn!(%error, "a download that was cut short long ago could not be removed");
        }
        removed
    }

    fn remove_all(&self, folder: &Folder, which: impl Fn(&Known) -> bool) -> (Evicted, Option<io::Error>) {
        let (mut removed, mut failed) = (Evicted::default(), None);
        // Under the lock, so that none of them is opened meanwhile.
        self.known().retain(|digest, known| {
            if !which(known) {
                return true;
            }
            match remove(folder, &Names::of(digest)) {
                Ok(()) => {
                    removed.partials += 1;
                    removed.freed_bytes += known.bytes;
                    false
                }
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        });
        (removed, failed)
    }

    /// The partials that nobody has open: their digests, the bytes they hold, and when they were last written to.
    pub(crate) fn idle(&self, folder: &Folder) -> Vec<(Digest, u64, Millis)> {
        let known = self.known();
        let idle = known.iter().filter(|(_, known)| known.turn == Turn::Idle);
        // One that cannot be asked is the oldest: it could not be gone on with either.
        let written = |digest| leftover::written(folder, &Names::of(digest)).ok().flatten();
        idle.map(|(digest, known)| (*digest, known.bytes, written(digest).unwrap_or(Millis(i64::MIN))))
            .collect()
    }

    /// Removes a partial that nobody has open. Returns how many bytes it held; `None`: somebody has it, or it is gone.
    pub(crate) fn remove_if_idle(&self, folder: &Folder, digest: &Digest) -> io::Result<Option<u64>> {
        let mut known = self.known();
        let Some(Known { bytes, turn: Turn::Idle, .. }) = known.get(digest).copied() else { return Ok(None) };
        remove(folder, &Names::of(digest))?;
        known.remove(digest);
        tracing::info!(%digest, "removed a download that was cut short: its room is needed");
        Ok(Some(bytes))
    }

    /// Removes the partial of a blob that is published, unless somebody has it open.
    pub(crate) fn remove_needless(&self, folder: &Folder, digest: &Digest) {
        let mut known = self.known();
        if known.get(digest).is_none_or(|known| known.turn != Turn::Idle) {
            return;
        }
        match remove(folder, &Names::of(digest)) {
            Ok(()) => drop(known.remove(digest)),
            Err(error) => tracing::warn!(%digest, %error, "a needless partial download could not be removed"),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one that is being opened or is leaving; refuses one that is open. Blocks.
    fn take(&self, digest: Digest) -> io::Result<()> {
        let mut known = self.known();
        loop {
            match known.get(&digest).map(|known| known.turn) {
                Some(Turn::Open) => return Err(io::ErrorKind::ResourceBusy.into()),
                Some(Turn::Opening | Turn::Leaving) => {
                    known = self.settled.wait(known).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Turn::Idle) | None => {
                    let turn = Turn::Opening;
                    known.entry(digest).or_insert_with(|| Known::idle(0, Duration::ZERO)).turn = turn;
                    return Ok(());
                }
            }
        }
    }

    fn change(&self, digest: &Digest, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known().get_mut(digest) {
            change(known);
        }
    }
}

/// Removes both files. The ledger goes first: data without one is worth nothing, a ledger without data would lie.
fn remove(folder: &Folder, names: &Names) -> io::Result<()> {
    folder.remove(&names.ledger)?;
    folder.remove(&names.data)?;
    Ok(())
}

/// The right to use a partial download's files, shared by its [`Partial`](crate::Partial) and by what that one has told
/// to be done. It ends with the last of them.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) store: Arc<Inner>,
    pub(crate) names: Names,
    digest: Digest,
    /// Room for what is missing, once that is known.
    room: Mutex<Option<Room>>,
    gone: AtomicBool,
}

impl Session {
    /// Begins one, which is being [opened](Self::opened) from now on. Blocks while an earlier one is, or is leaving.
    /// # Errors
    /// [`StoreError::Io`] of [`io::ErrorKind::ResourceBusy`] if there is one.
    pub(crate) fn begin(store: &Arc<Inner>, digest: Digest) -> Result<Arc<Self>, StoreError> {
        store.partials.take(digest)?;
        let (store, names) = (Arc::clone(store), Names::of(&digest));
        Ok(Arc::new(Self { store, names, digest, room: Mutex::default(), gone: AtomicBool::new(false) }))
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.store.layout.partial
    }

    /// Sets room aside for what is missing of `size` bytes, of which `held` are on disk.
    pub(crate) fn reserve(&self, size: u64, held: u64) -> Result<(), StoreError> {
        self.store.partials.change(&self.digest, |known| known.bytes = held);
        *self.room() = Some(self.store.reserve(self.digest, size.saturating_sub(held))?);
        Ok(())
    }

    /// Says that somebody has it: whoever wants the files too is refused from now on.
    pub(crate) fn opened(&self) {
        let partials = &self.store.partials;
        partials.change(&self.digest, |known| known.turn = Turn::Open);
        partials.settled.notify_all();
    }

    /// Counts bytes that are on disk and in the ledger.
    pub(crate) fn wrote(&self, bytes: u64) {
        if let Some(room) = &mut *self.room() {
            room.wrote(bytes);
        }
    }

    /// Says that nothing more will be asked for: whoever wants the files next waits instead of being refused.
    pub(crate) fn leave(&self) {
        self.store.partials.change(&self.digest, |known| known.turn = Turn::Leaving);
    }

    /// Removes the files, or what is left of them in `partial/`.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(self.folder(), &self.names)?;
        self.gone.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the files are gone: nothing of them is to be believed any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Removes what must not be gone on with. Where that fails it is found out when somebody goes on with it.
    pub(crate) fn reject(&self) {
        if let Err(error) = self.remove() {
            tracing::warn!(digest = %self.digest, %error, "a given-up download's files could not be removed");
        }
    }

    fn room(&self) -> MutexGuard<'_, Option<Room>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Given back last: what is written is counted twice for a moment rather than not at all.
        let room = self.room().take();
        let written = room.as_ref().map_or(0, Room::written);
        let partials = &self.store.partials;
        let bytes = partials.known().get(&self.digest).map_or(0, |known| known.bytes) + written;
        // Nothing is worth nothing: questions that upstream refused leave no litter.
        if bytes == 0 && !self.gone.load(Ordering::Acquire) {
            self.reject();
        }
        let mut known = partials.known();
        if self.gone.load(Ordering::Acquire) {
            known.remove(&self.digest);
        } else {
            known.insert(self.digest, Known::idle(bytes, Duration::ZERO));
        }
        drop(known);
        drop(room);
        partials.settled.notify_all();
    }
}
