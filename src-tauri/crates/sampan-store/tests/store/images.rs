//! What is held, as a person sees it.

use sampan_oci::{Digest, Millis, Reference};

use crate::setting::{Cache, Image, name, noise, tag};

#[tokio::test]
async fn sizes_count_what_is_held_each_blob_once() {
    let cache = Cache::new();
    let store = cache.open();
    let shared = noise(1, 10_000);
    let (one, two) = (
        Image::new("amd64", &[shared.clone(), noise(2, 300)]),
        Image::new("arm64", &[shared.clone(), shared]),
    );
    one.put_as(&store, &name("one"), "latest").await;
    two.put_as(&store, &name("two"), "latest").await;
    let images = store.images().await.unwrap();
    let shown: Vec<_> = images.iter().map(|i| (i.image.to_string(), i.size_bytes, i.own_bytes)).collect();
    let two_size = two.size() - 10_000;
    assert_eq!(
        shown,
        [
            ("docker.io/library/one".into(), one.size(), one.size() - 10_000),
            ("docker.io/library/two".into(), two_size, two_size - 10_000),
        ],
        "a layer listed twice is on disk once, and a shared one belongs to nobody alone"
    );
    assert_eq!(images[0].platforms[0].to_string(), "linux/amd64", "read from the configuration");

    store.quarantine(&Digest::of(&one.blobs[2])).await.unwrap();
    assert_eq!(store.images().await.unwrap()[0].size_bytes, one.size() - 300, "only what is really there");
}

#[tokio::test]
async fn an_index_shows_the_platforms_that_are_held() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let (amd64, arm64) = (Image::new("amd64", &[noise(1, 50)]), Image::new("arm64", &[noise(2, 50)]));
    let attestation = Image::new("unknown", &[noise(3, 50)]);
    let index = Image::index(&[("amd64", &amd64), ("arm64", &arm64), ("unknown", &attestation)]);
    index.put_as(&store, &alpine, "3.20").await;
    let platforms = async || -> Vec<String> {
        let images = store.images().await.unwrap();
        assert_eq!(images.len(), 1, "a listed manifest is part of its index, not an entry");
        images[0].platforms.iter().map(ToString::to_string).collect()
    };
    assert!(platforms().await.is_empty(), "the index alone holds none");
    amd64.put(&store, &alpine).await;
    attestation.put(&store, &alpine).await;
    assert_eq!(platforms().await, ["linux/amd64"], "arm64 is not held, and an attestation is no platform");
    arm64.put(&store, &alpine).await;
    assert_eq!(platforms().await, ["linux/amd64", "linux/arm64"]);
    let whole = [&index, &amd64, &arm64, &attestation].iter().map(|image| image.size()).sum::<u64>();
    let images = store.images().await.unwrap();
    assert_eq!(
        (images[0].size_bytes, images[0].own_bytes),
        (whole, whole),
        "through the index to every layer"
    );
}

#[tokio::test]
async fn a_manifest_without_a_tag_is_an_entry_of_its_own() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let (old, new) = (Image::new("amd64", &[noise(1, 50)]), Image::new("amd64", &[noise(2, 50)]));
    old.put_as(&store, &alpine, "latest").await;
    new.put_as(&store, &alpine, "latest").await;
    let entries: Vec<_> = store.images().await.unwrap().into_iter().map(|i| (i.tag, i.digest)).collect();
    assert_eq!(entries, [(None, old.digest()), (Some(tag("latest")), new.digest())], "the tag moved on");
    Image::index(&[("amd64", &old)]).put(&store, &alpine).await;
    let untagged = store.images().await.unwrap().into_iter().filter(|i| i.tag.is_none()).count();
    assert_eq!(untagged, 1, "the untagged index now stands for the manifest it lists");
}

#[tokio::test]
async fn last_use_follows_what_clients_fetch() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let amd64 = Image::new("amd64", &[noise(1, 50)]);
    let index = Image::index(&[("amd64", &amd64)]);
    amd64.put(&store, &alpine).await;
    index.put_as(&store, &alpine, "latest").await;
    let times = async || {
        let image = store.images().await.unwrap().remove(0);
        (image.created, image.last_used)
    };
    assert_eq!(times().await, (Millis(1_000_000), Millis(1_000_000)));
    cache.clock.advance(500);
    store.touch(&alpine, &amd64.digest(), false).await;
    assert_eq!(
        times().await,
        (Millis(1_000_000), Millis(1_000_500)),
        "a client that skips the index still uses it"
    );
    cache.clock.advance(500);
    store.touch(&name("stranger"), &amd64.digest(), true).await;
    store.touch(&alpine, &Digest::of(b"unknown"), true).await;
    assert_eq!(
        times().await.1,
        Millis(1_000_500),
        "a use of another image, or of nothing known, is none of this one"
    );
    cache.clock.advance(500);
    store.touch(&alpine, &index.digest(), true).await;
    store.flush().await.unwrap();
    drop(store);
    assert_eq!(
        cache.open().images().await.unwrap()[0].last_used,
        Millis(1_001_500),
        "flushed uses are on disk"
    );
}

#[tokio::test]
async fn an_image_is_told_blob_by_blob_with_what_it_shares() {
    let cache = Cache::new();
    let store = cache.open();
    let (shared, missing) = (noise(1, 700), noise(2, 90));
    let one = Image::new("amd64", &[shared.clone(), missing.clone()]);
    store.put_manifest(&name("one"), &one.manifest, one.bytes.clone()).await.unwrap();
    for blob in [&one.blobs[0], &shared] {
        store.put(&Digest::of(blob), blob.clone()).await.unwrap();
    }
    store.set_tag(&name("one"), &tag("a"), &one.digest()).await.unwrap();
    Image::new("arm64", std::slice::from_ref(&shared)).put_as(&store, &name("two"), "b").await;
    let parts = store.image_blobs(&name("one"), &Reference::Tag(tag("a"))).await.unwrap();
    let told: Vec<_> = parts.iter().map(|part| (part.digest, part.size, part.held, part.shared)).collect();
    let configuration = &one.blobs[0];
    assert_eq!(
        told,
        [
            (one.digest(), one.bytes.len() as u64, true, 1),
            (Digest::of(configuration), configuration.len() as u64, true, 1),
            (Digest::of(&shared), 700, true, 2),
            (Digest::of(&missing), 90, false, 1),
        ],
        "the manifest, then what it lists, in its order"
    );
    assert!(parts[2].checked.is_some() && parts[3].checked.is_none());
    assert_eq!(store.image_blobs(&name("one"), &Reference::Tag(tag("z"))).await.unwrap(), []);
}
