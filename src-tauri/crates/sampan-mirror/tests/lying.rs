//! Every lie an upstream can tell about a blob (SECURITY.md 5.2), before its first byte, in its middle, and without the
//! cache: what a client gets whole is right, what is kept is right, and an upstream that is honest again is believed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Clients, Options, TestMirror, body};
use futures_util::StreamExt as _;
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, Kind};

const SIZE: usize = 6_000_000;
/// Registries and mirrors at once.
const CELLS_AT_ONCE: usize = 12;
/// Nothing here waits for an outage to end: an answer that takes so long hangs.
const HANGS: Duration = Duration::from_secs(30);

/// What a connection may have had on its way when a mirror was ended.
const ON_ITS_WAY: u64 = 400_000;

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// Every byte, and the right ones.
    Right,
    /// An error status, or a body that breaks off.
    Never,
    /// What must not be: complete and wrong.
    Wrong,
    /// What must not be either.
    Hung,
}

/// When the upstream begins to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Miss,
    /// An honest first half is on disk, from a mirror that was ended in the middle.
    Resume,
    Paused,
}

async fn get(mirror: &TestMirror, path: &str, expected: &[u8]) -> Gets {
    let answer = async {
        let answer = mirror.get(path).await;
        if answer.status() == 200 { body(answer).await } else { None }
    };
    match tokio::time::timeout(HANGS, answer).await {
        Err(_) => Gets::Hung,
        Ok(None) => Gets::Never,
        Ok(Some(bytes)) if bytes == expected => Gets::Right,
        Ok(Some(_)) => Gets::Wrong,
    }
}

/// One lie at one time: what is wrong about the outcome, if anything.
async fn cell(fault: Fault, when: When, expected: Gets, clients: Clients) -> Option<String> {
    let began = Instant::now();
    let options = || Options {
        outage_wait: Duration::from_secs(2),
        clients: Some(clients.clone()),
        ..Options::default()
    };
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[SIZE]));
    let layer = &image.layers()[0];
    let path = format!("/v2/library/alpine/blobs/{}", layer.digest);
    let mut mirror = TestMirror::with(&upstream, options()).await;
    // So that it knows the size.
    body(mirror.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    match when {
        When::Miss => {}
        When::Paused => mirror.mirror.set_paused(true),
        When::Resume => {
            upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
            let answer = mirror.get(&path).await;
            upstream.sent(Kind::Blob, 3_000_000).await;
            mirror = mirror.restart_with(&upstream, options()).await;
            drop(answer);
            upstream.heals();
        }
    }
    let manifests = upstream.body_bytes(Kind::Manifest);
    let before = upstream.body_bytes(Kind::Blob);
    let once = costs_nothing_more(&fault);
    let name = format!("{fault:?} {when:?}");
    upstream.fails_on(Kind::Blob, fault);
    let got = get(&mirror, &path, &layer.bytes).await;
    // With what was on its way when the first mirror was ended.
    let fetched = upstream.pulled_bytes() - manifests;
    let too_much = once && fetched > SIZE as u64 * 105 / 100 + if before > 0 { ON_ITS_WAY } else { 0 };
    let kept = mirror.file(&layer.digest).exists();
    upstream.heals();
    mirror.mirror.set_paused(false);
    let then = get(&mirror, &path, &layer.bytes).await;
    let kept_then = mirror.file(&layer.digest).exists();
    let keeps = expected == Gets::Right && when != When::Paused;
    let bad = got != expected || kept != keeps || too_much || then != Gets::Right || !kept_then;
    bad.then(|| {
        let took = began.elapsed();
        format!("{name}: {got:?}, kept: {kept}, {fetched} bytes; honest again: {then:?}, kept: {kept_then}; {took:?}")
    })
}

/// Whether every byte that comes is of use, so that none needs to come twice.
fn costs_nothing_more(fault: &Fault) -> bool {
    matches!(fault, Fault::CutAfter(_) | Fault::TruncatedChunked | Fault::NoLength | Fault::RedirectHops(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_upstream_says_of_a_blob_nothing_wrong_is_complete_or_kept() {
    use Gets::{Never, Right};
    let table = [
        // The size is known from the manifest.
        (Fault::NoLength, [Right, Right, Right]),
        (Fault::TwoLengths, [Never, Never, Never]),
        (Fault::ShortBody, [Never, Never, Never]),
        (Fault::LongBody, [Never, Never, Never]),
        (Fault::EndlessBody, [Never, Never, Never]),
        // What is on disk from an honest time is not asked for again.
        (Fault::CorruptByte(1000), [Never, Right, Never]),
        (Fault::ContentEncoding, [Never, Never, Never]),
        (Fault::Html, [Never, Never, Never]),
        // Parts are asked for, and honest; without the cache the whole is.
        (Fault::UnaskedPartial, [Right, Right, Never]),
        (Fault::RangeIgnored, [Right, Right, Right]),
        (Fault::RangeUnsatisfiable, [Right, Right, Right]),
        (Fault::WrongContentRange, [Right, Right, Right]),
        (Fault::WrongTotal, [Right, Right, Right]),
        (Fault::ChangedEtag, [Right, Right, Right]),
        (Fault::NoTotal, [Right, Right, Right]),
        // More than 64 KiB, and more than a hundred headers, is no head.
        (Fault::HugeHeader(70_000), [Never, Never, Never]),
        (Fault::ManyHeaders(300), [Never, Never, Never]),
        (Fault::TruncatedChunked, [Right, Right, Right]),
        (Fault::Multipart, [Right, Right, Right]),
        (Fault::CutAfter(1_000_000), [Right, Right, Right]),
        (Fault::ResetAfter(1_000_000), [Right, Right, Right]),
        (Fault::RedirectLoop, [Never, Never, Never]),
        (Fault::RedirectHops(3), [Right, Right, Right]),
    ];
    let clients = Clients::new();
    let cells = table.into_iter().flat_map(|(fault, expected)| {
        let whens = [When::Miss, When::Resume, When::Paused];
        let clients = clients.clone();
        whens
            .into_iter()
            .zip(expected)
            .map(move |(when, gets)| cell(fault.clone(), when, gets, clients.clone()))
    });
    let wrong: Vec<String> = futures_util::stream::iter(cells)
        .buffer_unordered(CELLS_AT_ONCE)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_first_answer_that_drips_is_left_behind() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[SIZE]));
    let layer = &image.layers()[0];
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    upstream.fails_next(1, Kind::Blob, Fault::Drip { every: Duration::from_millis(100) });
    let began = Instant::now();
    let path = format!("/v2/library/alpine/blobs/{}", layer.digest);
    assert_eq!(get(&mirror, &path, &layer.bytes).await, Gets::Right);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
