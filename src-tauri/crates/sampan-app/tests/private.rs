//! A whole Sampan and a private image: what a person is told, and that the password is nowhere.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::ffi::OsString;
use std::path::Path;

use sampan_app::api::{ApiError, Code, Command, LoginKind, PrivateImages, Reply, WhyPrivate};
use sampan_app::{App, Config, Flags, Surroundings};
use sampan_testkit::FakeRegistry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOGIN: (&str, &str) = ("somebody", "c4n4ry-p4ssw0rd");
/// `somebody:c4n4ry-p4ssw0rd`
const AUTH: &str = "c29tZWJvZHk6YzRuNHJ5LXA0c3N3MHJk";

struct Setting {
    registry: FakeRegistry,
    dir: tempfile::TempDir,
    docker: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Self {
        let registry = FakeRegistry::start().await;
        registry.publish("acme/app:1");
        registry.make_private("acme/app");
        registry.knows_login(Some(LOGIN));
        let (dir, docker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = serde_json::json!({"auths": {registry.address().to_string(): {"auth": AUTH}}});
        std::fs::write(docker.path().join("config.json"), config.to_string()).unwrap();
        Self { registry, dir, docker }
    }

    async fn start(&self, listen: &str) -> App {
        std::fs::write(self.dir.path().join("config.toml"), "").unwrap();
        let flags = Flags {
            config: Some(self.dir.path().join("config.toml")),
            listen: Some(listen.parse().unwrap()),
            cache_dir: Some(self.dir.path().join("cache")),
            state_dir: Some(self.dir.path().join("state")),
            upstream: vec![(self.registry.registry(), self.registry.url().parse().unwrap())],
            ..Flags::default()
        };
        let folder = OsString::from(self.docker.path());
        let surroundings = Surroundings::from_vars([("DOCKER_CONFIG".into(), folder)]);
        App::start(Config::load(flags).unwrap(), &surroundings).await.unwrap()
    }

    fn pattern(&self) -> String {
        format!("{}/acme/*", self.registry.address())
    }

    async fn pull(&self, app: &App) -> u16 {
        let address = format!("127.0.0.1:{}", app.listen().port());
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let path = format!("/v2/{}/acme/app/manifests/1", self.registry.address());
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
    }

    async fn allow(&self, app: &App) -> Option<WhyPrivate> {
        let (pattern, login) = (self.pattern(), LoginKind::Docker);
        let reply = app.call(Command::PrivateAllow { pattern, login, realm: None }).await;
        let Reply::PrivateAllowed(problem) = reply else { panic!("{reply:?}") };
        problem.map(|problem| problem.why)
    }
}

async fn end(app: App) {
    app.shutdown().await;
}

async fn private(app: &App) -> PrivateImages {
    let Reply::Snapshot(snapshot) = app.call(Command::Snapshot).await else { panic!("a snapshot") };
    snapshot.private
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_why_and_what_to_do_and_the_rule_survives_a_restart() {
    let setting = Setting::new().await;
    let app = setting.start("127.0.0.1:0").await;
    assert_eq!(setting.pull(&app).await, 404);
    let told = private(&app).await;
    assert_eq!((told.rules.len(), told.shared), (0, false));
    assert_eq!(told.seen[0].problem.why, WhyPrivate::NotAllowed);
    assert_eq!(told.seen[0].pattern.as_deref(), Some(&*setting.pattern()));
    assert_eq!(setting.allow(&app).await, None, "Docker has a login");
    assert_eq!(setting.pull(&app).await, 200);
    let told = private(&app).await;
    assert!(told.seen.is_empty() && told.rules[0].checked.is_some() && told.rules[0].problem.is_none());
    end(app).await;

    let app = setting.start("127.0.0.1:0").await;
    assert_eq!(setting.pull(&app).await, 200);
    setting.registry.knows_login(None);
    app.call(Command::PrivateRetry).await;
    assert_eq!(setting.pull(&app).await, 404);
    let problem = private(&app).await.rules.remove(0).problem.unwrap();
    assert_eq!(problem.why, WhyPrivate::LoginRefused);
    assert!(problem.next_step.contains("docker login"), "{}", problem.next_step);
    let removed = Command::PrivateRemove { pattern: setting.pattern() };
    assert_eq!(app.call(removed.clone()).await, Reply::Done);
    assert!(private(&app).await.rules.is_empty());
    assert!(matches!(app.call(removed).await, Reply::Error(ApiError { code: Code::NotHeld, .. })));
    end(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_work_is_said_at_once() {
    let setting = Setting::new().await;
    let app = setting.start("127.0.0.1:0").await;
    for (pattern, realm) in [
        ("registry.other.example/*".to_owned(), None),
        ("nginx".to_owned(), None),
        ("*".to_owned(), None),
        (setting.pattern(), Some("evil.example".to_owned())),
    ] {
        let command = Command::PrivateAllow { pattern: pattern.clone(), login: LoginKind::Docker, realm };
        let reply = app.call(command).await;
        assert!(
            matches!(reply, Reply::Error(ApiError { code: Code::InvalidRequest, .. })),
            "{pattern}: {reply:?}"
        );
    }
    std::fs::write(setting.docker.path().join("config.json"), "{}").unwrap();
    assert_eq!(setting.allow(&app).await, Some(WhyPrivate::NoLogin));
    assert_eq!(private(&app).await.rules[0].problem.as_ref().unwrap().why, WhyPrivate::NoLogin);
    end(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampan_that_others_reach_uses_no_login() {
    let setting = Setting::new().await;
    let app = setting.start("127.0.0.1:0").await;
    setting.allow(&app).await;
    assert_eq!(setting.pull(&app).await, 200);
    end(app).await;
    setting.registry.forget();
    let app = setting.start("0.0.0.0:0").await;
    assert_eq!(setting.pull(&app).await, 404, "although it is on disk and a rule is there");
    assert!(private(&app).await.shared);
    let (pattern, login) = (setting.pattern(), LoginKind::Docker);
    let reply = app.call(Command::PrivateAllow { pattern, login, realm: None }).await;
    assert!(matches!(reply, Reply::Error(ApiError { code: Code::InvalidRequest, .. })), "{reply:?}");
    let shown = setting.registry.log().into_iter().any(|r| format!("{r:?}").contains(AUTH));
    assert!(!shown, "and no login is sent");
    end(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_in_no_file_and_on_no_socket() {
    let setting = Setting::new().await;
    let app = setting.start("127.0.0.1:0").await;
    setting.allow(&app).await;
    assert_eq!(setting.pull(&app).await, 200);
    // Everything a client of the socket can hear.
    let socket = std::fs::read_dir(setting.dir.path().join("state")).unwrap();
    let socket = socket.map(|entry| entry.unwrap().path()).find(|path| {
        use std::os::unix::fs::FileTypeExt as _;
        path.metadata().unwrap().file_type().is_socket()
    });
    let mut stream = tokio::net::UnixStream::connect(socket.unwrap()).await.unwrap();
    let mut heard = Vec::new();
    for call in [
        r#"{"call":"snapshot"}"#,
        r#"{"call":"doctor"}"#,
        r#"{"call":"private_retry"}"#,
        r#"{"call":"images"}"#,
    ] {
        stream.write_all(format!("{call}\n").as_bytes()).await.unwrap();
        let before = heard.len();
        while !heard[before..].contains(&b'\n') {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
        }
    }
    setting.registry.knows_login(None);
    app.call(Command::PrivateRetry).await;
    setting.pull(&app).await;
    end(app).await;
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.contains("acme"), "{heard}");
    let mut found = Vec::new();
    search(setting.dir.path(), &mut found);
    for secret in [LOGIN.1, AUTH] {
        assert!(!heard.contains(secret), "on the socket");
    }
    assert_eq!(found, Vec::<String>::new());
}

/// The files below a folder that hold the secret.
fn search(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, found);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            if [LOGIN.1, AUTH, "fake-login"].into_iter().any(holds) {
                found.push(path.display().to_string());
            }
        }
    }
}
