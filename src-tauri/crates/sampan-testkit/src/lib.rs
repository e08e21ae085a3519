//! What tests stand on: a registry with named faults ([`FakeRegistry`]) and a clock set by hand ([`TestClock`]).
//!
//! Owns no behaviour of Sampan. The registry speaks HTTP/1.1 by hand over plain sockets, because no honest server
//! library lets a test lie about lengths, cut a body with FIN or reset it with RST. Everything it serves is made
//! from seeds: the same test sees the same bytes and digests in every run.
//! Never shipped, never listens anywhere but on 127.0.0.1, never sleeps to make a test pass: wait with
//! [`FakeRegistry::saw`] and [`FakeRegistry::sent`]. Start reading at [`FakeRegistry`] and [`Fault`].

mod answer;
mod clock;
mod connection;
mod content;
mod fault;
mod hub;
mod image;
mod meter;
mod record;
mod registry;
mod shelf;
mod skip;
mod token;
mod wire;

pub use clock::TestClock;
pub use content::{layer_bytes, random_bytes};
pub use fault::{Fault, TokenRule};
pub use hub::FakeHub;
pub use image::{Image, ImageManifest, ImageSpec, IndexSpec, Layer};
pub use meter::RateLimit;
pub use record::{Kind, Recorded};
pub use registry::FakeRegistry;
pub use skip::cannot_run;
