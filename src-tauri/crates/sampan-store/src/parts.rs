//! One image, blob by blob.

use std::collections::HashSet;

use sampan_oci::{Digest, ImageName, Millis, Reference};

use crate::error::StoreError;
use crate::index;
use crate::store::Store;

/// A part of an image: a manifest, a configuration or a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageBlob {
    /// Its digest.
    pub digest: Digest,
    /// In bytes: its file's, or what the manifest says where it is not held.
    pub size: u64,
    /// Whether it is held.
    pub held: bool,
    /// How many entries of [`Store::images`] are made of it, this one included.
    pub shared: u32,
    /// When its bytes were last found right; `None`: never since it was recorded, or it is not held.
    pub checked: Option<Millis>,
}

impl Store {
    /// The parts of the entries of this name, each once: a manifest before what it lists, in its order. Empty: no such entry
    /// is held.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn image_blobs(
        &self,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Vec<ImageBlob>, StoreError> {
        let (image, reference) = (image.clone(), reference.clone());
        self.run(move |inner| {
            let (catalog, mut entries) = inner.entries()?;
            entries.retain(|entry| !inner.waiting.hides(&entry.shown));
            let is_named = |entry: &&crate::catalog::Entry| {
                entry.shown.image == image
                    && match &reference {
                        Reference::Tag(tag) => entry.shown.tag.as_ref() == Some(tag),
                        Reference::Digest(digest) => entry.shown.digest == *digest,
                    }
            };
            let (mut ordered, mut seen) = (Vec::new(), HashSet::new());
            for entry in entries.iter().filter(is_named) {
                let mut open = vec![entry.shown.digest];
                while let Some(next) = open.pop() {
                    if seen.insert(next) {
                        ordered.push(next);
                        let listed = catalog.manifests.get(&next).into_iter().flatten();
                        // The last one in is the first one out.
                        open.extend(listed.map(|edge| edge.digest).rev());
                    }
                }
            }
            let parts = inner.index.report(|connection| index::parts(connection, &ordered))?;
            let made_of = |digest: &Digest| {
                let count = entries.iter().filter(|entry| entry.reach.contains(digest)).count();
                u32::try_from(count).unwrap_or(u32::MAX)
            };
            Ok(ordered
                .iter()
                .zip(parts)
                .map(|(digest, (size, held, checked))| ImageBlob {
                    digest: *digest,
                    size,
                    held,
                    shared: made_of(digest),
                    checked: checked.filter(|at| at.0 > 0),
                })
                .collect())
        })
        .await
    }
}
