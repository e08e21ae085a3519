//! Builders of images and indexes: plain descriptions in, exact bytes and digests out.

use bytes::Bytes;
use sampan_oci::{Digest, MediaType, Platform, RepositoryName, Tag};
use serde_json::{Value, json};

use crate::content::layer_bytes;

/// What an image shall be: layers of given sizes, for one platform.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    seed: u64,
    layers: Vec<usize>,
    architecture: String,
    docker: bool,
}

impl ImageSpec {
    /// An OCI image for linux/amd64 with layers of these sizes in bytes. `seed` makes its content: equal seeds and
    /// sizes make equal layers, shared between images as real base layers are.
    pub fn new(seed: u64, layers: &[usize]) -> Self {
        Self { seed, layers: layers.to_vec(), architecture: "amd64".into(), docker: false }
    }

    /// For another architecture, as Go names it.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// With Docker's media types instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    pub(crate) fn build(&self) -> ImageManifest {
        let layers: Vec<Layer> = self
            .layers
            .iter()
            .enumerate()
            .map(|(at, &size)| Layer::of(layer_bytes(self.seed.wrapping_add(at as u64), size)))
            .collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let config = Layer::of(Bytes::from(
            json!({
                "architecture": self.architecture, "os": "linux", "config": {"Labels": {"seed": self.seed.to_string()}},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            })
            .to_string(),
        ));
        let (media_type, config_type, layer_type) = if self.docker {
            (
                MediaType::DockerManifest,
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        } else {
            (
                MediaType::OciManifest,
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar",
            )
        };
        let bytes = Bytes::from(
            json!({
                "schemaVersion": 2,
                "mediaType": media_type.as_str(),
                "config": config.descriptor(config_type),
                "layers": layers.iter().map(|layer| layer.descriptor(layer_type)).collect::<Vec<_>>(),
            })
            .to_string(),
        );
        let platform =
            Platform { architecture: self.architecture.clone(), os: "linux".into(), variant: None };
        ImageManifest {
            digest: Digest::of(&bytes),
            media_type,
            bytes,
            platform: Some(platform),
            config,
            layers,
        }
    }
}

/// What an index shall be: images for several platforms, and optionally an attestation as BuildKit makes it.
#[derive(Clone, Debug, Default)]
pub struct IndexSpec {
    images: Vec<ImageSpec>,
    attestation: bool,
    docker: bool,
}

impl IndexSpec {
    /// An empty OCI index.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more image.
    #[must_use]
    pub fn image(mut self, image: ImageSpec) -> Self {
        self.images.push(image);
        self
    }

    /// With an attestation manifest for the first image (platform `unknown/unknown`), which Docker 29 fetches too.
    #[must_use]
    pub fn attestation(mut self) -> Self {
        self.attestation = true;
        self
    }

    /// As a Docker manifest list. Its images choose their own types.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    pub(crate) fn build(&self) -> (Bytes, MediaType, Vec<ImageManifest>) {
        let media_type = if self.docker { MediaType::DockerList } else { MediaType::OciIndex };
        let mut manifests: Vec<_> = self.images.iter().map(ImageSpec::build).collect();
        let mut entries: Vec<Value> = manifests
            .iter()
            .map(|m| {
                json!({"mediaType": m.media_type.as_str(), "digest": m.digest, "size": m.bytes.len(), "platform": m.platform})
            })
            .collect();
        if self.attestation
            && let Some(first) = manifests.first()
        {
            let attestation = attestation_of(first);
            entries.push(json!({
                "mediaType": attestation.media_type.as_str(), "digest": attestation.digest, "size": attestation.bytes.len(),
                "platform": {"architecture": "unknown", "os": "unknown"},
                "annotations": {
                    "vnd.docker.reference.digest": first.digest,
                    "vnd.docker.reference.type": "attestation-manifest",
                },
            }));
            manifests.push(attestation);
        }
        let document = json!({"schemaVersion": 2, "mediaType": media_type.as_str(), "manifests": entries});
        (Bytes::from(document.to_string()), media_type, manifests)
    }
}

fn attestation_of(image: &ImageManifest) -> ImageManifest {
    let statement = Layer::of(Bytes::from(
        json!({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": image.digest}]})
            .to_string(),
    ));
    let config = Layer::of(Bytes::from(
        json!({"architecture": "unknown", "os": "unknown", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [statement.digest]}})
        .to_string(),
    ));
    let bytes = Bytes::from(
        json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OciManifest.as_str(),
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [statement.descriptor("application/vnd.in-toto+json")],
        })
        .to_string(),
    );
    ImageManifest {
        digest: Digest::of(&bytes),
        media_type: MediaType::OciManifest,
        bytes,
        platform: None,
        config,
        layers: vec![statement],
    }
}

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Layer {
    /// The blob of these bytes.
    pub fn of(bytes: Bytes) -> Self {
        Self { digest: Digest::of(&bytes), bytes }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image manifest with the blobs it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: MediaType,
    /// Its bytes.
    pub bytes: Bytes,
    /// The platform it is for; `None` for attestations.
    pub platform: Option<Platform>,
    /// Its configuration blob.
    pub config: Layer,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// What was published under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// The digest the tag names: an index's, or an image manifest's.
    pub digest: Digest,
    /// The media type of what the tag names.
    pub media_type: MediaType,
    /// The bytes of what the tag names.
    pub bytes: Bytes,
    /// The image manifests: one, or one for each entry of the index (an attestation last).
    pub manifests: Vec<ImageManifest>,
}

impl Image {
    /// The first image manifest's layers: all layers of an image that is no index.
    /// # Panics
    /// If it was published from an index without images.
    pub fn layers(&self) -> &[Layer] {
        &self.manifests.first().expect("the index has an image").layers
    }

    /// The first image manifest's configuration.
    /// # Panics
    /// If it was published from an index without images.
    pub fn config(&self) -> &Layer {
        &self.manifests.first().expect("the index has an image").config
    }

    /// Every blob of every manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Layer> {
        self.manifests.iter().flat_map(|m| std::iter::once(&m.config).chain(&m.layers))
    }
}
