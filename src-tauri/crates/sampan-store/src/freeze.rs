//! Where tags are held fast, and where their upstream has let go of them.

use sampan_oci::{Digest, ImageName, Tag};

use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// Points a tag at a digest for good: it stays there, whatever its upstream says, and never makes way, until
    /// [`unfreeze`](Self::unfreeze) or until a person clears it. Returns whether the digest is held as a manifest that
    /// the image is proven to show; if it is not, nothing changes. A tag that is frozen elsewhere is moved.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn freeze(&self, image: &ImageName, tag: &Tag, digest: &Digest) -> Result<bool, StoreError> {
        let (image, tag, digest) = (image.clone(), tag.clone(), *digest);
        self.run(move |inner| {
            inner.index.change(|change| change.freeze(&image, &tag, &digest, inner.clock.now()))
        })
        .await
    }

    /// Lets a tag move again: the next pull asks its upstream. Returns whether it was frozen.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn unfreeze(&self, image: &ImageName, tag: &Tag) -> Result<bool, StoreError> {
        let (image, tag) = (image.clone(), tag.clone());
        self.run(move |inner| inner.index.change(|change| change.unfreeze(&image, &tag))).await
    }

    /// Notes that the upstream has no such tag any more: from now on it is not answered, until
    /// [`set_tag`](Self::set_tag). What it points at stays, with its pins and its history. A tag that points elsewhere
    /// than at `digest`, or is frozen, stays as it is.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn tag_is_gone(&self, image: &ImageName, tag: &Tag, digest: &Digest) -> Result<(), StoreError> {
        let (image, tag, digest) = (image.clone(), tag.clone(), *digest);
        self.run(move |inner| {
            inner.index.change(|change| change.tag_is_gone(&image, &tag, &digest, inner.clock.now()))
        })
        .await
    }
}
