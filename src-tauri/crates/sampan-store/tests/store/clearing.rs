//! Clearing: the preview is the deed, and the disk agrees.

use bytes::Bytes;
use sampan_oci::{Digest, Millis, Reference};
use sampan_store::{Cleared, Selected, Selection, Store};

use crate::setting::{Cache, Image, name, noise, tag};

fn select(image: &str, reference: Option<&str>) -> Selection {
    let reference = reference.map(|text| text.parse::<Reference>().unwrap());
    Selection::Images(vec![Selected { image: name(image), reference }])
}

/// Clears, and checks that preview, result, usage and disk say the same.
async fn clear(cache: &Cache, store: &Store, selection: &Selection) -> Cleared {
    let before = cache.du();
    let planned = store.plan_clear(selection).await.unwrap();
    assert_eq!(cache.du(), before, "a preview changes nothing");
    let cleared = store.clear(selection).await.unwrap();
    assert_eq!(cleared, planned, "the preview said so");
    let after = cache.du();
    assert_eq!(
        (before.0 - after.0, before.1 - after.1),
        (cleared.freed_bytes, cleared.blobs),
        "the disk says so"
    );
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), after, "the totals say so");
    cleared
}

#[tokio::test]
async fn shared_layers_stay_for_the_image_that_stays() {
    let cache = Cache::new();
    let store = cache.open();
    let shared = noise(1, 10_000);
    let one = Image::new("amd64", &[shared.clone(), noise(2, 300)]);
    let two = Image::new("arm64", &[shared.clone(), noise(3, 500)]);
    one.put_as(&store, &name("one"), "latest").await;
    two.put_as(&store, &name("two"), "latest").await;
    let own = store.images().await.unwrap()[0].own_bytes;

    let cleared = clear(&cache, &store, &select("one", None)).await;
    assert_eq!(cleared.freed_bytes, own, "`own_bytes` is what clearing it alone frees");
    assert_eq!(cleared.freed_bytes, one.size() - 10_000);
    assert_eq!(cleared.images.len(), 1);
    assert!(store.open_blob(&Digest::of(&shared)).await.unwrap().is_some());
    assert_eq!(
        store.link(&name("one"), &Digest::of(&shared)).await.unwrap(),
        None,
        "what is cleared is forgotten"
    );
    assert!(store.manifest(&name("two"), &two.digest()).await.unwrap().is_some(), "the other image is whole");
    assert_eq!(store.held_tag(&name("one"), &tag("latest")).await.unwrap(), None);

    let cleared = clear(&cache, &store, &select("two", None)).await;
    assert_eq!(cleared.freed_bytes, two.size());
    assert_eq!(cache.du(), (0, 0));
}

#[tokio::test]
async fn one_of_two_tags_frees_nothing_while_the_other_stays() {
    let cache = Cache::new();
    let store = cache.open();
    let image = Image::new("amd64", &[noise(1, 100)]);
    image.put_as(&store, &name("alpine"), "3").await;
    image.put_as(&store, &name("alpine"), "3.20").await;
    let cleared = clear(&cache, &store, &select("alpine", Some("3"))).await;
    assert_eq!((cleared.images.len(), cleared.blobs, cleared.freed_bytes), (1, 0, 0));
    assert_eq!(store.tags(&name("alpine")).await.unwrap(), [tag("3.20")]);
    assert!(store.manifest(&name("alpine"), &image.digest()).await.unwrap().is_some(), "still proven");
    let cleared = clear(&cache, &store, &select("alpine", Some(&image.digest().to_string()))).await;
    assert_eq!(cleared.freed_bytes, image.size(), "a digest takes every entry of that manifest");
    assert!(store.images().await.unwrap().is_empty());
}

#[tokio::test]
async fn clearing_an_index_takes_the_images_it_lists() {
    let cache = Cache::new();
    let store = cache.open();
    let (amd64, arm64) = (Image::new("amd64", &[noise(1, 100)]), Image::new("arm64", &[noise(2, 100)]));
    let index = Image::index(&[("amd64", &amd64), ("arm64", &arm64)]);
    amd64.put(&store, &name("alpine")).await;
    index.put_as(&store, &name("alpine"), "3.20").await;
    let cleared = clear(&cache, &store, &select("alpine", Some("3.20"))).await;
    assert_eq!(cleared.freed_bytes, index.size() + amd64.size(), "arm64 was never held");
    assert!(store.images().await.unwrap().is_empty(), "no untagged remains come to light");
}

#[tokio::test]
async fn what_is_in_use_by_another_image_shows_up_nowhere_else() {
    let cache = Cache::new();
    let store = cache.open();
    let image = Image::new("amd64", &[noise(1, 100)]);
    image.put_as(&store, &name("one"), "latest").await;
    image.put_as(&store, &name("two"), "latest").await;
    let cleared = clear(&cache, &store, &select("one", Some("latest"))).await;
    assert_eq!(cleared.freed_bytes, 0);
    let left = store.images().await.unwrap();
    assert_eq!(left.len(), 1, "`one` has no untagged leftover: {left:?}");
    assert_eq!(left[0].image, name("two"));
}

#[tokio::test]
async fn only_what_was_not_used_since_goes() {
    let cache = Cache::new();
    let store = cache.open();
    let (old, new) = (Image::new("amd64", &[noise(1, 100)]), Image::new("amd64", &[noise(2, 200)]));
    old.put_as(&store, &name("old"), "latest").await;
    new.put_as(&store, &name("new"), "latest").await;
    store.put(&Digest::of(b"stray"), Bytes::from_static(b"stray")).await.unwrap();
    cache.clock.advance(10_000);
    store.touch(&name("new"), &new.digest(), false).await;
    let none = clear(&cache, &store, &Selection::UnusedSince(Millis(1_000_000))).await;
    assert_eq!(none, Cleared::default(), "everything was used at that moment or later");
    let cleared = clear(&cache, &store, &Selection::UnusedSince(Millis(1_005_000))).await;
    assert_eq!(cleared.images.iter().map(|i| i.image.clone()).collect::<Vec<_>>(), [name("old")]);
    // Both configurations are the same bytes, so that one stays; the stray blob goes.
    assert_eq!(cleared.freed_bytes, old.size() - old.blobs[0].len() as u64 + 5);
    assert_eq!(store.images().await.unwrap()[0].size_bytes, new.size(), "what stays is whole");
}

#[tokio::test]
async fn strays_go_with_the_only_image_that_shows_them() {
    let cache = Cache::new();
    let store = cache.open();
    for stray in [&b"one's"[..], b"both's", b"nobody's"] {
        store.put(&Digest::of(stray), Bytes::from_static(stray)).await.unwrap();
    }
    store.add_link(&name("one"), &Digest::of(b"one's"), None).await.unwrap();
    store.add_link(&name("one"), &Digest::of(b"both's"), None).await.unwrap();
    store.add_link(&name("two"), &Digest::of(b"both's"), None).await.unwrap();
    let cleared = clear(&cache, &store, &select("one", None)).await;
    assert_eq!(cleared.freed_bytes, 5, "only what no other image shows");
    assert_eq!(clear(&cache, &store, &select("two", None)).await.freed_bytes, 6);
    assert_eq!(
        clear(&cache, &store, &Selection::All).await.freed_bytes,
        8,
        "everything includes what nobody shows"
    );
}

#[tokio::test]
async fn clearing_everything_spares_what_is_running() {
    let cache = Cache::new();
    let store = cache.open();
    let image = Image::new("amd64", &[noise(1, 100)]);
    image.put_as(&store, &name("alpine"), "latest").await;
    let reader = store.open_blob(&Digest::of(&image.blobs[1])).await.unwrap().unwrap();
    let mut stage = store.stage(&Digest::of(b"running"), 7).await.unwrap();
    stage.append(Bytes::from_static(b"run")).await.unwrap();
    let cleared = clear(&cache, &store, &Selection::All).await;
    assert_eq!(cleared.freed_bytes, image.size());
    assert_eq!(cache.du(), (0, 0));
    assert_eq!(reader.read_at(0, 100).await.unwrap(), image.blobs[1], "an open reader finishes");
    stage.append(Bytes::from_static(b"ning")).await.unwrap();
    stage.publish().await.unwrap();
    assert_eq!(store.usage().await.unwrap().size_bytes, 7, "the download went on, and counts");
}

#[tokio::test]
async fn selecting_what_is_not_there_clears_nothing() {
    let cache = Cache::new();
    let store = cache.open();
    Image::new("amd64", &[]).put_as(&store, &name("alpine"), "latest").await;
    for selection in [select("debian", None), select("alpine", Some("edge")), Selection::Images(Vec::new())] {
        assert_eq!(clear(&cache, &store, &selection).await, Cleared::default(), "{selection:?}");
    }
    assert_eq!(store.images().await.unwrap().len(), 1);
}
