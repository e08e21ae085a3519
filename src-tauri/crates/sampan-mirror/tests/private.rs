//! Private images: not at all by default, and with a login only to whom it may be shown, and only for as long as the registry
//! says so (SECURITY.md R84 to R86).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::ffi::OsString;
use std::time::Duration;

use common::{Options, TestMirror, body};
use sampan_mirror::{Barred, PrivateRule};
use sampan_oci::{Clock as _, Millis};
use sampan_testkit::{FakeRegistry, Fault, Image, Kind};
use sampan_upstream::{DockerLogins, LoginOptions, LoginSource, LoginTrouble};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const LOGIN: (&str, &str) = ("somebody", "c4n4ry-p4ssw0rd");
/// `somebody:c4n4ry-p4ssw0rd`
const AUTH: &str = "c29tZWJvZHk6YzRuNHJ5LXA0c3N3MHJk";
const QUARTER: Duration = Duration::from_mins(15);

/// A registry with a private image, a mirror in front of it, and the folder of Docker's logins.
struct Setting {
    hub: FakeRegistry,
    fake: FakeRegistry,
    mirror: TestMirror,
    image: Image,
    docker: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Self {
        let (hub, fake) = (FakeRegistry::start().await, FakeRegistry::start().await);
        let image = fake.publish("acme/app:1");
        fake.make_private("acme/app");
        fake.knows_login(Some(LOGIN));
        let mirror = TestMirror::with(&hub, options(&fake)).await;
        let docker = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"auths": {fake.address().to_string(): {"auth": AUTH}}});
        std::fs::write(docker.path().join("config.json"), config.to_string()).unwrap();
        Self { hub, fake, mirror, image, docker }
    }

    /// The same with a rule for the image.
    async fn allowed() -> Self {
        let setting = Self::new().await;
        setting.allow(&["acme/*"]);
        setting
    }

    fn allow(&self, paths: &[&str]) {
        let logins = DockerLogins::new(self.docker.path().into(), OsString::new());
        let login = LoginOptions { source: LoginSource::Docker(logins), realm: None };
        let rules = paths.iter().map(|path| PrivateRule {
            pattern: format!("{}/{path}", self.fake.address()).parse().unwrap(),
            login: login.clone(),
        });
        self.mirror.mirror.set_private(rules.collect());
    }

    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.fake.address())
    }

    async fn status(&self, rest: &str) -> u16 {
        let answer = self.mirror.get(&self.path(rest)).await;
        assert!(!answer.headers().contains_key("www-authenticate"), "{rest}");
        let status = answer.status().as_u16();
        let _ = answer.bytes().await;
        status
    }

    /// Pulls it, and returns the statuses of the manifest and of each blob.
    async fn pull(&self) -> Vec<u16> {
        let mut all = vec![self.status("acme/app/manifests/1").await];
        for blob in self.image.blobs() {
            all.push(self.status(&format!("acme/app/blobs/{}", blob.digest)).await);
        }
        all
    }

    fn whys(&self) -> Vec<Barred> {
        self.mirror.mirror.private_seen().into_iter().map(|seen| seen.why).collect()
    }
}

fn options(fake: &FakeRegistry) -> Options {
    let name: &'static str = Box::leak(fake.address().to_string().into_boxed_str());
    Options { also: vec![(name, fake.url())], ..Options::default() }
}

#[tokio::test]
async fn a_private_image_is_404_by_default_and_it_is_said_why() {
    let setting = Setting::new().await;
    let answer = setting.mirror.get(&setting.path("acme/app/manifests/1")).await;
    assert_eq!(answer.status(), 404, "Docker then asks with its own login");
    assert!(!answer.headers().contains_key("www-authenticate"));
    assert_eq!(setting.whys(), [Barred::NotAllowed]);
    assert_eq!(setting.mirror.published(), 0);
    assert!(
        setting.fake.log().iter().all(|r| r.header("authorization").is_none_or(|a| !a.contains("login")))
    );
    assert_eq!(setting.status("acme/none/manifests/1").await, 404);
    assert_eq!(setting.whys().len(), 1, "what is not there is no private image");
}

#[tokio::test]
async fn an_allowed_image_is_fetched_once_and_then_held() {
    let setting = Setting::allowed().await;
    assert!(setting.pull().await.iter().all(|status| *status == 200));
    setting.fake.forget();
    assert!(setting.pull().await.iter().all(|status| *status == 200));
    assert_eq!(setting.fake.requests_by("GET", Kind::Blob), 0, "from disk");
    assert_eq!(setting.whys(), []);
    let pattern = format!("{}/acme/*", setting.fake.address()).parse().unwrap();
    assert_eq!(setting.mirror.mirror.private_check(&pattern).unwrap().result, Ok(()));
}

#[tokio::test]
async fn a_rule_opens_no_other_repository() {
    let setting = Setting::new().await;
    let other = setting.fake.publish("beta/app:1");
    setting.fake.make_private("beta/app");
    setting.allow(&["acme/*"]);
    assert_eq!(setting.status("beta/app/manifests/1").await, 404);
    assert_eq!(setting.status(&format!("beta/app/blobs/{}", other.layers()[0].digest)).await, 404);
    assert!(setting.pull().await.iter().all(|status| *status == 200));
    // What is on disk now is not to be had under another name: not of this registry, not of another one.
    let layer = setting.image.layers()[0].digest;
    assert_eq!(setting.status(&format!("beta/app/blobs/{layer}")).await, 404);
    assert_eq!(setting.status(&format!("public/app/blobs/{layer}")).await, 404);
    assert_eq!(setting.mirror.get(&format!("/v2/library/alpine/blobs/{layer}")).await.status(), 404);
    assert_eq!(setting.mirror.get(&format!("/v2/acme/app/blobs/{layer}")).await.status(), 404);
    let manifest = setting.image.digest;
    assert_eq!(setting.mirror.get(&format!("/v2/acme/app/manifests/{manifest}")).await.status(), 404);
    assert!(setting.hub.log().iter().all(|r| r.header("authorization").is_none()));
}

#[tokio::test]
async fn access_is_asked_for_again_after_a_quarter_of_an_hour() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    let digest = format!("acme/app/manifests/{}", setting.image.digest);
    setting.fake.forget();
    setting.mirror.clock.advance(QUARTER.saturating_sub(Duration::from_secs(1)));
    assert_eq!(setting.status(&digest).await, 200);
    assert_eq!(setting.fake.log(), [], "the word is still good");
    setting.mirror.clock.advance(Duration::from_secs(2));
    assert_eq!(setting.status(&digest).await, 200);
    assert!(setting.fake.requests_by("HEAD", Kind::Manifest) >= 1);
    setting.fake.forget();
    assert_eq!(setting.status(&digest).await, 200);
    assert_eq!(setting.fake.log(), [], "and is good again");
}

#[tokio::test]
async fn access_that_was_taken_away_ends_here_too() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    setting.fake.knows_login(None);
    setting.mirror.clock.advance(QUARTER + Duration::from_millis(1));
    assert!(setting.pull().await.iter().all(|status| *status == 404), "all of it is on disk");
    assert_eq!(setting.whys(), [Barred::Login(LoginTrouble::Refused)]);
    setting.fake.knows_login(Some(LOGIN));
    setting.mirror.mirror.try_logins_again().await;
    assert!(setting.pull().await.iter().all(|status| *status == 200));
    assert_eq!(setting.whys(), [], "and it is said no longer");
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_opens_nothing() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    setting.fake.knows_login(None);
    let now = setting.mirror.clock.now();
    setting.mirror.clock.set(Millis(now.0 - 1000));
    assert!(setting.pull().await.iter().all(|status| *status == 404));
}

#[tokio::test]
async fn a_registry_that_cannot_be_asked_opens_nothing_for_longer() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    setting.fake.fails_with(Fault::RefuseConnection);
    let digest = format!("acme/app/manifests/{}", setting.image.digest);
    assert_eq!(setting.status(&digest).await, 200, "within the quarter of an hour an outage is none");
    setting.mirror.clock.advance(QUARTER + Duration::from_millis(1));
    assert_eq!(setting.status(&digest).await, 503, "not a 404: nobody said no");
    assert_eq!(setting.status(&format!("acme/app/blobs/{}", setting.image.layers()[0].digest)).await, 503);
    setting.fake.heals();
    assert_eq!(setting.status(&digest).await, 200);
}

#[tokio::test]
async fn a_private_registry_that_was_left_alone_is_asked_again() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    setting.mirror.clock.advance(QUARTER + Duration::from_millis(1));
    setting.fake.fails_with(Fault::RefuseConnection);
    let digest = format!("acme/app/manifests/{}", setting.image.digest);
    for _ in 0..5 {
        assert_eq!(setting.status(&digest).await, 503);
    }
    setting.fake.heals();
    let asked_again = async {
        while setting.status(&digest).await != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked_again).await.expect("it is there again");
}

#[tokio::test]
async fn a_tag_that_never_was_shuts_no_repository() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    setting.mirror.clock.advance(QUARTER + Duration::from_millis(1));
    assert_eq!(setting.status("acme/app/manifests/typo").await, 404);
    assert_eq!(setting.whys(), [], "the login opens it, and there is no such tag");
    assert!(setting.pull().await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn what_a_login_opened_is_shut_when_the_rule_goes() {
    let mut setting = Setting::allowed().await;
    assert!(setting.pull().await.iter().all(|status| *status == 200));
    setting.allow(&[]);
    assert!(setting.pull().await.iter().all(|status| *status == 404), "all of it is on disk");
    assert_eq!(setting.whys(), [Barred::NotAllowed]);
    setting.mirror = setting.mirror.restart_with(&setting.hub, options(&setting.fake)).await;
    assert!(setting.pull().await.iter().all(|status| *status == 404), "also after a restart");
    let tags = setting.status("acme/app/tags/list").await;
    assert_eq!(tags, 404);
    let referrers =
        setting.mirror.get(&setting.path(&format!("acme/app/referrers/{}", setting.image.digest))).await;
    assert_eq!(referrers.status(), 200, "an empty list");
    setting.fake.fails_with(Fault::RefuseConnection);
    assert!(setting.pull().await.iter().all(|status| *status == 503), "an outage does not open it either");
}

#[tokio::test]
async fn what_became_public_is_everybodys_again() {
    let setting = Setting::new().await;
    let open = setting.fake.publish("acme/open:1");
    setting.allow(&["acme/*"]);
    assert_eq!(setting.status("acme/open/manifests/1").await, 200);
    setting.allow(&[]);
    assert_eq!(setting.status("acme/open/manifests/1").await, 200);
    let digest = format!("acme/open/manifests/{}", open.digest);
    assert!(setting.mirror.store.private_images().await.unwrap().is_empty());
    setting.fake.fails_with(Fault::RefuseConnection);
    assert_eq!(setting.status(&digest).await, 200, "as of any public image");
}

#[tokio::test]
async fn a_private_image_is_marked_before_anything_of_it_is_kept() {
    let setting = Setting::allowed().await;
    setting.fake.fails_on(Kind::Blob, Fault::StallBeforeHeaders);
    assert_eq!(setting.status("acme/app/manifests/1").await, 200);
    let marked = setting.mirror.store.private_images().await.unwrap();
    assert_eq!(marked.len(), 1);
    assert_eq!(marked[0].repository.as_str(), "acme/app");
}

#[tokio::test]
async fn other_machines_get_no_private_image() {
    let setting = Setting::allowed().await;
    assert!(setting.pull().await.iter().all(|status| *status == 200));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let (mirror, stop) = (setting.mirror.mirror.clone(), CancellationToken::new());
    let token = stop.clone();
    let serving = async move { mirror.serve(listener, token).await };
    let asking = async {
        for rest in [
            "manifests/1".into(),
            format!("manifests/{}", setting.image.digest),
            "tags/list".into(),
            format!("blobs/{}", setting.image.layers()[0].digest),
            format!("referrers/{}", setting.image.digest),
        ] {
            let path = setting.path(&format!("acme/app/{rest}"));
            let answer = setting.mirror.client.get(format!("{url}{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{rest}");
        }
        stop.cancel();
    };
    tokio::join!(serving, asking);
    assert_eq!(setting.whys(), [Barred::NotHere]);
}

#[tokio::test]
async fn no_trouble_with_a_login_is_worse_than_a_404() {
    let setting = Setting::allowed().await;
    let config = setting.docker.path().join("config.json");
    for text in [r#"{"auths":{}}"#, "{", r#"{"credsStore":"nowhere"}"#] {
        std::fs::write(&config, text).unwrap();
        setting.mirror.mirror.try_logins_again().await;
        assert_eq!(setting.status("acme/app/manifests/1").await, 404, "{text}");
        assert!(matches!(&setting.whys()[..], [Barred::Login(_)]), "{text}");
    }
}

#[tokio::test]
async fn the_password_is_in_no_file_of_the_cache_and_in_no_answer() {
    let setting = Setting::allowed().await;
    setting.pull().await;
    setting.fake.knows_login(None);
    setting.mirror.clock.advance(QUARTER + Duration::from_millis(1));
    let answer = setting.mirror.get(&setting.path("acme/app/manifests/1")).await;
    let text = String::from_utf8(body(answer).await.unwrap()).unwrap();
    assert!(text.contains("refused the login"), "it is said what is wrong: {text}");
    assert!(!text.contains(LOGIN.1) && !text.contains(AUTH));
    setting.mirror.store.flush().await.unwrap();
    let mut folders = vec![setting.mirror.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for secret in [LOGIN.1, AUTH, "fake-login"] {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{secret} is in {}", path.display());
            }
        }
    }
}
