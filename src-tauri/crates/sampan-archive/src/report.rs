//! What an export or import says of itself.

use std::fmt;

use sampan_oci::{Digest, ImageName, Platform, Tag};

use crate::naming::ArchiveName;

/// How far an export or import is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of blobs copied, or found to be there already.
    pub done_bytes: u64,
    /// All there are to copy; what turns out to be missing or wrong makes it smaller than foretold.
    pub total_bytes: u64,
    /// The image that is being copied, by its full name.
    pub image: String,
}

/// Why an image, or one platform of it, was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The cache does not hold the image that was asked for.
    NotHeld,
    /// The archive gives it no full name, and none was given by the person.
    NoName,
    /// Another image of the archive has the same name and came first.
    NameTaken,
    /// A digest in the archive is not one.
    InvalidDigest,
    /// This part of it is neither in the archive nor in the cache.
    Missing(Digest),
    /// The bytes of this part are not what its digest names.
    WrongBytes(Digest),
    /// This part has not the size that is said of it.
    WrongSize(Digest),
    /// This part could not be read from the disk.
    Unreadable(Digest),
    /// This document is no manifest, or can be read as two different things (CVE-2021-41190).
    InvalidManifest(Digest),
    /// More manifests, or deeper ones, than any image has.
    TooMany,
    /// An index without any platform.
    NoPlatform,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld => f.write_str("the cache does not hold it"),
            Self::NoName => f.write_str("the archive does not say its full name"),
            Self::NameTaken => f.write_str("another image in the archive has the same name"),
            Self::InvalidDigest => f.write_str("its digest is not one"),
            Self::Missing(digest) => write!(f, "{digest} is missing"),
            Self::WrongBytes(digest) => write!(f, "the bytes of {digest} are damaged"),
            Self::WrongSize(digest) => write!(f, "{digest} has another size than said"),
            Self::Unreadable(digest) => write!(f, "{digest} cannot be read"),
            Self::InvalidManifest(digest) => write!(f, "{digest} is not a manifest"),
            Self::TooMany => f.write_str("it lists more than any image does"),
            Self::NoPlatform => f.write_str("its index lists no platform"),
        }
    }
}

/// An image that did not go out, or did not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name: on export the full one; on import what the archive calls it, at most 200 characters, others than
    /// letters, digits and punctuation written as `?`; empty where it has none.
    pub name: String,
    /// Why.
    pub why: Why,
}

/// One entry of an index that did not go with its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The platform it is for, where the index says so.
    pub platform: Option<Platform>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Why.
    pub why: Why,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The images, in the order they were asked for.
    pub images: Vec<ExportedImage>,
    /// What was asked for and is not in it.
    pub skipped: Vec<Skipped>,
    /// Number of blobs written, each once.
    pub blobs: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

/// One image that is in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedImage {
    /// Its full name: `docker.io/library/alpine:3.20`.
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Bytes of everything it is made of, parts shared with others included.
    pub size_bytes: u64,
    /// Entries of its index that are not held, or not whole.
    pub left_out: Vec<LeftOut>,
}

/// What an import brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The images, in the archive's order.
    pub images: Vec<ImportedEntry>,
    /// What is in the archive's list and did not come in.
    pub skipped: Vec<Skipped>,
    /// Files of the archive that were not looked at: the first 100.
    pub ignored: Vec<Ignored>,
    /// How many there are in all.
    pub ignored_count: u64,
    /// How many blobs of the archive nothing refers to.
    pub unreferred_blobs: u64,
    /// Number of blobs that came in.
    pub new_blobs: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// How many blobs the cache had already.
    pub held_blobs: u64,
    /// How the archive ends.
    pub ending: Ending,
}

/// One image that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedEntry {
    /// Its repository.
    pub image: ImageName,
    /// Its tag in the archive; `None`: it is known by its digest alone.
    pub tag: Option<Tag>,
    /// Where its tag still points, because the upstream said so and the person did not vouch for the archive's names:
    /// the image is held without the tag.
    pub tag_elsewhere: Option<Digest>,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Bytes of everything it is made of, parts shared with others included.
    pub size_bytes: u64,
    /// Entries of its index that did not come in: missing in the archive, or wrong.
    pub left_out: Vec<LeftOut>,
}

impl ImportedEntry {
    /// The full name, as far as the archive gives one.
    pub fn name(&self) -> String {
        ArchiveName { image: self.image.clone(), tag: self.tag.clone() }.full(&self.digest)
    }

    /// What a person should know of it, in a clause that goes after its name.
    pub fn remark(&self) -> Option<String> {
        let digest = self.tag_elsewhere?;
        Some(format!(
            "its tag still points elsewhere, at {digest}, as its registry said: it is held without the tag"
        ))
    }
}

/// A file of an archive that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name, made printable as [`Skipped::name`].
    pub name: String,
    /// Why.
    pub why: IgnoredMember,
}

/// Why a file of an archive was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredMember {
    /// A link, a device, a pipe, a folder where a file belongs.
    NotAFile,
    /// A name that an image layout does not have.
    Name,
    /// A name that was there before.
    Twice,
    /// It ends after the archive does.
    CutShort,
    /// Written in a way that programs read differently: sparse, or with a second name or an enormous header.
    Ambiguous,
}

/// How an archive ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    #[default]
    Whole,
    /// In the middle of a file: what was before it was read.
    CutShort,
    /// At this byte is no header of a tar file: what was before it was read.
    Damaged(u64),
}

/// Foreign text, fit for a report: short, and without characters that change how the rest is shown.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}
