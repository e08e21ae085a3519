//! Making way, held against what it promises.

use std::time::Instant;

use proptest::prelude::*;
use sampan_oci::{ImageName, Reference};

use super::*;
use crate::catalog::{Edge, Held, LinkRow, TagRow};

fn blob(number: u32) -> Digest {
    Digest::of(&number.to_le_bytes())
}

fn image(key: i64) -> ImageName {
    format!("docker.io/library/i{key}").parse().unwrap()
}

fn tag(number: u8) -> Tag {
    format!("v{number}").parse().unwrap()
}

/// A manifest of a catalogue in the making.
#[derive(Clone, Debug)]
struct Made {
    key: i64,
    tag: Option<u8>,
    lists: Vec<u32>,
    used: i64,
    pinned: bool,
}

fn hold(catalog: &mut Catalog, digest: Digest, size: u64, created: i64) {
    catalog.held.insert(digest, Held { size, fetched: size, created: Millis(created), aged: created });
}

/// Adds a manifest with the number `own`, 10 bytes long. What it lists is held only if it is put in besides.
fn add(catalog: &mut Catalog, own: u32, made: &Made) {
    let (digest, used) = (blob(own), Millis(made.used));
    hold(catalog, digest, 10, made.used);
    catalog.images.insert(made.key, image(made.key));
    let edge = |number: &u32| Edge { digest: blob(*number), configuration: false, platform: None };
    catalog.manifests.insert(digest, made.lists.iter().map(edge).collect());
    for digest in made.lists.iter().map(|number| blob(*number)).chain([digest]) {
        let aged = made.used;
        let link =
            LinkRow { image: made.key, digest, created: used, last_used: used, hits: 0, proven: true, aged };
        catalog.links.push(link);
    }
    if let Some(number) = made.tag {
        let taken = |row: &TagRow| (row.image, &row.tag) == (made.key, &tag(number));
        if catalog.tags.len() < 100 {
            catalog.tags.retain(|row| !taken(row));
        }
        catalog.tags.push(TagRow {
            image: made.key,
            tag: tag(number),
            digest,
            first_seen: used,
            confirmed: true,
            frozen: false,
            gone: None,
        });
    }
    if made.pinned {
        let by_tag = made.tag.map(|number| Reference::Tag(tag(number)));
        catalog.pins.insert((made.key, by_tag.unwrap_or(Reference::Digest(digest))));
    }
}

/// How many layers there are, by number from 0.
const LAYERS: u32 = 12;

#[derive(Clone, Debug)]
struct World {
    /// By number from 100.
    manifests: Vec<Made>,
    /// Sizes of the blobs from 0 that are held.
    layers: Vec<Option<u64>>,
    idle: Vec<(u64, i64)>,
    busy: Vec<u32>,
    least: u64,
    more: u64,
}

fn worlds() -> impl Strategy<Value = World> {
    let made =
        (0_i64..3, proptest::option::of(0_u8..3), proptest::collection::vec(0..LAYERS + 4, 0..5), 0_i64..40);
    let made = (made, proptest::bool::weighted(0.15)).prop_map(|((key, tag, lists, used), pinned)| Made {
        key,
        tag,
        lists,
        used,
        pinned,
    });
    let layers = proptest::collection::vec(proptest::option::weighted(0.8, 0_u64..100), LAYERS as usize);
    let idle = proptest::collection::vec((0_u64..100, 0_i64..40), 0..3);
    // Busy with a layer, or with a manifest.
    let busy = proptest::collection::vec(prop_oneof![0..LAYERS, 100_u32..108], 0..2);
    let manifests = proptest::collection::vec(made, 0..8);
    (manifests, layers, idle, busy, 0_u64..600, 0_u64..200).prop_map(
        |(manifests, layers, idle, busy, least, more)| World { manifests, layers, idle, busy, least, more },
    )
}

impl World {
    fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for (number, size) in (0..).zip(&self.layers) {
            if let Some(size) = size {
                hold(&mut catalog, blob(number), *size, 20);
            }
        }
        for (own, made) in (100..).zip(&self.manifests) {
            // Beyond the layers: a manifest from before this one, so that some are indexes.
            let earlier = |number: u32| (own > 100).then(|| 100 + (number - LAYERS) % (own - 100));
            let lists = made.lists.iter();
            let lists = lists.filter_map(|n| if *n < LAYERS { Some(*n) } else { earlier(*n) }).collect();
            add(&mut catalog, own, &Made { lists, ..made.clone() });
        }
        catalog
    }

    fn idle(&self) -> Vec<Idle> {
        let numbered = (200..).zip(&self.idle);
        numbered
            .map(|(n, (bytes, at))| Idle { digest: blob(n), bytes: *bytes, written: Millis(*at) })
            .collect()
    }
}

fn check(world: &World) -> Result<(), TestCaseError> {
    let (catalog, idle) = (world.catalog(), world.idle());
    let entries = catalog.entries(|_| None);
    let busy: HashSet<Digest> = world.busy.iter().map(|number| blob(*number)).collect();
    let lack = Lack { least: world.least, wanted: world.least + world.more, or_all: false };
    let holdings = Holdings { catalog: &catalog, entries: &entries, idle: &idle, busy: &busy };
    let eviction = plan(holdings, lack);
    let gone: Vec<Digest> = eviction.units.iter().flat_map(|u| &u.blobs).map(|(digest, _)| *digest).collect();
    let gone_set: HashSet<Digest> = gone.iter().copied().collect();
    prop_assert_eq!(gone.len(), gone_set.len(), "each blob goes once");

    let partials = eviction.units.iter().filter_map(|unit| unit.partial);
    let partials = partials.map(|digest| idle.iter().find(|idle| idle.digest == digest).unwrap().bytes);
    let files: u64 = gone.iter().map(|digest| catalog.held[digest].size).sum();
    prop_assert_eq!(eviction.freed, files + partials.sum::<u64>(), "what is freed is what the files hold");
    prop_assert!(eviction.freed <= eviction.evictable);
    if eviction.evictable < lack.least {
        prop_assert!(eviction.units.is_empty(), "what would not be enough is not begun");
        return Ok(());
    }
    prop_assert!(eviction.freed >= lack.least, "enough");
    let target = if eviction.evictable < lack.wanted { lack.least } else { lack.wanted };
    prop_assert!(eviction.freed >= target);
    if let Some(last) = eviction.units.last() {
        let bytes = last.blobs.iter().map(|(_, size)| size).sum::<u64>()
            + last.partial.map_or(0, |digest| idle.iter().find(|i| i.digest == digest).unwrap().bytes);
        prop_assert!(eviction.freed - bytes < target, "without the last it would be too little");
    }

    let goes = |entry: &Entry| eviction.units.iter().any(|unit| unit.shown.as_ref() == Some(&entry.shown));
    let (going, staying): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| goes(entry));
    for entry in &going {
        prop_assert!(!entry.shown.pinned, "pins survive");
        prop_assert!(!entry.reach.iter().any(|d| busy.contains(d)), "what is being pulled survives");
        prop_assert!(entry.reach.iter().any(|d| gone_set.contains(d)), "nothing goes for nothing");
    }
    for (_, reach) in catalog.pinned_digests() {
        prop_assert!(reach.is_disjoint(&gone_set), "a pinned digest keeps all it leads to");
    }
    prop_assert!(busy.is_disjoint(&gone_set));
    let needed: HashSet<Digest> = staying.iter().flat_map(|entry| &entry.reach).copied().collect();
    prop_assert!(needed.is_disjoint(&gone_set), "what stays is as whole as it was");
    let pinned: HashSet<Digest> = catalog.pinned_digests().into_iter().flat_map(|(_, reach)| reach).collect();
    for entry in &going {
        let unneeded = entry
            .reach
            .iter()
            .filter(|d| catalog.held.contains_key(d) && !needed.contains(d) && !pinned.contains(d));
        for digest in unneeded {
            prop_assert!(gone_set.contains(digest), "what nothing leads to any more is not left behind");
        }
    }
    for (key, digest) in eviction.units.iter().flat_map(|unit| &unit.links) {
        let led_to = staying.iter().any(|entry| entry.key == *key && entry.reach.contains(digest));
        prop_assert!(!led_to, "what stays keeps its proofs");
    }

    // The order: by last use, and nobody is passed over who would have freed anything.
    let used = |unit: &Going| match (&unit.shown, unit.partial) {
        (Some(shown), _) => shown.last_used,
        (None, Some(digest)) => idle.iter().find(|idle| idle.digest == digest).unwrap().written,
        (None, None) => {
            catalog.strays(&entries).iter().find(|s| s.digest == unit.reach[0]).unwrap().last_used
        }
    };
    let order: Vec<Millis> = eviction.units.iter().map(used).collect();
    prop_assert!(order.is_sorted(), "the one not used for the longest goes first");
    let Some(last) = order.last() else { return Ok(()) };
    for entry in staying.iter().filter(|entry| entry.shown.last_used < *last) {
        let free = |digest: &&Digest| {
            catalog.held.contains_key(digest)
                && !busy.contains(digest)
                && !pinned.contains(digest)
                && !staying.iter().any(|other| !std::ptr::eq(*other, *entry) && other.reach.contains(digest))
        };
        let excused = entry.shown.pinned || entry.reach.iter().any(|d| busy.contains(d));
        prop_assert!(excused || !entry.reach.iter().any(|d| free(&d)), "nobody younger goes in its place");
    }
    for idle in idle.iter().filter(|idle| idle.written < *last) {
        prop_assert!(eviction.units.iter().any(|unit| unit.partial == Some(idle.digest)));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_makes_way_is_enough_and_no_more_and_the_oldest(world in worlds()) {
        check(&world)?;
    }
}

fn made(key: i64, lists: &[u32], used: i64) -> Made {
    Made { key, tag: Some(0), lists: lists.to_vec(), used, pinned: false }
}

fn names(eviction: &Eviction) -> Vec<ImageName> {
    eviction.units.iter().filter_map(|unit| Some(unit.shown.as_ref()?.image.clone())).collect()
}

fn evict(catalog: &Catalog, least: u64) -> Eviction {
    let entries = catalog.entries(|_| None);
    let busy = HashSet::new();
    let holdings = Holdings { catalog, entries: &entries, idle: &[], busy: &busy };
    plan(holdings, Lack { least, wanted: least, or_all: false })
}

#[test]
fn a_shared_layer_goes_with_the_last_that_is_made_of_it() {
    let mut catalog = Catalog::default();
    hold(&mut catalog, blob(0), 100, 0);
    add(&mut catalog, 100, &made(1, &[0], 1));
    add(&mut catalog, 101, &made(2, &[0], 2));
    assert_eq!(evict(&catalog, 5).freed, 10, "the first frees its manifest alone");
    let both = evict(&catalog, 50);
    assert_eq!((both.freed, names(&both)), (120, vec![image(1), image(2)]), "the second the layer too, once");
    assert_eq!(both.units[0].blobs, [(blob(100), 10)]);
}

#[test]
fn a_tag_that_would_free_nothing_is_left_alone() {
    let mut catalog = Catalog::default();
    add(&mut catalog, 100, &made(1, &[], 1));
    add(&mut catalog, 101, &made(2, &[], 2));
    // A second tag of the first, in use today.
    let (frozen, gone) = (false, None);
    let row = TagRow {
        image: 1,
        tag: tag(7),
        digest: blob(100),
        first_seen: Millis(9),
        confirmed: true,
        frozen,
        gone,
    };
    catalog.tags.push(row);
    let eviction = evict(&catalog, 10);
    assert_eq!(names(&eviction), [image(2)], "its manifest is needed all the same");
    assert_eq!(evict(&catalog, 20).freed, 20, "but when the manifest goes, both tags go");
}

#[test]
fn a_hundred_thousand_blobs_are_decided_on_at_once() {
    let mut catalog = Catalog::default();
    for number in 0..10_000_u32 {
        let first = 100_000 + number * 8;
        let mut lists: Vec<u32> = (first..first + 8).collect();
        for layer in &lists {
            hold(&mut catalog, blob(*layer), 1000, 0);
        }
        lists.push(number % 50);
        add(&mut catalog, 1_000_000 + number, &made(i64::from(number % 500), &lists, i64::from(number)));
        let row = catalog.tags.last_mut().unwrap();
        row.tag = format!("t{number}").parse().unwrap();
    }
    for number in 0..10_050 {
        hold(&mut catalog, blob(number), 500, i64::from(number));
    }
    assert!(catalog.held.len() > 100_000, "{}", catalog.held.len());
    let begun = Instant::now();
    let entries = catalog.entries(|_| None);
    let busy: HashSet<Digest> = (0..64).map(|n| blob(5_000_000 + n)).collect();
    let holdings = Holdings { catalog: &catalog, entries: &entries, idle: &[], busy: &busy };
    let eviction = plan(holdings, Lack { least: 10_000_000, wanted: 10_000_000, or_all: false });
    let took = begun.elapsed();
    assert!(eviction.freed >= 10_000_000 && eviction.units.len() > 1000);
    // Not optimised, on a machine that does other things too; what is quadratic takes minutes.
    assert!(took.as_secs() < 10, "{took:?}");
    eprintln!("decided in {took:?}");
}
