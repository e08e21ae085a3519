//! The hard cap: what makes way, what never does, and what is refused.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::{Disk, Evicted, Operation, Store, StoreError, StoreOptions, Verdict, Witness};

use crate::setting::{Cache, Image, name, noise, tag};

const DAY: Duration = Duration::from_hours(24);
const DAY_MILLIS: i64 = 86_400_000;

/// An image of one layer of so many bytes, of its own.
fn image(seed: u64, bytes: usize) -> Image {
    Image::new("amd64", &[noise(seed, bytes)])
}

/// Puts images of 30 kB each, one after the other.
async fn put_each(cache: &Cache, store: &Store, names: &[&str]) -> Vec<Image> {
    let mut images = Vec::new();
    for (seed, what) in (1..).zip(names) {
        cache.clock.advance(1000);
        let image = image(seed, 30_000);
        image.put_as(store, &name(what), "latest").await;
        images.push(image);
    }
    images
}

async fn listed(store: &Store) -> Vec<String> {
    let images = store.images().await.unwrap().into_iter();
    images.map(|entry| entry.image.repository.as_str().replace("library/", "")).collect()
}

fn total(cache: &Cache) -> u64 {
    cache.du().0 + cache.du_partial()
}

#[tokio::test]
async fn the_image_not_used_for_the_longest_makes_way_whole() {
    let cache = Cache::new();
    let store = cache.open_with_quota(110_000);
    let images = put_each(&cache, &store, &["a", "b", "c"]).await;
    cache.clock.advance(1000);
    store.touch(&name("a"), &images[0].digest(), true).await;
    image(9, 30_000).put_as(&store, &name("d"), "latest").await;
    assert_eq!(listed(&store).await, ["a", "c", "d"], "`a` was used after `b`");
    assert_eq!(store.held_tag(&name("b"), &tag("latest")).await.unwrap(), None);
    assert_eq!(store.link(&name("b"), &images[1].digest()).await.unwrap(), None, "nothing of it is left");
    assert!(total(&cache) <= 99_000, "down to 90 %");
    for kept in [&images[0], &images[2]] {
        for blob in kept.blobs.iter().chain([&kept.bytes]) {
            assert!(store.open_blob(&Digest::of(blob)).await.unwrap().is_some(), "what stays is whole");
        }
    }
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du());
    assert_eq!(usage.quota_bytes, Some(110_000));
}

#[tokio::test]
async fn a_blob_larger_than_the_quota_is_refused_and_nothing_is_lost() {
    let cache = Cache::new();
    let store = cache.open_with_quota(100_000);
    put_each(&cache, &store, &["a", "b"]).await;
    let before = (cache.du(), listed(&store).await);
    for refused in [
        store.stage(&Digest::of(b"x"), 100_001).await.err(),
        store.partial(&Digest::of(b"x"), u64::MAX).await.err(),
    ] {
        assert!(matches!(refused, Some(StoreError::Full)), "{refused:?}");
    }
    assert_eq!((cache.du(), listed(&store).await), before);
    assert_eq!(cache.partials(), 0);
    let stage = store.stage(&Digest::of(b"x"), 100_000).await.expect("all of the quota is not too much");
    assert_eq!(cache.du(), (0, 0), "for which everything else makes way");
    drop(stage);
}

#[tokio::test]
async fn a_quota_that_is_lowered_counts_at_once() {
    let cache = Cache::new();
    let store = cache.open();
    put_each(&cache, &store, &["a", "b", "c", "d"]).await;
    assert_eq!(
        store.make_room().await.unwrap(),
        Evicted::default(),
        "without a quota there is nothing to do"
    );
    store.set_quota(Some(200_000));
    assert_eq!(store.make_room().await.unwrap(), Evicted::default(), "nor below it");
    store.set_quota(Some(100_000));
    let before = cache.du();
    let evicted = store.make_room().await.unwrap();
    assert_eq!(listed(&store).await, ["c", "d"], "down to 90 % of it, the oldest first");
    let after = cache.du();
    assert_eq!(
        (evicted.images, evicted.freed_bytes, evicted.blobs),
        (2, before.0 - after.0, before.1 - after.1)
    );
    store.set_quota(Some(40_000));
    store.put(&Digest::of(b"small"), Bytes::from_static(b"small")).await.unwrap();
    assert_eq!(listed(&store).await, ["d"], "the next download sees to it as well");
}

#[tokio::test]
async fn the_index_and_the_ledgers_count_as_well() {
    let cache = Cache::new();
    let store = cache.open();
    put_each(&cache, &store, &["a", "b", "c", "d"]).await;
    let mut partial = store.partial(&Digest::of(b"left"), 50_000).await.unwrap();
    partial.write(vec![(0, noise(9, 10_000))]).await.unwrap();
    drop(partial);
    store.settle_layout().await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!(usage.own_bytes, cache.du_own());
    assert!(usage.own_bytes > 50_000, "the index of an empty cache is as large: {}", usage.own_bytes);
    // Room for all of it but a part of the index.
    let everything = usage.size_bytes + usage.partial_bytes + usage.own_bytes;
    store.set_quota(Some(everything - 20_000));
    let evicted = store.make_room().await.unwrap();
    assert!(evicted.freed_bytes >= 20_000, "{evicted:?}");
    let (own, usage) = (usage.own_bytes, store.usage().await.unwrap());
    let (taken, quota) = (usage.size_bytes + usage.partial_bytes + own, everything - 20_000);
    assert!(taken <= quota, "{taken} of {quota}, with the index as it was last measured");
    let rest = quota - taken;
    drop(store.stage(&Digest::of(b"x"), rest).await.expect("what is left can be used"));
    assert_eq!(store.make_room().await.unwrap(), Evicted::default());
}

#[tokio::test]
async fn a_quota_smaller_than_the_index_keeps_nothing_new_and_empties_nothing_in_vain() {
    let cache = Cache::new();
    let store = cache.open();
    put_each(&cache, &store, &["a"]).await;
    store.settle_layout().await.unwrap();
    let own = store.usage().await.unwrap().own_bytes;
    assert!(own > 40_000, "{own}");
    store.set_quota(Some(40_000));
    for _ in 0..3 {
        assert_eq!(store.make_room().await.unwrap(), Evicted::default());
        for size in [0, 1, 50_000] {
            let refused = store.stage(&Digest::of(b"x"), size).await.err();
            assert!(matches!(refused, Some(StoreError::Full)), "{size}: {refused:?}");
        }
    }
    assert_eq!(listed(&store).await, ["a"], "it would not have helped");
    store.set_quota(Some(20_000));
    store.make_room().await.unwrap();
    assert!(listed(&store).await.is_empty(), "but images alone stay within the quota");
    assert_eq!(store.make_room().await.unwrap(), Evicted::default(), "and that is the end of it");
    store.set_quota(Some(own + 200_000));
    drop(store.stage(&Digest::of(b"x"), 1000).await.expect("raised, it is a cache again"));
}

#[tokio::test]
async fn an_image_larger_than_the_quota_keeps_its_first_layers() {
    let cache = Cache::new();
    let store = cache.open_with_quota(100_000);
    put_each(&cache, &store, &["old"]).await;
    cache.clock.advance(1000);
    let layers: Vec<Bytes> = (20..25).map(|seed| noise(seed, 30_000)).collect();
    let large = Image::new("amd64", &layers);
    store.put_manifest(&name("large"), &large.manifest, large.bytes.clone()).await.unwrap();
    let mut held = 0;
    for layer in &layers {
        match store.put(&Digest::of(layer), layer.clone()).await {
            Ok(()) => held += 1,
            Err(error) => assert!(matches!(error, StoreError::Full), "{error:?}"),
        }
        assert!(total(&cache) <= 100_000);
    }
    assert_eq!(held, 3, "what fits is held, for an image never makes way for itself");
    for layer in &layers[..3] {
        assert!(store.open_blob(&Digest::of(layer)).await.unwrap().is_some());
    }
    assert_eq!(listed(&store).await, ["large"], "the older one made way");
}

#[tokio::test]
async fn what_is_being_downloaded_is_not_taken_away() {
    let cache = Cache::new();
    let store = cache.open_with_quota(100_000);
    let parts = [noise(1, 30_000), noise(2, 30_000)];
    let image = Image::new("amd64", &parts);
    store.put_manifest(&name("running"), &image.manifest, image.bytes.clone()).await.unwrap();
    store.put(&Digest::of(&parts[0]), parts[0].clone()).await.unwrap();
    let mut running = store.partial(&Digest::of(&parts[1]), 30_000).await.unwrap();
    running.write(vec![(0, parts[1].slice(..100))]).await.unwrap();
    cache.clock.advance(100_000);
    let refused = store.stage(&Digest::of(b"other"), 50_000).await.err();
    assert!(matches!(refused, Some(StoreError::Full)), "the older image is being pulled: {refused:?}");
    assert!(store.open_blob(&Digest::of(&parts[0])).await.unwrap().is_some());
    running.write(vec![(100, parts[1].slice(100..))]).await.unwrap();
    running.publish().await.unwrap();
    let stage = store.stage(&Digest::of(b"other"), 50_000).await.expect("now it is an image like others");
    assert_eq!(cache.du(), (0, 0));
    drop(stage);
}

#[tokio::test]
async fn downloads_cut_short_and_images_make_way_by_their_age() {
    let cache = Cache::new();
    let store = cache.open_with_quota(100_000);
    // A partial's age is its files'; the images' is the clock's, which stands near 1970.
    for (seed, minutes) in [(1, 10), (2, 30)] {
        let digest = Digest::of(&noise(seed, 20_000));
        let mut partial = store.partial(&digest, 20_000).await.unwrap();
        partial.write(vec![(0, noise(seed, 20_000))]).await.unwrap();
        drop(partial);
        for kind in ["data", "ledger"] {
            let file = std::fs::File::options().write(true).open(cache.partial_path(&digest, kind)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_mins(minutes)).unwrap();
        }
    }
    let [oldest, newest] = [1, 2].map(|seed| cache.partial_path(&Digest::of(&noise(seed, 20_000)), "data"));
    cache.clock.advance(20 * 60_000 - 1_000_000);
    put_each(&cache, &store, &["middle"]).await;
    assert_eq!(store.usage().await.unwrap().partial_bytes, 40_000);

    drop(store.stage(&Digest::of(b"x"), 35_000).await.unwrap());
    assert!(!oldest.exists() && newest.exists(), "the partial of minute 10 goes first");
    assert_eq!(listed(&store).await, ["middle"]);
    drop(store.stage(&Digest::of(b"x"), 60_000).await.unwrap());
    assert!(newest.exists(), "then the image of minute 20");
    assert!(listed(&store).await.is_empty());
    drop(store.stage(&Digest::of(b"x"), 90_000).await.unwrap());
    assert!(!newest.exists());
    assert_eq!(total(&cache), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn downloads_at_once_never_exceed_the_quota() {
    const QUOTA: u64 = 60_000;
    let cache = Arc::new(Cache::new());
    let store = cache.open_with_quota(QUOTA);
    let (over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..12_u64 {
        let (store, cache) = (store.clone(), Arc::clone(&cache));
        let (over, refused) = (Arc::clone(&over), Arc::clone(&refused));
        tasks.spawn(async move {
            for round in 0..12 {
                let bytes = noise(worker * 100 + round, 2000 + usize::try_from(worker * 700).unwrap());
                cache.clock.advance(1);
                let done = if round % 2 == 0 {
                    store.put(&Digest::of(&bytes), bytes.clone()).await
                } else {
                    match store.partial(&Digest::of(&bytes), bytes.len() as u64).await {
                        Ok(mut partial) => {
                            partial.write(vec![(0, bytes.clone())]).await.unwrap();
                            if round % 4 == 1 { partial.publish().await } else { Ok(()) }
                        }
                        Err(error) => Err(error),
                    }
                };
                match done {
                    Ok(()) => {}
                    Err(StoreError::Full) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => panic!("{error:?}"),
                }
                let usage = store.usage().await.unwrap();
                // Files first looked at where they arrive: one on its way may be missed, none is seen twice.
                let held = std::fs::read_dir(cache.dir.join("blobs/sha256")).unwrap();
                let held: u64 = held.filter_map(|e| Some(e.unwrap().metadata().ok()?.len())).sum();
                if held > QUOTA || usage.size_bytes > QUOTA {
                    over.store(true, Ordering::Relaxed);
                }
            }
        });
    }
    tasks.join_all().await;
    assert!(!over.load(Ordering::Relaxed), "not even for a moment");
    assert!(total(&cache) <= QUOTA, "{}", total(&cache));
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du());
    assert_eq!(usage.partial_bytes, cache.du_partial(), "nothing is counted that is not there");
    assert!(refused.load(Ordering::Relaxed) < 100, "most found room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_are_not_disturbed_by_what_makes_way() {
    let cache = Cache::new();
    let store = cache.open_with_quota(250_000);
    let blobs: Arc<Vec<Bytes>> = Arc::new((1..=10).map(|seed| noise(seed, 50_000)).collect());
    let (done, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for reader in 0..32_usize {
        let (store, blobs) = (store.clone(), Arc::clone(&blobs));
        let (done, read) = (Arc::clone(&done), Arc::clone(&read));
        tasks.spawn(async move {
            let mut round = reader;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                let bytes = &blobs[round % blobs.len()];
                let Some(blob) = store.open_blob(&Digest::of(bytes)).await.unwrap() else { continue };
                for part in 0..10_usize {
                    let got = blob.read_at(part as u64 * 5000, 5000).await.unwrap();
                    assert_eq!(got, bytes[part * 5000..(part + 1) * 5000], "the right bytes to the end");
                }
                read.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Each makes others go: no more than four are held at once.
    for round in 0..60 {
        cache.clock.advance(1);
        let bytes = &blobs[round % blobs.len()];
        store.put(&Digest::of(bytes), bytes.clone()).await.unwrap();
        assert!(total(&cache) <= 250_000);
    }
    done.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    assert!(read.load(Ordering::Relaxed) > 32, "{read:?} were read");
}

#[tokio::test]
async fn an_open_reader_finishes_when_its_image_makes_way() {
    let cache = Cache::new();
    let store = cache.open_with_quota(100_000);
    let images = put_each(&cache, &store, &["a"]).await;
    let layer = &images[0].blobs[1];
    let reader = store.open_blob(&Digest::of(layer)).await.unwrap().unwrap();
    drop(store.stage(&Digest::of(b"x"), 95_000).await.unwrap());
    assert!(!cache.blob_path(&Digest::of(layer)).exists(), "unlinked");
    assert_eq!(reader.read_at(0, 30_000).await.unwrap(), *layer, "and readable to the end");
}

/// Closes the cache, and opens it again so many days later.
fn days_later(cache: &Cache, store: Store, days: i64) -> Store {
    drop(store);
    cache.clock.advance(days * DAY_MILLIS);
    cache.open()
}

#[tokio::test]
async fn the_age_rule_removes_what_was_not_used_for_so_long() {
    let cache = Cache::new();
    let store = cache.open();
    let images = put_each(&cache, &store, &["a", "b"]).await;
    store.put(&Digest::of(b"stray"), Bytes::from_static(b"stray")).await.unwrap();
    let store = days_later(&cache, store, 2);
    store.touch(&name("b"), &images[1].digest(), false).await;
    assert_eq!(store.remove_unused(3 * DAY).await.unwrap(), Evicted::default(), "nothing is so old");
    let removed = store.remove_unused(DAY).await.unwrap();
    let freed = (images[0].bytes.len() + 30_000 + b"stray".len()) as u64;
    let removed = (removed.images, removed.blobs, removed.freed_bytes);
    assert_eq!(removed, (1, 3, freed), "the configuration is `b`'s too");
    assert_eq!(listed(&store).await, ["b"], "used a moment ago");
    assert_eq!(store.link(&name("a"), &images[0].digest()).await.unwrap(), None, "nothing of it is left");
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du());
}

#[tokio::test]
async fn the_age_rule_spares_what_is_being_downloaded() {
    let cache = Cache::new();
    let store = cache.open();
    let image = image(1, 30_000);
    store.put_manifest(&name("a"), &image.manifest, image.bytes.clone()).await.unwrap();
    let store = days_later(&cache, store, 2);
    let running = store.stage(&Digest::of(&image.blobs[1]), 30_000).await.unwrap();
    assert_eq!(store.remove_unused(DAY).await.unwrap().images, 0);
    drop(running);
    assert_eq!(store.remove_unused(DAY).await.unwrap().images, 1);
}

#[tokio::test]
async fn no_step_of_the_clock_makes_anything_old() {
    const YEARS: i64 = 3650;
    let cache = Cache::new();
    let store = cache.open();
    put_each(&cache, &store, &["a", "b"]).await;
    cache.clock.advance(YEARS * DAY_MILLIS);
    assert_eq!(store.remove_unused(DAY).await.unwrap(), Evicted::default(), "ten years in a moment");
    let mut store = days_later(&cache, store, YEARS);
    for _ in 0..10 {
        store = days_later(&cache, store, 0);
        assert_eq!(store.remove_unused(4 * DAY).await.unwrap(), Evicted::default(), "nor between two runs");
    }
    let store = days_later(&cache, store, -3 * YEARS);
    put_each(&cache, &store, &["c"]).await;
    let store = days_later(&cache, store, 3 * YEARS);
    assert_eq!(store.remove_unused(7 * DAY).await.unwrap(), Evicted::default(), "nor used in the past");
    assert_eq!(listed(&store).await, ["a", "b", "c"]);
    store.remove_unused(4 * DAY).await.unwrap();
    assert_eq!(
        listed(&store).await,
        ["c"],
        "of each step three days count: six for the others, three for it"
    );
}

/// A disk that removes no file of this name, as if it were marked as never to be changed.
#[derive(Debug)]
struct Marked(Vec<String>);

impl Witness for Marked {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        if let Operation::Remove { path } = operation
            && self.0.iter().any(|name| path.ends_with(name))
        {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Verdict::Go)
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_removed_does_not_keep_others_from_making_way() {
    let cache = Cache::new();
    let marked: Vec<String> = (1..7).map(|seed| Digest::of(&noise(seed, 30_000)).hex()).collect();
    let options = StoreOptions::new(cache.dir.clone(), cache.clock.clone());
    let disk = Disk::watched(Arc::new(Marked(marked)));
    let store = Store::open(StoreOptions { quota: Some(270_000), disk, ..options }).unwrap();
    put_each(&cache, &store, &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    image(9, 30_000).put_as(&store, &name("i"), "latest").await;
    assert_eq!(listed(&store).await, ["a", "b", "c", "d", "e", "f", "h", "i"], "six before it stay");
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "what is left of them is counted");
    assert!(usage.size_bytes <= 270_000);
    store.set_quota(Some(100_000));
    store.make_room().await.unwrap();
    assert_eq!(listed(&store).await, ["a", "b", "c", "d", "e", "f"], "all others go");
    assert_eq!(store.make_room().await.unwrap(), Evicted::default(), "then nothing is left to go");
}

#[tokio::test]
async fn thousands_of_blobs_make_way_while_others_are_published() {
    let cache = Cache::new();
    let store = cache.open();
    for seed in 0..400_u64 {
        cache.clock.advance(1);
        let layers: Vec<Bytes> = (0..4).map(|layer| noise(10_000 + seed * 4 + layer, 500)).collect();
        Image::new("amd64", &layers).put_as(&store, &name(&format!("i{seed}")), "latest").await;
    }
    let before = cache.du();
    store.set_quota(Some(before.0 / 2));
    let (making, mut tasks) = (store.clone(), tokio::task::JoinSet::new());
    let making = tasks.spawn(async move { making.make_room().await.unwrap() });
    let mut slowest = Duration::ZERO;
    while !making.is_finished() {
        let begun = std::time::Instant::now();
        store.set_tag(&name("other"), &tag("latest"), &Digest::of(b"other")).await.unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    let evicted = tasks.join_all().await[0];
    assert!(evicted.images > 200, "{evicted:?}");
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du());
    assert!(usage.size_bytes <= before.0 / 2 - before.0 / 20);
    assert_eq!(evicted.blobs, before.1 - cache.du().1);
    assert!(slowest < Duration::from_secs(2), "nobody waits for all of it: {slowest:?}");
}
