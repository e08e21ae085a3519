//! What is held, seen as images: pure decisions over the index's rows.

use std::collections::{HashMap, HashSet};

use sampan_oci::{Digest, ImageName, Millis, Platform, Reference, Tag};

/// How many digests of a tag's past are told.
pub(crate) const HISTORY_MAX: usize = 20;

/// The index's rows at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) images: HashMap<i64, ImageName>,
    pub(crate) held: HashMap<Digest, Held>,
    /// What each manifest lists, in its order.
    pub(crate) manifests: HashMap<Digest, Vec<Edge>>,
    pub(crate) links: Vec<LinkRow>,
    pub(crate) tags: Vec<TagRow>,
    /// Where each tag pointed and since when, the newest first.
    pub(crate) history: HashMap<(i64, Tag), Vec<(Digest, Millis)>>,
    pub(crate) pins: HashSet<(i64, Reference)>,
}

/// A file under `blobs/`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) size: u64,
    /// How many of its bytes came over the link.
    pub(crate) fetched: u64,
    pub(crate) created: Millis,
    /// When it came, in time the cache has seen pass.
    pub(crate) aged: i64,
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
    pub(crate) hits: u64,
    pub(crate) proven: bool,
    /// The last use, in milliseconds of time the cache has seen pass.
    pub(crate) aged: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct TagRow {
    pub(crate) image: i64,
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) first_seen: Millis,
    pub(crate) confirmed: bool,
    pub(crate) frozen: bool,
    pub(crate) gone: Option<Millis>,
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
    /// The part of `size_bytes` that came over the link, and not by an import.
    pub fetched_bytes: u64,
    /// When it was first held under this tag, or linked to this image.
    pub created: Millis,
    /// When its manifest, or one it lists, was last used.
    pub last_used: Millis,
    /// How many times its own manifest was answered from what is held.
    pub hits: u64,
    /// Whether a person wants it kept: nothing makes it go but clearing it by its name, or everything.
    pub pinned: bool,
    /// Whether only an import says that it is what its name says: its upstream is asked before it is served.
    pub unconfirmed: bool,
    /// Whether a person wants the tag to stay where it points: it is not asked about, and never makes way.
    pub frozen: bool,
    /// When its upstream said that it has no such tag any more: it is not answered, only kept.
    pub gone: Option<Millis>,
    /// What the tag pointed at, the newest first, at most 20; empty without a tag.
    pub history: Vec<TagDigest>,
}

/// A digest that a tag pointed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagDigest {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// When the tag was first seen to point there.
    pub first_seen: Millis,
    /// Whether that manifest is held now.
    pub held: bool,
}

/// An [`ImageEntry`], with the keys and blobs that clearing decides on.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: i64,
    /// Every digest it leads to, held or not.
    pub(crate) reach: HashSet<Digest>,
    /// When its manifest, or one it lists, was last used, in time the cache has seen pass.
    pub(crate) aged: i64,
    pub(crate) shown: ImageEntry,
}

/// A held blob that no entry leads to: fetched by its digest alone, or found after the index was lost.
#[derive(Clone, Debug)]
pub(crate) struct Stray {
    pub(crate) digest: Digest,
    pub(crate) last_used: Millis,
    /// The same in time the cache has seen pass.
    pub(crate) aged: i64,
    /// The keys of the images that are known to show it.
    pub(crate) images: Vec<i64>,
}

/// What is to become an entry.
struct Root {
    key: i64,
    tag: Option<Tag>,
    digest: Digest,
    created: Millis,
    unconfirmed: bool,
    frozen: bool,
    gone: Option<Millis>,
    reach: HashSet<Digest>,
}

impl Catalog {
    /// All entries, ordered by image and tag, untagged ones first. `platform_of` tells the platform a held image
    /// configuration names.
    pub(crate) fn entries(&self, platform_of: impl Fn(&Digest) -> Option<Platform>) -> Vec<Entry> {
        let links: HashMap<(i64, Digest), &LinkRow> =
            self.links.iter().map(|link| ((link.image, link.digest), link)).collect();
        let held_tags = self.tags.iter().filter(|tag| self.held.contains_key(&tag.digest));
        let mut roots: Vec<Root> = held_tags
            .map(|row| Root {
                key: row.image,
                tag: Some(row.tag.clone()),
                digest: row.digest,
                created: row.first_seen,
                unconfirmed: !row.confirmed,
                frozen: row.frozen,
                gone: row.gone,
                reach: self.reach(row.digest),
            })
            .collect();
        roots.extend(self.untagged(&roots));
        let mut entries: Vec<Entry> =
            roots.into_iter().filter_map(|root| self.entry(root, &links, &platform_of)).collect();
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

    /// `None`: a name that cannot be read.
    fn entry(
        &self,
        root: Root,
        links: &HashMap<(i64, Digest), &LinkRow>,
        platform_of: &impl Fn(&Digest) -> Option<Platform>,
    ) -> Option<Entry> {
        let Root { key, tag, digest, created, unconfirmed, frozen, gone, reach } = root;
        let link = |d: &Digest| links.get(&(key, *d)).copied();
        // A tag may be younger than the last use of what it points at, never the other way round.
        let manifests = reach.iter().filter(|&d| *d == digest || self.manifests.contains_key(d));
        let rows: Vec<&LinkRow> = manifests.filter_map(link).collect();
        let used = rows.iter().map(|link| link.last_used).max();
        let aged = rows.iter().map(|link| link.aged).max();
        let held = || reach.iter().filter_map(|d| self.held.get(d));
        let shown = ImageEntry {
            image: self.images.get(&key)?.clone(),
            digest,
            platforms: self.platforms(&digest, platform_of),
            size_bytes: held().map(|held| held.size).sum(),
            own_bytes: 0,
            fetched_bytes: held().map(|held| held.fetched.min(held.size)).sum(),
            created,
            last_used: used.unwrap_or(created).max(created),
            hits: link(&digest).map_or(0, |link| link.hits),
            pinned: self.is_pinned(key, tag.as_ref(), digest),
            unconfirmed,
            frozen,
            gone,
            history: self.history_of(key, tag.as_ref()),
            tag,
        };
        let aged = aged.or_else(|| Some(self.held.get(&digest)?.aged)).unwrap_or(0);
        Some(Entry { key, reach, aged, shown })
    }

    fn is_pinned(&self, key: i64, tag: Option<&Tag>, digest: Digest) -> bool {
        let pinned = |reference| self.pins.contains(&(key, reference));
        // Nearly always there are no pins at all.
        !self.pins.is_empty()
            && (pinned(Reference::Digest(digest))
                || tag.is_some_and(|tag| pinned(Reference::Tag(tag.clone()))))
    }

    fn history_of(&self, key: i64, tag: Option<&Tag>) -> Vec<TagDigest> {
        let seen = tag.and_then(|tag| self.history.get(&(key, tag.clone())));
        let told = seen.into_iter().flatten().map(|(digest, first_seen)| TagDigest {
            digest: *digest,
            first_seen: *first_seen,
            held: self.held.contains_key(digest),
        });
        told.collect()
    }

    /// What pinned digests lead to, with the image each is pinned in. What pinned tags lead to is their entries' reach.
    pub(crate) fn pinned_digests(&self) -> Vec<(i64, HashSet<Digest>)> {
        let digest = |(key, reference): &(i64, Reference)| match reference {
            Reference::Digest(digest) => Some((*key, self.reach(*digest))),
            Reference::Tag(_) => None,
        };
        self.pins.iter().filter_map(digest).collect()
    }

    /// Held blobs that none of the entries, which are all there are, leads to.
    pub(crate) fn strays(&self, entries: &[Entry]) -> Vec<Stray> {
        let reached: HashSet<&Digest> = entries.iter().flat_map(|entry| &entry.reach).collect();
        let mut links: HashMap<Digest, Vec<&LinkRow>> = HashMap::new();
        for link in &self.links {
            if self.held.contains_key(&link.digest) && !reached.contains(&link.digest) {
                links.entry(link.digest).or_default().push(link);
            }
        }
        let strays = self.held.iter().filter(|(digest, _)| !reached.contains(digest));
        let strays = strays.map(|(digest, held)| {
            let links = links.get(digest).map_or(&[][..], Vec::as_slice);
            Stray {
                digest: *digest,
                last_used: links.iter().map(|link| link.last_used).max().unwrap_or(held.created),
                aged: links.iter().map(|link| link.aged).max().unwrap_or(held.aged),
                images: links.iter().map(|link| link.image).collect(),
            }
        });
        strays.collect()
    }

    /// Manifests of an image that neither its tags nor its other manifests lead to.
    fn untagged(&self, tagged: &[Root]) -> Vec<Root> {
        let mut reached: HashSet<(i64, Digest)> = HashSet::new();
        for root in tagged {
            reached.extend(root.reach.iter().map(|d| (root.key, *d)));
        }
        let held_manifest = |d: &Digest| self.held.contains_key(d) && self.manifests.contains_key(d);
        let candidates = self.links.iter().filter(|link| held_manifest(&link.digest));
        let candidates = candidates.filter(|link| !reached.contains(&(link.image, link.digest)));
        let mut roots: Vec<Root> = candidates
            .map(|link| Root {
                key: link.image,
                tag: None,
                digest: link.digest,
                created: link.created,
                unconfirmed: !link.proven,
                frozen: false,
                gone: None,
                reach: self.reach(link.digest),
            })
            .collect();
        let mut listed: HashSet<(i64, Digest)> = HashSet::new();
        for root in &roots {
            listed.extend(root.reach.iter().filter(|d| **d != root.digest).map(|d| (root.key, *d)));
        }
        roots.retain(|root| !listed.contains(&(root.key, root.digest)));
        roots
    }

    /// The digest itself and everything the held manifests under it list.
    pub(crate) fn reach(&self, digest: Digest) -> HashSet<Digest> {
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
