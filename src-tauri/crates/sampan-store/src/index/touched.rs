//! Uses and confirmations that wait in memory to be written together: a hit must cost no write.

use std::collections::{HashMap, HashSet};

use sampan_oci::{Digest, ImageName, Millis, Tag};

/// How many of them wait before they are written.
const TOUCHED_MAX: usize = 1024;
/// How long they wait.
const TOUCHED_MILLIS_MAX: u64 = 60_000;

/// By image and digest: the last use, and how many uses were answered from what is held.
pub(super) type Uses = HashMap<ImageName, HashMap<Digest, (Millis, u32)>>;
/// By image and tag: when it was confirmed last.
pub(super) type Confirmed = HashMap<ImageName, HashMap<Tag, Millis>>;

/// What waits.
#[derive(Debug)]
pub(super) struct Touched {
    uses: Uses,
    tags: Confirmed,
    /// How many of both there are.
    waiting: usize,
    since: Millis,
}

impl Touched {
    pub(super) fn since(now: Millis) -> Self {
        Self { uses: HashMap::new(), tags: HashMap::new(), waiting: 0, since: now }
    }

    /// Notes a use. `true`: it is time to write.
    pub(super) fn touch(&mut self, image: &ImageName, digest: Digest, served: bool, now: Millis) -> bool {
        let waiting = &mut self.waiting;
        of_image(&mut self.uses, image, |uses| {
            let (used, hits) = uses.entry(digest).or_insert_with(|| {
                *waiting += 1;
                (now, 0)
            });
            *used = now;
            *hits = hits.saturating_add(u32::from(served));
        });
        self.is_due(now)
    }

    /// Notes that a tag was confirmed. `true`: it is time to write.
    pub(super) fn touch_tag(&mut self, image: &ImageName, tag: &Tag, now: Millis) -> bool {
        let waiting = &mut self.waiting;
        of_image(&mut self.tags, image, |tags| {
            if let Some(checked) = tags.get_mut(tag) {
                *checked = now;
            } else {
                tags.insert(tag.clone(), now);
                *waiting += 1;
            }
        });
        self.is_due(now)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.uses.is_empty() && self.tags.is_empty()
    }

    /// Adds what was used to a list.
    pub(super) fn add_used(&self, list: &mut HashSet<Digest>) {
        list.extend(self.uses.values().flat_map(HashMap::keys));
    }

    pub(super) fn confirmed(&self, image: &ImageName, tag: &Tag) -> Option<Millis> {
        self.tags.get(image)?.get(tag).copied()
    }

    pub(super) fn take(&mut self) -> (Uses, Confirmed) {
        self.waiting = 0;
        (std::mem::take(&mut self.uses), std::mem::take(&mut self.tags))
    }

    fn is_due(&mut self, now: Millis) -> bool {
        let due = self.waiting >= TOUCHED_MAX || now.since(self.since) >= TOUCHED_MILLIS_MAX;
        if due {
            // The next one waits its turn again, whether or not this one could be written.
            self.since = now;
        }
        due
    }
}

/// Works on the part of a map that is about one image; its name is copied only the first time.
fn of_image<T: Default>(map: &mut HashMap<ImageName, T>, image: &ImageName, work: impl FnOnce(&mut T)) {
    match map.get_mut(image) {
        Some(found) => work(found),
        None => work(map.entry(image.clone()).or_default()),
    }
}
