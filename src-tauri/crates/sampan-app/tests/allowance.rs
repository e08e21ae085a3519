//! A whole Sampan in front of a fake Hub: its gauge is the Hub's own count.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::time::Duration;

use sampan_app::api::{Allowance, Command, Reply, SpentBy};
use sampan_app::{App, Config, Flags, Surroundings};
use sampan_testkit::{FakeHub, RateLimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config(dir: &tempfile::TempDir, hub: &FakeHub) -> Config {
    std::fs::write(dir.path().join("config.toml"), "").unwrap();
    let flags = Flags {
        config: Some(dir.path().join("config.toml")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        cache_dir: Some(dir.path().join("cache")),
        state_dir: Some(dir.path().join("state")),
        upstream: vec![("docker.io".parse().unwrap(), hub.registry.url().parse().unwrap())],
        ..Flags::default()
    };
    Config::load(flags).unwrap()
}

/// Asks for a manifest; returns the status.
async fn pull(app: &App, repository: &str) -> u16 {
    let address = app.listen();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let path = format!("/v2/library/{repository}/manifests/1");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer)[9..12].parse().unwrap()
}

async fn gauges(app: &App) -> Vec<Allowance> {
    let Reply::Snapshot(snapshot) = app.call(Command::Snapshot).await else { panic!("a snapshot") };
    snapshot.allowances
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_is_the_hubs_own_count_and_names_who_spent_it() {
    let hub = FakeHub::start(RateLimit { retry_after: Some(60), ..RateLimit::of(20) }).await;
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(config(&dir, &hub), &Surroundings::default()).await.unwrap();
    assert_eq!(gauges(&app).await, [], "no gauge before it told");
    for n in 0..12 {
        hub.publish(&format!("library/image-{n}:1"));
        assert_eq!(pull(&app, &format!("image-{n}")).await, 200);
        assert_eq!(pull(&app, &format!("image-{n}")).await, 200, "from the cache");
        let gauge = gauges(&app).await.remove(0);
        assert_eq!(gauge.remaining, Some(20 - hub.spent()), "to the number");
        assert_eq!(gauge.spent, hub.spent());
    }
    let gauge = gauges(&app).await.remove(0);
    assert_eq!((gauge.registry.as_str(), gauge.limit, gauge.remaining), ("docker.io", Some(20), Some(8)));
    assert_eq!((gauge.window_seconds, gauge.source.as_deref()), (Some(21_600), Some("127.0.0.1")));
    assert_eq!((gauge.forecast, gauge.rests_until, gauge.is_low), (None, None, false), "too early to tell");
    let resets = gauge.resets_at.unwrap() - gauge.seen_at;
    assert!((21_500_000..=21_720_000).contains(&resets), "{resets}");
    assert_eq!(gauge.spent_by.len(), 12);
    assert!(gauge.spent_by.contains(&SpentBy { image: "docker.io/library/image-3".into(), count: 1 }));

    for n in 12..22 {
        hub.publish(&format!("library/image-{n}:1"));
        assert_eq!(pull(&app, &format!("image-{n}")).await, if n < 20 { 200 } else { 503 });
    }
    let gauge = gauges(&app).await.remove(0);
    assert_eq!((gauge.remaining, gauge.spent, gauge.is_low), (Some(0), 20, true));
    assert!(gauge.rests_until.is_some_and(|until| until > gauge.seen_at));
    app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_spent_it_is_known_after_a_restart() {
    let hub = FakeHub::start(RateLimit::of(100)).await;
    hub.publish("library/alpine:1");
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(config(&dir, &hub), &Surroundings::default()).await.unwrap();
    assert_eq!(pull(&app, "alpine").await, 200);
    app.shutdown().await;
    drop(app);
    let mut again = App::start(config(&dir, &hub), &Surroundings::default()).await;
    // The store is released once the last task that held it is gone.
    for _ in 0..200 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        again = App::start(config(&dir, &hub), &Surroundings::default()).await;
    }
    let app = again.unwrap();
    assert_eq!(pull(&app, "alpine").await, 200);
    assert_eq!(hub.spent(), 1, "the second was a HEAD");
    let gauge = gauges(&app).await.remove(0);
    assert_eq!((gauge.remaining, gauge.spent), (Some(99), 1));
    assert_eq!(gauge.spent_by, [SpentBy { image: "docker.io/library/alpine".into(), count: 1 }]);
    app.shutdown().await;
}
