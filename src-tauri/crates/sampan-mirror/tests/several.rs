//! Several upstreams for one registry, over real sockets: bytes from the quickest, tags from the trusted one, and an upstream
//! that fails, stalls or lies costs neither the client nor those that are honest.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Options, TestMirror, body};
use sampan_mirror::{RegistryUpstreams, UpstreamWeather};
use sampan_oci::{Digest, Lie};
use sampan_testkit::{FakeRegistry, Fault, Image, ImageSpec, Kind, RateLimit};
use sampan_upstream::{Upstream, UpstreamConfig};

const LARGE: usize = 12_000_000;
const SMALL: usize = 30_000;

fn blob(digest: &Digest) -> String {
    format!("/v2/library/alpine/blobs/{digest}")
}

fn upstream(registry: &FakeRegistry, client: &sampan_upstream::Client) -> Upstream {
    let config =
        UpstreamConfig { registry: "docker.io".parse().unwrap(), url: registry.url().parse().unwrap() };
    Upstream::new(config, client.clone())
}

fn spec() -> ImageSpec {
    ImageSpec::new(7, &[LARGE, SMALL, 2_000_000])
}

/// An origin and some mirrors of it, each with the same image, and a Sampan that asks all of them and has the manifest.
struct Fleet {
    origin: FakeRegistry,
    mirrors: Vec<FakeRegistry>,
    image: Image,
    sampan: TestMirror,
}

impl Fleet {
    async fn of(mirrors: usize) -> Self {
        Self::with(mirrors, Options::default(), None).await
    }

    async fn with(mirrors: usize, options: Options, trusted: Option<usize>) -> Self {
        let origin = FakeRegistry::start().await;
        let image = origin.publish_image("library/alpine:3.20", &spec());
        let mut others = Vec::new();
        for _ in 0..mirrors {
            let mirror = FakeRegistry::start().await;
            mirror.publish_image("library/alpine:3.20", &spec());
            others.push(mirror);
        }
        let sampan = TestMirror::with(&origin, options).await;
        let fleet = Self { origin, mirrors: others, image, sampan };
        fleet.choose(trusted);
        body(fleet.sampan.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
        fleet.forget();
        fleet
    }

    /// Makes one mirror the one that is known to be the best, by a blob that only it has.
    async fn prefer(&self, nth: usize) {
        let spec = ImageSpec::new(9, &[1_000_000]);
        let image = self.origin.publish_image("library/warm:1", &spec);
        self.mirrors[nth].publish_image("library/warm:1", &spec);
        body(self.sampan.get("/v2/library/warm/manifests/1").await).await.unwrap();
        self.origin.fails_on(Kind::Blob, Fault::Status(404));
        let path = format!("/v2/library/warm/blobs/{}", image.layers()[0].digest);
        assert_eq!(body(self.sampan.get(&path).await).await.unwrap(), image.layers()[0].bytes);
        self.origin.heals();
        self.forget();
    }

    fn choose(&self, trusted: Option<usize>) {
        let client = sampan_upstream::client().unwrap();
        self.sampan.mirror.set_upstreams(RegistryUpstreams {
            origin: upstream(&self.origin, &client),
            mirrors: self.mirrors.iter().map(|mirror| upstream(mirror, &client)).collect(),
            trusted: trusted.map(|nth| self.mirrors[nth].url().parse().unwrap()),
        });
    }

    fn all(&self) -> impl Iterator<Item = &FakeRegistry> {
        std::iter::once(&self.origin).chain(&self.mirrors)
    }

    fn forget(&self) {
        self.all().for_each(FakeRegistry::forget);
    }

    /// Pulls a layer through Sampan, which must be right.
    async fn pull(&self, layer: usize) -> Duration {
        let began = Instant::now();
        let layer = &self.image.layers()[layer];
        let bytes = body(self.sampan.get(&blob(&layer.digest)).await).await;
        assert!(bytes.is_some_and(|bytes| bytes == layer.bytes), "the right bytes, all of them");
        began.elapsed()
    }

    /// What all registries together sent of a layer beyond one copy of it.
    fn twice(&self, layer: usize) -> u64 {
        let sent: u64 = self.all().map(|registry| registry.body_bytes(Kind::Blob)).sum();
        sent.saturating_sub(self.image.layers()[layer].size())
    }

    fn weather(&self, nth: usize) -> UpstreamWeather {
        self.sampan.mirror.weather()[0][nth].clone()
    }

    /// Whom events named as liars: their places in `all`, and how they lied.
    fn liars(&self) -> Vec<(usize, Lie)> {
        let place = |url: &str| {
            let urls: Vec<_> = self.all().map(|registry| format!("{}/", registry.url())).collect();
            urls.iter().position(|known| known == url).unwrap()
        };
        self.sampan.lies().into_iter().map(|(url, lie)| (place(&url), lie)).collect()
    }

    async fn named(&self, expected: &[(usize, Lie)]) {
        for _ in 0..100 {
            if self.liars() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(self.liars(), expected);
    }
}

#[tokio::test]
async fn bytes_come_from_the_fast_one() {
    let fleet = Fleet::of(1).await;
    fleet.origin.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 250_000 });
    fleet.mirrors[0].fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 5_000_000 });
    let took = fleet.pull(0).await;
    let share = fleet.mirrors[0].body_bytes(Kind::Blob) * 100 / LARGE as u64;
    assert!(share >= 80, "{share} % from the fast one, in {took:?}");
    assert!(took < Duration::from_secs(12), "the slow one alone takes 48 s: {took:?}");
    let (slow, fast) = (fleet.weather(0), fleet.weather(1));
    assert!(fast.rate > slow.rate, "and the weather says so: {slow:?}, {fast:?}");
    assert!(fast.bytes > slow.bytes);
    fleet.forget();
    let took = fleet.pull(2).await;
    let share = fleet.mirrors[0].body_bytes(Kind::Blob) * 100 / 2_000_000;
    assert!(share >= 85, "the next blob is asked of the fast one at once: {share} %, {took:?}");
    assert_eq!(fleet.liars(), []);
}

#[tokio::test]
async fn two_links_together_are_faster_than_either() {
    let fleet = Fleet::of(1).await;
    fleet.origin.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 1_000_000 });
    fleet.mirrors[0].fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 1_000_000 });
    let took = fleet.pull(0).await;
    assert!(took < Duration::from_secs(10), "either alone takes 12 s: {took:?}");
    assert!(fleet.twice(0) < 600_000, "{} bytes came twice", fleet.twice(0));
}

#[tokio::test]
async fn one_that_dies_in_the_middle_loses_no_byte() {
    for fault in [Fault::RefuseConnection, Fault::StallBeforeHeaders] {
        let fleet = Fleet::of(1).await;
        fleet.origin.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 100_000 });
        fleet.mirrors[0].fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 2_000_000 });
        let layer = &fleet.image.layers()[0];
        let path = blob(&layer.digest);
        let began = Instant::now();
        let answer = fleet.sampan.get(&path);
        let reading = async { body(answer.await).await };
        let dying = async {
            fleet.mirrors[0].sent(Kind::Blob, 6_000_000).await;
            fleet.origin.heals();
            fleet.mirrors[0].fails_with(fault.clone());
            fleet.mirrors[0].cuts();
        };
        let (bytes, ()) = tokio::join!(reading, dying);
        assert!(bytes.is_some_and(|bytes| bytes == layer.bytes), "{fault:?}");
        // 3 s until it dies, and then what is left from one that is quick.
        assert!(began.elapsed() < Duration::from_secs(12), "{fault:?}: {:?}", began.elapsed());
        let lanes = u64::from(fleet.sampan.going().0.max(1));
        let twice = fleet.twice(0);
        assert!(twice <= lanes * 128 * 1024, "{fault:?}: {twice} bytes came twice, over {lanes} connections");
        assert_eq!(fleet.liars(), [], "to die is not to lie");
    }
}

#[tokio::test]
async fn one_that_sends_wrong_bytes_is_found_out_and_named_and_no_other() {
    for layer in [0, 1, 2] {
        let fleet = Fleet::of(2).await;
        // It is known to be quick, so it is asked for much.
        fleet.prefer(0).await;
        fleet.origin.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
        fleet.mirrors[1].fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
        fleet.mirrors[0].fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 6_000_000 });
        fleet.mirrors[0].fails_on(Kind::Blob, Fault::CorruptByte(1000));
        let answer = fleet.sampan.get(&blob(&fleet.image.layers()[layer].digest)).await;
        let got = body(answer).await;
        let right = &fleet.image.layers()[layer].bytes;
        assert!(got.is_none_or(|got| got == *right), "layer {layer}: never a wrong byte to the end");
        fleet.named(&[(1, Lie::Bytes)]).await;
        assert!(fleet.weather(1).dropped.is_some());
        assert!(fleet.weather(0).dropped.is_none() && fleet.weather(2).dropped.is_none());
        fleet.pull(layer).await;
        fleet.forget();
        fleet.pull((layer + 1) % 3).await;
        assert_eq!(fleet.mirrors[0].log(), [], "it is asked nothing any more");
    }
}

#[tokio::test]
async fn one_that_lies_about_a_part_is_named_once_the_blob_is_right() {
    for (fault, lie) in [
        (Fault::WrongContentRange, Lie::Part),
        (Fault::WrongTotal, Lie::Part),
        (Fault::LongBody, Lie::Size),
        (Fault::WrongDigestHeader, Lie::Digest),
    ] {
        let fleet = Fleet::of(1).await;
        fleet.prefer(0).await;
        fleet.mirrors[0].fails_on(Kind::Blob, fault.clone());
        // A small one is asked for whole, a large one in parts.
        let layer = usize::from(lie == Lie::Size);
        fleet.pull(layer).await;
        fleet.named(&[(1, lie)]).await;
        assert!(fleet.weather(1).dropped.is_some(), "{fault:?}");
    }
}

#[tokio::test]
async fn one_that_was_dropped_comes_back_when_a_person_says_so_or_a_day_is_over() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    fleet.mirrors[0].fails_on(Kind::Blob, Fault::CorruptByte(10));
    fleet.pull(1).await;
    fleet.named(&[(1, Lie::Bytes)]).await;
    let url = fleet.mirrors[0].url().parse().unwrap();
    let registry = "docker.io".parse().unwrap();
    fleet.choose(None);
    assert!(fleet.weather(1).dropped.is_some(), "that the list is read again does not bring it back");
    fleet.sampan.clock.advance(Duration::from_hours(23));
    assert!(fleet.weather(1).dropped.is_some());
    fleet.sampan.clock.advance(Duration::from_hours(1));
    assert!(fleet.weather(1).dropped.is_none(), "a day is over");
    fleet.sampan.clock.advance(Duration::from_hours(0));
    let dropped = sampan_mirror::Dropped {
        at: sampan_oci::Clock::now(&*fleet.sampan.clock),
        lie: Lie::Bytes,
        image: "docker.io/library/alpine".parse().unwrap(),
        digest: fleet.image.layers()[1].digest,
    };
    assert!(fleet.sampan.mirror.set_dropped(&registry, &url, Some(dropped)), "as an earlier run left it");
    assert!(fleet.weather(1).dropped.is_some());
    assert!(fleet.sampan.mirror.set_dropped(&registry, &url, None));
    assert!(fleet.weather(1).dropped.is_none(), "a person said so");
    let origin = fleet.origin.url().parse().unwrap();
    assert!(!fleet.sampan.mirror.set_dropped(&registry, &origin, None), "an origin is never dropped");
}

#[tokio::test]
async fn one_that_lacks_a_blob_is_passed_by_and_not_asked_again_soon() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    let empty = FakeRegistry::start().await;
    let client = sampan_upstream::client().unwrap();
    fleet.sampan.mirror.set_upstreams(RegistryUpstreams {
        origin: upstream(&fleet.origin, &client),
        mirrors: vec![upstream(&empty, &client)],
        trusted: None,
    });
    fleet.origin.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
    let took = fleet.pull(0).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    fleet.pull(2).await;
    for layer in fleet.image.layers() {
        assert!(empty.fetches_of(&layer.digest) <= 1, "each is asked for once at most");
    }
    assert_eq!(fleet.liars(), [], "not to have is not to lie");
}

#[tokio::test]
async fn tags_are_never_asked_of_one_that_is_not_trusted() {
    let fleet = Fleet::of(2).await;
    for _ in 0..5 {
        body(fleet.sampan.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    }
    body(fleet.sampan.get("/v2/library/alpine/tags/list").await).await.unwrap();
    let other = Digest::of(b"what no manifest names");
    assert_eq!(fleet.sampan.get(&blob(&other)).await.status(), 404);
    fleet.pull(1).await;
    for mirror in &fleet.mirrors {
        let asked: Vec<_> = mirror.log().into_iter().map(|request| request.path).collect();
        assert!(!asked.iter().any(|path| path.contains("/tags/") || path.ends_with("/3.20")), "{asked:?}");
        assert!(
            !asked.iter().any(|path| path.ends_with(&other.to_string())),
            "what is not proven: {asked:?}"
        );
    }
    assert!(fleet.origin.requests(Kind::Manifest) >= 5);
}

#[tokio::test]
async fn a_manifest_comes_from_a_mirror_where_the_trusted_one_names_it_and_costs_no_pull() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    fleet.origin.limits(RateLimit::of(5));
    let spec = ImageSpec::new(11, &[1000]);
    let image = fleet.origin.publish_image("library/busybox:1", &spec);
    fleet.mirrors[0].publish_image("library/busybox:1", &spec);
    let by_tag = fleet.sampan.get("/v2/library/busybox/manifests/1").await;
    assert_eq!(body(by_tag).await.unwrap(), image.bytes);
    assert_eq!((fleet.origin.spent(), fleet.mirrors[0].requests_by("GET", Kind::Manifest)), (0, 1));
    // A digest that nothing names is proven by the trusted one first.
    let other = fleet.origin.publish_image("library/busybox:2", &ImageSpec::new(12, &[1000]));
    let only_there = fleet.mirrors[0].publish_image("library/busybox:3", &ImageSpec::new(13, &[1000]));
    let path = |digest: &Digest| format!("/v2/library/busybox/manifests/{digest}");
    assert_eq!(
        body(fleet.sampan.get(&path(&other.digest)).await).await.unwrap(),
        other.bytes,
        "the mirror lacks it"
    );
    assert_eq!(fleet.origin.spent(), 1);
    assert_eq!(
        fleet.sampan.get(&path(&only_there.digest)).await.status(),
        404,
        "a mirror's word is no proof"
    );
}

#[tokio::test]
async fn a_tag_that_flips_at_each_request_is_always_one_whole_image() {
    let fleet = Fleet::of(1).await;
    let flips = [31, 32].map(|seed| {
        let image = fleet.origin.publish_image("library/flip:1", &ImageSpec::new(seed, &[1000]));
        if seed == 31 {
            fleet.mirrors[0].publish_image("library/flip:1", &ImageSpec::new(seed, &[1000]));
        }
        image
    });
    let flip = |nth: usize| {
        let image = &flips[nth % 2];
        let (bytes, media_type) = (image.bytes.clone(), image.media_type.as_str());
        fleet.origin.publish_manifest("library/flip", "latest", bytes, media_type);
    };
    for round in 0..30 {
        flip(round);
        let first = fleet.sampan.get("/v2/library/flip/manifests/latest");
        let second = async {
            flip(round + 1);
            fleet.sampan.get("/v2/library/flip/manifests/latest").await
        };
        let (first, second) = tokio::join!(first, second);
        for answer in [first, second] {
            let told = answer.headers()["docker-content-digest"].to_str().unwrap().to_owned();
            let bytes = body(answer).await.unwrap();
            assert_eq!(Digest::of(&bytes).to_string(), told, "the digest told is that of the bytes");
            let image = flips.iter().find(|image| image.bytes == bytes).expect("one of the two");
            let layer = &image.layers()[0];
            let path = format!("/v2/library/flip/blobs/{}", layer.digest);
            assert_eq!(body(fleet.sampan.get(&path).await).await.unwrap(), layer.bytes);
        }
    }
    assert_eq!(fleet.liars(), []);
}

#[tokio::test]
async fn a_mirror_that_sends_another_manifest_is_named() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    let image = fleet.origin.publish_image("library/busybox:1", &ImageSpec::new(11, &[1000]));
    let other = fleet.mirrors[0].publish_image("library/other:1", &ImageSpec::new(12, &[1000]));
    fleet.mirrors[0].publish_manifest_as(
        "library/busybox",
        "1",
        image.digest,
        other.bytes,
        other.media_type.as_str(),
    );
    let answer = fleet.sampan.get("/v2/library/busybox/manifests/1").await;
    assert_eq!(body(answer).await.unwrap(), image.bytes);
    fleet.named(&[(1, Lie::Bytes)]).await;
}

#[tokio::test]
async fn a_mirror_sees_no_login_and_only_what_was_asked_for() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    fleet.origin.fails_with(Fault::RequireToken(sampan_testkit::TokenRule::default()));
    fleet.pull(0).await;
    for request in fleet.mirrors[0].log() {
        let names: Vec<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!names.contains(&"authorization") && !names.contains(&"cookie"), "{names:?}");
        assert_eq!(request.method, "GET");
    }
}

#[tokio::test]
async fn a_team_server_a_person_trusts_says_where_tags_point() {
    let fleet = Fleet::with(2, Options::default(), Some(1)).await;
    body(fleet.sampan.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    assert_eq!(fleet.origin.requests(Kind::Manifest), 0);
    assert_eq!(fleet.mirrors[0].requests(Kind::Manifest), 0);
    assert!(fleet.mirrors[1].requests(Kind::Manifest) >= 1);
    assert!(fleet.weather(2).is_trusted && !fleet.weather(0).is_trusted);
}

#[tokio::test]
async fn one_that_never_answers_costs_one_time_out() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    fleet.mirrors[0].fails_with(Fault::StallBeforeHeaders);
    let took = fleet.pull(1).await;
    assert!(took < Duration::from_millis(3500), "one time-out: {took:?}");
    let asked = fleet.mirrors[0].requests(Kind::Blob);
    for layer in [2, 0] {
        let took = fleet.pull(layer).await;
        assert!(took < Duration::from_secs(3), "and none after that: {took:?}");
    }
    assert_eq!(fleet.mirrors[0].requests(Kind::Blob), asked, "it rests");
    assert!(fleet.weather(1).rests_for.is_some());
    assert_eq!(fleet.liars(), []);
}

#[tokio::test]
async fn a_dead_mirror_costs_nothing() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    fleet.mirrors[0].fails_with(Fault::RefuseConnection);
    for layer in [1, 2, 0] {
        let took = fleet.pull(layer).await;
        assert!(took < Duration::from_millis(2500), "{took:?}");
    }
}

#[tokio::test]
async fn while_the_origin_is_dead_the_mirrors_go_on() {
    let fleet = Fleet::of(1).await;
    fleet.origin.fails_with(Fault::RefuseConnection);
    for layer in [0, 1, 2] {
        fleet.pull(layer).await;
    }
    assert_eq!(fleet.liars(), []);
}

#[tokio::test]
async fn a_blob_nobody_has_is_missing_and_says_so() {
    let fleet = Fleet::of(1).await;
    for registry in fleet.all() {
        registry.fails_on(Kind::Blob, Fault::Status(404));
    }
    let path = blob(&fleet.image.layers()[0].digest);
    assert_eq!(fleet.sampan.get(&path).await.status(), 404);
    for registry in fleet.all() {
        registry.heals();
    }
    fleet.pull(0).await;
}

#[tokio::test]
async fn what_the_trusted_one_lacks_is_not_waited_for_elsewhere() {
    let fleet = Fleet::of(1).await;
    fleet.origin.fails_on(Kind::Blob, Fault::Status(404));
    fleet.mirrors[0].fails_on(Kind::Blob, Fault::StallBeforeHeaders);
    let began = Instant::now();
    assert_eq!(fleet.sampan.get(&blob(&fleet.image.layers()[0].digest)).await.status(), 404);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_mirror_without_parts_is_no_reason_for_one_stream() {
    let fleet = Fleet::of(1).await;
    fleet.prefer(0).await;
    fleet.mirrors[0].fails_on(Kind::Blob, Fault::RangeIgnored);
    fleet.pull(0).await;
    assert!(fleet.origin.ranges_of(&fleet.image.layers()[0].digest).len() > 1, "parts, of the other one");
    assert_eq!(fleet.liars(), []);
}

#[tokio::test]
async fn an_origin_without_parts_is_asked_for_the_whole_where_mirrors_lack_it() {
    let fleet = Fleet::of(1).await;
    fleet.origin.fails_on(Kind::Blob, Fault::RangeUnsatisfiable);
    fleet.mirrors[0].fails_on(Kind::Blob, Fault::Status(404));
    fleet.pull(0).await;
}
