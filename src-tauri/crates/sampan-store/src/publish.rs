//! Publishing: the one way by which a file gets its digest's name.

use sampan_oci::Hasher;

use crate::blob::BlobFile;
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
pub(crate) fn prove(file: &BlobFile, hasher: Hasher) -> Result<(), StoreError> {
    let (expected, actual) = (file.digest(), hasher.finish());
    if actual != expected {
        return Err(StoreError::Mismatch { expected, actual: Box::new(actual) });
    }
    Ok(file.file().sync_all()?)
}

/// Moves a file that was [proved](prove) from `partial/` to its place under `blobs/`, and records it, with what `record`
/// records in the same transaction. `name` is `None` afterwards if the file left `partial/`; after an error it is then
/// gone. A partial download of the blob that nobody has open is of no use any more, and goes.
pub(crate) fn enter<F>(
    store: &Inner,
    file: &BlobFile,
    name: &mut Option<String>,
    origin: Origin,
    record: F,
) -> Result<(), StoreError>
where
    F: FnOnce(&mut Change<'_>) -> Result<(), StoreError>,
{
    let (digest, size) = (file.digest(), file.size());
    let folder = store.layout.folder_of(&digest);
    let mut in_the_way = false;
    // The rename happens under the index's writer lock, so that clearing never sees half of this.
    let done = store.index.change(|change| {
        let staged = name.clone().ok_or(StoreError::Dead)?;
        let replaces_its_like = folder.size_of(&digest.hex())? == Some(size);
        store.layout.partial.rename(&staged, folder, &digest.hex())?;
        *name = None;
        in_the_way = !replaces_its_like;
        folder.sync()?;
        change.record_blob(&digest, size, origin, store.clock.now())?;
        index::damage::heal(change, &digest, store.clock.now())?;
        record(change)
    });
    match done {
        Ok(()) => {
            file.mark_verified();
            store.partials.remove_needless(&store.layout.partial, &digest);
        }
        // What replaced a file of its size has a row that fits, and the right bytes: it stays.
        Err(_) if in_the_way => store.take_back(&digest),
        Err(_) => {}
    }
    done
}
