//! What is handed out: finished values without behaviour.

use jiff::civil::Date;
use sampan_oci::{Digest, ImageName, Millis, Reference, Source, Stale};
use serde::{Deserialize, Serialize};

use crate::Totals;

/// One pull of one image: several requests, possibly by several clients, that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRecord {
    /// Unique and growing, across runs.
    pub id: u64,
    /// The repository.
    pub image: ImageName,
    /// What was asked for: a tag where one is known, else a digest.
    pub reference: Reference,
    /// When it began.
    pub started: Millis,
    /// When its last byte left; `None` while it goes on.
    pub ended: Option<Millis>,
    /// How it goes, or went.
    pub state: PullState,
    /// Why the tag was answered from the cache without its upstream's word, if it was.
    pub stale: Option<Stale>,
    /// Bytes of the configuration and all layers, each blob once; `None` until the image manifest is known.
    pub size_bytes: Option<u64>,
    /// Bytes of them delivered; at most [`size_bytes`](Self::size_bytes). Layers the client had already are not in it.
    pub done_bytes: u64,
    /// Body bytes that crossed the link for it, manifests included.
    pub fetched_bytes: u64,
    /// Bytes per second towards the client over the last 20 s, while it goes on.
    pub rate: Option<u64>,
    /// Seconds left at that speed, as if every waiting layer will be asked for; only once the size is known.
    pub eta_seconds: Option<u64>,
    /// Connections to upstreams that its blobs use now; 0 when it ended. Pulls that wait for the same blob share them.
    pub connections: u32,
    /// Requests for its blobs that had to be asked again before a byte came, since their downloads began.
    pub retries: u64,
    /// Downloads of its blobs that broke off or were replaced in the middle and continued elsewhere.
    pub repaired: u64,
    /// Nothing comes from the upstream for one of its downloads, which waits for it to come back; not when it ended.
    pub waiting: bool,
    /// The parts: configuration first, then layers in manifest order.
    pub layers: Vec<LayerRecord>,
    /// The client: [`crate::client_name`] of its User-Agent; empty while unknown.
    pub client: String,
}

/// How a pull goes, or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullState {
    /// Bytes flow, or flowed within the last three seconds.
    Active,
    /// Every part the client asked for was delivered to its end.
    Complete,
    /// The client left before the end of a part and did not come back for it.
    Interrupted,
    /// A part could not be delivered.
    Failed,
}

/// One part of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of it delivered.
    pub done_bytes: u64,
    /// Where its bytes come from; `None`: not asked for (yet), the client may have it already.
    pub source: Option<Source>,
}

/// Savings over some days. `total` is the sum of `days`, and the sum of `images` and `unnamed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavingsReport {
    /// The sums over all of `days`.
    pub total: Totals,
    /// One entry a local day, oldest first, days without requests included.
    pub days: Vec<DayTotals>,
    /// One entry an image, most saved first.
    pub images: Vec<ImageTotals>,
    /// Requests that named no valid image: in `total` and `days`, in none of `images`.
    pub unnamed: Totals,
}

/// The numbers of one local day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayTotals {
    /// The day; displays as `2026-11-20`.
    pub day: Date,
    /// The numbers.
    pub totals: Totals,
}

/// The numbers of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageTotals {
    /// The image.
    pub image: ImageName,
    /// The numbers.
    pub totals: Totals,
}
