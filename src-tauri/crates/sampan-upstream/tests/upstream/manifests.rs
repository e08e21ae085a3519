use std::time::Duration;

use sampan_oci::{Digest, InvalidManifest, MediaType, Reference};
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, IndexSpec, Kind};
use sampan_upstream::UpstreamError;
use tokio::time::{Instant, pause};

use crate::{reference, repository, upstream};

#[tokio::test]
async fn a_manifest_is_fetched_by_tag_and_by_digest_with_its_very_bytes() {
    let fake = FakeRegistry::start().await;
    let spec = IndexSpec::new()
        .image(ImageSpec::new(1, &[10]))
        .image(ImageSpec::new(2, &[10]).architecture("arm64"));
    let image = fake.publish_index("library/alpine:3.20", &spec.attestation());
    let upstream = upstream(&fake);
    for name in [reference("3.20"), Reference::Digest(image.digest)] {
        let fetched = upstream.get_manifest(&image.repository, &name).await.unwrap();
        assert_eq!(fetched.bytes, image.bytes, "not one byte is changed");
        assert_eq!(fetched.manifest.digest, image.digest);
        assert_eq!(fetched.manifest.media_type, MediaType::OciIndex);
        assert_eq!(fetched.manifest.descriptors().count(), 3, "two platforms and an attestation");
        assert_eq!(upstream.head_manifest(&image.repository, &name).await.unwrap(), Some(image.digest));
    }
    let asked = fake.log();
    let accept = asked[0].header("accept").unwrap();
    assert!(
        MediaType::ALL.iter().all(|t| accept.contains(t.as_str())),
        "every type we read is asked for: {accept}"
    );
    assert_eq!(asked[0].header("accept-encoding"), Some("identity"));
    assert!(asked[0].header("user-agent").unwrap().starts_with("sampan/"));
}

#[tokio::test]
async fn bytes_that_are_not_the_digests_are_refused() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let upstream = upstream(&fake);
    fake.fails_with(Fault::CorruptByte(40));
    let error = upstream.get_manifest(&image.repository, &Reference::Digest(image.digest)).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Mismatch { expected, .. } if expected == image.digest),
        "{error:?}"
    );
    let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Mismatch { .. }),
        "by tag the header is held against the bytes: {error:?}"
    );
}

#[tokio::test]
async fn a_digest_header_that_lies_is_refused_and_a_missing_one_is_not() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let upstream = upstream(&fake);
    let by_digest = Reference::Digest(image.digest);
    fake.fails_with(Fault::WrongDigestHeader);
    let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Mismatch { .. }), "{error:?}");
    let error = upstream.head_manifest(&image.repository, &by_digest).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Mismatch { .. }), "{error:?}");
    let fetched = upstream.get_manifest(&image.repository, &by_digest).await.unwrap();
    assert_eq!(fetched.bytes, image.bytes, "by digest the header is not even read: the bytes decide");
    fake.heals();
    fake.fails_with(Fault::NoDigestHeader);
    assert_eq!(upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap(), None);
    let fetched = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap();
    assert_eq!(fetched.manifest.digest, image.digest, "then the digest is ours to compute");
}

#[tokio::test]
async fn an_endless_manifest_is_dropped_after_four_mebibytes() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(Fault::EndlessBody);
    let error = upstream(&fake).get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::InvalidManifest(InvalidManifest::TooLarge)), "{error:?}");
    let written = fake.body_bytes(Kind::Manifest);
    // Linux lets them grow to 32 MiB for receiving and 4 MiB for sending.
    assert!(written < 48 * 1024 * 1024, "only what fits into the sockets' buffers comes on top: {written}");
}

#[tokio::test]
async fn a_manifest_told_to_be_too_large_is_not_even_read() {
    let fake = FakeRegistry::start().await;
    fake.publish_manifest("a/b", "big", vec![b' '; 5_000_000], "application/json");
    let error = upstream(&fake).get_manifest(&repository("a/b"), &reference("big")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::InvalidManifest(InvalidManifest::TooLarge)), "{error:?}");
}

#[tokio::test]
async fn a_captive_portal_is_no_manifest() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(Fault::Html);
    let error = upstream(&fake).get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::InvalidManifest(InvalidManifest::Json(_))), "{error:?}");
    let error =
        upstream(&fake).get_manifest(&image.repository, &Reference::Digest(image.digest)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Mismatch { .. }), "{error:?}");
}

type Expected = fn(&UpstreamError) -> bool;

#[tokio::test]
async fn every_status_has_its_error() {
    let fake = FakeRegistry::start().await;
    let upstream = upstream(&fake);
    let cases: [(u16, Expected); 8] = [
        (404, |e| matches!(e, UpstreamError::NotFound)),
        (403, |e| matches!(e, UpstreamError::Denied)),
        (400, |e| matches!(e, UpstreamError::Status(400))),
        (416, |e| matches!(e, UpstreamError::RangeRefused)),
        (500, |e| matches!(e, UpstreamError::Status(500))),
        (503, |e| matches!(e, UpstreamError::Status(503))),
        (302, |e| matches!(e, UpstreamError::Protocol(_))),
        (204, |e| matches!(e, UpstreamError::Protocol(_))),
    ];
    for (status, expected) in cases {
        fake.heals();
        fake.fails_with(Fault::Status(status));
        let error = upstream.get_manifest(&repository("a/b"), &reference("x")).await.unwrap_err();
        assert!(expected(&error), "{status}: {error:?}");
        assert_eq!(upstream.health().reachable, Some(true), "an answer is an answer");
    }
}

#[tokio::test]
async fn the_rate_limit_says_how_long_to_wait_within_reason() {
    let fake = FakeRegistry::start().await;
    for (told, wait) in [(None, None), (Some(7), Some(7)), (Some(1_000_000_000), Some(300))] {
        fake.heals();
        fake.fails_with(Fault::TooManyRequests { retry_after: told });
        let upstream = upstream(&fake);
        let error = upstream.head_manifest(&repository("a/b"), &reference("x")).await.unwrap_err();
        let wait = wait.map(Duration::from_secs);
        assert!(
            matches!(error, UpstreamError::RateLimited { retry_after } if retry_after == wait),
            "{error:?}"
        );
        let asked = fake.requests(Kind::Manifest);
        let again = upstream.get_manifest(&repository("a/c"), &reference("x")).await.unwrap_err();
        assert!(matches!(again, UpstreamError::RateLimited { retry_after: Some(_) }), "{again:?}");
        assert_eq!(fake.requests(Kind::Manifest), asked, "nobody is asked again before that");
    }
}

#[tokio::test]
async fn a_broken_link_is_told_as_one_and_health_follows() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let upstream = upstream(&fake);
    assert_eq!(upstream.health().reachable, None, "nobody asked yet");
    fake.fails_with(Fault::RefuseConnection);
    let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Unreachable(why) if !why.contains("127.0.0.1")), "{error:?}");
    assert_eq!(upstream.health().reachable, Some(false));
    fake.heals();
    assert!(upstream.get_manifest(&image.repository, &reference("3.20")).await.is_ok());
    assert_eq!(upstream.health().reachable, Some(true));
    fake.fails_with(Fault::CutAfter(10));
    let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    let size = image.bytes.len() as u64;
    assert!(matches!(error, UpstreamError::Truncated { got: 10, expected } if expected == size), "{error:?}");
    fake.heals();
    fake.fails_with(Fault::ResetAfter(10));
    let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn silence_ends_after_twenty_seconds() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(Fault::StallBeforeHeaders);
    let (upstream, name) = (upstream(&fake), reference("3.20"));
    let began = async {
        fake.saw(Kind::Manifest, 1).await;
        pause();
        Instant::now()
    };
    let (result, began) = tokio::join!(upstream.get_manifest(&image.repository, &name), began);
    assert!(matches!(result, Err(UpstreamError::Timeout)), "{result:?}");
    let waited = began.elapsed().as_secs();
    assert!((19..=21).contains(&waited), "containerd waits 30 s for us, so we cannot wait longer: {waited}");
    assert_eq!(upstream.health().reachable, Some(false));
}

#[tokio::test]
async fn heads_that_break_http_are_refused() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let upstream = upstream(&fake);
    for fault in
        [Fault::TwoLengths, Fault::HugeHeader(100_000), Fault::HugeHeader(2_000_000), Fault::ContentEncoding]
    {
        fake.heals();
        fake.fails_with(fault.clone());
        let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{fault:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_ping_is_answered_by_401_too() {
    let fake = FakeRegistry::start().await;
    let upstream = upstream(&fake);
    upstream.ping().await.unwrap();
    fake.fails_with(Fault::Status(401));
    upstream.ping().await.unwrap();
    fake.heals();
    fake.fails_with(Fault::Status(500));
    assert!(matches!(upstream.ping().await, Err(UpstreamError::Status(500))));
    assert_eq!(fake.log()[0].path, "/v2/", "with its slash: some registries redirect without");
}

#[tokio::test]
async fn a_missing_manifest_is_not_found() {
    let fake = FakeRegistry::start().await;
    fake.publish("library/alpine:3.20");
    let missing = Reference::Digest(Digest::of(b"missing"));
    let error = upstream(&fake).get_manifest(&repository("library/alpine"), &missing).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotFound), "{error:?}");
}

#[tokio::test]
async fn token_and_answer_share_the_twenty_seconds() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(Fault::RequireToken(sampan_testkit::TokenRule::default()));
    fake.fails_on(Kind::Token, Fault::StallBeforeHeaders);
    let (upstream, name) = (upstream(&fake), reference("3.20"));
    let began = async {
        fake.saw(Kind::Token, 1).await;
        pause();
        Instant::now()
    };
    let (result, began) = tokio::join!(upstream.get_manifest(&image.repository, &name), began);
    assert!(matches!(result, Err(UpstreamError::Timeout)), "{result:?}");
    assert!(began.elapsed().as_secs() <= 20, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let (upstream, name) = (upstream(&fake), reference("3.20"));
    for _ in 0..20 {
        upstream.get_manifest(&image.repository, &name).await.unwrap();
        fake.fails_with(Fault::RefuseConnection);
        fake.heals();
    }
}
