//! What a person wants kept.

use std::time::Duration;

use sampan_oci::{Digest, Millis, Reference};
use sampan_store::{Selected, Selection, Store};

use crate::setting::{Cache, Image, name, noise};

fn image(seed: u64) -> Image {
    Image::new("amd64", &[noise(seed, 30_000)])
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

async fn pinned(store: &Store) -> Vec<(String, bool)> {
    let images = store.images().await.unwrap().into_iter();
    let shown = |tag: Option<sampan_oci::Tag>| tag.map_or("-".to_owned(), |tag| tag.to_string());
    images.map(|entry| (shown(entry.tag), entry.pinned)).collect()
}

#[tokio::test]
async fn a_pinned_image_never_makes_way() {
    let cache = Cache::new();
    let store = cache.open_with_quota(100_000);
    let (old, new) = (image(1), image(2));
    old.put_as(&store, &name("old"), "latest").await;
    cache.clock.advance(1000);
    new.put_as(&store, &name("new"), "latest").await;
    assert!(store.pin(&name("old"), &reference("latest")).await.unwrap());
    assert_eq!(store.usage().await.unwrap().pinned_bytes, old.size());

    drop(store.stage(&Digest::of(b"x"), 60_000).await.unwrap());
    assert_eq!(store.images().await.unwrap()[0].image, name("old"), "though it is the older one");
    let refused = store.stage(&Digest::of(b"x"), 80_000).await;
    assert!(matches!(refused, Err(sampan_store::StoreError::Full)), "not even where nothing else is left");
    store.set_quota(Some(10));
    assert_eq!(store.make_room().await.unwrap().images, 0);
    assert_eq!(store.remove_unused(Duration::ZERO).await.unwrap().images, 0, "nor by its age");
    assert_eq!(store.images().await.unwrap()[0].size_bytes, old.size(), "it is whole");

    assert!(store.unpin(&name("old"), &reference("latest")).await.unwrap());
    assert!(!store.unpin(&name("old"), &reference("latest")).await.unwrap(), "no longer pinned");
    store.make_room().await.unwrap();
    assert_eq!(cache.du(), (0, 0), "now it is like any other");
}

#[tokio::test]
async fn a_pinned_tag_is_followed_where_it_points() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    assert!(!store.pin(&alpine, &reference("edge")).await.unwrap(), "not held yet, and pinned");
    assert!(!store.pin(&alpine, &reference("edge")).await.unwrap(), "twice is once");
    drop(store);
    let store = cache.open();
    image(1).put_as(&store, &alpine, "edge").await;
    assert_eq!(pinned(&store).await, [("edge".into(), true)]);
    image(2).put_as(&store, &alpine, "edge").await;
    assert_eq!(
        pinned(&store).await,
        [("-".into(), false), ("edge".into(), true)],
        "what it left is not kept"
    );
    cache.clock.advance(1000);
    store.set_quota(Some(50_000));
    store.make_room().await.unwrap();
    assert_eq!(pinned(&store).await, [("edge".into(), true)]);
}

#[tokio::test]
async fn a_pinned_digest_stays_where_its_tag_moves_on() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let (old, new) = (image(1), image(2));
    let digest = Reference::Digest(old.digest());
    assert!(!store.pin(&alpine, &digest).await.unwrap());
    old.put_as(&store, &alpine, "edge").await;
    assert_eq!(
        pinned(&store).await,
        [("edge".into(), false)],
        "what is not held cannot be pinned by its digest"
    );
    assert!(store.pin(&alpine, &digest).await.unwrap());
    let layer = Reference::Digest(Digest::of(&old.blobs[1]));
    assert!(!store.pin(&alpine, &layer).await.unwrap(), "nor can a layer");
    assert!(!store.pin(&name("other"), &digest).await.unwrap(), "nor another image's");
    cache.clock.advance(1000);
    new.put_as(&store, &alpine, "edge").await;
    assert_eq!(pinned(&store).await, [("-".into(), true), ("edge".into(), false)]);
    store.set_quota(Some(50_000));
    store.make_room().await.unwrap();
    assert_eq!(pinned(&store).await, [("-".into(), true)]);
}

#[tokio::test]
async fn a_pinned_platform_outlives_its_index() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let (amd64, arm64) = (image(1), Image::new("arm64", &[noise(2, 30_000)]));
    amd64.put(&store, &alpine).await;
    arm64.put(&store, &alpine).await;
    Image::index(&[("amd64", &amd64), ("arm64", &arm64)]).put_as(&store, &alpine, "3").await;
    assert!(store.pin(&alpine, &Reference::Digest(arm64.digest())).await.unwrap());
    assert_eq!(store.usage().await.unwrap().pinned_bytes, arm64.size());
    store.set_quota(Some(40_000));
    store.make_room().await.unwrap();
    let left = store.images().await.unwrap();
    assert_eq!((left.len(), left[0].digest, left[0].size_bytes), (1, arm64.digest(), arm64.size()));
    assert!(left[0].pinned && store.manifest(&alpine, &arm64.digest()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_person_who_names_a_pinned_image_means_it() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    image(1).put_as(&store, &alpine, "3").await;
    store.pin(&alpine, &reference("3")).await.unwrap();
    let selection =
        Selection::Images(vec![Selected { image: alpine.clone(), reference: Some(reference("3")) }]);
    let preview = store.plan_clear(&selection).await.unwrap();
    assert!(preview.images[0].pinned, "the preview says that it is pinned");
    assert_eq!(store.clear(&Selection::UnusedSince(Millis(i64::MAX))).await.unwrap().images, []);
    assert_eq!(store.clear(&selection).await.unwrap(), preview);
    image(1).put_as(&store, &alpine, "3").await;
    assert_eq!(pinned(&store).await, [("3".into(), false)], "it does not come back pinned");
    store.pin(&alpine, &reference("3")).await.unwrap();
    store.clear(&Selection::All).await.unwrap();
    assert_eq!(cache.du(), (0, 0), "everything is everything");
    assert!(!store.unpin(&alpine, &reference("3")).await.unwrap());
}
