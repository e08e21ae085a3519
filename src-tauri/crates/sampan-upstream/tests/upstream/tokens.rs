use std::time::Duration;

use sampan_testkit::{FakeRegistry, Fault, Kind, TokenRule};
use sampan_upstream::UpstreamError;
use tokio::time::{advance, pause, resume};

use crate::{collect, reference, repository, upstream};

fn rule(expires_in: Option<i64>) -> Fault {
    Fault::RequireToken(TokenRule { expires_in, ..TokenRule::default() })
}

#[tokio::test]
async fn one_token_serves_every_request_of_its_repository() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(rule(Some(300)));
    let upstream = upstream(&fake);
    for _ in 0..3 {
        upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap();
        upstream.get_manifest(&image.repository, &reference("3.20")).await.unwrap();
        for layer in image.layers() {
            let body = upstream.get_blob(&image.repository, &layer.digest, 0).await.unwrap();
            assert_eq!(collect(body).await.unwrap(), layer.bytes);
        }
    }
    assert_eq!(fake.requests(Kind::Token), 1);
    let refused =
        fake.log().iter().filter(|r| r.kind != Kind::Token && r.header("authorization").is_none()).count();
    assert_eq!(refused, 1, "only the first request went out without a token");
    let token_request = fake.log().into_iter().find(|r| r.kind == Kind::Token).unwrap();
    assert_eq!(token_request.query, "service=fake&scope=repository%3Alibrary%2Falpine%3Apull");
    assert_eq!(token_request.header("authorization"), None, "we are nobody");
}

#[tokio::test]
async fn each_repository_has_its_own_token_and_is_not_refused_first() {
    let fake = FakeRegistry::start().await;
    let (one, two) = (fake.publish("library/one:1"), fake.publish("library/two:1"));
    fake.fails_with(rule(Some(300)));
    let upstream = upstream(&fake);
    upstream.get_manifest(&one.repository, &reference("1")).await.unwrap();
    upstream.get_manifest(&two.repository, &reference("1")).await.unwrap();
    upstream.get_manifest(&one.repository, &reference("1")).await.unwrap();
    assert_eq!(fake.requests(Kind::Token), 2);
    assert_eq!(fake.requests(Kind::Manifest), 4, "the realm is known after the first refusal: 1 + 3");
}

#[tokio::test]
async fn a_hundred_requests_at_once_ask_for_one_token() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(rule(Some(300)));
    let (upstream, name) = (upstream(&fake), reference("3.20"));
    let all = (0..100).map(|_| upstream.get_manifest(&image.repository, &name));
    assert!(futures_util::future::join_all(all).await.into_iter().all(|fetched| fetched.is_ok()));
    assert_eq!(fake.requests(Kind::Token), 1);
}

#[tokio::test]
async fn a_token_is_asked_for_again_shortly_before_its_end() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(rule(Some(100)));
    let upstream = upstream(&fake);
    let ask = async || upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap();
    let pass = async |seconds| {
        pause();
        advance(Duration::from_secs(seconds)).await;
        resume();
    };
    ask().await;
    pass(80).await;
    ask().await;
    assert_eq!(fake.requests(Kind::Token), 1, "still good after 80 of 100 seconds");
    pass(12).await;
    ask().await;
    assert_eq!(fake.requests(Kind::Token), 2, "not trusted in its last ten seconds");
}

#[tokio::test]
async fn a_token_that_is_over_at_once_serves_one_request() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    for (expires_in, tokens) in [(Some(0), 3), (Some(-1), 3), (Some(i64::MAX), 1), (None, 1)] {
        fake.heals();
        fake.forget();
        fake.fails_with(rule(expires_in));
        let upstream = upstream(&fake);
        for _ in 0..3 {
            upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap();
        }
        assert_eq!(fake.requests(Kind::Token), tokens, "{expires_in:?}");
    }
}

#[tokio::test]
async fn a_request_goes_out_without_a_token_when_none_can_be_had() {
    let fake = FakeRegistry::start().await;
    let (one, two) = (fake.publish("library/one:1"), fake.publish("library/two:1"));
    fake.fails_with(rule(Some(300)));
    let upstream = upstream(&fake);
    upstream.head_manifest(&one.repository, &reference("1")).await.unwrap();
    fake.forget();
    fake.fails_on(Kind::Token, Fault::Status(500));
    let error = upstream.head_manifest(&two.repository, &reference("1")).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::Status(500)),
        "the token server's failure, not the 401: {error:?}"
    );
    assert_eq!((fake.requests(Kind::Token), fake.requests(Kind::Manifest)), (1, 1), "each asked once");
    fake.heals();
    fake.fails_on(Kind::Token, Fault::Status(500));
    assert!(upstream.head_manifest(&two.repository, &reference("1")).await.is_ok(), "it may be open by now");
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(rule(Some(300)));
    let upstream = upstream(&fake);
    upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap();
    fake.fails_next(1, Kind::Manifest, Fault::ExpiredToken);
    upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap();
    assert_eq!(fake.requests(Kind::Token), 2);

    fake.fails_on(Kind::Manifest, Fault::ExpiredToken);
    fake.forget();
    let error = upstream.head_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied), "{error:?}");
    assert_eq!((fake.requests(Kind::Token), fake.requests(Kind::Manifest)), (1, 2), "no storm");
}

#[tokio::test]
async fn a_private_repository_is_denied() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("team/secret:1");
    fake.make_private("team/secret");
    let error = upstream(&fake).get_manifest(&image.repository, &reference("1")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied), "{error:?}");
    assert!(!error.is_transient());
    assert_eq!(fake.requests(Kind::Manifest), 2, "once without, once with an anonymous token");
}

#[tokio::test]
async fn tokens_come_from_another_origin_of_this_machine_too() {
    let (fake, realm) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = fake.publish("library/alpine:3.20");
    let rule = TokenRule { realm: Some(format!("{}/token", realm.url())), ..TokenRule::default() };
    fake.fails_with(Fault::RequireToken(rule));
    upstream(&fake).get_manifest(&image.repository, &reference("3.20")).await.unwrap();
    assert_eq!((fake.requests(Kind::Token), realm.requests(Kind::Token)), (0, 1));
}

#[tokio::test]
async fn a_challenge_cannot_widen_the_scope_or_send_us_elsewhere() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let upstream = upstream(&fake);
    let own = format!("{}/token", fake.url());
    let challenged = async |challenge: String| {
        fake.heals();
        fake.forget();
        fake.fails_with(Fault::RequireToken(TokenRule {
            challenge: Some(challenge),
            ..TokenRule::default()
        }));
        upstream.get_manifest(&image.repository, &reference("3.20")).await
    };
    challenged(format!(r#"Bearer realm="{own}",service="s",scope="repository:other:push,delete""#))
        .await
        .unwrap();
    let query = fake.log().into_iter().find(|r| r.kind == Kind::Token).unwrap().query;
    assert_eq!(query, "service=s&scope=repository%3Alibrary%2Falpine%3Apull", "the scope is ours");

    let fresh = crate::upstream(&fake);
    for (challenge, denied) in [
        (r#"Basic realm="x""#, true),
        ("Negotiate", true),
        (r#"Bearer realm="http://registry.example/token""#, false),
        (r#"Bearer realm="https://127.0.0.1:1/token""#, false),
        (r#"Bearer realm="https://192.168.0.1/token""#, false),
        (r#"Bearer realm="file:///etc/passwd""#, false),
        (r#"Bearer realm="/token""#, false),
        ("Bearer", false),
    ] {
        fake.heals();
        fake.forget();
        let rule = TokenRule { challenge: Some(challenge.into()), ..TokenRule::default() };
        fake.fails_with(Fault::RequireToken(rule));
        let error = fresh.get_manifest(&image.repository, &reference("3.20")).await.unwrap_err();
        let expected = if denied {
            matches!(error, UpstreamError::Denied)
        } else {
            matches!(error, UpstreamError::Protocol(_))
        };
        assert!(expected, "{challenge}: {error:?}");
        assert_eq!(fake.log().len(), 1, "{challenge}: nobody was asked for a token");
    }
}

#[tokio::test]
async fn a_failing_token_server_is_told_as_what_it_is_and_asked_once() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let name = reference("3.20");
    let fails = async |fault: Fault| {
        fake.heals();
        fake.forget();
        fake.fails_with(rule(Some(300)));
        fake.fails_on(Kind::Token, fault);
        let error = upstream(&fake).get_manifest(&image.repository, &name).await.unwrap_err();
        assert_eq!(fake.requests(Kind::Token), 1, "no storm");
        error
    };
    assert!(matches!(fails(Fault::Status(500)).await, UpstreamError::Status(500)));
    assert!(
        matches!(fails(Fault::Status(404)).await, UpstreamError::Status(404)),
        "not the image is missing"
    );
    assert!(matches!(fails(Fault::Status(403)).await, UpstreamError::Denied));
    assert!(matches!(
        fails(Fault::TooManyRequests { retry_after: Some(3) }).await,
        UpstreamError::RateLimited { .. }
    ));
    assert!(matches!(fails(Fault::Html).await, UpstreamError::Protocol(_)));
    assert!(matches!(fails(Fault::EndlessBody).await, UpstreamError::Protocol(_)));
    assert!(matches!(fails(Fault::Location("http://127.0.0.1:1/".into())).await, UpstreamError::Protocol(_)));
    assert!(matches!(fails(Fault::CutAfter(5)).await, UpstreamError::Truncated { .. }));
}

#[tokio::test]
async fn a_token_server_that_wants_to_be_left_alone_is() {
    let fake = FakeRegistry::start().await;
    let (one, two) = (fake.publish("library/one:1"), fake.publish("library/two:1"));
    let good = rule(Some(300));
    fake.fails_with(good.clone());
    fake.fails_next(1, Kind::Token, Fault::TooManyRequests { retry_after: Some(30) });
    let (upstream, name) = (upstream(&fake), reference("1"));
    for image in [&one, &two, &one] {
        let error = upstream.get_manifest(&image.repository, &name).await.unwrap_err();
        assert!(matches!(error, UpstreamError::RateLimited { retry_after: Some(_) }), "{error:?}");
    }
    assert_eq!(fake.requests(Kind::Token), 1, "whatever it is asked for");
    pause();
    advance(Duration::from_secs(30)).await;
    resume();
    assert!(upstream.get_manifest(&two.repository, &name).await.is_ok());
}

#[tokio::test]
async fn many_waiters_share_one_failure_of_the_token_server() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    fake.fails_with(rule(Some(300)));
    fake.fails_on(Kind::Token, Fault::StallBeforeHeaders);
    fake.fails_on(Kind::Token, Fault::Status(503));
    let (upstream, name) = (upstream(&fake), reference("3.20"));
    let all =
        futures_util::future::join_all((0..20).map(|_| upstream.get_manifest(&image.repository, &name)));
    let release = async {
        // All twenty were refused, so all wait for the token that the first of them asks for.
        fake.saw(Kind::Manifest, 20).await;
        fake.saw(Kind::Token, 1).await;
        tokio::task::yield_now().await;
        fake.heals();
        fake.fails_with(rule(Some(300)));
        fake.fails_on(Kind::Token, Fault::Status(503));
    };
    let (results, ()) = tokio::join!(all, release);
    assert!(results.iter().all(|r| matches!(r, Err(UpstreamError::Status(503)))), "{results:?}");
    assert!(fake.requests(Kind::Token) <= 3, "{} token requests for 20 waiters", fake.requests(Kind::Token));
}

#[tokio::test]
async fn two_upstreams_never_share_a_token() {
    let (one, two) = (FakeRegistry::start().await, FakeRegistry::start().await);
    for fake in [&one, &two] {
        fake.publish("library/alpine:3.20");
        fake.fails_with(rule(Some(300)));
        upstream(fake).get_manifest(&repository("library/alpine"), &reference("3.20")).await.unwrap();
    }
    let token = |fake: &FakeRegistry| {
        fake.log().iter().find_map(|r| r.header("authorization").map(str::to_owned)).unwrap()
    };
    assert_ne!(token(&one), token(&two));
}
