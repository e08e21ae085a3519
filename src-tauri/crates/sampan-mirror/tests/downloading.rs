//! The download engine over real sockets: many connections, broken ones, lying upstreams, outages, limits, restarts.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Options, TestMirror, asked, body};
use sampan_oci::{Bypass, Digest, Outcome};
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, Kind};

const LARGE: usize = 6_000_000;

fn blob(digest: &Digest) -> String {
    format!("/v2/library/alpine/blobs/{digest}")
}

/// A registry with an image of one large layer.
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

#[tokio::test]
async fn where_each_connection_is_slow_many_are_used() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::Rate { bytes_per_second: 250_000 });
    let layer = &image.layers()[0];
    let began = Instant::now();
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "one connection would have taken 24 s, and it took {took:?}");
    assert!(upstream.peak_connections() > 4, "{} connections", upstream.peak_connections());
    assert_eq!(asked(&upstream, &layer.digest, layer.size()), Some(1), "no byte was asked for twice");
    let (most, ..) = mirror.going();
    assert!((5..=32).contains(&most), "and it was told: {most}");
}

#[tokio::test]
async fn no_more_connections_than_the_person_allows() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options { connections_max: 2, ..Options::default() }).await;
    upstream.fails_on(Kind::Blob, Fault::Rate { bytes_per_second: 2_000_000 });
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    assert!(mirror.going().0 <= 2, "{:?}", mirror.going());
}

#[tokio::test]
async fn a_reader_in_the_middle_does_not_wait_for_the_beginning() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 1_000_000 });
    let layer = &image.layers()[0];
    let first = mirror.get(&blob(&layer.digest)).await;
    let mut middle = mirror.range(&blob(&layer.digest), "bytes=5000000-5899999").await;
    assert_eq!(middle.status(), 206);
    let began = Instant::now();
    let mut bytes = Vec::new();
    while bytes.len() < 200_000 {
        bytes.extend_from_slice(&middle.chunk().await.unwrap().unwrap());
    }
    assert!(began.elapsed() < Duration::from_secs(4), "all before it takes 5 s: {:?}", began.elapsed());
    assert_eq!(bytes, layer.bytes[5_000_000..5_000_000 + bytes.len()]);
    drop(middle);
    assert_eq!(body(first).await.unwrap(), layer.bytes);
    assert_eq!(asked(&upstream, &layer.digest, layer.size()), Some(1));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    let layer = &image.layers()[0];
    let lazy = mirror.get(&blob(&layer.digest)).await;
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    assert!(mirror.file(&layer.digest).exists(), "the download did not wait either");
    assert_eq!(body(lazy).await.unwrap(), layer.bytes, "and the lazy one gets everything when it likes");
}

#[tokio::test]
async fn a_restart_goes_on_where_the_bytes_stopped() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 2_000_000 });
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    upstream.sent(Kind::Blob, 4_000_000).await;
    let mirror = mirror.restart(&upstream).await;
    assert_eq!(body(answer).await, None, "the client of the old one is cut off");
    upstream.heals();
    let again = mirror.range(&blob(&layer.digest), "bytes=1000000-").await;
    assert_eq!(again.status(), 206);
    assert_eq!(body(again).await.unwrap(), layer.bytes[1_000_000..]);
    let twice = upstream.body_bytes(Kind::Blob) - layer.size();
    assert!(twice < 300_000, "{twice} bytes came twice: no more than what was on its way");
}

#[tokio::test]
async fn an_address_that_expires_in_the_middle_is_renewed() {
    let (upstream, image) = registry().await;
    let cdn = FakeRegistry::start().await;
    cdn.hold(&image);
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::RedirectTo(cdn.url()));
    cdn.fails_on(Kind::Cdn, Fault::ExpiresAfter(4));
    cdn.fails_on(Kind::Cdn, Fault::Rate { bytes_per_second: 1_000_000 });
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let (home, asked) = (upstream.requests(Kind::Blob), cdn.requests(Kind::Cdn));
    assert!(home > 1 && home * 3 <= asked, "{home} addresses for {asked} requests, each good for four");
}

#[tokio::test]
async fn an_upstream_that_lies_about_parts_is_taken_as_one_stream() {
    for fault in [
        Fault::RangeIgnored,
        Fault::RangeUnsatisfiable,
        Fault::WrongContentRange,
        Fault::ChangedEtag,
        Fault::NoTotal,
    ] {
        let (upstream, image) = registry().await;
        let mirror = mirror(&upstream, Options::default()).await;
        upstream.fails_on(Kind::Blob, fault.clone());
        let layer = &image.layers()[0];
        let bytes = body(mirror.get(&blob(&layer.digest)).await).await;
        assert!(bytes.is_some_and(|bytes| bytes == layer.bytes), "{fault:?}");
        let fetched = upstream.body_bytes(Kind::Blob);
        assert!(fetched <= 2 * layer.size(), "{fault:?} cost {fetched} bytes");
    }
}

#[tokio::test]
async fn a_blob_of_another_size_than_its_manifest_says_fails_cleanly() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::WrongTotal);
    upstream.fails_on(Kind::Blob, Fault::LongBody);
    let answer = mirror.get(&blob(&image.layers()[0].digest)).await;
    assert!(answer.status().is_server_error() || body(answer).await.is_none());
    assert!(!mirror.file(&image.layers()[0].digest).exists());
}

#[tokio::test]
async fn one_wrong_piece_costs_a_second_fetch_and_is_never_served() {
    let upstream = FakeRegistry::start().await;
    // Small enough to be held back whole: its client never sees the first attempt.
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[3_000_000]));
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_next(1, Kind::Blob, Fault::CorruptByte(1000));
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    assert_eq!(upstream.body_bytes(Kind::Blob), 2 * layer.size());

    let (upstream, image) = registry().await;
    let mirror = self::mirror(&upstream, Options::default()).await;
    upstream.fails_next(1, Kind::Blob, Fault::CorruptByte(1000));
    let layer = &image.layers()[0];
    let first = body(mirror.get(&blob(&layer.digest)).await).await;
    assert!(first.is_none() || first.unwrap() == layer.bytes, "cut off, or right: never complete and wrong");
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
}

#[tokio::test]
async fn after_a_give_up_the_bytes_stay() {
    let (upstream, image) = registry().await;
    let options = Options { outage_wait: Duration::from_millis(500), ..Options::default() };
    let mirror = mirror(&upstream, options).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 3_000_000 });
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    upstream.sent(Kind::Blob, 3_000_000).await;
    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(body(answer).await, None, "nobody waits longer than the person said");
    upstream.heals();
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let twice = upstream.body_bytes(Kind::Blob) - layer.size();
    assert!(twice < 300_000, "{twice} bytes came twice");
}

#[tokio::test]
async fn a_silent_connection_is_replaced_while_the_others_go_on() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::Rate { bytes_per_second: 150_000 });
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    upstream.saw(Kind::Blob, 2).await;
    upstream.fails_next(1, Kind::Blob, Fault::StallAfter(50_000));
    let began = Instant::now();
    assert_eq!(body(answer).await.unwrap(), layer.bytes);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "sooner than a body may stand still: {:?}",
        began.elapsed()
    );
    assert!(mirror.going().2 >= 1, "a break was repaired: {:?}", mirror.going());
}

#[tokio::test]
async fn an_upstream_that_wants_fewer_connections_gets_fewer() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::TooManyConnections { max: 3, retry_after: Some(1) });
    upstream.fails_on(Kind::Blob, Fault::Rate { bytes_per_second: 800_000 });
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let (_, retries, _) = mirror.going();
    assert!((1..=12).contains(&retries), "it was believed: {retries} refusals");
}

#[tokio::test]
async fn an_upstream_that_refuses_more_connections_and_names_no_rest_is_not_stormed() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::TooManyConnections { max: 3, retry_after: None });
    upstream.fails_on(Kind::Blob, Fault::Rate { bytes_per_second: 800_000 });
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let (_, retries, _) = mirror.going();
    assert!((1..60).contains(&retries), "{retries} refusals");
}

#[tokio::test]
async fn a_speed_limit_holds_and_a_lifted_one_is_felt_at_once() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options { speed_limit: Some(1_000_000), ..Options::default() }).await;
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    let lift = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let fetched = mirror.fetched();
        assert!((1_000_000..3_200_000).contains(&fetched), "{fetched} bytes in two seconds");
        mirror.mirror.set_speed_limit(None);
        Instant::now()
    };
    let (bytes, lifted) = tokio::join!(body(answer), lift);
    assert_eq!(bytes.unwrap(), layer.bytes);
    assert!(lifted.elapsed() < Duration::from_secs(1), "{:?}", lifted.elapsed());
}

#[tokio::test]
async fn a_limit_set_in_the_middle_is_felt() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    let limit = async {
        upstream.sent(Kind::Blob, 1_000_000).await;
        mirror.mirror.set_speed_limit(Some(500_000));
        let before = mirror.fetched();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let came = mirror.fetched() - before;
        assert!((500_000..=2_000_000).contains(&came), "{came} bytes in two seconds; unlimited, it is 5 MB");
        mirror.mirror.set_speed_limit(None);
        upstream.heals();
    };
    let (bytes, ()) = tokio::join!(body(answer), limit);
    assert_eq!(bytes.unwrap(), layer.bytes);
}

#[tokio::test]
async fn a_pause_ends_every_connection_and_the_client_goes_on_without_the_cache() {
    let (upstream, image) = registry().await;
    let mirror = mirror(&upstream, Options::default()).await;
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 2_000_000 });
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    upstream.sent(Kind::Blob, 2_000_000).await;
    mirror.mirror.set_paused(true);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(mirror.connections(), Some(0), "within a second");
    assert_eq!(body(answer).await.unwrap(), layer.bytes);
    assert_eq!(mirror.outcome(2).await, Outcome::Bypass(Bypass::Paused));
    assert!(!mirror.file(&layer.digest).exists(), "nothing was kept");
    mirror.mirror.set_paused(false);
    upstream.heals();
    upstream.forget();
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    let rest = upstream.body_bytes(Kind::Blob);
    assert!(rest < 4_200_000, "what came before the pause did not come again: {rest}");
}

#[tokio::test]
async fn an_outage_before_the_first_byte_of_a_second_blob_is_waited_out_too() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[LARGE, 500_000]));
    let mirror = mirror(&upstream, Options::default()).await;
    let [large, small] = image.layers() else { panic!("two layers") };
    body(mirror.get(&blob(&large.digest)).await).await.unwrap();
    upstream.fails_with(Fault::RefuseConnection);
    let answer = async { body(mirror.get(&blob(&small.digest)).await).await };
    let back = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        upstream.heals();
    };
    let (bytes, ()) = tokio::join!(answer, back);
    assert_eq!(bytes.unwrap(), small.bytes, "a slow pull, no error");
}
