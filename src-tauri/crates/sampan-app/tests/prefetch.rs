//! A whole Sampan over its socket: fetching ahead, keeping fresh, and whether a pull holds with the network off.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::time::Duration;

use sampan_app::api::{
    ApiError, Code, Command, Image, Metered, OfflineImage, OfflinePart, OfflineProblem, Prefetch,
    PrefetchChange, PrefetchItem, PrefetchJob, PrefetchJobState, PrefetchWait, QuietChange, QuietHours,
    Reply, SettingsChange, Snapshot,
};
use sampan_app::{App, Client, Config, Flags, Surroundings};
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, IndexSpec, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Sampan {
    app: App,
    upstream: FakeRegistry,
    dir: tempfile::TempDir,
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

impl Sampan {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With these lines in the configuration file.
    async fn start_with(config: &str) -> Self {
        let (upstream, dir) = (FakeRegistry::start().await, tempfile::tempdir().unwrap());
        let config = format!("revalidate_timeout = \"500ms\"\noutage_wait = \"1s\"\n{config}");
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let app = App::start(load(&dir, &upstream), &Surroundings::default()).await.unwrap();
        Self { app, upstream, dir }
    }

    /// Ends it, does something, and starts it again with the same folders.
    async fn restart(mut self, meanwhile: impl FnOnce(&std::path::Path)) -> Self {
        self.app.shutdown().await;
        drop(self.app);
        meanwhile(&self.dir.path().join("state"));
        let mut tries = 0;
        self.app = loop {
            match App::start(load(&self.dir, &self.upstream), &Surroundings::default()).await {
                Ok(app) => break app,
                Err(error) if tries > 200 => panic!("{error}"),
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        self
    }

    async fn ask(&self, command: Command) -> Reply {
        let mut client = Client::connect(&self.app.config().state_dir).await.unwrap();
        client.call(command).await.unwrap()
    }

    async fn change(&self, change: PrefetchChange) -> Reply {
        self.ask(Command::Prefetch { change }).await
    }

    async fn add(&self, name: &str, platform: Option<&str>, pin: bool, now: bool) -> u64 {
        let images = vec![PrefetchItem { name: name.into(), platform: platform.map(Into::into) }];
        let reply = self.change(PrefetchChange::Add { images, pin, now }).await;
        let Reply::Prefetching(ids) = reply else { panic!("{reply:?}") };
        ids[0]
    }

    async fn refused(&self, name: &str, platform: Option<&str>) -> ApiError {
        let images = vec![PrefetchItem { name: name.into(), platform: platform.map(Into::into) }];
        let reply = self.change(PrefetchChange::Add { images, pin: false, now: false }).await;
        let Reply::Error(error) = reply else { panic!("{reply:?}") };
        error
    }

    async fn configure(&self, change: SettingsChange) {
        assert_eq!(self.ask(Command::Configure { change }).await, Reply::Done);
    }

    async fn snapshot(&self) -> Snapshot {
        let Reply::Snapshot(snapshot) = self.ask(Command::Snapshot).await else { panic!("a snapshot") };
        *snapshot
    }

    /// Waits until what is shown is as wanted.
    async fn until(&self, wanted: impl Fn(&Prefetch) -> bool) -> Prefetch {
        let mut snapshots = self.app.snapshots();
        let there = snapshots.wait_for(|snapshot| wanted(&snapshot.prefetch));
        let there = tokio::time::timeout(Duration::from_secs(30), there).await;
        let Ok(there) = there else { panic!("{:?}", self.snapshot().await.prefetch) };
        there.unwrap().prefetch.clone()
    }

    /// Waits until a job has ended.
    async fn ended(&self, id: u64) -> PrefetchJob {
        let ended = |job: &&PrefetchJob| job.id == id && job.ended.is_some();
        let shown = self.until(|shown| shown.jobs.iter().any(|job| ended(&job))).await;
        shown.jobs.iter().find(ended).unwrap().clone()
    }

    async fn images(&self) -> Vec<Image> {
        let Reply::Images(images) = self.ask(Command::Images).await else { panic!("images") };
        images
    }

    async fn offline(&self, name: &str) -> OfflineImage {
        let asked = Command::VerifyOffline { name: name.into(), platform: Some("linux/amd64".into()) };
        let reply = self.ask(asked).await;
        let Reply::Offline(image) = reply else { panic!("{reply:?}") };
        image
    }

    async fn get(&self, path: &str) -> u16 {
        let address = self.app.listen();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..12]).parse().unwrap()
    }
}

const AMD64: Option<&str> = Some("linux/amd64");

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_pinned_counted_as_fetched_and_served_as_a_hit() {
    let sampan = Sampan::start().await;
    let image = sampan.upstream.publish("library/alpine:3.20");
    let id = sampan.add("alpine:3.20", AMD64, true, false).await;
    let job = sampan.ended(id).await;
    assert_eq!((job.state, job.problem, job.moved), (PrefetchJobState::Done, None, false));
    assert_eq!(job.name, "docker.io/library/alpine:3.20");
    assert_eq!((job.size_bytes, job.held_bytes), (Some(job.fetched_bytes), job.fetched_bytes));
    let images = sampan.images().await;
    assert_eq!((images.len(), images[0].pinned), (1, true));
    let today = sampan.snapshot().await.today;
    assert_eq!((today.fetched_bytes, today.served_bytes), (job.fetched_bytes, 0), "nobody was served");
    assert!(sampan.snapshot().await.pulls.is_empty(), "and nobody pulled");
    sampan.upstream.fails_with(Fault::RefuseConnection);
    assert_eq!(sampan.get("/v2/library/alpine/manifests/3.20").await, 200);
    for blob in image.blobs() {
        assert_eq!(sampan.get(&format!("/v2/library/alpine/blobs/{}", blob.digest)).await, 200);
    }
    let today = sampan.snapshot().await.today;
    assert_eq!(today.fetched_bytes, job.fetched_bytes, "it is not fetched again");
    assert_eq!(today.served_bytes, today.hit_bytes, "and all that was served are hits");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_waits_for_the_quiet_hours_a_metered_link_and_pauses_but_not_a_person_in_a_hurry() {
    let sampan = Sampan::start().await;
    for name in ["a", "b", "c"] {
        sampan.upstream.publish(&format!("library/{name}:1"));
    }
    // Hours that are not now, whenever this runs: of two that do not overlap one is not.
    let noon = QuietHours { from: 0, to: 720 };
    let quiet = |hours| SettingsChange { quiet_hours: Some(hours), ..SettingsChange::default() };
    sampan.configure(quiet(QuietChange::Hours(noon))).await;
    let first = sampan.add("a:1", AMD64, false, false).await;
    let shown = sampan.snapshot().await.prefetch;
    if shown.waits != Some(PrefetchWait::QuietHours) {
        let other = QuietHours { from: 720, to: 0 };
        sampan.configure(quiet(QuietChange::Hours(other))).await;
        sampan.change(PrefetchChange::Cancel { id: Some(first) }).await;
    }
    let id = sampan.add("b:1", AMD64, false, false).await;
    let shown = sampan.until(|shown| shown.waits == Some(PrefetchWait::QuietHours)).await;
    assert!(shown.opens.is_some_and(|at| at > shown.jobs[0].added), "{shown:?}");
    let hurry = sampan.add("c:1", AMD64, false, true).await;
    assert_eq!(sampan.ended(hurry).await.state, PrefetchJobState::Done);
    let metered = |metered| SettingsChange {
        metered: Some(metered),
        quiet_hours: Some(QuietChange::Off),
        ..SettingsChange::default()
    };
    assert_eq!(sampan.change(PrefetchChange::Pause { paused: true }).await, Reply::Done);
    sampan.configure(metered(Metered::On)).await;
    sampan.until(|shown| shown.waits == Some(PrefetchWait::Paused)).await;
    assert_eq!(sampan.change(PrefetchChange::Pause { paused: false }).await, Reply::Done);
    sampan.until(|shown| shown.waits == Some(PrefetchWait::Metered)).await;
    assert_eq!(sampan.upstream.requests_to("GET", "/v2/library/b/manifests/1"), 0, "it has waited");
    sampan.configure(metered(Metered::Auto)).await;
    assert_eq!(sampan.ended(id).await.state, PrefetchJobState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_in_the_middle_it_stops_and_added_again_it_goes_on_where_it_was() {
    const LAYER: usize = 8_000_000;
    const SIZE: u64 = LAYER as u64;
    let sampan = Sampan::start().await;
    let image = sampan.upstream.publish_image("library/large:1", &ImageSpec::new(1, &[LAYER]));
    sampan.upstream.fails_on(Kind::Blob, Fault::RateTotal { bytes_per_second: 4_000_000 });
    let id = sampan.add("large:1", AMD64, false, false).await;
    sampan.until(|shown| shown.jobs.iter().any(|job| job.held_bytes > 1_000_000)).await;
    assert_eq!(sampan.change(PrefetchChange::Cancel { id: Some(id) }).await, Reply::Done);
    sampan.until(|shown| shown.jobs.is_empty()).await;
    let gone = sampan.change(PrefetchChange::Cancel { id: Some(id) }).await;
    assert!(matches!(gone, Reply::Error(ApiError { code: Code::NotHeld, .. })), "{gone:?}");
    sampan.upstream.heals();
    let again = sampan.add("large:1", AMD64, false, false).await;
    let job = sampan.ended(again).await;
    assert_eq!((job.state, job.held_bytes), (PrefetchJobState::Done, job.size_bytes.unwrap()));
    assert!(job.fetched_bytes < SIZE - 900_000, "{job:?}");
    let today = sampan.snapshot().await.today;
    assert!(today.fetched_bytes < SIZE + 100_000, "no byte twice: {today:?}");
    assert!(image.blobs().count() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_survives_a_restart_and_what_fails_says_why() {
    let sampan = Sampan::start().await;
    sampan.upstream.publish("library/a:1");
    assert_eq!(sampan.change(PrefetchChange::Pause { paused: true }).await, Reply::Done);
    let id = sampan.add("a:1", AMD64, false, false).await;
    assert_eq!(sampan.add("docker.io/library/a:1", AMD64, true, false).await, id, "once in the queue");
    let missing = sampan.add("none:1", AMD64, false, false).await;
    let sampan = sampan.restart(|_| ()).await;
    let shown = sampan.snapshot().await.prefetch;
    assert_eq!((shown.paused, shown.jobs.len(), shown.jobs[0].pin), (true, 2, true));
    assert_eq!(sampan.change(PrefetchChange::Pause { paused: false }).await, Reply::Done);
    assert_eq!(sampan.ended(id).await.state, PrefetchJobState::Done);
    let failed = sampan.ended(missing).await;
    let problem = failed.problem.unwrap();
    assert_eq!((failed.state, problem.code), (PrefetchJobState::Failed, Code::NotHeld));
    assert!(problem.message.contains("docker.io/library/none:1"), "{}", problem.message);
    sampan.upstream.publish("library/none:1");
    assert_eq!(sampan.change(PrefetchChange::Retry { id: missing }).await, Reply::Done);
    sampan.until(|shown| shown.jobs.iter().all(|job| job.state == PrefetchJobState::Done)).await;

    assert_eq!(sampan.refused("Not A Name", None).await.code, Code::InvalidRequest);
    assert_eq!(sampan.refused("a:1", Some("amd64")).await.code, Code::InvalidRequest);
    let elsewhere = sampan.refused("example.com/a/b", None).await;
    assert!(elsewhere.next_step.unwrap().contains("upstreams"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_away_is_asked_again_and_the_queue_goes_on_meanwhile() {
    let sampan = Sampan::start().await;
    sampan.upstream.publish("library/a:1");
    sampan.upstream.fails_with(Fault::RefuseConnection);
    let id = sampan.add("a:1", AMD64, false, false).await;
    let shown = sampan.until(|shown| shown.jobs[0].again_at.is_some()).await;
    let job = &shown.jobs[0];
    assert_eq!((job.state, job.problem.as_ref().unwrap().code), (PrefetchJobState::Waiting, Code::Upstream));
    sampan.upstream.heals();
    assert_eq!(sampan.change(PrefetchChange::Retry { id }).await, Reply::Done, "at once");
    assert_eq!(sampan.ended(id).await.state, PrefetchJobState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_fresh_is_asked_for_when_it_is_due_and_a_move_is_told() {
    let sampan = Sampan::start().await;
    sampan.upstream.publish_image("library/postgres:16", &ImageSpec::new(1, &[100_000, 2000]));
    let id = sampan.add("postgres:16", AMD64, false, false).await;
    sampan.ended(id).await;
    let keep =
        |name: &str, keep| PrefetchChange::Keep { name: name.into(), platform: AMD64.map(Into::into), keep };
    assert_eq!(sampan.change(keep("postgres:16", true)).await, Reply::Done);
    assert_eq!(sampan.change(keep("postgres:16", true)).await, Reply::Done, "twice is once");
    let digest = format!("postgres@sha256:{}", "a".repeat(64));
    assert!(matches!(sampan.change(keep(&digest, true)).await, Reply::Error(_)), "a digest never moves");
    let kept = sampan.snapshot().await.prefetch.kept;
    assert_eq!((kept.len(), kept[0].checked), (1, None));
    let hours = (kept[0].next - sampan.snapshot().await.at) / 3_600_000;
    assert!((0..30).contains(&hours), "in the next night: in {hours} h");

    // The tag moves; its first layer stays. The night comes while Sampan does not run.
    sampan.upstream.publish_image("library/postgres:16", &ImageSpec::new(1, &[100_000, 3000]));
    let sampan = sampan
        .restart(|state| {
            let file = state.join("prefetch.json");
            let text = std::fs::read_to_string(&file).unwrap();
            let mut book: serde_json::Value = serde_json::from_str(&text).unwrap();
            book["kept"][0]["next"] = 1.into();
            std::fs::write(&file, book.to_string()).unwrap();
        })
        .await;
    let next = sampan.snapshot().await.prefetch.kept[0].next;
    let wait = next - sampan.snapshot().await.at;
    assert!((-1000..600_000).contains(&wait), "soon after the start, not all at once: {wait}");
    let sampan = sampan
        .restart(|state| {
            let file = state.join("prefetch.json");
            let text = std::fs::read_to_string(&file).unwrap();
            let mut book: serde_json::Value = serde_json::from_str(&text).unwrap();
            let now = next - wait;
            book["kept"][0]["next"] = (now + 2500).into();
            std::fs::write(&file, book.to_string()).unwrap();
        })
        .await;
    let shown = sampan.until(|shown| shown.kept[0].checked.is_some()).await;
    let kept = &shown.kept[0];
    assert_eq!(kept.moved, kept.checked);
    assert!((3000..50_000).contains(&kept.moved_bytes), "what moved, not what stayed: {}", kept.moved_bytes);
    assert!(kept.next > kept.checked.unwrap(), "and again in a night");
    let job = shown.jobs.iter().find(|job| job.kept).unwrap();
    assert!(job.moved && job.state == PrefetchJobState::Done, "{job:?}");
    assert_eq!(sampan.change(keep("postgres:16", false)).await, Reply::Done);
    assert!(sampan.snapshot().await.prefetch.kept.is_empty());
    assert!(matches!(sampan.change(keep("postgres:16", false)).await, Reply::Error(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_offline_is_found_by_hashing_every_byte_and_what_does_not_is_named() {
    use OfflinePart::{Attestation, Config, Index, Layer, Manifest, Platform, Registry, Tag};

    let sampan = Sampan::start().await;
    let spec = IndexSpec::new().image(ImageSpec::new(1, &[50_000, 1000])).attestation();
    let image = sampan.upstream.publish_index("library/alpine:3.20", &spec);
    let nothing = sampan.offline("alpine:3.20").await;
    assert!(!nothing.holds);
    assert_eq!(
        (nothing.checks[1].what, nothing.checks[1].problem),
        (OfflinePart::Tag, Some(OfflineProblem::Missing))
    );
    let id = sampan.add("alpine:3.20", AMD64, false, false).await;
    sampan.ended(id).await;
    sampan.upstream.fails_with(Fault::RefuseConnection);
    let requests = sampan.upstream.log().len();
    let whole = sampan.offline("alpine:3.20").await;
    assert!(whole.holds, "{whole:?}");
    let parts: Vec<_> = whole.checks.iter().map(|check| check.what).collect();
    assert_eq!(
        parts,
        [
            Registry,
            Tag,
            Index,
            Platform,
            Manifest,
            Config,
            Layer,
            Layer,
            Attestation,
            Attestation,
            Attestation
        ]
    );
    let bytes = image.bytes.len() + image.manifests.iter().map(|m| m.bytes.len()).sum::<usize>();
    let blobs: u64 = image.blobs().map(sampan_testkit::Layer::size).sum();
    assert_eq!(whole.hashed_bytes, bytes as u64 + blobs, "every byte was read");
    assert_eq!(sampan.upstream.log().len(), requests, "and nobody was asked");

    let layer = &image.layers()[0];
    let file = sampan.dir.path().join("cache/blobs/sha256").join(layer.digest.hex());
    let mut damaged = layer.bytes.to_vec();
    damaged[25_000] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let found = sampan.offline("alpine:3.20").await;
    let problem = |found: &OfflineImage| {
        let check = found.checks.iter().find(|check| check.name == layer.digest.to_string()).unwrap();
        (found.holds, check.problem)
    };
    assert_eq!(problem(&found), (false, Some(OfflineProblem::Damaged)));
    assert_eq!(
        problem(&sampan.offline("alpine:3.20").await),
        (false, Some(OfflineProblem::Missing)),
        "set aside"
    );
    assert_ne!(
        sampan.get(&format!("/v2/library/alpine/blobs/{}", layer.digest)).await,
        200,
        "and not served"
    );
    sampan.upstream.heals();
    let id = sampan.add("alpine:3.20", AMD64, false, false).await;
    assert_eq!(sampan.ended(id).await.fetched_bytes, layer.size(), "only that one is fetched again");
    assert!(sampan.offline("alpine:3.20").await.holds);
    let other = sampan
        .ask(Command::VerifyOffline { name: "alpine:3.20".into(), platform: Some("linux/arm64".into()) });
    let Reply::Offline(other) = other.await else { panic!("a checklist") };
    assert!(
        !other.holds && other.checks.iter().any(|check| check.what == Platform && check.problem.is_some())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_larger_than_the_quota_is_refused_with_what_to_do() {
    let sampan = Sampan::start_with("quota = \"100 MB\"\n").await;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
            "digest": sampan.upstream.publish_blob("library/huge", &b"{}"[..])},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 200_000_000,
            "digest": format!("sha256:{}", "a".repeat(64))}],
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    sampan.upstream.publish_manifest("library/huge", "1", manifest.to_string(), kind);
    let id = sampan.add("huge:1", AMD64, false, false).await;
    let job = sampan.ended(id).await;
    let problem = job.problem.unwrap();
    assert_eq!((job.state, problem.code), (PrefetchJobState::Failed, Code::Store), "{}", problem.message);
    assert!(problem.next_step.unwrap().contains("quota"));
}
