//! How much of the disk the cache takes.

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
}
