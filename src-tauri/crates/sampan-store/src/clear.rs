//! Clearing: what goes and what stays is one pure decision, shared by the preview and the deed.

use std::collections::{HashMap, HashSet};

use sampan_oci::{Digest, ImageName, Millis, Reference, Tag};

use crate::catalog::{Catalog, Entry, ImageEntry};
use crate::undo::Hidden;

/// What a person wants removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything, pinned or not.
    All,
    /// These images, pinned or not.
    Images(Vec<Selected>),
    /// Every entry last used before this moment that is neither pinned nor frozen.
    UnusedSince(Millis),
}

/// One selected image, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The repository.
    pub image: ImageName,
    /// A tag: that entry. A digest: every entry of the image whose manifest it is, tagged or not. `None`: the whole image,
    /// with everything else that only it is known to show.
    pub reference: Option<Reference>,
}

/// What clearing removes, or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// The entries that go.
    pub images: Vec<ImageEntry>,
    /// How many blobs go: those no remaining entry is made of.
    pub blobs: u64,
    /// The sizes of their files, in bytes; with [`Selection::All`] also what idle partial downloads hold.
    pub freed_bytes: u64,
    /// How many of the bytes that go came over the link, and would cross it again; with [`Selection::All`] also those of
    /// idle partial downloads.
    pub refetch_bytes: u64,
}

/// What is to go, as the store itself asks for it.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// What a person selected.
    Selected(Selection),
    /// Entries that a person cleared before and may have wanted back, unless they were used since.
    Hidden(Vec<Hidden>),
}

/// Everything that goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removal {
    pub(crate) entries: Vec<ImageEntry>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) tags: Vec<(i64, Tag)>,
    pub(crate) links: Vec<(i64, Digest)>,
    pub(crate) pins: Vec<(i64, Reference)>,
    /// Images of which nothing stays.
    pub(crate) images: Vec<i64>,
    /// Whether the partial downloads go that nobody has open: no image leads to them, so that only everything takes them.
    pub(crate) partials: bool,
}

impl Selected {
    fn takes(&self, entry: &ImageEntry) -> bool {
        self.image == entry.image
            && match &self.reference {
                None => true,
                Some(Reference::Tag(tag)) => entry.tag.as_ref() == Some(tag),
                Some(Reference::Digest(digest)) => entry.digest == *digest,
            }
    }
}

impl Choice {
    fn takes(&self, found: &Entry) -> bool {
        let entry = &found.shown;
        match self {
            Self::Selected(Selection::All) => true,
            Self::Selected(Selection::Images(images)) => images.iter().any(|selected| selected.takes(entry)),
            Self::Selected(Selection::UnusedSince(moment)) => {
                entry.last_used < *moment && !entry.pinned && !entry.frozen
            }
            Self::Hidden(hidden) => hidden.iter().any(|hidden| hidden.is(entry) && !hidden.was_used(found)),
        }
    }

    /// Whether it takes all of an image; `stays`: entries of it stay.
    fn takes_whole(&self, image: &ImageName, stays: bool) -> bool {
        match self {
            Self::Selected(Selection::All) => true,
            Self::Selected(Selection::Images(images)) => {
                images.iter().any(|s| s.reference.is_none() && s.image == *image)
            }
            Self::Selected(Selection::UnusedSince(_)) => false,
            Self::Hidden(hidden) => {
                !stays && hidden.iter().any(|hidden| hidden.whole && hidden.image == *image)
            }
        }
    }
}

/// Decides what goes. `entries` are all of the catalogue's.
pub(crate) fn plan(catalog: &Catalog, entries: Vec<Entry>, choice: &Choice) -> Removal {
    let strays = catalog.strays(&entries);
    let (going, staying): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| choice.takes(entry));
    let kept: HashSet<i64> = staying.iter().map(|entry| entry.key).collect();
    let whole =
        |(key, image): (&i64, &ImageName)| choice.takes_whole(image, kept.contains(key)).then_some(*key);
    let images: Vec<i64> = catalog.images.iter().filter_map(whole).collect();
    let strays: HashSet<Digest> = strays
        .into_iter()
        .filter(|stray| match choice {
            Choice::Selected(Selection::All) => true,
            Choice::Selected(Selection::UnusedSince(moment)) => stray.last_used < *moment,
            Choice::Selected(Selection::Images(_)) | Choice::Hidden(_) => {
                !stray.images.is_empty() && stray.images.iter().all(|image| images.contains(image))
            }
        })
        .map(|stray| stray.digest)
        .collect();

    let mut needed_by: HashMap<i64, HashSet<Digest>> = HashMap::new();
    for entry in &staying {
        needed_by.entry(entry.key).or_default().extend(&entry.reach);
    }
    if matches!(choice, Choice::Selected(Selection::UnusedSince(_))) {
        for (key, reach) in catalog.pinned_digests() {
            needed_by.entry(key).or_default().extend(reach);
        }
    }
    let needed: HashSet<Digest> = needed_by.values().flatten().copied().collect();
    let led_to: HashSet<Digest> = going.iter().flat_map(|entry| &entry.reach).copied().collect();
    let goes = |d: &&Digest| !needed.contains(d) && (led_to.contains(d) || strays.contains(d));
    let blobs: HashSet<Digest> = catalog.held.keys().filter(goes).copied().collect();

    let mut links = HashSet::new();
    for entry in &going {
        let needed = needed_by.get(&entry.key);
        let unneeded = entry.reach.iter().filter(|d| needed.is_none_or(|needed| !needed.contains(d)));
        links.extend(unneeded.map(|d| (entry.key, *d)));
    }
    let of_strays =
        catalog.links.iter().filter(|link| strays.contains(&link.digest) && blobs.contains(&link.digest));
    links.extend(of_strays.map(|link| (link.image, link.digest)));
    let tags: Vec<(i64, Tag)> =
        going.iter().filter_map(|entry| Some((entry.key, entry.shown.tag.clone()?))).collect();
    // What a person removes by its name is not to come back pinned.
    let of_tags = tags.iter().map(|(key, tag)| (*key, Reference::Tag(tag.clone())));
    let of_digests = links.iter().map(|(key, digest)| (*key, Reference::Digest(*digest)));
    let pins = of_tags.chain(of_digests).filter(|pin| catalog.pins.contains(pin)).collect();
    Removal {
        tags,
        entries: going.into_iter().map(|entry| entry.shown).collect(),
        blobs: blobs.into_iter().collect(),
        links: links.into_iter().collect(),
        pins,
        images,
        partials: matches!(choice, Choice::Selected(Selection::All)),
    }
}
