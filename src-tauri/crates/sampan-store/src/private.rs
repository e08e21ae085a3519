//! Which repositories are private: what is known of them was shown to a login, not to everybody (SECURITY.md R85).
//!
//! The mark is about the repository, and stays when its images are cleared. `index.json` tells nothing of what is marked: a
//! lost index is made anew without it, so that nothing private comes back as if everybody had been shown it.

use sampan_oci::ImageName;

use crate::error::StoreError;
use crate::index::private;
use crate::store::Store;

impl Store {
    /// Every repository that is marked as private.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn private_images(&self) -> Result<Vec<ImageName>, StoreError> {
        self.run(|inner| inner.index.look_up(private::all)).await
    }

    /// Marks a repository as private, or no longer. Written before this returns, so that nothing fetched with a login is
    /// ever recorded without the mark.
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Index`].
    pub async fn mark_private(&self, image: &ImageName, private: bool) -> Result<(), StoreError> {
        let image = image.clone();
        self.run(move |inner| {
            inner.index.change(|change| private::mark(change, &image, private))?;
            inner.index.set_stale();
            Ok(())
        })
        .await
    }
}
