//! A blob from the cache: hashed on its first read since start, so that damage on disk is found before a client has it.

use bytes::Bytes;
use sampan_oci::{Digest, Hasher};
use sampan_store::{BlobFile, Store, StoreError};

use crate::download::{READ_BYTES, SMALL_BYTES, TAIL_BYTES};
use crate::error::PullError;

/// Makes sure that `start..end` of `file` may be served: `false` means the file is damaged and was taken out of the cache.
/// A whole large blob is not read twice: [`DiskReader`] hashes it on its way to the client.
pub(crate) async fn sound(
    store: &Store,
    digest: &Digest,
    file: &BlobFile,
    whole: bool,
) -> Result<bool, PullError> {
    if file.verified() || (whole && file.size() > SMALL_BYTES) || file.verify().await? {
        return Ok(true);
    }
    tracing::warn!(%digest, "a blob was damaged on disk; it is fetched again");
    give_up(store, digest).await;
    Ok(false)
}

/// Takes a damaged blob out of the cache. On a disk that cannot be written it stays, and is not served all the same.
pub(crate) async fn give_up(store: &Store, digest: &Digest) {
    if let Err(error) = store.quarantine(digest).await {
        tracing::warn!(%digest, %error, "a damaged blob could not be removed");
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
}

impl DiskReader {
    /// [`sound`] must have said `true` for the same range.
    pub(crate) fn new(store: Store, digest: Digest, file: BlobFile, start: u64, end: u64) -> Self {
        let hasher = (!file.verified()).then(|| digest.hasher());
        Self { store, digest, file, at: start, end, hasher }
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        if self.at == self.end {
            return Ok(None);
        }
        let mut wanted = usize::try_from(self.end - self.at).unwrap_or(READ_BYTES).min(READ_BYTES);
        // The tail is read last and by itself: it is the part that is held back until the digest is known.
        let tail_at = self.end.saturating_sub(TAIL_BYTES);
        if self.hasher.is_some() && self.at < tail_at {
            wanted = wanted.min(usize::try_from(tail_at - self.at).unwrap_or(wanted));
        }
        let bytes = self.file.read_at(self.at, wanted).await.map_err(StoreError::from)?;
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

    async fn damaged(&self, actual: Digest) -> Result<Option<Bytes>, PullError> {
        tracing::warn!(digest = %self.digest, "a blob was damaged on disk; the answer is broken off");
        give_up(&self.store, &self.digest).await;
        Err(StoreError::Mismatch { expected: self.digest, actual: Box::new(actual) }.into())
    }
}
