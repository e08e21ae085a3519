//! Whose word a name is: an archive's, a person's, the upstream's.

use sampan_oci::{Digest, ImageName, Tag};
use sampan_store::ImageEntry;

use crate::support::{Archive, Cache, Parts};

const NAME: &str = "docker.io/library/alpine:3.20";

fn known() -> Parts {
    Parts::image("amd64", &[(1, 5000)])
}

fn other() -> Parts {
    Parts::image("amd64", &[(2, 600)])
}

fn image() -> ImageName {
    "docker.io/library/alpine".parse().unwrap()
}

fn tag() -> Tag {
    "3.20".parse().unwrap()
}

/// What the cache answers of an image: whether by its tag, its digest, its layer, and the tag in the list of tags.
async fn answered(cache: &Cache, parts: &Parts) -> [bool; 4] {
    let store = &cache.store;
    let by_tag = store.held_tag(&image(), &tag()).await.unwrap();
    [
        by_tag.is_some_and(|held| held.digest == parts.digest()),
        store.manifest(&image(), &parts.digest()).await.unwrap().is_some(),
        store.link(&image(), &Digest::of(&parts.blobs[1])).await.unwrap().is_some(),
        store.tags(&image()).await.unwrap() == [tag()],
    ]
}

async fn entry(cache: &Cache, parts: &Parts) -> ImageEntry {
    let mut entries = cache.store.images().await.unwrap();
    entries.retain(|entry| entry.digest == parts.digest());
    entries.remove(0)
}

async fn import(cache: &Cache, parts: &Parts) -> sampan_archive::Imported {
    let folder = tempfile::tempdir().unwrap();
    cache.import(&Archive::of(&[(NAME, parts)]).tar().write(folder.path())).await.unwrap()
}

async fn trust(cache: &Cache, parts: &Parts) -> sampan_archive::Imported {
    let folder = tempfile::tempdir().unwrap();
    cache.trust(&Archive::of(&[(NAME, parts)]).tar().write(folder.path())).await.unwrap()
}

#[tokio::test]
async fn an_archives_word_is_listed_and_not_answered() {
    let cache = Cache::new();
    let report = import(&cache, &known()).await;
    assert_eq!((report.images[0].tag_elsewhere, report.images[0].remark()), (None, None));
    let listed = entry(&cache, &known()).await;
    assert!(listed.unconfirmed);
    assert_eq!((listed.tag, listed.fetched_bytes), (Some(tag()), 0));
    assert_eq!(answered(&cache, &known()).await, [false; 4]);
}

#[tokio::test]
async fn what_the_upstream_says_makes_an_import_answered_piece_by_piece() {
    let cache = Cache::new();
    import(&cache, &known()).await;
    cache.store.add_link(&image(), &Digest::of(&known().blobs[1]), Some(5000)).await.unwrap();
    assert_eq!(answered(&cache, &known()).await, [false, false, true, false], "the layer alone");
    let manifest = sampan_oci::Manifest::parse(&known().root, None, None).unwrap();
    cache.store.put_manifest(&image(), &manifest, known().root).await.unwrap();
    assert_eq!(answered(&cache, &known()).await, [false, true, true, false], "its digest proves no tag");
    cache.store.set_tag(&image(), &tag(), &known().digest()).await.unwrap();
    assert_eq!(answered(&cache, &known()).await, [true; 4]);
    assert!(!entry(&cache, &known()).await.unconfirmed);
}

#[tokio::test]
async fn a_persons_word_counts_like_the_upstreams() {
    let cache = Cache::new();
    let report = trust(&cache, &known()).await;
    assert_eq!(report.images[0].tag_elsewhere, None);
    assert_eq!(answered(&cache, &known()).await, [true; 4]);
    assert!(!entry(&cache, &known()).await.unconfirmed);
    let report = trust(&cache, &other()).await;
    assert_eq!(report.images[0].tag_elsewhere, None, "also where it moves a tag");
    assert_eq!(answered(&cache, &other()).await, [true; 4]);
}

#[tokio::test]
async fn a_tag_that_points_elsewhere_stays_there_and_the_person_is_told() {
    let cache = Cache::new();
    cache.hold(NAME, &known()).await;
    let report = import(&cache, &other()).await;
    assert_eq!(report.images[0].tag_elsewhere, Some(known().digest()));
    let remark = report.images[0].remark().unwrap();
    assert!(remark.contains("its tag still points elsewhere"), "{remark}");
    assert!(remark.contains(&known().digest().to_string()), "{remark}");
    assert_eq!(report.images[0].name(), NAME, "as the person knows it from the archive");
    let listed = entry(&cache, &other()).await;
    assert_eq!((listed.tag, listed.unconfirmed), (None, true));
    assert_eq!(answered(&cache, &known()).await, [true; 4]);
    assert_eq!(answered(&cache, &other()).await, [false, false, false, true], "the tag is the known one's");
}

#[tokio::test]
async fn an_import_never_weakens_what_is_proven() {
    let cache = Cache::new();
    cache.hold(NAME, &known()).await;
    let before = entry(&cache, &known()).await;
    let report = import(&cache, &known()).await;
    assert_eq!((report.new_blobs, report.images[0].tag_elsewhere), (0, None));
    assert_eq!(answered(&cache, &known()).await, [true; 4]);
    let after = entry(&cache, &known()).await;
    assert_eq!((after.unconfirmed, after.fetched_bytes), (false, before.fetched_bytes));
    // Nor by an index that lists the proven image among others.
    import(&cache, &Parts::index(&[("amd64", &known()), ("arm64", &other())])).await;
    assert_eq!(answered(&cache, &known()).await, [true; 4]);
    // Nor, once both were imported by a person's word, by the same archive without it.
    trust(&cache, &other()).await;
    import(&cache, &other()).await;
    assert_eq!(answered(&cache, &other()).await, [true; 4]);
}
