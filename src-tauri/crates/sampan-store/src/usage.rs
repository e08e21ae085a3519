//! How much of the disk the cache takes.

use crate::error::StoreError;
use crate::store::Store;
use crate::{index, own};

/// What is on disk, by the index's running totals: cheap to ask for, several times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The sum of the sizes of all files under `blobs/`, in bytes.
    pub size_bytes: u64,
    /// Bytes of downloads that are not published: running ones, and those that can be gone on with.
    pub partial_bytes: u64,
    /// How many blobs are held.
    pub blobs: u64,
    /// Bytes that can still be written to the disk; `None`: the system does not say.
    pub free_bytes: Option<u64>,
    /// The most bytes the cache may take; `None`: whatever the disk has.
    pub quota_bytes: Option<u64>,
    /// The part of `size_bytes` that pins keep.
    pub pinned_bytes: u64,
    /// Bytes of damaged files that are kept for diagnosis.
    pub quarantine_bytes: u64,
    /// Bytes of what the cache keeps beside images: its index, `index.json`, and the ledgers of downloads.
    pub own_bytes: u64,
}

/// The most bytes of blobs that can come in, with everything gone that may make way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// By the quota; `None`: there is none.
    pub quota_bytes: Option<u64>,
    /// By the disk, down to the floor; `None`: the system does not say.
    pub disk_bytes: Option<u64>,
}

impl Store {
    /// What there can be room for: by the numbers that each download is refused by, where none runs. `stays_bytes`: blobs that
    /// have to stay, pinned or not; which of the pinned ones are among them is not known.
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Stopped`].
    pub async fn ceiling(&self, stays_bytes: u64) -> Result<Ceiling, StoreError> {
        self.run(move |inner| {
            let stays = inner.index.look_up(index::pinned_bytes)?.max(stays_bytes);
            let limits = inner.limits();
            let others = inner.index.totals().0.saturating_sub(stays);
            let going =
                others.saturating_add(inner.partials.idle_bytes()).saturating_add(inner.quarantine_bytes());
            let free = limits.free.map(|free| free.saturating_add(going));
            Ok(Ceiling {
                quota_bytes: limits.quota.map(|quota| quota.saturating_sub(stays)),
                disk_bytes: free.map(|free| free.saturating_sub(limits.floor)),
            })
        })
        .await
    }

    /// How much of the disk the cache takes.
    /// # Errors
    /// [`StoreError::Stopped`].
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        self.run(|inner| {
            let (size_bytes, blobs) = inner.index.totals();
            Ok(Usage {
                size_bytes,
                partial_bytes: inner.running.written() + inner.partials.bytes(),
                blobs,
                free_bytes: inner.free_bytes(),
                quota_bytes: inner.quota(),
                // An index that fails says so at each pull. The other numbers are known without it.
                pinned_bytes: inner.index.look_up(index::pinned_bytes).unwrap_or(0),
                quarantine_bytes: inner.quarantine_bytes(),
                own_bytes: own::size(&inner.layout).unwrap_or_else(|_| inner.own.bytes()),
            })
        })
        .await
    }
}
