//! What a person may change while Sampan runs.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{AgeLimit, FreshnessChange, FreshnessRule, Metered, QuietChange, QuietHours, Quota, Verify};

/// The settings a person may change while Sampan runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Settings {
    /// `en`, `vi`, or `None`: as the system.
    pub language: Option<String>,
    /// The look.
    pub theme: Theme,
    /// Bytes per second that all downloads share, at least [`SPEED_LIMIT_MIN`]; `None`: as fast as they come.
    #[serde(default)]
    #[ts(type = "number | null")]
    pub speed_limit: Option<u64>,
    /// How much of the disk the cache may take.
    #[serde(default)]
    pub quota: Quota,
    /// Images not asked for in this many days are removed, pinned ones never: 1 to `AGE_LIMIT_DAYS_MAX`. `None`: age is
    /// no reason.
    #[serde(default)]
    pub max_age_days: Option<u32>,
    /// How often what is on disk is compared with its digest before it is served.
    #[serde(default)]
    pub verify: Verify,
    /// Whether no registry is asked anything: what is held is served, the rest fails at once.
    #[serde(default)]
    pub offline: bool,
    /// How often tags are asked about, by pattern; what none is for is asked about at every pull.
    #[serde(default)]
    pub freshness: Vec<FreshnessRule>,
    /// The hours in which images are fetched ahead; `None`: all.
    #[serde(default)]
    pub quiet_hours: Option<QuietHours>,
    /// Whether the link is paid for by the byte.
    #[serde(default)]
    pub metered: Metered,
}

/// The lowest limit, 10 kB/s: below it upstreams give the connection up.
pub const SPEED_LIMIT_MIN: u64 = 10_000;
/// The highest limit, 1 TB/s: more than any link carries.
pub const SPEED_LIMIT_MAX: u64 = 1_000_000_000_000;

/// A new speed limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum SpeedLimit {
    /// None at all.
    Off,
    /// This many bytes per second for all downloads together: [`SPEED_LIMIT_MIN`] to [`SPEED_LIMIT_MAX`].
    BytesPerSecond(#[ts(type = "number")] u64),
}

/// The look of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the system.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// New values for [`Settings`]; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct SettingsChange {
    /// `en`, `vi`, or `system`.
    #[serde(default)]
    pub language: Option<String>,
    /// The look.
    #[serde(default)]
    pub theme: Option<Theme>,
    /// The speed limit, or that there shall be none.
    #[serde(default)]
    pub speed_limit: Option<SpeedLimit>,
    /// How much of the disk the cache may take.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// The age limit, or that there shall be none.
    #[serde(default)]
    pub max_age_days: Option<AgeLimit>,
    /// How often what is on disk is checked.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// Whether no registry is to be asked anything.
    #[serde(default)]
    pub offline: Option<bool>,
    /// One rule of freshness.
    #[serde(default)]
    pub freshness: Option<FreshnessChange>,
    /// The quiet hours, or that there shall be none.
    #[serde(default)]
    pub quiet_hours: Option<QuietChange>,
    /// Whether the link is paid for by the byte.
    #[serde(default)]
    pub metered: Option<Metered>,
}
