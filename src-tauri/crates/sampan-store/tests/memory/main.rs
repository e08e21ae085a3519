//! What the store promises, with the published blobs in memory: the tests that do not look at their files.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

#[path = "../store/clearing.rs"]
mod clearing;
#[path = "../store/images.rs"]
mod images;
#[path = "../store/partial_damage.rs"]
mod partial_damage;
#[path = "../store/partial_sequences.rs"]
mod partial_sequences;
#[path = "../store/partials.rs"]
mod partials;
#[path = "../store/sequences.rs"]
mod sequences;
#[path = "../store/setting.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod setting;

/// Where a new cache keeps its blobs.
fn keep() -> sampan_store::Keep {
    sampan_store::Keep::Memory(sampan_store::Memory::default())
}
