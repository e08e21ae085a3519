//! What is held, as images, and clearing them: the store's side of [`catalog`](crate::catalog) and [`clear`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sampan_oci::{Digest, Platform};

use crate::catalog::{Catalog, Entry, ImageEntry};
use crate::clear::{self, Choice, Cleared, Removal, Selection};
use crate::error::StoreError;
use crate::index::{self, Change};
use crate::store::{Inner, Small, Store};

impl Store {
    /// Everything held, as images: each tag, and each manifest no tag or index of its image leads to. Only blobs really
    /// held count. What is [cleared but not settled](Self::clear_later) is not listed, and still counts as made of its blobs.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn images(&self) -> Result<Vec<ImageEntry>, StoreError> {
        self.run(|inner| {
            inner.write_touched();
            let (_, entries) = inner.entries()?;
            let shown = entries.into_iter().map(|entry| entry.shown);
            Ok(shown.filter(|entry| !inner.waiting.hides(entry)).collect())
        })
        .await
    }

    /// What [`clear`](Self::clear) would remove now. Changes nothing.
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Index`].
    pub async fn plan_clear(&self, selection: &Selection) -> Result<Cleared, StoreError> {
        let selection = selection.clone();
        self.run(move |inner| {
            inner.write_touched();
            let (removal, mut cleared) = inner.plan_clear(&Choice::Selected(selection))?;
            if removal.partials {
                cleared.freed_bytes += inner.partials.idle_bytes();
                cleared.refetch_bytes += inner.partials.idle_bytes();
            }
            Ok(cleared)
        })
        .await
    }

    /// Removes what is selected: tags, proofs, and the blobs no remaining image is made of; with everything, also partial
    /// downloads that nobody has open. Only files the store made go; running downloads and open readers go on.
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Io`], [`StoreError::Index`]: part of it may be gone, and the index says so.
    pub async fn clear(&self, selection: &Selection) -> Result<Cleared, StoreError> {
        let selection = selection.clone();
        self.run(move |inner| inner.clear(&Choice::Selected(selection))).await
    }
}

impl Inner {
    /// Listing and clearing go on without the last uses where they cannot be written.
    pub(crate) fn write_touched(&self) {
        if let Err(error) = self.index.write_touched() {
            tracing::warn!(%error, "last uses could not be written");
        }
    }

    pub(crate) fn entries(&self) -> Result<(Catalog, Vec<Entry>), StoreError> {
        let catalog = self.index.report(|connection| index::catalog(connection))?;
        let entries = catalog.entries(|digest| self.platform(digest));
        Ok((catalog, entries))
    }

    /// The platform that a held image configuration names (image-spec, config.md). Read once, then remembered.
    fn platform(&self, configuration: &Digest) -> Option<Platform> {
        let known = |platforms: &Mutex<HashMap<_, _>>| {
            let platforms = platforms.lock().unwrap_or_else(PoisonError::into_inner);
            platforms.get(configuration).cloned()
        };
        if let Some(platform) = known(&self.platforms) {
            return platform;
        }
        // Unreadable now may be readable after a refetch: only what the right bytes say is remembered.
        let Ok(Small::Right(bytes)) = self.small_blob(configuration) else { return None };
        let platform: Option<Platform> = serde_json::from_slice(&bytes).ok();
        let platform = platform.filter(|p| !p.os.is_empty() && !p.architecture.is_empty());
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        platforms.insert(*configuration, platform.clone());
        platform
    }

    /// What goes, and its numbers by the files as they are now; without partial downloads.
    pub(crate) fn plan_clear(&self, choice: &Choice) -> Result<(Removal, Cleared), StoreError> {
        let (catalog, entries) = self.entries()?;
        let removal = clear::plan(&catalog, entries, choice);
        let mut cleared = Cleared { images: removal.entries.clone(), ..Cleared::default() };
        for digest in &removal.blobs {
            if let Some(size) = self.layout.blob_size(digest).map_err(StoreError::Io)? {
                cleared.blobs += 1;
                cleared.freed_bytes += size;
                cleared.refetch_bytes += catalog.held.get(digest).map_or(0, |held| held.fetched);
            }
        }
        Ok((removal, cleared))
    }

    /// Removes a blob's file and forgets what it was. In this order: after a crash the next start finds rows without files,
    /// and drops them. The other way round it would find files that nothing leads to.
    pub(crate) fn remove_blob(&self, change: &mut Change<'_>, digest: &Digest) -> Result<(), StoreError> {
        self.layout.remove_blob(digest)?;
        self.verified.remove(digest);
        self.platforms.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        change.forget_blob(digest)
    }

    pub(crate) fn clear(&self, choice: &Choice) -> Result<Cleared, StoreError> {
        // Before the writer lock is taken for the rest: `change` does not nest.
        self.write_touched();
        let mut failed = None;
        let cleared = self.index.change(|change| {
            // Planned under the writer lock: nothing can be published between the plan and the deed.
            let (removal, mut cleared) = self.plan_clear(choice)?;
            for digest in &removal.blobs {
                if let Err(error) = self.remove_blob(change, digest) {
                    failed = Some(error);
                }
            }
            if removal.partials {
                match self.partials.remove_idle(&self.layout.partial) {
                    Ok(bytes) => {
                        cleared.freed_bytes += bytes;
                        cleared.refetch_bytes += bytes;
                    }
                    Err(error) => failed = Some(error.into()),
                }
            }
            if failed.is_none() {
                change.forget(&removal)?;
            }
            Ok(cleared)
        })?;
        self.waiting.forget(&cleared.images);
        match failed {
            None => Ok(cleared),
            Some(error) => Err(error),
        }
    }
}
