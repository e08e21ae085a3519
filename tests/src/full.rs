//! A cache on a disk that is too small for it, and that somebody else fills up as well (SECURITY.md R65).
//!
//! The disk is a tmpfs of 64 MB in a mount namespace of Sampan's own, looked at through `/proc/<pid>/root`. Clients pull from
//! a working set that is larger than that. First the cache makes room for itself, then a foreign file takes the disk so that
//! nothing can be kept, then that file is removed.

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sampan_app::Client;
use sampan_app::api::{ClearSelection, Command as Call, NotKeeping, Reply, Snapshot};
use sampan_oci::Digest;
use sampan_testkit::FakeRegistry;
use serde_json::json;
use tokio::task::JoinSet;

use crate::kill::wire;
use crate::process::Process;
use crate::torture::Dice;
use crate::{bins, disk, finish, free_port, scratch};

const DISK: u64 = 64 << 20;
const FLOOR: u64 = 4 << 20;
/// What the index, its log and the ledgers may take of that between two decisions: they are not asked for beforehand.
const BESIDE: u64 = 1 << 20;
const SETTINGS: &str = "quota = \"off\"\nfree_space_floor = \"4 MiB\"\n";
/// What is upstream: so many images of three layers of their own, in bytes.
const IMAGES: usize = 24;
const LAYERS: [usize; 3] = [4_700_000, 1_900_000, 40_000];
/// And one with a layer that is larger than the disk, asked for once in so many pulls.
const HUGE: usize = 80_000_000;
const HUGE_EVERY: u64 = 60;
const CLIENTS: u64 = 6;
const TAG: &str = "1";
/// How long Sampan may take to keep things again (SECURITY.md R65).
pub const RECOVERS_WITHIN: Duration = Duration::from_secs(30);
const START_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// What the pulls saw.
#[derive(Clone, Debug, Default)]
pub struct FullFigures {
    /// Answers, and their bytes; each was compared with its digest.
    pub answers: u64,
    /// Of those.
    pub bytes: u64,
    /// What the upstream sent for them.
    pub upstream_bytes: u64,
    /// How often the cache made room.
    pub evictions: u64,
    /// The most that blobs and downloads took together, by the disk.
    pub most_bytes: u64,
    /// The least that was free before the foreign file came.
    pub least_free_bytes: u64,
    /// How large the foreign file became.
    pub filler_bytes: u64,
    /// How many of the snapshots taken while it was there said that the disk is full.
    pub said_full: (u32, u32),
    /// How long it took until things were kept again.
    pub recovered: Duration,
    /// Published files at the end; each is what its name says.
    pub blobs: usize,
}

impl fmt::Display for FullFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes / 1_000_000;
        write!(
            f,
            "{} answers of {} MB together, all right; {} MB from upstream; room made {} times\n\
             the cache took {} MB of 67 at most, {} kB were free at least; the foreign file took {} MB\n\
             {} of {} snapshots said then that the disk is full; kept again after {:?}; {} files at the end, all right",
            self.answers,
            mb(self.bytes),
            mb(self.upstream_bytes),
            self.evictions,
            mb(self.most_bytes),
            self.least_free_bytes / 1000,
            mb(self.filler_bytes),
            self.said_full.0,
            self.said_full.1,
            self.recovered,
            self.blobs,
        )
    }
}

/// What is upstream.
struct World {
    registry: FakeRegistry,
    /// Each image's repository, and the digest of its manifest.
    images: Vec<(String, Digest)>,
    /// The blobs of each manifest.
    blobs: HashMap<Digest, Vec<Digest>>,
}

impl World {
    async fn make() -> Self {
        let registry = FakeRegistry::start().await;
        let mut world = Self { registry, images: Vec::new(), blobs: HashMap::new() };
        for at in 0..IMAGES {
            world.add(at, &LAYERS);
        }
        world.add(IMAGES, &[HUGE]);
        world
    }

    fn add(&mut self, at: usize, layers: &[usize]) {
        let name = format!("library/image-{at}");
        let publish = |text: String, size: usize, kind: &str| {
            let mut bytes = text.into_bytes();
            bytes.resize(size.max(bytes.len()), b' ');
            let size = bytes.len();
            let digest = self.registry.publish_blob(&name, bytes);
            let media_type = format!("application/vnd.oci.image.{kind}");
            (digest, json!({"mediaType": media_type, "digest": digest.to_string(), "size": size}))
        };
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"number":{at},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#
        );
        let (config, described) = publish(text, 0, "config.v1+json");
        let layers: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(nth, size)| publish(format!("layer {nth} of {at}"), *size, "layer.v1.tar"))
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let listed: Vec<_> = layers.iter().map(|(_, described)| described.clone()).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": listed});
        let digest = self.registry.publish_manifest(&name, TAG, manifest.to_string(), media_type);
        self.images.push((name, digest));
        let blobs = std::iter::once(config).chain(layers.into_iter().map(|(digest, _)| digest));
        self.blobs.insert(digest, blobs.collect());
    }
}

/// `sampan serve` in a mount namespace with a small disk.
struct Sampan {
    process: Process,
    port: u16,
    disk: PathBuf,
    folder: tempfile::TempDir,
}

impl Sampan {
    fn start(upstream: &str) -> Self {
        let (folder, port) = (scratch(), free_port());
        let (inside, settings) = (folder.path().join("disk"), folder.path().join("config.toml"));
        std::fs::create_dir(&inside).expect("a temporary folder can be written to");
        std::fs::write(&settings, SETTINGS).expect("a temporary folder can be written to");
        let mut command = Command::new("unshare");
        command.args([
            "-m",
            "sh",
            "-c",
            r#"mount -t tmpfs -o "size=$0,mode=700" tmpfs "$1" && shift && exec "$@""#,
        ]);
        command.arg(DISK.to_string()).arg(&inside).arg(bins::ours("sampan"));
        command.arg("--config").arg(&settings).arg("--state-dir").arg(folder.path().join("state"));
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--upstream", &format!("docker.io={upstream}")]);
        command.arg("--cache-dir").arg(inside.join("cache")).env("HOME", folder.path());
        command.env("DOCKER_HOST", format!("unix://{}", folder.path().join("no-docker.sock").display()));
        let mut process = Process::start("sampan", folder.path(), &mut command);
        process.wait_for_line(START_WITHIN, |line| line.starts_with("Sampan serves "));
        // Each program has become the next: the process is Sampan.
        let root = PathBuf::from(format!("/proc/{}/root", process.id()));
        let disk = root.join(inside.strip_prefix("/").expect("a temporary folder has an absolute path"));
        Self { process, port, disk, folder }
    }

    fn cache(&self) -> PathBuf {
        self.disk.join("cache")
    }

    async fn call(&self, call: Call) -> Reply {
        let mut client = Client::connect(&self.folder.path().join("state")).await.expect("it has a socket");
        client.call(call).await.expect("a running Sampan answers")
    }

    async fn snapshot(&self) -> Snapshot {
        let Reply::Snapshot(snapshot) = self.call(Call::Snapshot).await else { panic!("not a snapshot") };
        *snapshot
    }

    /// What a person is told.
    fn status(&self) -> String {
        let mut command = Command::new(bins::ours("sampan"));
        command.arg("status").arg("--state-dir").arg(self.folder.path().join("state"));
        let output = finish(command.env("HOME", self.folder.path()));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Writes until the disk is full.
fn fill(file: &mut std::fs::File) {
    let bytes = vec![7; 64 * 1024];
    while file.write(&bytes).is_ok_and(|written| written > 0) {}
}

fn free(disk: &Path) -> u64 {
    rustix::fs::statvfs(disk).map_or(0, |disk| disk.f_bavail * disk.f_frsize)
}

/// What clients share.
struct Shared {
    world: World,
    address: String,
    /// How many bytes shall have come by the end of this part.
    wanted: AtomicU64,
    got: AtomicU64,
    answers: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Shared {
    /// So many more bytes shall come.
    fn wants(&self, bytes: u64) {
        self.wanted.store(self.got.load(Ordering::SeqCst).saturating_add(bytes), Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.is_none() && self.got.load(Ordering::SeqCst) < self.wanted.load(Ordering::SeqCst)
    }

    async fn get(&self, path: String, digest: &Digest) -> Result<(), String> {
        let answer =
            wire::get(&self.address, &path, None).await.map_err(|error| format!("{path}: {error}"))?;
        if answer.status != 200 || !digest.names(&answer.body) {
            return Err(format!("{path}: {}, {} bytes that are others", answer.status, answer.body.len()));
        }
        self.got.fetch_add(answer.body.len() as u64, Ordering::SeqCst);
        self.answers.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// An image by its tag, every byte of it.
    async fn pull(&self, at: usize) -> Result<(), String> {
        let (name, digest) = &self.world.images[at];
        self.get(format!("/v2/{name}/manifests/{TAG}"), digest).await?;
        for blob in &self.world.blobs[digest] {
            self.get(format!("/v2/{name}/blobs/{blob}"), blob).await?;
        }
        Ok(())
    }

    async fn pulls(&self, mut dice: Dice) {
        while self.goes_on() {
            let at = if dice.below(HUGE_EVERY) == 0 { IMAGES } else { dice.place(IMAGES) };
            if let Err(why) = self.pull(at).await {
                self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
        }
    }
}

/// Pulls so many megabytes through a cache on a disk of 64 MB, in three parts.
///
/// # Panics
/// If an answer is wrong or none, a file is not what its name says, the cache takes more than there is, it does not say that
/// it keeps nothing, or does not keep things again in time.
pub async fn pulls(megabytes: u64, seed: u64) -> FullFigures {
    let world = World::make().await;
    let sampan = Sampan::start(&world.registry.url());
    let shared = Arc::new(Shared {
        address: format!("127.0.0.1:{}", sampan.port),
        world,
        wanted: AtomicU64::new(0),
        got: AtomicU64::new(0),
        answers: AtomicU64::new(0),
        wrong: Mutex::default(),
    });
    let (mut figures, dice) =
        (FullFigures { least_free_bytes: DISK, ..FullFigures::default() }, Dice::new(seed));
    let part = |percent: u64| megabytes * 1_000_000 * percent / 100;

    // The cache by itself.
    let clients = Clients::start(&shared, part(50), &dice.branch(1));
    while shared.goes_on() {
        let taken = disk_bytes(&sampan.cache());
        figures.most_bytes = figures.most_bytes.max(taken);
        figures.least_free_bytes = figures.least_free_bytes.min(free(&sampan.disk));
        assert!(
            taken + FLOOR <= DISK,
            "{taken} bytes of blobs and downloads, where {FLOOR} are to stay free"
        );
        assert!(
            figures.least_free_bytes + BESIDE >= FLOOR,
            "{} bytes are free, where {FLOOR} are to stay so, but for {BESIDE}: {taken} in blobs and downloads, {:?}",
            figures.least_free_bytes,
            beside(&sampan.cache())
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    clients.end(&shared).await;
    let sent = shared.world.registry.pulled_bytes();
    assert!(sent < shared.got.load(Ordering::SeqCst), "the cache is one, though it is small");

    // Somebody else takes the disk: a person clears the cache for it, and from then on it takes what becomes free.
    let filler = sampan.disk.join("somebody-elses");
    let mut file = std::fs::File::create_new(&filler).expect("the disk can be written to");
    sampan.call(Call::Clear { selection: ClearSelection::All, immediate: true }).await;
    fill(&mut file);
    let clients = Clients::start(&shared, part(30), &dice.branch(2));
    let mut worded = false;
    while shared.goes_on() {
        fill(&mut file);
        let full = sampan.snapshot().await.cache.not_keeping == Some(NotKeeping::DiskFull);
        figures.said_full.0 += u32::from(full);
        figures.said_full.1 += 1;
        worded |= full && sampan.status().contains("too little room is left on the disk");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    clients.end(&shared).await;
    let last = sampan.snapshot().await.cache;
    assert_eq!(last.not_keeping, Some(NotKeeping::DiskFull), "nothing fits: {last:?}");
    assert!(worded, "`sampan status` says so: {}", sampan.status());
    figures.filler_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    assert!(figures.filler_bytes > DISK * 3 / 4, "it has most of the disk: {last:?}");

    // And gives it back.
    drop(file);
    std::fs::remove_file(&filler).expect("the file is the test's");
    let begun = Instant::now();
    // For as long as it takes: nothing is kept where nobody asks.
    let clients = Clients::start(&shared, u64::MAX, &dice.branch(3));
    while sampan.snapshot().await.cache.not_keeping.is_some() || disk::held_bytes(&sampan.cache()) < DISK / 3
    {
        assert!(
            begun.elapsed() < RECOVERS_WITHIN,
            "things are kept again: {:?}",
            sampan.snapshot().await.cache
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    figures.recovered = begun.elapsed();
    shared.wants(part(20));
    clients.end(&shared).await;

    let snapshot = sampan.snapshot().await;
    assert_eq!((snapshot.cache.health.damaged, snapshot.cache.quarantine_bytes), (0, 0));
    let (wrong, blobs) = disk::wrong_blobs(&sampan.cache());
    assert_eq!(wrong, [""; 0], "each file is what its name says");
    figures.blobs = blobs;
    figures.evictions =
        sampan.process.lines().iter().filter(|line| line.contains("the cache made room")).count() as u64;
    figures.answers = shared.answers.load(Ordering::SeqCst);
    figures.bytes = shared.got.load(Ordering::SeqCst);
    figures.upstream_bytes = shared.world.registry.pulled_bytes();
    figures
}

/// The bytes that blobs and downloads take on the disk.
fn disk_bytes(cache: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let folders = ["blobs/sha256", "partial", "quarantine"].map(|folder| cache.join(folder));
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    // One that has just gone takes nothing.
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// What lies beside the folders, in bytes.
fn beside(cache: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len())));
    files.collect()
}

/// Clients of one part.
struct Clients(JoinSet<()>);

impl Clients {
    /// Starts them; they end when so many more bytes have come.
    fn start(shared: &Arc<Shared>, bytes: u64, dice: &Dice) -> Self {
        shared.wants(bytes);
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let (shared, dice) = (shared.clone(), dice.branch(number));
            tasks.spawn(async move { shared.pulls(dice).await });
        }
        Self(tasks)
    }

    async fn end(mut self, shared: &Shared) {
        while self.0.join_next().await.is_some() {}
        let wrong = shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(wrong, None, "every answer is right");
    }
}
