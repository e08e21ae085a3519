//! A whole Sampan over its socket: what is in the cache, and what a person does with it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use sampan_app::api::{
    AgeLimit, ApiError, ClearReport, ClearSelection, Code, Command, Image, NotKeeping, Quota, RefreshResult,
    Refreshed, Reply, SettingsChange, Snapshot, StaleReason, Verify,
};
use sampan_app::{App, Client, Config, Flags, Surroundings};
use sampan_testkit::{FakeRegistry, ImageSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Sampan {
    app: App,
    upstream: FakeRegistry,
    dir: tempfile::TempDir,
}

impl Sampan {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With this configuration file.
    async fn start_with(config: &str) -> Self {
        let (upstream, dir) = (FakeRegistry::start().await, tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let app = App::start(load(&dir, &upstream), &Surroundings::default()).await.unwrap();
        Self { app, upstream, dir }
    }

    /// Ends it, and starts it again with the same folders.
    async fn restart(mut self) -> Self {
        self.app.shutdown().await;
        let config = load(&self.dir, &self.upstream);
        drop(self.app);
        // The store is released once the last task that held it is gone.
        let mut tries = 0;
        self.app = loop {
            match App::start(config.clone(), &Surroundings::default()).await {
                Ok(app) => break app,
                Err(error) if tries > 200 => panic!("{error}"),
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        };
        self
    }

    /// Asks it as another process would.
    async fn ask(&self, command: Command) -> Reply {
        let mut client = Client::connect(&self.app.config().state_dir).await.unwrap();
        client.call(command).await.unwrap()
    }

    async fn done(&self, command: Command) {
        assert_eq!(self.ask(command).await, Reply::Done);
    }

    async fn refused(&self, command: Command) -> ApiError {
        let Reply::Error(error) = self.ask(command).await else { panic!("this should be refused") };
        error
    }

    async fn snapshot(&self) -> Snapshot {
        let Reply::Snapshot(snapshot) = self.ask(Command::Snapshot).await else { panic!("a snapshot") };
        *snapshot
    }

    async fn images(&self) -> Vec<Image> {
        let Reply::Images(images) = self.ask(Command::Images).await else { panic!("images") };
        images
    }

    async fn clear(&self, names: &[&str], immediate: bool) -> ClearReport {
        let names = names.iter().map(ToString::to_string).collect();
        let selection = ClearSelection::Images { names };
        let Reply::Cleared(report) = self.ask(Command::Clear { selection, immediate }).await else {
            panic!("a report")
        };
        report
    }

    async fn configure(&self, change: SettingsChange) {
        self.done(Command::Configure { change }).await;
    }

    /// Pulls an image as Docker does: its manifest, then its parts.
    async fn pull(&self, name: &str) -> sampan_testkit::Image {
        let image = self.upstream.publish(name);
        let (repository, tag) = name.split_once(':').unwrap();
        self.get(&format!("/v2/{repository}/manifests/{tag}")).await;
        for blob in image.blobs() {
            self.get(&format!("/v2/{repository}/blobs/{}", blob.digest)).await;
        }
        image
    }

    async fn get(&self, path: &str) {
        let address = self.app.listen();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let status = String::from_utf8_lossy(&answer[..15.min(answer.len())]).into_owned();
        assert!(status.starts_with("HTTP/1.1 200"), "{path}: {status}");
    }
}

fn load(dir: &tempfile::TempDir, upstream: &FakeRegistry) -> Config {
    let flags = Flags {
        config: Some(dir.path().join("config.toml")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        cache_dir: Some(dir.path().join("cache")),
        state_dir: Some(dir.path().join("state")),
        upstream: vec![("docker.io".parse().unwrap(), upstream.url().parse().unwrap())],
        ..Flags::default()
    };
    Config::load(flags).unwrap()
}

fn names(images: &[Image]) -> Vec<String> {
    images.iter().map(|image| format!("{}:{}", image.image, image.tag.as_deref().unwrap_or("-"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_is_marked_until_it_is_unpinned() {
    let sampan = Sampan::start().await;
    sampan.pull("library/alpine:3.20").await;
    sampan.pull("library/alpine:3.21").await;
    sampan.done(Command::Pin { name: "alpine:3.20".into(), pinned: true }).await;
    let pinned = |images: Vec<Image>| images.iter().map(|image| image.pinned).collect::<Vec<_>>();
    assert_eq!(pinned(sampan.images().await), [true, false]);
    sampan.done(Command::Pin { name: "alpine".into(), pinned: true }).await;
    assert_eq!(pinned(sampan.images().await), [true, true], "without a tag: every tag");
    sampan.done(Command::Pin { name: "alpine:3.20".into(), pinned: false }).await;
    assert_eq!(pinned(sampan.images().await), [false, true]);

    let missing = sampan.refused(Command::Pin { name: "nginx".into(), pinned: true }).await;
    assert_eq!(missing.code, Code::NotHeld);
    assert!(missing.next_step.unwrap().contains("pull"));
    let wrong = sampan.refused(Command::Pin { name: "UPPER".into(), pinned: true }).await;
    assert_eq!(wrong.code, Code::InvalidRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_is_named_is_pinned_itself_and_unpinning_leaves_no_pin() {
    let sampan = Sampan::start().await;
    let first = sampan.pull("library/alpine:3.20").await.digest;
    let pin = |name: String, pinned| sampan.done(Command::Pin { name, pinned });
    let pinned = async || {
        let images = sampan.images().await;
        images.into_iter().map(|image| (image.tag.is_some(), image.pinned)).collect::<Vec<_>>()
    };
    pin(format!("alpine@{first}"), true).await;
    pin("alpine:3.20".into(), true).await;
    pin("alpine:3.20".into(), false).await;
    assert_eq!(pinned().await, [(true, false)], "neither its tag's pin nor its digest's is left");

    pin(format!("alpine@{first}"), true).await;
    sampan.upstream.publish_image("library/alpine:3.20", &ImageSpec::new(77, &[2000]));
    sampan.get("/v2/library/alpine/manifests/3.20").await;
    assert_eq!(pinned().await, [(false, true), (true, false)], "the tag moved on, the pin did not");
    pin("alpine".into(), false).await;
    assert_eq!(pinned().await, [(false, false), (true, false)]);
    pin("alpine".into(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nothing_is_kept_is_forgotten_once_something_can_make_way() {
    let sampan = Sampan::start().await;
    sampan.pull("library/alpine:3.20").await;
    sampan.done(Command::Pin { name: "alpine:3.20".into(), pinned: true }).await;
    let config = sampan.dir.path().join("config.toml");
    std::fs::write(config, "free_space_floor = \"1 PB\"\n").unwrap();
    let sampan = sampan.restart().await;
    assert_eq!(sampan.snapshot().await.cache.floor_bytes, 1_000_000_000_000_000);
    sampan.pull("library/alpine:3.21").await;
    assert_eq!(sampan.snapshot().await.cache.not_keeping, Some(NotKeeping::DiskFull));
    sampan.done(Command::Pin { name: "alpine:3.20".into(), pinned: false }).await;
    assert_eq!(sampan.snapshot().await.cache.not_keeping, None, "the next pull finds out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_changes_while_the_cache_takes_as_much_is_told() {
    let sampan = Sampan::start().await;
    sampan.pull("library/alpine:3.20").await;
    let mut before = sampan.snapshot().await.cache.listed;
    let mut has_changed = async || {
        let listed = sampan.snapshot().await.cache.listed;
        std::mem::replace(&mut before, listed) < listed
    };
    sampan.clear(&["alpine:3.20"], false).await;
    assert!(has_changed().await, "cleared");
    sampan.done(Command::ClearUndo { id: None }).await;
    assert!(has_changed().await, "back");
    sampan.refused(Command::ClearUndo { id: None }).await;
    assert!(has_changed().await, "whoever asks too late sees an old list");
    sampan.done(Command::Pin { name: "alpine".into(), pinned: true }).await;
    assert!(has_changed().await, "pinned");
    assert!(!has_changed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_cleared_image_comes_back_and_several_do_not() {
    let sampan = Sampan::start().await;
    for tag in ["3.19", "3.20", "3.21"] {
        sampan.pull(&format!("library/alpine:{tag}")).await;
    }
    let before = sampan.images().await;
    let selection = ClearSelection::Images { names: vec!["alpine:3.20".into()] };
    let Reply::ClearPreview(preview) = sampan.ask(Command::ClearPreview { selection }).await else {
        panic!("a preview")
    };
    assert!(preview.refetch_bytes > 0, "it came over the link, and would again");
    assert_eq!((preview.undo, sampan.images().await.len()), (None, 3), "a preview clears nothing");

    let report = sampan.clear(&["alpine:3.20"], false).await;
    assert_eq!(names(&report.images), ["docker.io/library/alpine:3.20"]);
    let now = sampan.snapshot().await.at;
    assert!(report.undo_until.unwrap() > now, "{:?} is after {now}", report.undo_until);
    assert_eq!(sampan.images().await.len(), 2, "it is gone from the list at once");
    sampan.done(Command::ClearUndo { id: report.undo }).await;
    assert_eq!(sampan.images().await, before, "as it was");
    assert_eq!(sampan.refused(Command::ClearUndo { id: report.undo }).await.code, Code::NotHeld, "once");

    sampan.clear(&["alpine:3.21"], false).await;
    sampan.done(Command::ClearUndo { id: None }).await;
    assert_eq!(sampan.images().await, before, "the newest needs no number");

    assert_eq!(sampan.clear(&["alpine:3.19"], true).await.undo, None, "at once means no way back");
    assert_eq!(sampan.clear(&["alpine"], false).await.undo, None, "two are more than one");
    assert_eq!(sampan.refused(Command::ClearUndo { id: None }).await.code, Code::NotHeld);
    assert_eq!(sampan.images().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_the_cache_hold_at_once_and_after_a_restart() {
    let sampan = Sampan::start_with("max_age_days = 90\n").await;
    let first = sampan.snapshot().await;
    assert_eq!((first.settings.quota, first.settings.max_age_days), (Quota::Auto, Some(90)));
    assert!(
        first.cache.quota_bytes.is_some_and(|bytes| bytes >= 100_000_000),
        "{:?}",
        first.cache.quota_bytes
    );

    let change = SettingsChange {
        quota: Some(Quota::Bytes(200_000_000)),
        max_age_days: Some(AgeLimit::Off),
        verify: Some(Verify::Always),
        ..SettingsChange::default()
    };
    sampan.configure(change).await;
    assert_eq!(sampan.snapshot().await.cache.quota_bytes, Some(200_000_000));
    let small = SettingsChange { quota: Some(Quota::Bytes(1)), ..SettingsChange::default() };
    assert_eq!(sampan.refused(Command::Configure { change: small }).await.code, Code::InvalidRequest);

    let sampan = sampan.restart().await;
    let again = sampan.snapshot().await;
    assert_eq!(again.cache.quota_bytes, Some(200_000_000));
    let settings = (again.settings.quota, again.settings.max_age_days, again.settings.verify);
    assert_eq!(settings, (Quota::Bytes(200_000_000), None, Verify::Always));

    sampan.configure(SettingsChange { quota: Some(Quota::Off), ..SettingsChange::default() }).await;
    assert_eq!(sampan.snapshot().await.cache.quota_bytes, None);
    sampan.configure(SettingsChange { quota: Some(Quota::Auto), ..SettingsChange::default() }).await;
    assert!(sampan.snapshot().await.cache.quota_bytes.is_some(), "found out anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_quota_takes_nothing_while_somebody_is_still_choosing() {
    let sampan = Sampan::start().await;
    let large = sampan.upstream.publish_image("library/large:1", &ImageSpec::new(5, &[100_000_000]));
    sampan.get("/v2/library/large/manifests/1").await;
    for blob in large.blobs() {
        sampan.get(&format!("/v2/library/large/blobs/{}", blob.digest)).await;
    }
    let choose = |quota| sampan.configure(SettingsChange { quota: Some(quota), ..SettingsChange::default() });
    choose(Quota::Bytes(100_000_000)).await;
    assert_eq!(sampan.snapshot().await.cache.quota_bytes, Some(100_000_000), "what was chosen is shown");
    sampan.pull("library/alpine:3.20").await;
    choose(Quota::Bytes(200_000_000)).await;
    sampan.pull("library/alpine:3.21").await;
    assert_eq!(sampan.images().await.len(), 3, "the small one was only passed on the way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_is_seen_while_it_goes_on_and_its_end_is_kept() {
    let sampan = Sampan::start().await;
    sampan.pull("library/alpine:3.20").await;
    sampan.done(Command::Scrub { start: true }).await;
    let mut snapshots = sampan.app.snapshots();
    snapshots.wait_for(|snapshot| snapshot.cache.scrub.is_none()).await.unwrap();
    let Reply::Health(health) = sampan.ask(Command::Health).await else { panic!("a report") };
    let run = health.last_run.unwrap();
    assert!(run.complete && run.damaged == 0 && run.blobs > 0, "{run:?}");
    assert!(health.health.checked_since.is_some());
    sampan.done(Command::Scrub { start: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_told_blob_by_blob() {
    let sampan = Sampan::start().await;
    let pulled = sampan.pull("library/alpine:3.20").await;
    let Reply::ImageDetails(details) = sampan.ask(Command::ImageDetails { name: "alpine:3.20".into() }).await
    else {
        panic!("details")
    };
    assert_eq!(details.len(), 1);
    let root = details[0].blobs.iter().find(|blob| blob.digest == pulled.digest.to_string()).unwrap();
    assert!(root.held && root.media_type.is_some(), "{root:?}");
    assert_eq!(sampan.refused(Command::ImageDetails { name: "nginx".into() }).await.code, Code::NotHeld);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_leave_by_a_file_and_only_absolute_paths_are_taken() {
    let sampan = Sampan::start().await;
    sampan.pull("library/alpine:3.20").await;
    let path = sampan.dir.path().join("images.tar").display().to_string();
    let names = vec!["alpine:3.20".to_owned()];
    let reply = sampan.ask(Command::Export { names: names.clone(), path: path.clone() }).await;
    let Reply::Exported(exported) = reply else { panic!("{reply:?}") };
    assert_eq!(
        (exported.images, exported.path),
        (vec!["docker.io/library/alpine:3.20".into()], path.clone())
    );
    assert!(std::fs::metadata(&path).unwrap().is_file());
    assert_eq!(sampan.snapshot().await.task, None, "it is over");
    let relative = Command::Export { names, path: "images.tar".into() };
    assert_eq!(sampan.refused(relative).await.code, Code::InvalidRequest);
    let missing = Command::Export { names: vec!["nginx".into()], path };
    assert_eq!(sampan.refused(missing).await.code, Code::NotHeld);
    let nowhere = Command::Import { path: "/nowhere/at/all.tar".into(), trust_names: false, name: None };
    assert_eq!(sampan.refused(nowhere).await.code, Code::InvalidRequest);
    sampan.done(Command::StopTask).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_frozen_refreshed_and_served_offline() {
    let sampan = Sampan::start().await;
    let (edge, path) = ("library/alpine:edge", "/v2/library/alpine/manifests/edge");
    let old = sampan.upstream.publish_image(edge, &ImageSpec::new(1, &[500])).digest.to_string();
    sampan.get(path).await;
    let new = sampan.upstream.publish_image(edge, &ImageSpec::new(2, &[500])).digest.to_string();
    let refresh = || async {
        let reply = sampan.ask(Command::Refresh { name: "alpine:edge".into() }).await;
        let Reply::Refreshed(refreshed) = reply else { panic!("{reply:?}") };
        let Ok([one]) = <[Refreshed; 1]>::try_from(refreshed) else { panic!("one tag") };
        one
    };
    let moved = refresh().await;
    assert_eq!(
        (moved.result, moved.before, moved.digest),
        (RefreshResult::Moved, Some(old.clone()), Some(new))
    );

    let frozen = |name: String| Command::Freeze { name, frozen: true };
    let elsewhere = format!("alpine:edge@sha256:{}", "0".repeat(64));
    let refused = sampan.refused(frozen(elsewhere)).await;
    assert_eq!(refused.code, Code::NotHeld);
    assert!(refused.next_step.unwrap().contains("docker pull"), "it says what to do");
    assert_eq!(sampan.refused(frozen("alpine".into())).await.code, Code::InvalidRequest);
    sampan.done(frozen(format!("alpine:edge@{old}"))).await;
    let images = sampan.images().await;
    let image = images.iter().find(|image| image.tag.is_some()).unwrap();
    assert_eq!((image.frozen.as_ref(), image.history.len()), (Some(&old), 2));
    assert_eq!(refresh().await.result, RefreshResult::Frozen);
    sampan.done(Command::Freeze { name: "alpine:edge".into(), frozen: false }).await;

    sampan.configure(SettingsChange { offline: Some(true), ..SettingsChange::default() }).await;
    let sampan = sampan.restart().await;
    sampan.upstream.forget();
    sampan.get(path).await;
    let snapshot = sampan.snapshot().await;
    assert!(snapshot.settings.offline, "it was saved");
    assert_eq!(snapshot.pulls[0].stale_reason, Some(StaleReason::Offline));
    assert_eq!((snapshot.mirror.tag_answers.offline, sampan.upstream.connections()), (1, 0));
}
