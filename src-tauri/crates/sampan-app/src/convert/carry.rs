//! What an export or import says of itself, as the contract says it.

use std::path::Path;

use crate::api::{ApiError, Code, Exported, Imported, Skipped};
use sampan_archive::{self as archive, ArchiveError, Ending};

pub(crate) fn exported(report: archive::Exported, target: &Path) -> Exported {
    let left_out = report.images.iter().flat_map(|image| parts(image.name.clone(), &image.left_out));
    Exported {
        path: target.display().to_string(),
        skipped: left_out.chain(skipped(&report.skipped)).collect(),
        blobs: report.blobs,
        bytes: report.size_bytes,
        images: report.images.into_iter().map(|image| image.name).collect(),
    }
}

pub(crate) fn imported(report: &archive::Imported) -> Imported {
    let left_out = report.images.iter().flat_map(|image| parts(image.name(), &image.left_out));
    let mut notes = Vec::new();
    match report.ending {
        Ending::Whole => {}
        Ending::CutShort => {
            notes.push("The archive ends in the middle of a file: what was before it was read.".into());
        }
        Ending::Damaged(at) => {
            notes.push(format!("The archive is damaged at byte {at}: what was before it was read."));
        }
    }
    if report.ignored_count > 0 {
        let what = "that an image layout does not have were not looked at.";
        notes.push(format!("{} files of the archive {what}", report.ignored_count));
    }
    if report.skipped.iter().any(|skipped| matches!(skipped.why, archive::Why::NoName)) {
        notes.push("Say what such an image is called by `sampan import --name IMAGE:TAG`.".into());
    }
    notes.extend(
        report.images.iter().filter_map(|image| Some(format!("{}: {}.", image.name(), image.remark()?))),
    );
    if report.unreferred_blobs > 0 {
        notes.push(format!("{} blobs of the archive belong to no image of it.", report.unreferred_blobs));
    }
    Imported {
        skipped: left_out.chain(skipped(&report.skipped)).collect(),
        images: report.images.iter().map(archive::ImportedEntry::name).collect(),
        blobs: report.new_blobs,
        bytes: report.new_bytes,
        held_blobs: report.held_blobs,
        notes,
    }
}

fn skipped(skipped: &[archive::Skipped]) -> impl Iterator<Item = Skipped> {
    skipped.iter().map(|skipped| Skipped {
        name: if skipped.name.is_empty() { "an image without a name".into() } else { skipped.name.clone() },
        why: skipped.why.to_string(),
    })
}

fn parts(image: String, left_out: &[archive::LeftOut]) -> impl Iterator<Item = Skipped> {
    left_out.iter().map(move |part| {
        let which = part.platform.as_ref().map_or_else(|| part.digest.to_string(), ToString::to_string);
        Skipped { name: format!("{image} ({which})"), why: part.why.to_string() }
    })
}

/// An export or import that failed as a whole.
pub(crate) fn archive_failed(error: &ArchiveError) -> ApiError {
    let advice =
        "Run `sampan cache` to see how much room there is; unpin or clear images, or raise the quota.";
    let (code, next_step) = if matches!(error, ArchiveError::Full { .. } | ArchiveError::QuotaTooSmall { .. })
    {
        (Code::Store, Some(advice))
    } else if matches!(error, ArchiveError::ReadOnly { .. } | ArchiveError::Store(_)) {
        (Code::Store, Some("Run `sampan doctor`; check the rights of the cache folder."))
    } else {
        (Code::InvalidRequest, None)
    };
    let mut message = error.to_string();
    if let ArchiveError::NothingToExport(why) = error {
        let why: Vec<_> = skipped(why).map(|skipped| format!("{}: {}", skipped.name, skipped.why)).collect();
        message = format!("{message} ({})", why.join("; "));
    }
    ApiError { code, message, next_step: next_step.map(Into::into) }
}
