//! A cache full of small images, made the way any cache is: Sampan pulls them all. Nothing here knows how Sampan keeps
//! what it holds. In memory that takes a minute or two; on a disk, which Sampan has write every blob out, far longer.

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use crate::{
    bench::{
        image::{MANIFEST_TYPE, Random, digest},
        mirror::{Kind, Mirror},
        nginx::Nginx,
        wire::Connection,
    },
    environment::Environment,
    shell,
};

/// Nobody listens there.
pub(super) const NOBODY: &str = "http://127.0.0.1:9";
/// The layer of the one big image.
pub(super) const BIG_BYTES: u64 = 64 << 20;

/// Blobs of an image: its manifest, its configuration, its layers.
const BLOBS_PER_IMAGE: usize = LAYERS + 2;
const LAYERS: usize = 8;
/// Sizes of layers.
const LAYER_BYTES: std::ops::Range<usize> = 1 << 10..64 << 10;
/// Tags of a repository.
const TAGS: usize = 10;
/// How many of the newest images clients ask for: few enough that none is among those that go.
const KEPT: usize = 200;
/// Clients that fill the cache.
const CLIENTS: usize = 8;
/// Where files are in memory.
const MEMORY: &str = "/dev/shm";

/// A blob to ask for.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) path: String,
    pub(super) size: u64,
}

/// What a cache was filled with.
#[derive(Debug)]
pub(super) struct Contents {
    /// All of them, manifests and configurations too.
    pub(super) blobs: u64,
    /// Small layers of the images used last.
    pub(super) kept: Vec<Path>,
    /// The big layer, used after all others.
    pub(super) big: Path,
}

/// Fills a cache with about so many blobs, in the order in which they are to go, and puts it into `folder/cache`.
///
/// # Errors
/// The disk, or memory, is full; an image could not be pulled.
pub(super) fn fill(
    environment: &Environment,
    program: &FilePath,
    blobs: usize,
    folder: &FilePath,
) -> Result<Contents> {
    let memory = if FilePath::new(MEMORY).is_dir() { FilePath::new(MEMORY) } else { &environment.target };
    let memory = tempfile::Builder::new().prefix("sampan-cache.").tempdir_in(memory)?;
    let (files, made) = (memory.path().join("files"), memory.path().join("sampan"));
    let count = blobs / BLOBS_PER_IMAGE;
    eprintln!("Writing {count} images of {BLOBS_PER_IMAGE} blobs ...");
    let images = write_all(&files, count)?;
    let nginx = Nginx::start(environment, &memory.path().join("nginx"), &files)?;
    let kind = Kind::Sampan { program: program.to_path_buf(), arguments: Vec::new() };
    let mut mirror = Mirror::new(kind, made.clone(), format!("http://127.0.0.1:{}", nginx.port()))?;
    mirror.start()?;
    eprintln!("Pulling them through Sampan ...");
    let (big, small) = images.split_last().ok_or_else(|| anyhow!("no images"))?;
    pull_all(mirror.port(), small)?;
    // After the others, so that it is the last to go.
    big.pull(&mut Connection::open(mirror.port())?)?;
    mirror.stop();
    fs::create_dir_all(folder)?;
    eprintln!("Copying the cache to the disk ...");
    shell::run(Command::new("cp").arg("--archive").arg(made.join("cache")).arg(folder.join("cache")))?;
    shell::run(&mut Command::new("sync"))?;
    let kept = small.iter().rev().take(KEPT).flat_map(|image| image.layers.iter().cloned()).collect();
    let Some(layer) = big.layers.first() else { bail!("the big image has no layer") };
    // Manifest and configuration besides the layers.
    let blobs = images.iter().map(|image| image.layers.len() as u64 + 2).sum();
    Ok(Contents { blobs, kept, big: layer.clone() })
}

/// An image as it is asked for.
#[derive(Debug)]
struct Image {
    manifest: String,
    config: Path,
    layers: Vec<Path>,
}

impl Image {
    fn pull(&self, connection: &mut Connection) -> Result<()> {
        connection.get(&self.manifest, |_| ())?;
        for blob in std::iter::once(&self.config).chain(&self.layers) {
            let got = connection.get(&blob.path, |_| ())?;
            if got != blob.size {
                bail!("{}: {got} bytes instead of {}", blob.path, blob.size);
            }
        }
        Ok(())
    }
}

fn pull_all(port: u16, images: &[Image]) -> Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut connection = Connection::open(port)?;
                    while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                        image.pull(&mut connection)?;
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

/// Writes the files nginx serves: the small images, and last the big one.
fn write_all(files: &FilePath, count: usize) -> Result<Vec<Image>> {
    let blobs = files.join("blobs");
    fs::create_dir_all(&blobs)?;
    let mut pool = vec![0; 4 << 20];
    Random::new(0xcac4e).fill(&mut pool);
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let numbers: Vec<_> = (0..count).collect();
    let parts: Vec<Result<Vec<Image>>> = thread::scope(|scope| {
        let (blobs, pool) = (&blobs, &pool);
        let parts: Vec<_> = numbers
            .chunks(count.div_ceil(workers).max(1))
            .map(|part| {
                scope.spawn(move || part.iter().map(|&number| small(files, blobs, pool, number)).collect())
            })
            .collect();
        parts.into_iter().map(|part| part.join().map_err(|_| anyhow!("a thread panicked"))?).collect()
    });
    let mut images = Vec::new();
    for part in parts {
        images.extend(part?);
    }
    let big = pool.repeat(usize::try_from(BIG_BYTES)? / pool.len());
    images.push(write(files, &blobs, "library/big", "latest", &[big])?);
    Ok(images)
}

/// The image of this number: its layers are cut from the pool, and each begins with a number of its own.
fn small(files: &FilePath, blobs: &FilePath, pool: &[u8], number: usize) -> Result<Image> {
    let mut random = Random::new(number as u64 + 1);
    // The first numbers of neighbouring seeds are alike.
    for _ in 0..8 {
        random.next();
    }
    let layers: Vec<_> = (0..LAYERS)
        .map(|place| {
            let mut below = |limit: usize| usize::try_from(random.next() >> 33).unwrap_or(0) % limit;
            let size = LAYER_BYTES.start + below(LAYER_BYTES.len());
            let start = below(pool.len() - size);
            let mut layer = pool.get(start..start + size).unwrap_or_default().to_vec();
            let own = ((number * LAYERS + place) as u64).to_le_bytes();
            layer.iter_mut().zip(own).for_each(|(byte, own)| *byte = own);
            layer
        })
        .collect();
    write(files, blobs, &format!("library/r{}", number / TAGS), &format!("t{}", number % TAGS), &layers)
}

fn write(files: &FilePath, blobs: &FilePath, name: &str, tag: &str, layers: &[Vec<u8>]) -> Result<Image> {
    let put = |bytes: &[u8], media_type: &str| -> Result<(Path, Value)> {
        let digest = digest(bytes);
        fs::write(blobs.join(&digest), bytes)?;
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        Ok((Path { path: format!("/v2/{name}/blobs/{digest}"), size: bytes.len() as u64 }, descriptor))
    };
    let layers = layers
        .iter()
        .map(|layer| put(layer, "application/vnd.oci.image.layer.v1.tar+gzip"))
        .collect::<Result<Vec<_>>>()?;
    let digests: Vec<_> = layers.iter().filter_map(|(_, descriptor)| descriptor.get("digest")).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": digests } });
    let (config, described) = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let descriptors: Vec<_> = layers.iter().map(|(_, descriptor)| descriptor).collect();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": descriptors });
    let path = format!("v2/{name}/manifests/{tag}");
    let file: PathBuf = files.join(&path);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, manifest.to_string())?;
    let layers = layers.into_iter().map(|(path, _)| path).collect();
    Ok(Image { manifest: format!("/{path}"), config, layers })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_images_share_a_blob() {
        let folder = tempfile::tempdir().unwrap();
        let images = write_all(folder.path(), 30).unwrap();
        assert_eq!(images.len(), 31, "and the big one");
        let blobs: BTreeSet<_> = images
            .iter()
            .flat_map(|image| image.layers.iter().chain([&image.config]))
            .map(|blob| blob.path.rsplit_once('/').unwrap().1.to_owned())
            .collect();
        assert_eq!(blobs.len(), 30 * (LAYERS + 1) + 2, "shared blobs would not go with their first image");
        let manifest = folder.path().join(images[11].manifest.trim_start_matches('/'));
        assert!(manifest.ends_with("v2/library/r1/manifests/t1"));
        assert!(
            fs::read_to_string(manifest)
                .unwrap()
                .contains(images[11].layers[0].path.rsplit_once('/').unwrap().1)
        );
    }
}
