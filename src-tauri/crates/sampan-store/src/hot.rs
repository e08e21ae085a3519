//! What requests asked of the index a moment ago, kept in memory: a pull that is served from the cache asks the same few
//! questions again and again.
//!
//! Everything here is true of one generation of the index: the first change that is committed afterwards makes all of it
//! unknown. A file is only ever removed in such a change, so what was cleared, evicted or found damaged is not served from
//! here. A file that somebody else deletes goes unnoticed until the next change: its bytes were right when they were read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sampan_oci::{Digest, ImageName, MediaType, Millis, Tag};

use crate::store::{HeldTag, Link};

/// The most bytes of manifests kept; beyond it all is forgotten, which costs reading again.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most answers kept, likewise.
const ENTRIES_MAX: usize = 16 * 1024;
/// How long bytes that were hashed count as right.
const TRUSTED_FOR: Duration = Duration::from_hours(24);

/// The answers of one generation.
#[derive(Debug, Default)]
pub(crate) struct Hot {
    shelf: Mutex<Shelf>,
    /// Manifests are not kept: each read is hashed.
    always_read: AtomicBool,
}

#[derive(Debug, Default)]
struct Shelf {
    generation: u64,
    images: HashMap<ImageName, Answers>,
    entries: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Answers {
    tags: HashMap<Tag, HeldTag>,
    links: HashMap<Digest, Link>,
    manifests: HashMap<Digest, (Bytes, MediaType, Instant)>,
}

impl Shelf {
    fn of(&self, generation: u64, image: &ImageName) -> Option<&Answers> {
        if self.generation == generation { self.images.get(image) } else { None }
    }

    /// Where an answer of this generation goes; `None`: a newer one is known already.
    fn place(&mut self, generation: u64, image: &ImageName, bytes: usize) -> Option<&mut Answers> {
        if generation < self.generation || bytes > BYTES_MAX {
            return None;
        }
        if generation > self.generation || self.entries >= ENTRIES_MAX || self.bytes + bytes > BYTES_MAX {
            *self = Self { generation, ..Self::default() };
        }
        self.entries += 1;
        self.bytes += bytes;
        if !self.images.contains_key(image) {
            self.images.insert(image.clone(), Answers::default());
        }
        self.images.get_mut(image)
    }
}

impl Hot {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each read of a manifest is to be hashed, as long as this is so.
    pub(crate) fn set_always_read(&self, always: bool) {
        self.always_read.store(always, Ordering::Release);
    }

    pub(crate) fn tag(&self, generation: u64, image: &ImageName, tag: &Tag) -> Option<HeldTag> {
        self.shelf().of(generation, image)?.tags.get(tag).copied()
    }

    pub(crate) fn keep_tag(&self, generation: u64, image: &ImageName, tag: &Tag, held: HeldTag) {
        if let Some(answers) = self.shelf().place(generation, image, 0) {
            answers.tags.insert(tag.clone(), held);
        }
    }

    /// A kept tag was confirmed: that is no change of the index until uses are written.
    pub(crate) fn confirm(&self, image: &ImageName, tag: &Tag, at: Millis) {
        let mut kept = self.shelf();
        if let Some(held) = kept.images.get_mut(image).and_then(|answers| answers.tags.get_mut(tag)) {
            held.checked = held.checked.max(at);
        }
    }

    pub(crate) fn link(&self, generation: u64, image: &ImageName, digest: &Digest) -> Option<Link> {
        self.shelf().of(generation, image)?.links.get(digest).copied()
    }

    pub(crate) fn keep_link(&self, generation: u64, image: &ImageName, digest: &Digest, link: Link) {
        if let Some(answers) = self.shelf().place(generation, image, 0) {
            answers.links.insert(*digest, link);
        }
    }

    pub(crate) fn manifest(
        &self,
        generation: u64,
        image: &ImageName,
        digest: &Digest,
    ) -> Option<(Bytes, MediaType)> {
        if self.always_read.load(Ordering::Acquire) {
            return None;
        }
        let kept = self.shelf();
        let (bytes, media_type, hashed) = kept.of(generation, image)?.manifests.get(digest)?;
        (hashed.elapsed() < TRUSTED_FOR).then(|| (bytes.clone(), *media_type))
    }

    /// `bytes` were read and hashed after `generation` was asked for, and are the ones that `digest` names.
    pub(crate) fn keep_manifest(
        &self,
        generation: u64,
        image: &ImageName,
        digest: &Digest,
        bytes: &Bytes,
        media_type: MediaType,
    ) {
        let hashed = Instant::now();
        if let Some(answers) = self.shelf().place(generation, image, bytes.len()) {
            answers.manifests.insert(*digest, (bytes.clone(), media_type, hashed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> ImageName {
        name.parse().unwrap()
    }

    #[test]
    fn an_answer_is_known_only_in_its_own_generation() {
        let (hot, alpine, digest) = (Hot::default(), image("docker.io/library/alpine"), Digest::of(b"x"));
        hot.keep_link(3, &alpine, &digest, Link { size: Some(1) });
        assert_eq!(hot.link(3, &alpine, &digest), Some(Link { size: Some(1) }));
        assert_eq!(hot.link(4, &alpine, &digest), None, "the index has changed since");
        assert_eq!(hot.link(3, &image("docker.io/library/nginx"), &digest), None);
        hot.keep_link(4, &alpine, &digest, Link { size: Some(2) });
        hot.keep_link(3, &alpine, &digest, Link { size: Some(1) });
        assert_eq!(hot.link(4, &alpine, &digest), Some(Link { size: Some(2) }), "late is too late");
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let (hot, alpine) = (Hot::default(), image("docker.io/library/alpine"));
        let large = Bytes::from(vec![0; BYTES_MAX / 4]);
        for n in 0_u32..100 {
            let digest = Digest::of(&n.to_be_bytes());
            hot.keep_manifest(0, &alpine, &digest, &large, MediaType::OciIndex);
            assert!(hot.manifest(0, &alpine, &digest).is_some());
            assert!(hot.shelf().bytes <= BYTES_MAX);
        }
        for n in 0_u32..50_000 {
            hot.keep_link(0, &alpine, &Digest::of(&n.to_be_bytes()), Link { size: None });
            assert!(hot.shelf().entries <= ENTRIES_MAX);
        }
        let too_large = Bytes::from(vec![0; BYTES_MAX + 1]);
        hot.keep_manifest(0, &alpine, &Digest::of(b"x"), &too_large, MediaType::OciIndex);
        assert!(hot.manifest(0, &alpine, &Digest::of(b"x")).is_none());
    }

    #[test]
    fn a_store_that_hashes_at_each_read_keeps_no_bytes_but_the_other_answers() {
        let (hot, alpine, digest) = (Hot::default(), image("docker.io/library/alpine"), Digest::of(b"x"));
        hot.keep_manifest(0, &alpine, &digest, &Bytes::from_static(b"x"), MediaType::OciIndex);
        hot.keep_link(0, &alpine, &digest, Link { size: None });
        hot.set_always_read(true);
        assert!(hot.manifest(0, &alpine, &digest).is_none());
        assert!(hot.link(0, &alpine, &digest).is_some());
    }
}
