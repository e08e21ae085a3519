//! Which pull a blob belongs to, and how much of it has arrived.

use sampan_oci::{Answered, Digest, ImageName, Millis, Reference, RequestKind, Source, TransferId};

use super::{
    EARLY_MAX, Early, LINGER_MILLIS, NAME_MILLIS, PARTS_MAX, PullTracker, TRANSFERS_MAX, Transfer, Unclaimed,
};
use crate::client_name;
use crate::pull::{Ending, Part, Pull};

impl PullTracker {
    /// A blob begins to flow.
    pub(super) fn blob_started(
        &mut self,
        id: TransferId,
        mut transfer: Transfer,
        image: &ImageName,
        size: u64,
        source: Source,
    ) {
        if self.transfers.contains_key(&id) {
            return;
        }
        if self.transfers.len() >= TRANSFERS_MAX {
            let silent = self.transfers.iter().min_by_key(|(_, transfer)| transfer.active).map(|(id, _)| *id);
            if let Some(silent) = silent {
                self.give_up(silent);
            }
        }
        let (at, digest, offset) = (transfer.active, transfer.digest, transfer.offset);
        let Some(pull_id) = self.pull_of_blob(at, image, digest, size) else { return };
        let effort = self.effort_behind(&digest, source);
        let Some(pull) = self.pulls.get_mut(&pull_id) else { return };
        let Some(part) = pull.part_mut(&digest) else { return };
        part.start(source);
        part.effort = effort.unwrap_or(part.effort);
        part.deliver(offset, 0);
        part.last = None;
        pull.open += 1;
        pull.window.begin(at);
        pull.touch(at);
        transfer.pull = pull_id;
        self.transfers.insert(id, transfer);
        self.claim(pull_id, digest);
        if let Some(early) = self.early.iter().position(|early| early.id == id)
            && let Some(early) = self.early.remove(early)
        {
            self.blob_ended(&early);
        }
    }

    /// The pull that asked for this blob; made where there is none.
    fn pull_of_blob(&mut self, at: Millis, image: &ImageName, digest: Digest, size: u64) -> Option<u64> {
        let lists = |pull: &Pull| pull.part(&digest).is_some();
        if let Some(id) = self.newest(image, |pull| pull.is_active() && lists(pull)) {
            return Some(id);
        }
        // A client that comes back for what it did not get goes on with its pull.
        let last = self.newest(image, lists).and_then(|id| self.pulls.get(&id));
        let comes_back = last.filter(|pull| {
            pull.ended.is_some_and(|ended| at.since(ended) < LINGER_MILLIS)
                && pull.part(&digest).is_some_and(|part| !part.is_done())
        });
        if let Some(pull) = comes_back {
            return Some(pull.id);
        }
        // The client holds the manifest already (docker keeps it when it forgets an image): an earlier pull tells its parts.
        let before = last.filter(|pull| pull.manifest.is_some()).map(Pull::again);
        // Where none does, only the repository tells what is pulled.
        let unlisted = |pull: &Pull| pull.is_active() && pull.manifest.is_none();
        let id = self.newest(image, unlisted).unwrap_or_else(|| {
            let named = self.names.get(image).filter(|named| at.since(named.at) < NAME_MILLIS);
            let (name, stale) = match named {
                Some(named) => (named.reference.clone(), named.head.and_then(|head| head.0)),
                None => {
                    (before.as_ref().map_or(Reference::Digest(digest), |pull| pull.reference.clone()), None)
                }
            };
            let id = self.open(at, image, name);
            self.pulls.entry(id).and_modify(|pull| {
                (pull.guessed, pull.stale) = (true, stale);
                if let Some(before) = before {
                    pull.take_parts_of(before);
                }
            });
            id
        });
        let pull = self.pulls.get_mut(&id).filter(|pull| pull.parts.len() < PARTS_MAX)?;
        pull.add(Part::new(digest, size));
        Some(id)
    }

    /// `sent` bytes of a transfer have been handed over so far; reports that come late change nothing.
    pub(super) fn blob_progress(&mut self, id: TransferId, at: Millis, sent: u64) {
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        let Some(pull) = self.pulls.get_mut(&transfer.pull) else { return };
        transfer.active = transfer.active.max(at);
        pull.touch(at);
        let Some(more) = sent.checked_sub(transfer.sent) else { return };
        transfer.sent = sent;
        pull.window.add(at, more);
        let offset = transfer.offset;
        if let Some(part) = pull.part_mut(&transfer.digest) {
            part.deliver(offset, sent);
        }
    }

    /// A request ended.
    pub(super) fn answered(&mut self, answer: &Answered) {
        match answer.kind {
            RequestKind::Manifest => self.manifest_answered(answer),
            RequestKind::Blob if !answer.head => self.blob_answered(answer),
            RequestKind::Blob
            | RequestKind::Ping
            | RequestKind::Tags
            | RequestKind::Referrers
            | RequestKind::Other => {}
        }
    }

    fn blob_answered(&mut self, answer: &Answered) {
        let ended = Early {
            id: answer.id,
            at: answer.at,
            served: answer.served_bytes,
            ending: answer.outcome.into(),
            user_agent: answer.user_agent.clone(),
        };
        if self.transfers.contains_key(&answer.id) {
            self.blob_ended(&ended);
            return;
        }
        if let (Some(image), Some(Reference::Digest(digest)), Ending::Failed | Ending::Left) =
            (&answer.image, &answer.reference, ended.ending)
        {
            // Refused before its first byte: a part could not be delivered.
            let wanted = |pull: &Pull| pull.is_active() && pull.part(digest).is_some();
            if let Some(pull) = self.newest(image, wanted).and_then(|id| self.pulls.get_mut(&id)) {
                pull.touch(answer.at);
                if let Some(part) = pull.part_mut(digest) {
                    part.last = Some(ended.ending);
                }
            }
        }
        if self.early.len() >= EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(ended);
    }

    fn blob_ended(&mut self, ended: &Early) {
        self.blob_progress(ended.id, ended.at, ended.served);
        let Some(transfer) = self.transfers.remove(&ended.id) else { return };
        let Some(pull) = self.pulls.get_mut(&transfer.pull) else { return };
        pull.open = pull.open.saturating_sub(1);
        if pull.client.is_empty() {
            pull.client = client_name(&ended.user_agent);
        }
        if let Some(part) = pull.part_mut(&transfer.digest) {
            part.last = Some(ended.ending);
        }
    }

    /// Bytes came in. Those of a blob may come after its client left; those of a manifest come before its pull begins.
    pub(super) fn fetched(&mut self, at: Millis, image: &ImageName, digest: Digest, bytes: u64) {
        let blob = |pull: &Pull| pull.part(&digest).is_some();
        let active = |pull: &Pull| pull.is_active() && (blob(pull) || pull.is_named_by(&digest));
        let id = self.newest(image, active).or_else(|| self.newest(image, blob));
        if let Some(pull) = id.and_then(|id| self.pulls.get_mut(&id)) {
            pull.fetched = pull.fetched.saturating_add(bytes);
            pull.changed = true;
            return;
        }
        let same = |known: &&mut Unclaimed| known.digest == digest && known.image == *image;
        if let Some(known) = self.unclaimed.iter_mut().find(same) {
            (known.at, known.bytes) = (at, known.bytes.saturating_add(bytes));
            return;
        }
        if self.unclaimed.len() >= EARLY_MAX {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back(Unclaimed { image: image.clone(), digest, at, bytes });
    }

    /// Gives a pull the bytes that were fetched for it before it was known: those of `also`, and of its parts.
    pub(super) fn claim(&mut self, id: u64, also: Digest) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        self.unclaimed.retain(|known| {
            let belongs =
                known.image == pull.image && (known.digest == also || pull.part(&known.digest).is_some());
            if belongs {
                pull.fetched = pull.fetched.saturating_add(known.bytes);
                pull.changed = true;
            }
            !belongs
        });
    }
}
