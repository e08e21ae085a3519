//! Which pull a manifest belongs to.

use std::sync::Arc;

use sampan_oci::{Answered, ImageName, Manifest, ManifestKind, Millis, Outcome, Reference, Stale};

use super::{Head, LEAD_MILLIS, LINGER_MILLIS, Named, PARTS_MAX, PullTracker};
use crate::client_name;
use crate::pull::{Ending, Pull, is_attestation};

impl PullTracker {
    /// A manifest is about to be answered to a GET.
    pub(super) fn manifest(
        &mut self,
        at: Millis,
        image: &ImageName,
        reference: &Reference,
        manifest: &Arc<Manifest>,
        outcome: Outcome,
    ) {
        let (name, head_stale) = self.lead(at, image, reference);
        let stale = outcome.stale().or(head_stale);
        let id = match &manifest.kind {
            ManifestKind::Index(_) => self.index(at, image, name, manifest),
            ManifestKind::Image { .. } => self.image(at, image, reference, name, manifest),
        };
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        pull.stale = pull.stale.or(stale);
        pull.manifest_seen = pull.manifest_seen.max(at);
        pull.manifest_last = Some(Ending::Whole);
        let reference = pull.reference.clone();
        pull.touch(at);
        self.remember_name(image, Named { reference, at, head: None });
        self.claim(id, manifest.digest);
    }

    /// The name a pull gets from what was asked for, and why that was answered stale, if it was. Clients ask for a tag by
    /// HEAD and then for the digest they were told: the first GET by digest after a HEAD is taken for that tag's.
    fn lead(&mut self, at: Millis, image: &ImageName, reference: &Reference) -> (Reference, Option<Stale>) {
        let head = self.names.get_mut(image).filter(|named| at.since(named.at) < LEAD_MILLIS);
        let head = head.and_then(|named| Some((named.head.take()?, named.reference.clone())));
        match (head, reference) {
            (Some((Head(stale), tag)), Reference::Digest(_)) => (tag, stale),
            (Some((Head(stale), tag)), Reference::Tag(_)) if tag == *reference => (tag, stale),
            (Some(_) | None, _) => (reference.clone(), None),
        }
    }

    fn index(&mut self, at: Millis, image: &ImageName, name: Reference, manifest: &Arc<Manifest>) -> u64 {
        let same = |pull: &Pull| {
            pull.is_active() && pull.index.as_ref().is_some_and(|index| index.digest == manifest.digest)
        };
        self.newest(image, same).unwrap_or_else(|| {
            let id = self.open(at, image, name);
            self.pulls.entry(id).and_modify(|pull| pull.index = Some(Arc::clone(manifest)));
            id
        })
    }

    fn image(
        &mut self,
        at: Millis,
        image: &ImageName,
        asked: &Reference,
        name: Reference,
        manifest: &Manifest,
    ) -> u64 {
        let digest = manifest.digest;
        if let Some(id) = self.newest(image, |pull| pull.is_active() && pull.manifest == Some(digest)) {
            return id;
        }
        let by_digest = matches!(asked, Reference::Digest(_));
        let listed = |pull: &Pull| by_digest && is_recent(pull, at) && pull.index_lists(&digest).is_some();
        let attested = |pull: &Pull| listed(pull) && pull.index_lists(&digest).is_some_and(is_attestation);
        if let Some(id) = self.newest(image, attested) {
            let roomy = |pull: &&mut Pull| pull.parts.len() + manifest.descriptors().count() <= PARTS_MAX;
            if let Some(pull) = self.pulls.get_mut(&id).filter(roomy) {
                pull.adopt_aside(manifest);
            }
            return id;
        }
        if let Some(id) =
            self.newest(image, |pull| listed(pull) && pull.manifest.is_none() && pull.fits(manifest))
        {
            self.pulls.entry(id).and_modify(|pull| pull.adopt(manifest));
            return id;
        }
        let began_with_its_blobs =
            |pull: &Pull| pull.is_active() && pull.guessed && pull.manifest.is_none() && pull.fits(manifest);
        if let Some(id) = self.newest(image, began_with_its_blobs) {
            self.pulls.entry(id).and_modify(|pull| {
                pull.adopt(manifest);
                (pull.reference, pull.guessed) = (name, false);
            });
            return id;
        }
        // Another platform of an index that a pull asked for has the same name.
        let sibling = self.newest(image, listed).and_then(|id| self.pulls.get(&id));
        let (name, index, stale) = match sibling {
            Some(pull) => (pull.reference.clone(), pull.index.clone(), pull.stale),
            None => (name, None, None),
        };
        let id = self.open(at, image, name);
        self.pulls.entry(id).and_modify(|pull| {
            (pull.index, pull.stale) = (index, stale);
            pull.adopt(manifest);
        });
        id
    }

    /// A manifest request ended: it tells the client's name, and whether it arrived.
    pub(super) fn manifest_answered(&mut self, answer: &Answered) {
        let (Some(image), Some(reference)) = (&answer.image, &answer.reference) else { return };
        let ending = Ending::from(answer.outcome);
        if answer.head {
            if let (Reference::Tag(_), Ending::Whole) = (reference, ending) {
                let head = Some(Head(answer.outcome.stale()));
                self.remember_name(image, Named { reference: reference.clone(), at: answer.at, head });
            }
            return;
        }
        let about = |pull: &Pull| match reference {
            Reference::Tag(_) => pull.reference == *reference,
            Reference::Digest(digest) => pull.is_named_by(digest) || pull.index_lists(digest).is_some(),
        };
        let Some(id) = self.newest(image, |pull| pull.is_active() && about(pull)) else { return };
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        pull.manifest_last = Some(ending);
        pull.touch(answer.at);
        if pull.client.is_empty() {
            pull.client = client_name(&answer.user_agent);
        }
    }
}

/// Whether a manifest asked for at `at` may still be the next step of this pull.
fn is_recent(pull: &Pull, at: Millis) -> bool {
    pull.is_active()
        || at.since(pull.manifest_seen) < LEAD_MILLIS
        || pull.ended.is_some_and(|ended| at.since(ended) < LINGER_MILLIS)
}
