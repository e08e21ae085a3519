//! What export and import promise, on real files and real caches.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod faults;
mod hostile;
mod mutations;
mod names;
mod room;
mod round_trip;
mod support;
mod trust;
