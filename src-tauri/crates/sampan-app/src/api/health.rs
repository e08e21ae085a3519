//! The contract about damage on disk: what was found, what became of it, the scrub that looks for it.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What damage was found in the cache, and what became of it. Counted since the cache exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Health {
    /// Blobs found damaged.
    #[ts(type = "number")]
    pub damaged: u64,
    /// Those that were fetched again since.
    #[ts(type = "number")]
    pub healed: u64,
    /// Those that the next pull fetches again.
    #[ts(type = "number")]
    pub waiting: u64,
    /// Every byte was compared with its digest at this time or later; `None`: something never was, or nothing is held.
    #[ts(type = "number | null")]
    pub checked_since: Option<i64>,
}

/// [`Health`], with the newest damages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct HealthReport {
    /// The counts.
    pub health: Health,
    /// The newest damages, newest first, at most 100.
    pub damages: Vec<Damage>,
    /// The scrub that ended last since Sampan started.
    pub last_run: Option<ScrubRun>,
}

/// A blob that was found damaged and set aside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Damage {
    /// The blob.
    pub digest: String,
    /// When it was found.
    #[ts(type = "number")]
    pub found: i64,
    /// The size it should have.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// When right bytes were there again; `None`: the next pull fetches them.
    #[ts(type = "number | null")]
    pub healed: Option<i64>,
}

/// A scrub that goes on: the whole cache is read and compared with its digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ScrubState {
    /// Bytes read.
    #[ts(type = "number")]
    pub done_bytes: u64,
    /// Bytes to be read.
    #[ts(type = "number")]
    pub total_bytes: u64,
    /// Blobs found damaged.
    #[ts(type = "number")]
    pub damaged: u64,
    /// Sampan began it by itself: it is slow, and yields to pulls.
    pub background: bool,
}

/// A scrub that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ScrubRun {
    /// When.
    #[ts(type = "number")]
    pub ended: i64,
    /// Blobs compared.
    #[ts(type = "number")]
    pub blobs: u64,
    /// Bytes read.
    #[ts(type = "number")]
    pub bytes: u64,
    /// Blobs found damaged: they are set aside, and the next pull fetches them again.
    #[ts(type = "number")]
    pub damaged: u64,
    /// Files that the disk did not give back: nothing is known of them, and they stay.
    #[ts(type = "number")]
    pub unreadable: u64,
    /// Whether it came to its end; else it was stopped, or it failed.
    pub complete: bool,
    /// Why it failed, one English sentence; the numbers above are then those of nothing.
    #[serde(default)]
    pub error: Option<String>,
}
