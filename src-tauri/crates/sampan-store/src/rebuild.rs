//! Finding out from the folder alone what is in it, for when the index was lost.

use std::collections::HashMap;

use sampan_oci::{Digest, MANIFEST_BYTES_MAX, Manifest, Millis};

use crate::error::StoreError;
use crate::index::{Change, restore};
use crate::index_json::{self, Root};
use crate::layout::Layout;
use crate::settle;

/// The largest `index.json` that is read, in bytes: some 100,000 images.
const INDEX_JSON_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a folder without an index tells.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Every manifest held, with its size in bytes.
    manifests: HashMap<Digest, (Manifest, u64)>,
    roots: Vec<Root>,
}

impl Found {
    /// Reads everything that may be a manifest, and `index.json`. `files` are all blobs. A file that cannot be read, or is
    /// damaged, is as if it were no manifest: it is found damaged when somebody asks for it. Blocks.
    pub(crate) fn read(layout: &Layout, files: &[(Digest, u64)]) -> Self {
        let listed = read_roots(layout);
        let known = listed.is_some();
        let mut roots = listed.unwrap_or_default();
        let hints: HashMap<Digest, &str> =
            roots.iter().map(|root| (root.digest, root.media_type.as_str())).collect();
        let manifests = read_manifests(layout, files, &hints);
        roots.retain(|root| manifests.contains_key(&root.digest));
        let (blobs, tags) = (files.len(), roots.iter().filter(|root| root.tag.is_some()).count());
        if known {
            tracing::warn!(
                blobs,
                manifests = manifests.len(),
                tags,
                "the index was made anew from the blobs"
            );
        } else {
            tracing::warn!(
                blobs,
                manifests = manifests.len(),
                "the index was made anew from the blobs; index.json is missing or damaged: tags and proofs are lost, and \
                 come back by use"
            );
        }
        Self { manifests, roots }
    }

    /// Reads which of these blobs are manifests, and nothing else: for files that an index was found not to know. Blocks.
    pub(crate) fn among(layout: &Layout, files: &[(Digest, u64)]) -> Self {
        Self { manifests: read_manifests(layout, files, &HashMap::new()), roots: Vec::new() }
    }

    /// Writes it into an index that knows the blobs.
    pub(crate) fn record(&self, change: &Change<'_>, now: Millis) -> Result<(), StoreError> {
        restore::manifests(change, self.manifests.values().map(|(manifest, _)| manifest))?;
        self.roots.iter().try_for_each(|root| restore::root(change, root, &self.manifests, now))?;
        if self.roots.is_empty() { Ok(()) } else { restore::fetched(change) }
    }
}

fn read_roots(layout: &Layout) -> Option<Vec<Root>> {
    let file = layout.root.open_file(settle::FILE).ok().flatten()?;
    let bytes = file.read_up_to(INDEX_JSON_BYTES_MAX).ok()?;
    index_json::decode(&bytes)
}

/// `hints`: what is known of manifests that do not say themselves of what type they are.
fn read_manifests(
    layout: &Layout,
    files: &[(Digest, u64)],
    hints: &HashMap<Digest, &str>,
) -> HashMap<Digest, (Manifest, u64)> {
    files
        .iter()
        .filter(|(_, size)| usize::try_from(*size).is_ok_and(|size| size <= MANIFEST_BYTES_MAX))
        .filter_map(|(digest, size)| {
            let manifest = read_manifest(layout, digest, *size, hints.get(digest).copied())?;
            Some((*digest, (manifest, *size)))
        })
        .collect()
}

/// `content_type`: what is known of a manifest that does not say it itself.
fn read_manifest(
    layout: &Layout,
    digest: &Digest,
    size: u64,
    content_type: Option<&str>,
) -> Option<Manifest> {
    let file = layout.open_blob(digest).ok().flatten()?;
    // Most blobs are layers: one byte tells that they are nothing to read whole.
    let mut first = [0];
    if file.read_full_at(&mut first, 0).ok()? == 0 || first != *b"{" {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let filled = file.read_full_at(&mut bytes, 0).ok()?;
    let whole = filled == bytes.len() && digest.names(&bytes);
    let parse = |content_type| Manifest::parse(&bytes, content_type, Some(digest)).ok();
    whole.then(|| parse(content_type).or_else(|| parse(None))).flatten()
}
