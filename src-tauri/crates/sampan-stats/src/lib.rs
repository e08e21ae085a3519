//! What was served, what it cost the link, and how each pull went: a fold over [`sampan_oci::Event`].
//!
//! Owns the file `stats.db` and every number shown to people. Never serves, never fetches, never decides, and never
//! makes the mirror wait for a disk. Counts manifest and blob requests; version checks, tag and referrers lists are no
//! pulls and are in no number. Start reading at [`Stats`]; the grouping of requests into pulls is in `tracker.rs`.

mod client;
mod days;
mod db;
mod delivered;
mod pull;
mod rate;
mod record;
mod state;
mod stats;
mod totals;
mod tracker;

pub use client::{client_name, engine_asked};
pub use db::{HISTORY_MAX, StatsError, last_used};
pub use record::{DayTotals, ImageTotals, LayerRecord, PullRecord, PullState, SavingsReport};
pub use stats::{DAYS_MAX, Stats};
pub use totals::Totals;
pub use tracker::LIVE_MAX;
