//! Every lie of an upstream (SECURITY.md 5.2) about manifests, tokens, tags and referrers, when nothing is held and when
//! something is: nothing wrong is answered or kept, no token leaves for anybody else, nothing hangs. Blobs are in `lying.rs`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Clients, Options, TestMirror, body};
use futures_util::StreamExt as _;
use sampan_testkit::{FakeRegistry, Fault, Kind, TokenRule};

/// Registries and mirrors at once.
const CELLS_AT_ONCE: usize = 16;
/// A client gives a mirror 30 s for the head of an answer (CLIENTS.md 2); what is held is answered far sooner.
const HANGS: Duration = Duration::from_secs(25);
const REVALIDATES_WITHIN: Duration = Duration::from_secs(2);
const MANIFEST: &str = "/v2/library/alpine/manifests/3.20";
const TAGS: &str = "/v2/library/alpine/tags/list";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Manifest,
    Tags,
    Referrers,
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gets {
    /// What the registry holds, or what is held of it: nothing else is complete.
    Right,
    /// This status.
    Status(u16),
    Wrong(String),
    Broken,
    Hung,
}
use Gets::{Right, Status};

/// One lie, before anything is held and after.
struct Lie {
    fault: Fault,
    /// Which requests it bends.
    kind: Kind,
    what: What,
    miss: Gets,
    held: Gets,
}

/// Lies about a manifest: what is held is served where the upstream does not say no.
fn about_manifests() -> Vec<Lie> {
    let lie = |fault, miss, held| Lie { fault, kind: Kind::Manifest, what: What::Manifest, miss, held };
    let refused = |fault| lie(fault, Status(502), Right);
    let unavailable = |fault| lie(fault, Status(503), Right);
    let away = |fault| lie(fault, Status(404), Status(404));
    let harmless = |fault| lie(fault, Right, Right);
    vec![
        refused(Fault::WrongDigestHeader),
        harmless(Fault::NoDigestHeader),
        refused(Fault::CorruptByte(40)),
        refused(Fault::ShortBody),
        refused(Fault::LongBody),
        refused(Fault::EndlessBody),
        refused(Fault::Html),
        refused(Fault::ContentEncoding),
        refused(Fault::UnaskedPartial),
        harmless(Fault::RangeUnsatisfiable),
        harmless(Fault::NoLength),
        harmless(Fault::ChangedEtag),
        refused(Fault::TwoLengths),
        unavailable(Fault::CutAfter(20)),
        unavailable(Fault::ResetAfter(20)),
        unavailable(Fault::TruncatedChunked),
        unavailable(Fault::StallBeforeHeaders),
        unavailable(Fault::StallAfter(20)),
        unavailable(Fault::InformationalFlood),
        unavailable(Fault::RefuseConnection),
        refused(Fault::HugeHeader(70_000)),
        refused(Fault::ManyHeaders(300)),
        refused(Fault::RedirectLoop),
        refused(Fault::RedirectTo("http://127.0.0.1:9".into())),
        refused(Fault::Location("file:///etc/passwd".into())),
        unavailable(Fault::Status(500)),
        unavailable(Fault::Status(502)),
        unavailable(Fault::Status(418)),
        unavailable(Fault::TooManyRequests { retry_after: None }),
        unavailable(Fault::TooManyRequests { retry_after: Some(1_000_000_000) }),
        unavailable(Fault::Busy { retry_after: "Sat, 21 Nov 2099 12:00:00 GMT".into() }),
        away(Fault::Status(401)),
        away(Fault::Status(403)),
        away(Fault::Status(404)),
    ]
}

/// Lies of a token server: about what is held nobody else's word is needed.
fn about_tokens() -> Vec<Lie> {
    let lie = |fault, miss, held| Lie { fault, kind: Kind::Token, what: What::Manifest, miss, held };
    let refused = |fault| lie(fault, Status(502), Right);
    let unavailable = |fault| lie(fault, Status(503), Right);
    let rule = |expires_in| Fault::RequireToken(TokenRule { expires_in, ..TokenRule::default() });
    vec![
        lie(rule(Some(-1)), Right, Right),
        lie(rule(Some(0)), Right, Right),
        lie(rule(Some(i64::MAX)), Right, Right),
        lie(rule(None), Right, Right),
        refused(Fault::Html),
        refused(Fault::EndlessBody),
        refused(Fault::ShortBody),
        unavailable(Fault::CutAfter(5)),
        unavailable(Fault::ResetAfter(5)),
        unavailable(Fault::StallBeforeHeaders),
        unavailable(Fault::StallAfter(5)),
        unavailable(Fault::InformationalFlood),
        refused(Fault::HugeHeader(70_000)),
        unavailable(Fault::Status(500)),
        unavailable(Fault::TooManyRequests { retry_after: Some(1_000_000_000) }),
        lie(Fault::Status(403), Status(404), Status(404)),
    ]
}

/// Lies about lists: tags that are held are listed, and referrers are always answered.
fn about_lists() -> Vec<Lie> {
    let faults = [
        Fault::ShortBody,
        Fault::LongBody,
        Fault::EndlessBody,
        Fault::Html,
        Fault::ContentEncoding,
        Fault::UnaskedPartial,
        Fault::TwoLengths,
        Fault::CutAfter(9),
        Fault::ResetAfter(9),
        Fault::TruncatedChunked,
        Fault::HugeHeader(70_000),
        Fault::RedirectLoop,
        Fault::Location("file:///etc/passwd".into()),
        Fault::Status(500),
        Fault::TooManyRequests { retry_after: Some(1_000_000_000) },
        Fault::RefuseConnection,
    ];
    let lies = |fault: &Fault| {
        use Fault::{
            ContentEncoding, EndlessBody, Html, HugeHeader, Location, LongBody, RedirectLoop, ShortBody,
            TwoLengths, UnaskedPartial,
        };
        let of_meaning = matches!(fault, ShortBody | LongBody | EndlessBody | Html | ContentEncoding);
        of_meaning
            || matches!(fault, UnaskedPartial | RedirectLoop | Location(_) | TwoLengths | HugeHeader(_))
    };
    let tags = faults.iter().map(|fault| {
        let miss = Status(if lies(fault) { 502 } else { 503 });
        Lie { fault: fault.clone(), kind: Kind::Tags, what: What::Tags, miss, held: Right }
    });
    let referrers = faults.iter().map(|fault| {
        // Without a list an empty one is right: it is no truth, and is not kept as one.
        Lie { fault: fault.clone(), kind: Kind::Referrers, what: What::Referrers, miss: Right, held: Right }
    });
    tags.chain(referrers).collect()
}

impl Lie {
    /// What is wrong about the outcome, if anything.
    async fn told(self, held: bool, clients: Clients) -> Option<String> {
        let name = format!("{:?} of {:?} for {:?}, held: {held}", self.fault, self.kind, self.what);
        let upstream = FakeRegistry::start().await;
        let image = upstream.publish("library/alpine:3.20");
        let referrer = upstream.publish_referrer("library/alpine", &image.digest, "x.sbom").to_string();
        let options =
            Options { revalidate_timeout: REVALIDATES_WITHIN, clients: Some(clients), ..Options::default() };
        let mirror = TestMirror::with(&upstream, options).await;
        let path = match self.what {
            What::Manifest => MANIFEST.to_owned(),
            What::Tags => TAGS.to_owned(),
            What::Referrers => format!("/v2/library/alpine/referrers/{}", image.digest),
        };
        if held {
            // Without a token: one that was issued would be used again.
            body(mirror.get(MANIFEST).await).await.unwrap();
            body(mirror.get(&path).await).await.unwrap();
        }
        if self.kind == Kind::Token {
            upstream.fails_on(Kind::Manifest, Fault::RequireToken(TokenRule::default()));
        }
        // The challenge is the registry's, whatever its token server does; and a dead registry is dead for everything.
        if matches!(self.fault, Fault::RequireToken(_)) {
            upstream.fails_on(Kind::Manifest, self.fault.clone());
        } else if self.fault == Fault::RefuseConnection {
            upstream.fails_with(Fault::RefuseConnection);
        } else {
            upstream.fails_on(self.kind, self.fault.clone());
        }
        let began = Instant::now();
        let right = |bytes: &[u8]| match self.what {
            What::Manifest => bytes == image.bytes,
            What::Tags => bytes == br#"{"name":"library/alpine","tags":["3.20"]}"#,
            What::Referrers => {
                let list: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
                let known = list.and_then(|list| list["manifests"].as_array().cloned());
                known.is_some_and(|all| {
                    if held { all.len() == 1 && all[0]["digest"] == *referrer } else { all.len() <= 1 }
                })
            }
        };
        let (got, headers) = got(&mirror, &path, right).await;
        let took = began.elapsed();
        let expected = if held { &self.held } else { &self.miss };
        let late = held && took > REVALIDATES_WITHIN * 2 + Duration::from_secs(8);
        let kept = mirror.published();
        // Nothing but what is right is ever kept, and an upstream that is honest again is believed.
        let kept_wrong = !held && self.what == What::Manifest && got != Right && kept > 0;
        let leaked = leaks(&upstream, &headers);
        upstream.heals();
        let (then, _) = self::got(&mirror, MANIFEST, |bytes| bytes == image.bytes).await;
        // Who said "too many" is left alone for a while, honest or not.
        let rests =
            matches!((&self.fault, self.kind), (Fault::TooManyRequests { .. }, Kind::Manifest)) && !held;
        let believed = if rests { Status(503) } else { Right };
        let bad = got != *expected || late || kept_wrong || leaked || then != believed;
        bad.then(|| format!("{name}: {got:?} after {took:?}, expected {expected:?}, kept {kept}, leaked: {leaked}; then {then:?}"))
    }
}

/// What a client gets, and everything it was told in the head.
async fn got(mirror: &TestMirror, path: &str, right: impl Fn(&[u8]) -> bool) -> (Gets, String) {
    let answer = async {
        let answer = mirror.get(path).await;
        let (status, head) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        match body(answer).await {
            None => (Gets::Broken, head),
            Some(bytes) if status == 200 && right(&bytes) => (Right, head),
            Some(bytes) if status == 200 => {
                (Gets::Wrong(String::from_utf8_lossy(&bytes).chars().take(200).collect()), head)
            }
            Some(bytes) => (Status(status), head + &String::from_utf8_lossy(&bytes)),
        }
    };
    tokio::time::timeout(HANGS, answer).await.unwrap_or_else(|_| (Gets::Hung, String::new()))
}

/// Whether a token of this registry's is in what the client was told.
fn leaks(upstream: &FakeRegistry, told: &str) -> bool {
    let log = upstream.log();
    let mut tokens =
        log.iter().filter_map(|request| request.header("authorization")?.strip_prefix("Bearer "));
    tokens.any(|token| told.contains(token)) || told.to_ascii_lowercase().contains("www-authenticate")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_upstream_says_nothing_wrong_is_answered_and_nothing_hangs() {
    let clients = Clients::new();
    let lies = || about_manifests().into_iter().chain(about_tokens()).chain(about_lists());
    let both = lies().map(|lie| (lie, false)).chain(lies().map(|lie| (lie, true)));
    let cells = both.map(|(lie, held)| lie.told(held, clients.clone()));
    let wrong: Vec<String> = futures_util::stream::iter(cells)
        .buffer_unordered(CELLS_AT_ONCE)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_head_that_says_something_else_than_the_get_costs_nothing() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    upstream.fails_next(1, Kind::Manifest, Fault::WrongDigestHeader);
    let answer = mirror.get(MANIFEST).await;
    assert_eq!(body(answer).await.unwrap(), image.bytes);
    assert_eq!(mirror.published(), 1);
}

#[tokio::test]
async fn a_token_goes_to_its_registry_and_to_nobody_it_leads_to() {
    let (upstream, elsewhere) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = upstream.publish("library/alpine:3.20");
    elsewhere.hold(&image);
    let mirror = TestMirror::in_front_of(&upstream).await;
    upstream.fails_with(Fault::RequireToken(TokenRule::default()));
    for kind in [Kind::Manifest, Kind::Tags, Kind::Referrers, Kind::Token] {
        upstream.fails_on(kind, Fault::RedirectTo(elsewhere.url()));
        upstream.fails_on(kind, Fault::Location(format!("{}/v2/", elsewhere.url())));
        for path in [MANIFEST, TAGS, &format!("/v2/library/alpine/referrers/{}", image.digest)] {
            body(mirror.get(path).await).await;
        }
        upstream.heals();
        upstream.fails_with(Fault::RequireToken(TokenRule::default()));
    }
    body(mirror.get(MANIFEST).await).await.unwrap();
    upstream.fails_on(Kind::Blob, Fault::RedirectTo(elsewhere.url()));
    let layer = &image.layers()[0];
    let answer = mirror.get(&format!("/v2/library/alpine/blobs/{}", layer.digest)).await;
    assert_eq!(body(answer).await.unwrap(), layer.bytes, "blobs are what may be elsewhere");
    let tokens = upstream.log().iter().filter(|request| request.header("authorization").is_some()).count();
    assert!(tokens > 0, "the registry itself was shown one");
    for request in elsewhere.log() {
        assert_eq!((request.kind, request.header("authorization")), (Kind::Cdn, None), "{request:?}");
    }
}
