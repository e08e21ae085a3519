//! Scrubbing: how it goes on, yields, stops, and what it sets right.

use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sampan_oci::{Clock, Digest};
use sampan_store::{ScrubPace, Store};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::setting::{Cache, Image, name, noise, tag};

const MIB: usize = 1024 * 1024;
const HOUR: Duration = Duration::from_hours(1);

async fn filled(cache: &Cache, blobs: u64, size: usize) -> Store {
    let store = cache.open();
    for seed in 0..blobs {
        let bytes = noise(seed + 1, size);
        store.put(&Digest::of(&bytes), bytes).await.unwrap();
    }
    store
}

#[tokio::test]
async fn a_scrub_that_was_stopped_is_gone_on_with() {
    let cache = Cache::new();
    let store = filled(&cache, 20, 1000).await;
    // What was just published was just hashed.
    cache.clock.advance(3_600_000);
    let pace = ScrubPace { older_than: HOUR, ..ScrubPace::FULL };
    let enough = Arc::new(Notify::new());
    let told = Arc::clone(&enough);
    let progress = move |now: sampan_store::ScrubProgress| {
        assert_eq!((now.blobs, now.bytes, now.damaged), (20, 20_000, 0));
        if now.blobs_done == 7 {
            told.notify_one();
        }
    };
    let first = store.scrub(pace, || false, progress, enough.notified()).await.unwrap();
    assert_eq!((first.blobs, first.bytes, first.complete), (7, 7_000, false));
    let since = |store: &Store| {
        let store = store.clone();
        async move { store.health().await.unwrap().checked_since }
    };
    let published = Some(cache.clock.now().plus(-3_600_000));
    assert_eq!(since(&store).await, published, "13 were last looked at when they came in");
    drop(store);

    let store = cache.open();
    let second = store.scrub(pace, || false, |_| {}, pending()).await.unwrap();
    assert_eq!((second.blobs, second.complete), (13, true), "those checked within the hour are left out");
    let scrubbed = Some(cache.clock.now());
    assert_eq!(since(&store).await, scrubbed);
    cache.clock.advance(1000);
    assert_eq!(store.scrub(pace, || false, |_| {}, pending()).await.unwrap().blobs, 0);
    assert_eq!(since(&store).await, scrubbed, "a scrub that looked at nothing has seen nothing");
    cache.clock.advance(3_600_000);
    assert_eq!(
        store.scrub(pace, || false, |_| {}, pending()).await.unwrap().blobs,
        20,
        "an hour later all are due"
    );
    cache.clock.advance(-1_000_000);
    assert_eq!(since(&store).await, None, "nor is one from the future");
    let back = store.scrub(pace, || false, |_| {}, pending()).await.unwrap();
    assert_eq!(back.blobs, 20, "a check from the future is no check");
}

#[tokio::test(start_paused = true)]
async fn a_scrub_keeps_its_pace_and_waits_while_others_are_busy() {
    let cache = Cache::new();
    let store = filled(&cache, 3, 2 * MIB).await;
    let pace = ScrubPace { bytes_per_second: Some(MIB as u64), drop_pages: true, ..ScrubPace::FULL };
    let began = Instant::now();
    let report = store.scrub(pace, || false, |_| {}, pending()).await.unwrap();
    assert_eq!(report.bytes, 6 * MIB as u64);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(4_900) && took < Duration::from_secs(7), "{took:?} for 6 MiB");

    let asked = AtomicU64::new(0);
    let busy = || asked.fetch_add(1, Ordering::Relaxed) < 30;
    let began = Instant::now();
    store.scrub(ScrubPace::FULL, busy, |_| {}, pending()).await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(31), "{took:?}");

    let began = Instant::now();
    let stop = tokio::time::sleep(Duration::from_millis(500));
    let report = store.scrub(ScrubPace::FULL, || true, |_| {}, stop).await.unwrap();
    assert!(!report.complete && began.elapsed() < Duration::from_millis(600), "told to stop while it waits");
}

#[tokio::test]
async fn what_the_index_and_the_folder_disagree_about_is_set_right() {
    let cache = Cache::new();
    let store = cache.open();
    let image = Image::new("amd64", &[noise(1, 5000), noise(2, 7000)]);
    image.put_as(&store, &name("alpine"), "3.20").await;
    let (gone, cut) = (Digest::of(&image.blobs[1]), Digest::of(&image.blobs[2]));
    fs::remove_file(cache.blob_path(&gone)).unwrap();
    fs::write(cache.blob_path(&cut), &image.blobs[2][..100]).unwrap();
    let (come, wrong) = (noise(3, 300), Digest::of(b"wrong"));
    fs::write(cache.blob_path(&Digest::of(&come)), &come).unwrap();
    fs::write(cache.blob_path(&wrong), b"not that").unwrap();
    fs::write(cache.dir.join("blobs/sha256/README"), b"mine").unwrap();

    let report = store.scrub(ScrubPace::FULL, || false, |_| {}, pending()).await.unwrap();
    assert_eq!((report.missing, report.foreign, report.damaged_blobs, report.blobs), (1, 1, 2, 6));
    let mut damaged = report.damaged.clone();
    damaged.sort_unstable();
    let mut expected = vec![cut, wrong];
    expected.sort_unstable();
    assert_eq!(damaged, expected);
    assert!(store.open_blob(&Digest::of(&come)).await.unwrap().unwrap().verified());
    assert_eq!(fs::read(cache.dir.join("blobs/sha256/README")).unwrap(), b"mine");
    let usage = store.usage().await.unwrap();
    let (bytes, files) = cache.du();
    assert_eq!((usage.size_bytes, usage.blobs), (bytes - 4, files - 1), "all but the note");
    assert!(
        store.held_tag(&name("alpine"), &tag("3.20")).await.unwrap().is_some(),
        "tags and proofs stay, so that what is missing can be fetched again"
    );
    image.put(&store, &name("alpine")).await;
    let health = store.health().await.unwrap();
    assert_eq!((health.damaged, health.healed, health.waiting), (2, 1, 1));
}

#[tokio::test]
async fn a_scrub_saves_the_first_reader_the_hashing() {
    let cache = Cache::new();
    let bytes = noise(1, 3 * MIB + 1);
    let digest = Digest::of(&bytes);
    cache.open().put(&digest, bytes).await.unwrap();
    let store = cache.open();
    assert!(!store.open_blob(&digest).await.unwrap().unwrap().verified());
    store.scrub(ScrubPace::FULL, || false, |_| {}, pending()).await.unwrap();
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verified());
    store.set_verify(sampan_store::Verify::Always);
    assert!(!store.open_blob(&digest).await.unwrap().unwrap().verified(), "always means at every read");
    store.scrub(ScrubPace::FULL, || false, |_| {}, pending()).await.unwrap();
    assert!(!store.open_blob(&digest).await.unwrap().unwrap().verified());
    store.set_verify(sampan_store::Verify::Daily);
    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(!blob.verified() && blob.verify().await.unwrap());
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verified());
}
