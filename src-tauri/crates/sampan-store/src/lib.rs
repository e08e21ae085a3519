//! The blob store: bytes on disk, named by their digest, and an index of what they are.
//!
//! Owns the cache folder: `blobs/` (whole, hashed, immutable files), `partial/` (downloads, running or
//! cut short), `sampan.db` (the
//! index, made anew from the blobs when it is lost) and `lock` (one process per cache). Nothing else writes there.
//! Never opens a socket, never reads a clock of its own, never parses a manifest (callers pass parsed ones), never
//! gives a file its digest's name before its bytes were hashed, never removes a file it did not make.
//! Start reading at [`Store`], then [`Stage`] and [`Partial`] for how bytes get in and `clear` for how they get out.

mod blob;
mod catalog;
mod clear;
mod error;
mod folder;
mod images;
mod index;
mod layout;
mod ledger;
mod leftover;
mod partial;
mod publish;
mod quota;
mod room;
mod session;
mod stage;
mod store;
mod usage;
mod verified;

pub use blob::BlobFile;
pub use catalog::ImageEntry;
pub use clear::{Cleared, Selected, Selection};
pub use error::{OpenError, StoreError};
pub use partial::Partial;
pub use stage::Stage;
pub use store::{HeldTag, Link, Store, StoreOptions};
pub use usage::Usage;
