//! Images with known bytes, caches that hold them, and archives put together by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sampan_archive::{ArchiveError, ExportImage, ImportOptions, Imported, import};
use sampan_oci::{Digest, ImageName, Manifest, MediaType, Tag};
use sampan_store::{Store, StoreOptions};
use sampan_testkit::{TestClock, random_bytes};
use serde_json::{Value, json};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A cache of the test's own.
pub(crate) struct Cache {
    pub(crate) store: Store,
    pub(crate) folder: TempDir,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut StoreOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), change);
        Self { store, folder }
    }

    /// The same cache, opened again.
    pub(crate) fn again(self, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let Self { store, folder } = self;
        drop(store);
        Self { store: open(folder.path(), change), folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Everything under `blobs/`, which is what its names say.
    pub(crate) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let mut blobs = BTreeMap::new();
        for algorithm in ["sha256", "sha512"] {
            for entry in std::fs::read_dir(self.path().join("blobs").join(algorithm)).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{algorithm}:{}", entry.file_name().into_string().unwrap());
                let bytes = std::fs::read(entry.path()).unwrap();
                assert!(name.parse::<Digest>().unwrap().names(&bytes), "{name} holds other bytes");
                blobs.insert(name, bytes);
            }
        }
        blobs
    }

    /// Nothing is left of what was begun.
    pub(crate) fn assert_tidy(&self) {
        assert_eq!(std::fs::read_dir(self.path().join("partial")).unwrap().count(), 0, "partial/ is empty");
    }

    /// Holds the parts of an image, under this name.
    pub(crate) async fn hold(&self, name: &str, parts: &Parts) -> ExportImage {
        let (image, tag) = name.rsplit_once(':').unwrap();
        let (image, tag): (ImageName, Tag) = (image.parse().unwrap(), tag.parse().unwrap());
        for bytes in &parts.blobs {
            self.store.put(&Digest::of(bytes), bytes.clone()).await.unwrap();
        }
        for bytes in parts.manifests.iter().chain([&parts.root]) {
            let manifest = Manifest::parse(bytes, None, None).unwrap();
            self.store.put_manifest(&image, &manifest, bytes.clone()).await.unwrap();
        }
        self.store.set_tag(&image, &tag, &Digest::of(&parts.root)).await.unwrap();
        ExportImage { image, reference: sampan_oci::Reference::Tag(tag) }
    }

    pub(crate) async fn import(&self, source: &Path) -> Result<Imported, ArchiveError> {
        import(&self.store, source, ImportOptions::default(), |_| {}).await
    }

    /// Imports with a person who vouches for the names.
    pub(crate) async fn trust(&self, source: &Path) -> Result<Imported, ArchiveError> {
        let options = ImportOptions { trust_names: true, ..ImportOptions::default() };
        import(&self.store, source, options, |_| {}).await
    }

    /// The full names of what it holds.
    pub(crate) async fn names(&self) -> Vec<String> {
        let entries = self.store.images().await.unwrap();
        entries.iter().map(|entry| format!("{}:{}", entry.image, entry.tag.as_ref().unwrap())).collect()
    }
}

fn open(folder: &Path, change: impl FnOnce(&mut StoreOptions)) -> Store {
    let mut options = StoreOptions::new(folder.join("cache"), Arc::new(TestClock::new()));
    change(&mut options);
    Store::open(options).unwrap()
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) root: Bytes,
    pub(crate) media_type: MediaType,
    /// Below the root.
    pub(crate) manifests: Vec<Bytes>,
    /// Configurations and layers.
    pub(crate) blobs: Vec<Bytes>,
}

impl Parts {
    /// An image for linux and this architecture, with layers of these seeds and sizes.
    pub(crate) fn image(architecture: &str, layers: &[(u64, usize)]) -> Self {
        let layers: Vec<Bytes> = layers.iter().map(|(seed, size)| random_bytes(*seed, *size)).collect();
        let ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        Self::of(MediaType::OciManifest, config.to_string().into(), layers)
    }

    pub(crate) fn of(media_type: MediaType, config: Bytes, layers: Vec<Bytes>) -> Self {
        let listed: Vec<Value> = layers.iter().map(|layer| describe(LAYER, layer)).collect();
        let root = json!({"schemaVersion": 2, "mediaType": media_type.as_str(),
            "config": describe(CONFIG, &config), "layers": listed});
        let blobs = std::iter::once(config).chain(layers).collect();
        Self { root: root.to_string().into(), media_type, manifests: Vec::new(), blobs }
    }

    /// An index of images for these platforms.
    pub(crate) fn index(images: &[(&str, &Self)]) -> Self {
        let entries: Vec<Value> = images
            .iter()
            .map(|(architecture, image)| {
                let mut entry = describe(image.media_type.as_str(), &image.root);
                let os = if *architecture == "unknown" { "unknown" } else { "linux" };
                entry["platform"] = json!({"architecture": architecture, "os": os});
                entry
            })
            .collect();
        let media_type = MediaType::OciIndex;
        let root = json!({"schemaVersion": 2, "mediaType": media_type.as_str(), "manifests": entries});
        let all = images.iter().map(|(_, image)| *image);
        let below =
            |image: &Self| image.manifests.iter().cloned().chain([image.root.clone()]).collect::<Vec<_>>();
        Self {
            root: root.to_string().into(),
            media_type,
            manifests: all.clone().flat_map(below).collect(),
            blobs: all.flat_map(|image| image.blobs.clone()).collect(),
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.root)
    }

    /// Every blob, the root last.
    pub(crate) fn everything(&self) -> impl Iterator<Item = &Bytes> {
        self.blobs.iter().chain(&self.manifests).chain([&self.root])
    }

    /// The line of `index.json`.
    pub(crate) fn entry(&self, name: &str) -> Value {
        let mut entry = describe(self.media_type.as_str(), &self.root);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entry
    }
}

pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub(crate) fn describe(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

pub(crate) fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

pub(crate) fn index_json(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "manifests": entries}).to_string().into()
}

/// An archive, file by file.
#[derive(Clone, Debug)]
pub(crate) struct Archive(pub(crate) Vec<(String, Vec<u8>)>);

impl Archive {
    /// A good one.
    pub(crate) fn of(images: &[(&str, &Parts)]) -> Self {
        let mut archive = Self(vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
        let entries: Vec<Value> = images.iter().map(|(name, parts)| parts.entry(name)).collect();
        archive.set("index.json", index_json(&entries));
        for bytes in images.iter().flat_map(|(_, parts)| parts.everything()) {
            archive.set(&path_of(&Digest::of(bytes)), bytes.to_vec());
        }
        archive
    }

    pub(crate) fn set(&mut self, name: &str, bytes: Vec<u8>) {
        self.remove(name);
        self.0.push((name.into(), bytes));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }

    pub(crate) fn tar(&self) -> Tar {
        let mut tar = Tar::default();
        self.0.iter().for_each(|(name, bytes)| tar.file(name, bytes));
        tar
    }

    pub(crate) fn write_folder(&self, folder: &Path) {
        for (name, bytes) in &self.0 {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// A tar file whose headers say whatever a test wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) {
        self.member(EntryType::Regular, name, bytes, |_| {});
    }

    pub(crate) fn member(
        &mut self,
        kind: EntryType,
        name: &str,
        bytes: &[u8],
        change: impl FnOnce(&mut Header),
    ) {
        let mut header = Header::new_ustar();
        // As bytes: the crate's own setter refuses what a hostile writer writes.
        let (prefix, name) =
            if name.len() > 100 { name.split_at(name.rfind('/').unwrap()) } else { ("", name) };
        let ustar = header.as_ustar_mut().unwrap();
        ustar.prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
        let name = if prefix.is_empty() { name } else { &name[1..] };
        ustar.name[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(crate) fn link(&mut self, kind: EntryType, name: &str, to: &str) {
        self.member(kind, name, b"", |header| header.set_link_name(to).unwrap());
    }

    /// An extended header for the next member.
    pub(crate) fn pax(&mut self, records: &[(&str, &str)]) {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while length != rest.len() + length.to_string().len() {
                length += 1;
            }
            body.extend(format!("{length}{rest}").into_bytes());
        }
        self.member(EntryType::XHeader, "pax", &body, |_| {});
    }

    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("archive.tar");
        let mut bytes = self.0.clone();
        bytes.extend([0; 1024]);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}
