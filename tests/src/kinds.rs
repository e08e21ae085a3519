//! Content of every kind a registry may hold: manifests of each type, nested, large, with and without layers, and their blobs.

use std::collections::BTreeSet;

use sampan_oci::Digest;
use serde_json::{Value, json};

use crate::wire;

/// The repository that holds nearly all of it.
pub const REPOSITORY: &str = "conformance/all";
/// Holds nothing but one tag and its blobs.
pub const OTHER: &str = "conformance/other";
/// An index's media type.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image manifest's media type.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's list's media type.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest's media type.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What the registry holds.
#[derive(Debug)]
pub struct Content {
    /// Tag, bytes, media type.
    pub manifests: Vec<(String, Vec<u8>, &'static str)>,
    /// Its blobs, an empty one among them.
    pub blobs: Vec<Vec<u8>>,
    /// What the fallback tag's list refers to.
    pub subject: Digest,
    /// And the manifest that is in that list.
    pub referrer: Digest,
    /// A blob that only the other repository has.
    pub elsewhere: Vec<u8>,
}

impl Content {
    /// Every tag of the repository.
    pub fn tags(&self) -> BTreeSet<String> {
        self.manifests.iter().map(|(tag, ..)| tag.clone()).collect()
    }

    /// The largest blob.
    pub fn large(&self) -> &[u8] {
        self.blobs.iter().max_by_key(|blob| blob.len()).expect("there are blobs")
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

/// Manifests of every kind, and their blobs.
pub fn content() -> Content {
    let blobs: Vec<Vec<u8>> = [(1, 9_000_000), (2, 70_000), (3, 1)]
        .map(|(seed, size)| sampan_testkit::random_bytes(seed, size).to_vec())
        .into_iter()
        .chain([Vec::new(), b"{}".to_vec()])
        .collect();
    let [large, small, byte, nothing, empty] = &blobs[..] else { unreachable!("five blobs") };
    let oci_layer = "application/vnd.oci.image.layer.v1.tar";
    let image = |config: &[u8], layers: &[&[u8]]| {
        let layers: Vec<Value> = layers.iter().map(|layer| descriptor(oci_layer, layer)).collect();
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config), "layers": layers,
        })
    };
    let mut manifests: Vec<(String, Vec<u8>, &'static str)> = Vec::new();
    let mut add = |tag: &str, document: &Value, media_type| {
        // Not how serde would write it: whoever writes it anew changes its digest.
        let bytes = format!("{document:#}\n").into_bytes();
        manifests.push((tag.to_owned(), bytes.clone(), media_type));
        bytes
    };
    let oci = add("oci", &image(empty, &[large, small]), OCI_MANIFEST);
    let other = add("no-layers", &image(small, &[]), OCI_MANIFEST);
    add("empty-layer", &image(empty, &[nothing, byte]), OCI_MANIFEST);
    let docker = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", empty),
        "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", small)],
    });
    let docker = add("docker", &docker, DOCKER_MANIFEST);
    let platform = |media_type: &str, bytes: &[u8], architecture: &str| {
        let mut entry = descriptor(media_type, bytes);
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entry
    };
    let entries = [platform(OCI_MANIFEST, &oci, "amd64"), platform(OCI_MANIFEST, &other, "arm64")];
    let index =
        add("index", &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), OCI_INDEX);
    let entries = [platform(DOCKER_MANIFEST, &docker, "amd64")];
    add("list", &json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}), DOCKER_LIST);
    let nested = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "annotations": {"key": "välue"},
        "manifests": [descriptor(OCI_INDEX, &index), descriptor(OCI_MANIFEST, &oci)],
    });
    add("nested", &nested, OCI_INDEX);
    let chart = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.cncf.helm.config.v1+json", empty),
        "layers": [descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", small)],
    });
    add("chart", &chart, OCI_MANIFEST);
    let artifact = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example.sbom.v1",
        "config": descriptor("application/vnd.oci.empty.v1+json", empty),
        "layers": [descriptor("text/plain", byte)], "subject": descriptor(OCI_MANIFEST, &oci),
    });
    let artifact = add("artifact", &artifact, OCI_MANIFEST);
    let foreign = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor("application/vnd.oci.image.config.v1+json", empty),
        "layers": [descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", small)],
    });
    add("foreign", &foreign, OCI_MANIFEST);
    let mut entry = descriptor(OCI_MANIFEST, &artifact);
    entry["artifactType"] = "application/vnd.example.sbom.v1".into();
    let fallback = format!("sha256-{}", Digest::of(&oci).hex());
    add(&fallback, &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}), OCI_INDEX);
    let padded = |padding: usize| json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"padding": "x".repeat(padding)}});
    let room = 4 * 1024 * 1024 - format!("{:#}\n", padded(0)).len();
    let largest = add("largest", &padded(room), OCI_INDEX);
    assert_eq!(largest.len(), 4 * 1024 * 1024, "exactly what everybody has to take");
    Content {
        subject: Digest::of(&oci),
        referrer: Digest::of(&artifact),
        elsewhere: sampan_testkit::random_bytes(4, 5000).to_vec(),
        manifests,
        blobs,
    }
}

fn push_blob(address: &str, repository: &str, bytes: &[u8]) {
    let begun = wire::ask(address, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[])
        .expect("the registry answers");
    assert_eq!(begun.status, 202, "{begun:?}");
    let location = begun.header("location").expect("an upload has an address");
    let target = location.strip_prefix(&format!("http://{address}")).unwrap_or(location);
    let target = format!("{target}&digest={}", Digest::of(bytes));
    let ended = wire::ask(address, "PUT", &target, &[("content-type", "application/octet-stream")], bytes)
        .expect("the registry answers");
    assert_eq!(ended.status, 201, "{ended:?}");
}

/// Puts all of it into the registry at `address`.
pub fn push(address: &str, content: &Content) {
    for blob in &content.blobs {
        push_blob(address, REPOSITORY, blob);
    }
    for (tag, bytes, media_type) in &content.manifests {
        let target = format!("/v2/{REPOSITORY}/manifests/{tag}");
        let put = wire::ask(address, "PUT", &target, &[("content-type", media_type)], bytes)
            .expect("the registry answers");
        assert_eq!(put.status, 201, "{tag}: {}", String::from_utf8_lossy(&put.body));
    }
    push_blob(address, OTHER, &content.elsewhere);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", &content.elsewhere);
    let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layer, "layers": [layer]})
        .to_string();
    let target = format!("/v2/{OTHER}/manifests/1");
    let put = wire::ask(address, "PUT", &target, &[("content-type", OCI_MANIFEST)], image.as_bytes())
        .expect("the registry answers");
    assert_eq!(put.status, 201, "{}", String::from_utf8_lossy(&put.body));
}
