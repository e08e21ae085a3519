//! What registries let us have.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What a registry lets this machine have, as its last answer told: Docker Hub's pull limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Allowance {
    /// Its name in image names: `docker.io`.
    pub registry: String,
    /// Pulls in a window; `None`: it does not say.
    #[ts(type = "number | null")]
    pub limit: Option<u64>,
    /// Pulls left; `None`: it does not say, or the window it said it of is over.
    #[ts(type = "number | null")]
    pub remaining: Option<u64>,
    /// How long a window is.
    #[ts(type = "number | null")]
    pub window_seconds: Option<u64>,
    /// Whom it counts: an address, shared with everybody behind it, or an account's name.
    pub source: Option<String>,
    /// When it told that.
    #[ts(type = "number")]
    pub seen_at: i64,
    /// When there will be more, at the latest: registries rarely say it exactly.
    #[ts(type = "number | null")]
    pub resets_at: Option<i64>,
    /// It refused a pull and is not asked for another before then.
    #[ts(type = "number | null")]
    pub rests_until: Option<i64>,
    /// So few are left that they are kept for what is not in the cache: a tag that moved is served as it is held.
    pub is_low: bool,
    /// When they are used up at the pace of Sampan's own pulls; `None`: not before the reset, or too few pulls to tell.
    #[ts(type = "number | null")]
    pub forecast: Option<i64>,
    /// Pulls that Sampan itself made within one window. What else was counted, others behind the same source spent.
    #[ts(type = "number")]
    pub spent: u64,
    /// The images those were for, most first, at most 20.
    pub spent_by: Vec<SpentBy>,
}

/// Pulls that one image cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SpentBy {
    /// `docker.io/library/nginx`.
    pub image: String,
    /// Manifests fetched for it within one window.
    #[ts(type = "number")]
    pub count: u64,
}
