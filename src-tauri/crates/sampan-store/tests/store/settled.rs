//! What is written so that a lost index, or a power cut that takes its last changes, costs little.

use rustix::io::Errno;
use sampan_store::Operation;

use crate::faults::{FailNth, Times};
use crate::nth::copy;
use crate::setting::{Cache, Image, name, noise, tag};

fn is_sync_of_the_cache_folder(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::SyncFolder { path: "" })
}

fn image() -> Image {
    Image::new("amd64", &[noise(1, 300)])
}

#[tokio::test]
async fn what_was_settled_outlives_the_log_of_the_index() {
    let cache = Cache::new();
    image().put_as(&cache.open(), &name("alpine"), "2").await;
    let store = cache.open();
    store.set_tag(&name("alpine"), &tag("3"), &image().digest()).await.unwrap();
    store.settle_layout().await.unwrap();
    let after = Cache::new();
    copy(&cache.dir, &after.dir);
    // A power cut takes what SQLite has not synced. What is left is no blank index, which would be made anew.
    std::fs::remove_file(after.dir.join("sampan.db-wal")).unwrap();
    let tags: Vec<_> =
        after.open().images().await.unwrap().into_iter().filter_map(|entry| entry.tag).collect();
    assert_eq!(tags, [tag("2"), tag("3")]);
}

#[tokio::test]
async fn a_seal_of_which_nobody_knows_whether_it_stands_goes_before_the_next_change() {
    let cache = Cache::new();
    let failing = FailNth::new(is_sync_of_the_cache_folder);
    let store = cache.try_open_on(failing.disk()).unwrap();
    image().put_as(&store, &name("alpine"), "3").await;
    // The first is that of index.json, the second that of the seal, which has its name by then.
    failing.arm(2, Errno::IO, Times::Once);
    store.flush().await.unwrap();
    assert!(failing.disarm());
    assert!(cache.dir.join("sampan.db.seal").exists());
    store.set_tag(&name("alpine"), &tag("later"), &image().digest()).await.unwrap();
    drop(store);
    assert_eq!(
        cache.open().images().await.unwrap().len(),
        2,
        "the seal of an older index is none of the newer"
    );
    assert!(!cache.dir.join("sampan.db.damaged").exists());
}

#[tokio::test]
async fn nothing_changes_while_a_power_cut_may_bring_the_seal_back() {
    let cache = Cache::new();
    let failing = FailNth::new(is_sync_of_the_cache_folder);
    let store = cache.try_open_on(failing.disk()).unwrap();
    let (alpine, image) = (name("alpine"), image());
    image.put_as(&store, &alpine, "3").await;
    store.flush().await.unwrap();
    failing.arm(1, Errno::IO, Times::ForEver);
    for _ in 0..2 {
        assert!(store.set_tag(&alpine, &tag("later"), &image.digest()).await.is_err());
    }
    failing.disarm();
    store.set_tag(&alpine, &tag("later"), &image.digest()).await.unwrap();
}

#[tokio::test]
async fn a_manifest_whose_removal_a_power_cut_undid_is_served_again() {
    let cache = Cache::new();
    let store = cache.open();
    let (alpine, image) = (name("alpine"), image());
    image.put_as(&store, &alpine, "3").await;
    store.quarantine(&image.digest()).await.unwrap();
    drop(store);
    let kept = cache.dir.join("quarantine").join(format!("sha256-{}.1", image.digest().hex()));
    std::fs::rename(kept, cache.blob_path(&image.digest())).unwrap();
    let store = cache.open();
    assert_eq!(store.images().await.unwrap()[0].size_bytes, image.size(), "with all that it lists");
    assert!(store.manifest(&alpine, &image.digest()).await.unwrap().is_some());
}
