//! What the store promises, on real files and a real index.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod blobs;
mod clearing;
mod crash;
mod damage;
#[cfg(unix)]
mod faults;
mod history;
mod images;
mod importing;
mod index;
mod opening;
mod partial_damage;
mod partial_sequences;
mod partials;
mod pins;
mod places;
mod quota;
mod read_only;
mod rebuild;
mod refusing_disk;
mod scrubbing;
mod sequences;
mod setting;
mod undo;

/// Where a new cache keeps its blobs.
fn keep() -> sampan_store::Keep {
    sampan_store::Keep::Files
}
