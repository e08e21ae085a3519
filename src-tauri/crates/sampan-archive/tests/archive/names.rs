//! The names that other programs write.

use serde_json::json;

use crate::support::{Archive, Cache, Parts, index_json};

#[tokio::test]
async fn the_full_name_goes_before_the_short_one() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    let parts = Parts::image("amd64", &[(1, 10)]);
    let mut archive = Archive::of(&[("x", &parts)]);
    let mut entry = parts.entry("latest");
    // As Docker 25 and containerd write it.
    entry["annotations"]["io.containerd.image.name"] = json!("docker.io/someone/app:latest");
    archive.set("index.json", index_json(&[entry]));
    cache.import(&archive.tar().write(folder.path())).await.unwrap();
    assert_eq!(cache.names().await, ["docker.io/someone/app:latest"]);
}

#[tokio::test]
async fn one_image_with_two_names_comes_in_under_both() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    let parts = Parts::image("amd64", &[(1, 10)]);
    let archive = Archive::of(&[("alpine:3", &parts), ("alpine:3.20", &parts), ("alpine:3", &parts)]);
    let report = cache.import(&archive.tar().write(folder.path())).await.unwrap();
    assert_eq!(cache.names().await, ["docker.io/library/alpine:3", "docker.io/library/alpine:3.20"]);
    assert_eq!((report.images.len(), report.skipped.len()), (2, 0), "what is listed twice is one");
}
