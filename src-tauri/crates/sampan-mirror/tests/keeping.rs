//! What is kept, while it is read: damage of every kind is found and mended, and making way cuts nobody off.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::fs;

use common::{TestMirror, body};
use futures_util::future::join_all;
use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, ImageSpec};

fn manifest(name: &str) -> String {
    format!("/v2/library/{name}/manifests/1")
}

fn blob(name: &str, digest: &Digest) -> String {
    format!("/v2/library/{name}/blobs/{digest}")
}

/// One kind of damage, done to the file of a blob. Some keep the time of the last change, as a rotting disk does.
fn damage(kind: usize, path: &std::path::Path, canary: &std::path::Path) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    match kind % 7 {
        0 => bytes[middle] ^= 1,
        1 => bytes.truncate(middle),
        2 => bytes.push(0),
        3 => bytes[middle..].fill(0xa5),
        4 => bytes.reverse(),
        5 => {
            fs::remove_file(path).unwrap();
            return std::os::unix::fs::symlink(canary, path).unwrap();
        }
        _ => {
            fs::remove_file(path).unwrap();
            return fs::create_dir(path).unwrap();
        }
    }
    fs::write(path, bytes).unwrap();
    if kind.is_multiple_of(2) {
        fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_thousand_damaged_blobs_are_all_found_none_is_served_and_all_are_mended() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    // Small and large: the large ones are hashed on their way out.
    let images: Vec<_> = (0..40)
        .map(|number: u8| {
            let name = format!("image{number}");
            let sizes: Vec<usize> =
                (0..25).map(|layer| if layer == 24 { 4_300_000 } else { 500 + 97 * layer }).collect();
            let spec = ImageSpec::new(u64::from(number), &sizes);
            (name.clone(), upstream.publish_image(&format!("library/{name}:1"), &spec))
        })
        .collect();
    for (name, image) in &images {
        body(mirror.get(&manifest(name)).await).await.unwrap();
        for layer in image.layers() {
            body(mirror.get(&blob(name, &layer.digest)).await).await.unwrap();
        }
    }
    let canary = mirror.dir.path().join("canary");
    fs::write(&canary, b"mine").unwrap();
    let mirror = mirror.restart(&upstream).await;
    let mut damaged = 0;
    for (name, image) in &images {
        for layer in image.layers() {
            damage(damaged, &mirror.file(&layer.digest), &canary);
            damaged += 1;
            let (path, right) = (blob(name, &layer.digest), &layer.bytes[..]);
            let first = body(mirror.get(&path).await).await;
            assert!(
                first.is_none_or(|bytes| bytes == right),
                "kind {}: wrong bytes were completed",
                damaged - 1
            );
            let second = body(mirror.get(&path).await).await;
            assert_eq!(second.as_deref(), Some(right), "kind {}: it is fetched anew", damaged - 1);
        }
    }
    assert_eq!(damaged, 1000);
    let health = mirror.store.health().await.unwrap();
    assert_eq!(
        (health.damaged, health.healed, health.waiting),
        (1000, 1000, 0),
        "each is counted, and made good"
    );
    assert_eq!(fs::read(&canary).unwrap(), b"mine");
}

#[tokio::test]
async fn under_a_quota_of_one_image_32_clients_get_right_bytes_and_no_error() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    let images: Vec<_> = (0..6_u8)
        .map(|number| {
            let name = format!("image{number}");
            let spec = ImageSpec::new(u64::from(number) + 50, &[900_000, 300_000]);
            (name.clone(), upstream.publish_image(&format!("library/{name}:1"), &spec))
        })
        .collect();
    let quota = 1_500_000;
    mirror.store.set_quota(Some(quota));
    let clients = (0..32_usize).map(|client| {
        let (mirror, images) = (&mirror, &images);
        async move {
            for turn in 0..12 {
                let (name, image) = &images[(client * 7 + turn * 5) % images.len()];
                body(mirror.get(&manifest(name)).await).await.unwrap();
                for layer in image.layers() {
                    let got = body(mirror.get(&blob(name, &layer.digest)).await).await;
                    assert_eq!(got.as_deref(), Some(&layer.bytes[..]), "client {client}, turn {turn}");
                }
                let usage = mirror.store.usage().await.unwrap();
                assert!(usage.size_bytes + usage.partial_bytes <= quota, "{usage:?}");
            }
        }
    });
    join_all(clients).await;
    let failed = mirror.answers().into_iter().filter(|answer| answer.status >= 400).count();
    assert_eq!(failed, 0);
}
