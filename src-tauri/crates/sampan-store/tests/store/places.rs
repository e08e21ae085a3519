//! What stands in a blob's place and is none.

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::Selection;

use crate::setting::{Cache, files_below};

/// How many of them the quarantine has, unharmed.
fn theses(cache: &Cache) -> usize {
    let files = files_below(&cache.dir.join("quarantine"));
    let theses = files.iter().filter(|path| path.ends_with("thesis.txt"));
    theses.filter(|path| std::fs::read(path).unwrap() == b"years of work").count()
}

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
        assert_eq!(theses(&cache), round, "with all that is in it");
        assert_eq!(store.usage().await.unwrap().size_bytes, 6);
        store.quarantine(&digest).await.unwrap();
    }
    store.clear(&Selection::All).await.unwrap();
    drop(store);
    drop(cache.open());
    assert_eq!(theses(&cache), 2, "it is not ours to remove");
}
