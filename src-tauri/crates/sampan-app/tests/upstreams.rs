//! A whole Sampan over its socket: who is asked for a registry, and that it is remembered.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use sampan_app::api::{
    ApiError, CheckStatus, Code, Command, RegistryUpstreams, Reply, UpstreamChange, UpstreamState,
};
use sampan_app::{App, Client, Config, Flags, Surroundings};
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start(dir: &tempfile::TempDir, origin: &FakeRegistry) -> App {
    let url = origin.url().parse().unwrap();
    let flags = Flags {
        config: Some(dir.path().join("config.toml")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        cache_dir: Some(dir.path().join("cache")),
        state_dir: Some(dir.path().join("state")),
        upstream: vec![("docker.io".parse().unwrap(), url)],
        ..Flags::default()
    };
    std::fs::write(dir.path().join("config.toml"), "").unwrap();
    let config = Config::load(flags).unwrap();
    loop {
        match App::start(config.clone(), &Surroundings::default()).await {
            Ok(app) => return app,
            // The one before has not let go of the cache yet.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn ask(app: &App, command: Command) -> Reply {
    Client::connect(&app.config().state_dir).await.unwrap().call(command).await.unwrap()
}

async fn list(app: &App, command: Command) -> Vec<RegistryUpstreams> {
    let Reply::Upstreams(all) = ask(app, command).await else { panic!("upstreams") };
    all
}

fn change(change: UpstreamChange, registry: &str, url: &str) -> Command {
    Command::UpstreamChange { change, registry: registry.into(), url: url.into() }
}

async fn refused(app: &App, command: Command) -> ApiError {
    let Reply::Error(error) = ask(app, command).await else { panic!("this should be refused") };
    error
}

/// The status and the body of a GET.
async fn get(app: &App, path: &str) -> (u16, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(app.listen()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", app.listen());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
}

fn hub(all: &[RegistryUpstreams]) -> &RegistryUpstreams {
    all.iter().find(|of| of.registry == "docker.io").unwrap()
}

#[tokio::test]
async fn what_a_person_chooses_holds_at_once_and_after_a_restart() {
    let (origin, mirror) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let app = start(&dir, &origin).await;
    let all = list(&app, Command::Upstreams).await;
    assert_eq!(hub(&all).upstreams.len(), 1);
    assert!(hub(&all).upstreams[0].is_origin && hub(&all).upstreams[0].is_trusted);

    let all = list(&app, change(UpstreamChange::Add, "docker.io", &mirror.url())).await;
    assert_eq!(hub(&all).upstreams[1].url, mirror.url());
    let all = list(&app, change(UpstreamChange::Trust, "docker.io", &mirror.url())).await;
    assert!(hub(&all).upstreams[1].is_trusted && !hub(&all).upstreams[0].is_trusted);
    // A registry nobody configured is one from now on, and no other is.
    let other = FakeRegistry::start().await;
    let image = other.publish_image("team/app:1", &ImageSpec::new(5, &[1000]));
    assert_eq!(get(&app, "/v2/registry.example/team/app/manifests/1").await.0, 404);
    list(&app, change(UpstreamChange::Add, "registry.example", &other.url())).await;
    assert_eq!(get(&app, "/v2/registry.example/team/app/manifests/1").await, (200, image.bytes.to_vec()));
    assert_eq!(get(&app, "/v2/registry2.example/team/app/manifests/1").await.0, 404);

    app.shutdown().await;
    drop(app);
    let app = start(&dir, &origin).await;
    let all = list(&app, Command::Upstreams).await;
    assert!(hub(&all).upstreams[1].is_trusted, "{all:?}");
    assert!(all.iter().any(|of| of.registry == "registry.example" && of.added));
    let all = list(&app, change(UpstreamChange::Remove, "registry.example", &other.url())).await;
    assert!(!all.iter().any(|of| of.registry == "registry.example"));
    let all = list(&app, change(UpstreamChange::Remove, "docker.io", &mirror.url())).await;
    assert!(hub(&all).upstreams.len() == 1 && hub(&all).upstreams[0].is_trusted);

    let own = format!("http://{}", app.listen());
    for (what, registry, url) in [
        (UpstreamChange::Add, "docker.io", own.as_str()),
        (UpstreamChange::Add, "docker.io", "ftp://mirror.example"),
        (UpstreamChange::Add, "docker.io", "https://me:secret@mirror.example"),
        (UpstreamChange::Add, "docker.io", "https://mirror.example/path"),
        (UpstreamChange::Add, "not a registry", "https://mirror.example"),
        (UpstreamChange::Remove, "docker.io", &origin.url()),
        (UpstreamChange::Trust, "docker.io", "https://nobody.example"),
        (UpstreamChange::Restore, "docker.io", "https://nobody.example"),
    ] {
        let error = refused(&app, change(what, registry, url)).await;
        assert_eq!(error.code, Code::InvalidRequest, "{what:?} {url}");
        assert!(!error.message.contains("secret"), "{}", error.message);
    }
    app.shutdown().await;
}

#[tokio::test]
async fn a_mirror_that_lied_is_named_by_the_doctor_and_remembered() {
    let (origin, mirror) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let image = origin.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[200_000]));
    mirror.publish_image("library/alpine:3.20", &ImageSpec::new(7, &[200_000]));
    let app = start(&dir, &origin).await;
    list(&app, change(UpstreamChange::Add, "docker.io", &mirror.url())).await;
    assert_eq!(get(&app, "/v2/library/alpine/manifests/3.20").await.0, 200);
    mirror.fails_on(Kind::Blob, Fault::CorruptByte(5));
    let layer = &image.layers()[0];
    let path = format!("/v2/library/alpine/blobs/{}", layer.digest);
    assert_eq!(get(&app, &path).await, (200, layer.bytes.to_vec()), "right, from the registry itself");
    let dropped = async |app: &App| hub(&list(app, Command::Upstreams).await).upstreams[1].state;
    for _ in 0..100 {
        if dropped(&app).await == UpstreamState::Dropped {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(dropped(&app).await, UpstreamState::Dropped);
    let Reply::Doctor(checks) = ask(&app, Command::Doctor).await else { panic!("checks") };
    let named = checks.iter().find(|check| check.detail.contains(&mirror.url())).unwrap();
    assert!(named.status == CheckStatus::Warning && named.detail.contains("other bytes"), "{named:?}");
    // It is written a moment after it was found out.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    app.shutdown().await;
    drop(app);
    let app = start(&dir, &origin).await;
    assert_eq!(dropped(&app).await, UpstreamState::Dropped, "a restart forgives nobody");
    list(&app, change(UpstreamChange::Restore, "docker.io", &mirror.url())).await;
    assert_ne!(dropped(&app).await, UpstreamState::Dropped);
    app.shutdown().await;
}
