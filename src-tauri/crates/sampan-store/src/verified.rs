//! Which blobs' files were found right, and when a file is another one than it was.

use std::collections::HashMap;
use std::fs::Metadata;
use std::sync::{Mutex, PoisonError};

use sampan_oci::Digest;

/// Published blobs whose hashing is remembered; beyond it all are forgotten, which costs hashing again.
const VERIFIED_MAX: usize = 65_536;

/// Which files were hashed whole and found right since this process started.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<HashMap<Digest, FileId>>);

impl Verified {
    pub(crate) fn contains(&self, digest: &Digest, id: &FileId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest) == Some(id)
    }

    pub(crate) fn insert(&self, digest: Digest, id: FileId) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= VERIFIED_MAX {
            files.clear();
        }
        files.insert(digest, id);
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

/// Tells a file from its replacements and from its own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    size: u64,
    identity: [u64; 2],
    modified: [i64; 2],
}

impl FileId {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            size: metadata.len(),
            identity: [metadata.dev(), metadata.ino()],
            modified: [metadata.mtime(), metadata.mtime_nsec()],
        }
    }

    #[cfg(windows)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::windows::fs::MetadataExt;
        let written = i64::try_from(metadata.last_write_time()).unwrap_or(i64::MAX);
        Self { size: metadata.len(), identity: [metadata.creation_time(), 0], modified: [written, 0] }
    }
}
