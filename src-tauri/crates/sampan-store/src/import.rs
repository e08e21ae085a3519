//! Recording what an import brought. The bytes were hashed; the names they came under are somebody's word.

use sampan_oci::{Digest, ImageName, Manifest, Tag};

use crate::error::StoreError;
use crate::index::Word;
use crate::store::Store;

/// What an import brings. Its blobs are published already, by [`Stage::publish_imported`](crate::Stage::publish_imported);
/// what it lists and is not held is known, not held.
#[derive(Clone, Debug)]
pub struct ImportedImage {
    /// The repository it is to be listed under.
    pub image: ImageName,
    /// The tag that is to point at it.
    pub tag: Option<Tag>,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Its manifests and indexes, as parsed from the very bytes that were published, with the sizes of these in bytes.
    pub manifests: Vec<(Manifest, u64)>,
    /// Whether a person vouches for its names: then they count as if the upstream had said so. Otherwise it is listed and
    /// kept, and nothing of it is served under this image before its upstream was heard (SECURITY.md R84).
    pub trusted: bool,
}

/// What became of an import's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportedTag {
    /// There was none.
    Untagged,
    /// It points at the import now, or did already.
    Points,
    /// Its upstream said that it points elsewhere, and so it still does: the import is held without a tag.
    Kept {
        /// Where it points.
        digest: Digest,
    },
}

impl Store {
    /// Records an import, whole or not at all. Without trust, nothing that is proven or confirmed is weakened or changed.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn import_image(&self, import: ImportedImage) -> Result<ImportedTag, StoreError> {
        self.run(move |inner| {
            let ImportedImage { image, tag, digest, manifests, trusted } = import;
            let word = if trusted { Word::Proof } else { Word::Hearsay };
            let now = inner.clock.now();
            inner.index.change(|change| {
                for (manifest, size) in &manifests {
                    change.record_manifest(&image, manifest, *size, word, now)?;
                }
                let Some(tag) = tag else { return Ok(ImportedTag::Untagged) };
                if trusted {
                    change.set_tag(&image, &tag, &digest, now)?;
                    return Ok(ImportedTag::Points);
                }
                let confirmed = change.suggest_tag(&image, &tag, &digest, now)?;
                let elsewhere = confirmed.filter(|confirmed| *confirmed != digest);
                Ok(elsewhere.map_or(ImportedTag::Points, |digest| ImportedTag::Kept { digest }))
            })
        })
        .await
    }
}
