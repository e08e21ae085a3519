//! Tags that a person holds fast, and tags that their upstream has let go of.

use std::time::Duration;

use sampan_oci::{Digest, Millis};

use crate::setting::{Cache, Image, name, noise, tag};

fn image(seed: u64) -> Image {
    Image::new("amd64", &[noise(seed, 300)])
}

#[tokio::test]
async fn a_frozen_tag_stays_whatever_is_told_of_it() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, edge) = (name("alpine"), tag("edge"));
    let (old, new) = (image(1), image(2));
    old.put_as(&store, &alpine, "edge").await;
    cache.clock.advance(1000);
    new.put_as(&store, &alpine, "edge").await;
    assert!(store.freeze(&alpine, &edge, &old.digest()).await.unwrap(), "an earlier one may be chosen");
    let held = store.held_tag(&alpine, &edge).await.unwrap().unwrap();
    assert_eq!((held.digest, held.frozen), (old.digest(), true));
    assert_eq!(held.checked, Millis(0), "its upstream never said so");

    store.set_tag(&alpine, &edge, &new.digest()).await.unwrap();
    store.tag_is_gone(&alpine, &edge, &old.digest()).await.unwrap();
    drop(store);
    let store = cache.open();
    assert_eq!(store.held_tag(&alpine, &edge).await.unwrap().unwrap().digest, old.digest());
    let entries = store.images().await.unwrap();
    let entry = entries.iter().find(|entry| entry.tag.is_some()).unwrap();
    assert_eq!((entry.digest, entry.frozen, entry.gone), (old.digest(), true, None));
    assert_eq!(entry.history.len(), 2, "where it was is still known");

    assert!(store.unfreeze(&alpine, &edge).await.unwrap());
    assert!(!store.unfreeze(&alpine, &edge).await.unwrap(), "no longer frozen");
    store.set_tag(&alpine, &edge, &new.digest()).await.unwrap();
    let held = store.held_tag(&alpine, &edge).await.unwrap().unwrap();
    assert_eq!((held.digest, held.frozen), (new.digest(), false));
}

#[tokio::test]
async fn only_what_is_held_and_proven_can_be_frozen() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    one.put_as(&store, &alpine, "3").await;
    let elsewhere = Digest::of(b"elsewhere");
    assert!(!store.freeze(&alpine, &tag("3"), &elsewhere).await.unwrap());
    assert!(!store.freeze(&name("other"), &tag("3"), &one.digest()).await.unwrap(), "another image's");
    assert!(!store.held_tag(&alpine, &tag("3")).await.unwrap().unwrap().frozen);
    assert_eq!(store.images().await.unwrap().len(), 1, "nothing came of it");
}

#[tokio::test]
async fn what_is_frozen_never_makes_way_and_goes_when_a_person_clears_it() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    one.put_as(&store, &alpine, "3").await;
    assert!(store.freeze(&alpine, &tag("3"), &one.digest()).await.unwrap());
    store.set_quota(Some(10));
    assert_eq!(store.make_room().await.unwrap().images, 0);
    assert_eq!(store.remove_unused(Duration::ZERO).await.unwrap().images, 0, "nor by its age");

    store.quarantine(&one.digest()).await.unwrap();
    let held = store.held_tag(&alpine, &tag("3")).await.unwrap().unwrap();
    assert_eq!(held.digest, one.digest(), "damaged or not, it means this one");
}

#[tokio::test]
async fn a_tag_that_is_gone_is_kept_and_not_answered_until_it_is_back() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, edge, one) = (name("alpine"), tag("edge"), image(1));
    one.put_as(&store, &alpine, "edge").await;
    store.tag_is_gone(&alpine, &edge, &Digest::of(b"another")).await.unwrap();
    assert!(store.held_tag(&alpine, &edge).await.unwrap().is_some(), "it moved meanwhile");
    cache.clock.advance(5);
    store.tag_is_gone(&alpine, &edge, &one.digest()).await.unwrap();
    assert_eq!(store.held_tag(&alpine, &edge).await.unwrap(), None);
    assert_eq!(store.tags(&alpine).await.unwrap(), []);
    let entry = store.images().await.unwrap().remove(0);
    assert_eq!(
        (entry.gone, entry.history.len()),
        (Some(Millis(1_000_005)), 1),
        "it is listed, with its past"
    );
    assert!(store.manifest(&alpine, &one.digest()).await.unwrap().is_some(), "by its digest it is served");

    store.set_tag(&alpine, &edge, &one.digest()).await.unwrap();
    assert!(store.held_tag(&alpine, &edge).await.unwrap().is_some());
    assert_eq!(store.images().await.unwrap()[0].gone, None);
}

#[tokio::test]
async fn a_lost_index_still_knows_what_is_frozen() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    one.put_as(&store, &alpine, "3").await;
    assert!(store.freeze(&alpine, &tag("3"), &one.digest()).await.unwrap());
    store.flush().await.unwrap();
    drop(store);
    std::fs::remove_file(cache.dir.join("sampan.db")).unwrap();
    let store = cache.open();
    assert!(store.held_tag(&alpine, &tag("3")).await.unwrap().unwrap().frozen);
}
