//! One blob in many requests: they share an address, and notice when it leads to something else.

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use sampan_oci::{Digest, Failure};
use sampan_testkit::{FakeRegistry, Fault, Kind, TokenRule, random_bytes};
use sampan_upstream::{BlobBody, BlobSource, UpstreamError};
use tokio::time::{Duration, Instant, pause};

use crate::{collect, repository, upstream};

const SIZE: u64 = 320_000;
const PART: u64 = 20_000;

/// A registry with one blob, a host its redirects lead to, and the blob's bytes.
struct Scene {
    registry: FakeRegistry,
    cdn: FakeRegistry,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Scene {
    /// The registry gives the blob itself.
    async fn at_home() -> Self {
        let (registry, cdn) = (FakeRegistry::start().await, FakeRegistry::start().await);
        let bytes = random_bytes(1, 320_000);
        let digest = registry.publish_blob("a/b", bytes.clone());
        cdn.publish_blob("a/b", bytes.clone());
        Self { registry, cdn, digest, bytes: bytes.to_vec() }
    }

    /// The registry leads to the other host.
    async fn behind_a_redirect() -> Self {
        let scene = Self::at_home().await;
        scene.redirects();
        scene
    }

    fn redirects(&self) {
        self.registry.fails_on(Kind::Blob, Fault::RedirectTo(self.cdn.url()));
    }

    fn source(&self) -> BlobSource {
        upstream(&self.registry).blob_source(&repository("a/b"), &self.digest)
    }

    /// Fetches parts number `parts`, all at once, and compares them with the blob.
    async fn fetch(&self, source: &BlobSource, parts: std::ops::Range<u64>) {
        join_all(parts.map(|part| async move {
            let range = part * PART..(part + 1) * PART;
            let body = source.part(range.clone(), SIZE).await.expect("an answer");
            assert_eq!((body.offset, body.size, body.whole), (range.start, Some(SIZE), false));
            assert!(collect(body).await.expect("a whole part") == self.slice(range), "part {part}");
        }))
        .await;
    }

    fn slice(&self, range: std::ops::Range<u64>) -> &[u8] {
        let at = |position: u64| usize::try_from(position).expect("a position in memory");
        &self.bytes[at(range.start)..at(range.end)]
    }
}

#[tokio::test]
async fn a_blob_begins_with_a_part_that_tells_its_size() {
    let scene = Scene::at_home().await;
    let source = scene.source();
    let body = source.begin(Some(PART), None).await.unwrap();
    assert_eq!((body.size, body.offset, body.whole), (Some(SIZE), 0, false));
    assert_eq!(collect(body).await.unwrap(), scene.slice(0..PART));
    scene.fetch(&source, 1..16).await;
    let mut ranges = scene.registry.ranges_of(&scene.digest);
    ranges.sort_by_key(|range| range.start);
    let each: Vec<_> = (0..16).map(|part| part * PART..(part + 1) * PART).collect();
    assert_eq!(ranges, each, "every byte was asked for once");
}

#[tokio::test]
async fn what_fits_into_the_first_question_is_asked_for_whole() {
    let scene = Scene::at_home().await;
    for (len, size, asked) in [
        (None, None, None),
        (None, Some(SIZE), None),
        (Some(0), None, None),
        (Some(SIZE), Some(SIZE), None),
        (Some(SIZE + 1), Some(SIZE), None),
        (Some(SIZE - 1), Some(SIZE), Some(format!("bytes=0-{}", SIZE - 2))),
        (Some(SIZE + 1), None, Some(format!("bytes=0-{SIZE}"))),
    ] {
        scene.registry.forget();
        let body = scene.source().begin(len, size).await.unwrap();
        assert_eq!((body.size, body.offset), (Some(SIZE), 0), "{len:?} of {size:?}");
        assert_eq!(body.whole, asked.is_none(), "{len:?} of {size:?}");
        let sent = scene.registry.log()[0].header("range").map(str::to_owned);
        assert_eq!(sent, asked, "{len:?} of {size:?}");
    }
}

#[tokio::test]
async fn an_upstream_without_ranges_gives_the_whole_at_once() {
    let scene = Scene::at_home().await;
    scene.registry.fails_with(Fault::RangeIgnored);
    let source = scene.source();
    let body = source.begin(Some(PART), Some(SIZE)).await.unwrap();
    assert!(body.whole);
    assert!(collect(body).await.unwrap() == scene.bytes);
    assert_eq!(scene.registry.requests(Kind::Blob), 1, "the whole answer is used, not asked for again");
    let error = source.part(0..PART, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::RangeRefused), "{error:?}");
}

#[tokio::test]
async fn a_first_part_that_is_refused_or_tells_no_size_is_asked_for_whole() {
    for fault in [Fault::RangeUnsatisfiable, Fault::NoTotal] {
        let scene = Scene::behind_a_redirect().await;
        scene.cdn.fails_with(fault.clone());
        let body = scene.source().begin(Some(PART), None).await.unwrap();
        assert_eq!((body.size, body.whole), (Some(SIZE), true), "{fault:?}");
        assert!(collect(body).await.unwrap() == scene.bytes, "{fault:?}");
        assert_eq!(scene.registry.requests(Kind::Blob), 1, "{fault:?}: the address is known");
    }
    let scene = Scene::at_home().await;
    let empty = scene.registry.publish_blob("a/b", Vec::new());
    let source = upstream(&scene.registry).blob_source(&repository("a/b"), &empty);
    let body = source.begin(Some(PART), None).await.unwrap();
    assert_eq!((body.size, body.whole), (Some(0), true), "an empty blob has no first byte to ask for");
    assert!(collect(body).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_total_is_no_matter_where_the_size_is_known() {
    let scene = Scene::at_home().await;
    scene.registry.fails_with(Fault::NoTotal);
    let source = scene.source();
    let body = source.begin(Some(PART), Some(SIZE)).await.unwrap();
    assert_eq!((body.size, body.whole), (Some(SIZE), false));
    scene.fetch(&source, 1..3).await;
}

#[tokio::test]
async fn a_whole_without_a_length_ends_where_the_size_says() {
    let scene = Scene::at_home().await;
    scene.registry.fails_with(Fault::NoLength);
    scene.registry.fails_with(Fault::CutAfter(50));
    let body = scene.source().begin(None, Some(SIZE)).await.unwrap();
    let error = collect(body).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Truncated { got: 50, expected: SIZE }), "{error:?}");
}

#[tokio::test]
async fn sixteen_parts_ask_the_registry_once_for_the_way() {
    let scene = Scene::behind_a_redirect().await;
    scene.registry.fails_with(Fault::RequireToken(TokenRule::default()));
    scene.fetch(&scene.source(), 0..16).await;
    let statuses = scene.registry.requests(Kind::Blob);
    assert_eq!(statuses, 2, "once without a token, once with it");
    assert_eq!(scene.cdn.requests(Kind::Cdn), 16, "no part was asked for twice");
    assert!(scene.cdn.log().iter().all(|request| request.header("authorization").is_none()));
    let mut names: Vec<_> = scene.cdn.log()[15].headers.iter().map(|(name, _)| name.clone()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "host", "range", "user-agent"]);
}

#[tokio::test]
async fn a_registry_that_gives_the_blob_itself_is_shown_the_token_each_time() {
    let scene = Scene::at_home().await;
    scene.registry.fails_with(Fault::RequireToken(TokenRule::default()));
    let source = scene.source();
    scene.fetch(&source, 0..8).await;
    assert_eq!(scene.registry.requests(Kind::Blob), 9, "one was refused for want of a token");
    assert_eq!(scene.registry.requests(Kind::Token), 1);
    scene.redirects();
    scene.fetch(&source, 8..16).await;
    assert_eq!(scene.cdn.requests(Kind::Cdn), 8, "a registry may begin to redirect");
}

#[tokio::test]
async fn an_address_that_expired_is_renewed_by_one_for_all() {
    let scene = Scene::behind_a_redirect().await;
    scene.cdn.fails_on(Kind::Cdn, Fault::ExpiresAfter(8));
    let source = scene.source();
    scene.fetch(&source, 0..16).await;
    assert_eq!(scene.registry.requests(Kind::Blob), 2, "one new address for all that were refused");
    assert_eq!(scene.cdn.ranges_of(&scene.digest).len(), 16, "no part was lost or came twice");
}

#[tokio::test]
async fn every_way_to_say_expired_leads_to_a_new_address() {
    for status in [401, 403, 404, 410] {
        let scene = Scene::behind_a_redirect().await;
        let source = scene.source();
        scene.fetch(&source, 0..1).await;
        scene.cdn.fails_next(1, Kind::Cdn, Fault::Status(status));
        scene.fetch(&source, 1..2).await;
        assert_eq!(scene.registry.requests(Kind::Blob), 2, "{status}");
    }
}

#[tokio::test]
async fn addresses_that_bring_bytes_may_expire_as_often_as_they_like() {
    let scene = Scene::behind_a_redirect().await;
    scene.cdn.fails_on(Kind::Cdn, Fault::ExpiresAfter(1));
    let source = scene.source();
    for part in 0..8 {
        scene.fetch(&source, part..part + 1).await;
    }
    assert_eq!(scene.registry.requests(Kind::Blob), 8, "a download of hours outlives many of them");
}

#[tokio::test]
async fn an_address_that_never_works_is_given_up() {
    let scene = Scene::behind_a_redirect().await;
    scene.cdn.fails_with(Fault::Status(403));
    let source = scene.source();
    let all = join_all((0..16).map(|_| source.part(0..PART, SIZE))).await;
    assert!(all.iter().all(|one| matches!(one, Err(UpstreamError::Status(403)))), "{all:?}");
    assert_eq!(scene.registry.requests(Kind::Blob), 6, "however many wait for it");
}

#[tokio::test]
async fn a_target_that_refuses_all_for_a_while_is_asked_again_afterwards() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    scene.fetch(&source, 0..1).await;
    scene.cdn.fails_with(Fault::Status(403));
    for try_number in 1..=3 {
        scene.registry.forget();
        let all = join_all((0..16).map(|_| source.part(0..PART, SIZE))).await;
        assert!(all.iter().all(|one| matches!(one, Err(UpstreamError::Status(403)))), "{all:?}");
        let asked = scene.registry.requests(Kind::Blob);
        assert!((5..=6).contains(&asked), "try {try_number} asked the registry {asked} times");
    }
    scene.cdn.heals();
    scene.fetch(&source, 1..16).await;
}

#[tokio::test]
async fn a_known_address_that_answers_400_has_expired_and_a_new_one_has_not() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    scene.fetch(&source, 0..1).await;
    scene.cdn.fails_next(1, Kind::Cdn, Fault::Status(400));
    scene.fetch(&source, 1..2).await;
    assert_eq!(scene.registry.requests(Kind::Blob), 2, "a new address for the old one");
    scene.registry.forget();
    scene.cdn.fails_with(Fault::Status(400));
    let error = scene.source().part(0..PART, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Status(400)), "{error:?}");
    assert_eq!(scene.registry.requests(Kind::Blob), 1, "a newer address would say the same");
    scene.registry.forget();
    let all = join_all((0..16).map(|_| source.part(0..PART, SIZE))).await;
    assert!(all.iter().all(|one| matches!(one, Err(UpstreamError::Status(400)))), "{all:?}");
    assert!(scene.registry.requests(Kind::Blob) <= 5, "however many were refused");
}

#[tokio::test]
async fn when_the_one_who_asks_fails_the_next_one_asks() {
    let scene = Scene::at_home().await;
    scene.registry.fails_next(1, Kind::Blob, Fault::Status(500));
    scene.redirects();
    let source = scene.source();
    let all = join_all((0..4).map(|_| source.part(0..PART, SIZE))).await;
    let failed = all.iter().filter(|one| matches!(one, Err(UpstreamError::Status(500)))).count();
    assert_eq!((failed, all.iter().filter(|one| one.is_ok()).count()), (1, 3), "{all:?}");
    assert_eq!(scene.registry.requests(Kind::Blob), 2);
}

#[tokio::test]
async fn those_who_wait_share_the_answer_that_it_is_too_much() {
    for fault in [Fault::TooManyRequests { retry_after: Some(9) }, Fault::Busy { retry_after: "9".into() }] {
        let scene = Scene::at_home().await;
        scene.registry.fails_next(1, Kind::Blob, fault.clone());
        scene.redirects();
        let source = scene.source();
        let all = join_all((0..8).map(|_| source.part(0..PART, SIZE))).await;
        assert!(all.iter().all(Result::is_err), "{fault:?}: {all:?}");
        assert_eq!(scene.registry.requests(Kind::Blob), 1, "{fault:?}: seven more would make it worse");
        scene.fetch(&source, 0..2).await;
    }
}

#[tokio::test]
async fn when_the_one_who_asks_is_dropped_the_next_one_asks() {
    let scene = Scene::behind_a_redirect().await;
    scene.registry.fails_next(1, Kind::Blob, Fault::StallBeforeHeaders);
    let source = scene.source();
    let first = source.part(0..PART, SIZE);
    let asked = async { scene.registry.saw(Kind::Blob, 1).await };
    tokio::select! {
        biased;
        answer = first => panic!("it stalls: {answer:?}"),
        () = asked => {}
    }
    scene.fetch(&source, 0..4).await;
    assert_eq!(scene.registry.requests(Kind::Blob), 2);
}

#[tokio::test]
async fn waiting_for_the_way_ends_like_waiting_for_an_answer() {
    let scene = Scene::behind_a_redirect().await;
    scene.registry.fails_with(Fault::StallBeforeHeaders);
    let source = scene.source();
    pause();
    let began = Instant::now();
    let all = join_all((0..3).map(|_| source.part(0..PART, SIZE))).await;
    assert!(all.iter().all(|one| matches!(one, Err(UpstreamError::Timeout))), "{all:?}");
    assert!(began.elapsed() <= Duration::from_secs(41), "nobody waits for all before: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_target_that_is_only_unwell_keeps_its_address() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    for fault in [Fault::Status(502), Fault::TooManyRequests { retry_after: None }, Fault::WrongContentRange]
    {
        scene.cdn.fails_next(1, Kind::Cdn, fault.clone());
        assert!(source.part(0..PART, SIZE).await.is_err(), "{fault:?}");
        scene.fetch(&source, 0..1).await;
    }
    assert_eq!(scene.registry.requests(Kind::Blob), 1);
}

#[tokio::test]
async fn a_target_may_lead_on_but_not_astray() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    scene.fetch(&source, 0..1).await;
    scene.cdn.fails_next(1, Kind::Cdn, Fault::Location(format!("{}/cdn/{}", scene.cdn.url(), scene.digest)));
    scene.fetch(&source, 1..2).await;
    scene.cdn.fails_next(1, Kind::Cdn, Fault::Location("http://10.0.0.1/x".into()));
    let error = source.part(0..PART, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol("it led away from https")), "{error:?}");
    assert_eq!(scene.registry.requests(Kind::Blob), 1);
}

#[tokio::test]
async fn another_tag_from_the_same_host_is_another_blob() {
    for scene in [Scene::at_home().await, Scene::behind_a_redirect().await] {
        let source = scene.source();
        scene.fetch(&source, 0..2).await;
        for registry in [&scene.registry, &scene.cdn] {
            registry.fails_with(Fault::ChangedEtag);
        }
        for error in [
            source.part(0..PART, SIZE).await.unwrap_err(),
            source.clone().begin(None, Some(SIZE)).await.unwrap_err(),
        ] {
            assert!(matches!(error, UpstreamError::Changed), "{error:?}");
            assert_eq!((error.failure(), error.is_transient()), (Failure::Mismatch, false));
        }
        let begun_anew = scene.source().begin(Some(PART), None).await;
        assert!(begun_anew.is_ok(), "a new source compares with nothing older: {begun_anew:?}");
    }
}

#[tokio::test]
async fn another_host_may_have_another_tag() {
    let scene = Scene::at_home().await;
    let source = scene.source();
    scene.fetch(&source, 0..1).await;
    scene.redirects();
    scene.cdn.fails_with(Fault::ChangedEtag);
    scene.fetch(&source, 1..2).await;
    let error = source.part(0..PART, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Changed), "each host is held to its own word: {error:?}");
}

#[tokio::test]
async fn another_size_is_another_blob() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    scene.fetch(&source, 0..1).await;
    scene.cdn.fails_next(1, Kind::Cdn, Fault::WrongTotal);
    let error = source.part(0..PART, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Changed), "{error:?}");
    scene.cdn.fails_next(1, Kind::Cdn, Fault::LongBody);
    let error = source.begin(None, Some(SIZE)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Changed), "{error:?}");
    scene.fetch(&source, 1..2).await;
}

#[tokio::test]
async fn a_size_that_was_never_true_is_a_lie() {
    let scene = Scene::at_home().await;
    scene.registry.fails_with(Fault::WrongTotal);
    for answer in
        [scene.source().begin(Some(PART), Some(SIZE)).await, scene.source().part(0..PART, SIZE).await]
    {
        assert!(matches!(answer, Err(UpstreamError::OtherPart)), "the whole may be true: {answer:?}");
    }
    let answer = scene.source().begin(None, Some(SIZE + 1)).await;
    assert!(matches!(answer, Err(UpstreamError::Protocol(_))), "the whole is none: {answer:?}");
}

#[tokio::test]
async fn a_lie_is_not_remembered() {
    let scene = Scene::at_home().await;
    let source = scene.source();
    scene.registry.fails_next(1, Kind::Blob, Fault::WrongTotal);
    assert!(source.part(0..PART, SIZE).await.is_err());
    scene.fetch(&source, 0..2).await;
}

#[tokio::test]
async fn only_the_part_asked_for_is_taken() {
    let scene = Scene::at_home().await;
    for (fault, lies_about_parts) in [
        (Fault::WrongContentRange, true),
        (Fault::Status(206), true),
        (Fault::LongBody, true),
        (Fault::Status(204), false),
        (Fault::ContentEncoding, false),
    ] {
        scene.registry.heals();
        scene.registry.fails_with(fault.clone());
        for answer in
            [scene.source().begin(Some(PART), Some(SIZE)).await, scene.source().part(PART..SIZE, SIZE).await]
        {
            let error = answer.expect_err("another part");
            assert_eq!((error.failure(), error.is_transient()), (Failure::Mismatch, false));
            let is_other_part = matches!(error, UpstreamError::OtherPart);
            assert_eq!(is_other_part, lies_about_parts, "{fault:?}: {error:?}");
            assert!(is_other_part || matches!(error, UpstreamError::Protocol(_)), "{fault:?}: {error:?}");
        }
    }
    scene.registry.heals();
    scene.registry.fails_with(Fault::UnaskedPartial);
    let answer = scene.source().begin(None, Some(SIZE)).await;
    assert!(matches!(answer, Err(UpstreamError::OtherPart)), "a part nobody asked for: {answer:?}");
    scene.registry.forget();
    let no_bytes = 5..5;
    for range in [no_bytes, 0..SIZE + 1] {
        assert!(matches!(scene.source().part(range, SIZE).await, Err(UpstreamError::Protocol(_))));
    }
    assert_eq!(scene.registry.requests(Kind::Blob), 0, "a part that cannot be is not asked for");
}

#[tokio::test]
async fn a_busy_upstream_says_how_long_to_wait() {
    let scene = Scene::at_home().await;
    for (retry_after, seconds) in [
        ("3", Some(3)),
        ("86400", Some(300)),
        ("Sat, 21 Nov 2026 12:00:20 GMT", Some(20)),
        ("Sat, 21 Nov 2026 11:00:00 GMT", Some(0)),
        ("later", None),
    ] {
        scene.registry.fails_next(1, Kind::Blob, Fault::Busy { retry_after: retry_after.into() });
        let error = scene.source().begin(Some(PART), None).await.unwrap_err();
        assert_eq!((error.failure(), error.is_transient()), (Failure::Upstream, true));
        match (error, seconds) {
            (UpstreamError::Busy { retry_after: told }, Some(seconds)) => {
                assert_eq!(told, Duration::from_secs(seconds), "{retry_after}");
            }
            (UpstreamError::Status(503), None) => {}
            (error, _) => panic!("{retry_after}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn more_requests_than_a_host_likes_are_told_so() {
    let scene = Scene::behind_a_redirect().await;
    scene.cdn.fails_on(Kind::Cdn, Fault::TooManyConnections { max: 4, retry_after: Some(1) });
    scene.cdn.fails_on(Kind::Cdn, Fault::StallAfter(10));
    let source = scene.source();
    let all = join_all((0..8).map(|part| source.part(part * PART..(part + 1) * PART, SIZE))).await;
    let busy = all
        .iter()
        .filter(|one| matches!(one, Err(UpstreamError::Busy { retry_after }) if retry_after.as_secs() == 1));
    assert_eq!((busy.count(), all.iter().filter(|one| one.is_ok()).count()), (4, 4), "{all:?}");
    assert_eq!(scene.registry.requests(Kind::Blob), 1, "a busy host keeps its address");
}

#[tokio::test]
async fn parts_go_side_by_side_and_their_connections_are_used_again() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    let parts = |from: u64| (from..from + 8).map(|part| source.part(part * PART..(part + 1) * PART, SIZE));
    scene.cdn.fails_on(Kind::Cdn, Fault::StallAfter(10));
    let bodies = join_all(parts(0)).await;
    assert_eq!(scene.cdn.peak_connections(), 8, "one connection for each body");
    scene.cdn.heals();
    let read = |bodies: Vec<Result<BlobBody, UpstreamError>>| {
        join_all(bodies.into_iter().map(|body| async { collect(body.unwrap()).await.unwrap() }))
    };
    read(bodies).await;
    for _ in 0..3 {
        read(join_all(parts(8)).await).await;
    }
    assert_eq!(scene.cdn.connections(), 8, "a body read to its end leaves its connection to the next");
    assert_eq!(scene.cdn.requests(Kind::Cdn), 32);
}

#[tokio::test]
async fn a_connection_is_only_used_again_after_the_end_of_its_body_was_seen() {
    let scene = Scene::at_home().await;
    let source = scene.source();
    let mut body = source.part(0..PART, SIZE).await.unwrap();
    let mut got = 0;
    while got < PART {
        got += body.stream.next().await.unwrap().unwrap().len() as u64;
    }
    assert!(body.stream.next().await.is_none(), "the end is something to ask for, too");
    scene.fetch(&source, 1..2).await;
    assert_eq!(scene.registry.connections(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_says_nothing_about_the_upstream() {
    let scene = Scene::at_home().await;
    let upstream = upstream(&scene.registry);
    let source = upstream.blob_source(&repository("a/b"), &scene.digest);
    scene.registry.fails_next(1, Kind::Blob, Fault::CutAfter(100));
    assert!(collect(source.part(0..PART, SIZE).await.unwrap()).await.is_err());
    assert_eq!(upstream.health().reachable, Some(true));
    scene.registry.fails_with(Fault::RefuseConnection);
    assert!(source.part(0..PART, SIZE).await.is_err());
    assert_eq!(upstream.health().reachable, Some(false));
}

#[tokio::test]
async fn a_source_shows_no_address() {
    let scene = Scene::behind_a_redirect().await;
    let source = scene.source();
    scene.fetch(&source, 0..1).await;
    assert!(!format!("{source:?}").contains("Signature"));
}

#[tokio::test]
async fn an_error_that_never_ends_is_told_all_the_same() {
    let scene = Scene::at_home().await;
    scene.registry.fails_with(Fault::Status(500));
    scene.registry.fails_with(Fault::StallAfter(1));
    let source = scene.source();
    pause();
    let began = Instant::now();
    let error = source.part(0..PART, SIZE).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Status(500)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "nobody waits for the rest of an error for long");
}
