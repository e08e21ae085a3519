//! Fetching ahead: complete for a pull without the upstream, behind every client, and never a byte twice.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::{Options, TestMirror, body};
use sampan_mirror::{Platforms, PrefetchError, PrefetchFailure, PrefetchProgress, Prefetched};
use sampan_oci::{Digest, ImageName, Reference};
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, IndexSpec, Kind};

fn named(name: &str) -> (ImageName, Reference) {
    let (repository, tag) = name.rsplit_once(':').unwrap();
    (format!("docker.io/{repository}").parse().unwrap(), tag.parse().unwrap())
}

fn amd64() -> Platforms {
    Platforms::One("linux/amd64".parse().unwrap())
}

async fn prefetch(
    mirror: &TestMirror,
    name: &str,
    platforms: &Platforms,
) -> Result<Prefetched, PrefetchError> {
    let (image, reference) = named(name);
    mirror.mirror.prefetch(&image, &reference, platforms, |_| ()).await
}

async fn got(mirror: &TestMirror, path: &str) -> Vec<u8> {
    let answer = mirror.get(path).await;
    assert_eq!(answer.status(), 200, "{path}");
    body(answer).await.unwrap()
}

#[tokio::test]
async fn what_was_fetched_ahead_is_pulled_without_the_upstream_and_only_its_platform_was_fetched() {
    let upstream = FakeRegistry::start().await;
    let spec = IndexSpec::new()
        .image(ImageSpec::new(1, &[500_000, 1000]))
        .image(ImageSpec::new(50, &[400_000]).architecture("arm64"))
        .attestation();
    let image = upstream.publish_index("library/alpine:3.20", &spec);
    let mirror = TestMirror::in_front_of(&upstream).await;
    let fetched = prefetch(&mirror, "library/alpine:3.20", &amd64()).await.unwrap();
    assert_eq!((fetched.digest, fetched.before), (image.digest, None));
    let PrefetchProgress { size_bytes, held_bytes, fetched_bytes } = fetched.progress;
    assert_eq!(
        (size_bytes, held_bytes),
        (Some(fetched_bytes), fetched_bytes),
        "all of it came over the link"
    );
    assert_eq!(fetched_bytes, upstream.pulled_bytes(), "as the upstream counts it");
    assert_eq!(mirror.fetched(), fetched_bytes, "and as it was told");
    assert!(mirror.answers().is_empty(), "nobody pulled");
    let arm = &image.manifests[1];
    assert_eq!(upstream.fetches_of(&arm.digest) + upstream.fetches_of(&arm.layers[0].digest), 0);

    upstream.forget();
    let again = prefetch(&mirror, "library/alpine:3.20", &amd64()).await.unwrap();
    assert_eq!((again.before, again.progress.fetched_bytes), (Some(image.digest), 0));
    assert_eq!(again.progress.held_bytes, held_bytes);
    assert_eq!(upstream.requests_by("GET", Kind::Manifest) + upstream.requests(Kind::Blob), 0);

    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(got(&mirror, "/v2/library/alpine/manifests/3.20").await, image.bytes);
    for manifest in [&image.manifests[0], &image.manifests[2]] {
        let path = format!("/v2/library/alpine/manifests/{}", manifest.digest);
        assert_eq!(got(&mirror, &path).await, manifest.bytes);
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            assert_eq!(got(&mirror, &format!("/v2/library/alpine/blobs/{}", blob.digest)).await, blob.bytes);
        }
    }
}

#[tokio::test]
async fn all_platforms_are_fetched_where_that_was_asked_for() {
    let upstream = FakeRegistry::start().await;
    let spec = IndexSpec::new()
        .image(ImageSpec::new(1, &[5000]))
        .image(ImageSpec::new(50, &[4000]).architecture("arm64"))
        .attestation();
    let image = upstream.publish_index("library/alpine:3.20", &spec);
    let mirror = TestMirror::in_front_of(&upstream).await;
    prefetch(&mirror, "library/alpine:3.20", &Platforms::All).await.unwrap();
    for blob in image.blobs() {
        assert!(mirror.file(&blob.digest).exists());
    }
}

#[tokio::test]
async fn a_client_goes_first_and_no_byte_is_fetched_twice_for_that() {
    const LARGE: usize = 12_000_000;
    let upstream = FakeRegistry::start().await;
    let large = upstream.publish_image("library/large:1", &ImageSpec::new(1, &[LARGE]));
    let theirs = upstream.publish_image("library/theirs:1", &ImageSpec::new(9, &[6_000_000]));
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 8_000_000 });
    let mirror = TestMirror::in_front_of(&upstream).await;
    let (layer, wanted) = (large.layers()[0].digest, theirs.layers()[0].digest);
    let platforms = amd64();
    let ahead = prefetch(&mirror, "library/large:1", &platforms);
    let client = async {
        upstream.sent(Kind::Blob, 2_000_000).await;
        got(&mirror, "/v2/library/theirs/manifests/1").await;
        let path = format!("/v2/library/theirs/blobs/{wanted}");
        assert_eq!(got(&mirror, &path).await, theirs.layers()[0].bytes);
        assert!(!mirror.file(&layer).exists(), "it has waited");
    };
    let (fetched, ()) = tokio::join!(ahead, client);
    // Between the first question for what the client waits for and the last one.
    let log = upstream.log();
    let about = |digest: &Digest| {
        let end = digest.to_string();
        log.iter().map(|request| request.path.ends_with(&end)).collect::<Vec<_>>()
    };
    let (for_client, for_layer) = (about(&wanted), about(&layer));
    let first = for_client.iter().position(|asked| *asked).unwrap();
    let last = for_client.iter().rposition(|asked| *asked).unwrap();
    let asked_meanwhile = for_layer[first..last].iter().filter(|asked| **asked).count();
    assert!(asked_meanwhile <= 2, "while the client waited, {asked_meanwhile} pieces were asked for");
    assert_eq!(std::fs::read(mirror.file(&layer)).unwrap(), large.layers()[0].bytes);
    let progress = fetched.unwrap().progress;
    assert_eq!(progress.size_bytes, Some(progress.held_bytes));
    // What was under way when the client came is lost in the network's buffers, and nothing else.
    let spent = mirror.fetched() - 6_000_000;
    assert!((LARGE as u64..LARGE as u64 + 100_000).contains(&spent), "{spent} bytes were taken in");
}

#[tokio::test]
async fn a_client_that_wants_the_very_blob_joins_it() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/large:1", &ImageSpec::new(1, &[6_000_000]));
    upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 8_000_000 });
    let mirror = TestMirror::in_front_of(&upstream).await;
    let layer = &image.layers()[0];
    let client = async {
        upstream.sent(Kind::Blob, 1_000_000).await;
        got(&mirror, &format!("/v2/library/large/blobs/{}", layer.digest)).await
    };
    let platforms = amd64();
    let (fetched, bytes) = tokio::join!(prefetch(&mirror, "library/large:1", &platforms), client);
    assert_eq!(bytes, layer.bytes);
    fetched.unwrap();
    assert_eq!(common::asked(&upstream, &layer.digest, layer.size()), Some(1), "each byte once");
}

#[tokio::test]
async fn given_up_it_stops_keeps_what_it_has_and_goes_on_from_there() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/large:1", &ImageSpec::new(1, &[8_000_000]));
    upstream.fails_on(Kind::Blob, Fault::StallAfter(500_000));
    let mirror = TestMirror::in_front_of(&upstream).await;
    let layer = &image.layers()[0];
    let seen = Mutex::new(PrefetchProgress::default());
    let (name, reference) = named("library/large:1");
    {
        let platforms = amd64();
        let ahead = mirror.mirror.prefetch(&name, &reference, &platforms, |now| *seen.lock().unwrap() = now);
        let enough = async {
            while seen.lock().unwrap().held_bytes < 600_000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            fetched = ahead => panic!("it stalls: {fetched:?}"),
            () = enough => {}
        }
    }
    let quiet = async {
        while mirror.connections() != Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), quiet).await.expect("it lets the upstream go");
    upstream.heals();
    let fetched = prefetch(&mirror, "library/large:1", &amd64()).await.unwrap();
    assert_eq!(std::fs::read(mirror.file(&layer.digest)).unwrap(), layer.bytes);
    assert!(fetched.progress.fetched_bytes < 7_600_000, "{:?}", fetched.progress);
    assert!(mirror.fetched() < 8_100_000, "{} bytes came in", mirror.fetched());
}

#[tokio::test]
async fn each_failure_says_what_it_is() {
    let upstream = FakeRegistry::start().await;
    upstream.publish("library/alpine:3.20");
    let index = IndexSpec::new().image(ImageSpec::new(1, &[5000]).architecture("arm64"));
    upstream.publish_index("library/arm:1", &index);
    upstream.publish("library/fresh:1");
    upstream.publish("library/secret:1");
    upstream.make_private("library/secret");
    let options = Options { revalidate_timeout: Duration::from_millis(300), ..Options::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    let why = async |name: &str| prefetch(&mirror, name, &amd64()).await.unwrap_err().why;
    assert_eq!(why("library/none:1").await, PrefetchFailure::NotFound);
    assert_eq!(why("library/secret:1").await, PrefetchFailure::NotFound);
    assert_eq!(why("library/arm:1").await, PrefetchFailure::NoPlatform);
    let text = prefetch(&mirror, "library/arm:1", &amd64()).await.unwrap_err().to_string();
    assert!(text.ends_with("not there for linux/amd64, only for linux/arm64"), "{text}");
    let elsewhere: ImageName = "example.com/a/b".parse().unwrap();
    let refused = mirror.mirror.prefetch(&elsewhere, &"1".parse().unwrap(), &amd64(), |_| ()).await;
    assert_eq!(refused.unwrap_err().why, PrefetchFailure::NotMirrored);
    prefetch(&mirror, "library/alpine:3.20", &amd64()).await.unwrap();
    mirror.mirror.set_paused(true);
    assert_eq!(why("library/fresh:1").await, PrefetchFailure::Paused);
    mirror.mirror.set_paused(false);
    upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(why("library/alpine:3.20").await, PrefetchFailure::Unreachable, "held, but is it today's?");
    assert_eq!(why("library/other:1").await, PrefetchFailure::Unreachable);
}

#[tokio::test]
async fn a_cache_without_room_says_so() {
    let upstream = FakeRegistry::start().await;
    upstream.publish("library/alpine:3.20");
    let options = Options { free_space_floor_bytes: u64::MAX / 2, ..Options::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    let refused = prefetch(&mirror, "library/alpine:3.20", &amd64()).await.unwrap_err();
    assert_eq!(refused.why, PrefetchFailure::Full, "{refused}");
}
