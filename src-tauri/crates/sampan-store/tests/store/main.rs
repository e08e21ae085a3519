//! What the store promises, on real files and a real index.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod blobs;
mod clearing;
mod crash;
#[cfg(unix)]
mod cut_disk;
mod damage;
#[cfg(unix)]
mod dice;
#[cfg(unix)]
mod faults;
mod freezing;
mod history;
mod images;
mod importing;
mod index;
#[cfg(unix)]
mod life;
#[cfg(unix)]
mod migrating;
#[cfg(unix)]
mod mutated;
#[cfg(unix)]
mod nth;
mod opening;
mod partial_damage;
mod partial_sequences;
mod partials;
mod pins;
mod places;
#[cfg(unix)]
mod power;
mod private;
mod quota;
mod read_only;
mod rebuild;
mod refusing_disk;
mod scrubbing;
mod sequences;
mod setting;
#[cfg(unix)]
mod settled;
mod standing;
mod undo;

/// Where a new cache keeps its blobs.
fn keep() -> sampan_store::Keep {
    sampan_store::Keep::Files
}
