//! A cache in a temporary folder, a clock set by hand, and images to put in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use sampan_oci::{Clock, Digest, ImageName, Manifest, MediaType, Millis, Tag};
use sampan_store::{Disk, Keep, OpenError, Store, StoreOptions};
use tempfile::TempDir;

#[derive(Debug, Default)]
pub(crate) struct HandClock(AtomicI64);

impl HandClock {
    pub(crate) fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

/// A cache folder that outlives the stores opened on it.
pub(crate) struct Cache {
    _temporary: TempDir,
    pub(crate) dir: PathBuf,
    pub(crate) clock: Arc<HandClock>,
    keep: Keep,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self::within(TempDir::new().unwrap())
    }

    /// One in memory, where the system has a folder for that: for tests that need many.
    #[cfg(unix)]
    pub(crate) fn quick() -> Self {
        let memory = Path::new("/dev/shm");
        Self::within(if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap())
    }

    fn within(temporary: TempDir) -> Self {
        let dir = temporary.path().join("cache");
        let clock = Arc::new(HandClock(AtomicI64::new(1_000_000)));
        Self { _temporary: temporary, dir, clock, keep: crate::keep() }
    }

    pub(crate) fn try_open(&self) -> Result<Store, OpenError> {
        self.try_open_on(Disk::real())
    }

    pub(crate) fn try_open_on(&self, disk: Disk) -> Result<Store, OpenError> {
        let clock = Arc::clone(&self.clock);
        let backend = self.keep.clone();
        Store::open(StoreOptions { disk, backend, ..StoreOptions::new(self.dir.clone(), clock) })
    }

    pub(crate) fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    /// Opens it with a quota in bytes.
    pub(crate) fn open_with_quota(&self, quota: u64) -> Store {
        let options = StoreOptions::new(self.dir.clone(), self.clock.clone());
        Store::open(StoreOptions { quota: Some(quota), ..options }).unwrap()
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// The sum of the sizes of all files under `blobs/`, and how many they are; or of the blobs in memory.
    pub(crate) fn du(&self) -> (u64, u64) {
        if let Keep::Memory(memory) = &self.keep {
            return memory.totals();
        }
        let sizes = files_below(&self.dir.join("blobs"));
        (sizes.iter().map(|path| path.symlink_metadata().unwrap().len()).sum(), sizes.len() as u64)
    }

    /// The same of everything that is neither a blob nor a download's bytes, nor set aside: the index, the ledgers.
    pub(crate) fn du_own(&self) -> u64 {
        let size = |path: &PathBuf| path.symlink_metadata().map_or(0, |metadata| metadata.len());
        let all = files_below(&self.dir).into_iter();
        let apart = ["blobs", "quarantine"].map(|folder| self.dir.join(folder));
        let own = all.filter(|path| !apart.iter().any(|folder| path.starts_with(folder)));
        own.map(|path| size(&path)).sum::<u64>() - self.du_partial()
    }

    /// The same of what is not published, without ledgers.
    pub(crate) fn du_partial(&self) -> u64 {
        let files = files_below(&self.dir.join("partial")).into_iter();
        let bytes = files.filter(|path| path.extension().is_none_or(|kind| kind != "ledger"));
        bytes.filter_map(|path| path.symlink_metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    pub(crate) fn partials(&self) -> usize {
        files_below(&self.dir.join("partial")).len()
    }

    /// A partial download's file of this kind: `data` or `ledger`.
    pub(crate) fn partial_path(&self, digest: &Digest, kind: &str) -> PathBuf {
        self.dir.join("partial").join(format!("{}-{}.{kind}", digest.algorithm().as_str(), digest.hex()))
    }

    /// Flips one bit in the middle of a blob's file.
    pub(crate) fn flip_a_bit(&self, digest: &Digest) {
        let path = self.blob_path(digest);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }
}

pub(crate) fn open_at(dir: &Path, clock: &Arc<HandClock>) -> Result<Store, OpenError> {
    let clock = Arc::clone(clock);
    Store::open(StoreOptions::new(dir.to_owned(), clock))
}

pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// Bytes nobody could mistake for others: their number and a seed decide them.
pub(crate) fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect::<Vec<u8>>().into()
}

pub(crate) fn name(text: &str) -> ImageName {
    format!("docker.io/library/{text}").parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// A manifest and the blobs it lists.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Bytes,
    pub(crate) blobs: Vec<Bytes>,
}

impl Image {
    pub(crate) fn new(architecture: &str, layers: &[Bytes]) -> Self {
        let mut blobs = vec![Bytes::from(format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#))];
        blobs.extend_from_slice(layers);
        let listed: Vec<String> = blobs.iter().map(|blob| descriptor("x/y", blob, None)).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
            MediaType::OciManifest,
            listed[0],
            listed[1..].join(",")
        );
        Self::of(text, blobs)
    }

    /// An index of images by architecture. Its `blobs` are empty: the listed images are put by themselves.
    pub(crate) fn index(entries: &[(&str, &Image)]) -> Self {
        let listed: Vec<String> = entries
            .iter()
            .map(|(architecture, image)| {
                descriptor(MediaType::OciManifest.as_str(), &image.bytes, Some(architecture))
            })
            .collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
            MediaType::OciIndex,
            listed.join(",")
        );
        Self::of(text, Vec::new())
    }

    fn of(text: String, blobs: Vec<Bytes>) -> Self {
        let bytes = Bytes::from(text);
        let manifest = Manifest::parse(&bytes, None, None).unwrap();
        Self { manifest, bytes, blobs }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.manifest.digest
    }

    /// Bytes of the manifest and all its blobs.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.len() as u64 + self.blobs.iter().map(|blob| blob.len() as u64).sum::<u64>()
    }

    /// Puts the manifest and its blobs.
    pub(crate) async fn put(&self, store: &Store, image: &ImageName) {
        store.put_manifest(image, &self.manifest, self.bytes.clone()).await.unwrap();
        for blob in &self.blobs {
            store.put(&Digest::of(blob), blob.clone()).await.unwrap();
        }
    }

    /// Puts it, and points a tag at it.
    pub(crate) async fn put_as(&self, store: &Store, image: &ImageName, name: &str) {
        self.put(store, image).await;
        store.set_tag(image, &tag(name), &self.digest()).await.unwrap();
    }
}

fn descriptor(media_type: &str, bytes: &[u8], architecture: Option<&str>) -> String {
    let platform = architecture.map_or(String::new(), |architecture| {
        let os = if architecture == "unknown" { "unknown" } else { "linux" };
        format!(r#","platform":{{"architecture":"{architecture}","os":"{os}"}}"#)
    });
    let (digest, size) = (Digest::of(bytes), bytes.len());
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}{platform}}}"#)
}

/// A number that `cargo xtask torture` asks for, in the variable of this name; else `otherwise`.
pub(crate) fn asked(name: &str, otherwise: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the one place where these tests read their size")]
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
