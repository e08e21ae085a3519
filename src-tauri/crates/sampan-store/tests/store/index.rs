//! What the index remembers: tags, proofs, manifests, referrers.

use bytes::Bytes;
use sampan_oci::{Digest, MediaType, Millis};
use sampan_store::{HeldTag, Link, Selection, StoreError};

use crate::setting::{Cache, Image, name, noise, tag};

#[tokio::test]
async fn a_tag_moves_and_is_confirmed() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let (old, new) = (Image::new("amd64", &[noise(1, 10)]), Image::new("amd64", &[noise(2, 10)]));
    assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap(), None);
    old.put_as(&store, &alpine, "edge").await;
    let held = HeldTag { digest: old.digest(), checked: Millis(1_000_000), frozen: false };
    assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap(), Some(held));

    cache.clock.advance(5_000);
    store.touch_tag(&alpine, &tag("edge")).await;
    let confirmed = HeldTag { checked: Millis(1_005_000), ..held };
    assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap(), Some(confirmed));
    store.touch_tag(&alpine, &tag("never-seen")).await;
    assert_eq!(store.held_tag(&alpine, &tag("never-seen")).await.unwrap(), None, "confirming is not setting");

    new.put_as(&store, &alpine, "edge").await;
    assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap().unwrap().digest, new.digest());
    drop(store);
    let store = cache.open();
    assert_eq!(
        store.held_tag(&alpine, &tag("edge")).await.unwrap().unwrap().digest,
        new.digest(),
        "it is on disk"
    );
}

#[tokio::test]
async fn a_tag_whose_manifest_is_gone_is_not_held() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let image = Image::new("amd64", &[]);
    image.put_as(&store, &alpine, "b").await;
    image.put_as(&store, &alpine, "a").await;
    image.put_as(&store, &name("other"), "z").await;
    assert_eq!(store.tags(&alpine).await.unwrap(), [tag("a"), tag("b")], "in order, and of this image alone");
    store.quarantine(&image.digest()).await.unwrap();
    assert_eq!(store.held_tag(&alpine, &tag("a")).await.unwrap(), None);
    assert!(store.tags(&alpine).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_manifest_is_given_only_to_the_images_that_show_it() {
    let cache = Cache::new();
    let store = cache.open();
    let image = Image::new("amd64", &[noise(1, 10)]);
    image.put(&store, &name("private")).await;
    let found = store.manifest(&name("private"), &image.digest()).await.unwrap();
    assert_eq!(found, Some((image.bytes.clone(), MediaType::OciManifest)), "the very bytes");
    assert_eq!(
        store.manifest(&name("public"), &image.digest()).await.unwrap(),
        None,
        "being held is no proof (R84)"
    );
    store.add_link(&name("public"), &image.digest(), None).await.unwrap();
    assert!(store.manifest(&name("public"), &image.digest()).await.unwrap().is_some());
    let layer = Digest::of(&image.blobs[1]);
    assert_eq!(store.manifest(&name("private"), &layer).await.unwrap(), None, "a layer is no manifest");
}

#[tokio::test]
async fn a_damaged_manifest_is_not_given_and_goes() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, image) = (name("alpine"), Image::new("amd64", &[]));
    image.put_as(&store, &alpine, "latest").await;
    cache.flip_a_bit(&image.digest());
    assert_eq!(store.manifest(&alpine, &image.digest()).await.unwrap(), None);
    assert!(!cache.blob_path(&image.digest()).exists());
    assert!(
        store.link(&alpine, &image.digest()).await.unwrap().is_some(),
        "that alpine shows it is still true"
    );
    image.put(&store, &alpine).await;
    assert!(store.manifest(&alpine, &image.digest()).await.unwrap().is_some(), "healed by a refetch");
}

#[tokio::test]
async fn a_manifest_with_other_bytes_than_its_digest_leaves_nothing() {
    let cache = Cache::new();
    let store = cache.open();
    let (image, other) = (Image::new("amd64", &[]), Image::new("arm64", &[]));
    let error = store.put_manifest(&name("alpine"), &image.manifest, other.bytes.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }));
    assert_eq!(cache.du(), (0, 0));
    assert_eq!(store.link(&name("alpine"), &image.digest()).await.unwrap(), None, "nor a row");
    assert!(store.images().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_manifest_proves_everything_it_lists() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, image) = (name("alpine"), Image::new("amd64", &[noise(1, 77)]));
    store.put_manifest(&alpine, &image.manifest, image.bytes.clone()).await.unwrap();
    let layer = Digest::of(&image.blobs[1]);
    assert_eq!(store.link(&alpine, &layer).await.unwrap(), Some(Link { size: Some(77) }), "held or not");
    assert_eq!(store.link(&name("other"), &layer).await.unwrap(), None, "nobody else's");
    store.add_link(&alpine, &layer, None).await.unwrap();
    assert_eq!(
        store.link(&alpine, &layer).await.unwrap(),
        Some(Link { size: Some(77) }),
        "a size stays known"
    );
    let stray = Digest::of(b"stray");
    store.add_link(&alpine, &stray, None).await.unwrap();
    assert_eq!(store.link(&alpine, &stray).await.unwrap(), Some(Link { size: None }));
}

#[tokio::test]
async fn tags_and_proofs_of_two_registries_never_mix() {
    let cache = Cache::new();
    let store = cache.open();
    let hub = "docker.io/owner/app".parse().unwrap();
    let github = "ghcr.io/owner/app".parse().unwrap();
    let (one, two) = (Image::new("amd64", &[noise(1, 9)]), Image::new("amd64", &[noise(2, 9)]));
    one.put_as(&store, &hub, "v1").await;
    two.put_as(&store, &github, "v1").await;
    assert_eq!(store.held_tag(&hub, &tag("v1")).await.unwrap().unwrap().digest, one.digest());
    assert_eq!(store.held_tag(&github, &tag("v1")).await.unwrap().unwrap().digest, two.digest());
    assert_eq!(store.link(&hub, &two.digest()).await.unwrap(), None);
}

#[tokio::test]
async fn referrers_are_kept_as_they_came() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, subject) = (name("alpine"), Digest::of(b"subject"));
    assert_eq!(store.referrers(&alpine, &subject).await.unwrap(), None);
    store.put_referrers(&alpine, &subject, Bytes::from_static(b"{1}")).await.unwrap();
    store.put_referrers(&alpine, &subject, Bytes::from_static(b"{2}")).await.unwrap();
    assert_eq!(store.referrers(&alpine, &subject).await.unwrap().as_deref(), Some(&b"{2}"[..]));
    assert_eq!(store.referrers(&name("other"), &subject).await.unwrap(), None);
}

#[tokio::test]
async fn what_the_index_cannot_record_is_not_left_on_disk() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, image) = (name("alpine"), Image::new("amd64", &[]));
    let other = rusqlite::Connection::open(cache.dir.join("sampan.db")).unwrap();
    other.execute_batch("DROP TABLE link").unwrap();
    let error = store.put_manifest(&alpine, &image.manifest, image.bytes.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Index(_)), "{error:?}");
    assert_eq!((cache.du(), cache.partials()), ((0, 0), 0), "the rename is undone");
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), (0, 0), "and not counted");
}

#[tokio::test]
async fn many_tasks_at_once_lose_nothing() {
    let cache = Cache::new();
    let store = cache.open();
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..24_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            let image = Image::new("amd64", &[noise(seed % 6, 5000), noise(100 + seed, 50)]);
            let alpine = name(&format!("image{}", seed % 3));
            image.put_as(&store, &alpine, &format!("v{seed}")).await;
            store.touch(&alpine, &image.digest(), false).await;
            store.images().await.unwrap();
            assert!(
                store.manifest(&alpine, &image.digest()).await.unwrap().is_some(),
                "what was put is there"
            );
        });
    }
    tasks.join_all().await;
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du());
    assert_eq!(store.images().await.unwrap().len(), 24);
}

#[tokio::test]
async fn what_is_answered_from_memory_ends_with_the_change_that_makes_it_wrong() {
    let cache = Cache::new();
    let (store, alpine) = (cache.open(), name("alpine"));
    let (image, newer) = (Image::new("amd64", &[noise(1, 10)]), Image::new("amd64", &[noise(2, 10)]));
    newer.put(&store, &alpine).await;
    image.put_as(&store, &alpine, "edge").await;
    for _ in 0..2 {
        assert!(store.manifest(&alpine, &image.digest()).await.unwrap().is_some());
        assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap().unwrap().digest, image.digest());
        assert!(store.link(&alpine, &image.digest()).await.unwrap().is_some());
    }
    store.set_tag(&alpine, &tag("edge"), &newer.digest()).await.unwrap();
    assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap().unwrap().digest, newer.digest());
    assert!(store.manifest(&alpine, &newer.digest()).await.unwrap().is_some());
    store.quarantine(&newer.digest()).await.unwrap();
    assert_eq!(store.manifest(&alpine, &newer.digest()).await.unwrap(), None, "damaged is not served");
    assert_eq!(store.held_tag(&alpine, &tag("edge")).await.unwrap(), None);
    assert!(store.manifest(&alpine, &image.digest()).await.unwrap().is_some());
    store.clear(&Selection::All).await.unwrap();
    assert_eq!(store.manifest(&alpine, &image.digest()).await.unwrap(), None, "cleared is not served");
    assert_eq!(store.link(&alpine, &image.digest()).await.unwrap(), None);
}
