use futures_util::TryStreamExt as _;
use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, Fault, Kind, random_bytes};
use sampan_upstream::UpstreamError;
use tokio::time::{Instant, pause};

use crate::{collect, repository, until_error, upstream};

const SIZE: u64 = 200_000;

/// A registry with one blob of [`SIZE`] bytes in `a/b`.
async fn with_blob() -> (FakeRegistry, Digest, Vec<u8>) {
    let fake = FakeRegistry::start().await;
    let bytes = random_bytes(1, 200_000);
    let digest = fake.publish_blob("a/b", bytes.clone());
    (fake, digest, bytes.to_vec())
}

#[tokio::test]
async fn a_blob_comes_whole_from_any_byte_on_or_in_parts() {
    let (fake, digest, bytes) = with_blob().await;
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    assert_eq!(upstream.head_blob(&name, &digest).await.unwrap(), Some(SIZE));

    let body = upstream.get_blob(&name, &digest, 0).await.unwrap();
    assert_eq!((body.size, body.offset), (Some(SIZE), 0));
    assert_eq!(collect(body).await.unwrap(), bytes);

    let body = upstream.get_blob(&name, &digest, 150_000).await.unwrap();
    assert_eq!((body.size, body.offset), (Some(SIZE), 150_000));
    assert_eq!(collect(body).await.unwrap(), bytes[150_000..]);

    let body = upstream.get_blob_part(&name, &digest, 10..20, SIZE).await.unwrap();
    assert_eq!((body.size, body.offset), (Some(SIZE), 10));
    assert_eq!(collect(body).await.unwrap(), bytes[10..20]);

    let ranges: Vec<_> =
        fake.log().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, None, Some("bytes=150000-".into()), Some("bytes=10-19".into())]);
}

#[tokio::test]
async fn a_part_that_cannot_be_is_not_asked_for() {
    let (fake, digest, _) = with_blob().await;
    let upstream = upstream(&fake);
    for range in [5..5, 0..SIZE + 1] {
        let error = upstream.get_blob_part(&repository("a/b"), &digest, range, SIZE).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    }
    assert_eq!(fake.requests(Kind::Blob), 0);
}

#[tokio::test]
async fn a_body_cut_short_says_how_far_it_came() {
    let (fake, digest, bytes) = with_blob().await;
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    fake.fails_with(Fault::CutAfter(70_000));
    let (got, error) = until_error(upstream.get_blob(&name, &digest, 0).await.unwrap()).await;
    assert_eq!(got, bytes[..70_000], "what came before the cut is not lost");
    assert!(matches!(error, UpstreamError::Truncated { got: 70_000, expected: SIZE }), "{error:?}");

    let (got, error) = until_error(upstream.get_blob(&name, &digest, 100_000).await.unwrap()).await;
    assert_eq!(got, bytes[100_000..170_000]);
    assert!(matches!(error, UpstreamError::Truncated { got: 70_000, expected: 100_000 }), "{error:?}");
    assert!(error.is_transient(), "the rest may be asked for");
}

#[tokio::test]
async fn a_reset_is_a_broken_link() {
    let (fake, digest, bytes) = with_blob().await;
    fake.fails_with(Fault::ResetAfter(70_000));
    let body = upstream(&fake).get_blob(&repository("a/b"), &digest, 0).await.unwrap();
    let (got, error) = until_error(body).await;
    assert!(bytes.starts_with(&got), "a reset may lose bytes, never invent them");
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_body_that_stands_still_ends_after_thirty_seconds() {
    let (fake, digest, _) = with_blob().await;
    fake.fails_with(Fault::StallAfter(70_000));
    let mut body = upstream(&fake).get_blob(&repository("a/b"), &digest, 0).await.unwrap();
    let mut got = 0;
    while got < 70_000 {
        got += body.stream.try_next().await.unwrap().unwrap().len();
    }
    pause();
    let began = Instant::now();
    let error = body.stream.try_next().await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 30);
    assert!(body.stream.try_next().await.unwrap().is_none(), "one error, then nothing");
}

#[tokio::test]
async fn a_body_that_goes_on_before_the_limit_is_whole() {
    let (fake, digest, bytes) = with_blob().await;
    fake.fails_with(Fault::StallAfter(70_000));
    let body = upstream(&fake).get_blob(&repository("a/b"), &digest, 0).await.unwrap();
    let heal = async {
        fake.sent(Kind::Blob, 70_000).await;
        fake.heals();
    };
    let (collected, ()) = tokio::join!(collect(body), heal);
    assert_eq!(collected.unwrap(), bytes);
}

#[tokio::test]
async fn a_drip_ends_after_two_minutes() {
    let (fake, digest, _) = with_blob().await;
    fake.fails_with(Fault::Drip { every: std::time::Duration::from_secs(10) });
    let body = upstream(&fake).get_blob(&repository("a/b"), &digest, 0).await.unwrap();
    pause();
    let began = Instant::now();
    let (_, error) = until_error(body).await;
    assert!(matches!(error, UpstreamError::Timeout), "{error:?}");
    let waited = began.elapsed().as_secs();
    assert!((110..=150).contains(&waited), "each byte is in time, all of them are not: {waited} s");
}

#[tokio::test]
async fn lengths_that_lie_show_where_they_can() {
    let (fake, digest, _) = with_blob().await;
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    for (fault, size) in [(Fault::ShortBody, SIZE - 1), (Fault::LongBody, SIZE + 1)] {
        fake.heals();
        fake.fails_with(fault.clone());
        let body = upstream.get_blob(&name, &digest, 0).await.unwrap();
        assert_eq!(body.size, Some(size), "whole HTTP: only who knows the blob's size or digest can tell");
        let error = upstream.get_blob_part(&name, &digest, 10..SIZE, SIZE).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::OtherPart),
            "a part contradicts its own head: {fault:?} {error:?}"
        );
    }
    fake.heals();
    fake.fails_with(Fault::NoLength);
    let body = upstream.get_blob(&name, &digest, 0).await.unwrap();
    assert_eq!(body.size, None);
    assert_eq!(collect(body).await.unwrap().len() as u64, SIZE);
    fake.fails_with(Fault::CutAfter(50));
    let body = upstream.get_blob_part(&name, &digest, 0..SIZE, SIZE).await.unwrap();
    let (_, error) = until_error(body).await;
    assert!(
        matches!(error, UpstreamError::Truncated { got: 50, expected: SIZE }),
        "Content-Range told it: {error:?}"
    );
    fake.heals();
    fake.fails_with(Fault::EndlessBody);
    let body = upstream.get_blob_part(&name, &digest, 0..SIZE, SIZE).await.unwrap();
    let (got, error) = until_error(body).await;
    assert!(matches!(error, UpstreamError::OtherPart), "more than the part: {error:?}");
    assert!(got.len() as u64 <= SIZE, "the surplus is not handed on");
    fake.heals();
    fake.fails_with(Fault::TwoLengths);
    let error = upstream.get_blob(&name, &digest, 0).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn only_an_honest_206_answers_a_range() {
    let (fake, digest, _) = with_blob().await;
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    for fault in [Fault::RangeIgnored, Fault::RangeUnsatisfiable] {
        fake.heals();
        fake.fails_with(fault.clone());
        for error in [
            upstream.get_blob(&name, &digest, 5).await.unwrap_err(),
            upstream.get_blob_part(&name, &digest, 5..9, SIZE).await.unwrap_err(),
        ] {
            assert!(matches!(error, UpstreamError::RangeRefused), "start over at 0: {fault:?} {error:?}");
        }
    }
    for fault in [Fault::WrongContentRange, Fault::WrongTotal, Fault::Status(206)] {
        fake.heals();
        fake.fails_with(fault.clone());
        let error = upstream.get_blob_part(&name, &digest, 5..SIZE, SIZE).await.unwrap_err();
        assert!(matches!(error, UpstreamError::OtherPart), "{fault:?} {error:?}");
    }
    fake.heals();
    fake.fails_with(Fault::ContentEncoding);
    let error = upstream.get_blob_part(&name, &digest, 5..SIZE, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol(_)), "this is not about parts: {error:?}");
    fake.heals();
    fake.fails_with(Fault::WrongContentRange);
    let error = upstream.get_blob(&name, &digest, 5).await.unwrap_err();
    assert!(matches!(error, UpstreamError::OtherPart), "{error:?}");
    fake.heals();
    fake.fails_with(Fault::UnaskedPartial);
    let error = upstream.get_blob(&name, &digest, 0).await.unwrap_err();
    assert!(matches!(error, UpstreamError::OtherPart), "a part nobody asked for: {error:?}");
    fake.heals();
    let error = upstream.get_blob_part(&name, &digest, 5..SIZE - 1, SIZE - 1).await.unwrap_err();
    assert!(matches!(error, UpstreamError::OtherPart), "another size than the manifest's: {error:?}");
}

#[tokio::test]
async fn a_corrupt_blob_is_handed_on_for_whoever_hashes_it() {
    let (fake, digest, bytes) = with_blob().await;
    fake.fails_with(Fault::CorruptByte(100_000));
    let got = collect(upstream(&fake).get_blob(&repository("a/b"), &digest, 0).await.unwrap()).await.unwrap();
    assert_eq!(got.len(), bytes.len());
    assert!(!digest.names(&got), "the digest shows it, nothing else can");
}

#[tokio::test]
async fn errors_of_blobs_are_those_of_manifests() {
    let (fake, digest, _) = with_blob().await;
    let (upstream, name) = (upstream(&fake), repository("a/b"));
    let missing = Digest::of(b"missing");
    assert!(matches!(upstream.get_blob(&name, &missing, 0).await, Err(UpstreamError::NotFound)));
    assert!(matches!(upstream.head_blob(&name, &missing).await, Err(UpstreamError::NotFound)));
    assert!(matches!(
        upstream.get_blob(&repository("other"), &digest, 0).await,
        Err(UpstreamError::NotFound)
    ));
    fake.fails_with(Fault::Status(502));
    assert!(matches!(upstream.get_blob(&name, &digest, 0).await, Err(UpstreamError::Status(502))));
    fake.heals();
    fake.fails_with(Fault::RefuseConnection);
    assert!(matches!(upstream.get_blob(&name, &digest, 0).await, Err(UpstreamError::Unreachable(_))));
}
