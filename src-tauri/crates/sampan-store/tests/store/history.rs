//! What is told of an image's past: where its tag pointed, how often it was served, and indexes of older versions.

use sampan_oci::{Digest, Millis};
use sampan_store::TagDigest;

use crate::setting::{Cache, Image, name, noise, tag};

fn image(seed: u64) -> Image {
    Image::new("amd64", &[noise(seed, 300)])
}

#[tokio::test]
async fn a_tag_tells_where_it_pointed_the_newest_first() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let (old, new) = (image(1), image(2));
    old.put_as(&store, &alpine, "edge").await;
    cache.clock.advance(1000);
    new.put_as(&store, &alpine, "edge").await;
    store.quarantine(&old.digest()).await.unwrap();
    let entry = store.images().await.unwrap().pop().unwrap();
    let past = |image: &Image, at, held| TagDigest { digest: image.digest(), first_seen: Millis(at), held };
    assert_eq!(entry.history, [past(&new, 1_001_000, true), past(&old, 1_000_000, false)]);

    for seed in 10..40 {
        cache.clock.advance(1);
        store.set_tag(&alpine, &tag("edge"), &Digest::of(&noise(seed, 8))).await.unwrap();
    }
    store.set_tag(&alpine, &tag("edge"), &new.digest()).await.unwrap();
    let entry = store.images().await.unwrap().pop().unwrap();
    assert_eq!(entry.history.len(), 20, "no more than a person reads");
    assert_eq!(entry.history[0].digest, Digest::of(&noise(39, 8)));
}

#[tokio::test]
async fn only_what_is_served_from_the_cache_is_a_hit() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, one) = (name("alpine"), image(1));
    one.put_as(&store, &alpine, "3").await;
    for served in [true, true, false, true] {
        store.touch(&alpine, &one.digest(), served).await;
    }
    store.touch(&alpine, &Digest::of(&one.blobs[1]), true).await;
    assert_eq!(store.images().await.unwrap()[0].hits, 3, "a layer is no manifest");
    store.touch(&alpine, &one.digest(), true).await;
    store.flush().await.unwrap();
    drop(store);
    let entry = cache.open().images().await.unwrap().remove(0);
    assert_eq!(entry.hits, 4, "they add up, and are on disk");
    assert_eq!(entry.fetched_bytes, one.size());
}

/// The tables as version 1 made them.
const VERSION_1: &str = "
    CREATE TABLE image (
        id INTEGER PRIMARY KEY, registry TEXT NOT NULL, repository TEXT NOT NULL, UNIQUE (registry, repository)
    ) STRICT;
    CREATE TABLE blob (
        digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL CHECK (size >= 0), created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE manifest (
        digest TEXT NOT NULL PRIMARY KEY, media_type TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE descriptor (
        manifest TEXT NOT NULL, place INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        configuration INTEGER NOT NULL, architecture TEXT, os TEXT, variant TEXT,
        PRIMARY KEY (manifest, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE link (
        image INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER, created INTEGER NOT NULL,
        last_used INTEGER NOT NULL, PRIMARY KEY (image, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tag (
        image INTEGER NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, checked INTEGER NOT NULL,
        PRIMARY KEY (image, tag)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tag_history (
        image INTEGER NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL, first_seen INTEGER NOT NULL,
        PRIMARY KEY (image, tag, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE referrers (
        image INTEGER NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (image, subject)
    ) STRICT, WITHOUT ROWID;
";

#[tokio::test]
async fn an_index_of_version_1_opens_and_keeps_its_rows() {
    let cache = Cache::new();
    let (alpine, one) = (name("alpine"), image(1));
    one.put_as(&cache.open(), &alpine, "3").await;
    // The same rows, in the tables of version 1.
    let path = cache.dir.join("sampan.db");
    let new = cache.dir.join("new.db");
    std::fs::rename(&path, &new).unwrap();
    for companion in ["sampan.db-wal", "sampan.db-shm"] {
        let _ = std::fs::remove_file(cache.dir.join(companion));
    }
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(VERSION_1).unwrap();
    old.execute("ATTACH ?1 AS new", [new.to_str().unwrap()]).unwrap();
    old.execute_batch(
        "INSERT INTO image SELECT * FROM new.image; INSERT INTO manifest SELECT * FROM new.manifest;
         INSERT INTO descriptor SELECT * FROM new.descriptor;
         INSERT INTO tag_history SELECT * FROM new.tag_history;
         INSERT INTO blob SELECT digest, size, created FROM new.blob;
         INSERT INTO link SELECT image, digest, size, created, last_used FROM new.link;
         INSERT INTO tag SELECT image, tag, digest, checked FROM new.tag;
         DETACH new; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    std::fs::remove_file(new).unwrap();

    let store = cache.open();
    assert!(!cache.dir.join("sampan.db.damaged").exists(), "an old index is no damaged one");
    assert_eq!(store.held_tag(&alpine, &tag("3")).await.unwrap().unwrap().digest, one.digest());
    assert!(store.manifest(&alpine, &one.digest()).await.unwrap().is_some());
    let entry = store.images().await.unwrap().remove(0);
    assert_eq!((entry.size_bytes, entry.fetched_bytes, entry.hits), (one.size(), one.size(), 0));
    assert!(!entry.unconfirmed && !entry.pinned);
    assert_eq!(entry.history.len(), 1);
    image(2).put_as(&store, &alpine, "4").await;
    assert_eq!(store.images().await.unwrap().len(), 2, "and it goes on");
}
