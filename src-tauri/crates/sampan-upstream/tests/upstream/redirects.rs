use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, Fault, Image, Kind, TokenRule};
use sampan_upstream::{UpstreamConfig, UpstreamError, Url};

use crate::{collect, reference, repository, upstream};

/// A registry whose blobs are behind a redirect to another origin, as nearly all large registries do it.
async fn with_cdn() -> (FakeRegistry, FakeRegistry, Image) {
    let (fake, cdn) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = fake.publish("library/alpine:3.20");
    cdn.hold(&image);
    fake.fails_on(Kind::Blob, Fault::RedirectTo(cdn.url()));
    (fake, cdn, image)
}

#[tokio::test]
async fn a_redirect_carries_nothing_but_what_it_needs() {
    let (fake, cdn, image) = with_cdn().await;
    fake.fails_with(Fault::RequireToken(TokenRule::default()));
    let layer = &image.layers()[0];
    let body = upstream(&fake)
        .get_blob_part(&image.repository, &layer.digest, 7..layer.size(), layer.size())
        .await
        .unwrap();
    assert_eq!(collect(body).await.unwrap(), layer.bytes[7..]);
    assert!(
        fake.log().iter().any(|r| r.header("authorization").is_some()),
        "the registry was shown the token"
    );

    let seen = &cdn.log()[0];
    let mut names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["accept", "accept-encoding", "host", "range", "user-agent"],
        "no token, no referer, no cookie"
    );
    assert_eq!(seen.header("range"), Some(format!("bytes=7-{}", layer.size() - 1)).as_deref());
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert_eq!(seen.query, "Signature=secret&serial=1", "the signed address is used as it came");
}

#[tokio::test]
async fn a_token_does_not_come_back_to_the_registry_by_a_detour() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(Fault::RequireToken(TokenRule::default()));
    fake.fails_on(Kind::Blob, Fault::RedirectHops(2));
    let layer = &image.layers()[0];
    collect(upstream(&fake).get_blob(&image.repository, &layer.digest, 0).await.unwrap()).await.unwrap();
    assert!(fake.log().iter().filter(|r| r.kind == Kind::Cdn).all(|r| r.header("authorization").is_none()));
}

#[tokio::test]
async fn five_hops_are_followed_and_six_are_not() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let layer = &image.layers()[0];
    fake.fails_on(Kind::Blob, Fault::RedirectHops(5));
    let body = upstream(&fake).get_blob(&image.repository, &layer.digest, 0).await.unwrap();
    assert_eq!(collect(body).await.unwrap(), layer.bytes);
    fake.heals();
    fake.forget();
    fake.fails_on(Kind::Blob, Fault::RedirectHops(6));
    let error = upstream(&fake).get_blob(&image.repository, &layer.digest, 0).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    assert_eq!(fake.log().len(), 6, "one request and five hops");
}

#[tokio::test]
async fn a_circle_is_noticed_at_its_first_turn() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_on(Kind::Blob, Fault::RedirectLoop);
    let error = upstream(&fake).get_blob(&image.repository, &image.layers()[0].digest, 0).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol("it redirected in a circle")), "{error:?}");
    assert_eq!(fake.log().len(), 1);
}

#[tokio::test]
async fn addresses_that_lead_astray_are_not_followed() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let upstream = upstream(&fake);
    let port = fake.address().port();
    for location in [
        "http://registry.example/x".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/x".to_owned(),
        "https://10.0.0.1/x".to_owned(),
        "https://localhost/x".to_owned(),
        "https://[::1]/x".to_owned(),
        format!("http://user:password@127.0.0.1:{port}/x"),
        format!("ftp://127.0.0.1:{port}/x"),
        "file:///etc/passwd".to_owned(),
        "data:text/plain,x".to_owned(),
        "gopher://127.0.0.1/x".to_owned(),
        "https://".to_owned(),
    ] {
        fake.heals();
        fake.forget();
        fake.fails_on(Kind::Blob, Fault::Location(location.clone()));
        for error in [
            upstream.get_blob(&image.repository, &image.layers()[0].digest, 0).await.unwrap_err(),
            upstream.head_blob(&image.repository, &image.layers()[0].digest).await.unwrap_err(),
        ] {
            assert!(matches!(error, UpstreamError::Protocol(_)), "{location}: {error:?}");
        }
        assert_eq!(fake.log().len(), 2, "{location}: nothing was followed");
    }
}

#[tokio::test]
async fn a_redirect_without_an_address_is_refused() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_on(Kind::Blob, Fault::Status(307));
    let error = upstream(&fake).get_blob(&image.repository, &image.layers()[0].digest, 0).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn only_blobs_are_redirected() {
    let (fake, elsewhere) = (FakeRegistry::start().await, FakeRegistry::start().await);
    for registry in [&fake, &elsewhere] {
        registry.publish("library/alpine:3.20");
    }
    fake.fails_with(Fault::RedirectTo(elsewhere.url()));
    let (upstream, name) = (upstream(&fake), repository("library/alpine"));
    let subject = Digest::of(b"x");
    for error in [
        upstream.get_manifest(&name, &reference("3.20")).await.unwrap_err(),
        upstream.head_manifest(&name, &reference("3.20")).await.unwrap_err(),
        upstream.tags(&name, None, None).await.unwrap_err(),
        upstream.referrers(&name, &subject, None).await.unwrap_err(),
        upstream.ping().await.unwrap_err(),
    ] {
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    }
    assert_eq!(elsewhere.log(), [], "nobody went there");
}

#[tokio::test]
async fn an_address_that_expired_is_worth_asking_again() {
    let (fake, cdn, image) = with_cdn().await;
    let (upstream, layer) = (upstream(&fake), &image.layers()[0]);
    cdn.fails_next(1, Kind::Cdn, Fault::Status(403));
    let error = upstream.get_blob(&image.repository, &layer.digest, 0).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Status(403)),
        "not denied: the registry itself said yes: {error:?}"
    );
    assert!(error.is_transient());
    let body = upstream.get_blob(&image.repository, &layer.digest, 0).await.unwrap();
    assert_eq!(collect(body).await.unwrap(), layer.bytes);
    assert_eq!(
        fake.requests(Kind::Blob),
        2,
        "a signed address is never reused: the registry is asked each time"
    );
}

#[tokio::test]
async fn a_head_the_cdn_refuses_still_says_that_the_blob_is_there() {
    let (fake, cdn, image) = with_cdn().await;
    let (upstream, layer) = (upstream(&fake), &image.layers()[0]);
    assert_eq!(upstream.head_blob(&image.repository, &layer.digest).await.unwrap(), Some(layer.size()));
    cdn.fails_with(Fault::Status(403));
    assert_eq!(
        upstream.head_blob(&image.repository, &layer.digest).await.unwrap(),
        None,
        "there, of unknown size"
    );
}

#[tokio::test]
async fn an_upstream_may_live_below_a_path() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let url = Url::parse(&format!("{}/v2/proxy/", fake.url())).unwrap();
    let config = UpstreamConfig { registry: fake.registry(), url };
    let upstream = sampan_upstream::Upstream::new(config, sampan_upstream::client().unwrap());
    let error = upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotFound), "{error:?}");
    assert_eq!(fake.log()[0].path, "/v2/proxy/v2/library/alpine/manifests/3.20");
}
