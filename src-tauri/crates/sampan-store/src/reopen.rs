//! A cache that could not be written when it was opened, and can be by now: the disk was full, or mounted read-only.

use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sampan_oci::Digest;

use crate::claim::Claim;
use crate::error::OpenError;
use crate::folder::Folder;
use crate::layout;
use crate::store::{Inner, Store, StoreOptions};

/// What has to fit on the disk before a cache is opened for writing: more than a start writes by itself, so that one on a
/// full disk is not read through again and again in vain.
const PROBE_BYTES: usize = 1024 * 1024;

/// The cache as it is open now. Clones are the same one, also after it was opened again.
#[derive(Clone, Debug)]
pub(crate) struct Current(Arc<Openings>);

#[derive(Debug)]
struct Openings {
    first: Arc<Inner>,
    /// The same cache, opened for writing after it could only be read. What it was before stays open until the end, for
    /// whoever is reading from it.
    again: OnceLock<Arc<Inner>>,
    options: StoreOptions,
    /// Held by whoever tries to.
    trying: Mutex<()>,
}

impl Current {
    pub(crate) fn new(first: Inner, options: StoreOptions) -> Self {
        let (first, again, trying) = (Arc::new(first), OnceLock::new(), Mutex::default());
        Self(Arc::new(Openings { first, again, options, trying }))
    }
}

impl Deref for Current {
    type Target = Arc<Inner>;

    fn deref(&self) -> &Arc<Inner> {
        self.0.again.get().unwrap_or(&self.0.first)
    }
}

impl Store {
    /// Finds out whether the cache can be written now: for housekeeping, after something said that it cannot. A store that was
    /// opened [read-only](Self::is_read_only) is opened for writing where that is so, for all its clones, and is an
    /// ordinary one from then on; answers that were begun before go on from what they read. Its quota and the setting of its
    /// checks stay. Costs little where it fails: a file of 1 MiB is written and removed before anything is read.
    /// # Errors
    /// Why it cannot be written, as [`open`](Self::open) would say it: everything is as it was.
    pub async fn recover(&self) -> Result<(), OpenError> {
        let current = self.0.clone();
        let done = tokio::task::spawn_blocking(move || current.recover()).await;
        done.map_err(|error| OpenError::Io(std::io::Error::other(error)))?
    }
}

impl Current {
    fn recover(&self) -> Result<(), OpenError> {
        let Openings { first, again, options, trying } = &*self.0;
        let _one_at_a_time = trying.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.layout.is_read_only() {
            return probe(&self.layout.partial);
        }
        let claim = Claim::take_again(&options.dir, &options.disk, first.layout.lock())?;
        probe(&claim.root.child(layout::PARTIAL)?)?;
        // Shared, so that nothing that is set or found out meanwhile is lost.
        let (quota, verified) = (Arc::clone(&first.quota), Arc::clone(&first.verified));
        let opened = Inner::open(claim, options.clone(), quota, verified)?;
        let _ = again.set(Arc::new(opened));
        tracing::info!(dir = %options.dir.display(), "the cache can be written again");
        Ok(())
    }
}

/// Writes a file and removes it. What a crash leaves of it is swept at the next start, as any download cut short.
fn probe(partial: &Folder) -> Result<(), OpenError> {
    let (name, file) = layout::new_partial(partial, &Digest::of(b""))?;
    let written = file.write_all_at(&vec![0; PROBE_BYTES], 0).and_then(|()| file.sync_all());
    drop(file);
    partial.remove(&name)?;
    Ok(written?)
}
