//! Publishing: the one way by which bytes get their digest's name.

use sampan_oci::{Digest, Hasher};

use crate::backend::{Condition, Staged};
use crate::blob::BlobFile;
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::index::{self, Change};
use crate::store::Inner;

/// How a blob's bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From an upstream.
    Link,
    /// From a file on this machine.
    Import,
}

/// Checks that the bytes hashed are the ones the digest names, and makes them survive a power cut.
/// After an error the file is worth nothing: a failed sync is final, as the next one may report success for pages the
/// kernel has dropped (SECURITY.md R64).
pub(crate) fn prove(file: &DiskFile, expected: &Digest, hasher: Hasher) -> Result<(), StoreError> {
    let actual = hasher.finish();
    if actual != *expected {
        return Err(StoreError::Mismatch { expected: *expected, actual: Box::new(actual) });
    }
    Ok(file.sync_all()?)
}

/// Puts a file that was [proved](prove) from `partial/` among the published blobs, and records it, with what `record`
/// records in the same transaction. `name` is `None` afterwards if the file left `partial/`; after an error it is then
/// gone. A partial download of the blob that nobody has open is of no use any more, and goes. `blob` reads the file.
pub(crate) fn enter<F>(
    store: &Inner,
    file: &DiskFile,
    blob: &BlobFile,
    name: &mut Option<String>,
    origin: Origin,
    record: F,
) -> Result<(), StoreError>
where
    F: FnOnce(&mut Change<'_>) -> Result<(), StoreError>,
{
    let (digest, size) = (blob.digest(), blob.size());
    let (layout, mut in_the_way, mut put, mut identity) = (&store.layout, false, false, None);
    // Under the index's writer lock, so that clearing never sees half of this.
    let done = store.index.change(|change| {
        if name.is_none() {
            return Err(StoreError::Dead);
        }
        let replaces_its_like = layout.blob_size(&digest)? == Some(size);
        let mut staged = Staged::new(&layout.partial, name, file);
        let done = layout.put_blob(&digest, &mut staged, Condition::Replace);
        put = done.is_ok();
        in_the_way = (put || staged.is_moved()) && !replaces_its_like;
        identity = done?.1;
        change.record_blob(&digest, size, origin, store.clock.now())?;
        index::damage::heal(change, &digest, store.clock.now())?;
        record(change)
    });
    match &done {
        Ok(()) => {
            blob.mark_published(identity);
            store.partials.remove_needless(&layout.partial, &digest);
        }
        // What replaced a file of its size has a row that fits, and the right bytes: it stays.
        Err(_) if in_the_way => store.take_back(&digest),
        Err(_) => {}
    }
    // What is kept elsewhere than in files leaves the staged one where it was. After it was marked: removing a file
    // changes its identity.
    if let Some(left) = name.take_if(|_| put)
        && let Err(error) = layout.partial.remove(&left)
    {
        tracing::warn!(%digest, %error, "a published download's file could not be removed; the next start does");
    }
    done
}
