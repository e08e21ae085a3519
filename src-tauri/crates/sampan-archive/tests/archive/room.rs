//! Importing into a cache with a quota.

use std::path::PathBuf;

use sampan_archive::ArchiveError;
use sampan_oci::{Digest, Reference};

use crate::support::{Archive, Cache, Parts};

const OLD: &str = "docker.io/library/old:1";
const NEW: &str = "docker.io/library/new:1";
const QUOTA: u64 = 20_000;

fn old() -> Parts {
    Parts::image("amd64", &[(1, 6000), (2, 6000)])
}

fn new() -> Parts {
    Parts::image("amd64", &[(1, 6000), (3, 9000)])
}

fn archive(cache: &Cache, parts: &Parts) -> PathBuf {
    Archive::of(&[(NEW, parts)]).tar().write(cache.folder.path())
}

fn size(parts: &Parts) -> u64 {
    parts.everything().map(|bytes| bytes.len() as u64).sum()
}

async fn cache_with_old() -> Cache {
    let cache = Cache::with(|options| options.quota = Some(QUOTA));
    cache.hold(OLD, &old()).await;
    cache
}

async fn pin_old(cache: &Cache) {
    let (image, tag) = OLD.rsplit_once(':').unwrap();
    let reference = Reference::Tag(tag.parse().unwrap());
    assert!(cache.store.pin(&image.parse().unwrap(), &reference).await.unwrap());
}

#[tokio::test]
async fn what_is_larger_than_the_quota_is_refused_before_anything_makes_way() {
    let cache = cache_with_old().await;
    let before = cache.blobs();
    let large = Parts::image("amd64", &[(1, 6000), (4, 15_000)]);
    let error = cache.import(&archive(&cache, &large)).await.unwrap_err();
    let words = error.to_string();
    let ArchiveError::QuotaTooSmall { needed_bytes, available_bytes } = error else { panic!("{words}") };
    assert_eq!((needed_bytes, available_bytes), (size(&large) - 6000, QUOTA - 6000), "one layer is there");
    assert!(words.contains(&needed_bytes.to_string()) && words.contains("raise the quota"), "{words}");
    assert_eq!((cache.blobs(), cache.names().await), (before, vec![OLD.to_owned()]));
    cache.assert_tidy();
}

#[tokio::test]
async fn what_pins_leave_too_little_for_is_refused_before_anything_is_written() {
    let cache = cache_with_old().await;
    pin_old(&cache).await;
    let before = cache.blobs();
    let error = cache.import(&archive(&cache, &new())).await.unwrap_err();
    let available = QUOTA - size(&old());
    assert!(
        matches!(error, ArchiveError::QuotaTooSmall { available_bytes, .. } if available_bytes == available),
        "{error}"
    );
    assert_eq!(cache.blobs(), before);
    // One that does fit comes in beside the pin.
    let small = Parts::image("amd64", &[(1, 6000), (5, 1000)]);
    cache.import(&archive(&cache, &small)).await.unwrap();
    assert_eq!(cache.names().await.len(), 2);
}

#[tokio::test]
async fn what_does_not_fit_beside_the_caches_own_index_is_refused_before_anything_makes_way() {
    let cache = cache_with_old().await;
    cache.store.settle_layout().await.unwrap();
    let own = cache.store.usage().await.unwrap().own_bytes;
    assert!(own > 6000, "{own}");
    // As much as the images, and as much as the index, but not both.
    cache.store.set_quota(Some(own + 6000 + 1000));
    let before = cache.blobs();
    let error = cache.import(&archive(&cache, &new())).await.unwrap_err();
    assert!(matches!(error, ArchiveError::QuotaTooSmall { available_bytes: 1000, .. }), "{error}");
    assert_eq!((cache.blobs(), cache.names().await), (before, vec![OLD.to_owned()]));
}

#[tokio::test]
async fn what_the_floor_leaves_no_room_for_is_refused_before_anything_is_written() {
    let cache = Cache::with(|options| options.free_space_floor_bytes = 1 << 60);
    let error = cache.import(&archive(&cache, &new())).await.unwrap_err();
    let needed = size(&new());
    assert!(
        matches!(error, ArchiveError::Full { needed_bytes: Some(bytes), .. } if bytes == needed),
        "{error}"
    );
}

#[tokio::test]
async fn images_that_are_not_pinned_make_way_also_where_they_share_a_layer() {
    let cache = cache_with_old().await;
    let mut told = Vec::new();
    let tell = |progress: &sampan_archive::Progress| told.push((progress.done_bytes, progress.total_bytes));
    let options = sampan_archive::ImportOptions::default();
    let report = sampan_archive::import(&cache.store, &archive(&cache, &new()), options, tell).await.unwrap();
    assert_eq!(cache.names().await, [NEW], "the old one made way");
    assert!(
        cache.blobs().contains_key(&Digest::of(&new().blobs[1]).to_string()),
        "the shared layer came again"
    );
    assert_eq!(cache.blobs().len(), new().everything().count());
    assert_eq!((report.new_bytes, report.held_blobs), (size(&new()), 0));
    assert!(told.iter().all(|(done, total)| done <= total), "{told:?}");
    assert_eq!(told.last(), Some(&(size(&new()), size(&new()))));
    let usage = cache.store.usage().await.unwrap();
    assert!(usage.size_bytes <= QUOTA, "{}", usage.size_bytes);
}

#[tokio::test]
async fn what_is_there_already_needs_no_room() {
    let cache = cache_with_old().await;
    cache.store.set_quota(Some(10));
    let report = cache.import(&Archive::of(&[(OLD, &old())]).tar().write(cache.folder.path())).await.unwrap();
    assert_eq!((report.new_bytes, report.images.len()), (0, 1));
}
