//! Pins: what a person wants kept, whatever else has to make way.

use sampan_oci::{ImageName, Reference};

use crate::error::StoreError;
use crate::store::Store;

impl Store {
    /// Keeps an image from making way for others and from going by its age. A tag is followed wherever it points, also
    /// if nothing is held under it yet; a digest holds what it names, and is pinned only while it is held as a manifest
    /// of the image. Returns whether it is held. Pinning twice is `Ok`.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn pin(&self, image: &ImageName, reference: &Reference) -> Result<bool, StoreError> {
        let (image, reference) = (image.clone(), reference.clone());
        self.run(move |inner| inner.index.change(|change| change.pin(&image, &reference, inner.clock.now())))
            .await
    }

    /// Lets it make way again. Returns whether it was pinned.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn unpin(&self, image: &ImageName, reference: &Reference) -> Result<bool, StoreError> {
        let (image, reference) = (image.clone(), reference.clone());
        self.run(move |inner| inner.index.change(|change| change.unpin(&image, &reference))).await
    }
}
