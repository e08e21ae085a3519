//! The two documents at the top of an image layout: `oci-layout` and `index.json` (image-spec, image-layout.md).

use std::collections::BTreeMap;

use sampan_oci::{Digest, MediaType, Platform};
use serde::{Deserialize, Serialize};

use crate::error::ArchiveError;

/// The file that marks an image layout, and what it says.
pub(crate) const LAYOUT: &str = "oci-layout";
pub(crate) const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The list of images.
pub(crate) const INDEX: &str = "index.json";

/// The largest `oci-layout` that is read, in bytes; ours has 30.
pub(crate) const LAYOUT_BYTES_MAX: u64 = 4096;
/// The most images that one archive may list.
const IMAGES_MAX: usize = 4096;

/// The name within the archive: by the specification a tag or more, by custom the full name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and Docker write it.
const FULL_NAME: &str = "io.containerd.image.name";

/// Where a blob lies.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// `index.json`, written and read. Digests are read as text: one wrong one costs one image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    pub(crate) manifests: Vec<Entry>,
}

/// One image of the list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

impl Entry {
    pub(crate) fn new(
        media_type: MediaType,
        digest: &Digest,
        size: u64,
        platform: Option<Platform>,
        name: &str,
    ) -> Self {
        let annotations = [REF_NAME, FULL_NAME].map(|key| (key.to_owned(), name.to_owned()));
        Self {
            media_type: media_type.as_str().to_owned(),
            digest: digest.to_string(),
            size,
            platform,
            annotations: Some(annotations.into()),
        }
    }

    /// What the archive calls it, the fullest name first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.annotations.as_ref();
        [FULL_NAME, REF_NAME].into_iter().filter_map(move |key| named?.get(key).map(String::as_str))
    }
}

impl Index {
    pub(crate) fn new(manifests: Vec<Entry>) -> Self {
        Self { schema_version: 2, media_type: Some(MediaType::OciIndex.as_str().into()), manifests }
    }

    /// Reads a foreign one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let index: Self = serde_json::from_slice(bytes)
            .map_err(|_| ArchiveError::NotALayout("its index.json cannot be read"))?;
        let other_type = index.media_type.as_deref().is_some_and(|text| {
            // Docker's list has the same form, and some tools write that type here.
            !matches!(MediaType::parse(text), Some(MediaType::OciIndex | MediaType::DockerList))
        });
        if index.schema_version != 2 || other_type {
            return Err(ArchiveError::NotALayout("its index.json is of another kind"));
        }
        if index.manifests.len() > IMAGES_MAX {
            return Err(ArchiveError::NotALayout("its index.json lists more than 4096 images"));
        }
        Ok(index)
    }
}

/// Whether this is the marker of a layout that can be read here: version 1, whatever follows.
pub(crate) fn is_layout(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    serde_json::from_slice::<Marker>(bytes).is_ok_and(|marker| marker.image_layout_version.starts_with("1."))
}
