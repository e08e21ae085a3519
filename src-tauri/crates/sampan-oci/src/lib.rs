//! The language every other Sampan crate speaks: names, digests, manifests, ranges, error codes and outcomes.
//!
//! Owns the grammar of the OCI distribution and image specifications, and the closed vocabulary in which Sampan
//! tells what became of a request. Everything here is a value that was checked when it was made.
//! Never does I/O, never is async, never reads a clock. Start reading at [`Digest`] and [`ImageName`].

mod clock;
mod digest;
mod error;
mod event;
mod manifest;
mod name;
mod outcome;
mod platform;
mod range;
mod ranges;

pub use clock::{Clock, Millis};
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use error::{ErrorBody, OciCode};
pub use event::{Answered, Event, Lie, RequestKind, TransferId};
pub use manifest::{Descriptor, InvalidManifest, MANIFEST_BYTES_MAX, Manifest, ManifestKind, MediaType};
pub use name::{ImageName, InvalidName, Reference, RegistryName, RepositoryName, Tag};
pub use outcome::{Bypass, Failure, Fault, Outcome, Source, Stale};
pub use platform::{InvalidPlatform, Platform};
pub use range::{ContentRange, RangeRequest};
pub use ranges::RangeSet;
