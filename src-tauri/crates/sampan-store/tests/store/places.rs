//! What stands in a blob's place and is none.

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::Selection;

use crate::setting::Cache;

#[tokio::test]
async fn a_folder_in_a_blobs_place_makes_way_and_nothing_in_it_is_lost() {
    let cache = Cache::new();
    let store = cache.open();
    let digest = Digest::of(b"wanted");
    for round in 1..=2 {
        std::fs::create_dir(cache.blob_path(&digest)).unwrap();
        std::fs::write(cache.blob_path(&digest).join("thesis.txt"), b"years of work").unwrap();
        assert!(store.open_blob(&digest).await.unwrap().is_none(), "it is not held");
        store.put(&digest, Bytes::from_static(b"wanted")).await.expect("and can be fetched again");
        assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap());
        let thesis = cache.dir.join(format!("quarantine/foreign-{round}/thesis.txt"));
        assert_eq!(std::fs::read(thesis).unwrap(), b"years of work");
        assert_eq!(store.usage().await.unwrap().size_bytes, 6);
        store.quarantine(&digest).await.unwrap();
    }
    store.clear(&Selection::All).await.unwrap();
    drop(store);
    drop(cache.open());
    assert!(cache.dir.join("quarantine/foreign-2/thesis.txt").exists(), "it is not ours to remove");
}
