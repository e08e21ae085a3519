//! The blob store: bytes on disk, named by their digest, and an index of what they are.
//!
//! Owns the cache folder: `blobs/` (whole, hashed, immutable files), `partial/` (downloads, running or cut short),
//! `quarantine/` (what was found damaged or in the way, for a while), `sampan.db` (the index, made anew from the blobs when
//! it is lost) with `sampan.db.seal` (tells damage done to it while nobody ran), `index.json` (the same folder as an OCI
//! image layout, from which a lost index has its tags back) and `lock` (one process per cache). Nothing else writes there.
//! Never opens a socket, never reads a wall clock of its own, never gives a file its digest's name before its bytes were
//! hashed, never removes a file it did not make. Parses a manifest in one place only, `rebuild`: callers pass parsed ones,
//! but when the index is lost nobody is there who could, and what is read there was hashed first.
//! Start reading at [`Store`], then [`Stage`] and [`Partial`] for how bytes get in, `clear` for how a person gets them out,
//! and `quota` and `evict` for what makes way when room is needed. Below it are two seams: `backend` (where published blobs
//! are kept) and [`Disk`] (what every file operation goes through).

mod backend;
mod blob;
mod catalog;
mod claim;
mod clear;
mod disk;
mod error;
mod evict;
mod folder;
mod freeze;
mod hot;
mod images;
mod import;
mod index;
mod index_copy;
mod index_json;
mod layout;
mod ledger;
mod leftover;
mod moment;
mod network;
mod own;
mod partial;
mod parts;
mod pins;
mod private;
mod publish;
mod quarantine;
mod quota;
mod rebuild;
mod reopen;
mod room;
mod scrub;
mod session;
mod settle;
mod space;
mod stage;
mod store;
mod undo;
mod usage;
mod verified;

pub use backend::{Keep, Memory};
pub use blob::BlobFile;
pub use catalog::{ImageEntry, TagDigest};
pub use clear::{Cleared, Selected, Selection};
pub use disk::{Disk, Operation, Verdict, Witness};
pub use error::{OpenError, StoreError};
pub use import::{ImportedImage, ImportedTag};
pub use network::network_of;
pub use partial::Partial;
pub use parts::ImageBlob;
pub use quarantine::{Damage, Health};
pub use quota::{Evicted, default_quota};
pub use scrub::{ScrubPace, ScrubProgress, ScrubReport};
pub use space::{DiskSpace, disk_space};
pub use stage::Stage;
pub use store::{HeldTag, Link, Store, StoreOptions};
pub use undo::Undo;
pub use usage::{Ceiling, Usage};
pub use verified::Verify;
