//! Images that come by other ways than from a registry: in an OCI image layout, or as a file that lies there already.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sampan_oci::Digest;
use sampan_testkit::FakeRegistry;
use serde_json::json;

use super::world::{BALLAST, Platform, Repository, TAG, Version};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes the first version of a repository into `folder`, with its name, as an OCI image layout.
pub(super) fn write(folder: &Path, repository: &Repository, content: &HashMap<Digest, Arc<[u8]>>) {
    let version = &repository.versions[0];
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a temporary folder can be written to");
    for digest in version.reach() {
        fs::write(blobs.join(digest.hex()), &content[&digest]).expect("a temporary folder can be written to");
    }
    let name = repository.tagged();
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": version.media_type, "digest": version.digest.to_string(), "size": version.bytes.len(),
        "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name},
    }]});
    for (file, text) in
        [("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()), ("index.json", index.to_string())]
    {
        fs::write(folder.join(file), text).expect("a temporary folder can be written to");
    }
}

/// An image with one layer of zeros, which takes room and costs nothing to make.
pub(super) fn ballast(registry: &FakeRegistry, content: &mut HashMap<Digest, Arc<[u8]>>) -> Repository {
    let name = "library/ballast".to_owned();
    let config =
        br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let mut publish = |bytes: Arc<[u8]>| {
        let digest = registry.publish_blob(&name, bytes.to_vec());
        content.insert(digest, bytes);
        digest
    };
    let (config_digest, layer) = (publish(Arc::from(&config[..])), publish(Arc::from(vec![0; BALLAST])));
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest.to_string(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.to_string(), "size": BALLAST}]});
    let bytes: Arc<[u8]> = Arc::from(manifest.to_string().into_bytes());
    let digest = registry.publish_manifest(&name, TAG, bytes.to_vec(), MANIFEST);
    content.insert(digest, bytes.clone());
    let platforms = vec![Platform { digest, blobs: vec![config_digest, layer] }];
    Repository {
        name,
        slow: false,
        versions: vec![Version { digest, bytes, media_type: MANIFEST, platforms }],
    }
}

/// Puts the layer of zeros under `blobs/` as if it had been fetched long ago: a file without a byte on the disk.
pub(super) fn lay_ballast(cache: &Path, ballast: &Repository) {
    let layer = ballast.versions[0].platforms[0].blobs[1];
    let path = cache.join("blobs/sha256").join(layer.hex());
    let file = fs::File::create_new(path).expect("a new cache can be written to");
    file.set_len(BALLAST as u64).expect("a file can have holes");
}
