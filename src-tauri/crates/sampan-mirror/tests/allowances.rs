//! Pulls through a mirror of a registry that counts them.
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

mod common;

use common::{TestMirror, body};
use sampan_testkit::{FakeHub, Fault, Image, ImageSpec, Kind, RateLimit, TokenRule};

fn tag(image: &Image) -> String {
    format!("/v2/{}/manifests/{}", image.repository, image.tag)
}

/// Pulls an image as Docker does; returns the manifest's status and how Sampan says it came about.
async fn pull(mirror: &TestMirror, image: &Image) -> (u16, String) {
    let answer = mirror.get(&tag(image)).await;
    let (status, how) = (answer.status().as_u16(), answer.headers()["x-sampan"].to_str().unwrap().to_owned());
    body(answer).await.unwrap();
    for blob in image.blobs().filter(|_| status == 200) {
        let path = format!("/v2/{}/blobs/{}", image.repository, blob.digest);
        assert_eq!(body(mirror.get(&path).await).await.unwrap(), blob.bytes);
    }
    (status, how)
}

#[tokio::test]
async fn two_hundred_pulls_of_cached_tags_spend_nothing() {
    let hub = FakeHub::start(RateLimit::of(100)).await;
    let images: Vec<_> = (0..4).map(|n| hub.publish(&format!("library/image-{n}:1"))).collect();
    let mirror = TestMirror::in_front_of(&hub.registry).await;
    for image in &images {
        assert_eq!(pull(&mirror, image).await.0, 200);
    }
    assert_eq!(hub.spent(), 4);
    for image in images.iter().cycle().take(200) {
        assert_eq!(pull(&mirror, image).await, (200, "revalidated".into()));
    }
    assert_eq!(hub.spent(), 4, "a HEAD is free");
    assert_eq!(hub.registry.requests_by("HEAD", Kind::Manifest), 200);
    assert_eq!(hub.auth.requests(Kind::Token), 4, "one token a repository");
}

#[tokio::test]
async fn a_secret_of_the_clients_goes_nowhere_and_a_token_only_to_its_registry() {
    let hub = FakeHub::start(RateLimit::of(100)).await;
    let image = hub.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&hub.registry).await;
    let layer = format!("/v2/library/alpine/blobs/{}", image.layers()[0].digest);
    for path in [&tag(&image), &layer] {
        let request = mirror.client.get(format!("{}{path}", mirror.url));
        let answer = request.basic_auth("canary-user", Some("canary-password")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        body(answer).await.unwrap();
    }
    let basic = "Y2FuYXJ5"; // "canary" in base64
    assert_eq!((hub.leaks("canary"), hub.leaks(basic)), (vec![], vec![]));
    assert!(hub.cdn.requests(Kind::Cdn) > 0, "the blob came from there");
    let heard = hub.registry.log().iter().find_map(|r| r.header("authorization").map(str::to_owned)).unwrap();
    let token = heard.strip_prefix("Bearer ").unwrap();
    assert!(hub.leaks(token).iter().all(|(part, _)| *part == "registry"));
    for part in [&hub.auth, &hub.cdn] {
        assert!(part.log().iter().all(|r| r.header("authorization").is_none()));
    }
}

#[tokio::test]
async fn a_realm_that_is_not_the_registrys_own_hears_nothing() {
    let hub = FakeHub::start(RateLimit::of(100)).await;
    let image = hub.publish("library/alpine:3.20");
    hub.registry.heals();
    // Of this machine, but by a name that could mean anything: SECURITY R19.
    let realm = Some(hub.auth.url().replace("127.0.0.1", "auth.example.invalid"));
    hub.registry.fails_with(Fault::RequireToken(TokenRule { realm, ..TokenRule::default() }));
    let mirror = TestMirror::in_front_of(&hub.registry).await;
    let request = mirror.client.get(format!("{}{}", mirror.url, tag(&image)));
    let answer = request.basic_auth("canary-user", Some("canary-password")).send().await.unwrap();
    assert!(answer.status().is_server_error(), "{}", answer.status());
    assert!(!answer.headers().contains_key("www-authenticate"));
    assert_eq!((hub.auth.log(), hub.leaks("Y2FuYXJ5")), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_in_the_middle_of_fifty_pulls_reaches_nobody() {
    let hub = FakeHub::start(RateLimit { retry_after: Some(120), ..RateLimit::of(45) }).await;
    let spec = |seed| ImageSpec::new(seed, &[1000]);
    let publish = |n: u64, seed: u64| {
        let image = hub.registry.publish_image(&format!("library/image-{n}:1"), &spec(seed));
        hub.cdn.hold(&image);
        image
    };
    let mirror = TestMirror::in_front_of(&hub.registry).await;
    let held: Vec<_> = (0..25).map(|n| publish(n, n)).collect();
    for image in &held {
        assert_eq!(pull(&mirror, image).await, (200, "miss".into()));
    }
    // All of them move, and 25 others are asked for: 50 manifests, and 20 are left.
    let moved: Vec<_> = (0..25).map(|n| publish(n, 100 + n)).collect();
    let new: Vec<_> = (25..50).map(|n| publish(n, n)).collect();
    let paths: Vec<_> = moved.iter().zip(&new).flat_map(|(a, b)| [tag(a), tag(b)]).collect();
    let answers = futures_util::future::join_all(paths.iter().map(|path| mirror.get(path))).await;
    let (mut served, mut stale, mut later) = (0, 0, 0);
    for (nth, answer) in answers.into_iter().enumerate() {
        assert!(!answer.headers().contains_key("www-authenticate"));
        match (answer.status().as_u16(), answer.headers()["x-sampan"].to_str().unwrap()) {
            (200, "stale") => {
                stale += 1;
                assert_eq!(nth % 2, 0, "only what is held can be stale");
                assert_eq!(body(answer).await.unwrap(), held[nth / 2].bytes);
            }
            (200, _) => served += 1,
            (503, _) => later += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(hub.spent(), 45, "what there was went to pulls");
    assert_eq!((served, stale + later), (20, 30));
    let allowance = mirror.mirror.upstreams().next().unwrap().allowance().unwrap();
    assert_eq!((allowance.remaining, allowance.spent.len()), (Some(0), 45));
    assert!(allowance.rests_until.is_some());
    // From now on nobody is asked for a manifest, and what is held is served.
    let asked = hub.registry.requests_by("GET", Kind::Manifest);
    for path in &paths {
        assert!(matches!(mirror.get(path).await.status().as_u16(), 200 | 503));
    }
    assert_eq!(hub.registry.requests_by("GET", Kind::Manifest), asked);
}

#[tokio::test]
async fn near_the_limit_what_is_held_is_not_fetched_anew_and_what_is_not_is() {
    let hub = FakeHub::start(RateLimit::of(5)).await;
    let image = hub.publish("library/alpine:latest");
    let mirror = TestMirror::in_front_of(&hub.registry).await;
    pull(&mirror, &image).await;
    let moves = |seed| {
        hub.cdn.hold(&hub.registry.publish_image("library/alpine:latest", &ImageSpec::new(seed, &[10])));
    };
    moves(1);
    // Of 5 the reserve is 2: half of what there is.
    for (seed, how) in [(2, "miss"), (3, "miss"), (4, "stale"), (5, "stale")] {
        let answer = mirror.get(&tag(&image)).await;
        assert_eq!(answer.headers()["x-sampan"], how, "{seed}");
        moves(seed);
    }
    assert_eq!(hub.spent(), 3);
    for n in 0..2 {
        let other = hub.publish(&format!("library/other-{n}:1"));
        assert_eq!(pull(&mirror, &other).await, (200, "miss".into()), "pulls go out to the last");
    }
    let beyond = hub.publish("library/beyond:1");
    assert_eq!(mirror.get(&tag(&beyond)).await.status(), 503);
}

#[tokio::test]
async fn a_registry_that_wants_a_moment_gets_it_and_the_client_its_image() {
    let hub = FakeHub::start(RateLimit::of(100)).await;
    let image = hub.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&hub.registry).await;
    // Who asks for tokens is known after the first pull: else the first answer would be that.
    pull(&mirror, &hub.publish("library/other:1")).await;
    hub.registry.fails_next(1, Kind::Manifest, Fault::TooManyRequests { retry_after: Some(1) });
    assert_eq!(pull(&mirror, &image).await, (200, "miss".into()));
    assert_eq!(hub.registry.requests_to("GET", &tag(&image)), 2, "refused, and then not");
}
