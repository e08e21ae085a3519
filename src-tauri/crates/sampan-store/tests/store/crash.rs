//! `kill -9` at any moment: what is there afterwards is whole, and the next start goes on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use sampan_oci::Digest;

use crate::setting::{Cache, Image, files_below, name, noise, open_at};

/// The folder the child works in, below its working directory.
const CACHE: &str = "cache";

/// Runs one of the tests here in a process of its own, and kills it when it has told of so many rounds.
fn kill_after(cache: &Cache, child: &str, rounds: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
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
}

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
        kill_after(&cache, "crash::publishes_until_it_is_killed", rounds);
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

const BLOB_BYTES: usize = 16 * 1024 * 1024;
const PIECE_BYTES: usize = 20_000;

/// A large blob, each piece of it at its offset, far from the one before.
fn scattered() -> (Digest, Vec<(u64, Bytes)>) {
    let blob = noise(77, BLOB_BYTES);
    let count = BLOB_BYTES.div_ceil(PIECE_BYTES);
    let starts = (0..count).map(|number| number * 311 % count * PIECE_BYTES);
    let pieces = starts.map(|at| (at as u64, blob.slice(at..(at + PIECE_BYTES).min(BLOB_BYTES)))).collect();
    (Digest::of(&blob), pieces)
}

#[tokio::test]
#[ignore = "the child of the test below, which kills it"]
async fn downloads_until_it_is_killed() {
    let dir = std::env::current_dir().unwrap().join(CACHE);
    let store = open_at(&dir, &Cache::new().clock).unwrap();
    let (digest, pieces) = scattered();
    let mut partial = store.partial(&digest, BLOB_BYTES as u64).await.unwrap();
    for pair in pieces.chunks(2) {
        let before = partial.held().len();
        partial.write(pair.to_vec()).await.unwrap();
        if partial.held().len() > before {
            println!("round");
        }
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_download_holds_what_its_ledger_claims_and_goes_on() {
    let cache = Cache::new();
    let (digest, pieces) = scattered();
    let (mut held, mut rest) = (0, Vec::new());
    for rounds in [1, 2, 5, 11, 60] {
        kill_after(&cache, "crash::downloads_until_it_is_killed", rounds);
        let store = cache.try_open().expect("the system released the dead process's lock");
        let claimed = store.usage().await.unwrap().partial_bytes;
        let least = held + (rounds * 2 - 1) as u64 * PIECE_BYTES as u64;
        assert!(claimed >= least, "what was told to be written is claimed: {claimed} of {least}");

        let partial = store.partial(&digest, BLOB_BYTES as u64).await.unwrap();
        assert_eq!(partial.held().len(), claimed, "and every byte that is claimed is there");
        let reader = partial.reader();
        rest.clear();
        for (at, bytes) in &pieces {
            if partial.held().covers(&(*at..at + bytes.len() as u64)) {
                assert_eq!(reader.read_at(*at, bytes.len()).await.unwrap(), bytes, "at {at}");
            } else {
                rest.push((*at, bytes.clone()));
            }
        }
        held = claimed;
    }
    let store = cache.open();
    let mut partial = store.partial(&digest, BLOB_BYTES as u64).await.unwrap();
    assert!(!rest.is_empty(), "it was killed in the middle");
    partial.write(rest).await.unwrap();
    partial.publish().await.unwrap();
    assert!(store.open_blob(&digest).await.unwrap().unwrap().verify().await.unwrap());
}
