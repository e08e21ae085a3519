//! Who is asked for what, and how each does.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The upstreams of one registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RegistryUpstreams {
    /// Its name in image names: `docker.io`.
    pub registry: String,
    /// Whether a person added the registry while Sampan ran: removing its origin removes it.
    pub added: bool,
    /// The registry itself first, then the others in the order they were added.
    pub upstreams: Vec<UpstreamWeather>,
}

/// One upstream of a registry, and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpstreamWeather {
    /// Where it is asked.
    pub url: String,
    /// Whether it is the registry itself; the others are mirrors of it.
    pub is_origin: bool,
    /// Whether it says where tags point. Exactly one of a registry does.
    pub is_trusted: bool,
    /// How it is.
    pub state: UpstreamState,
    /// Bytes per second it brings, smoothed, as last measured; `None`: not measured yet.
    #[ts(type = "number | null")]
    pub rate: Option<u64>,
    /// Milliseconds until its answers begin, smoothed.
    #[ts(type = "number | null")]
    pub latency_millis: Option<u64>,
    /// How often it failed lately.
    pub failures: u32,
    /// Blob bytes it brought since Sampan started.
    #[ts(type = "number")]
    pub bytes: u64,
    /// Until when it is left alone, because it did not answer.
    #[ts(type = "number | null")]
    pub rests_until: Option<i64>,
    /// That it lied, and is asked nothing.
    pub dropped: Option<UpstreamDropped>,
}

/// How an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamState {
    /// It was not asked for a blob yet.
    Unknown,
    /// It answers.
    Good,
    /// It answers, and failed lately.
    Failing,
    /// It did not answer and is left alone for a while.
    Resting,
    /// It lied and is asked nothing.
    Dropped,
}

/// Why an upstream is asked nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpstreamDropped {
    /// When that was found out.
    #[ts(type = "number")]
    pub at: i64,
    /// When it is asked again by itself.
    #[ts(type = "number")]
    pub until: i64,
    /// What it did.
    pub lie: UpstreamLie,
    /// The image it was asked for.
    pub image: String,
    /// The digest it was asked for.
    pub digest: String,
}

/// How an upstream lied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamLie {
    /// It sent other bytes than the digest names.
    Bytes,
    /// It told another size than the bytes have.
    Size,
    /// It sent another part than the one asked for.
    Part,
    /// Its header named another digest than the one asked for.
    Digest,
}

/// A change of who is asked for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamChange {
    /// Adds a mirror; a registry that is not mirrored yet is from now on, with this as its origin.
    Add,
    /// Removes a mirror; by its origin, a registry that was added.
    Remove,
    /// Believes this one about where tags point, and the others no longer.
    Trust,
    /// Asks one again that was dropped for lying.
    Restore,
}
