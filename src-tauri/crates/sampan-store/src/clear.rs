//! Clearing: what goes and what stays is one pure decision, shared by the preview and the deed.

use std::collections::{HashMap, HashSet};

use sampan_oci::{Digest, ImageName, Millis, Reference, Tag};

use crate::catalog::{Catalog, Entry, Held, ImageEntry, LinkRow};

/// What a person wants removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Everything.
    All,
    /// These images.
    Images(Vec<Selected>),
    /// Every entry last used before this moment.
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
}

/// Everything that goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removal {
    pub(crate) entries: Vec<ImageEntry>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) tags: Vec<(i64, Tag)>,
    pub(crate) links: Vec<(i64, Digest)>,
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

/// Decides what goes. `entries` are all of the catalogue's.
pub(crate) fn plan(catalog: &Catalog, entries: Vec<Entry>, selection: &Selection) -> Removal {
    let (going, staying): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| match selection {
        Selection::All => true,
        Selection::Images(images) => images.iter().any(|selected| selected.takes(&entry.shown)),
        Selection::UnusedSince(moment) => entry.shown.last_used < *moment,
    });
    let needed: HashSet<Digest> = staying.iter().flat_map(|entry| &entry.reach).copied().collect();
    let led_to: HashSet<Digest> = going.iter().flat_map(|entry| &entry.reach).copied().collect();
    let images = whole_images(catalog, selection);
    let strays = strays_that_go(catalog, selection, &images);
    let goes = |d: &&Digest| !needed.contains(d) && (led_to.contains(d) || strays.contains(d));
    let blobs: HashSet<Digest> = catalog.held.keys().filter(goes).copied().collect();

    let mut needed_by: HashMap<i64, HashSet<Digest>> = HashMap::new();
    for entry in &staying {
        needed_by.entry(entry.key).or_default().extend(&entry.reach);
    }
    let mut links = HashSet::new();
    for entry in &going {
        let needed = needed_by.get(&entry.key);
        let unneeded = entry.reach.iter().filter(|d| needed.is_none_or(|needed| !needed.contains(d)));
        links.extend(unneeded.map(|d| (entry.key, *d)));
    }
    let of_strays =
        catalog.links.iter().filter(|link| strays.contains(&link.digest) && blobs.contains(&link.digest));
    links.extend(of_strays.map(|link| (link.image, link.digest)));
    Removal {
        tags: going.iter().filter_map(|entry| Some((entry.key, entry.shown.tag.clone()?))).collect(),
        entries: going.into_iter().map(|entry| entry.shown).collect(),
        blobs: blobs.into_iter().collect(),
        links: links.into_iter().collect(),
        images,
        partials: matches!(selection, Selection::All),
    }
}

/// The images of which nothing stays, as keys.
fn whole_images(catalog: &Catalog, selection: &Selection) -> Vec<i64> {
    let whole = |image: &ImageName| match selection {
        Selection::All => true,
        Selection::Images(images) => images.iter().any(|s| s.reference.is_none() && s.image == *image),
        Selection::UnusedSince(_) => false,
    };
    catalog.images.iter().filter(|(_, image)| whole(image)).map(|(key, _)| *key).collect()
}

/// Blobs that go without any entry leading to them: fetched by their digest alone, or found after the index was lost.
/// The result may hold blobs that entries do lead to; those are decided by their entries.
fn strays_that_go(catalog: &Catalog, selection: &Selection, images: &[i64]) -> HashSet<Digest> {
    let mut links: HashMap<Digest, Vec<&LinkRow>> = HashMap::new();
    for link in &catalog.links {
        links.entry(link.digest).or_default().push(link);
    }
    let goes = |digest: &Digest, held: &Held| {
        let links = links.get(digest).map_or(&[][..], Vec::as_slice);
        match selection {
            Selection::All => true,
            Selection::Images(_) => {
                !links.is_empty() && links.iter().all(|link| images.contains(&link.image))
            }
            Selection::UnusedSince(moment) => {
                links.iter().map(|link| link.last_used).max().unwrap_or(held.created) < *moment
            }
        }
    };
    catalog.held.iter().filter(|(digest, held)| goes(digest, held)).map(|(digest, _)| *digest).collect()
}
