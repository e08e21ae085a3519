//! The mirror: the pull side of the OCI distribution specification on a local port.
//!
//! Owns every request from its raw path to its last byte: refuses what is not the specification's, decides (purely)
//! whether a copy is good enough, joins all requests for one blob to one download, and tells what happened as
//! [`Event`](sampan_oci::Event)s. Never answers 401 or sends a challenge (Docker would send the person's password),
//! never ends a response cleanly whose bytes were not hashed, never keeps statistics, never touches Docker.
//! Start reading at [`Mirror`], then `route`, `plan`, `manifests` and `blobs`.

mod age;
mod answer;
mod ask;
mod attestations;
mod blobs;
mod body;
mod disk;
mod download;
mod error;
mod freshness;
mod guard;
mod handler;
mod lists;
mod manifests;
mod mirror;
mod parsed;
mod passthrough;
mod plan;
mod prefetch;
mod private;
mod probe;
mod route;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "files are read where the kernel cannot send them")
)]
mod sendfile;
mod server;
mod single_flight;
mod sources;
mod stall;
mod tasks;
mod upstream_body;

pub use ask::{Refreshed, TagAnswers};
pub use freshness::{Check, Freshness, InvalidPattern, Pattern, Policy};
pub use mirror::{EventSink, Mirror, MirrorOptions};
pub use prefetch::{Platforms, PrefetchError, PrefetchFailure, PrefetchProgress, Prefetched};
pub use private::{Barred, InvalidPrivatePattern, PrivateCheck, PrivatePattern, PrivateRule, PrivateSeen};
pub use probe::ProbeTicket;
pub use sources::{Dropped, RegistryUpstreams, UpstreamWeather};
pub use tasks::Tasks;
