//! Blobs that are not kept, over real sockets: what a pause or a full disk leaves to each client.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Options, TestMirror, body};
use futures_util::future::join_all;
use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, Kind};

const LARGE: usize = 6_000_000;

fn blob(digest: &Digest) -> String {
    format!("/v2/library/alpine/blobs/{digest}")
}

async fn registry() -> (FakeRegistry, Image) {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[LARGE]));
    (upstream, image)
}

/// A mirror that has the manifest, so that it knows every size.
async fn mirror(upstream: &FakeRegistry, options: Options) -> TestMirror {
    let mirror = TestMirror::with(upstream, options).await;
    body(mirror.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    upstream.forget();
    mirror
}

/// At least `count` bytes of the answer.
async fn some(answer: &mut reqwest::Response, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        bytes.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    bytes
}

#[tokio::test]
async fn a_client_that_was_sent_a_wrong_byte_from_the_middle_gets_no_complete_answer() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options { connections_max: 1, ..Options::default() }).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 500_000 });
    let layer = &image.layers()[0];
    let mut middle = mirror.range(&blob(&layer.digest), "bytes=3000000-").await;
    // What is on its way is the beginning, and right. The next question is for where the reader is.
    upstream.fails_next(1, Kind::Blob, Fault::CorruptByte(3_001_000));
    let sent = some(&mut middle, 100_000).await;
    assert!(sent != layer.bytes[3_000_000..3_000_000 + sent.len()], "the wrong byte is among them");
    mirror.mirror.set_paused(true);
    upstream.heals();
    assert!(body(middle).await.is_none(), "complete, and wrong");
}

#[tokio::test]
async fn a_client_in_the_middle_goes_on_after_a_pause_and_fetches_nothing_twice_that_it_has() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 1_000_000 });
    let layer = &image.layers()[0];
    let mut middle = mirror.range(&blob(&layer.digest), "bytes=3000000-").await;
    let mut bytes = some(&mut middle, 1_000_000).await;
    mirror.mirror.set_paused(true);
    upstream.heals();
    bytes.extend_from_slice(&body(middle).await.unwrap());
    assert!(bytes == layer.bytes[3_000_000..]);
    let twice = upstream.ranges_of(&layer.digest).iter().filter(|range| range.contains(&3_500_000)).count();
    assert_eq!(twice, 1, "{:?}", upstream.ranges_of(&layer.digest));
}

#[tokio::test]
async fn many_clients_of_a_paused_mirror_share_a_few_connections() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    mirror.mirror.set_paused(true);
    upstream.fails_on(Kind::Blob, Fault::Rate { bytes_per_second: 12_000_000 });
    let layer = &image.layers()[0];
    let path = blob(&layer.digest);
    let answers = join_all((0..40).map(|_| async { body(mirror.get(&path).await).await })).await;
    assert!(answers.into_iter().all(|bytes| bytes.unwrap() == layer.bytes));
    // One more may be idle: the manifest's.
    assert!(upstream.peak_connections() <= 17, "{} connections", upstream.peak_connections());
}

#[tokio::test]
async fn an_outage_under_a_paused_mirror_is_waited_out_as_long_as_the_person_said() {
    let (upstream, image) = registry().await;
    let layer = &image.layers()[0];
    for (outage_wait, waits) in [(Duration::from_millis(400), false), (Duration::from_mins(1), true)] {
        let mirror = mirror(&upstream, Options { outage_wait, ..Options::default() }).await;
        mirror.mirror.set_paused(true);
        upstream.fails_next(1, Kind::Blob, Fault::CutAfter(1_000_000));
        upstream.fails_next(1, Kind::Blob, Fault::Rate { bytes_per_second: 4_000_000 });
        let answer = mirror.get(&blob(&layer.digest)).await;
        upstream.fails_with(Fault::RefuseConnection);
        let began = Instant::now();
        let back = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            upstream.heals();
        };
        let ((bytes, took), ()) = tokio::join!(async { (body(answer).await, began.elapsed()) }, back);
        assert_eq!(
            bytes.is_some_and(|bytes| bytes == layer.bytes),
            waits,
            "{outage_wait:?}: {:?}",
            mirror.answers().last()
        );
        assert!(waits || took < Duration::from_secs(2), "{took:?}");
    }
}
