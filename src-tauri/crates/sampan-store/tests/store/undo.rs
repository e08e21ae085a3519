//! Clearing with a way back.

use sampan_oci::{Digest, Reference};
use sampan_store::{Selected, Selection, Store, Undo};

use crate::setting::{Cache, Image, name, noise, tag};

fn image(seed: u64) -> Image {
    Image::new("amd64", &[noise(seed, 3000)])
}

fn select(image: &str, reference: Option<&str>) -> Selection {
    let reference = reference.map(|text| text.parse::<Reference>().unwrap());
    Selection::Images(vec![Selected { image: name(image), reference }])
}

async fn hide(store: &Store, what: &str) -> Undo {
    store.clear_later(&select(what, Some("latest"))).await.unwrap().1.unwrap()
}

#[tokio::test]
async fn a_cleared_image_can_be_brought_back_for_10_seconds() {
    let cache = Cache::new();
    let store = cache.open();
    let one = image(1);
    one.put_as(&store, &name("one"), "latest").await;
    let planned = store.plan_clear(&select("one", Some("latest"))).await.unwrap();
    let (cleared, undo) = store.clear_later(&select("one", Some("latest"))).await.unwrap();
    assert_eq!(cleared, planned, "what will be freed");
    assert_eq!((cleared.freed_bytes, cleared.refetch_bytes), (one.size(), one.size()));
    assert!(store.images().await.unwrap().is_empty(), "gone from the list");
    assert!(store.held_tag(&name("one"), &tag("latest")).await.unwrap().is_some(), "still served");
    assert_eq!(store.usage().await.unwrap().size_bytes, one.size(), "still on disk, and counted");
    cache.clock.advance(9_999);
    store.settle_clears().await.unwrap();
    assert!(store.undo_clear(&undo.unwrap()));
    assert_eq!(store.images().await.unwrap().len(), 1, "back as if nothing had happened");
    assert!(!store.undo_clear(&undo.unwrap()), "once");
    cache.clock.advance(10_000);
    store.settle_clears().await.unwrap();
    assert_eq!(store.images().await.unwrap().len(), 1, "what was brought back stays");
}

#[tokio::test]
async fn after_10_seconds_it_is_gone() {
    let cache = Cache::new();
    let store = cache.open();
    image(1).put_as(&store, &name("one"), "latest").await;
    let undo = hide(&store, "one").await;
    cache.clock.advance(10_000);
    store.settle_clears().await.unwrap();
    assert_eq!(cache.du(), (0, 0));
    assert!(!store.undo_clear(&undo), "too late");
    assert!(!store.undo_clear(&Undo::of_number(77)), "never given");
}

#[tokio::test]
async fn a_whole_image_goes_whole_and_others_at_once() {
    let cache = Cache::new();
    let store = cache.open();
    let one = image(1);
    one.put_as(&store, &name("one"), "latest").await;
    store.put(&Digest::of(b"stray"), bytes::Bytes::from_static(b"stray")).await.unwrap();
    store.add_link(&name("one"), &Digest::of(b"stray"), None).await.unwrap();
    let (cleared, undo) = store.clear_later(&select("one", None)).await.unwrap();
    assert_eq!(cleared.freed_bytes, one.size() + 5, "with all that only it shows");
    assert!(undo.is_some());
    cache.clock.advance(10_000);
    store.settle_clears().await.unwrap();
    assert_eq!(cache.du(), (0, 0));

    one.put_as(&store, &name("one"), "latest").await;
    one.put_as(&store, &name("one"), "edge").await;
    let (cleared, undo) = store.clear_later(&select("one", None)).await.unwrap();
    assert_eq!((cleared.images.len(), undo), (2, None), "two entries are no single one");
    assert_eq!(cache.du(), (0, 0), "and go at once");
    one.put_as(&store, &name("one"), "latest").await;
    assert_eq!(store.clear_later(&Selection::All).await.unwrap().1, None);
    assert_eq!(cache.du(), (0, 0));
    assert_eq!(store.clear_later(&select("nothing", None)).await.unwrap(), Default::default());
}

#[tokio::test]
async fn what_is_used_meanwhile_stays() {
    let cache = Cache::new();
    let store = cache.open();
    let one = image(1);
    one.put_as(&store, &name("one"), "latest").await;
    hide(&store, "one").await;
    cache.clock.advance(1);
    store.touch(&name("one"), &one.digest(), true).await;
    cache.clock.advance(10_000);
    store.settle_clears().await.unwrap();
    assert_eq!(store.images().await.unwrap().len(), 1, "whoever pulled it wants it, and sees it again");
    assert_eq!(cache.du().0, one.size());
}

#[tokio::test]
async fn what_is_used_under_a_clock_set_back_or_pinned_meanwhile_stays() {
    let cache = Cache::new();
    let store = cache.open();
    let (one, two) = (image(1), image(2));
    one.put_as(&store, &name("one"), "latest").await;
    two.put_as(&store, &name("two"), "latest").await;
    hide(&store, "one").await;
    hide(&store, "two").await;
    cache.clock.advance(-500_000);
    store.settle_clears().await.unwrap();
    store.touch(&name("one"), &one.digest(), true).await;
    assert!(store.pin(&name("two"), &"latest".parse().unwrap()).await.unwrap());
    cache.clock.advance(510_000);
    store.settle_clears().await.unwrap();
    assert_eq!(store.images().await.unwrap().len(), 2, "wanted by whoever did that");
}

#[tokio::test]
async fn what_is_hidden_is_not_told_blob_by_blob() {
    let cache = Cache::new();
    let store = cache.open();
    for what in ["one", "two"] {
        image(1).put_as(&store, &name(what), "latest").await;
    }
    let latest: Reference = "latest".parse().unwrap();
    let undo = hide(&store, "one").await;
    assert!(store.image_blobs(&name("one"), &latest).await.unwrap().is_empty());
    assert_eq!(store.image_blobs(&name("two"), &latest).await.unwrap()[0].shared, 1, "as the list says");
    store.undo_clear(&undo);
    assert_eq!(store.image_blobs(&name("two"), &latest).await.unwrap()[0].shared, 2);
}

#[tokio::test]
async fn of_seventeen_the_oldest_goes_at_once() {
    let cache = Cache::new();
    let store = cache.open();
    let mut undos = Vec::new();
    for seed in 0..17 {
        let what = format!("i{seed}");
        image(seed).put_as(&store, &name(&what), "latest").await;
        undos.push(hide(&store, &what).await);
    }
    assert!(!store.undo_clear(&undos[0]), "the first is gone");
    assert_eq!(store.held_tag(&name("i0"), &tag("latest")).await.unwrap(), None);
    for undo in &undos[1..] {
        assert!(store.undo_clear(undo));
    }
    assert_eq!(store.images().await.unwrap().len(), 16);
}

#[tokio::test]
async fn clearing_and_making_room_in_between_are_the_end_of_it() {
    let cache = Cache::new();
    let store = cache.open();
    for what in ["one", "two"] {
        image(1).put_as(&store, &name(what), "latest").await;
    }
    let one = hide(&store, "one").await;
    store.clear(&select("one", None)).await.unwrap();
    assert!(!store.undo_clear(&one), "cleared for good");
    let two = hide(&store, "two").await;
    store.set_quota(Some(10));
    store.make_room().await.unwrap();
    assert!(!store.undo_clear(&two), "made way");
    assert_eq!(cache.du(), (0, 0));
    cache.clock.advance(10_000);
    store.settle_clears().await.expect("nothing is left to do");
}

#[tokio::test]
async fn the_end_settles_what_waits_and_a_crash_brings_it_back() {
    let cache = Cache::new();
    let store = cache.open();
    image(1).put_as(&store, &name("one"), "latest").await;
    hide(&store, "one").await;
    drop(store);
    let store = cache.open();
    assert_eq!(store.images().await.unwrap().len(), 1, "nothing was lost");
    hide(&store, "one").await;
    store.flush().await.unwrap();
    assert_eq!(cache.du(), (0, 0), "what a person cleared is gone at the end");
}
