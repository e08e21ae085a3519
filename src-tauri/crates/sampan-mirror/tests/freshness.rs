//! Tags over time: how often they are asked about, what is frozen, what is answered while nobody can be asked.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Options, TestMirror, body};
use sampan_mirror::{Check, Freshness, Policy, Refreshed, TagAnswers};
use sampan_oci::{Digest, ImageName, Millis, Tag};
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, Kind};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const TAG: &str = "/v2/library/alpine/manifests/edge";

fn publish(upstream: &FakeRegistry, seed: u64) -> Image {
    upstream.publish_image("library/alpine:edge", &ImageSpec::new(seed, &[500]))
}

fn alpine() -> (ImageName, Tag) {
    ("docker.io/library/alpine".parse().unwrap(), "edge".parse().unwrap())
}

fn policy(check: Check, stale_max: Option<Duration>) -> Options {
    let freshness = Freshness::new([("docker.io/library/*".parse().unwrap(), Policy { check, stale_max })]);
    Options { freshness, ..Options::default() }
}

/// What `path` is answered with: the status, `X-Sampan`, and the digest.
async fn pull(mirror: &TestMirror, path: &str) -> (u16, String, Option<Digest>) {
    let answer = mirror.get(path).await;
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, sampan) = (answer.status().as_u16(), header("x-sampan").unwrap_or_default());
    assert_eq!(sampan == "stale", header("warning").is_some_and(|warning| warning.starts_with("110 ")));
    let digest = header("docker-content-digest").map(|digest| digest.parse().unwrap());
    body(answer).await.unwrap();
    (status, sampan, digest)
}

#[tokio::test]
async fn a_tag_is_asked_about_at_most_as_often_as_its_policy_says() {
    let upstream = FakeRegistry::start().await;
    let old = publish(&upstream, 1);
    let mirror = TestMirror::with(&upstream, policy(Check::Every(Duration::from_mins(15)), None)).await;
    assert_eq!(pull(&mirror, TAG).await, (200, "miss".into(), Some(old.digest)));
    let new = publish(&upstream, 2);
    upstream.forget();
    for _ in 0..5 {
        mirror.clock.advance(Duration::from_secs(170));
        assert_eq!(pull(&mirror, TAG).await, (200, "hit".into(), Some(old.digest)));
    }
    assert_eq!(upstream.log(), [], "14 minutes are not 15");
    mirror.clock.advance(Duration::from_secs(51));
    assert_eq!(pull(&mirror, TAG).await, (200, "miss".into(), Some(new.digest)), "it moved");
    // The clock is set back by a year: nobody knows how long ago that was.
    mirror.clock.set(Millis(1_735_732_800_000));
    assert_eq!(pull(&mirror, TAG).await.1, "revalidated");
    assert_eq!(pull(&mirror, TAG).await.1, "hit", "and by the clock of now it was just asked");
    assert_eq!(mirror.mirror.tag_answers(), TagAnswers { unasked: 6, ..TagAnswers::default() });
}

#[tokio::test]
async fn a_tag_that_is_asked_about_on_request_moves_when_a_person_wants_it() {
    let upstream = FakeRegistry::start().await;
    let old = publish(&upstream, 1);
    let mirror = TestMirror::with(&upstream, policy(Check::OnRequest, None)).await;
    pull(&mirror, TAG).await;
    let new = publish(&upstream, 2);
    mirror.clock.advance(Duration::from_hours(24 * 400));
    assert_eq!(pull(&mirror, TAG).await, (200, "hit".into(), Some(old.digest)));
    let (image, tag) = alpine();
    let moved = Refreshed::Moved { from: Some(old.digest), to: new.digest };
    assert_eq!(mirror.mirror.refresh(&image, &tag).await, moved);
    assert_eq!(mirror.mirror.refresh(&image, &tag).await, Refreshed::Current(new.digest));
    upstream.forget();
    assert_eq!(pull(&mirror, TAG).await, (200, "hit".into(), Some(new.digest)));
    mirror.mirror.set_freshness(Freshness::new([(
        "*".parse().unwrap(),
        Policy { check: Check::Never, stale_max: None },
    )]));
    assert_eq!(mirror.mirror.refresh(&image, &tag).await, Refreshed::Never);
    assert_eq!(upstream.log(), [], "a new policy holds at once");
}

#[tokio::test]
async fn a_tag_that_is_gone_is_not_served_in_a_later_outage_and_comes_back_with_its_registry() {
    let upstream = FakeRegistry::start().await;
    let image = publish(&upstream, 1);
    let mirror = TestMirror::in_front_of(&upstream).await;
    pull(&mirror, TAG).await;
    upstream.fails_on(Kind::Manifest, Fault::Status(404));
    assert_eq!(pull(&mirror, TAG).await.0, 404);
    upstream.heals();
    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(pull(&mirror, TAG).await.0, 503, "what is gone is not held under that name");
    let by_digest = format!("/v2/library/alpine/manifests/{}", image.digest);
    assert_eq!(pull(&mirror, &by_digest).await.0, 200, "its bytes are");
    let entry = mirror.store.images().await.unwrap().remove(0);
    assert!(entry.gone.is_some() && entry.history.len() == 1, "{entry:?}");
    upstream.heals();
    assert_eq!(pull(&mirror, TAG).await.0, 200);
    assert_eq!(mirror.store.images().await.unwrap()[0].gone, None);
}

#[tokio::test]
async fn a_frozen_tag_answers_its_digest_whatever_the_upstream_says() {
    let upstream = FakeRegistry::start().await;
    let old = publish(&upstream, 1);
    let mirror = TestMirror::in_front_of(&upstream).await;
    pull(&mirror, TAG).await;
    let new = publish(&upstream, 2);
    assert_eq!(pull(&mirror, TAG).await.2, Some(new.digest));
    let (image, tag) = alpine();
    assert!(mirror.store.freeze(&image, &tag, &old.digest).await.unwrap());
    upstream.forget();
    upstream.fails_on(Kind::Manifest, Fault::Status(404));
    let mirror = mirror.restart(&upstream).await;
    assert_eq!(pull(&mirror, TAG).await, (200, "hit".into(), Some(old.digest)));
    assert_eq!(mirror.mirror.refresh(&image, &tag).await, Refreshed::Frozen(old.digest));
    let by_digest = format!("/v2/library/alpine/manifests/{}", new.digest);
    assert_eq!(
        pull(&mirror, &by_digest).await,
        (200, "hit".into(), Some(new.digest)),
        "the other is held too"
    );
    assert_eq!(upstream.log(), [], "nobody was asked");
    upstream.heals();
    // Damaged, it is still what the tag means.
    mirror.store.quarantine(&old.digest).await.unwrap();
    assert_eq!(pull(&mirror, TAG).await, (200, "miss".into(), Some(old.digest)), "fetched by its digest");
    assert!(mirror.store.unfreeze(&image, &tag).await.unwrap());
    assert_eq!(pull(&mirror, TAG).await.2, Some(new.digest));
}

#[tokio::test]
async fn a_stale_tag_is_served_up_to_the_age_its_policy_allows() {
    let upstream = FakeRegistry::start().await;
    publish(&upstream, 1);
    let week = Duration::from_hours(7 * 24);
    let mirror = TestMirror::with(&upstream, policy(Check::Always, Some(week))).await;
    pull(&mirror, TAG).await;
    upstream.fails_with(Fault::RefuseConnection);
    mirror.clock.advance(week);
    assert_eq!(pull(&mirror, TAG).await.1, "stale");
    mirror.clock.advance(Duration::from_secs(1));
    let answer = mirror.get(TAG).await;
    assert_eq!(answer.status(), 503);
    let told = String::from_utf8(body(answer).await.unwrap()).unwrap();
    assert!(told.contains("freshness policy"), "{told}");
}

#[tokio::test]
async fn a_dead_upstream_costs_a_hundred_pulls_few_connections_and_one_wait() {
    let upstream = FakeRegistry::start().await;
    let image = publish(&upstream, 1);
    let options = Options { revalidate_timeout: Duration::from_millis(300), ..Options::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    pull(&mirror, TAG).await;
    upstream.forget();
    upstream.fails_with(Fault::StallBeforeHeaders);
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        assert_eq!(pull(&mirror, TAG).await, (200, "stale".into(), Some(image.digest)));
        took.push(began.elapsed());
    }
    let mut took = took.split_off(1);
    took.sort_unstable();
    // A busy machine may hold up a few; none of them waits for the upstream.
    assert!(took[90] < Duration::from_millis(50) && took[98] < Duration::from_millis(270), "{took:?}");
    assert!(upstream.connections() <= 3, "{}", upstream.connections());
    assert_eq!(mirror.mirror.tag_answers().deadline, 100);
}

#[tokio::test]
async fn an_unreachable_upstream_is_left_alone_and_asked_again_by_a_probe() {
    let upstream = FakeRegistry::start().await;
    let image = publish(&upstream, 1);
    let mirror = TestMirror::in_front_of(&upstream).await;
    pull(&mirror, TAG).await;
    upstream.fails_with(Fault::RefuseConnection);
    for _ in 0..3 {
        assert_eq!(pull(&mirror, TAG).await.1, "stale");
    }
    let rests = || mirror.mirror.upstreams().next().unwrap().health().resting;
    assert!(rests());
    let began = Instant::now();
    for nth in 0..20 {
        let missing = format!("/v2/library/alpine/manifests/other{nth}");
        assert_eq!(pull(&mirror, &missing).await.0, 503);
        let missing = format!("/v2/library/alpine/blobs/{}", Digest::of(&[nth]));
        assert_eq!(pull(&mirror, &missing).await.0, 503);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    upstream.heals();
    let began = Instant::now();
    // Answers come at once meanwhile; the first of them after the pause sends the probe.
    while pull(&mirror, TAG).await != (200, "revalidated".into(), Some(image.digest)) {
        assert!(began.elapsed() < Duration::from_secs(30), "it never asks again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!rests());
}

#[tokio::test]
async fn offline_nobody_is_asked_and_what_is_held_is_served() {
    let upstream = FakeRegistry::start().await;
    let image = publish(&upstream, 1);
    let mirror = TestMirror::in_front_of(&upstream).await;
    pull(&mirror, TAG).await;
    let layer = format!("/v2/library/alpine/blobs/{}", image.layers()[0].digest);
    let config = format!("/v2/library/alpine/blobs/{}", Digest::of(b"not held"));
    pull(&mirror, &layer).await;
    mirror.mirror.set_offline(true);
    upstream.forget();
    assert_eq!(pull(&mirror, TAG).await, (200, "stale".into(), Some(image.digest)));
    assert_eq!(pull(&mirror, &layer).await.1, "hit");
    for missing in ["/v2/library/alpine/manifests/other", &config, "/v2/library/nginx/tags/list"] {
        let answer = mirror.get(missing).await;
        assert_eq!(answer.status(), 503, "{missing}");
        let told = String::from_utf8(body(answer).await.unwrap()).unwrap();
        assert!(told.contains("Sampan is offline"), "{missing}: {told}");
    }
    assert_eq!(mirror.head(&config).await.status(), 503);
    let (image_name, tag) = alpine();
    assert!(matches!(mirror.mirror.refresh(&image_name, &tag).await, Refreshed::Failed(_)));
    assert_eq!((upstream.connections(), upstream.log()), (0, Vec::new()));
    assert_eq!(mirror.mirror.tag_answers().offline, 1);
    mirror.mirror.set_offline(false);
    assert_eq!(pull(&mirror, TAG).await.1, "revalidated", "at once");
}

#[tokio::test]
async fn a_download_under_way_waits_while_offline_and_loses_nothing() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:edge", &ImageSpec::new(1, &[6_000_000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    pull(&mirror, TAG).await;
    let layer = &image.layers()[0];
    let path = format!("/v2/library/alpine/blobs/{}", layer.digest);
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 2_000_000 });
    let (came, offline) = (AtomicBool::new(false), async {
        upstream.sent(Kind::Blob, 1_000_000).await;
        mirror.mirror.set_offline(true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        upstream.forget();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((upstream.connections(), upstream.log().len()), (0, 0), "nobody is asked");
    });
    let going = async {
        let bytes = body(mirror.get(&path).await).await;
        came.store(true, Ordering::Relaxed);
        bytes
    };
    let rest = async {
        offline.await;
        assert!(!came.load(Ordering::Relaxed), "its client waits");
        mirror.mirror.set_offline(false);
    };
    let (bytes, ()) = tokio::join!(going, rest);
    assert!(bytes.is_some_and(|bytes| bytes == layer.bytes));
    assert!(upstream.pulled_bytes() < 6_000_000, "what had come was not fetched again");
}

/// An address that takes no connection and refuses none: what a link that is down looks like.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Nobody accepts: once its queue is full, the system drops whatever knocks.
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            waiting.push(stream);
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// How long a registry may take to say where a tag points, as it ships.
const DEADLINE: Duration = Duration::from_secs(3);

/// Twenty tags that are held, of a registry that cannot be reached any more.
async fn twenty_tags_behind_a_dead_link() -> (TestMirror, BlackHole, Vec<String>) {
    let upstream = FakeRegistry::start().await;
    let ghcr = |url: String| Options {
        also: vec![("ghcr.io", url)],
        revalidate_timeout: DEADLINE,
        ..Options::default()
    };
    let mirror = TestMirror::with(&upstream, ghcr(upstream.url())).await;
    let mut tags = Vec::new();
    for nth in 0..20 {
        upstream.publish_image(&format!("library/alpine:{nth}"), &ImageSpec::new(nth, &[500]));
        tags.push(format!("/v2/ghcr.io/library/alpine/manifests/{nth}"));
        assert_eq!(pull(&mirror, &tags[tags.len() - 1]).await.1, "miss");
    }
    let hole = BlackHole::open().await;
    let mirror = mirror.restart_with(&upstream, ghcr(format!("http://{}", hole.address))).await;
    (mirror, hole, tags)
}

#[tokio::test]
async fn twenty_cached_tags_behind_a_dead_link_cost_one_deadline_one_after_the_other() {
    let (mirror, _hole, tags) = twenty_tags_behind_a_dead_link().await;
    let mut took = Vec::new();
    for tag in &tags {
        let began = Instant::now();
        assert_eq!(pull(&mirror, tag).await.1, "stale");
        took.push(began.elapsed());
    }
    let (first, mut others) = (took[0], took.split_off(1));
    others.sort_unstable();
    eprintln!(
        "the first {first:?}, the others {:?} to {:?}, all {:?}",
        others[0],
        others[18],
        first + others.iter().sum::<Duration>()
    );
    assert!(first >= DEADLINE.mul_f32(0.8), "{first:?}: it is asked about");
    assert!(first < DEADLINE.mul_f32(1.5), "{first:?}");
    assert!(others.iter().sum::<Duration>() < DEADLINE / 2, "{others:?}");
    assert_eq!(mirror.mirror.tag_answers().deadline, 20);
}

#[tokio::test]
async fn twenty_cached_tags_behind_a_dead_link_cost_one_deadline_all_at_once() {
    let (mirror, _hole, tags) = twenty_tags_behind_a_dead_link().await;
    let began = Instant::now();
    let all = futures_util::future::join_all(tags.iter().map(|tag| pull(&mirror, tag))).await;
    let took = began.elapsed();
    assert!(all.iter().all(|(status, sampan, _)| (*status, sampan.as_str()) == (200, "stale")), "{all:?}");
    assert!(took < DEADLINE.mul_f32(1.5), "{took:?}");
    let began = Instant::now();
    for tag in &tags {
        assert_eq!(pull(&mirror, tag).await.1, "stale");
    }
    let again = began.elapsed();
    eprintln!("twenty at once {took:?}, once more {again:?}");
    assert!(again < DEADLINE / 2, "{again:?}");
}
