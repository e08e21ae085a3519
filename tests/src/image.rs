//! Images with known bytes: made once, as an OCI layout, and pushed once into a registry's storage that tests share.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sampan_oci::Digest;
use sampan_testkit::random_bytes;
use serde_json::{Value, json};

use crate::{Registry, bins};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A platform that no machine here has: its manifest is listed, and must never be fetched.
const OTHER_PLATFORM: &str = "s390x";

/// The layer both images have: its seed, and its content in bytes.
const SHARED: (u64, usize) = (1, 2_000_000);
/// The layers of the large image: from less than a read to some that take a while, 107 MB in all.
const BIG: [(u64, usize); 7] =
    [SHARED, (2, 40_000), (3, 5_000_000), (4, 12_000_000), (5, 21_000_000), (6, 28_000_000), (7, 39_000_000)];
/// The layers of the small one.
const SMALL: [(u64, usize); 2] = [SHARED, (8, 1_000_000)];

/// Something named by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Blob {
    /// The 64 hex digits alone: its file's name.
    pub fn hex(&self) -> &str {
        self.digest.split_once(':').map_or("", |(_, hex)| hex)
    }

    fn read(descriptor: &Value) -> Self {
        let digest = descriptor["digest"].as_str().expect("a descriptor has a digest").to_owned();
        Self { digest, size: descriptor["size"].as_u64().expect("a descriptor has a size") }
    }
}

/// An image in the registry, as this machine's platform needs it.
#[derive(Clone, Debug)]
pub struct Image {
    /// `library/sampan-big`.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// The index that the tag points at.
    pub index: Blob,
    /// This platform's manifest.
    pub manifest: Blob,
    /// Its configuration.
    pub config: Blob,
    /// Its layers, in order.
    pub layers: Vec<Blob>,
}

impl Image {
    /// The name a person types: `sampan-big:1`.
    pub fn short_name(&self) -> String {
        format!("{}:{}", self.repository.trim_start_matches("library/"), self.tag)
    }

    /// The name Sampan shows, without the tag: `docker.io/library/sampan-big`.
    pub fn full_name(&self) -> String {
        format!("docker.io/{}", self.repository)
    }

    /// The configuration and the layers, as a pull's record lists them.
    pub fn parts(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Everything a pull needs: index, manifest, configuration, layers.
    pub fn everything(&self) -> impl Iterator<Item = &Blob> {
        [&self.index, &self.manifest].into_iter().chain(self.parts())
    }

    /// Bytes of configuration and layers.
    pub fn blob_bytes(&self) -> u64 {
        self.parts().map(|blob| blob.size).sum()
    }

    /// Bytes of index and manifest.
    pub fn manifest_bytes(&self) -> u64 {
        self.index.size + self.manifest.size
    }

    /// Bytes of everything.
    pub fn total_bytes(&self) -> u64 {
        self.blob_bytes() + self.manifest_bytes()
    }

    /// Reads what was made.
    fn open(layout: &Path, name: &str, tag: &str) -> Self {
        let read = |blob: &Blob| -> Value {
            let bytes = std::fs::read(layout.join("blobs/sha256").join(blob.hex()));
            serde_json::from_slice(&bytes.expect("the layout is whole")).expect("it was written as JSON")
        };
        let top = std::fs::read(layout.join("index.json")).expect("the layout is whole");
        let top: Value = serde_json::from_slice(&top).expect("it was written as JSON");
        let index = Blob::read(&top["manifests"][0]);
        let manifest = Blob::read(&read(&index)["manifests"][0]);
        let content = read(&manifest);
        let layers = content["layers"].as_array().expect("a manifest has layers");
        Self {
            repository: format!("library/{name}"),
            tag: tag.into(),
            config: Blob::read(&content["config"]),
            layers: layers.iter().map(Blob::read).collect(),
            index,
            manifest,
        }
    }
}

/// The images, and the storage of a registry that has them.
#[derive(Clone, Debug)]
pub struct Images {
    /// Seven layers, 107 MB.
    pub big: Image,
    /// Two layers, 3 MB; one of them is also the first of `big`.
    pub small: Image,
    storage: PathBuf,
}

impl Images {
    /// Makes the images, or finds them as an earlier test made them: in the target folder, under a name that changes
    /// with how they are made. For tests that have their [`crate::turn`].
    pub fn prepare() -> Self {
        let recipe = Digest::of(include_bytes!("image.rs")).hex();
        let folder = bins::profile_folder().join("../tmp").join(format!("images-{}", &recipe[..16]));
        if !folder.is_dir() {
            make(&folder);
        }
        Self {
            big: Image::open(&folder.join("sampan-big"), "sampan-big", "1"),
            small: Image::open(&folder.join("sampan-small"), "sampan-small", "1"),
            storage: folder.join("registry"),
        }
    }

    /// A registry that has them.
    pub fn registry(&self) -> Registry {
        Registry::start(&self.storage)
    }
}

/// Makes everything aside and moves it to its place at once: what is there is whole.
fn make(folder: &Path) {
    let parent = folder.parent().expect("it lies in the target folder");
    std::fs::create_dir_all(parent).expect("the target folder can be written to");
    // Made by another recipe, or left by a test that was killed: a test that has its turn is alone.
    for old in std::fs::read_dir(parent).expect("the target folder can be read").flatten() {
        if old.file_name().to_string_lossy().starts_with("images-") {
            let _ = std::fs::remove_dir_all(old.path());
        }
    }
    let aside = tempfile::Builder::new().prefix("images-").tempdir_in(parent);
    let aside = aside.expect("the target folder can be written to");
    let storage = aside.path().join("registry");
    {
        let registry = Registry::start(&storage);
        for (name, layers) in [("sampan-big", &BIG[..]), ("sampan-small", &SMALL[..])] {
            let layout = aside.path().join(name);
            Layout::begin(&layout).image(layers);
            registry.push(&layout, "1", &format!("library/{name}:1"));
        }
    }
    let moved = std::fs::rename(aside.path(), folder);
    moved.unwrap_or_else(|error| panic!("{} cannot be made: {error}", folder.display()));
}

/// An OCI image layout (image-spec, image-layout.md).
struct Layout<'a>(&'a Path);

impl<'a> Layout<'a> {
    fn begin(folder: &'a Path) -> Self {
        std::fs::create_dir_all(folder.join("blobs/sha256")).expect("the target folder can be written to");
        let layout = Self(folder);
        layout.write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}).to_string());
        layout
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.0.join(name), content).expect("the target folder can be written to");
    }

    /// Keeps `bytes` and describes them.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let path = self.0.join("blobs/sha256").join(digest.hex());
        std::fs::write(path, bytes).expect("the target folder can be written to");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    fn image(&self, layers: &[(u64, usize)]) {
        let here = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let platforms = [(here, layers), (OTHER_PLATFORM, &layers[..1])];
        let manifests: Vec<Value> =
            platforms.iter().map(|(architecture, layers)| self.manifest(architecture, layers)).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let mut index = self.put(INDEX, index.to_string().as_bytes());
        index["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        self.write("index.json", &json!({"schemaVersion": 2, "manifests": [index]}).to_string());
    }

    fn manifest(&self, architecture: &str, layers: &[(u64, usize)]) -> Value {
        let (described, diffs): (Vec<Value>, Vec<String>) =
            layers.iter().map(|(seed, size)| self.layer(*seed, *size)).unzip();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": layers.iter().map(|(seed, _)| json!({"created_by": format!("seed {seed}")})).collect::<Vec<_>>(),
        });
        let config = self.put(CONFIG, config.to_string().as_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described});
        let mut manifest = self.put(MANIFEST, manifest.to_string().as_bytes());
        manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifest
    }

    /// A gzip of a tar of one file of random bytes; its descriptor, and the digest of the tar.
    fn layer(&self, seed: u64, size: usize) -> (Value, String) {
        let content = random_bytes(seed, size);
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::with_capacity(size + 4096));
        archive.append_data(&mut header, format!("layer-{seed}"), &content[..]).expect("memory takes it");
        let archive = archive.into_inner().expect("memory takes it");
        // Random bytes do not get smaller: stored is as good, and quick.
        let mut gzip = GzEncoder::new(Vec::with_capacity(size + size / 1000 + 4096), Compression::none());
        gzip.write_all(&archive).expect("memory takes it");
        let gzip = gzip.finish().expect("memory takes it");
        (self.put(LAYER, &gzip), Digest::of(&archive).to_string())
    }
}
