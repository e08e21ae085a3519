//! Making way: which of the things held go first when room is needed. One pure decision.
//!
//! A unit is what goes as one: an image entry, a blob that no entry leads to, or a partial download that nobody has
//! open. All of them stand in one row, by when they were last used or written to; the one not used for the longest goes
//! first, until enough is free. A blob goes with the last unit that leads to it.

use std::collections::{HashMap, HashSet};

use sampan_oci::{Digest, Millis, Tag};

use crate::catalog::{Catalog, Entry, ImageEntry, Stray};

/// How many bytes have to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lack {
    /// At least these: with fewer nothing is won, and nothing is to go.
    pub(crate) least: u64,
    /// Rather these, where there is so much that may go: so that the next download need not ask again.
    pub(crate) wanted: u64,
    /// Where not even the least may go, all goes that may.
    pub(crate) or_all: bool,
}

impl Lack {
    /// What of it is to be had, where so many bytes may go.
    pub(crate) fn within(self, evictable: u64) -> Self {
        if !self.or_all || evictable >= self.least {
            return self;
        }
        Self { least: evictable, wanted: evictable, ..self }
    }
}

/// A partial download that nobody has open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    pub(crate) written: Millis,
}

/// Everything held, and what of it must stay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings<'a> {
    pub(crate) catalog: &'a Catalog,
    /// All of the catalogue's.
    pub(crate) entries: &'a [Entry],
    pub(crate) idle: &'a [Idle],
    /// What is being downloaded, or could not be removed: what leads to it never goes.
    pub(crate) busy: &'a HashSet<Digest>,
}

/// What makes way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// In the order in which they go.
    pub(crate) units: Vec<Going>,
    /// How many bytes go with them.
    pub(crate) freed: u64,
    /// How many bytes could go at most.
    pub(crate) evictable: u64,
}

/// One unit that goes, with what goes because of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Going {
    /// Everything it leads to: whoever came to lead to any of it meanwhile saves it.
    pub(crate) reach: Vec<Digest>,
    /// With their sizes in bytes.
    pub(crate) blobs: Vec<(Digest, u64)>,
    pub(crate) tag: Option<(i64, Tag)>,
    pub(crate) links: Vec<(i64, Digest)>,
    pub(crate) partial: Option<Digest>,
    /// The entry, unless it is none.
    pub(crate) shown: Option<ImageEntry>,
}

enum Unit<'a> {
    Partial(&'a Idle),
    Stray(&'a Stray),
    Entry(&'a Entry),
}

/// Decides what goes. Never what is pinned, and nothing that leads to a blob that is being downloaded. What would free
/// nothing, because all it is made of stays, stays as well. If even everything that may go is less than the least lacking,
/// nothing goes.
pub(crate) fn plan(holdings: Holdings<'_>, lack: Lack) -> Eviction {
    let Holdings { catalog, entries, idle, .. } = holdings;
    let pins = catalog.pinned_digests();
    let strays = catalog.strays(entries);
    let (going, kept) = holdings.part(&pins, |_| false);
    let size_of = |digest: &Digest| holdings.size_of(digest, &kept);

    let mut units: Vec<(Millis, Unit<'_>)> = idle.iter().map(|p| (p.written, Unit::Partial(p))).collect();
    let going_strays = strays.iter().filter(|stray| size_of(&stray.digest).is_some());
    units.extend(going_strays.map(|stray| (stray.last_used, Unit::Stray(stray))));
    let going = going.into_iter().filter(|entry| entry.reach.iter().any(|d| size_of(d).is_some()));
    units.extend(going.map(|entry| (entry.shown.last_used, Unit::Entry(entry))));
    // Stable, so that of equals those listed first go first.
    units.sort_by_key(|(used, _)| *used);

    let mut needed = Needed::of(&units, size_of);
    let lack = lack.within(needed.bytes);
    let mut eviction = Eviction { evictable: needed.bytes, ..Eviction::default() };
    if eviction.evictable < lack.least {
        return eviction;
    }
    let target = if eviction.evictable < lack.wanted { lack.least } else { lack.wanted };
    let mut gone: Vec<(Unit<'_>, Vec<(Digest, u64)>)> = Vec::new();
    for (_, unit) in units {
        if eviction.freed >= target {
            break;
        }
        let blobs = needed.let_go(&unit, &mut eviction.freed);
        gone.push((unit, blobs));
    }
    let blobs: HashSet<Digest> =
        gone.iter().flat_map(|(_, blobs)| blobs).map(|(digest, _)| *digest).collect();
    // Of some entries everything is still needed, by others that stay after all: they can stay as well.
    gone.retain(|(unit, _)| match unit {
        Unit::Partial(_) | Unit::Stray(_) => true,
        Unit::Entry(entry) => entry.reach.iter().any(|digest| blobs.contains(digest)),
    });
    let mut links = Links::of(entries, &pins);
    eviction.units = gone.into_iter().map(|(unit, blobs)| links.let_go(&unit, blobs)).collect();
    eviction
}

/// Decides what goes because of its age: every entry, and every blob that no entry leads to, that was last used before
/// `before` in time the cache has seen pass. Never what is pinned, and nothing that leads to a blob that is being downloaded.
/// Partial downloads have a rule of their own.
pub(crate) fn plan_by_age(holdings: Holdings<'_>, before: i64) -> Vec<Going> {
    let Holdings { catalog, entries, .. } = holdings;
    let pins = catalog.pinned_digests();
    let strays = catalog.strays(entries);
    let (going, kept) = holdings.part(&pins, |entry| entry.aged >= before);
    let size_of = |digest: &Digest| holdings.size_of(digest, &kept);

    let old = strays.iter().filter(|stray| stray.aged < before && size_of(&stray.digest).is_some());
    let mut units: Vec<(Millis, Unit<'_>)> = old.map(|s| (s.last_used, Unit::Stray(s))).collect();
    units.extend(going.into_iter().map(|entry| (entry.shown.last_used, Unit::Entry(entry))));
    let mut needed = Needed::of(&units, size_of);
    let mut links = Links::of(entries, &pins);
    let mut let_go = |unit: &Unit<'_>| {
        let blobs = needed.let_go(unit, &mut 0);
        links.let_go(unit, blobs)
    };
    units.iter().map(|(_, unit)| let_go(unit)).collect()
}

impl<'a> Holdings<'a> {
    /// The entries that may go, and the digests that stay with those that do not. `stays`: of what may go else.
    fn part(
        &self,
        pins: &[(i64, HashSet<Digest>)],
        stays: impl Fn(&Entry) -> bool,
    ) -> (Vec<&'a Entry>, HashSet<Digest>) {
        let must_stay = |entry: &Entry| {
            entry.shown.pinned
                || entry.shown.frozen
                || stays(entry)
                || self.busy.iter().any(|d| entry.reach.contains(d))
        };
        let mut kept = self.busy.clone();
        kept.extend(pins.iter().flat_map(|(_, reach)| reach));
        let (staying, going): (Vec<&Entry>, Vec<&Entry>) =
            self.entries.iter().partition(|entry| must_stay(entry));
        kept.extend(staying.iter().flat_map(|entry| &entry.reach));
        (going, kept)
    }

    /// The size of a blob that may go, in bytes.
    fn size_of(&self, digest: &Digest, kept: &HashSet<Digest>) -> Option<u64> {
        self.catalog.held.get(digest).filter(|_| !kept.contains(digest)).map(|held| held.size)
    }
}

/// By how many units each blob that may go is needed, and its size in bytes.
struct Needed {
    blobs: HashMap<Digest, (u32, u64)>,
    /// What all units take together, in bytes.
    bytes: u64,
}

impl Needed {
    fn of(units: &[(Millis, Unit<'_>)], size_of: impl Fn(&Digest) -> Option<u64>) -> Self {
        let mut needed = Self { blobs: HashMap::new(), bytes: 0 };
        let mut add = |digest: &Digest| {
            let Some(size) = size_of(digest) else { return };
            let (count, _) = needed.blobs.entry(*digest).or_insert((0, size));
            *count += 1;
            needed.bytes += if *count == 1 { size } else { 0 };
        };
        let mut idle_bytes = 0;
        for (_, unit) in units {
            match unit {
                Unit::Partial(idle) => idle_bytes += idle.bytes,
                Unit::Stray(stray) => add(&stray.digest),
                Unit::Entry(entry) => entry.reach.iter().for_each(&mut add),
            }
        }
        needed.bytes += idle_bytes;
        needed
    }

    /// Lets a unit go. Returns the blobs that go with it.
    fn let_go(&mut self, unit: &Unit<'_>, freed: &mut u64) -> Vec<(Digest, u64)> {
        let mut blobs = Vec::new();
        let mut take = |digest: &Digest| {
            if let Some((count, size)) = self.blobs.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    *freed += *size;
                    blobs.push((*digest, *size));
                }
            }
        };
        match unit {
            Unit::Stray(stray) => take(&stray.digest),
            Unit::Entry(entry) => entry.reach.iter().for_each(take),
            Unit::Partial(idle) => *freed += idle.bytes,
        }
        blobs
    }
}

/// By how many entries and pins of an image each of its links is needed.
struct Links(HashMap<(i64, Digest), u32>);

impl Links {
    fn of(entries: &[Entry], pins: &[(i64, HashSet<Digest>)]) -> Self {
        let mut links = HashMap::new();
        let of_entries = entries.iter().map(|entry| (entry.key, &entry.reach));
        for (key, reach) in of_entries.chain(pins.iter().map(|(key, reach)| (*key, reach))) {
            for digest in reach {
                *links.entry((key, *digest)).or_insert(0) += 1;
            }
        }
        Self(links)
    }

    fn let_go(&mut self, unit: &Unit<'_>, mut blobs: Vec<(Digest, u64)>) -> Going {
        match unit {
            Unit::Partial(idle) => Going { partial: Some(idle.digest), ..Going::default() },
            Unit::Stray(stray) => Going {
                reach: vec![stray.digest],
                blobs,
                links: stray.images.iter().map(|image| (*image, stray.digest)).collect(),
                ..Going::default()
            },
            Unit::Entry(entry) => {
                let mut links = Vec::new();
                for digest in &entry.reach {
                    let link = (entry.key, *digest);
                    if let Some(count) = self.0.get_mut(&link) {
                        *count -= 1;
                        if *count == 0 {
                            links.push(link);
                        }
                    }
                }
                // Its own manifest last: where a file before it cannot be removed, the entry is still one.
                blobs.sort_by_key(|(digest, _)| *digest == entry.shown.digest);
                let tag = entry.shown.tag.clone().map(|tag| (entry.key, tag));
                let shown = Some(entry.shown.clone());
                Going {
                    reach: entry.reach.iter().copied().collect(),
                    blobs,
                    tag,
                    links,
                    shown,
                    partial: None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
