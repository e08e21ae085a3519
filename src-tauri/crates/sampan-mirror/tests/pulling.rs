//! What a pull gets: from upstream once, then from the cache, then from the cache alone.
#![allow(missing_docs, reason = "tests are named as sentences")]

mod common;

use common::{Options, TestMirror, asked, body};
use futures_util::future::join_all;
use sampan_oci::{Bypass, Digest, Failure, Outcome};
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, Kind, TokenRule};

fn manifest(reference: impl std::fmt::Display) -> String {
    format!("/v2/library/alpine/manifests/{reference}")
}

fn blob(digest: &Digest) -> String {
    format!("/v2/library/alpine/blobs/{digest}")
}

/// An image whose largest layer is far above what is held back whole.
fn large() -> ImageSpec {
    ImageSpec::new(7, &[6_000_000, 40_000])
}

#[tokio::test]
async fn every_byte_crosses_the_link_once_and_then_never_again() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    let mut served = 0;
    for round in ["cold", "warm"] {
        let answer = mirror.get(&manifest("3.20")).await;
        assert_eq!(answer.headers()["docker-content-digest"], image.digest.to_string());
        assert_eq!(answer.headers()["content-type"], image.media_type.as_str());
        assert_eq!(body(answer).await.unwrap(), image.bytes, "{round}");
        served += image.bytes.len() as u64;
        for layer in image.blobs() {
            let answer = mirror.get(&blob(&layer.digest)).await;
            assert_eq!(answer.content_length(), Some(layer.size()));
            assert_eq!(answer.headers()["accept-ranges"], "bytes");
            assert!(!answer.headers().contains_key("content-encoding"));
            assert_eq!(body(answer).await.unwrap(), layer.bytes, "{round}");
            served += layer.size();
        }
    }
    let all = served / 2;
    assert_eq!(upstream.pulled_bytes(), all, "the image crossed the link exactly once");
    assert_eq!(mirror.outcome(8).await, Outcome::Hit);
    assert_eq!(mirror.fetched(), all, "what is told as fetched is what was sent");
    let told: Vec<_> =
        mirror.answers().iter().map(|answered| (answered.outcome, answered.served_bytes)).collect();
    assert_eq!(told[0].0, Outcome::Miss);
    assert!(told[1..4].iter().all(|(outcome, _)| *outcome == Outcome::Miss));
    assert_eq!(told[4].0, Outcome::Revalidated, "a tag is asked about, with a HEAD");
    assert!(told[5..].iter().all(|(outcome, _)| *outcome == Outcome::Hit));
    assert_eq!(told.iter().map(|(_, bytes)| bytes).sum::<u64>(), served);
}

#[tokio::test]
async fn an_old_image_beats_no_image_when_the_upstream_is_gone() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    for layer in image.blobs() {
        body(mirror.get(&blob(&layer.digest)).await).await.unwrap();
    }
    for fault in [
        Fault::RefuseConnection,
        Fault::Status(500),
        Fault::TooManyRequests { retry_after: Some(3600) },
        Fault::Html,
    ] {
        upstream.fails_with(fault.clone());
        let answer = mirror.get(&manifest("3.20")).await;
        assert_eq!(answer.status(), 200, "{fault:?}");
        assert_eq!(answer.headers()["x-sampan"], "stale", "{fault:?}: a stale answer says so");
        assert_eq!(body(answer).await.unwrap(), image.bytes, "{fault:?}: stale never means different bytes");
        for layer in image.blobs() {
            assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
        }
        upstream.heals();
    }
}

#[tokio::test]
async fn a_slow_upstream_does_not_keep_a_held_tag_waiting() {
    let upstream = FakeRegistry::start().await;
    upstream.publish("library/alpine:3.20");
    let options = Options { revalidate_timeout: std::time::Duration::from_millis(200), ..Options::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    upstream.fails_with(Fault::StallBeforeHeaders);
    let answer = mirror.get(&manifest("3.20")).await;
    assert_eq!(answer.headers()["x-sampan"], "stale");
}

#[tokio::test]
async fn a_moved_tag_is_followed_and_a_removed_one_is_gone() {
    let upstream = FakeRegistry::start().await;
    upstream.publish_image("library/alpine:latest", &ImageSpec::new(1, &[1000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("latest")).await).await.unwrap();
    let moved = upstream.publish_image("library/alpine:latest", &ImageSpec::new(2, &[1000]));
    let answer = mirror.head(&manifest("latest")).await;
    assert_eq!(answer.headers()["docker-content-digest"], moved.digest.to_string());
    upstream.fails_with(Fault::Status(404));
    assert_eq!(mirror.get(&manifest("latest")).await.status(), 404, "an upstream that says no is believed");
}

#[tokio::test]
async fn fifty_clients_of_one_cold_blob_cost_one_fetch() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    upstream.fails_on(Kind::Blob, Fault::StallAfter(300_000));
    let pulls =
        join_all((0..50).map(|_| async { body(mirror.get(&blob(&layer.digest)).await).await.unwrap() }));
    let heal = async {
        upstream.sent(Kind::Blob, 300_000).await;
        upstream.heals();
    };
    let (bodies, ()) = tokio::join!(pulls, heal);
    assert!(bodies.iter().all(|bytes| *bytes == layer.bytes));
    assert_eq!(asked(&upstream, &layer.digest, layer.size()), Some(1));
    assert_eq!(upstream.body_bytes(Kind::Blob), layer.size());
}

#[tokio::test]
async fn the_download_goes_on_when_its_client_leaves() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    upstream.fails_on(Kind::Blob, Fault::StallAfter(300_000));
    let mut answer = mirror.get(&blob(&layer.digest)).await;
    answer.chunk().await.unwrap().expect("the first bytes come before the last are there");
    drop(answer);
    assert_eq!(mirror.outcome(2).await, Outcome::Failed(Failure::ClientLeft));
    upstream.heals();
    let again = mirror.get(&blob(&layer.digest)).await;
    assert_eq!(body(again).await.unwrap(), layer.bytes);
    assert_eq!(asked(&upstream, &layer.digest, layer.size()), Some(1), "nothing was asked for twice");
}

#[tokio::test]
async fn a_broken_connection_is_mended_behind_the_clients_back() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    for (fault, most) in [
        (Fault::CutAfter(200_000), 1.01),
        // A reset destroys what still lies in the sockets' buffers: that, and nothing else, has to come again.
        (Fault::ResetAfter(200_000), 1.0 + 3.0 * 0.2 / 6.0),
    ] {
        let mirror = TestMirror::in_front_of(&upstream).await;
        body(mirror.get(&manifest("3.20")).await).await.unwrap();
        upstream.forget();
        upstream.fails_next(3, Kind::Blob, fault.clone());
        let layer = &image.layers()[0];
        let answer = mirror.get(&blob(&layer.digest)).await;
        assert_eq!(body(answer).await.unwrap(), layer.bytes, "{fault:?}");
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = upstream.body_bytes(Kind::Blob) as f64 / layer.size() as f64;
        assert!(ratio <= most, "{fault:?}: {ratio} of the blob crossed the link");
    }
}

#[tokio::test]
async fn an_outage_of_some_seconds_costs_no_byte() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    upstream.forget();
    // Slow enough that what is on its way between the two is little.
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
    let layer = &image.layers()[0];
    let answer = mirror.get(&blob(&layer.digest)).await;
    upstream.sent(Kind::Blob, 3_000_000).await;
    upstream.fails_with(Fault::RefuseConnection);
    let back = async {
        // As long as a telephone takes from one network to the next.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        upstream.heals();
    };
    let (bytes, ()) = tokio::join!(body(answer), back);
    assert_eq!(bytes.unwrap(), layer.bytes);
    let again = upstream.body_bytes(Kind::Blob) - layer.size();
    assert!(again * 50 <= layer.size(), "what had arrived did not come again, but for {again} bytes");
}

#[tokio::test]
async fn a_client_that_joins_without_a_right_is_refused() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    upstream.publish_image("library/other:1", &ImageSpec::new(99, &[500]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
    let first = mirror.get(&blob(&layer.digest)).await;
    let joining = mirror.get(&format!("/v2/library/other/blobs/{}", layer.digest)).await;
    assert_eq!(joining.status(), 404, "that somebody else downloads it is no proof of a right to it");
    assert_eq!(body(first).await.unwrap(), layer.bytes);
}

#[tokio::test]
async fn an_upstream_without_ranges_is_mended_too() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    upstream.fails_on(Kind::Blob, Fault::RangeIgnored);
    upstream.fails_next(1, Kind::Blob, Fault::CutAfter(2_500_000));
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
}

#[tokio::test]
async fn ranges_are_served_from_the_cache_and_from_a_blob_still_on_its_way() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    let path = blob(&layer.digest);
    upstream.fails_on(Kind::Blob, Fault::StallAfter(300_000));
    let first = mirror.get(&path).await;
    upstream.sent(Kind::Blob, 300_000).await;
    let resumed = mirror.range(&path, "bytes=1000000-").await;
    assert_eq!(resumed.status(), 206, "dockerd throws its part away on anything else");
    assert_eq!(resumed.headers()["content-range"], "bytes 1000000-5999999/6000000");
    upstream.heals();
    let (first, resumed) = tokio::join!(body(first), body(resumed));
    assert_eq!(first.unwrap(), layer.bytes);
    assert_eq!(resumed.unwrap(), layer.bytes[1_000_000..]);
    for (range, expected) in [
        ("bytes=0-0", &layer.bytes[..1]),
        ("bytes=5999999-", &layer.bytes[5_999_999..]),
        ("bytes=-100", &layer.bytes[5_999_900..]),
        ("bytes=100-199", &layer.bytes[100..200]),
    ] {
        let part = mirror.range(&path, range).await;
        assert_eq!(part.status(), 206, "{range}");
        assert_eq!(body(part).await.unwrap(), expected, "{range}");
    }
    let beyond = mirror.range(&path, "bytes=6000000-").await;
    assert_eq!(
        (beyond.status().as_u16(), beyond.headers()["content-range"].to_str().unwrap()),
        (416, "bytes */6000000")
    );
    assert_eq!(
        mirror.range(&manifest("3.20"), "bytes=0-").await.status(),
        206,
        "containerd asks so for manifests"
    );
    assert_eq!(asked(&upstream, &layer.digest, layer.size()), Some(1));
}

#[tokio::test]
async fn private_repositories_are_left_to_docker_and_its_own_login() {
    let upstream = FakeRegistry::start().await;
    upstream.publish("library/alpine:3.20");
    upstream.publish("acme/secret:1");
    upstream.make_private("acme/secret");
    upstream.fails_with(Fault::RequireToken(TokenRule::default()));
    let mirror = TestMirror::in_front_of(&upstream).await;
    assert_eq!(
        mirror.get(&manifest("3.20")).await.status(),
        200,
        "an anonymous token is enough for public ones"
    );
    let answer = mirror.get("/v2/acme/secret/manifests/1").await;
    assert_eq!(answer.status(), 404);
    assert!(
        !answer.headers().contains_key("www-authenticate"),
        "a challenge would harvest the person's password"
    );
}

#[tokio::test]
async fn a_blob_is_served_only_under_a_repository_that_has_it() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    upstream.publish_image("library/other:1", &ImageSpec::new(99, &[500]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    body(mirror.get(&blob(&layer.digest)).await).await.unwrap();
    let asked = mirror.get(&format!("/v2/library/other/blobs/{}", layer.digest)).await;
    assert_eq!(asked.status(), 404, "that it lies on disk is no proof of a right to it");
    assert!(upstream.requests_by("HEAD", Kind::Blob) >= 1, "the upstream was asked for the proof");
    upstream.publish_blob("library/third", layer.bytes.clone());
    let proven = mirror.get(&format!("/v2/library/third/blobs/{}", layer.digest)).await;
    assert_eq!(body(proven).await.unwrap(), layer.bytes);
    assert_eq!(
        common::asked(&upstream, &layer.digest, layer.size()),
        Some(1),
        "proven by HEAD, served from disk"
    );
}

#[tokio::test]
async fn a_full_disk_stops_keeping_not_pulling() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let options = Options { free_space_floor_bytes: u64::MAX / 2, ..Options::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    assert_eq!(body(mirror.get(&manifest("3.20")).await).await.unwrap(), image.bytes);
    for layer in image.blobs() {
        assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    }
    let part = mirror.range(&blob(&image.layers()[0].digest), "bytes=5000000-").await;
    assert_eq!(body(part).await.unwrap(), image.layers()[0].bytes[5_000_000..]);
    assert!(mirror.answers().iter().all(|answered| answered.outcome == Outcome::Bypass(Bypass::Full)));
    assert_eq!(mirror.published(), 0);
    upstream.fails_on(Kind::Blob, Fault::CorruptByte(3));
    let wrong = body(mirror.get(&blob(&image.layers()[0].digest)).await).await;
    assert_eq!(wrong, None, "what passes through is verified like anything else");
}

#[tokio::test]
async fn a_disk_that_fills_in_the_middle_of_a_blob_stops_keeping_not_pulling() {
    let Some(disk) = common::SmallDisk::mount(3) else { return };
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror =
        TestMirror::on(tempfile::tempdir_in(disk.path()).unwrap(), &upstream, Options::default()).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    // The free space says that it fits: only writing finds out that it does not.
    disk.fill(1);
    let (one, other) = tokio::join!(async { body(mirror.get(&blob(&layer.digest)).await).await }, async {
        body(mirror.range(&blob(&layer.digest), "bytes=1000000-").await).await
    },);
    assert!(one.unwrap() == layer.bytes, "the client does not notice");
    assert!(other.unwrap() == layer.bytes[1_000_000..], "nor does one that follows");
    assert!(!mirror.file(&layer.digest).exists());
}

#[tokio::test]
async fn the_head_of_an_answer_does_not_wait_for_its_body() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[1];
    upstream.fails_next(1, Kind::Blob, Fault::StallAfter(1));
    // A small blob, none of whose bytes may leave before its digest is known.
    let answer = mirror.get(&blob(&layer.digest)).await;
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(layer.size())));
    upstream.heals();
    assert_eq!(body(answer).await.unwrap(), layer.bytes);
}

#[tokio::test]
async fn a_pause_keeps_nothing_new_and_serves_what_is_held() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    mirror.mirror.set_paused(true);
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    let layer = &image.layers()[0];
    assert_eq!(body(mirror.get(&blob(&layer.digest)).await).await.unwrap(), layer.bytes);
    assert_eq!(mirror.published(), 0);
    mirror.mirror.set_paused(false);
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    body(mirror.get(&blob(&layer.digest)).await).await.unwrap();
    mirror.mirror.set_paused(true);
    body(mirror.get(&blob(&layer.digest)).await).await.unwrap();
    assert_eq!(mirror.outcome(5).await, Outcome::Hit);
}

#[tokio::test]
async fn damage_on_disk_is_found_before_it_is_served_and_mended() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &large());
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(&manifest("3.20")).await).await.unwrap();
    for layer in image.blobs() {
        body(mirror.get(&blob(&layer.digest)).await).await.unwrap();
    }
    let (large, small) = (&image.layers()[0], &image.layers()[1]);
    for layer in [large, small] {
        let mut bytes = layer.bytes.to_vec();
        bytes[20_000] ^= 1;
        std::fs::write(mirror.file(&layer.digest), bytes).unwrap();
    }
    // A new start trusts nothing it has not hashed itself.
    let mirror = mirror.restart(&upstream).await;
    let broken = mirror.get(&blob(&large.digest)).await;
    assert_eq!(body(broken).await, None, "the answer with the wrong byte never ends cleanly");
    let mended = mirror.get(&blob(&large.digest)).await;
    assert_eq!(body(mended).await.unwrap(), large.bytes, "asked again, it is fetched anew");
    let part = mirror.range(&blob(&small.digest), "bytes=0-9").await;
    assert_eq!(
        body(part).await.unwrap(),
        small.bytes[..10],
        "parts and small blobs are checked before their first byte"
    );
    for layer in [large, small] {
        let times = asked(&upstream, &layer.digest, layer.size());
        assert_eq!(times, Some(2), "each was fetched once more");
    }
}

#[tokio::test]
async fn tags_are_listed_in_pages_whose_links_lead_back_to_the_mirror() {
    let upstream = FakeRegistry::start().await;
    for tag in ["1", "2", "3"] {
        upstream.publish_image(&format!("library/alpine:{tag}"), &ImageSpec::new(1, &[100]));
    }
    let mirror = TestMirror::in_front_of(&upstream).await;
    let page = mirror.get("/v2/library/alpine/tags/list?n=2&ns=docker.io").await;
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    assert_eq!(link, "</v2/library/alpine/tags/list?ns=docker.io&n=2&last=2>; rel=\"next\"");
    assert_eq!(body(page).await.unwrap(), br#"{"name":"library/alpine","tags":["1","2"]}"#);
    let rest = mirror.get("/v2/library/alpine/tags/list?n=2&last=2").await;
    assert!(!rest.headers().contains_key("link"));
    assert_eq!(body(rest).await.unwrap(), br#"{"name":"library/alpine","tags":["3"]}"#);
    body(mirror.get(&manifest("3")).await).await.unwrap();
    upstream.fails_with(Fault::RefuseConnection);
    let held = mirror.get("/v2/library/alpine/tags/list").await;
    assert_eq!(
        body(held).await.unwrap(),
        br#"{"name":"library/alpine","tags":["3"]}"#,
        "offline: those we hold"
    );
}

#[tokio::test]
async fn referrers_are_always_answered() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let referrer = upstream.publish_referrer("library/alpine", &image.digest, "application/x.sbom");
    let mirror = TestMirror::in_front_of(&upstream).await;
    let path = format!("/v2/library/alpine/referrers/{}", image.digest);
    let listed = mirror.get(&path).await;
    assert_eq!(listed.headers()["content-type"], "application/vnd.oci.image.index.v1+json");
    let listed = body(listed).await.unwrap();
    assert!(String::from_utf8_lossy(&listed).contains(&referrer.to_string()));
    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(body(mirror.get(&path).await).await.unwrap(), listed, "offline: the list we saw");
    let unknown = mirror.get(&format!("/v2/library/alpine/referrers/{}", Digest::of(b"x"))).await;
    assert_eq!(unknown.status(), 200, "a 404 would send containerd to a Hub that cannot answer");
    let fallback = mirror.get(&manifest(format!("sha256-{}", Digest::of(b"x").hex()))).await;
    assert_eq!(fallback.status(), 404, "a 503 here would fail a whole pull");
}

#[tokio::test]
async fn an_armed_probe_is_served_without_any_upstream() {
    let upstream = FakeRegistry::start().await;
    upstream.fails_with(Fault::RefuseConnection);
    let mirror = TestMirror::in_front_of(&upstream).await;
    let mut ticket = mirror.mirror.arm_probe();
    let (repository, tag) = ticket.reference.split_once(':').unwrap();
    let answer = mirror.get(&format!("/v2/{repository}/manifests/{tag}")).await;
    assert_eq!(answer.status(), 200);
    assert!(ticket.arrived.try_recv().is_ok());
    mirror.outcome(1).await;
    assert_eq!(mirror.answers()[0].image, None, "a probe is no pull and is in no number");
    mirror.mirror.disarm_probe();
    let after = mirror.get(&format!("/v2/{repository}/manifests/{tag}")).await;
    assert_eq!(after.status(), 503, "afterwards the name is the upstream's");
}
