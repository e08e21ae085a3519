//! Why an export or import ended before its end.

use std::io;
use std::path::PathBuf;

use sampan_store::StoreError;

use crate::report::Imported;

/// Why an archive could not be written or read. What is wrong with one image of many is no error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The target is there already, and is not an empty folder.
    #[error("{} is there already: choose another name, or an empty folder", .0.display())]
    TargetExists(PathBuf),
    /// The target is an OCI layout already.
    #[error("{} holds an OCI layout already, and nothing is added to it: choose another folder, or remove it first", .0.display())]
    TargetIsLayout(PathBuf),
    /// The target cannot be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Target {
        /// The file or folder.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The target's disk is full. What was written of it is gone.
    #[error("the disk of {} is full", .0.display())]
    TargetFull(PathBuf),
    /// The target's file system has no files this large (FAT: 4 GiB).
    #[error("the file system of {} holds no file this large: export to a folder, or use another disk", .0.display())]
    TargetTooLarge(PathBuf),
    /// None of the chosen images can be exported; nothing was written.
    #[error("none of the chosen images can be exported")]
    NothingToExport(Vec<crate::report::Skipped>),
    /// The source cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The source is compressed as a whole.
    #[error("the archive is compressed: unpack it first, with `{0}`")]
    Compressed(&'static str),
    /// The source is an archive of Docker's older kind, without an OCI layout in it.
    #[error(
        "the archive is not an OCI layout but one of Docker's: turn it into one with `skopeo copy \
         docker-archive:FILE oci-archive:NEW.tar:NAME`, or save it again with Docker 25 or later"
    )]
    DockerArchive,
    /// The source is no OCI image layout of version 1.
    #[error("this is not an OCI image layout: {0}")]
    NotALayout(&'static str),
    /// A name was given for the image, and the archive holds several.
    #[error("a name can be given to an archive of one image, and this one holds {0}")]
    NameForMany(usize),
    /// The images are larger than the quota lets the cache be, even with everything gone that may make way for them.
    /// Nothing was imported, and nothing made way.
    #[error(
        "these images need {needed_bytes} bytes more, and the cache's quota leaves {available_bytes} for them: raise the \
         quota, or unpin images"
    )]
    QuotaTooSmall {
        /// How many bytes are to come in.
        needed_bytes: u64,
        /// How many can, at most.
        available_bytes: u64,
    },
    /// The disk has no room. What was imported until then stays.
    #[error(
        "the cache has no room for these images{}{}",
        .needed_bytes.map(|bytes| format!(" ({bytes} bytes)")).unwrap_or_default(),
        came_in(.imported)
    )]
    Full {
        /// How many bytes are to come in, where that was known before any was written.
        needed_bytes: Option<u64>,
        /// What was imported until then.
        imported: Box<Imported>,
    },
    /// The cache cannot be written. What was imported until then stays.
    #[error("the cache cannot be written{}", came_in(.imported))]
    ReadOnly {
        /// What was imported until then.
        imported: Box<Imported>,
    },
    /// The cache failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full { needed_bytes: None, imported: Box::default() },
            StoreError::ReadOnly => Self::ReadOnly { imported: Box::default() },
            error @ (StoreError::Mismatch { .. }
            | StoreError::Size { .. }
            | StoreError::Dead
            | StoreError::Stopped
            | StoreError::Io(_)
            | StoreError::Index(_)) => Self::Store(error),
        }
    }
}

impl ArchiveError {
    /// Adds what was done until the error came.
    pub(crate) fn after(self, done: Imported) -> Self {
        match self {
            Self::Full { needed_bytes, .. } => Self::Full { needed_bytes, imported: Box::new(done) },
            Self::ReadOnly { .. } => Self::ReadOnly { imported: Box::new(done) },
            error @ (Self::TargetExists(_)
            | Self::TargetIsLayout(_)
            | Self::Target { .. }
            | Self::TargetFull(_)
            | Self::TargetTooLarge(_)
            | Self::NothingToExport(_)
            | Self::Source { .. }
            | Self::Compressed(_)
            | Self::DockerArchive
            | Self::NotALayout(_)
            | Self::NameForMany(_)
            | Self::QuotaTooSmall { .. }
            | Self::Store(_)) => error,
        }
    }
}

fn came_in(imported: &Imported) -> String {
    match imported.images.len() {
        0 => String::new(),
        1 => "; 1 image came in before that, and stays".to_owned(),
        many => format!("; {many} images came in before that, and stay"),
    }
}
