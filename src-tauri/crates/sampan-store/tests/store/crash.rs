//! `kill -9` at any moment: what is there afterwards is whole, and the next start goes on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use sampan_oci::Digest;

use crate::setting::{Cache, Image, files_below, name, noise, open_at};

/// The folder the child works in, below its working directory.
const CACHE: &str = "cache";

#[tokio::test]
#[ignore = "the child of the test below, which kills it"]
async fn publishes_until_it_is_killed() {
    let dir = std::env::current_dir().unwrap().join(CACHE);
    let store = open_at(&dir, &Cache::new().clock).unwrap();
    for round in 0..100_000 {
        let layer = noise(round, 150_000);
        let image = Image::new("amd64", std::slice::from_ref(&layer));
        image.put_as(&store, &name("alpine"), &format!("v{}", round % 7)).await;
        let mut cut = store.stage(&Digest::of(b"never whole"), 1000).await.unwrap();
        cut.append(Bytes::from_static(b"half")).await.unwrap();
        println!("round");
    }
}

#[tokio::test]
async fn a_killed_store_is_whole_and_free_at_once() {
    let cache = Cache::new();
    for rounds in [1, 2, 5, 11, 23] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::publishes_until_it_is_killed", "--ignored", "--nocapture"])
            .current_dir(cache.dir.parent().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let seen = lines.filter(|line| line.contains("round")).take(rounds).count();
        assert_eq!(seen, rounds, "the child works until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();

        let store = cache.try_open().expect("the system released the dead process's lock");
        assert_eq!(cache.partials(), 0, "what was cut short is swept");
        let usage = store.usage().await.unwrap();
        assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "every file counts, once");
        for path in files_below(&cache.dir.join("blobs")) {
            let digest: Digest =
                format!("sha256:{}", path.file_name().unwrap().to_str().unwrap()).parse().unwrap();
            assert!(digest.names(&std::fs::read(&path).unwrap()), "{digest} is whole");
        }
        for image in store.images().await.unwrap() {
            let manifest = store.manifest(&image.image, &image.digest).await.unwrap();
            assert!(manifest.is_some(), "what is listed can be given");
        }
    }
}
