//! Groups events into pulls: a pure fold. Events bring their own time, whoever looks brings the time now.
//!
//! What real clients do (docker, containerd; podman and skopeo without the HEAD): `HEAD` of the tag, `GET` of the index
//! by digest, `GET` of the platform's manifest by digest, `GET`s of configuration and layers, several at once, again
//! after a failure; each step is missing where the client holds the thing already. So a pull is found, in this order, by
//! the manifest it is about, by the index that lists that manifest, by the blob it lists, and by the repository alone.

mod blobs;
mod downloads;
mod manifests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use sampan_oci::{Digest, Event, ImageName, Millis, Reference, Stale, TransferId};

use crate::db::HISTORY_MAX;
use crate::pull::{Effort, Ending, Pull};
use crate::record::PullRecord;

/// The most pulls [`crate::Stats::live`] tells.
pub const LIVE_MAX: usize = 50;
/// A pull with no open transfer ends after this silence.
pub(crate) const IDLE_MILLIS: u64 = 3_000;
/// Ended pulls are shown for this long, and go on within it when their client comes back (docker waits 5 to 25 s before
/// it asks for a failed layer again).
pub(crate) const LINGER_MILLIS: u64 = 60_000;
/// A manifest belongs to the tag that led to it for this long: upstreams answer slowly.
pub(crate) const LEAD_MILLIS: u64 = 60_000;
/// A blob of no known pull is named after the repository's last manifest request within this time.
pub(crate) const NAME_MILLIS: u64 = 10 * 60_000;
/// A transfer without progress for this long has a dead client, unless its download waits for the upstream: how long an
/// outage is waited out is a person's choice, and may be a day.
pub(crate) const SILENCE_MILLIS: u64 = 60 * 60_000;
/// The most pulls that go on at once; one more ends the one that was silent longest.
pub(crate) const ACTIVE_MAX: usize = 256;
/// Ended pulls kept in memory; the oldest go first. All stay in the history.
pub(crate) const ENDED_MAX: usize = 64;
/// The most open transfers; beyond it the one that was silent longest is given up.
pub(crate) const TRANSFERS_MAX: usize = 4_096;
/// The most blobs of one pull that are followed (what a manifest may list).
pub(crate) const PARTS_MAX: usize = 4_096;
/// The most repositories whose last reference is remembered.
const NAMES_MAX: usize = 512;
/// The most things remembered that came before the event they belong to.
const EARLY_MAX: usize = 256;

/// A blob on its way to a client.
#[derive(Debug)]
struct Transfer {
    pull: u64,
    digest: Digest,
    offset: u64,
    sent: u64,
    active: Millis,
}

/// The last manifest reference of a repository.
#[derive(Debug)]
struct Named {
    reference: Reference,
    at: Millis,
    /// A `HEAD` whose manifest was not asked for yet, and why it was answered stale, if it was.
    head: Option<Head>,
}

/// Why a `HEAD` was answered stale, if it was.
#[derive(Clone, Copy, Debug)]
struct Head(Option<Stale>);

/// Bytes fetched before the pull that wants them is known (a manifest is fetched before it is answered).
#[derive(Debug)]
struct Unclaimed {
    image: ImageName,
    digest: Digest,
    at: Millis,
    bytes: u64,
}

/// The answer to a transfer whose beginning was not told yet.
#[derive(Debug)]
struct Early {
    id: TransferId,
    at: Millis,
    served: u64,
    ending: Ending,
    user_agent: String,
}

/// All pulls that go on, and the last ones that ended.
#[derive(Debug)]
pub(crate) struct PullTracker {
    next_id: u64,
    pulls: BTreeMap<u64, Pull>,
    transfers: HashMap<TransferId, Transfer>,
    /// How the downloads that have connections, or wait for their upstream, go.
    downloads: HashMap<Digest, Effort>,
    names: HashMap<ImageName, Named>,
    unclaimed: VecDeque<Unclaimed>,
    early: VecDeque<Early>,
    /// Changed, and gone from memory before the database took them.
    evicted: VecDeque<PullRecord>,
}

impl PullTracker {
    /// No pulls yet; the first will be `next_id`.
    pub(crate) fn new(next_id: u64) -> Self {
        Self {
            next_id,
            pulls: BTreeMap::new(),
            transfers: HashMap::new(),
            downloads: HashMap::new(),
            names: HashMap::new(),
            unclaimed: VecDeque::new(),
            early: VecDeque::new(),
            evicted: VecDeque::new(),
        }
    }

    /// The number the next pull will have.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Takes in what happened.
    pub(crate) fn record(&mut self, event: &Event) {
        match event {
            Event::Manifest { at, image, reference, manifest, outcome } => {
                self.manifest(*at, image, reference, manifest, *outcome);
            }
            Event::BlobStarted { id, at, image, digest, size, offset, source } => {
                let transfer = Transfer { pull: 0, digest: *digest, offset: *offset, sent: 0, active: *at };
                self.blob_started(*id, transfer, image, *size, *source);
            }
            Event::BlobProgress { id, at, sent } => self.blob_progress(*id, *at, *sent),
            Event::Fetched { at, image, digest, bytes } => {
                if let Some(digest) = digest {
                    self.fetched(*at, image, *digest, *bytes);
                }
            }
            Event::Download { digest, connections, retries, repaired, waiting, at, image: _ } => {
                let (connections, retries, repaired) = (*connections, *retries, *repaired);
                self.download(*at, *digest, Effort { connections, retries, repaired, waiting: *waiting });
            }
            Event::Lied { .. } => {}
            Event::Answered(answer) => self.answered(answer),
        }
    }

    /// Ends what is over: transfers that are silent for too long, pulls that are idle.
    pub(crate) fn tick(&mut self, now: Millis) {
        let silent = |t: &Transfer| now.since(t.active) >= SILENCE_MILLIS && !self.waits(&t.digest);
        let given_up: Vec<TransferId> =
            self.transfers.iter().filter(|(_, t)| silent(t)).map(|(id, _)| *id).collect();
        for id in given_up {
            self.give_up(id);
        }
        for pull in self.pulls.values_mut().filter(|pull| pull.is_active() && pull.open == 0) {
            // The clock was set back: nothing happened later than now.
            pull.active = pull.active.min(now);
            if now.since(pull.active) >= IDLE_MILLIS {
                pull.end();
            }
        }
        self.unclaimed.retain(|fetched| now.since(fetched.at) < LEAD_MILLIS);
        self.evict();
    }

    /// Pulls that go on and those that ended in the last minute, newest first, at most [`LIVE_MAX`].
    pub(crate) fn live(&self, now: Millis) -> Vec<PullRecord> {
        let shown = |pull: &&Pull| pull.ended.is_none_or(|ended| now.since(ended) < LINGER_MILLIS);
        self.pulls.values().rev().filter(shown).take(LIVE_MAX).map(|pull| pull.record(now)).collect()
    }

    /// The pulls that go on.
    pub(crate) fn active_ids(&self) -> impl Iterator<Item = u64> {
        self.pulls.values().filter(|pull| pull.is_active()).map(|pull| pull.id)
    }

    /// How many pulls go on.
    pub(crate) fn active_count(&self) -> usize {
        self.active_ids().count()
    }

    /// Every pull that changed since the last call, as it would stand in the history if it ended now.
    pub(crate) fn take_changed(&mut self) -> Vec<PullRecord> {
        let mut taken: Vec<PullRecord> = self.evicted.drain(..).collect();
        for pull in self.pulls.values_mut().filter(|pull| pull.changed) {
            pull.changed = false;
            taken.push(pull.record_ended());
        }
        taken
    }

    /// The newest pull of a repository that is as wanted.
    fn newest(&self, image: &ImageName, wanted: impl Fn(&Pull) -> bool) -> Option<u64> {
        self.pulls.values().rev().find(|pull| pull.image == *image && wanted(pull)).map(|pull| pull.id)
    }

    fn open(&mut self, at: Millis, image: &ImageName, reference: Reference) -> u64 {
        if self.active_count() >= ACTIVE_MAX {
            let oldest = self.pulls.values().filter(|pull| pull.is_active()).min_by_key(|pull| pull.active);
            if let Some(id) = oldest.map(|pull| pull.id) {
                self.transfers.retain(|_, transfer| transfer.pull != id);
                self.pulls.entry(id).and_modify(Pull::end);
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        self.pulls.insert(id, Pull::new(id, image.clone(), reference, at));
        self.evict();
        id
    }

    /// Ends a transfer whose end was never told.
    fn give_up(&mut self, id: TransferId) {
        if let Some(transfer) = self.transfers.remove(&id)
            && let Some(pull) = self.pulls.get_mut(&transfer.pull)
        {
            pull.open = pull.open.saturating_sub(1);
            pull.changed = true;
        }
    }

    fn evict(&mut self) {
        let ended = self.pulls.len() - self.active_count();
        for _ in ENDED_MAX..ended {
            let oldest = self.pulls.values().filter(|pull| !pull.is_active()).min_by_key(|pull| pull.ended);
            let Some(pull) = oldest.map(|pull| pull.id).and_then(|id| self.pulls.remove(&id)) else { break };
            if pull.changed {
                self.evicted.push_back(pull.record_ended());
            }
        }
        // The history would not keep more.
        while self.evicted.len() > HISTORY_MAX {
            self.evicted.pop_front();
        }
    }

    fn remember_name(&mut self, image: &ImageName, named: Named) {
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(image) {
            let oldest = self.names.iter().min_by_key(|(_, named)| named.at).map(|(image, _)| image.clone());
            if let Some(oldest) = oldest {
                self.names.remove(&oldest);
            }
        }
        self.names.insert(image.clone(), named);
    }
}
