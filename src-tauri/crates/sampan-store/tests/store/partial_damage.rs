//! What a crash, a power cut or a bad disk does to a partial download, and what is believed of it afterwards.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sampan_oci::Digest;

use crate::setting::{Cache, noise};

const SIZE: u64 = 400_000;
const PIECE: u64 = 10_000;

fn piece(blob: &Bytes, number: u64) -> (u64, Bytes) {
    let start = number * PIECE;
    (start, blob.slice(usize::try_from(start).unwrap()..usize::try_from(start + PIECE).unwrap()))
}

/// A partial of which pieces 0 to 9 and 20 to 29 are held, each by a claim of its own.
async fn cut_short(cache: &Cache, blob: &Bytes) -> Digest {
    let digest = Digest::of(blob);
    let mut partial = cache.open().partial(&digest, SIZE).await.unwrap();
    for number in (0..10).chain(20..30) {
        partial.write(vec![piece(blob, number)]).await.unwrap();
    }
    digest
}

/// Opens it again, twice: what was refused once is not asked about again, and what was held stays held.
async fn held_after(cache: &Cache, digest: &Digest, what: &str) -> (Vec<u64>, u64) {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let store = cache.open();
        let partial = store.partial(digest, SIZE).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let held = (0..SIZE / PIECE).filter(|n| partial.held().covers(&(n * PIECE..(n + 1) * PIECE)));
        let held: Vec<u64> = held.collect();
        assert_eq!(
            partial.held().len(),
            held.len() as u64 * PIECE,
            "{what}: a claim holds whole or not at all"
        );
        seen.push((held, partial.hashed()));
        drop(partial);
        assert_eq!(store.usage().await.unwrap().partial_bytes, seen[0].0.len() as u64 * PIECE, "{what}");
    }
    assert_eq!(seen[0], seen[1], "{what}: the second time as the first");
    seen.remove(0)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_is_damaged_is_not_held_and_everything_else_is() {
    type Damage = fn(&mut Vec<u8>);
    // Name, file, damage, pieces not held any more, bytes hashed.
    let cases: [(&str, &str, Damage, &[u64], u64); 14] = [
        ("nothing", "data", |_| {}, &[], 100_000),
        ("a flipped bit", "data", |data| data[55_555] ^= 1, &[5], 50_000),
        ("the first byte", "data", |data| data[0] ^= 128, &[0], 0),
        ("a last byte", "data", |data| data[299_999] ^= 1, &[29], 100_000),
        ("a zeroed page", "data", |data| data[241_664..245_760].fill(0), &[24], 100_000),
        ("a byte nobody claimed", "data", |data| data[150_000] ^= 1, &[], 100_000),
        ("data cut in a piece", "data", |data| data.truncate(285_000), &[28, 29], 100_000),
        (
            "data gone but for a byte",
            "data",
            |data| data.truncate(1),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
            0,
        ),
        ("data too long", "data", |data| data.resize(500_000, 7), &[], 100_000),
        ("a torn last claim", "ledger", |ledger| ledger.truncate(ledger.len() - 5), &[29], 100_000),
        ("half a claim appended", "ledger", |ledger| ledger.extend([1; 13]), &[], 100_000),
        ("a zeroed end, as after a power cut", "ledger", |ledger| ledger.extend([0; 4096]), &[], 100_000),
        ("a claim lost in the middle", "ledger", |ledger| ledger[24 * 19 + 3] ^= 1, &[28, 29], 100_000),
        (
            "a claim told twice",
            "ledger",
            |ledger| {
                let first = ledger[24..48].to_vec();
                ledger.extend(first);
            },
            &[],
            100_000,
        ),
    ];
    let blob = noise(1, usize::try_from(SIZE).unwrap());
    for (what, kind, damage, lost, hashed) in cases {
        let cache = Cache::new();
        let digest = cut_short(&cache, &blob).await;
        change(&cache.partial_path(&digest, kind), damage);
        let expected: Vec<u64> = (0..10).chain(20..30).filter(|number| !lost.contains(number)).collect();
        assert_eq!(held_after(&cache, &digest, what).await, (expected.clone(), hashed), "{what}");

        let mut partial = cache.open().partial(&digest, SIZE).await.unwrap();
        partial.write(vec![piece(&blob, 35)]).await.unwrap();
        drop(partial);
        let expected: Vec<u64> = expected.into_iter().chain([35]).collect();
        assert_eq!(
            held_after(&cache, &digest, what).await.0,
            expected,
            "{what}: no claim is lost among the wrong ones"
        );

        let store = cache.open();
        let mut partial = store.partial(&digest, SIZE).await.unwrap();
        partial.write((0..SIZE / PIECE).map(|number| piece(&blob, number)).collect()).await.unwrap();
        partial
            .publish()
            .await
            .unwrap_or_else(|error| panic!("{what}: what was lost is fetched again: {error:?}"));
        let published = store.open_blob(&digest).await.unwrap().unwrap();
        assert_eq!(published.read_at(0, blob.len() + 1).await.unwrap(), blob, "{what}");
        assert_eq!(cache.partials(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_ledger_that_is_none_means_beginning_again() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 6] = [
        ("empty", Vec::clear),
        ("torn header", |ledger| ledger.truncate(23)),
        ("garbage", |ledger| *ledger = noise(9, 5000).to_vec()),
        ("zeros", |ledger| ledger.fill(0)),
        ("another version", |ledger| ledger[8] = 2),
        ("another size, by a flipped bit", |ledger| ledger[12] ^= 1),
    ];
    let blob = noise(2, usize::try_from(SIZE).unwrap());
    for (what, damage) in cases {
        let cache = Cache::new();
        let digest = cut_short(&cache, &blob).await;
        change(&cache.partial_path(&digest, "ledger"), damage);
        let store = cache.open();
        assert_eq!(cache.partials(), 0, "{what}: data that nothing vouches for is removed at start");
        assert_eq!(store.usage().await.unwrap().partial_bytes, 0, "{what}");
        assert!(store.partial(&digest, SIZE).await.unwrap().held().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn files_damaged_while_the_store_is_open_are_not_believed_either() {
    let cache = Cache::new();
    let blob = noise(3, usize::try_from(SIZE).unwrap());
    let store = cache.open();
    let digest = Digest::of(&blob);
    let mut partial = store.partial(&digest, SIZE).await.unwrap();
    partial.write(vec![piece(&blob, 0)]).await.unwrap();
    drop(partial);
    fs::remove_file(cache.partial_path(&digest, "ledger")).unwrap();
    assert!(store.partial(&digest, SIZE).await.unwrap().held().is_empty(), "data without a ledger");

    let mut partial = store.partial(&digest, SIZE).await.unwrap();
    partial.write(vec![piece(&blob, 0)]).await.unwrap();
    drop(partial);
    fs::remove_file(cache.partial_path(&digest, "data")).unwrap();
    let mut partial = store.partial(&digest, SIZE).await.unwrap();
    assert!(partial.held().is_empty(), "a ledger without data");
    partial.write((0..SIZE / PIECE).map(|number| piece(&blob, number)).collect()).await.unwrap();
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn a_partial_of_another_size_is_another_download() {
    let cache = Cache::new();
    let store = cache.open();
    let blob = noise(4, 1000);
    let digest = Digest::of(&blob);
    for size in [2000, 500, 1000] {
        let mut partial = store.partial(&digest, size).await.unwrap();
        assert!(partial.held().is_empty(), "{size}: what was announced before says nothing");
        partial.write(vec![(0, blob.slice(..500))]).await.unwrap();
        assert_eq!(partial.size(), size);
    }
    let mut partial = store.partial(&digest, 1000).await.unwrap();
    assert_eq!(partial.held().len(), 500);
    partial.write(vec![(500, blob.slice(500..))]).await.unwrap();
    partial.publish().await.unwrap();
    assert_eq!(store.open_blob(&digest).await.unwrap().unwrap().size(), 1000);
}

#[tokio::test]
async fn orphans_go_at_start_and_what_is_foreign_stays() {
    let cache = Cache::new();
    let blob = noise(5, usize::try_from(SIZE).unwrap());
    let kept = cut_short(&cache, &blob).await;
    let (data, ledger) = (Digest::of(b"data"), Digest::of(b"ledger"));
    fs::copy(cache.partial_path(&kept, "data"), cache.partial_path(&data, "data")).unwrap();
    fs::copy(cache.partial_path(&kept, "ledger"), cache.partial_path(&ledger, "ledger")).unwrap();
    fs::write(cache.partial_path(&kept, "ledger-new"), b"a crash while it was replaced").unwrap();
    let foreign =
        ["notes.data", "sha256-short.ledger", "data", "ledger"].map(|f| cache.dir.join("partial").join(f));
    for path in &foreign {
        fs::write(path, b"mine").unwrap();
    }
    let store = cache.open();
    assert_eq!(cache.partials(), 2 + foreign.len());
    assert!(foreign.iter().all(|path| path.exists()), "the store removes only what it made");
    assert_eq!(store.usage().await.unwrap().partial_bytes, 200_000);
    store.clear(&sampan_store::Selection::All).await.unwrap();
    assert_eq!(cache.partials(), foreign.len());
}

#[tokio::test]
async fn partials_that_nobody_went_on_with_for_two_weeks_go_at_start() {
    const DAY: u64 = 24 * 3600;
    let cache = Cache::new();
    let blob = noise(6, usize::try_from(SIZE).unwrap());
    let digest = cut_short(&cache, &blob).await;
    let written = |kind: &str, day: u64| {
        let file = File::options().write(true).open(cache.partial_path(&digest, kind)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(day * DAY)).unwrap();
    };
    written("ledger", 100);
    written("data", 50);
    cache.clock.advance(114 * 86_400_000 - 1_000_000);
    drop(cache.open());
    assert_eq!(cache.partials(), 2, "the ledger was written 14 days ago");
    cache.clock.advance(1);
    drop(cache.open());
    assert_eq!(cache.partials(), 0, "one millisecond too many");
}

#[tokio::test]
async fn partials_that_nobody_went_on_with_for_two_weeks_go_without_a_restart() {
    let cache = Cache::new();
    let blob = noise(6, usize::try_from(SIZE).unwrap());
    let digest = cut_short(&cache, &blob).await;
    for kind in ["ledger", "data"] {
        let file = File::options().write(true).open(cache.partial_path(&digest, kind)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_hours(100 * 24)).unwrap();
    }
    cache.clock.advance(114 * 86_400_000 - 1_000_000);
    let store = cache.open();
    assert_eq!(store.left_of(&digest), 200_000, "14 days old, and not a moment more");
    let gone = store.make_room().await.unwrap();
    assert_eq!((gone.partials, gone.images, gone.freed_bytes), (1, 0, 200_000), "a moment has passed");
    assert_eq!((cache.partials(), store.left_of(&digest)), (0, 0));
    assert_eq!(store.usage().await.unwrap().partial_bytes, 0);

    let mut partial = store.partial(&digest, SIZE).await.unwrap();
    partial.write(vec![piece(&blob, 0)]).await.unwrap();
    drop(partial);
    cache.clock.advance(3650 * 86_400_000);
    assert_eq!(store.make_room().await.unwrap().partials, 0, "a clock that is set ahead makes nothing old");
}

#[tokio::test]
async fn a_start_with_a_clock_that_is_years_ahead_keeps_partials() {
    let cache = Cache::new();
    let blob = noise(6, usize::try_from(SIZE).unwrap());
    cut_short(&cache, &blob).await;
    // The files were written by the system's clock, a moment ago.
    let now = UNIX_EPOCH.elapsed().unwrap().as_millis();
    cache.clock.advance(i64::try_from(now).unwrap() + 3650 * 86_400_000);
    drop(cache.open());
    assert_eq!(cache.partials(), 2);
}

#[cfg(unix)]
#[tokio::test]
async fn links_in_place_of_a_partials_files_are_replaced_and_never_followed() {
    let blob = noise(7, usize::try_from(SIZE).unwrap());
    for kind in ["data", "ledger"] {
        let cache = Cache::new();
        let digest = cut_short(&cache, &blob).await;
        let store = cache.open();
        let (path, canary) = (cache.partial_path(&digest, kind), cache.dir.with_file_name("canary"));
        fs::rename(&path, &canary).unwrap();
        std::os::unix::fs::symlink(&canary, &path).unwrap();
        let before = fs::read(&canary).unwrap();
        let mut partial = store.partial(&digest, SIZE).await.unwrap();
        assert!(partial.held().is_empty(), "{kind}: a link leads to nothing, even to the right bytes");
        partial.write(vec![piece(&blob, 10)]).await.unwrap();
        partial.sync().await.unwrap();
        assert!(path.symlink_metadata().unwrap().is_file(), "{kind}: the link is replaced");
        assert_eq!(fs::read(&canary).unwrap(), before, "{kind}: its target is left alone");
    }
}
