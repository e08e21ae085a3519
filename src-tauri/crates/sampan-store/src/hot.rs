//! What requests asked of the index a moment ago, kept in memory: a pull that is served from the cache asks the same few
//! questions again and again.
//!
//! Everything here is still true: each committed change of the index tells which digests it was about, and the answers that
//! have to do with those are forgotten, while the others stay. A file is only ever removed in such a change, so what was
//! cleared, evicted or found damaged is not served from here. A file that somebody else deletes goes unnoticed until then:
//! its bytes were right when they were read.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sampan_oci::{Digest, ImageName, MediaType, Millis, Tag};

use crate::moment::Moment;
use crate::store::{HeldTag, Link};

/// The most bytes of manifests kept; beyond it all is forgotten, which costs reading again.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most answers kept, likewise.
const ENTRIES_MAX: usize = 16 * 1024;
/// How long bytes that were hashed count as right.
const TRUSTED_FOR: Duration = Duration::from_hours(24);

/// The answers that still hold.
#[derive(Debug, Default)]
pub(crate) struct Hot {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Counts the committed changes: an answer that was asked for before the last of them is not kept.
    generation: u64,
    images: HashMap<ImageName, Answers>,
    entries: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Answers {
    tags: HashMap<Tag, HeldTag>,
    links: HashMap<Digest, Link>,
    manifests: HashMap<Digest, (Bytes, MediaType, Moment)>,
}

impl Shelf {
    /// Where an answer goes that was asked for in this generation; `None`: it may not hold any more.
    fn place(&mut self, generation: u64, image: &ImageName, bytes: usize) -> Option<&mut Answers> {
        if generation != self.generation || bytes > BYTES_MAX {
            return None;
        }
        if self.entries >= ENTRIES_MAX || self.bytes + bytes > BYTES_MAX {
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

    /// To be asked for before a question whose answer is then kept.
    pub(crate) fn generation(&self) -> u64 {
        self.shelf().generation
    }

    /// A change was committed, or failed after it may have removed files. `about`: every digest that it changed an answer
    /// about; `None`: any.
    pub(crate) fn forget(&self, about: Option<&HashSet<Digest>>) {
        let mut kept = self.shelf();
        kept.generation += 1;
        let generation = kept.generation;
        let Some(about) = about else {
            *kept = Shelf { generation, ..Shelf::default() };
            return;
        };
        let (mut entries, mut bytes) = (0, 0);
        // As many steps as there are answers, however much the change was about: hits wait for this.
        kept.images.retain(|_, Answers { tags, links, manifests }| {
            tags.retain(|_, held| !about.contains(&held.digest));
            links.retain(|digest, _| !about.contains(digest));
            manifests.retain(|digest, _| !about.contains(digest));
            entries += tags.len() + links.len() + manifests.len();
            bytes += manifests.values().map(|(manifest, ..)| manifest.len()).sum::<usize>();
            !(tags.is_empty() && links.is_empty() && manifests.is_empty())
        });
        kept.entries = entries;
        kept.bytes = bytes;
    }

    pub(crate) fn tag(&self, image: &ImageName, tag: &Tag) -> Option<HeldTag> {
        self.shelf().images.get(image)?.tags.get(tag).copied()
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

    pub(crate) fn link(&self, image: &ImageName, digest: &Digest) -> Option<Link> {
        self.shelf().images.get(image)?.links.get(digest).copied()
    }

    pub(crate) fn keep_link(&self, generation: u64, image: &ImageName, digest: &Digest, link: Link) {
        if let Some(answers) = self.shelf().place(generation, image, 0) {
            answers.links.insert(*digest, link);
        }
    }

    pub(crate) fn manifest(&self, image: &ImageName, digest: &Digest) -> Option<(Bytes, MediaType)> {
        let kept = self.shelf();
        let (bytes, media_type, hashed) = kept.images.get(image)?.manifests.get(digest)?;
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
        let hashed = Moment::now();
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
    fn a_change_makes_unknown_what_it_was_about_and_nothing_else() {
        let (hot, alpine, nginx) =
            (Hot::default(), image("docker.io/library/alpine"), image("docker.io/library/nginx"));
        let (old, new, tag) = (Digest::of(b"old"), Digest::of(b"new"), "latest".parse().unwrap());
        let bytes = Bytes::from_static(b"{}");
        for image in [&alpine, &nginx] {
            for digest in [&old, &new] {
                hot.keep_link(0, image, digest, Link { size: Some(1) });
                hot.keep_manifest(0, image, digest, &bytes, MediaType::OciIndex);
            }
        }
        hot.keep_tag(0, &alpine, &tag, HeldTag { digest: old, checked: Millis(1), frozen: false });
        hot.keep_tag(0, &nginx, &tag, HeldTag { digest: new, checked: Millis(1), frozen: false });
        hot.forget(Some(&HashSet::from([old])));
        for image in [&alpine, &nginx] {
            assert!(hot.link(image, &old).is_none() && hot.manifest(image, &old).is_none());
            assert!(hot.link(image, &new).is_some() && hot.manifest(image, &new).is_some());
        }
        assert!(hot.tag(&alpine, &tag).is_none(), "it pointed there");
        assert!(hot.tag(&nginx, &tag).is_some(), "it did not");
        let left = |hot: &Hot| {
            let shelf = hot.shelf();
            (shelf.images.len(), shelf.entries, shelf.bytes)
        };
        assert_eq!(left(&hot), (2, 5, 4), "what is counted is what is left");
        hot.forget(None);
        assert!(
            hot.tag(&nginx, &tag).is_none() && hot.link(&nginx, &new).is_none(),
            "anything may have changed"
        );
        assert_eq!(left(&hot), (0, 0, 0));
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_kept() {
        let (hot, alpine, digest) = (Hot::default(), image("docker.io/library/alpine"), Digest::of(b"x"));
        let asked = hot.generation();
        hot.forget(Some(&HashSet::from([digest])));
        hot.keep_link(asked, &alpine, &digest, Link { size: Some(1) });
        assert_eq!(hot.link(&alpine, &digest), None, "late is too late");
        hot.keep_link(hot.generation(), &alpine, &digest, Link { size: Some(2) });
        assert_eq!(hot.link(&alpine, &digest), Some(Link { size: Some(2) }));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let (hot, alpine) = (Hot::default(), image("docker.io/library/alpine"));
        let large = Bytes::from(vec![0; BYTES_MAX / 4]);
        for n in 0_u32..100 {
            let digest = Digest::of(&n.to_be_bytes());
            hot.keep_manifest(0, &alpine, &digest, &large, MediaType::OciIndex);
            assert!(hot.manifest(&alpine, &digest).is_some());
            assert!(hot.shelf().bytes <= BYTES_MAX);
        }
        for n in 0_u32..50_000 {
            hot.keep_link(0, &alpine, &Digest::of(&n.to_be_bytes()), Link { size: None });
            assert!(hot.shelf().entries <= ENTRIES_MAX);
        }
        let too_large = Bytes::from(vec![0; BYTES_MAX + 1]);
        hot.keep_manifest(0, &alpine, &Digest::of(b"x"), &too_large, MediaType::OciIndex);
        assert!(hot.manifest(&alpine, &Digest::of(b"x")).is_none());
    }
}
