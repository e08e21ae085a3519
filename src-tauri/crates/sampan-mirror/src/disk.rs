//! A blob from the cache: hashed on its first read since start, so that damage on disk is found before a client has it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Digest, Hasher};
use sampan_store::{BlobFile, Store, StoreError};

use crate::body::Course;
use crate::download::{READ_BYTES, SMALL_BYTES, TAIL_BYTES};
use crate::error::PullError;
use crate::sendfile::Conduit;

/// Makes sure that `start..end` of `file` may be served: `false` means the file is damaged and was taken out of the cache.
/// A whole large blob is not read twice: [`DiskReader`] hashes it on its way to the client.
pub(crate) async fn sound(
    store: &Store,
    digest: &Digest,
    file: &BlobFile,
    whole: bool,
) -> Result<bool, PullError> {
    if file.verified() || (whole && file.size() > SMALL_BYTES) {
        return Ok(true);
    }
    match file.verify().await {
        Ok(true) => return Ok(true),
        Ok(false) => {}
        Err(StoreError::Io(error)) if unreadable(&error) => {}
        Err(error) => return Err(error.into()),
    }
    tracing::warn!(%digest, "a blob was damaged on disk; it is fetched again");
    give_up(store, file).await;
    Ok(false)
}

/// Whether the disk has lost the bytes it was asked for: damage as much as wrong bytes are, but told by the disk itself.
pub(crate) fn unreadable(error: &io::Error) -> bool {
    // EIO; on Windows ERROR_CRC.
    error.raw_os_error() == Some(if cfg!(windows) { 23 } else { 5 })
}

/// Takes a damaged blob out of the cache. On a disk that cannot be written it stays, and is not served all the same.
pub(crate) async fn give_up(store: &Store, file: &BlobFile) {
    if let Err(error) = store.quarantine_file(file).await {
        tracing::warn!(digest = %file.digest(), %error, "a damaged blob could not be removed");
    }
}

/// Reads `start..end` of a blob on disk.
pub(crate) struct DiskReader {
    store: Store,
    digest: Digest,
    file: BlobFile,
    at: u64,
    end: u64,
    /// Present while an unverified blob is read whole.
    hasher: Option<Hasher>,
    /// How a verified file gets to the client without being read, and the answer it is sent for; `None`: it has to be read.
    conduit: Option<(Conduit, Arc<Course>)>,
}

impl DiskReader {
    /// [`sound`] must have said `true` for the same range.
    pub(crate) fn new(
        store: Store,
        digest: Digest,
        file: BlobFile,
        start: u64,
        end: u64,
        conduit: Option<(Conduit, Arc<Course>)>,
    ) -> Self {
        let hasher = (!file.verified()).then(|| digest.hasher());
        Self { store, digest, file, at: start, end, hasher, conduit }
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        if self.at == self.end {
            return Ok(None);
        }
        if let Some(stand_in) = self.send().await? {
            return Ok(Some(stand_in));
        }
        let mut wanted = usize::try_from(self.end - self.at).unwrap_or(READ_BYTES).min(READ_BYTES);
        // The tail is read last and by itself: it is the part that is held back until the digest is known.
        let tail_at = self.end.saturating_sub(TAIL_BYTES);
        if self.hasher.is_some() && self.at < tail_at {
            wanted = wanted.min(usize::try_from(tail_at - self.at).unwrap_or(wanted));
        }
        let bytes = match self.file.read_at(self.at, wanted).await {
            Ok(bytes) => bytes,
            Err(error) if unreadable(&error) => return self.damaged(self.digest).await,
            Err(error) => return Err(StoreError::from(error).into()),
        };
        self.at += bytes.len() as u64;
        let ended = self.at == self.end;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        if bytes.is_empty() {
            return self.damaged(self.digest).await;
        }
        if ended && let Some(hasher) = self.hasher.take() {
            let actual = hasher.finish();
            if actual != self.digest {
                return self.damaged(actual).await;
            }
            self.file.mark_verified();
        }
        Ok(Some(bytes))
    }

    /// Has the next bytes sent straight from the file, where that can be done; returns what stands for them. Bytes that are
    /// still to be hashed have to be read anyway: hashing is what that answer costs, not the copying.
    async fn send(&mut self) -> Result<Option<Bytes>, PullError> {
        let Some((conduit, course)) = self.conduit.as_ref().filter(|_| self.hasher.is_none()) else {
            return Ok(None);
        };
        let Some(len) = conduit.fits(&self.file, self.end - self.at) else { return Ok(None) };
        match conduit.bring(&self.file, self.at, len).await {
            Ok(true) => {}
            Ok(false) => return self.damaged(self.digest).await,
            Err(error) if unreadable(&error) => return self.damaged(self.digest).await,
            Err(error) => return Err(StoreError::from(error).into()),
        }
        let stand_in = conduit.announce(&self.file, self.at, len, course);
        self.at += len as u64;
        Ok(Some(stand_in))
    }

    async fn damaged(&self, actual: Digest) -> Result<Option<Bytes>, PullError> {
        tracing::warn!(digest = %self.digest, "a blob was damaged on disk; the answer is broken off");
        give_up(&self.store, &self.file).await;
        Err(StoreError::Mismatch { expected: self.digest, actual: Box::new(actual) }.into())
    }
}
