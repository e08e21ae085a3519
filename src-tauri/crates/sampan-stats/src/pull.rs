//! One pull: what is known of it, and how it ended.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sampan_oci::{
    Descriptor, Digest, Failure, ImageName, Manifest, Millis, Outcome, Platform, Reference, Source, Stale,
};

use crate::delivered::Delivered;
use crate::rate::{RateWindow, eta_seconds};
use crate::{LayerRecord, PullRecord, PullState};

/// How the last answer for something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client got what it asked for.
    Whole,
    /// The client hung up.
    Left,
    /// It could not be delivered.
    Failed,
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Failed(Failure::ClientLeft) => Self::Left,
            Outcome::Failed(_) => Self::Failed,
            Outcome::Hit
            | Outcome::Revalidated
            | Outcome::Miss
            | Outcome::Joined
            | Outcome::Stale(_)
            | Outcome::Bypass(_) => Self::Whole,
        }
    }
}

/// What the download of a blob takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    /// In use now.
    pub(crate) connections: u32,
    /// Requests asked again before a byte came.
    pub(crate) retries: u64,
    /// Bodies that broke off or were replaced, and continued elsewhere.
    pub(crate) repaired: u64,
    /// Nothing comes, and it waits for the upstream.
    pub(crate) waiting: bool,
}

/// A blob of a pull.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// An attestation's blob: it keeps the pull going but is no part of the image.
    pub(crate) aside: bool,
    pub(crate) source: Option<Source>,
    pub(crate) last: Option<Ending>,
    pub(crate) effort: Effort,
    delivered: Delivered,
}

impl Part {
    pub(crate) fn new(digest: Digest, size: u64) -> Self {
        let (effort, delivered) = (Effort::default(), Delivered::default());
        Self { digest, size, aside: false, source: None, last: None, effort, delivered }
    }

    /// Bytes `offset..offset + sent` went to a client.
    pub(crate) fn deliver(&mut self, offset: u64, sent: u64) {
        let start = offset.min(self.size);
        self.delivered.cover(start, start.saturating_add(sent).min(self.size));
    }

    /// A transfer of it began. The link is where a part came from, however many take it from the disk later.
    pub(crate) fn start(&mut self, source: Source) {
        let rank = |source| match source {
            Source::Disk => 0,
            Source::Joined => 1,
            Source::Upstream => 2,
        };
        if self.source.is_none_or(|known| rank(known) < rank(source)) {
            self.source = Some(source);
        }
    }

    pub(crate) fn done(&self) -> u64 {
        self.delivered.bytes()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.source.is_some() && self.done() >= self.size
    }

    /// What keeps the pull from being complete, if anything: an unfinished part whose last answer was not what the
    /// client asked for. A range that was delivered is (clients that read layers lazily ask for no more).
    fn trouble(&self) -> Option<Ending> {
        if self.last == Some(Ending::Whole) || self.is_done() {
            return None;
        }
        // Begun, and no answer has ended: the transfer was given up.
        self.last.or(self.source.map(|_| Ending::Left))
    }

    fn record(&self) -> LayerRecord {
        let (digest, size_bytes, source) = (self.digest, self.size, self.source);
        LayerRecord { digest, size_bytes, done_bytes: self.done(), source }
    }
}

/// One pull, going on or ended.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    pub(crate) id: u64,
    pub(crate) image: ImageName,
    pub(crate) reference: Reference,
    /// Nobody asked for `reference` in this pull: it began with a blob.
    pub(crate) guessed: bool,
    pub(crate) stale: Option<Stale>,
    pub(crate) index: Option<Arc<Manifest>>,
    /// The image manifest.
    pub(crate) manifest: Option<Digest>,
    pub(crate) manifest_seen: Millis,
    pub(crate) manifest_last: Option<Ending>,
    /// In the order they are shown; grows by [`Pull::add`] only.
    pub(crate) parts: Vec<Part>,
    places: HashMap<Digest, usize>,
    pub(crate) started: Millis,
    pub(crate) active: Millis,
    pub(crate) ended: Option<Millis>,
    /// Transfers that have begun and not ended.
    pub(crate) open: usize,
    pub(crate) fetched: u64,
    pub(crate) client: String,
    pub(crate) window: RateWindow,
    /// Differs from what was last taken for the database.
    pub(crate) changed: bool,
}

impl Pull {
    pub(crate) fn new(id: u64, image: ImageName, reference: Reference, at: Millis) -> Self {
        Self {
            id,
            image,
            reference,
            guessed: false,
            stale: None,
            index: None,
            manifest: None,
            manifest_seen: at,
            manifest_last: None,
            parts: Vec::new(),
            places: HashMap::new(),
            started: at,
            active: at,
            ended: None,
            open: 0,
            fetched: 0,
            client: String::new(),
            window: RateWindow::default(),
            changed: true,
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.ended.is_none()
    }

    /// Something of it happened; an ended pull goes on.
    pub(crate) fn touch(&mut self, at: Millis) {
        self.active = self.active.max(at);
        self.ended = None;
        self.changed = true;
    }

    pub(crate) fn end(&mut self) {
        self.ended = Some(self.active.max(self.started));
        self.window = RateWindow::default();
        self.open = 0;
        for part in &mut self.parts {
            (part.effort.connections, part.effort.waiting) = (0, false);
        }
        self.changed = true;
    }

    /// Takes its parts from the image manifest; what was delivered before it was known stays delivered.
    pub(crate) fn adopt(&mut self, manifest: &Manifest) {
        self.manifest = Some(manifest.digest);
        let known = std::mem::take(&mut self.parts);
        let places = std::mem::take(&mut self.places);
        for descriptor in manifest.descriptors() {
            let mut part = Part::new(descriptor.digest, descriptor.size);
            let before = places.get(&part.digest).and_then(|&place| known.get(place));
            if let Some(before) = before.filter(|before| before.source.is_some()) {
                (part.source, part.last, part.effort) = (before.source, before.last, before.effort);
                part.deliver(0, before.done());
            }
            self.add(part);
        }
        for part in known.into_iter().filter(|part| part.aside) {
            self.add(part);
        }
    }

    /// The same image, with nothing of it asked for yet.
    pub(crate) fn again(&self) -> Self {
        let mut again = Self::new(self.id, self.image.clone(), self.reference.clone(), self.started);
        (again.index, again.manifest) = (self.index.clone(), self.manifest);
        for part in &self.parts {
            again.add(Part { aside: part.aside, ..Part::new(part.digest, part.size) });
        }
        again
    }

    /// Becomes a pull of the same image as `before`, which [`again`](Self::again) made.
    pub(crate) fn take_parts_of(&mut self, before: Self) {
        (self.index, self.manifest) = (before.index, before.manifest);
        (self.parts, self.places) = (before.parts, before.places);
    }

    /// Takes on an attestation's blobs, which are no part of the image's size.
    pub(crate) fn adopt_aside(&mut self, manifest: &Manifest) {
        for descriptor in manifest.descriptors() {
            self.add(Part { aside: true, ..Part::new(descriptor.digest, descriptor.size) });
        }
    }

    /// Adds a blob. One listed twice (empty layers are) is asked for and delivered once.
    pub(crate) fn add(&mut self, part: Part) {
        if let Entry::Vacant(place) = self.places.entry(part.digest) {
            place.insert(self.parts.len());
            self.parts.push(part);
        }
    }

    pub(crate) fn part(&self, digest: &Digest) -> Option<&Part> {
        self.parts.get(*self.places.get(digest)?)
    }

    pub(crate) fn part_mut(&mut self, digest: &Digest) -> Option<&mut Part> {
        self.parts.get_mut(*self.places.get(digest)?)
    }

    /// Whether the index asked for lists this manifest.
    pub(crate) fn index_lists(&self, digest: &Digest) -> Option<&Descriptor> {
        self.index.as_ref()?.descriptors().find(|child| child.digest == *digest)
    }

    /// Whether this digest is its index or its image manifest.
    pub(crate) fn is_named_by(&self, digest: &Digest) -> bool {
        self.manifest == Some(*digest) || self.index.as_ref().is_some_and(|index| index.digest == *digest)
    }

    /// Whether every blob asked for so far is listed by `manifest`.
    pub(crate) fn fits(&self, manifest: &Manifest) -> bool {
        let listed: HashSet<&Digest> = manifest.descriptors().map(|descriptor| &descriptor.digest).collect();
        self.parts.iter().all(|part| part.aside || listed.contains(&part.digest))
    }

    /// How it went, were it to end now.
    pub(crate) fn verdict(&self) -> PullState {
        let mut troubles: Vec<Ending> = self.parts.iter().filter_map(Part::trouble).collect();
        // A manifest that did not arrive matters as long as nothing came after it.
        if self.parts.iter().all(|part| part.source.is_none()) {
            troubles.extend(self.manifest_last.filter(|&last| last != Ending::Whole));
        }
        if troubles.contains(&Ending::Failed) {
            PullState::Failed
        } else if troubles.is_empty() {
            PullState::Complete
        } else {
            PullState::Interrupted
        }
    }

    /// As it stands now, with speed and time left while it goes on.
    pub(crate) fn record(&self, now: Millis) -> PullRecord {
        let mut record = self.record_ended();
        if self.is_active() {
            record.ended = None;
            record.state = PullState::Active;
            record.rate = self.window.rate(now);
            let left = record.size_bytes.map(|size| size.saturating_sub(record.done_bytes));
            record.eta_seconds = left.and_then(|left| eta_seconds(left, record.rate));
            record.connections =
                self.parts.iter().map(|part| part.effort.connections).fold(0, u32::saturating_add);
            record.waiting = self.parts.iter().any(|part| part.effort.waiting);
        }
        record
    }

    /// As it stands in the history, were it to end now: a run that is killed leaves nothing half told.
    pub(crate) fn record_ended(&self) -> PullRecord {
        let layers: Vec<LayerRecord> =
            self.parts.iter().filter(|part| !part.aside).map(Part::record).collect();
        let sum = |of: fn(&LayerRecord) -> u64| layers.iter().map(of).fold(0, u64::saturating_add);
        let efforts =
            |of: fn(&Effort) -> u64| self.parts.iter().map(|p| of(&p.effort)).fold(0, u64::saturating_add);
        PullRecord {
            id: self.id,
            image: self.image.clone(),
            reference: self.reference.clone(),
            started: self.started,
            ended: Some(self.ended.unwrap_or(self.active).max(self.started)),
            state: self.verdict(),
            stale: self.stale,
            size_bytes: self.manifest.map(|_| sum(|layer| layer.size_bytes)),
            done_bytes: sum(|layer| layer.done_bytes),
            fetched_bytes: self.fetched,
            rate: None,
            eta_seconds: None,
            connections: 0,
            retries: efforts(|effort| effort.retries),
            repaired: efforts(|effort| effort.repaired),
            waiting: false,
            client: self.client.clone(),
            layers,
        }
    }
}

/// Whether an index entry is an attestation (BuildKit's "unknown/unknown" platform), not an image to run.
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    let unknown = |p: &Platform| p.os == "unknown" && p.architecture == "unknown";
    entry.platform.as_ref().is_some_and(unknown)
}
