//! Hashing that takes longer than a client waits for its head, and what becomes of damage it finds.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Options, TestMirror, body};
use sampan_oci::Digest;
use sampan_store::{Disk, Operation, Verdict, Witness};
use sampan_testkit::{FakeRegistry, Image, ImageSpec};
use tokio::sync::Notify;
use tokio::time::{advance, pause, resume};

const LARGE: usize = 8_000_000;
/// Where hashing waits: reads of a published blob from here on.
const SLOW: u64 = 1024 * 1024;
/// Longer than a head waits for the hashing of a blob of the right size.
const PATIENCE: Duration = Duration::from_secs(3);

/// A disk on which hashing a published blob does not get past its first megabyte until it is told to.
#[derive(Debug, Default)]
struct SlowDisk {
    state: Mutex<State>,
    going_on: Condvar,
    waiting: Notify,
}

#[derive(Debug, Default)]
struct State {
    slow: bool,
    blobs: HashSet<u64>,
    hashed: usize,
}

impl SlowDisk {
    fn slow_down(&self) {
        self.state.lock().unwrap().slow = true;
    }

    fn go_on(&self) {
        self.state.lock().unwrap().slow = false;
        self.going_on.notify_all();
    }

    /// How many times a published blob's hashing began.
    fn hashed(&self) -> usize {
        self.state.lock().unwrap().hashed
    }
}

impl Witness for SlowDisk {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        let mut state = self.state.lock().unwrap();
        if let Operation::Open { path, handle } = operation
            && path.starts_with("blobs/")
        {
            state.blobs.insert(*handle);
        }
        if let Operation::Read { handle, offset, .. } = operation
            && state.blobs.contains(handle)
        {
            state.hashed += usize::from(*offset == 0);
            if *offset == SLOW && state.slow {
                self.waiting.notify_one();
                drop(self.going_on.wait_while(state, |state| state.slow).unwrap());
            }
        }
        Ok(Verdict::Go)
    }
}

fn blob(digest: &Digest) -> String {
    format!("/v2/library/alpine/blobs/{digest}")
}

/// A mirror that has an image of one large layer, was started anew, and has a slow disk from now on.
async fn start() -> (FakeRegistry, Image, TestMirror, Arc<SlowDisk>) {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[LARGE]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    body(mirror.get(&blob(&image.layers()[0].digest)).await).await.unwrap();
    let disk = Arc::new(SlowDisk::default());
    let options = Options { disk: Disk::watched(disk.clone()), ..Options::default() };
    let mirror = mirror.restart_with(&upstream, options).await;
    disk.slow_down();
    (upstream, image, mirror, disk)
}

/// Waits until the damaged blob is set aside, and counted.
async fn set_aside(mirror: &TestMirror, digest: &Digest) {
    let counted = async {
        while mirror.store.health().await.unwrap().damaged == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("somebody sets it aside");
    assert!(!mirror.file(digest).exists());
}

fn wrong_byte(mirror: &TestMirror, image: &Image) {
    let layer = &image.layers()[0];
    let mut wrong = layer.bytes.to_vec();
    wrong[LARGE - 1] ^= 1;
    std::fs::write(mirror.file(&layer.digest), wrong).unwrap();
}

#[tokio::test]
async fn no_head_tells_the_size_of_what_is_left_of_a_file() {
    for (range, status, from) in [
        (Some("bytes=6000000-"), 206, 6_000_000),
        (Some("bytes=-100"), 206, LARGE - 100),
        (Some("bytes=5-"), 206, 5),
        (None, 200, 0),
    ] {
        let (_upstream, image, mirror, disk) = start().await;
        let layer = &image.layers()[0];
        let file = std::fs::File::options().write(true).open(mirror.file(&layer.digest)).unwrap();
        file.set_len(LARGE as u64 / 2).unwrap();
        let path = blob(&layer.digest);
        let asking = async {
            match range {
                Some(range) => mirror.range(&path, range).await,
                None => mirror.get(&path).await,
            }
        };
        let slow = async {
            disk.waiting.notified().await;
            pause();
            advance(PATIENCE).await;
            resume();
            disk.go_on();
        };
        let (answer, ()) = tokio::join!(asking, slow);
        assert_eq!(answer.status(), status, "{range:?}");
        let got = body(answer).await;
        assert!(got.as_deref() == Some(&layer.bytes[from..]), "{range:?}: it is fetched anew meanwhile");
        let health = mirror.store.health().await.unwrap();
        assert_eq!((health.damaged, health.healed), (1, 1), "{range:?}");
        assert_eq!(mirror.head(&path).await.headers()["content-length"], LARGE.to_string().as_str());
    }
}

#[tokio::test]
async fn damage_is_acted_on_though_whoever_asked_has_left() {
    let (_upstream, image, mirror, disk) = start().await;
    wrong_byte(&mirror, &image);
    let layer = &image.layers()[0];
    let path = blob(&layer.digest);
    let slow = async {
        disk.waiting.notified().await;
        pause();
        advance(PATIENCE).await;
        resume();
    };
    let (answer, ()) = tokio::join!(mirror.range(&path, "bytes=5000000-"), slow);
    assert_eq!(answer.status(), 206, "it flows while it is hashed");
    drop(answer);
    mirror.answered(|answer| answer.status == 206).await;
    disk.go_on();
    set_aside(&mirror, &layer.digest).await;
}

#[tokio::test]
async fn many_who_ask_for_parts_of_a_damaged_blob_have_it_hashed_once() {
    let (_upstream, image, mirror, disk) = start().await;
    wrong_byte(&mirror, &image);
    let layer = &image.layers()[0];
    let path = blob(&layer.digest);
    let asking = futures_util::future::join_all((0..4).map(|_| async {
        let answer = mirror.range(&path, "bytes=7000000-").await;
        (answer.status().as_u16(), body(answer).await)
    }));
    let slow = async {
        disk.waiting.notified().await;
        // They came at the same time; all have joined when nothing is on its way any more.
        tokio::time::sleep(Duration::from_millis(300)).await;
        disk.go_on();
    };
    let (answers, ()) = tokio::join!(asking, slow);
    for (status, got) in answers {
        assert_eq!(status, 206);
        assert!(got.as_deref() == Some(&layer.bytes[7_000_000..]));
    }
    assert_eq!(disk.hashed(), 1);
}
