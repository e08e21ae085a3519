//! The images that go over the link. Made once and kept in the target folder: packing takes a while. Sizes are those of
//! popular images; most files are text and an image unpacks to about twice its size, as in those, so that unpacking
//! costs what it costs.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::hub::TURNED;
use crate::bench::image::{Layer, Random, assemble, digest, finish};

const FILE_BYTES_MAX: usize = 8_000_000;
const POOL_BYTES: usize = 4 << 20;

/// An image that can be pulled, named after what it resembles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Picture {
    /// One layer, 3.4 MB.
    Alpine,
    /// Two big layers and four small ones, 59 MB.
    Nginx,
}

impl Picture {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alpine => "alpine",
            Self::Nginx => "nginx",
        }
    }

    /// Compressed sizes of its layers, bytes.
    fn layers(self) -> &'static [usize] {
        match self {
            Self::Alpine => &[3_400_000],
            Self::Nginx => &[28_200_000, 29_500_000, 1_400_000, 960, 410, 1_200],
        }
    }

    /// Writes it into `images`, or finds it there.
    pub(crate) fn write(self, images: &Path) -> Result<Stored> {
        once(images, self.name(), |folder| {
            let mut random = Random::new(0x5a6d_7061 + self.layers().len() as u64);
            let pool = text(&mut random);
            assemble(folder, self.layers().iter().map(|&size| layer(&mut random, &pool, size))).map(drop)
        })?;
        Stored::read(images, self.name())
    }
}

/// Writes an image of one layer that does not compress; it is no archive, so it can be fetched and not be unpacked.
pub(crate) fn write_big(images: &Path, megabytes: usize) -> Result<Stored> {
    let name = format!("big-{megabytes}");
    once(images, &name, |folder| {
        let mut packed = vec![0; megabytes * 1_000_000];
        Random::new(0xb16).fill(&mut packed);
        let content = digest(&packed);
        assemble(folder, std::iter::once(Ok(Layer { packed, content }))).map(drop)
    })?;
    Stored::read(images, &name)
}

/// Writes `count` images of one such layer each, all different; on disk they are one, turned.
pub(crate) fn write_turned(images: &Path, count: usize, megabytes: usize) -> Result<Vec<Stored>> {
    let group = format!("turned-{megabytes}x{count}");
    once(images, &group, |folder| {
        let mut base = vec![0; megabytes * 1_000_000];
        Random::new(0x7a12).fill(&mut base);
        fs::write(folder.join("base"), &base)?;
        let numbers: Vec<usize> = (0..count).collect();
        let workers = thread::available_parallelism().map_or(2, usize::from);
        thread::scope(|scope| {
            let base = &base;
            let parts: Vec<_> = numbers
                .chunks(count.div_ceil(workers).max(1))
                .map(|part| {
                    scope.spawn(move || {
                        part.iter().try_for_each(|&number| turned(folder, base, number, count))
                    })
                })
                .collect();
            parts.into_iter().try_for_each(|part| part.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
    })?;
    (0..count).map(|number| Stored::read(images, &format!("{group}/m{number}"))).collect()
}

fn turned(group: &Path, base: &[u8], number: usize, count: usize) -> Result<()> {
    let folder = group.join(format!("m{number}"));
    let turn = base.len() / count * number;
    let (back, front) = base.split_at(turn);
    let digest =
        format!("sha256:{}", hex::encode(Sha256::new().chain_update(front).chain_update(back).finalize()));
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(blobs.join(digest.trim_start_matches("sha256:")).with_extension(TURNED), turn.to_string())?;
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let layer = json!({ "mediaType": media_type, "digest": digest, "size": base.len() });
    finish(&folder, &[layer], &[digest]).map(drop)
}

/// An image in its folder.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Its name within `library/`.
    pub(crate) name: String,
    pub(crate) layers: usize,
    /// Layers and configuration: every blob a cold pull takes, once.
    pub(crate) blob_bytes: u64,
    /// The digest of the biggest layer, and its size.
    pub(crate) biggest: (String, u64),
}

impl Stored {
    fn read(images: &Path, name: &str) -> Result<Self> {
        let folder = images.join(name);
        let index: Value = serde_json::from_slice(&fs::read(folder.join("index.json"))?)?;
        let digest = index.pointer("/manifests/0/digest").and_then(Value::as_str).context("no manifest")?;
        let file = folder.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        let manifest: Value = serde_json::from_slice(&fs::read(file)?)?;
        let blobs = blobs(&manifest);
        let biggest = blobs.iter().max_by_key(|(_, size)| *size).context("no blobs")?.clone();
        Ok(Self {
            name: name.to_owned(),
            layers: blobs.len() - 1,
            blob_bytes: blobs.iter().map(|(_, size)| size).sum(),
            biggest,
        })
    }
}

/// Digest and size of the configuration and of each layer, in a manifest's order.
pub(crate) fn blobs(manifest: &Value) -> Vec<(String, u64)> {
    let layers = manifest.get("layers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let descriptor =
        |value: &Value| Some((value.get("digest")?.as_str()?.to_owned(), value.get("size")?.as_u64()?));
    manifest.get("config").into_iter().chain(layers).filter_map(descriptor).collect()
}

/// Has `write` fill `images/name`, unless that was done before. What is there is whole: it is renamed into place.
fn once(images: &Path, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let done: PathBuf = images.join(name);
    if done.exists() {
        return Ok(());
    }
    eprintln!("Making the image {name} in {} ...", images.display());
    fs::create_dir_all(images)?;
    let new = tempfile::Builder::new().prefix(".new.").tempdir_in(images)?;
    write(new.path())?;
    match fs::rename(new.path(), &done) {
        // Another run was quicker, or this one is the first.
        Err(_) if done.exists() => Ok(()),
        other => Ok(other?),
    }
}

/// A gzipped tar of about `size` bytes.
fn layer(random: &mut Random, pool: &[u8], size: usize) -> Result<Layer> {
    let gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut archive = tar::Builder::new(Hashing { gzip, hash: Sha256::new() });
    for number in 0.. {
        // What the encoder still holds is not seen; flushing shows it, and costs a few bytes.
        archive.get_mut().gzip.flush()?;
        let left = size.saturating_sub(archive.get_ref().gzip.get_ref().len());
        if left < 300 && number > 0 {
            break;
        }
        let contents = file(random, pool, left.max(64));
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        let path = format!("usr/lib/d{}/f{number}_{:08x}", number / 200, random.next() >> 32);
        archive.append_data(&mut header, path, contents.as_slice())?;
        if left < 4096 {
            break;
        }
    }
    let done = archive.into_inner()?;
    Ok(Layer {
        packed: done.gzip.finish()?,
        content: format!("sha256:{}", hex::encode(done.hash.finalize())),
    })
}

/// Hashes what is about to be packed.
struct Hashing {
    gzip: GzEncoder<Vec<u8>>,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.gzip.write(bytes)?;
        self.hash.update(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

/// A file's contents, at most `size_max`: five of six are text, the others do not compress. Sizes are spread like those
/// of real files: log-normal, around 15 kB.
fn file(random: &mut Random, pool: &[u8], size_max: usize) -> Vec<u8> {
    let normal = (-2.0 * unit(random).ln()).sqrt() * (std::f64::consts::TAU * unit(random)).cos();
    let size = whole((9.6 + 1.6 * normal).exp()).clamp(1, FILE_BYTES_MAX).min(size_max);
    if unit(random) > 0.85 {
        let mut noise = vec![0; size];
        random.fill(&mut noise);
        return noise;
    }
    let mut contents = Vec::with_capacity(size + 40_000);
    while contents.len() < size {
        let (at, len) = (below(random, pool.len() - 40_000), 2_000 + below(random, 38_000));
        contents.extend_from_slice(pool.get(at..at + len).unwrap_or_default());
    }
    contents.truncate(size);
    contents
}

/// Lines of words, the common ones common.
fn text(random: &mut Random) -> Vec<u8> {
    const LETTERS: &[u8] = b"etaoinshrdlucmfwypvbgkjqxz_";
    const WORDS: f64 = 3000.0;
    let words: Vec<Vec<u8>> = (0..whole(WORDS))
        .map(|_| {
            (0..2 + below(random, 9))
                .filter_map(|_| LETTERS.get(below(random, LETTERS.len())).copied())
                .collect()
        })
        .collect();
    let mut pool = Vec::with_capacity(POOL_BYTES + 1000);
    while pool.len() < POOL_BYTES {
        for _ in 0..3 + below(random, 12) {
            // The n-th word with a chance of about 1/n.
            let rank = whole((unit(random) * WORDS.ln()).exp()) - 1;
            pool.extend_from_slice(words.get(rank).map(Vec::as_slice).unwrap_or_default());
            pool.push(b' ');
        }
        pool.push(b'\n');
    }
    pool
}

/// In (0, 1].
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
fn unit(random: &mut Random) -> f64 {
    ((random.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.next() % limit.max(1) as u64).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes and ranks, all positive")]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_about_its_size_unpacks_to_more_and_repeats_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let alpine = Picture::Alpine.write(&folder.path().join("a")).unwrap();
        assert_eq!(alpine.layers, 1);
        assert!((3_380_000..3_480_000).contains(&alpine.biggest.1), "{}", alpine.biggest.1);
        let again = Picture::Alpine.write(&folder.path().join("b")).unwrap();
        assert_eq!(alpine.biggest, again.biggest, "two machines measure the same image");
        let hex = alpine.biggest.0.trim_start_matches("sha256:").to_owned();
        let packed = fs::read(folder.path().join("a/alpine/blobs/sha256").join(hex)).unwrap();
        let mut plain = Vec::new();
        io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut plain).unwrap();
        assert!(plain.len() > packed.len() * 3 / 2, "{} from {}", plain.len(), packed.len());
    }

    #[test]
    fn turned_images_are_all_different() {
        let folder = tempfile::tempdir().unwrap();
        let images = write_turned(folder.path(), 3, 1).unwrap();
        let mut digests: Vec<_> = images.iter().map(|image| &image.biggest.0).collect();
        digests.dedup();
        assert_eq!(digests.len(), 3);
    }
}
