//! One operation of the disk fails in the middle of a pull: each answer is right or broken off, and the next pull is right
//! (SECURITY.md R63, R64).
#![cfg(target_os = "linux")]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::io;
use std::sync::{Arc, Mutex};

use common::{Options, TestMirror, body};
use rustix::io::Errno;
use sampan_oci::Digest;
use sampan_store::{Disk, Operation, Verdict, Witness};
use sampan_testkit::{FakeRegistry, Image, ImageSpec};

/// A disk whose nth operation from now on fails, once.
#[derive(Debug, Default)]
struct FailNth(Mutex<Armed>);

#[derive(Debug, Default)]
struct Armed {
    seen: u64,
    failing: Option<(u64, i32)>,
    failed: Option<String>,
}

impl FailNth {
    fn arm(&self, nth: u64, error: Errno) {
        *self.0.lock().unwrap() = Armed { failing: Some((nth, error.raw_os_error())), ..Armed::default() };
    }

    /// Fails nothing more. What failed, if anything did.
    fn disarm(&self) -> Option<String> {
        std::mem::take(&mut *self.0.lock().unwrap()).failed
    }
}

impl Witness for FailNth {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        let mut armed = self.0.lock().unwrap();
        armed.seen += 1;
        if let Some((nth, error)) = armed.failing
            && nth == armed.seen
        {
            armed.failed = Some(format!("{operation:?}").chars().take(60).collect());
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Verdict::Go)
    }
}

/// Asks for one thing. `None`: it was refused or broken off.
async fn got(mirror: &TestMirror, path: &str) -> Option<Vec<u8>> {
    let answer = mirror.client.get(format!("{}{path}", mirror.url)).send().await.ok()?;
    if answer.status() == 200 { body(answer).await } else { None }
}

/// A whole pull: how many of its answers were right. None is wrong.
async fn pull(mirror: &TestMirror, repository: &str, image: &Image, what: &str) -> usize {
    let mut right = 0;
    let manifest = got(mirror, &format!("/v2/{repository}/manifests/1")).await;
    if let Some(bytes) = manifest {
        assert_eq!(Digest::of(&bytes), image.digest, "{what}: the manifest");
        right += 1;
    }
    for layer in image.layers() {
        if let Some(bytes) = got(mirror, &format!("/v2/{repository}/blobs/{}", layer.digest)).await {
            assert!(bytes == layer.bytes, "{what}: wrong bytes were completed");
            right += 1;
        }
    }
    right
}

/// Fails each operation of a pull that is a miss, and of one that is a hit, or only every so many. Returns how many of these
/// pulls were whole all the same, and how many there were.
async fn fails(error: Errno, layers: &[usize], step: usize) -> (usize, usize) {
    let upstream = FakeRegistry::start().await;
    let disk = Arc::new(FailNth::default());
    let options = Options { disk: Disk::watched(disk.clone()), ..Options::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    let (mut whole, mut pulls) = (0, 0);
    for nth in (1..).step_by(step) {
        let repository = format!("library/image{nth}");
        let image = upstream.publish_image(&format!("{repository}:1"), &ImageSpec::new(nth, layers));
        let all = 1 + image.layers().len();
        let mut came = false;
        for turn in ["a miss", "a hit"] {
            let what = format!("{error:?}, operation {nth} of {turn}");
            disk.arm(nth, error);
            let right = pull(&mirror, &repository, &image, &what).await;
            let failed = disk.disarm();
            whole += usize::from(failed.is_some() && right == all);
            pulls += usize::from(failed.is_some());
            came |= failed.is_some();
            let next = pull(&mirror, &repository, &image, &what).await;
            assert_eq!(next, all, "{what} ({failed:?}): the next pull is whole");
        }
        for digest in image.layers().iter().map(|layer| layer.digest) {
            let kept = std::fs::read(mirror.file(&digest));
            assert!(kept.is_ok_and(|bytes| digest.names(&bytes)), "{error:?}, {nth}: it is kept, and right");
        }
        if !came {
            assert!(nth > 30, "a pull is more than {nth} operations");
            return (whole, pulls);
        }
    }
    (whole, pulls)
}

/// Small blobs wait whole for their digest; of large ones all but the end is let out.
async fn small_and_large(error: Errno) -> (usize, usize) {
    let (small, large) = (fails(error, &[3000, 200_000], 1).await, fails(error, &[3000, 4_400_000], 4).await);
    (small.0 + large.0, small.1 + large.1)
}

#[tokio::test]
async fn a_full_disk_at_any_operation_of_a_pull_spoils_no_answer() {
    let (whole, pulls) = small_and_large(Errno::NOSPC).await;
    assert!(whole * 2 > pulls, "nobody sees most of them: {whole} of {pulls}");
}

#[tokio::test]
async fn an_input_output_error_at_any_operation_of_a_pull_spoils_no_answer() {
    let (whole, pulls) = small_and_large(Errno::IO).await;
    assert!(whole < pulls, "some are broken off: {whole} of {pulls}");
}
