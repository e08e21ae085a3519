//! The folders of an open cache.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;

use sampan_oci::{Algorithm, Digest};

use crate::backend::{Backend, Condition, Files, Identity, Keep, Object, Opened, Put, Staged};
use crate::claim::{Claim, Lock, MARKER};
use crate::disk::DiskFile;
use crate::error::OpenError;
use crate::folder::Folder;
use crate::index_copy::IndexCopy;

/// image-spec, image-layout.md, "oci-layout file".
const MARKER_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The folder of downloads.
pub(crate) const PARTIAL: &str = "partial";
/// No marker is as long.
const MARKER_BYTES_MAX: usize = 4096;

/// The folders of an open cache. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: Folder,
    pub(crate) partial: Folder,
    backend: Arc<dyn Backend>,
    index_copy: Option<IndexCopy>,
    lock: Arc<Lock>,
}

impl Layout {
    /// Makes what is missing, where the cache can be written: from here on the folder is changed.
    pub(crate) fn prepare(claim: Claim, keep: Keep) -> Result<Self, OpenError> {
        let Claim { root, index_copy, lock } = claim;
        let child = |parent: &Folder, name: &str| {
            parent.child(name).map_err(|error| {
                // A link or a file of that name is nothing this crate ever makes.
                let path = parent.path().join(name);
                let foreign = std::fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_dir());
                if foreign { OpenError::NotOurs(path) } else { OpenError::Io(error) }
            })
        };
        let blobs = child(&root, "blobs")?;
        let sha256 = child(&blobs, Algorithm::Sha256.as_str())?;
        let sha512 = child(&blobs, Algorithm::Sha512.as_str())?;
        let partial = child(&root, PARTIAL)?;
        let quarantine = child(&root, "quarantine")?;
        let backend: Arc<dyn Backend> = match keep {
            Keep::Files => Arc::new(Files::new(sha256, sha512, quarantine)),
            Keep::Memory(memory) => Arc::new(memory),
        };
        let layout = Self { root, partial, backend, index_copy, lock };
        if !layout.is_read_only() {
            layout.mark()?;
        }
        Ok(layout)
    }

    /// Whether the cache cannot be written: nothing below it changes.
    pub(crate) fn is_read_only(&self) -> bool {
        !self.root.is_writable()
    }

    /// The folder the index is in: the cache's, or a private one for a cache that cannot be written.
    pub(crate) fn index_folder(&self) -> &Folder {
        self.index_copy.as_ref().map_or(&self.root, |copy| &copy.folder)
    }

    /// Opens a published blob; `None` if there is none of that name, or something that is no blob.
    pub(crate) fn open_blob(&self, digest: &Digest) -> io::Result<Option<Arc<dyn Object>>> {
        match self.backend.open(digest)? {
            Opened::Object(object) => Ok(Some(object)),
            Opened::Missing => Ok(None),
            Opened::Foreign => {
                tracing::warn!(%digest, "what is in the place of a blob is none: ignored");
                Ok(None)
            }
        }
    }

    /// A published blob's size in bytes.
    pub(crate) fn blob_size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        self.backend.size(digest)
    }

    /// Makes staged bytes a published blob.
    pub(crate) fn put_blob(
        &self,
        digest: &Digest,
        staged: &mut Staged<'_>,
        condition: Condition,
    ) -> io::Result<(Put, Option<Identity>)> {
        self.backend.put(digest, staged, condition)
    }

    /// Removes a published blob; `false` if there was none.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> io::Result<bool> {
        if self.is_read_only() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.backend.remove(digest)
    }

    /// Every published blob, with its size in bytes.
    pub(crate) fn blobs(&self) -> io::Result<Vec<(Digest, u64)>> {
        Ok(self.blob_entries()?.into_iter().filter_map(|(digest, size)| Some((digest, size?))).collect())
    }

    /// What is in the places of blobs, with its size in bytes; no size: it is no blob.
    pub(crate) fn blob_entries(&self) -> io::Result<Vec<(Digest, Option<u64>)>> {
        self.backend.list()
    }

    /// Where published blobs are, for what more is to be done than these methods do.
    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// A new file for a download's bytes, and its name under `partial/`.
    pub(crate) fn new_partial(&self, digest: &Digest) -> io::Result<(String, DiskFile)> {
        new_partial(&self.partial, digest)
    }

    /// What keeps other processes out.
    pub(crate) fn lock(&self) -> &Arc<Lock> {
        &self.lock
    }

    fn mark(&self) -> io::Result<()> {
        if let Some(marker) = self.root.open_file(MARKER)? {
            let text = marker.read_up_to(MARKER_BYTES_MAX)?;
            if String::from_utf8_lossy(&text).contains("imageLayoutVersion") {
                return Ok(());
            }
        }
        // Renamed into place: a crash leaves no half marker.
        let name = format!("{MARKER}.new");
        let file = self.root.open_for_writing(&name, false)?;
        file.set_len(0)?;
        file.write_all_at(MARKER_TEXT.as_bytes(), 0)?;
        file.sync_all()?;
        self.root.rename(&name, &self.root, MARKER)?;
        self.root.sync()
    }
}

/// A new file for a download's bytes in the folder of downloads, and its name.
pub(crate) fn new_partial(partial: &Folder, digest: &Digest) -> io::Result<(String, DiskFile)> {
    // Randomly keyed by the standard library; `O_EXCL` turns a name that is taken into an error.
    let random = RandomState::new().build_hasher().finish();
    let name = format!("{}-{}.{random:016x}", digest.algorithm().as_str(), digest.hex());
    let file = partial.open_for_writing(&name, true)?;
    Ok((name, file))
}
