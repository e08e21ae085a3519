//! Where a login goes, and where it never does. The password is a canary: whoever else sees it, the test finds it.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use sampan_testkit::{FakeRegistry, Fault, Kind, TokenRule};
use sampan_upstream::{
    DockerLogins, LoginOptions, LoginSource, LoginTrouble, Upstream, UpstreamConfig, UpstreamError, Url,
    client, has_login,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{collect, reference, upstream};

const USER: &str = "somebody";
const CANARY: &str = "c4n4ry-p4ssw0rd";
/// `somebody:c4n4ry-p4ssw0rd`
const SHOWN: &str = "Basic c29tZWJvZHk6YzRuNHJ5LXA0c3N3MHJk";

/// A folder as `docker login` leaves it.
#[expect(clippy::unwrap_used, reason = "it fails the test")]
fn docker(config: &serde_json::Value) -> (tempfile::TempDir, DockerLogins) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut logins = DockerLogins::new(folder.path().into(), OsString::from(folder.path()));
    logins.helper_within = Duration::from_secs(2);
    (folder, logins)
}

fn knows(registry: &str) -> serde_json::Value {
    let auth = SHOWN.trim_start_matches("Basic ");
    serde_json::json!({"auths": {registry: {"auth": auth}}})
}

fn options(logins: DockerLogins, realm: Option<String>) -> LoginOptions {
    LoginOptions { source: LoginSource::Docker(logins), realm }
}

fn authority(fake: &FakeRegistry) -> String {
    fake.address().to_string()
}

/// An upstream with Docker's login for it.
fn with_login(fake: &FakeRegistry, realm: Option<String>) -> (tempfile::TempDir, Upstream) {
    let (folder, logins) = docker(&knows(&authority(fake)));
    (folder, upstream(fake).with_login(options(logins, realm)))
}

/// Requests that carried the password, or what was made of it.
fn shown_to(fake: &FakeRegistry) -> Vec<Kind> {
    let is_login = |r: &sampan_testkit::Recorded| r.header("authorization") == Some(SHOWN);
    fake.log().into_iter().filter(is_login).map(|r| r.kind).collect()
}

#[tokio::test]
async fn a_private_image_is_had_with_dockers_login_and_not_without() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    let nobody = upstream(&fake);
    let refused = nobody.get_manifest(&image.repository, &reference("1")).await;
    assert!(matches!(refused, Err(UpstreamError::Denied)), "{refused:?}");
    let (_folder, somebody) = with_login(&fake, None);
    let fetched = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap();
    assert_eq!(fetched.manifest.digest, image.digest);
    for layer in image.layers() {
        let body = somebody.get_blob(&image.repository, &layer.digest, 0).await.unwrap();
        assert_eq!(collect(body).await.unwrap(), layer.bytes);
    }
    assert_eq!(shown_to(&fake), [Kind::Token], "the password went to the token server alone, once");
    let again = nobody.get_manifest(&image.repository, &reference("1")).await;
    assert!(
        matches!(again, Err(UpstreamError::Denied)),
        "what a login opened stays shut for nobody: {again:?}"
    );
}

#[tokio::test]
async fn a_registry_without_tokens_is_shown_the_login_itself() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    let challenge = Some(r#"Basic realm="Registry Realm""#.into());
    fake.fails_with(Fault::RequireToken(TokenRule { challenge, ..TokenRule::default() }));
    let (_folder, somebody) = with_login(&fake, None);
    somebody.get_manifest(&image.repository, &reference("1")).await.unwrap();
    somebody.head_manifest(&image.repository, &reference("1")).await.unwrap();
    assert_eq!(fake.requests(Kind::Manifest), 3, "known after the first refusal: 1 + 2");
    fake.knows_login(None);
    let error = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Login(LoginTrouble::Refused)), "{error:?}");
    fake.forget();
    for _ in 0..5 {
        let error = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Login(LoginTrouble::Refused)), "{error:?}");
    }
    assert_eq!(shown_to(&fake), [], "a refused password is not tried again and again");
}

#[tokio::test]
async fn a_token_servers_refusal_is_told_and_not_repeated() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, "another")));
    let (_folder, somebody) = with_login(&fake, None);
    for _ in 0..5 {
        let error = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Login(LoginTrouble::Refused)), "{error:?}");
        assert!(!format!("{error:?} {error}").contains(CANARY));
    }
    assert_eq!(fake.requests(Kind::Token), 1, "accounts are locked by less");
    fake.knows_login(Some((USER, CANARY)));
    somebody.try_login_again().await;
    somebody.get_manifest(&image.repository, &reference("1")).await.expect("a person changed something");
}

#[tokio::test]
async fn a_registry_that_refuses_every_token_is_asked_twice_at_most() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.knows_login(Some((USER, CANARY)));
    fake.fails_on(Kind::Manifest, Fault::ExpiredToken);
    let (_folder, somebody) = with_login(&fake, None);
    let error = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Denied), "{error:?}");
    assert_eq!((fake.requests(Kind::Manifest), fake.requests(Kind::Token)), (2, 1));
}

#[tokio::test]
async fn a_token_realm_elsewhere_never_sees_the_login() {
    let (fake, elsewhere) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    elsewhere.knows_login(Some((USER, CANARY)));
    for realm in [
        format!("{}/token", elsewhere.url()),
        format!("http://{USER}@{}/token", authority(&fake)),
        format!("{}/token?scope=repository:acme/app:push", elsewhere.url()),
        "https://evil.example/token".into(),
        "https://127.0.0.1/token".into(),
        "http://localhost/token".into(),
    ] {
        fake.heals();
        let rule = TokenRule { realm: Some(realm.clone()), ..TokenRule::default() };
        fake.fails_with(Fault::RequireToken(rule));
        let (_folder, somebody) = with_login(&fake, None);
        let error = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Login(LoginTrouble::Realm(_))), "{realm}: {error:?}");
    }
    assert_eq!(elsewhere.log(), [], "not even asked");
    assert_eq!(shown_to(&fake), []);

    fake.heals();
    let realm = Some(format!("{}/token", elsewhere.url()));
    fake.fails_with(Fault::RequireToken(TokenRule { realm, ..TokenRule::default() }));
    let (_folder, somebody) = with_login(&fake, Some(authority(&elsewhere)));
    somebody
        .get_manifest(&image.repository, &reference("1"))
        .await
        .expect("a person named that token server");
    assert_eq!(shown_to(&elsewhere), [Kind::Token]);
    assert_eq!(shown_to(&fake), []);
}

#[tokio::test]
async fn a_redirect_sees_neither_the_login_nor_its_token() {
    let (fake, cdn) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let image = fake.publish("acme/app:1");
    cdn.hold(&image);
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    let basic = || TokenRule { challenge: Some("Basic realm=x".into()), ..TokenRule::default() };
    for rule in [None, Some(basic())] {
        fake.heals();
        fake.fails_on(Kind::Blob, Fault::RedirectTo(cdn.url()));
        if let Some(rule) = rule {
            fake.fails_with(Fault::RequireToken(rule));
        }
        let (_folder, somebody) = with_login(&fake, None);
        let layer = &image.layers()[0];
        let body = somebody.get_blob(&image.repository, &layer.digest, 0).await.unwrap();
        assert_eq!(collect(body).await.unwrap(), layer.bytes);
    }
    assert!(cdn.requests(Kind::Cdn) >= 2);
    assert!(cdn.log().iter().all(|r| r.header("authorization").is_none()), "{:?}", cdn.log());

    // A manifest or a token that is led away is not followed at all.
    cdn.forget();
    fake.heals();
    fake.fails_on(Kind::Manifest, Fault::RedirectTo(cdn.url()));
    fake.fails_on(Kind::Token, Fault::Location(format!("{}/token", cdn.url())));
    let (_folder, somebody) = with_login(&fake, None);
    somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
    somebody.head_blob(&image.repository, &image.layers()[0].digest).await.unwrap_err();
    assert_eq!(cdn.log(), []);
}

#[tokio::test]
async fn a_login_is_only_for_the_server_its_registry_is_named_after() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    // Somebody set up another server for ghcr.io.
    let (_folder, logins) = docker(&knows("ghcr.io"));
    let config =
        UpstreamConfig { registry: "ghcr.io".parse().unwrap(), url: Url::parse(&fake.url()).unwrap() };
    let upstream = Upstream::new(config, client().unwrap()).with_login(options(logins, None));
    let error = upstream.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Login(LoginTrouble::Elsewhere(_))), "{error:?}");
    assert_eq!(fake.log(), []);
}

#[tokio::test]
async fn a_login_is_not_sent_in_the_open() {
    let (_folder, logins) = docker(&knows("registry.example"));
    let config = UpstreamConfig {
        registry: "registry.example".parse().unwrap(),
        url: Url::parse("http://registry.example/").unwrap(),
    };
    let upstream = Upstream::new(config, client().unwrap()).with_login(options(logins, None));
    let error = upstream.get_manifest(&"a/b".parse().unwrap(), &reference("1")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Login(LoginTrouble::PlainHttp)), "{error:?}");
}

#[tokio::test]
async fn a_login_that_was_withdrawn_is_used_no_more() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    let (_folder, somebody) = with_login(&fake, None);
    somebody.get_manifest(&image.repository, &reference("1")).await.unwrap();
    somebody.withdraw_login();
    fake.forget();
    let error = somebody.get_manifest(&image.repository, &reference("1")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Login(LoginTrouble::Withdrawn)), "{error:?}");
    assert_eq!(fake.log(), [], "a token that is held still is not used either");
}

#[tokio::test]
async fn an_identity_token_is_traded_at_the_registrys_own_token_server() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = listener.local_addr().unwrap().to_string();
    let rule = TokenRule { realm: Some(format!("http://{realm}/token")), ..TokenRule::default() };
    fake.fails_with(Fault::RequireToken(rule));
    let config = serde_json::json!({"auths": {authority(&fake): {"auth": "", "identitytoken": CANARY}}});
    let (_folder, logins) = docker(&config);
    let somebody = upstream(&fake).with_login(options(logins, Some(realm)));
    let tag = reference("1");
    let asks = somebody.get_manifest(&image.repository, &tag);
    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(CANARY.as_bytes()) {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the form ends with the token");
        }
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "in no address: {request}");
        let (head, form) = request.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains(CANARY) && !head.to_lowercase().contains("authorization"), "{head}");
        assert!(
            form.contains("grant_type=refresh_token")
                && form.contains("scope=repository%3Aacme%2Fapp%3Apull")
        );
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(asks, answers);
    let error = answer.unwrap_err();
    assert!(matches!(error, UpstreamError::Login(LoginTrouble::Refused)), "{error:?}");
}

/// Writes a credential helper.
#[cfg(unix)]
#[expect(clippy::unwrap_used, reason = "it fails the test")]
fn helper(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(format!("docker-credential-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_helper_is_asked_as_docker_asks_it() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("acme/app:1");
    fake.make_private("acme/app");
    fake.knows_login(Some((USER, CANARY)));
    let name = authority(&fake);
    let config =
        serde_json::json!({"auths": {&name: {}}, "credsStore": "never", "credHelpers": {&name: "good"}});
    let (folder, logins) = docker(&config);
    let answer = format!(r#"{{"ServerURL":"x","Username":"{USER}","Secret":"{CANARY}"}}"#);
    let script = format!(
        r#"echo "$#:$1:$(cat)" > "{}/asked"; echo "{CANARY}" >&2; echo '{answer}'"#,
        folder.path().display()
    );
    helper(folder.path(), "good", &script);
    helper(folder.path(), "never", "echo wrong one; exit 1");
    let somebody = upstream(&fake).with_login(options(logins, None));
    somebody.get_manifest(&image.repository, &reference("1")).await.unwrap();
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    assert_eq!(asked.trim(), format!("1:get:{name}"), "one argument; the server on standard input");
}

#[cfg(unix)]
#[tokio::test]
async fn a_helper_that_fails_is_told_by_name_and_never_waited_for() {
    let registry = "ghcr.io".parse().unwrap();
    let (folder, logins) = docker(&serde_json::json!({}));
    // The children it leaves behind hold its output open.
    helper(folder.path(), "slow", "sleep 600 & sleep 600");
    helper(folder.path(), "huge", "yes x");
    helper(folder.path(), "failing", &format!("echo '{{\"Secret\":\"{CANARY}\"}}'; exit 1"));
    helper(folder.path(), "empty", "echo 'credentials not found in native keychain'; exit 1");
    helper(folder.path(), "odd", "echo hello");
    let began = std::time::Instant::now();
    for (name, expected) in [
        ("slow", LoginTrouble::HelperSlow("slow".into())),
        ("huge", LoginTrouble::HelperOutput("huge".into())),
        ("failing", LoginTrouble::HelperFailed("failing".into())),
        ("empty", LoginTrouble::None("ghcr.io".parse().unwrap())),
        ("odd", LoginTrouble::HelperOutput("odd".into())),
        ("absent", LoginTrouble::HelperMissing("absent".into())),
        ("../good", LoginTrouble::HelperMissing("../good".into())),
    ] {
        let config = serde_json::json!({"credsStore": name});
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let trouble = has_login(&LoginSource::Docker(logins.clone()), &registry).await.unwrap_err();
        assert_eq!(trouble, expected, "{name}");
        assert!(!format!("{trouble} {trouble:?}").contains(CANARY));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_configuration_that_is_none_is_told() {
    let registry = "ghcr.io".parse().unwrap();
    let (folder, logins) = docker(&serde_json::json!({}));
    let source = LoginSource::Docker(logins);
    for text in ["", "{", "7", r#"{"auths":7}"#, "\u{feff}{}"] {
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let trouble = has_login(&source, &registry).await.unwrap_err();
        assert!(matches!(trouble, LoginTrouble::Unreadable(_)), "{text:?}: {trouble:?}");
    }
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(matches!(has_login(&source, &registry).await, Err(LoginTrouble::None(_))), "nobody logged in");
}
