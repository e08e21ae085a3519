//! What is held, seen as images: pure decisions over the index's rows.

use std::collections::{HashMap, HashSet};

use sampan_oci::{Digest, ImageName, Millis, Platform, Tag};

/// The index's rows at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) images: HashMap<i64, ImageName>,
    pub(crate) held: HashMap<Digest, Held>,
    /// What each manifest lists, in its order.
    pub(crate) manifests: HashMap<Digest, Vec<Edge>>,
    pub(crate) links: Vec<LinkRow>,
    pub(crate) tags: Vec<TagRow>,
}

/// A file under `blobs/`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) size: u64,
    pub(crate) created: Millis,
}

/// One descriptor of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) digest: Digest,
    pub(crate) configuration: bool,
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, Debug)]
pub(crate) struct LinkRow {
    pub(crate) image: i64,
    pub(crate) digest: Digest,
    pub(crate) created: Millis,
    pub(crate) last_used: Millis,
}

#[derive(Clone, Debug)]
pub(crate) struct TagRow {
    pub(crate) image: i64,
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) first_seen: Millis,
}

/// One image in the cache, as a person sees it: a tag, or a manifest that no tag or index of its image leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEntry {
    /// The repository.
    pub image: ImageName,
    /// The tag; `None` for a manifest held by its digest alone.
    pub tag: Option<Tag>,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The platforms held, in the index's order; empty where none is known.
    pub platforms: Vec<Platform>,
    /// The bytes on disk it is made of, each blob once, shared ones included.
    pub size_bytes: u64,
    /// The part of it that no other entry is made of: what clearing it alone frees.
    pub own_bytes: u64,
    /// When it was first held under this tag, or linked to this image.
    pub created: Millis,
    /// When its manifest, or one it lists, was last used.
    pub last_used: Millis,
}

/// An [`ImageEntry`], with the keys and blobs that clearing decides on.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: i64,
    /// Every digest it leads to, held or not.
    pub(crate) reach: HashSet<Digest>,
    pub(crate) shown: ImageEntry,
}

impl Catalog {
    /// All entries, ordered by image and tag, untagged ones first. `platform_of` tells the platform a held image
    /// configuration names.
    pub(crate) fn entries(&self, platform_of: impl Fn(&Digest) -> Option<Platform>) -> Vec<Entry> {
        let last_used: HashMap<(i64, Digest), Millis> =
            self.links.iter().map(|link| ((link.image, link.digest), link.last_used)).collect();
        let mut roots: Vec<(i64, Option<Tag>, Digest, Millis)> = self
            .tags
            .iter()
            .filter(|tag| self.held.contains_key(&tag.digest))
            .map(|tag| (tag.image, Some(tag.tag.clone()), tag.digest, tag.first_seen))
            .collect();
        roots.extend(self.untagged(&roots));
        let mut entries: Vec<Entry> = roots
            .into_iter()
            .filter_map(|(key, tag, digest, created)| {
                let image = self.images.get(&key)?.clone();
                let reach = self.reach(digest);
                // A tag may be younger than the last use of what it points at, never the other way round.
                let used = reach.iter().filter(|&d| *d == digest || self.manifests.contains_key(d));
                let used = used.filter_map(|d| last_used.get(&(key, *d)).copied()).max();
                let shown = ImageEntry {
                    image,
                    tag,
                    digest,
                    platforms: self.platforms(&digest, &platform_of),
                    size_bytes: reach.iter().filter_map(|d| self.held.get(d)).map(|held| held.size).sum(),
                    own_bytes: 0,
                    created,
                    last_used: used.unwrap_or(created).max(created),
                };
                Some(Entry { key, reach, shown })
            })
            .collect();
        let mut owners: HashMap<Digest, u32> = HashMap::new();
        for digest in entries.iter().flat_map(|entry| &entry.reach) {
            *owners.entry(*digest).or_default() += 1;
        }
        for entry in &mut entries {
            let own = entry.reach.iter().filter(|d| owners.get(d) == Some(&1));
            entry.shown.own_bytes = own.filter_map(|d| self.held.get(d)).map(|held| held.size).sum();
        }
        entries.sort_by(|a, b| {
            let (a, b) = (&a.shown, &b.shown);
            (&a.image, &a.tag, a.digest).cmp(&(&b.image, &b.tag, b.digest))
        });
        entries
    }

    /// Manifests of an image that neither its tags nor its other manifests lead to.
    fn untagged(
        &self,
        tagged: &[(i64, Option<Tag>, Digest, Millis)],
    ) -> Vec<(i64, Option<Tag>, Digest, Millis)> {
        let mut reached: HashSet<(i64, Digest)> = HashSet::new();
        for (image, _, digest, _) in tagged {
            reached.extend(self.reach(*digest).into_iter().map(|d| (*image, d)));
        }
        let held_manifest = |d: &Digest| self.held.contains_key(d) && self.manifests.contains_key(d);
        let mut candidates: Vec<&LinkRow> =
            self.links.iter().filter(|link| held_manifest(&link.digest)).collect();
        candidates.retain(|link| !reached.contains(&(link.image, link.digest)));
        for link in &candidates {
            let below = self.reach(link.digest).into_iter().filter(|d| *d != link.digest);
            reached.extend(below.map(|d| (link.image, d)));
        }
        candidates.retain(|link| !reached.contains(&(link.image, link.digest)));
        candidates.into_iter().map(|link| (link.image, None, link.digest, link.created)).collect()
    }

    /// The digest itself and everything the held manifests under it list.
    fn reach(&self, digest: Digest) -> HashSet<Digest> {
        let mut reached = HashSet::from([digest]);
        let mut open = vec![digest];
        while let Some(next) = open.pop() {
            for edge in self.manifests.get(&next).into_iter().flatten() {
                if reached.insert(edge.digest) {
                    open.push(edge.digest);
                }
            }
        }
        reached
    }

    fn platforms(
        &self,
        digest: &Digest,
        platform_of: &impl Fn(&Digest) -> Option<Platform>,
    ) -> Vec<Platform> {
        let mut platforms = Vec::new();
        for edge in self.manifests.get(digest).into_iter().flatten() {
            if !self.held.contains_key(&edge.digest) {
                continue;
            }
            let platform = if edge.configuration { platform_of(&edge.digest) } else { edge.platform.clone() };
            // BuildKit lists attestations for the platform `unknown/unknown`.
            platforms.extend(platform.filter(|p| p.os != "unknown" && !platforms.contains(p)));
        }
        platforms
    }
}
