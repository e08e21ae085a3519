//! Downloads that are cut short and gone on with.

use std::io::ErrorKind;

use bytes::Bytes;
use sampan_oci::{Digest, RangeSet};
use sampan_store::{Partial, Selection, Store, StoreError};

use crate::setting::{Cache, noise};

/// Pieces of the blob, as they would come from upstream.
fn pieces(blob: &Bytes, ranges: &[(usize, usize)]) -> Vec<(u64, Bytes)> {
    ranges.iter().map(|(start, end)| (*start as u64, blob.slice(*start..*end))).collect()
}

fn ranges(partial: &Partial) -> Vec<(u64, u64)> {
    partial.held().iter().map(|range| (range.start, range.end)).collect()
}

#[tokio::test]
async fn a_dropped_partial_is_gone_on_with_in_this_process_and_in_the_next() {
    let cache = Cache::new();
    let blob = noise(1, 1_000_000);
    let digest = Digest::of(&blob);
    let store = cache.open();
    let mut partial = store.partial(&digest, 1_000_000).await.unwrap();
    assert!(partial.held().is_empty());
    partial.write(pieces(&blob, &[(0, 300_000), (600_000, 700_000)])).await.unwrap();
    assert_eq!(partial.hashed(), 300_000);
    drop(partial);

    let mut partial = store.partial(&digest, 1_000_000).await.unwrap();
    assert_eq!(ranges(&partial), [(0, 300_000), (600_000, 700_000)]);
    assert_eq!(partial.hashed(), 300_000, "the prefix is hashed again from disk");
    partial.write(pieces(&blob, &[(300_000, 600_000)])).await.unwrap();
    drop(partial);
    drop(store);

    let store = cache.open();
    let mut partial = store.partial(&digest, 1_000_000).await.unwrap();
    assert_eq!((ranges(&partial), partial.hashed()), (vec![(0, 700_000)], 700_000));
    partial.write(pieces(&blob, &[(700_000, 1_000_000)])).await.unwrap();
    partial.publish().await.unwrap();
    let held = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(held.verified(), "every byte went through the hasher");
    assert!(held.verify().await.unwrap());
    assert_eq!(cache.partials(), 0, "neither data nor ledger stays");
}

#[tokio::test]
async fn pieces_in_any_order_are_hashed_as_soon_as_the_prefix_reaches_them() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(2, 900_000);
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, 900_000).await.unwrap();
    partial.write(pieces(&blob, &[(600_000, 900_000), (300_000, 301_000)])).await.unwrap();
    assert_eq!(partial.hashed(), 0, "the first byte is missing");
    partial.write(pieces(&blob, &[(301_000, 600_000), (0, 10)])).await.unwrap();
    assert_eq!(partial.hashed(), 10);
    partial.write(pieces(&blob, &[(10, 300_000)])).await.unwrap();
    assert_eq!(partial.hashed(), 900_000, "from memory, then on from disk");
    assert_eq!(partial.reader().read_at(299_000, 2000).await.unwrap(), blob[299_000..301_000]);
    partial.publish().await.unwrap();
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap());
}

#[tokio::test]
async fn a_hole_filled_last_does_not_keep_its_writer_waiting_for_all_that_is_behind_it() {
    const REREAD: u64 = 16 * 1024 * 1024;
    let cache = Cache::new();
    let store = cache.open();
    let blob = Bytes::from(noise(13, 1_000_003).repeat(40));
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    for wrong_at in [None, Some(39_000_000)] {
        let mut bytes = blob.to_vec();
        if let Some(at) = wrong_at {
            bytes[at] ^= 1;
        }
        let bytes = Bytes::from(bytes);
        let mut partial = store.partial(&digest, size).await.unwrap();
        partial.write(pieces(&bytes, &[(1000, 20_000_000), (20_000_010, bytes.len())])).await.unwrap();
        partial.write(pieces(&bytes, &[(0, 1000)])).await.unwrap();
        assert_eq!(partial.hashed(), 1000 + REREAD, "the piece itself, and so much of what follows");
        partial.write(pieces(&bytes, &[(20_000_000, 20_000_010)])).await.unwrap();
        assert_eq!(partial.held().len(), size);
        let second = 1000 + 2 * REREAD + 10;
        assert_eq!(
            partial.hashed(),
            second,
            "a later write catches up, and passes a piece in memory for nothing"
        );
        let published = partial.publish().await;
        match wrong_at {
            None => published.expect("publishing hashes the rest"),
            Some(_) => assert!(
                matches!(published, Err(StoreError::Mismatch { .. })),
                "and finds out what is wrong in it: {published:?}"
            ),
        }
        assert_eq!(cache.partials(), 0);
    }
    let mut partial = store.partial(&digest, size).await.unwrap();
    partial.write(pieces(&blob, &[(1, blob.len())])).await.unwrap();
    partial.write(pieces(&blob, &[(0, 1)])).await.unwrap();
    partial.write(Vec::new()).await.unwrap();
    assert_eq!(partial.hashed(), 1 + 2 * REREAD, "a write without news catches up too");
    drop(partial);
    assert_eq!(store.partial(&digest, size).await.unwrap().hashed(), size, "opening reads all of it anyway");
}

#[tokio::test]
async fn bytes_that_are_held_are_never_overwritten() {
    let cache = Cache::new();
    let store = cache.open();
    let (blob, lies) = (noise(3, 10_000), noise(4, 10_000));
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, 10_000).await.unwrap();
    partial.write(pieces(&blob, &[(1000, 2000), (5000, 6000)])).await.unwrap();
    partial.write(pieces(&lies, &[(1000, 2000), (5100, 5200), (7, 7)])).await.unwrap();
    // Within one write the first piece counts, and only what is missing of the later ones.
    let mut around = pieces(&blob, &[(0, 1000), (2000, 5000), (6000, 10_000)]);
    around.extend(pieces(&lies, &[(0, 10_000)]));
    partial.write(around).await.unwrap();
    assert_eq!(partial.held().len(), 10_000);
    drop(partial);
    store.partial(&digest, 10_000).await.unwrap().publish().await.expect("not one wrong byte got in");
}

#[tokio::test]
async fn a_piece_beyond_the_blob_is_refused_and_nothing_of_its_write_is_kept() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(5, 100);
    let mut partial = store.partial(&Digest::of(&blob), 100).await.unwrap();
    let mut long = pieces(&blob, &[(0, 50)]);
    long.push((99, Bytes::from_static(b"ab")));
    let error = partial.write(long).await.unwrap_err();
    assert!(matches!(error, StoreError::Size { expected: 100, actual: 101 }), "{error:?}");
    let error = partial.write(vec![(u64::MAX, Bytes::from_static(b"ab"))]).await.unwrap_err();
    assert!(matches!(error, StoreError::Size { .. }), "no offset wraps around: {error:?}");
    assert!(partial.held().is_empty());
    partial.write(pieces(&blob, &[(0, 100)])).await.expect("nothing is lost by a refusal");
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn wrong_bytes_are_never_published_and_none_of_them_stays() {
    let cache = Cache::new();
    let store = cache.open();
    let (blob, lies) = (noise(6, 5000), noise(7, 5000));
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, 5000).await.unwrap();
    partial.write(pieces(&lies, &[(0, 5000)])).await.unwrap();
    assert!(
        matches!(partial.publish().await, Err(StoreError::Mismatch { expected, .. }) if expected == digest)
    );
    assert_eq!((cache.du(), cache.partials()), ((0, 0), 0), "data and ledger are gone");
    assert_eq!(store.usage().await.unwrap().partial_bytes, 0);
    let mut partial = store.partial(&digest, 5000).await.unwrap();
    assert!(partial.held().is_empty(), "it begins from scratch");
    partial.write(pieces(&blob, &[(0, 5000)])).await.unwrap();
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn an_incomplete_partial_is_not_published_and_stays() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(8, 5000);
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, 5000).await.unwrap();
    partial.write(pieces(&blob, &[(0, 1000), (2000, 5000)])).await.unwrap();
    assert!(matches!(partial.publish().await, Err(StoreError::Size { expected: 5000, actual: 4000 })));
    let mut partial = store.partial(&digest, 5000).await.unwrap();
    assert_eq!(partial.held().len(), 4000);
    partial.write(pieces(&blob, &[(1000, 2000)])).await.unwrap();
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn empty_and_sha512_blobs_are_blobs() {
    let cache = Cache::new();
    let store = cache.open();
    store.partial(&Digest::of(b""), 0).await.unwrap().publish().await.unwrap();
    assert!(store.open_blob(&Digest::of(b"")).await.unwrap().is_some());
    let mut hasher = sampan_oci::Hasher::new(sampan_oci::Algorithm::Sha512);
    hasher.update(b"long");
    let digest = hasher.finish();
    let mut partial = store.partial(&digest, 4).await.unwrap();
    partial.write(vec![(2, Bytes::from_static(b"ng"))]).await.unwrap();
    drop(partial);
    drop(store);
    let store = cache.open();
    let mut partial = store.partial(&digest, 4).await.unwrap();
    assert_eq!(partial.held().len(), 2);
    partial.write(vec![(0, Bytes::from_static(b"lo"))]).await.unwrap();
    partial.publish().await.unwrap();
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap());
}

#[tokio::test]
async fn one_digest_is_open_once() {
    let cache = Cache::new();
    let store = cache.open();
    let digest = Digest::of(b"once");
    let first = store.partial(&digest, 4).await.unwrap();
    let second = store.partial(&digest, 4).await.unwrap_err();
    assert!(
        matches!(&second, StoreError::Io(error) if error.kind() == ErrorKind::ResourceBusy),
        "{second:?}"
    );
    let _other = store.partial(&Digest::of(b"other"), 5).await.expect("another digest is another partial");
    drop(first);
    let mut first = store.partial(&digest, 4).await.expect("released by the drop");
    first.write(vec![(0, Bytes::from_static(b"once"))]).await.unwrap();
    first.publish().await.unwrap();
    let again = store.partial(&digest, 4).await.expect("and by publishing");
    again.discard().await.unwrap();
    store.partial(&digest, 4).await.expect("and by discarding");
}

#[tokio::test]
async fn an_abandoned_write_makes_the_partial_dead_and_its_bytes_are_found_again() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(9, 8 * 1024 * 1024);
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, blob.len() as u64).await.unwrap();
    partial.write(pieces(&blob, &[(0, 1000)])).await.unwrap();
    tokio::select! {
        biased;
        _ = partial.write(vec![(0, blob.clone())]) => panic!("8 MiB are not written before the first poll returns"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(ranges(&partial), [(0, 1000)], "what became of the rest is not known here");
    let error = partial.write(pieces(&blob, &[(1000, 2000)])).await.unwrap_err();
    assert!(matches!(error, StoreError::Dead), "{error:?}");
    assert!(matches!(partial.sync().await, Err(StoreError::Dead)));
    drop(partial);
    let partial = store.partial(&digest, blob.len() as u64).await.expect("waits for the write's end");
    assert_eq!(partial.held().len(), blob.len() as u64, "once begun it was done to its end");
    partial.publish().await.unwrap();
}

/// A partial that takes a while to open, as all of it is held.
async fn large_and_idle(store: &Store) -> (Digest, u64) {
    let blob = noise(14, 8 * 1024 * 1024);
    let (digest, size) = (Digest::of(&blob), blob.len() as u64);
    let mut partial = store.partial(&digest, size).await.unwrap();
    partial.write(vec![(0, blob)]).await.unwrap();
    (digest, size)
}

#[tokio::test]
async fn an_abandoned_opening_is_waited_for_and_not_taken_for_somebody_elses() {
    let cache = Cache::new();
    let store = cache.open();
    let (digest, size) = large_and_idle(&store).await;
    for round in 0..3 {
        tokio::select! {
            biased;
            _ = store.partial(&digest, size) => panic!("8 MiB are not read before the first poll returns"),
            () = std::future::ready(()) => {}
        }
        let again = store.partial(&digest, size).await;
        let again = again.unwrap_or_else(|error| panic!("round {round}: nobody has it: {error:?}"));
        assert_eq!(again.held().len(), size);
    }
}

#[tokio::test]
async fn of_two_who_open_at_the_same_time_one_is_refused() {
    let cache = Cache::new();
    let store = cache.open();
    let (digest, size) = large_and_idle(&store).await;
    let both = tokio::join!(store.partial(&digest, size), store.partial(&digest, size));
    let refused = match both {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        neither => panic!("one and only one has it: {neither:?}"),
    };
    assert!(
        matches!(&refused, StoreError::Io(error) if error.kind() == ErrorKind::ResourceBusy),
        "it waits only until the other has it: {refused:?}"
    );
}

#[tokio::test]
async fn a_blob_published_otherwise_leaves_no_idle_partial() {
    let cache = Cache::new();
    let store = cache.open();
    let (blob, other) = (noise(15, 1000), noise(16, 1000));
    for bytes in [&blob, &other] {
        let mut partial = store.partial(&Digest::of(bytes), 1000).await.unwrap();
        partial.write(pieces(bytes, &[(0, 400)])).await.unwrap();
    }
    assert_eq!(cache.partials(), 4);
    store.put(&Digest::of(&blob), blob.clone()).await.unwrap();
    assert_eq!(cache.partials(), 2, "of the other blob");
    assert_eq!(store.usage().await.unwrap().partial_bytes, 400);

    let mut partial = store.partial(&Digest::of(&other), 1000).await.unwrap();
    store.put(&Digest::of(&other), other.clone()).await.unwrap();
    partial.write(pieces(&other, &[(400, 1000)])).await.expect("an open one goes on");
    partial.publish().await.unwrap();
    assert_eq!(cache.partials(), 0);
}

#[tokio::test]
async fn an_abandoned_publish_is_done_to_its_end_and_whoever_comes_next_waits_for_it() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(12, 1_000_000);
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, 1_000_000).await.unwrap();
    partial.write(vec![(0, blob.clone())]).await.unwrap();
    tokio::select! {
        biased;
        _ = partial.publish() => panic!("nothing is synced before the first poll returns"),
        () = std::future::ready(()) => {}
    }
    let again = store.partial(&digest, 1_000_000).await.expect("not refused as if it were in use");
    assert!(again.held().is_empty());
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap(), "it is published");
}

#[tokio::test]
async fn many_small_pieces_make_a_short_ledger() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(10, 40_000);
    let digest = Digest::of(&blob);
    let ledger = || cache.partial_path(&digest, "ledger").metadata().unwrap().len();
    let mut partial = store.partial(&digest, 40_000).await.unwrap();
    let every_second = |first: usize| (first..40_000).step_by(2).map(|at| (at, at + 1)).collect::<Vec<_>>();
    partial.write(pieces(&blob, &every_second(0))).await.unwrap();
    let lines = ledger();
    assert!(lines > 20_000 * 20, "each byte stands alone: {lines}");
    partial.write(pieces(&blob, &every_second(1))).await.unwrap();
    assert!(ledger() < 100, "joined, it is one claim: {}", ledger());
    assert_eq!((partial.held().count(), partial.hashed()), (1, 40_000));
    drop(partial);
    let partial = store.partial(&digest, 40_000).await.unwrap();
    assert_eq!(partial.hashed(), 40_000, "the joined checksum is that of the bytes");
    partial.publish().await.unwrap();

    let mut partial = store.partial(&digest, 40_000).await.unwrap();
    let thousands: Vec<_> = (0..40).rev().map(|i| (i * 1000, (i + 1) * 1000)).collect();
    partial.write(pieces(&blob, &thousands)).await.unwrap();
    assert!(ledger() < 100, "pieces of one write that touch make one claim");
    drop(partial);
    assert_eq!(store.partial(&digest, 40_000).await.unwrap().held().len(), 40_000);
}

#[tokio::test]
async fn what_partials_take_of_the_disk_is_counted_open_idle_and_after_a_start() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(11, 10_000);
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, 10_000).await.unwrap();
    let mut stage = store.stage(&Digest::of(b"staged"), 6).await.unwrap();
    stage.append(Bytes::from_static(b"stag")).await.unwrap();
    assert_eq!(store.usage().await.unwrap().partial_bytes, 4);
    partial.write(pieces(&blob, &[(0, 3000), (4000, 5000), (2000, 4500)])).await.unwrap();
    assert_eq!(store.usage().await.unwrap().partial_bytes, 5004, "no byte twice");
    drop(stage);
    drop(partial);
    assert_eq!(store.usage().await.unwrap().partial_bytes, 5000, "idle bytes are on the disk all the same");
    let mut partial = store.partial(&digest, 10_000).await.unwrap();
    assert_eq!(store.usage().await.unwrap().partial_bytes, 5000);
    partial.write(pieces(&blob, &[(0, 6000)])).await.unwrap();
    partial.sync().await.unwrap();
    drop(partial);
    drop(store);
    let store = cache.open();
    assert_eq!(store.usage().await.unwrap().partial_bytes, 6000, "by the ledgers");
    let mut partial = store.partial(&digest, 10_000).await.unwrap();
    partial.write(pieces(&blob, &[(0, 10_000)])).await.unwrap();
    partial.publish().await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.partial_bytes, usage.size_bytes), (0, 10_000));
}

#[tokio::test]
async fn a_partial_that_holds_nothing_leaves_nothing() {
    let cache = Cache::new();
    let store = cache.open();
    let digest = Digest::of(b"refused");
    drop(store.partial(&digest, 1000).await.unwrap());
    assert_eq!(cache.partials(), 0, "what upstream refuses makes no litter");
    let mut partial = store.partial(&digest, 1000).await.unwrap();
    partial.write(vec![(10, noise(1, 10))]).await.unwrap();
    partial.discard().await.unwrap();
    assert_eq!(cache.partials(), 0);
    assert_eq!(store.usage().await.unwrap().partial_bytes, 0);
    assert!(store.partial(&digest, 1000).await.unwrap().held().is_empty());
}

#[tokio::test]
async fn clearing_everything_takes_idle_partials_and_nothing_else_does() {
    let cache = Cache::new();
    let store = cache.open();
    let (idle, open) = (Digest::of(b"idle"), Digest::of(b"open"));
    let mut partial = store.partial(&idle, 1000).await.unwrap();
    partial.write(vec![(0, noise(1, 700))]).await.unwrap();
    drop(partial);
    let mut partial = store.partial(&open, 1000).await.unwrap();
    partial.write(vec![(0, noise(2, 300))]).await.unwrap();
    store.put(&Digest::of(b"blob"), Bytes::from_static(b"blob")).await.unwrap();

    let others = [Selection::Images(Vec::new()), Selection::UnusedSince(sampan_oci::Millis(i64::MAX))];
    assert_eq!(store.plan_clear(&others[1]).await.unwrap().freed_bytes, 4);
    assert_eq!(store.clear(&others[0]).await.unwrap().freed_bytes, 0);
    assert!(cache.partial_path(&idle, "data").exists());

    let planned = store.plan_clear(&Selection::All).await.unwrap();
    assert_eq!(planned.freed_bytes, 704);
    assert_eq!(store.clear(&Selection::All).await.unwrap(), planned);
    assert_eq!(cache.partials(), 2, "the open one stays");
    assert_eq!(store.usage().await.unwrap().partial_bytes, 300);
    partial.write(vec![(300, noise(3, 100))]).await.expect("and goes on");
    drop(partial);
    assert_eq!(store.partial(&open, 1000).await.unwrap().held().len(), 400);
    assert!(store.partial(&idle, 1000).await.unwrap().held().is_empty());
}

#[tokio::test]
async fn what_is_missing_must_fit_on_the_disk_and_what_is_held_need_not() {
    let cache = Cache::new();
    let digest = Digest::of(b"large");
    let store = cache.open();
    let size = store.usage().await.unwrap().free_bytes.expect("the system says what is free") * 4;
    let refused = store.partial(&digest, size).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert_eq!(cache.partials(), 0, "refused before a file was made");
    let mut partial = store.partial(&digest, 1000).await.unwrap();
    partial.write(vec![(0, noise(1, 1000))]).await.unwrap();
    drop(partial);
    drop(store);
    let clock = std::sync::Arc::clone(&cache.clock);
    let options = sampan_store::StoreOptions {
        free_space_floor_bytes: size,
        ..sampan_store::StoreOptions::new(cache.dir.clone(), clock)
    };
    let store = sampan_store::Store::open(options).unwrap();
    assert!(matches!(store.partial(&digest, 1000).await, Err(StoreError::Full)));
    assert_eq!(store.usage().await.unwrap().partial_bytes, 1000, "what is held stays");
    drop(store);
    let held: RangeSet = cache.open().partial(&digest, 1000).await.unwrap().held().clone();
    assert_eq!(held.len(), 1000);
}
