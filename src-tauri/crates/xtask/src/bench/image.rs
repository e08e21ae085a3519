//! Images to pull, in an OCI image layout; and the usual one: six layers of bytes that do not compress.

use std::{fs, io::Write as _, path::Path};

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The media type of the manifests written here.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Compressed sizes, more or less: one big layer, some middling, a small one, like images people pull.
const LAYERS_MB: [usize; 6] = [36, 28, 20, 12, 8, 4];
/// Files in a layer are this big.
const FILE_BYTES: usize = 1_000_000;

/// What was written.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) layers: usize,
    /// Layers and configuration: every blob a cold pull takes, once.
    pub(crate) blob_bytes: u64,
}

/// A layer as it is stored.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The compressed bytes.
    pub(crate) packed: Vec<u8>,
    /// The digest of the bytes before they were compressed (image-spec, config.md, "diff_ids").
    pub(crate) content: String,
}

/// Writes the usual image's layout into `folder`, tagged `bench`. The same bytes every time.
///
/// # Errors
/// The disk.
pub(crate) fn write(folder: &Path) -> Result<Image> {
    let mut random = Random::new(0x5a6d_7061_6e21);
    let layers = LAYERS_MB.into_iter().enumerate().map(|(number, megabytes)| {
        let tar = layer(&mut random, number, megabytes)?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
        gzip.write_all(&tar)?;
        Ok(Layer { packed: gzip.finish()?, content: digest(&tar) })
    });
    assemble(folder, layers)
}

/// Writes an image of these layers into `folder` as a layout, tagged `bench`.
///
/// # Errors
/// The disk, or a layer's.
pub(crate) fn assemble(folder: &Path, made: impl Iterator<Item = Result<Layer>>) -> Result<Image> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let (mut layers, mut contents) = (Vec::new(), Vec::new());
    for layer in made {
        let layer = layer?;
        layers.push(put(&blobs, "application/vnd.oci.image.layer.v1.tar+gzip", &layer.packed)?);
        contents.push(layer.content);
    }
    finish(folder, &layers, &contents)
}

/// Writes what goes around layers that are stored already: configuration, manifest, index.
///
/// # Errors
/// The disk.
pub(crate) fn finish(folder: &Path, layers: &[Value], contents: &[String]) -> Result<Image> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": { "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": contents },
        "history": contents.iter().map(|_| json!({ "created": "2024-01-01T00:00:00Z" })).collect::<Vec<_>>(),
    });
    let config = put(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let blob_bytes = layers.iter().chain([&config]).filter_map(|blob| blob.get("size")?.as_u64()).sum();
    let media_type = MANIFEST_TYPE;
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let mut entry = put(&blobs, media_type, manifest.to_string().as_bytes())?;
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".to_owned(), json!({ "org.opencontainers.image.ref.name": "bench" }));
    }
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string())?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(Image { layers: layers.len(), blob_bytes })
}

fn layer(random: &mut Random, number: usize, megabytes: usize) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut contents = vec![0; FILE_BYTES];
    for file in 0..megabytes {
        random.fill(&mut contents);
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        archive.append_data(&mut header, format!("data/{number}/{file}"), contents.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

/// Stores the bytes under their digest; their descriptor.
fn put(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// xorshift64*: quick, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    /// `seed` is anything but 0, which would stay 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            for (byte, value) in chunk.iter_mut().zip(word) {
                *byte = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_layer_is_a_gzipped_tar_that_does_not_compress_and_repeats_exactly() {
        let tar = layer(&mut Random::new(7), 0, 2).unwrap();
        assert_eq!(tar, layer(&mut Random::new(7), 0, 2).unwrap(), "two runs measure the same image");
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&tar).unwrap();
        assert!(
            packed.finish().unwrap().len() > 1_990_000,
            "bytes that shrink would not be the size they claim"
        );
        let names: Vec<_> = tar::Archive::new(tar.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes.len(), FILE_BYTES);
                entry.path().unwrap().display().to_string()
            })
            .collect();
        assert_eq!(names, ["data/0/0", "data/0/1"]);
    }

    #[test]
    fn the_image_has_six_layers_and_a_hundred_megabytes() {
        assert_eq!(LAYERS_MB.len(), 6);
        assert!(LAYERS_MB.iter().sum::<usize>() >= 100);
    }
}
