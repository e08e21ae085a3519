//! The contract about taking images elsewhere and in: export and import.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// A piece of work that takes a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Task {
    /// Which.
    pub kind: TaskKind,
    /// Bytes done.
    #[ts(type = "number")]
    pub done_bytes: u64,
    /// Bytes to do, as far as is known yet.
    #[ts(type = "number")]
    pub total_bytes: u64,
    /// The image it is at; at first the file or folder.
    pub name: String,
}

/// Which piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Images are written to a file or folder.
    Export,
    /// Images are taken in from one.
    Import,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Exported {
    /// The file or folder.
    pub path: String,
    /// The images in it: `docker.io/library/nginx:1.27`.
    pub images: Vec<String>,
    /// Blobs and manifests in it.
    #[ts(type = "number")]
    pub blobs: u64,
    /// Their bytes.
    #[ts(type = "number")]
    pub bytes: u64,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// What an import took in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Imported {
    /// The images.
    pub images: Vec<String>,
    /// Blobs and manifests that were not in the cache before.
    #[ts(type = "number")]
    pub blobs: u64,
    /// Their bytes.
    #[ts(type = "number")]
    pub bytes: u64,
    /// Blobs and manifests that were in the cache already.
    #[ts(type = "number")]
    pub held_blobs: u64,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// What else is worth knowing of the archive: English sentences.
    pub notes: Vec<String>,
}

/// Something an export or import left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Skipped {
    /// The image or blob.
    pub name: String,
    /// Why, in English: "the cache does not hold it".
    pub why: String,
}
