use std::time::Duration;

use sampan_testkit::{FakeHub, Kind, RateLimit};
use sampan_upstream::UpstreamError;
use tokio::time::{advance, pause, resume};

use crate::{reference, repository, upstream};

#[tokio::test]
async fn the_gauge_is_the_hubs_own_count() {
    let hub = FakeHub::start(RateLimit::of(100)).await;
    let (upstream, name) = (upstream(&hub.registry), reference("1"));
    assert_eq!(upstream.allowance(), None, "nothing was asked yet");
    let images: Vec<_> = (0..4).map(|n| hub.publish(&format!("library/image-{n}:1"))).collect();
    // All at once: their answers come in any order.
    let all = images.iter().cycle().take(40).map(|image| upstream.get_manifest(&image.repository, &name));
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    for image in &images {
        upstream.head_manifest(&image.repository, &name).await.unwrap();
    }
    let allowance = upstream.allowance().unwrap();
    assert_eq!(hub.spent(), 40);
    assert_eq!((allowance.limit, allowance.remaining), (Some(100), Some(60)));
    assert_eq!(allowance.window, Some(Duration::from_hours(6)));
    assert_eq!(allowance.source.as_deref(), Some("127.0.0.1"));
    let spent_by = |image: &sampan_testkit::Image| {
        allowance.spent.iter().filter(|(_, repository)| *repository == image.repository).count()
    };
    assert_eq!(images.iter().map(spent_by).collect::<Vec<_>>(), [10; 4]);
    assert!(!allowance.counts_heads, "they are free here");
}

#[tokio::test]
async fn a_used_up_limit_is_not_asked_again_before_its_time() {
    let hub = FakeHub::start(RateLimit { retry_after: Some(20), ..RateLimit::of(1) }).await;
    let image = hub.publish("library/alpine:3.20");
    let (upstream, name) = (upstream(&hub.registry), reference("3.20"));
    upstream.get_manifest(&image.repository, &name).await.unwrap();
    for _ in 0..10 {
        let error = upstream.get_manifest(&image.repository, &name).await.unwrap_err();
        assert!(matches!(error, UpstreamError::RateLimited { retry_after: Some(_) }), "{error:?}");
    }
    // The first was refused for want of a token, the second good, the third over the limit.
    assert_eq!(hub.registry.requests_by("GET", Kind::Manifest), 3);
    let digest = upstream.head_manifest(&image.repository, &name).await.unwrap();
    assert_eq!(digest, Some(image.digest), "where a tag is may still be asked");
    hub.registry.refills();
    pause();
    advance(Duration::from_secs(20)).await;
    resume();
    upstream.get_manifest(&image.repository, &name).await.unwrap();
    assert_eq!(hub.spent(), 1);
}

#[tokio::test]
async fn a_registry_that_counts_heads_is_found_out_and_spared() {
    let hub = FakeHub::start(RateLimit { counts_heads: true, ..RateLimit::of(20) }).await;
    let image = hub.publish("library/alpine:3.20");
    let (upstream, name) = (upstream(&hub.registry), reference("3.20"));
    let mut asked = 0;
    while upstream.head_manifest(&image.repository, &name).await.is_ok() {
        asked += 1;
    }
    assert_eq!(asked, 17, "what is left is for pulls");
    for _ in 0..3 {
        upstream.get_manifest(&image.repository, &name).await.unwrap();
    }
    assert_eq!(hub.spent(), 20);
}

#[tokio::test]
async fn no_other_question_has_a_gauge() {
    let hub = FakeHub::start(RateLimit::of(5)).await;
    let image = hub.publish("library/alpine:3.20");
    let upstream = upstream(&hub.registry);
    upstream.tags(&image.repository, None, None).await.unwrap();
    for layer in image.layers() {
        upstream.get_blob(&image.repository, &layer.digest, 0).await.unwrap();
    }
    let missing = upstream.get_manifest(&repository("library/none"), &reference("1")).await;
    assert!(matches!(missing, Err(UpstreamError::NotFound)));
    assert_eq!((hub.spent(), upstream.allowance()), (0, None));
    let secret =
        hub.registry.log().iter().find_map(|r| r.header("authorization").map(str::to_owned)).unwrap();
    let token = secret.strip_prefix("Bearer ").unwrap();
    assert!(
        hub.leaks(token).iter().all(|(part, _)| *part == "registry"),
        "a token is shown to its registry alone"
    );
    assert!(hub.cdn.requests(Kind::Cdn) >= 3);
}
