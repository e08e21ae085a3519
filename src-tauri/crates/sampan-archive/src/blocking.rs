//! Work that waits for a disk, away from the async threads.

use std::io;

/// How much of a blob is in memory at once, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;

/// Runs `work` on a thread that may block. Once begun it runs to its end, also when the caller leaves.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
