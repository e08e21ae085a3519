//! A running download's file: written by one, read by many, then published or gone (SECURITY.md R1, R60, R64).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sampan_oci::{Digest, Hasher};

use crate::blob::{self, BlobFile};
use crate::error::{StoreError, blocking};
use crate::index::Change;
use crate::store::Inner;

/// The bytes of one download. Dropping it before [`publish`](Self::publish) removes its file; open readers go on.
#[derive(Debug)]
pub struct Stage {
    store: Arc<Inner>,
    file: BlobFile,
    /// Its name under `partial/`; `None` once it is no longer there.
    name: Option<String>,
    /// `None`: an append failed, or was given up half-way, and the bytes are not to be trusted.
    hasher: Option<Hasher>,
    room: Room,
}

impl Stage {
    /// Makes the file. Blocks.
    pub(crate) fn begin(store: &Arc<Inner>, digest: Digest, size: u64) -> Result<Self, StoreError> {
        let room = store.running.reserve(size, store.free_bytes(), store.free_space_floor_bytes)?;
        let (name, file) = store.layout.new_partial(&digest)?;
        let file = match BlobFile::new(file, digest, Some(size), Arc::clone(&store.verified)) {
            Ok(file) => file,
            Err(error) => {
                store.layout.partial.remove(&name)?;
                return Err(error.into());
            }
        };
        let (store, hasher) = (Arc::clone(store), Some(digest.hasher()));
        Ok(Self { store, file, name: Some(name), hasher, room })
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
        let (expected, actual) = (self.file.size(), offset.saturating_add(length));
        if actual > expected {
            self.remove_file();
            return Err(StoreError::Size { expected, actual });
        }
        let file = self.file.clone();
        let written = blocking(move || {
            blob::write_all_at(file.file(), &bytes, offset)?;
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
        self.file.clone()
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.room.written
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

    /// Publishes, and records what `record` records in the same transaction.
    pub(crate) async fn publish_with<F>(self, record: F) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Change<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        blocking(move || self.publish_blocking(record)).await
    }

    fn publish_blocking<F>(mut self, record: F) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Change<'_>) -> Result<(), StoreError>,
    {
        let hasher = self.hasher.take().ok_or(StoreError::Dead)?;
        let name = self.name.clone().ok_or(StoreError::Dead)?;
        let (size, written, digest) = (self.file.size(), self.len(), self.file.digest());
        if written != size {
            return Err(StoreError::Size { expected: size, actual: written });
        }
        let actual = hasher.finish();
        if actual != digest {
            return Err(StoreError::Mismatch { expected: digest, actual: Box::new(actual) });
        }
        // A failed sync is final: the next one may report success for pages the kernel has dropped (R64).
        self.file.file().sync_all()?;
        let store = Arc::clone(&self.store);
        let folder = store.layout.folder_of(&digest);
        let mut in_the_way = false;
        // The rename happens under the index's writer lock, so that clearing never sees half of this.
        let done = store.index.change(|change| {
            let replaces_its_like = folder.size_of(&digest.hex())? == Some(size);
            store.layout.partial.rename(&name, folder, &digest.hex())?;
            self.name = None;
            in_the_way = !replaces_its_like;
            folder.sync()?;
            change.record_blob(&digest, size, store.clock.now())?;
            record(change)
        });
        match done {
            Ok(()) => {
                self.file.mark_verified();
                Ok(())
            }
            Err(error) => {
                // What replaced a file of its size has a row that fits, and the right bytes: it stays.
                if in_the_way {
                    store.take_back(&digest);
                }
                Err(error)
            }
        }
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

/// What running downloads hold of the disk.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Sums>);

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    promised: u64,
    written: u64,
}

impl Running {
    /// Bytes in running downloads' files.
    pub(crate) fn written(&self) -> u64 {
        self.sums().written
    }

    /// Sets room aside for a download of `size` bytes, if `free` has it beyond the floor and what other running
    /// downloads have yet to write. Where free space is not known, only the disk itself can refuse.
    fn reserve(self: &Arc<Self>, size: u64, free: Option<u64>, floor: u64) -> Result<Room, StoreError> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = size.saturating_add(sums.promised.saturating_sub(sums.written)).saturating_add(floor);
        if free.is_some_and(|free| free < needed) {
            return Err(StoreError::Full);
        }
        sums.promised = sums.promised.saturating_add(size);
        Ok(Room { running: Arc::clone(self), promised: size, written: 0 })
    }

    fn sums(&self) -> Sums {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One download's share of [`Running`].
#[derive(Debug)]
struct Room {
    running: Arc<Running>,
    promised: u64,
    written: u64,
}

impl Room {
    fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).written += bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut sums = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.promised = sums.promised.saturating_sub(self.promised);
        sums.written = sums.written.saturating_sub(self.written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_together_never_promise_more_than_the_disk_has() {
        let running = Arc::new(Running::default());
        let mut first = running.reserve(60, Some(100), 10).unwrap();
        assert!(
            matches!(running.reserve(40, Some(100), 10), Err(StoreError::Full)),
            "60 are promised already, and 10 are to stay free"
        );
        let second = running.reserve(30, Some(100), 10).unwrap();
        first.wrote(60);
        assert_eq!(running.written(), 60);
        assert!(running.reserve(1, Some(40), 10).is_err(), "the second's 30 are not on disk yet");
        drop(second);
        assert!(running.reserve(30, Some(40), 10).is_ok(), "what was given up is free again");
        drop(first);
        assert_eq!(running.written(), 0);
        assert!(running.reserve(u64::MAX, None, 10).is_ok(), "unknown free space refuses nothing");
    }
}
