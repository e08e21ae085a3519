//! Images to and from OCI image layouts (image-spec, image-layout.md), as a folder or a tar file.
//!
//! Owns the form of an archive: what is written into one, and what of a foreign one is believed, which is nothing: an
//! archive proves bytes, since their digests name them, and never names. Every byte is hashed on its way out and on its
//! way in. Never opens a socket, never unpacks a tar file into a folder, never follows a link, never puts anything into
//! the cache but through the store, never replaces a file of the person's.
//!
//! # Who reads what is written
//! - `skopeo copy oci:FOLDER:NAME`, `oci-archive:FILE.tar:NAME`, where NAME is the full one
//!   (`docker.io/library/alpine:3.20`), and `podman load --input FILE.tar`. skopeo finds by name only what has an OCI
//!   media type: an image in Docker's own format is reached without NAME, where it is alone, or as `docker-archive:`.
//! - `docker load --input FILE.tar`: Docker before 25 does not know OCI layouts, and reads `manifest.json`, which is
//!   there for it. It names one platform of each image: this machine's if it is held, else the first.
//! - An index of which some platforms are held is written as it is, since its digest is its name. Clients that choose a
//!   platform take what is there; whoever wants all of them (`skopeo copy --all`) is told that the rest is missing.
//!
//! Start reading at [`export`] and [`import`], then `tree` for what an image is made of.

mod blocking;
mod docker;
mod document;
mod error;
mod export;
mod import;
mod naming;
mod output;
mod report;
mod source;
mod tarball;
mod tree;

pub use error::ArchiveError;
pub use export::{ExportImage, export};
pub use import::{ImportOptions, import};
pub use naming::ArchiveName;
pub use report::{
    Ending, Exported, ExportedImage, Ignored, IgnoredMember, Imported, ImportedEntry, LeftOut, Progress,
    Skipped, Why,
};
