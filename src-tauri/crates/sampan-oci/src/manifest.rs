//! Manifests and indexes, read strictly from the bytes that were hashed. They are never written back: the bytes are kept.

use std::fmt;

use serde::Deserialize;

use crate::{Digest, Hasher, InvalidDigest, Platform};

/// The largest manifest or index Sampan takes, in bytes (distribution-spec: "at least 4 megabytes"; containerd's limit).
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most descriptors one index or manifest may hold.
const DESCRIPTORS_MAX: usize = 4096;

/// A media type of a manifest or an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/vnd.oci.image.index.v1+json`
    OciIndex,
    /// `application/vnd.oci.image.manifest.v1+json`
    OciManifest,
    /// `application/vnd.docker.distribution.manifest.list.v2+json`
    DockerList,
    /// `application/vnd.docker.distribution.manifest.v2+json`
    DockerManifest,
}

impl MediaType {
    /// Every media type Sampan asks upstreams for.
    pub const ALL: [Self; 4] = [Self::OciIndex, Self::OciManifest, Self::DockerList, Self::DockerManifest];

    /// The media type as written in headers and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::DockerList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// Reads a `Content-Type` or `mediaType`; parameters after `;` are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|media_type| media_type.as_str() == essence)
    }

    fn is_index(self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerList)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reference to other bytes (image-spec, descriptor.md). `urls` are not kept: Sampan never follows them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
    /// In an index: the platform the entry is for.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// In an index: the manifest this entry is BuildKit's attestation of (its annotations `vnd.docker.reference.type` and
    /// `vnd.docker.reference.digest`). No other annotation is kept.
    #[serde(default, rename = "annotations", deserialize_with = "attested")]
    pub attests: Option<Box<Digest>>,
}

/// Reads which manifest an entry attests. Annotations say whatever their writer likes: what cannot be read says nothing.
fn attested<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Digest>>, D::Error> {
    let annotations =
        Option::<std::collections::BTreeMap<String, serde_json::Value>>::deserialize(deserializer)?;
    let annotation = |name: &str| annotations.as_ref()?.get(name)?.as_str();
    let is_attestation = annotation("vnd.docker.reference.type") == Some("attestation-manifest");
    Ok(annotation("vnd.docker.reference.digest")
        .filter(|_| is_attestation)
        .and_then(|text| text.parse().ok())
        .map(Box::new))
}

impl Descriptor {
    /// Whether the layer must be fetched from elsewhere (image-spec, layer.md, "Non-Distributable Layers").
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

/// What a manifest lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// An index: manifests, one for each platform, and attestations.
    Index(Vec<Descriptor>),
    /// An image or artifact: a configuration and layers.
    Image {
        /// The configuration blob.
        config: Descriptor,
        /// The layers, lowest first.
        layers: Vec<Descriptor>,
    },
}

/// A manifest or index, with the digest of the very bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of the document's bytes.
    pub digest: Digest,
    /// The document's own media type.
    pub media_type: MediaType,
    /// What it lists.
    pub kind: ManifestKind,
    /// The manifest this one refers to, for referrers (image-spec, manifest.md, `subject`).
    pub subject: Option<Digest>,
}

/// Why bytes are not a manifest Sampan stores or serves.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Larger than [`MANIFEST_BYTES_MAX`].
    #[error("the manifest is larger than {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
    /// Not the JSON that the specification describes.
    #[error("the manifest is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Readable as two different things, or contradicting its `Content-Type` (CVE-2021-41190).
    #[error("the manifest is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// Neither an image manifest nor an index of a known type.
    #[error("the manifest's media type `{0}` is not known")]
    MediaType(String),
    /// More than 4096 descriptors.
    #[error("the manifest lists more than {DESCRIPTORS_MAX} descriptors")]
    TooMany,
    /// A digest in it is not one.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

/// The wire form: both shapes at once, so that a document with both can be refused. serde refuses repeated known keys.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest. `content_type` is the upstream's header, needed where an OCI document leaves `mediaType` out.
    /// The digest is computed here, with SHA-256 unless `expected` names another algorithm.
    /// # Errors
    /// [`InvalidManifest`]: nothing of the document may then be stored or served.
    pub fn parse(
        bytes: &[u8],
        content_type: Option<&str>,
        expected: Option<&Digest>,
    ) -> Result<Self, InvalidManifest> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(InvalidManifest::TooLarge);
        }
        let document: Document = serde_json::from_slice(bytes)?;
        if document.schema_version != 2 || document.fs_layers.is_some() {
            return Err(InvalidManifest::MediaType("schema 1".into()));
        }
        let declared = document.media_type.as_deref().map(known).transpose()?;
        let header = content_type.and_then(MediaType::parse);
        if let (Some(declared), Some(header)) = (declared, header)
            && declared != header
        {
            return Err(InvalidManifest::Ambiguous("`mediaType` and `Content-Type` disagree"));
        }
        let (kind, default) = match (document.manifests, document.config, document.layers) {
            (Some(manifests), None, None) => (ManifestKind::Index(manifests), MediaType::OciIndex),
            (None, Some(config), Some(layers)) => {
                (ManifestKind::Image { config, layers }, MediaType::OciManifest)
            }
            (Some(_), _, _) => {
                return Err(InvalidManifest::Ambiguous("both `manifests` and `config` or `layers`"));
            }
            (None, _, _) => return Err(InvalidManifest::Ambiguous("neither an index nor an image manifest")),
        };
        let media_type = declared.or(header).unwrap_or(default);
        if media_type.is_index() != matches!(kind, ManifestKind::Index(_)) {
            return Err(InvalidManifest::Ambiguous("the media type and the content disagree"));
        }
        let mut hasher = expected.map_or_else(|| Hasher::new(crate::Algorithm::Sha256), Digest::hasher);
        hasher.update(bytes);
        let manifest =
            Self { digest: hasher.finish(), media_type, kind, subject: document.subject.map(|s| s.digest) };
        if manifest.descriptors().count() > DESCRIPTORS_MAX {
            return Err(InvalidManifest::TooMany);
        }
        Ok(manifest)
    }

    /// Everything the manifest lists, in its order: an index's manifests, or configuration then layers.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, rest) = match &self.kind {
            ManifestKind::Index(manifests) => (None, manifests),
            ManifestKind::Image { config, layers } => (Some(config), layers),
        };
        config.into_iter().chain(rest)
    }

    /// Whether this is an index.
    pub fn is_index(&self) -> bool {
        self.media_type.is_index()
    }
}

fn known(text: &str) -> Result<MediaType, InvalidManifest> {
    MediaType::parse(text).ok_or_else(|| InvalidManifest::MediaType(text.chars().take(100).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(content: &str) -> String {
        format!(
            r#"{{"mediaType":"x/y","digest":"{}","size":{}}}"#,
            Digest::of(content.as_bytes()),
            content.len()
        )
    }

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]{extra}}}"#,
            descriptor("c"),
            descriptor("layer")
        )
    }

    fn parse(text: &str, content_type: Option<&str>) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(text.as_bytes(), content_type, None)
    }

    #[test]
    fn an_image_manifest_lists_its_configuration_and_layers() {
        let manifest = parse(&image(""), None).unwrap();
        assert_eq!(manifest.media_type, MediaType::OciManifest);
        assert_eq!(manifest.descriptors().map(|d| d.size).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(manifest.digest, Digest::of(image("").as_bytes()));
    }

    #[test]
    fn the_documents_own_media_type_is_what_is_served() {
        let docker = image(&format!(r#","mediaType":"{}""#, MediaType::DockerManifest));
        assert_eq!(parse(&docker, None).unwrap().media_type, MediaType::DockerManifest);
        let header = format!("{}; charset=utf-8", MediaType::DockerManifest);
        assert_eq!(parse(&image(""), Some(&header)).unwrap().media_type, MediaType::DockerManifest);
        assert_eq!(parse(&image(""), Some("text/html")).unwrap().media_type, MediaType::OciManifest);
    }

    #[test]
    fn an_entry_of_an_index_may_attest_another_one() {
        let of = Digest::of(b"image");
        let entry = |annotations: &str| {
            let entry = descriptor("m").replace('}', &format!(r#","annotations":{annotations}}}"#));
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
            parse(&index, None).unwrap().descriptors().next().unwrap().attests.as_deref().copied()
        };
        let kind = r#""vnd.docker.reference.type":"attestation-manifest""#;
        assert_eq!(entry(&format!(r#"{{{kind},"vnd.docker.reference.digest":"{of}"}}"#)), Some(of));
        assert_eq!(entry(&format!(r#"{{"vnd.docker.reference.digest":"{of}"}}"#)), None);
        assert_eq!(entry(&format!(r#"{{{kind},"vnd.docker.reference.digest":"../x"}}"#)), None);
        assert_eq!(entry(&format!(r#"{{{kind},"other":[1]}}"#)), None);
        assert_eq!(entry("null"), None);
    }

    #[test]
    fn a_manifest_of_four_mebibytes_is_read_and_one_of_a_byte_more_is_not() {
        let padded = |length: usize| format!("{}{}", " ".repeat(length - image("").len()), image(""));
        assert!(parse(&padded(MANIFEST_BYTES_MAX), None).is_ok());
        assert!(matches!(parse(&padded(MANIFEST_BYTES_MAX + 1), None), Err(InvalidManifest::TooLarge)));
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let both = image(&format!(r#","manifests":[{}]"#, descriptor("m")));
        let index_type = image(&format!(r#","mediaType":"{}""#, MediaType::OciIndex));
        let twice = image(r#","layers":[]"#);
        let oci = image(&format!(r#","mediaType":"{}""#, MediaType::OciManifest));
        assert!(parse(&both, None).is_err(), "manifests and layers");
        assert!(parse(&index_type, None).is_err(), "an index that is an image");
        assert!(parse(&twice, None).is_err(), "a repeated key");
        assert!(parse(&oci, Some(MediaType::DockerManifest.as_str())).is_err(), "header and body disagree");
        assert!(parse(r#"{"schemaVersion":2}"#, None).is_err(), "neither");
        assert!(parse(&image(r#","fsLayers":[]"#), None).is_err(), "schema 1 in disguise");
        assert!(parse("<html>captive portal</html>", Some("text/html")).is_err(), "not JSON");
    }

    #[test]
    fn hostile_documents_are_refused_without_harm() {
        let wrong = image("").replace("sha256:", "sha256:../");
        assert!(parse(&wrong, None).is_err(), "a path for a digest");
        assert!(parse(&image("").replace(r#""size":5"#, r#""size":-5"#), None).is_err(), "a negative size");
        assert!(parse(&"[".repeat(1_000_000), None).is_err(), "depth");
        let many = vec![descriptor("x"); DESCRIPTORS_MAX + 1].join(",");
        let many = format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#);
        assert!(matches!(parse(&many, None), Err(InvalidManifest::TooMany)));
        let large = format!("{}{}", image(""), " ".repeat(MANIFEST_BYTES_MAX));
        assert!(matches!(parse(&large, None), Err(InvalidManifest::TooLarge)));
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_never_panics(at in 0_usize..400, byte in any::<u8>()) {
            let mut bytes = image("").into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Manifest::parse(&bytes, None, None);
        }
    }
}
