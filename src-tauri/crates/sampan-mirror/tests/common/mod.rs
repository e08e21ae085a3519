//! A mirror in front of a fake registry, and the events it told.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by several test binaries; a failed unwrap fails the test"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sampan_mirror::{EventSink, Freshness, Mirror, MirrorOptions, Tasks};
use sampan_oci::{Answered, Digest, Event, Outcome};
use sampan_store::{Disk, OpenError, Store, StoreOptions};
use sampan_testkit::{FakeRegistry, TestClock};
use sampan_upstream::{Upstream, UpstreamConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub struct TestMirror {
    pub url: String,
    pub mirror: Mirror,
    pub store: Store,
    pub dir: tempfile::TempDir,
    pub client: reqwest::Client,
    pub clock: Arc<TestClock>,
    events: Arc<Mutex<Vec<Event>>>,
    told: Arc<tokio::sync::Notify>,
    tasks: Tasks,
    stop: CancellationToken,
}

pub struct Options {
    pub free_space_floor_bytes: u64,
    pub revalidate_timeout: Duration,
    pub connections_max: usize,
    pub outage_wait: Duration,
    pub speed_limit: Option<u64>,
    pub freshness: Freshness,
    /// Registries beside docker.io, with their addresses.
    pub also: Vec<(&'static str, String)>,
    pub clients: Option<Clients>,
    pub disk: Disk,
}

/// What asks upstreams, and what asks mirrors. Each reads every certificate of the system when it is made: a table of a hundred
/// mirrors shares them.
#[derive(Clone)]
pub struct Clients(sampan_upstream::Client, reqwest::Client);

impl Clients {
    pub fn new() -> Self {
        Self(sampan_upstream::client().unwrap(), reqwest::Client::builder().no_proxy().build().unwrap())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            free_space_floor_bytes: 0,
            revalidate_timeout: Duration::from_secs(5),
            connections_max: 32,
            outage_wait: Duration::from_mins(1),
            speed_limit: None,
            freshness: Freshness::default(),
            also: Vec::new(),
            clients: None,
            disk: Disk::real(),
        }
    }
}

fn upstream_of(registry: &str, url: &str, client: &sampan_upstream::Client) -> Upstream {
    let config = UpstreamConfig { registry: registry.parse().unwrap(), url: url.parse().unwrap() };
    Upstream::new(config, client.clone())
}

impl TestMirror {
    pub async fn in_front_of(upstream: &FakeRegistry) -> Self {
        Self::with(upstream, Options::default()).await
    }

    pub async fn with(upstream: &FakeRegistry, options: Options) -> Self {
        Self::on(tempfile::tempdir().unwrap(), upstream, options).await
    }

    /// Ends this mirror and starts another one on the same cache.
    pub async fn restart(self, upstream: &FakeRegistry) -> Self {
        self.restart_with(upstream, Options::default()).await
    }

    pub async fn restart_with(self, upstream: &FakeRegistry, options: Options) -> Self {
        self.stop.cancel();
        self.tasks.shutdown(Duration::from_secs(10)).await;
        let Self { dir, mirror, store, .. } = self;
        drop((mirror, store));
        Self::on(dir, upstream, options).await
    }

    /// A mirror whose cache is in `dir`.
    pub async fn on(dir: tempfile::TempDir, upstream: &FakeRegistry, options: Options) -> Self {
        let clock = Arc::new(TestClock::new());
        let mut opened = Err(OpenError::Locked { pid: None });
        // What a download that was ended told the disk to do is done to its end, and holds the cache until then.
        for _ in 0..100 {
            opened = Store::open(StoreOptions {
                free_space_floor_bytes: options.free_space_floor_bytes,
                disk: options.disk.clone(),
                ..StoreOptions::new(dir.path().join("cache"), clock.clone())
            });
            if !matches!(opened, Err(OpenError::Locked { .. })) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let store = opened.unwrap();
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let (events, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(tokio::sync::Notify::new()));
        let (theirs, tell) = (events.clone(), told.clone());
        let Clients(asks, client) = options.clients.unwrap_or_else(Clients::new);
        let also = options.also.iter().map(|(registry, url)| upstream_of(registry, url, &asks));
        let upstreams = also.chain([upstream_of("docker.io", &upstream.url(), &asks)]).collect();
        let mirror = Mirror::new(MirrorOptions {
            store: store.clone(),
            upstreams,
            clock: clock.clone(),
            sink: EventSink::new(move |event| {
                theirs.lock().unwrap().push(event.clone());
                tell.notify_waiters();
            }),
            tasks: tasks.clone(),
            revalidate_timeout: options.revalidate_timeout,
            connections_max: options.connections_max,
            outage_wait: options.outage_wait,
            speed_limit: options.speed_limit,
            freshness: options.freshness,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (serving, token) = (mirror.clone(), stop.clone());
        tasks.spawn("serve", |_| async move { serving.serve(listener, token).await });
        Self { url, mirror, store, dir, client, clock, events, told, tasks, stop }
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn head(&self, path: &str) -> reqwest::Response {
        self.client.head(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn range(&self, path: &str, range: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).header("Range", range).send().await.unwrap()
    }

    /// Has every upstream that heals found out: one that did not answer several times is left alone for a moment.
    pub async fn finds_them_healed(&self) {
        for upstream in self.mirror.upstreams() {
            upstream.ping().await.unwrap();
        }
    }

    /// The answers told so far, in order.
    pub fn answers(&self) -> Vec<Answered> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                Event::Answered(answered) => Some(answered.clone()),
                Event::Manifest { .. }
                | Event::BlobStarted { .. }
                | Event::BlobProgress { .. }
                | Event::Fetched { .. }
                | Event::Download { .. }
                | Event::Lied { .. } => None,
            })
            .collect()
    }

    /// Waits until `n` answers were told, and returns the outcome of the last.
    pub async fn outcome(&self, n: usize) -> Outcome {
        loop {
            let told = self.told.notified();
            if let Some(answered) = self.answers().get(n - 1) {
                return answered.outcome;
            }
            told.await;
        }
    }

    /// Waits until an answer like this was told, and returns the first.
    pub async fn answered(&self, wanted: impl Fn(&Answered) -> bool) -> Answered {
        loop {
            let told = self.told.notified();
            if let Some(answered) = self.answers().into_iter().find(&wanted) {
                return answered;
            }
            told.await;
        }
    }

    /// How the downloads went, as told: the most connections at once, retries, and repaired breaks of the last one.
    pub fn going(&self) -> (u32, u64, u64) {
        let events = self.events.lock().unwrap();
        events.iter().fold((0, 0, 0), |(most, asked, mended), event| {
            if let Event::Download { connections, retries, repaired, .. } = event {
                (most.max(*connections), *retries, *repaired)
            } else {
                (most, asked, mended)
            }
        })
    }

    /// Who was told to have lied, and how.
    pub fn lies(&self) -> Vec<(String, sampan_oci::Lie)> {
        let events = self.events.lock().unwrap();
        let lie = |event: &Event| {
            if let Event::Lied { url, lie, .. } = event { Some((url.clone(), *lie)) } else { None }
        };
        events.iter().filter_map(lie).collect()
    }

    /// The connections in use, as told last.
    pub fn connections(&self) -> Option<u32> {
        let events = self.events.lock().unwrap();
        events.iter().rev().find_map(|event| {
            if let Event::Download { connections, .. } = event { Some(*connections) } else { None }
        })
    }

    /// Body bytes told as fetched.
    pub fn fetched(&self) -> u64 {
        let bytes = |event: &Event| match event {
            Event::Fetched { bytes, .. } => *bytes,
            Event::Manifest { .. }
            | Event::BlobStarted { .. }
            | Event::BlobProgress { .. }
            | Event::Download { .. }
            | Event::Lied { .. }
            | Event::Answered(_) => 0,
        };
        self.events.lock().unwrap().iter().map(bytes).sum()
    }

    /// The file of a published blob.
    pub fn file(&self, digest: &Digest) -> std::path::PathBuf {
        self.dir.path().join("cache/blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// How many files are published.
    pub fn published(&self) -> usize {
        let blobs = self.dir.path().join("cache/blobs/sha256");
        std::fs::read_dir(blobs).map_or(0, Iterator::count)
    }

    pub async fn stop(self) -> usize {
        self.stop.cancel();
        self.tasks.shutdown(Duration::from_secs(10)).await
    }
}

/// How often each byte of a blob was asked for: `Some(n)` when all of them as often.
pub fn asked(upstream: &FakeRegistry, digest: &Digest, size: u64) -> Option<u64> {
    let (mut at, mut times) = (0, None);
    let mut ranges = upstream.ranges_of(digest);
    ranges.sort_by_key(|range| (range.start, range.end));
    let rounds = ranges.iter().map(|range| range.end - range.start).sum::<u64>().checked_div(size)?;
    for round in 0..size {
        // The edges are enough: between two of them nothing changes.
        if round != 0 && !ranges.iter().any(|range| range.start == round || range.end == round) {
            continue;
        }
        at = ranges.iter().filter(|range| range.contains(&round)).count() as u64;
        if *times.get_or_insert(at) != at {
            return None;
        }
    }
    (rounds == at).then_some(rounds)
}

/// A disk of a few MiB, unmounted when dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where the test may not mount one.
    pub fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        // Other systems have none.
        if cfg!(target_os = "linux") {
            sampan_testkit::cannot_run("a small disk can be mounted by root only");
        }
        None
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Takes some of its room.
    pub fn fill(&self, mebibytes: usize) {
        std::fs::write(self.0.path().join("filler"), vec![1; mebibytes << 20]).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: files of the cache may still be open.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The whole body, or `None` if it broke off.
pub async fn body(response: reqwest::Response) -> Option<Vec<u8>> {
    response.bytes().await.ok().map(|bytes| bytes.to_vec())
}
