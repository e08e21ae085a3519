//! What an import brings, and what it must not change.

use bytes::Bytes;
use sampan_oci::{Digest, ImageName};
use sampan_store::{ImportedImage, ImportedTag, Store};

use crate::setting::{Cache, Image, name, noise, tag};

fn image(seed: u64) -> Image {
    Image::new("amd64", &[noise(seed, 3000)])
}

/// Publishes all of the image's bytes, as an import does.
async fn bring(store: &Store, image: &Image) {
    for bytes in image.blobs.iter().chain([&image.bytes]) {
        let mut stage = store.stage(&Digest::of(bytes), bytes.len() as u64).await.unwrap();
        stage.append(bytes.clone()).await.unwrap();
        stage.publish_imported().await.unwrap();
    }
}

fn imported(what: &ImageName, label: Option<&str>, image: &Image, trusted: bool) -> ImportedImage {
    ImportedImage {
        image: what.clone(),
        tag: label.map(tag),
        digest: image.digest(),
        manifests: vec![(image.manifest.clone(), image.bytes.len() as u64)],
        trusted,
    }
}

#[tokio::test]
async fn an_import_is_listed_and_proves_nothing() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    bring(&store, &one).await;
    let tagged = store.import_image(imported(&alpine, Some("3"), &one, false)).await.unwrap();
    assert_eq!(tagged, ImportedTag::Points);
    let entry = store.images().await.unwrap().remove(0);
    assert_eq!((entry.tag, entry.digest, entry.size_bytes), (Some(tag("3")), one.digest(), one.size()));
    assert!(entry.unconfirmed);
    assert_eq!(entry.fetched_bytes, 0, "nothing of it came over the link");
    assert_eq!(entry.platforms.len(), 1);
    assert_eq!(store.held_tag(&alpine, &tag("3")).await.unwrap(), None, "its upstream was not heard");
    assert!(store.tags(&alpine).await.unwrap().is_empty());
    assert_eq!(store.manifest(&alpine, &one.digest()).await.unwrap(), None);
    assert_eq!(store.link(&alpine, &Digest::of(&one.blobs[1])).await.unwrap(), None, "no proof (R84)");
    drop(store);
    assert!(cache.open().images().await.unwrap()[0].unconfirmed, "it is on disk");
}

#[tokio::test]
async fn what_its_upstream_says_makes_an_import_as_good_as_fetched() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    bring(&store, &one).await;
    store.import_image(imported(&alpine, Some("3"), &one, false)).await.unwrap();
    store.put_manifest(&alpine, &one.manifest, one.bytes.clone()).await.unwrap();
    store.set_tag(&alpine, &tag("3"), &one.digest()).await.unwrap();
    assert!(store.held_tag(&alpine, &tag("3")).await.unwrap().is_some());
    assert!(store.manifest(&alpine, &one.digest()).await.unwrap().is_some());
    assert_eq!(store.link(&alpine, &Digest::of(&one.blobs[1])).await.unwrap().unwrap().size, Some(3000));
    let entry = store.images().await.unwrap().remove(0);
    assert!(!entry.unconfirmed);
    assert_eq!(entry.fetched_bytes, one.bytes.len() as u64, "only the manifest was fetched");
    let cleared = store.clear(&sampan_store::Selection::All).await.unwrap();
    assert_eq!((cleared.freed_bytes, cleared.refetch_bytes), (one.size(), one.bytes.len() as u64));
}

#[tokio::test]
async fn a_tag_that_was_only_imported_is_confirmed_by_its_upstream_and_by_nothing_less() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    bring(&store, &one).await;
    store.import_image(imported(&alpine, Some("3"), &one, false)).await.unwrap();
    store.touch_tag(&alpine, &tag("3")).await;
    store.images().await.unwrap();
    assert_eq!(store.tags(&alpine).await.unwrap(), [], "what nobody was told cannot be confirmed again");
    store.set_tag(&alpine, &tag("3"), &one.digest()).await.unwrap();
    assert_eq!(store.tags(&alpine).await.unwrap(), [tag("3")]);
    let layer = Digest::of(&one.blobs[1]);
    store.add_link(&alpine, &layer, None).await.unwrap();
    assert_eq!(
        store.link(&alpine, &layer).await.unwrap().unwrap().size,
        None,
        "a size by hearsay proves nothing"
    );
}

#[tokio::test]
async fn an_import_without_trust_changes_nothing_that_is_known() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, known, other) = (name("alpine"), image(1), image(2));
    known.put_as(&store, &alpine, "3").await;
    bring(&store, &known).await;
    bring(&store, &other).await;
    let again = store.import_image(imported(&alpine, Some("3"), &known, false)).await.unwrap();
    assert_eq!(again, ImportedTag::Points);
    assert!(!store.images().await.unwrap()[0].unconfirmed, "what is confirmed stays so");
    let kept = store.import_image(imported(&alpine, Some("3"), &other, false)).await.unwrap();
    assert_eq!(kept, ImportedTag::Kept { digest: known.digest() }, "the upstream's word counts more");
    assert_eq!(store.held_tag(&alpine, &tag("3")).await.unwrap().unwrap().digest, known.digest());
    assert!(store.link(&alpine, &Digest::of(&known.blobs[1])).await.unwrap().is_some(), "still proven");
    let entries = store.images().await.unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries[0].unconfirmed && entries[0].tag.is_none(), "the import is held without the tag");
    assert_eq!(entries[1].fetched_bytes, known.size(), "what was fetched is not imported by coming again");
    assert_eq!(entries[1].history.len(), 1, "the tag never pointed there");
}

#[tokio::test]
async fn an_import_that_a_person_vouches_for_counts_like_the_upstream() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, known, other) = (name("alpine"), image(1), image(2));
    known.put_as(&store, &alpine, "3").await;
    bring(&store, &other).await;
    let tagged = store.import_image(imported(&alpine, Some("3"), &other, true)).await.unwrap();
    assert_eq!(tagged, ImportedTag::Points);
    assert_eq!(store.held_tag(&alpine, &tag("3")).await.unwrap().unwrap().digest, other.digest());
    assert!(store.manifest(&alpine, &other.digest()).await.unwrap().is_some());
    let untagged = store.import_image(imported(&name("new"), None, &other, true)).await.unwrap();
    assert_eq!(untagged, ImportedTag::Untagged);
}

#[tokio::test]
async fn a_failed_import_leaves_no_row() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    bring(&store, &one).await;
    let other = rusqlite::Connection::open(cache.dir.join("sampan.db")).unwrap();
    other.execute_batch("DROP TABLE tag_history").unwrap();
    store.import_image(imported(&alpine, Some("3"), &one, true)).await.unwrap_err();
    assert_eq!(store.link(&alpine, &one.digest()).await.unwrap(), None, "whole or not at all");
    drop(store);
    store_opens_again(&cache, &one.bytes).await;
}

async fn store_opens_again(cache: &Cache, manifest: &Bytes) {
    let store = cache.open();
    assert!(store.open_blob(&Digest::of(manifest)).await.unwrap().is_some());
}
