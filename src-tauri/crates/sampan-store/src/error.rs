//! What can go wrong, told apart where a caller acts differently.

use std::io;
use std::path::PathBuf;

use sampan_oci::Digest;

/// Why a cache folder could not be opened. Nothing in the folder was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has this cache open.
    #[error("the cache is in use by another Sampan{}", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// The path is a symbolic link, belongs to somebody else, may be written by everybody, or holds files that are not
    /// a cache of Sampan's.
    #[error("{} is not a folder that Sampan can use as its cache", .0.display())]
    NotOurs(PathBuf),
    /// A newer Sampan made this cache.
    #[error("the cache was made by a newer Sampan (index version {0})")]
    Future(i32),
    /// The disk failed or refused.
    #[error("the cache cannot be opened: {0}")]
    Io(#[from] io::Error),
    /// The index failed in a way that making it anew does not cure.
    #[error("the cache's index cannot be opened: {0}")]
    Index(#[from] rusqlite::Error),
}

impl OpenError {
    /// Whether it says that the cache cannot be written, or that there is no room for what a start writes, rather than that
    /// something is wrong with it.
    pub(crate) fn forbids_writing(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        use rusqlite::{ErrorCode, ffi::SQLITE_IOERR_SHMSIZE};
        match self {
            Self::Io(error) => {
                matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded)
            }
            Self::Index(error) => {
                let no_room = error.sqlite_error().is_some_and(|e| e.extended_code == SQLITE_IOERR_SHMSIZE);
                let code = error.sqlite_error_code();
                let refused = [ErrorCode::ReadOnly, ErrorCode::PermissionDenied, ErrorCode::DiskFull];
                no_room || code.is_some_and(|code| refused.contains(&code))
            }
            Self::Locked { .. } | Self::NotOurs(_) | Self::Future(_) => false,
        }
    }
}

/// Why the store could not do something. All are Sampan's own fault or the machine's, except
/// [`Mismatch`](Self::Mismatch) and [`Size`](Self::Size), which are the fault of whoever sent the bytes.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or would have less room left than the person wants kept free.
    #[error("the disk is full")]
    Full,
    /// The cache cannot be written: a read-only file system, or a missing permission.
    #[error("the cache cannot be written")]
    ReadOnly,
    /// The bytes are not the ones the digest names.
    #[error("the bytes hash to {actual}, not to {expected}")]
    Mismatch {
        /// The digest they were to have.
        expected: Digest,
        /// The digest they have; boxed, so that every `Result` of this crate stays small.
        actual: Box<Digest>,
    },
    /// The bytes are fewer or more than announced.
    #[error("{actual} bytes where {expected} were announced")]
    Size {
        /// The announced number of bytes.
        expected: u64,
        /// The number there are, or would be.
        actual: u64,
    },
    /// An earlier write failed or was given up: this handle takes no more. A stage's bytes are then gone.
    #[error("the download's file is already given up")]
    Dead,
    /// The runtime is shutting down, or a worker thread panicked.
    #[error("the store is stopping")]
    Stopped,
    /// The disk failed.
    #[error("the cache's disk failed: {0}")]
    Io(#[source] io::Error),
    /// The index failed.
    #[error("the cache's index failed: {0}")]
    Index(#[source] rusqlite::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded) {
            Self::Full
        } else if matches!(error.kind(), ReadOnlyFilesystem | PermissionDenied) {
            Self::ReadOnly
        } else {
            Self::Io(error)
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::PermissionDenied) => Self::ReadOnly,
            _ => Self::Index(error),
        }
    }
}

/// Runs `work` on a thread that may block, and waits for it. Once begun it runs to its end, also when the caller leaves.
pub(crate) async fn blocking<T, E, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    E: Send + 'static,
    StoreError: From<E>,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Stopped),
    }
}
