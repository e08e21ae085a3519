//! The contract about fetching ahead: the queue, what is kept fresh, and whether an image can be pulled offline.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::ApiError;

/// The hours of the day, local time, in which images are fetched ahead: a link that is needed by day is free at night.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct QuietHours {
    /// When they begin, in minutes since midnight: 0 to 1439.
    pub from: u16,
    /// When they end. Before `from`: on the next day. The same as `from`: never.
    pub to: u16,
}

impl std::fmt::Display for QuietHours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl FromStr for QuietHours {
    type Err = String;

    /// Reads `22:00-06:00`, and `22-6`.
    fn from_str(text: &str) -> Result<Self, String> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
            let number = |text: &str, below: u16| {
                let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<u16>().ok().filter(|number| digits && *number < below)
            };
            Some(number(hours, 24)? * 60 + number(minutes, 60)?)
        };
        let hours =
            text.split_once('-').and_then(|(from, to)| Some(Self { from: minutes(from)?, to: minutes(to)? }));
        hours.ok_or_else(|| "write the hours such as 22:00-06:00, or off".into())
    }
}

/// New quiet hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum QuietChange {
    /// None: images are fetched ahead at any time.
    Off,
    /// These.
    Hours(QuietHours),
}

impl FromStr for QuietChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("off") { Ok(Self::Off) } else { text.parse().map(Self::Hours) }
    }
}

/// Whether the link is paid for by the byte: then nothing is fetched that nobody waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Metered {
    /// As the system says; where it does not say, it is not.
    #[default]
    Auto,
    /// It is.
    On,
    /// It is not.
    Off,
}

impl FromStr for Metered {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("write auto, on or off".into()),
        }
    }
}

/// An image to fetch ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PrefetchItem {
    /// As people write it: `nginx`, `ghcr.io/owner/name:tag`, `nginx@sha256:…`.
    pub name: String,
    /// `linux/arm64`; `all`; `None`: this machine's.
    #[serde(default)]
    pub platform: Option<String>,
}

/// A change of what is fetched ahead, or kept fresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PrefetchChange {
    /// Puts images in the queue.
    Add {
        /// 1 to 1000 images.
        images: Vec<PrefetchItem>,
        /// Whether they are pinned once they are there.
        #[serde(default)]
        pin: bool,
        /// Whether quiet hours and a metered link are no reason to wait.
        #[serde(default)]
        now: bool,
    },
    /// Takes an image out of the queue, or out of the list of those that ended; what was fetched of it stays.
    Cancel {
        /// [`PrefetchJob::id`]; `None`: all that have not ended.
        #[serde(default)]
        #[ts(type = "number | null")]
        id: Option<u64>,
    },
    /// Tries one again that failed, or that rests, at once.
    Retry {
        /// [`PrefetchJob::id`].
        #[ts(type = "number")]
        id: u64,
    },
    /// Stops the queue, or lets it go on.
    Pause {
        /// Stop, or go on.
        paused: bool,
    },
    /// Asks for an image again each night from now on, or no longer.
    Keep {
        /// An image with its tag, as people write it.
        name: String,
        /// As in [`PrefetchItem::platform`].
        #[serde(default)]
        platform: Option<String>,
        /// From now on, or no longer.
        keep: bool,
    },
}

/// Everything about fetching ahead, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct Prefetch {
    /// A person paused the queue.
    pub paused: bool,
    /// Why nothing is fetched though images wait, if so.
    pub waits: Option<PrefetchWait>,
    /// When the quiet hours begin, where they are waited for.
    #[ts(type = "number | null")]
    pub opens: Option<i64>,
    /// The queue in its order, with what has ended lately.
    pub jobs: Vec<PrefetchJob>,
    /// What is kept fresh, by name.
    pub kept: Vec<Kept>,
}

/// Why nothing is fetched though images wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PrefetchWait {
    /// A person paused the queue.
    Paused,
    /// Sampan is paused.
    SampanPaused,
    /// Sampan is switched offline.
    Offline,
    /// It is not one of the quiet hours.
    QuietHours,
    /// The link is paid for by the byte.
    Metered,
}

/// An image in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish, or a fact, of its own")]
pub struct PrefetchJob {
    /// Unique and growing, across runs.
    #[ts(type = "number")]
    pub id: u64,
    /// In full: `docker.io/library/nginx:1.27`.
    pub name: String,
    /// `linux/amd64`, or `all`.
    pub platform: String,
    /// Whether it is pinned once it is there.
    pub pin: bool,
    /// Whether quiet hours and a metered link are no reason to wait.
    pub now: bool,
    /// Whether it is in the queue because it is kept fresh.
    pub kept: bool,
    /// How it goes.
    pub state: PrefetchJobState,
    /// Bytes of all of it; `None` until its manifests are known.
    #[ts(type = "number | null")]
    pub size_bytes: Option<u64>,
    /// Bytes of it that are in the cache.
    #[ts(type = "number")]
    pub held_bytes: u64,
    /// Bytes that came over the link for it in its last run.
    #[ts(type = "number")]
    pub fetched_bytes: u64,
    /// When it was added.
    #[ts(type = "number")]
    pub added: i64,
    /// When it ended.
    #[ts(type = "number | null")]
    pub ended: Option<i64>,
    /// When it is tried again, where it failed for now.
    #[ts(type = "number | null")]
    pub again_at: Option<i64>,
    /// Why it failed, for now or for good.
    pub problem: Option<ApiError>,
    /// Its tag names another digest than before.
    pub moved: bool,
}

/// How it goes with an image in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PrefetchJobState {
    /// Its turn comes, or it is tried again.
    Waiting,
    /// It is being fetched.
    Running,
    /// It is in the cache.
    Done,
    /// It could not be fetched.
    Failed,
}

/// An image that is kept fresh: asked for again each night.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct Kept {
    /// In full.
    pub name: String,
    /// `linux/amd64`, or `all`.
    pub platform: String,
    /// When it is asked for next.
    #[ts(type = "number")]
    pub next: i64,
    /// When its registry last said where the tag points.
    #[ts(type = "number | null")]
    pub checked: Option<i64>,
    /// When it was last found to have moved.
    #[ts(type = "number | null")]
    pub moved: Option<i64>,
    /// How many bytes came over the link then.
    #[ts(type = "number")]
    pub moved_bytes: u64,
    /// Why the last time failed, if it did.
    pub problem: Option<String>,
}

/// Whether an image can be pulled with the network off, point by point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct OfflineImage {
    /// In full.
    pub name: String,
    /// `linux/amd64`, or `all`.
    pub platform: String,
    /// Whether every point holds.
    pub holds: bool,
    /// Bytes that were read and hashed.
    #[ts(type = "number")]
    pub hashed_bytes: u64,
    /// The points, in the order in which a pull needs them.
    pub checks: Vec<OfflineCheck>,
}

/// One point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct OfflineCheck {
    /// What it is about.
    pub what: OfflinePart,
    /// Which one: a digest, a tag, a platform.
    pub name: String,
    /// Its size in bytes, where it has one.
    #[ts(type = "number | null")]
    pub size_bytes: Option<u64>,
    /// What is wrong; `None`: it holds.
    pub problem: Option<OfflineProblem>,
}

/// What a point is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum OfflinePart {
    /// Its registry is one that Sampan mirrors.
    Registry,
    /// The tag points somewhere.
    Tag,
    /// The list of its platforms.
    Index,
    /// The platform is in that list.
    Platform,
    /// A platform's manifest.
    Manifest,
    /// The configuration.
    Config,
    /// A layer.
    Layer,
    /// An attestation, or a part of one: Docker from 29.1 on does not take the image without it.
    Attestation,
}

/// What is wrong with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum OfflineProblem {
    /// It is not in the cache.
    Missing,
    /// Its bytes are not those its digest names. Where the cache can be written it was set aside.
    Damaged,
    /// It could not be read.
    Unreadable,
    /// It is in the cache for another repository: served only once the registry confirms it for this one.
    Unproven,
    /// Its registry is not mirrored.
    NotMirrored,
}
