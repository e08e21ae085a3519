//! What was shown to a login alone, and that it stays so.

use std::fs;

use crate::setting::{Cache, Image, name, noise, tag};

#[tokio::test]
async fn a_mark_stays_until_it_is_taken_away() {
    let cache = Cache::new();
    let store = cache.open();
    let (app, other) = (name("acme/app"), name("acme/other"));
    assert!(store.private_images().await.unwrap().is_empty());
    store.mark_private(&app, true).await.unwrap();
    store.mark_private(&app, true).await.unwrap();
    store.mark_private(&other, true).await.unwrap();
    store.mark_private(&other, false).await.unwrap();
    drop(store);
    let store = cache.open();
    assert_eq!(
        store.private_images().await.unwrap(),
        [app],
        "it is on disk, and nothing has to be held for it"
    );
}

#[tokio::test]
async fn a_lost_index_brings_nothing_private_back() {
    let cache = Cache::new();
    let store = cache.open();
    let (private, public) = (Image::new("amd64", &[noise(1, 10)]), Image::new("amd64", &[noise(2, 10)]));
    store.mark_private(&name("acme/app"), true).await.unwrap();
    private.put_as(&store, &name("acme/app"), "1").await;
    store.pin(&name("acme/app"), &sampan_oci::Reference::Tag(tag("1"))).await.unwrap();
    store.pin(&name("acme/app"), &sampan_oci::Reference::Digest(private.digest())).await.unwrap();
    public.put_as(&store, &name("alpine"), "1").await;
    store.flush().await.unwrap();
    drop(store);
    let told = fs::read_to_string(cache.dir.join("index.json")).unwrap();
    assert!(told.contains("alpine") && !told.contains("acme"), "{told}");
    for file in ["sampan.db", "sampan.db.seal"] {
        fs::remove_file(cache.dir.join(file)).unwrap();
    }
    let store = cache.open();
    assert!(store.held_tag(&name("alpine"), &tag("1")).await.unwrap().is_some());
    assert_eq!(store.held_tag(&name("acme/app"), &tag("1")).await.unwrap(), None);
    assert_eq!(store.link(&name("acme/app"), &private.digest()).await.unwrap(), None);
}
