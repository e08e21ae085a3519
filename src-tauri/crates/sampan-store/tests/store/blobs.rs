//! Bytes in, bytes out, and what never happens on the way.

use bytes::Bytes;
use sampan_oci::{Digest, Hasher};
use sampan_store::StoreError;

use crate::setting::{Cache, noise};

#[tokio::test]
async fn published_bytes_come_back_from_any_place() {
    let cache = Cache::new();
    let store = cache.open();
    let bytes = noise(1, 700_000);
    let digest = Digest::of(&bytes);
    let mut stage = store.stage(&digest, bytes.len() as u64).await.unwrap();
    for chunk in bytes.chunks(65_537) {
        stage.append(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert!(store.open_blob(&digest).await.unwrap().is_none(), "nobody sees a byte before it is published");
    stage.publish().await.unwrap();

    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    assert_eq!(blob.size(), 700_000);
    assert!(blob.verified(), "every byte was hashed on its way in");
    assert_eq!(blob.read_at(0, 700_000).await.unwrap(), bytes);
    assert_eq!(blob.read_at(699_990, 100).await.unwrap(), bytes[699_990..], "short at the end only");
    assert!(blob.read_at(700_000, 1).await.unwrap().is_empty());
    assert!(blob.read_at(u64::MAX, usize::MAX).await.unwrap().is_empty(), "no allocation beyond the blob");
    assert_eq!(cache.partials(), 0);
}

#[tokio::test]
async fn empty_and_sha512_blobs_are_blobs() {
    let cache = Cache::new();
    let store = cache.open();
    store.put(&Digest::of(b""), Bytes::new()).await.unwrap();
    assert_eq!(store.open_blob(&Digest::of(b"")).await.unwrap().unwrap().size(), 0);
    let mut hasher = Hasher::new(sampan_oci::Algorithm::Sha512);
    hasher.update(b"long");
    let digest = hasher.finish();
    store.put(&digest, Bytes::from_static(b"long")).await.unwrap();
    assert!(cache.dir.join("blobs/sha512").join(digest.hex()).is_file(), "each algorithm has its folder");
    assert_eq!(store.usage().await.unwrap().blobs, 2);
}

#[tokio::test]
async fn wrong_bytes_are_never_published() {
    let cache = Cache::new();
    let store = cache.open();
    let (wanted, got) = (Digest::of(b"wanted"), Digest::of(b"gotten"));
    let error = store.put(&wanted, Bytes::from_static(b"gotten")).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Mismatch { expected, actual } if expected == wanted && *actual == got)
    );
    assert_eq!(cache.du(), (0, 0), "nothing under blobs/");
    assert_eq!(cache.partials(), 0, "nothing under partial/");
    assert_eq!(store.usage().await.unwrap().size_bytes, 0);
    store.put(&wanted, Bytes::from_static(b"wanted")).await.expect("the right bytes are welcome later");
}

#[tokio::test]
async fn short_and_long_bodies_are_never_published() {
    let cache = Cache::new();
    let store = cache.open();
    let digest = Digest::of(b"12345");
    let mut short = store.stage(&digest, 5).await.unwrap();
    short.append(Bytes::from_static(b"1234")).await.unwrap();
    assert!(matches!(short.publish().await, Err(StoreError::Size { expected: 5, actual: 4 })));

    let mut long = store.stage(&digest, 5).await.unwrap();
    long.append(Bytes::from_static(b"1234")).await.unwrap();
    let error = long.append(Bytes::from_static(b"56")).await.unwrap_err();
    assert!(matches!(error, StoreError::Size { expected: 5, actual: 6 }), "refused before it is written");
    assert_eq!(cache.partials(), 0, "a dead stage has no file");
    assert!(matches!(long.append(Bytes::from_static(b"5")).await, Err(StoreError::Dead)), "dead stays dead");
    assert!(matches!(long.publish().await, Err(StoreError::Dead)));
    assert_eq!(cache.du(), (0, 0));
}

#[tokio::test]
async fn a_dropped_stage_leaves_nothing_but_its_readers() {
    let cache = Cache::new();
    let store = cache.open();
    let mut stage = store.stage(&Digest::of(b"whole"), 5).await.unwrap();
    stage.append(Bytes::from_static(b"who")).await.unwrap();
    let reader = stage.reader();
    assert_eq!(reader.size(), 5, "a reader knows what is announced");
    assert_eq!(store.usage().await.unwrap().partial_bytes, 3);
    assert_eq!(cache.partials(), 1);
    drop(stage);
    assert_eq!(cache.partials(), 0);
    assert_eq!(store.usage().await.unwrap().partial_bytes, 0);
    assert_eq!(&reader.read_at(0, 5).await.unwrap()[..], b"who", "an open reader goes on");
    assert!(!reader.verify().await.unwrap(), "half a blob is not the blob");
}

#[tokio::test]
async fn readers_follow_the_writer_through_publishing_and_removal() {
    let cache = Cache::new();
    let store = cache.open();
    let digest = Digest::of(b"whole");
    let mut stage = store.stage(&digest, 5).await.unwrap();
    let reader = stage.reader();
    stage.append(Bytes::from_static(b"who")).await.unwrap();
    assert_eq!(&reader.read_at(1, 10).await.unwrap()[..], b"ho", "reads end where the writing is");
    stage.append(Bytes::from_static(b"le")).await.unwrap();
    assert!(!reader.verified());
    stage.publish().await.unwrap();
    assert!(reader.verified(), "publishing proved what the reader reads");
    store.quarantine(&digest).await.unwrap();
    assert_eq!(&reader.read_at(0, 5).await.unwrap()[..], b"whole", "removed, and still readable");
}

#[tokio::test]
async fn an_abandoned_append_makes_the_stage_dead() {
    let cache = Cache::new();
    let store = cache.open();
    let bytes = noise(2, 8 * 1024 * 1024);
    let mut stage = store.stage(&Digest::of(&bytes), bytes.len() as u64).await.unwrap();
    tokio::select! {
        biased;
        _ = stage.append(bytes.clone()) => panic!("8 MiB are not hashed before the first poll returns"),
        () = std::future::ready(()) => {}
    }
    assert!(
        matches!(stage.append(bytes).await, Err(StoreError::Dead)),
        "how much was written is not known, so nothing may be added"
    );
    assert!(matches!(stage.publish().await, Err(StoreError::Dead)));
    assert_eq!((cache.du(), cache.partials()), ((0, 0), 0));
}

#[tokio::test]
async fn a_refetch_replaces_a_truncated_file() {
    let cache = Cache::new();
    let store = cache.open();
    let bytes = noise(3, 10_000);
    let digest = Digest::of(&bytes);
    store.put(&digest, bytes.clone()).await.unwrap();
    std::fs::write(cache.blob_path(&digest), &bytes[..100]).unwrap();
    let damaged = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(!damaged.verified(), "a file that changed is not the one that was hashed");
    assert!(!damaged.verify().await.unwrap());

    store.put(&digest, bytes.clone()).await.unwrap();
    let healed = store.open_blob(&digest).await.unwrap().unwrap();
    assert_eq!(healed.read_at(0, 10_000).await.unwrap(), bytes, "being there is not being good (R7)");
    assert!(healed.verify().await.unwrap());
    assert_eq!(store.usage().await.unwrap().size_bytes, 10_000, "counted once");
}

#[tokio::test]
async fn one_flipped_bit_is_found_and_the_blob_is_not_served_again() {
    let cache = Cache::new();
    let bytes = noise(4, 600_000);
    let digest = Digest::of(&bytes);
    cache.open().put(&digest, bytes.clone()).await.unwrap();
    cache.flip_a_bit(&digest);
    let store = cache.open();
    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(!blob.verified(), "nothing is known of files from before this start");
    assert!(!blob.verify().await.unwrap());
    store.quarantine(&digest).await.unwrap();
    assert!(store.open_blob(&digest).await.unwrap().is_none());
    assert_eq!(store.usage().await.unwrap().size_bytes, 0);
    store.quarantine(&digest).await.expect("removing what is gone is no error");
    store.put(&digest, bytes).await.unwrap();
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap(), "healed by a refetch");
}

#[tokio::test]
async fn verification_is_remembered_until_the_file_changes() {
    let cache = Cache::new();
    let bytes = noise(5, 1000);
    let digest = Digest::of(&bytes);
    cache.open().put(&digest, bytes).await.unwrap();
    let store = cache.open();
    let first = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(first.verify().await.unwrap() && first.verified());
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verified(), "hashed once for all later opens");
    let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let file = std::fs::File::options().write(true).open(cache.blob_path(&digest)).unwrap();
    file.set_modified(later).unwrap();
    let again = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(!again.verified(), "somebody wrote to it");
    again.mark_verified();
    assert!(
        store.open_blob(&digest).await.unwrap().unwrap().verified(),
        "a caller that hashed it may say so"
    );
    let reading = store.open_blob(&digest).await.unwrap().unwrap();
    file.set_modified(later + std::time::Duration::from_secs(1)).unwrap();
    reading.mark_verified();
    let changed = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(!changed.verified(), "but not of what was written while it was hashed");
}

#[cfg(unix)]
#[tokio::test]
async fn links_and_pipes_are_damage_and_their_targets_are_left_alone() {
    let cache = Cache::new();
    let store = cache.open();
    let canary = cache.dir.with_file_name("canary");
    std::fs::write(&canary, b"secret").unwrap();
    let digest = Digest::of(b"secret");
    std::os::unix::fs::symlink(&canary, cache.blob_path(&digest)).unwrap();
    assert!(
        store.open_blob(&digest).await.unwrap().is_none(),
        "a link is never followed, even to the right bytes"
    );
    store.quarantine(&digest).await.unwrap();
    assert!(!cache.blob_path(&digest).is_symlink(), "the link goes");
    assert_eq!(std::fs::read(&canary).unwrap(), b"secret", "its target stays");

    std::os::unix::fs::symlink(&canary, cache.blob_path(&digest)).unwrap();
    store.put(&digest, Bytes::from_static(b"secret")).await.unwrap();
    assert!(cache.blob_path(&digest).symlink_metadata().unwrap().is_file(), "publishing replaces a link");
    assert_eq!(std::fs::read(&canary).unwrap(), b"secret");

    let pipe = Digest::of(b"pipe");
    let made = std::process::Command::new("mkfifo").arg(cache.blob_path(&pipe)).status().unwrap();
    assert!(made.success());
    assert!(store.open_blob(&pipe).await.unwrap().is_none(), "a pipe is not waited for");
    let folder = Digest::of(b"folder");
    std::fs::create_dir(cache.blob_path(&folder)).unwrap();
    assert!(store.open_blob(&folder).await.unwrap().is_none());
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_or_write_the_cache() {
    use std::os::unix::fs::MetadataExt;
    let cache = Cache::new();
    let store = cache.open();
    store.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await.unwrap();
    let _stage = store.stage(&Digest::of(b"y"), 1).await.unwrap();
    let mut partial = store.partial(&Digest::of(b"z"), 2).await.unwrap();
    partial.write(vec![(0, Bytes::from_static(b"z"))]).await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o777;
    for folder in ["", "blobs", "blobs/sha256", "partial"] {
        assert_eq!(mode(&cache.dir.join(folder)), 0o700, "{folder}");
    }
    for folder in ["blobs", "partial"] {
        for file in crate::setting::files_below(&cache.dir.join(folder)) {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }
}

#[tokio::test]
async fn two_downloads_of_one_digest_do_not_disturb_each_other() {
    let cache = Cache::new();
    let store = cache.open();
    let digest = Digest::of(b"twice");
    let mut first = store.stage(&digest, 5).await.unwrap();
    let mut second = store.stage(&digest, 5).await.unwrap();
    first.append(Bytes::from_static(b"twice")).await.unwrap();
    second.append(Bytes::from_static(b"wrong")).await.unwrap();
    first.publish().await.unwrap();
    assert!(second.publish().await.is_err());
    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    assert!(blob.verify().await.unwrap(), "the failed one takes nothing with it");
    assert_eq!(store.usage().await.unwrap().blobs, 1);
}
