//! A running download's file: written by one, read by many, then published or gone (SECURITY.md R1, R60, R64).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Digest, Hasher};

use crate::blob::BlobFile;
use crate::disk::DiskFile;
use crate::error::{StoreError, blocking};
use crate::index::Change;
use crate::publish::{self, Origin};
use crate::room::Room;
use crate::store::Inner;

/// The bytes of one download. Dropping it before [`publish`](Self::publish) removes its file; open readers go on.
#[derive(Debug)]
pub struct Stage {
    store: Arc<Inner>,
    file: Arc<DiskFile>,
    blob: BlobFile,
    /// Its name under `partial/`; `None` once it is no longer there.
    name: Option<String>,
    /// `None`: an append failed, or was given up half-way, and the bytes are not to be trusted.
    hasher: Option<Hasher>,
    room: Room,
}

impl Stage {
    /// Makes the file. Blocks.
    pub(crate) fn begin(store: &Arc<Inner>, digest: Digest, size: u64) -> Result<Self, StoreError> {
        store.refuse_if_read_only()?;
        let room = store.reserve(digest, size)?;
        let (name, file) = store.layout.new_partial(&digest)?;
        let file = Arc::new(file);
        let blob = match BlobFile::new(file.clone(), digest, Some(size), Arc::clone(&store.verified)) {
            Ok(blob) => blob,
            Err(error) => {
                store.layout.partial.remove(&name)?;
                return Err(error.into());
            }
        };
        let (store, hasher) = (Arc::clone(store), Some(digest.hasher()));
        Ok(Self { store, file, blob, name: Some(name), hasher, room })
    }

    /// Writes and hashes the next bytes. After an error the stage is dead and its file gone.
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`] and [`StoreError::Io`] from the disk; [`StoreError::Size`] if
    /// these are more bytes than announced; [`StoreError::Dead`] after an earlier error.
    /// # Cancel safety
    /// Dropping the future makes the stage dead: how much was written is then not known.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let mut hasher = self.hasher.take().ok_or(StoreError::Dead)?;
        let (offset, length) = (self.len(), bytes.len() as u64);
        let (expected, actual) = (self.blob.size(), offset.saturating_add(length));
        if actual > expected {
            self.remove_file();
            return Err(StoreError::Size { expected, actual });
        }
        let file = Arc::clone(&self.file);
        let written = blocking(move || {
            file.write_all_at(&bytes, offset)?;
            hasher.update(&bytes);
            Ok::<_, io::Error>(hasher)
        });
        match written.await {
            Ok(hasher) => {
                self.hasher = Some(hasher);
                self.room.wrote(length);
                Ok(())
            }
            Err(error) => {
                self.remove_file();
                Err(error)
            }
        }
    }

    /// The same file for reading: [`BlobFile::size`] is the announced size, reads end where the writing is.
    pub fn reader(&self) -> BlobFile {
        self.blob.clone()
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.room.written()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the bytes readable under their digest, all at once, replacing whatever file has that name (SECURITY.md R7).
    /// After `Ok` the blob survives a power cut.
    /// # Errors
    /// [`StoreError::Size`] if bytes are missing, [`StoreError::Mismatch`] if they hash to something else, else what the
    /// disk or the index said. In each case the file is gone and nothing new is under `blobs/`.
    /// # Cancel safety
    /// Dropping the future leaves the blob whole or absent.
    pub async fn publish(self) -> Result<(), StoreError> {
        self.publish_with(|_| Ok(())).await
    }

    /// As [`publish`](Self::publish), for bytes that did not come over the link.
    /// # Errors
    /// As [`publish`](Self::publish), and so is what dropping the future leaves.
    pub async fn publish_imported(self) -> Result<(), StoreError> {
        blocking(move || self.publish_blocking(Origin::Import, |_| Ok(()))).await
    }

    /// Publishes, and records what `record` records in the same transaction.
    pub(crate) async fn publish_with<F>(self, record: F) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Change<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        blocking(move || self.publish_blocking(Origin::Link, record)).await
    }

    fn publish_blocking<F>(mut self, origin: Origin, record: F) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Change<'_>) -> Result<(), StoreError>,
    {
        let hasher = self.hasher.take().ok_or(StoreError::Dead)?;
        let (size, written) = (self.blob.size(), self.len());
        if written != size {
            return Err(StoreError::Size { expected: size, actual: written });
        }
        publish::prove(&self.file, &self.blob.digest(), hasher)?;
        publish::enter(&self.store, &self.file, &self.blob, &mut self.name, origin, record)
    }

    fn remove_file(&mut self) {
        if let Some(name) = self.name.take()
            && let Err(error) = self.store.layout.partial.remove(&name)
        {
            tracing::warn!(%error, name, "a given-up download's file could not be removed; the next start does");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.remove_file();
    }
}
