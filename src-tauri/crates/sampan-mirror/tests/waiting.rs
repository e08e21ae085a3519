//! Outages of minutes, on the virtual clock: honest until the fault is in force, then minutes pass in a moment, and what
//! comes after them happens in real time again.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::Duration;

use common::{Options, TestMirror, body};
use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, Kind};
use tokio::time::{Instant, pause, resume, sleep};

const LARGE: usize = 6_000_000;
const OUTAGE_WAIT: Duration = Duration::from_mins(10);
/// Real time, for what is on its way to arrive and for what broke to be noticed.
const SETTLE: Duration = Duration::from_millis(400);

fn blob(digest: &Digest) -> String {
    format!("/v2/library/alpine/blobs/{digest}")
}

/// A registry with an image of one large layer, and a mirror that has its manifest and waits for ten minutes.
async fn start() -> (FakeRegistry, Image, TestMirror) {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[LARGE]));
    let mirror =
        TestMirror::with(&upstream, Options { outage_wait: OUTAGE_WAIT, ..Options::default() }).await;
    body(mirror.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    upstream.forget();
    (upstream, image, mirror)
}

/// Begins a blob and lets the upstream vanish in the middle of it. Time stands still from here on.
async fn half(upstream: &FakeRegistry, mirror: &TestMirror, digest: &Digest) -> reqwest::Response {
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 6_000_000 });
    let answer = mirror.get(&blob(digest)).await;
    upstream.sent(Kind::Blob, 3_000_000).await;
    upstream.fails_with(Fault::RefuseConnection);
    sleep(SETTLE).await;
    pause();
    answer
}

#[tokio::test]
async fn nine_minutes_without_the_upstream_are_waited_out() {
    let (upstream, image, mirror) = start().await;
    let layer = &image.layers()[0];
    let answer = half(&upstream, &mirror, &layer.digest).await;
    let outage = async {
        sleep(Duration::from_mins(9)).await;
        resume();
        upstream.heals();
    };
    let (bytes, ()) = tokio::join!(body(answer), outage);
    assert_eq!(bytes.unwrap(), layer.bytes, "a slow pull, no error");
    let twice = upstream.body_bytes(Kind::Blob) - layer.size();
    assert!(twice < 300_000, "{twice} bytes came twice");
}

#[tokio::test]
async fn after_ten_minutes_it_is_given_up_and_the_next_request_goes_on() {
    let (upstream, image, mirror) = start().await;
    let layer = &image.layers()[0];
    let answer = half(&upstream, &mirror, &layer.digest).await;
    let began = Instant::now();
    assert_eq!(body(answer).await, None, "nobody waits longer than the person said");
    let waited = began.elapsed();
    assert!(waited.abs_diff(OUTAGE_WAIT) < Duration::from_secs(10), "{waited:?}");
    sleep(Duration::from_mins(1)).await;
    resume();
    upstream.heals();
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let twice = upstream.body_bytes(Kind::Blob) - layer.size();
    assert!(twice < 300_000, "{twice} bytes came twice");
}

#[tokio::test]
async fn nobody_listens_and_it_is_given_up_after_a_minute() {
    let (upstream, image, mirror) = start().await;
    let layer = &image.layers()[0];
    let answer = half(&upstream, &mirror, &layer.digest).await;
    resume();
    drop(answer);
    sleep(SETTLE).await;
    // It is there again, and has nothing to give: now each attempt is seen.
    upstream.heals();
    upstream.fails_on(Kind::Blob, Fault::Status(502));
    pause();
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(upstream.requests(Kind::Blob));
        sleep(Duration::from_secs(40)).await;
    }
    assert!(asked[0] < asked[1], "it asks again, at first: {asked:?}");
    assert_eq!(asked[2], asked[3], "and no more after a minute: {asked:?}");
    resume();
    upstream.heals();
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let twice = upstream.body_bytes(Kind::Blob) - layer.size();
    assert!(twice < 300_000, "{twice} bytes came twice");
}

#[tokio::test]
async fn a_blob_whose_answer_does_not_come_is_promised_and_waited_for_in_the_body() {
    let (upstream, image, mirror) = start().await;
    let layer = &image.layers()[0];
    upstream.fails_on(Kind::Blob, Fault::StallBeforeHeaders);
    let asking = async {
        let began = Instant::now();
        let answer = mirror.get(&blob(&layer.digest)).await;
        (answer, began.elapsed())
    };
    let stall = async {
        upstream.saw(Kind::Blob, 1).await;
        pause();
    };
    let ((answer, waited), ()) = tokio::join!(asking, stall);
    assert_eq!(answer.status(), 200);
    assert!(waited <= Duration::from_secs(20), "clients wait for headers for half a minute: {waited:?}");
    let stall = async {
        sleep(Duration::from_mins(3)).await;
        resume();
        upstream.heals();
    };
    let (bytes, ()) = tokio::join!(body(answer), stall);
    assert_eq!(bytes.unwrap(), layer.bytes);
}

#[tokio::test]
async fn an_upstream_that_asks_for_half_a_minute_of_rest_gets_it() {
    let (upstream, image, mirror) = start().await;
    let layer = &image.layers()[0];
    let answer = half(&upstream, &mirror, &layer.digest).await;
    resume();
    upstream.heals();
    upstream.forget();
    upstream.fails_on(Kind::Blob, Fault::Busy { retry_after: "30".into() });
    let rest = async {
        upstream.saw(Kind::Blob, 1).await;
        sleep(SETTLE).await;
        pause();
        let asked = upstream.log().len();
        sleep(Duration::from_secs(29)).await;
        assert_eq!(upstream.log().len(), asked, "left alone");
        resume();
        upstream.heals();
    };
    let (bytes, ()) = tokio::join!(body(answer), rest);
    assert_eq!(bytes.unwrap(), layer.bytes, "and then it goes on");
    assert!(upstream.requests(Kind::Blob) > 1);
}
