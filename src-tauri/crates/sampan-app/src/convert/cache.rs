//! What the store says about the cache, as the contract says it; names as people type them.

use std::collections::HashMap;

use sampan_oci::{Digest, ImageName, Millis, Reference};
use sampan_store::{Cleared, ImageEntry, Selected, Selection};

use crate::api::{
    ApiError, ClearReport, ClearSelection, Code, Damage, Health, HealthReport, Image, ImageBlob, ScrubRun,
    TagDigest, Verify,
};
use crate::app::invalid;

/// One day.
pub(crate) const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

pub(crate) fn image(entry: ImageEntry) -> Image {
    let digest = |known: sampan_store::TagDigest| TagDigest {
        digest: known.digest.to_string(),
        first_seen: known.first_seen.0,
        held: known.held,
    };
    Image {
        image: entry.image.to_string(),
        tag: entry.tag.map(|tag| tag.to_string()),
        digest: entry.digest.to_string(),
        platforms: entry.platforms.iter().map(ToString::to_string).collect(),
        size_bytes: entry.size_bytes,
        own_bytes: entry.own_bytes,
        created: entry.created.0,
        last_used: entry.last_used.0,
        pinned: entry.pinned,
        hits: entry.hits,
        fetched_bytes: entry.fetched_bytes,
        history: entry.history.into_iter().map(digest).collect(),
        unconfirmed: entry.unconfirmed,
        frozen: entry.frozen.then(|| entry.digest.to_string()),
        gone: entry.gone.map(|at| at.0),
    }
}

/// Without its cost in time and its way back, which the store does not know.
pub(crate) fn cleared(cleared: Cleared) -> ClearReport {
    ClearReport {
        images: cleared.images.into_iter().map(image).collect(),
        blobs: cleared.blobs,
        freed_bytes: cleared.freed_bytes,
        refetch_bytes: cleared.refetch_bytes,
        ..ClearReport::default()
    }
}

/// `kinds`: the media types that held manifests name.
pub(crate) fn blobs(blobs: Vec<sampan_store::ImageBlob>, kinds: &HashMap<Digest, String>) -> Vec<ImageBlob> {
    let blob = |blob: sampan_store::ImageBlob| ImageBlob {
        digest: blob.digest.to_string(),
        size_bytes: blob.size,
        held: blob.held,
        media_type: kinds.get(&blob.digest).cloned(),
        shared: blob.shared,
        checked: blob.checked.map(|at| at.0),
    };
    blobs.into_iter().map(blob).collect()
}

pub(crate) fn health(health: &sampan_store::Health) -> HealthReport {
    let damage = |damage: &sampan_store::Damage| Damage {
        digest: damage.digest.to_string(),
        found: damage.found.0,
        size_bytes: damage.size_bytes,
        healed: damage.healed.map(|at| at.0),
    };
    HealthReport {
        health: Health {
            damaged: health.damaged,
            healed: health.healed,
            waiting: health.waiting,
            checked_since: health.checked_since.map(|at| at.0),
        },
        damages: health.newest.iter().map(damage).collect(),
        last_run: None,
    }
}

pub(crate) fn scrub_run(report: &sampan_store::ScrubReport, ended: Millis) -> ScrubRun {
    ScrubRun {
        ended: ended.0,
        blobs: report.blobs,
        bytes: report.bytes,
        damaged: report.damaged_blobs,
        unreadable: report.unreadable,
        complete: report.complete,
        error: None,
    }
}

pub(crate) fn verify(verify: Verify) -> sampan_store::Verify {
    match verify {
        Verify::Daily => sampan_store::Verify::Daily,
        Verify::Always => sampan_store::Verify::Always,
    }
}

/// What names this entry and no other of its image: its tag, else its digest.
pub(crate) fn reference(entry: &ImageEntry) -> Reference {
    entry.tag.clone().map_or(Reference::Digest(entry.digest), Reference::Tag)
}

/// Reads a selection. Names are taken as [`Image`] shows them, and as people type them: `nginx` is
/// `docker.io/library/nginx`.
pub(crate) fn selection(selection: &ClearSelection, now: Millis) -> Result<Selection, ApiError> {
    match selection {
        ClearSelection::All => Ok(Selection::All),
        ClearSelection::UnusedFor { days: 0 } => Err(invalid("`days` is at least 1")),
        ClearSelection::UnusedFor { days } => {
            Ok(Selection::UnusedSince(now.plus(-i64::from(*days) * DAY_MILLIS)))
        }
        ClearSelection::Images { names } => {
            names.iter().map(|name| selected(name)).collect::<Result<_, _>>().map(Selection::Images)
        }
    }
}

/// Reads one name, the way people type it.
pub(crate) fn selected(name: &str) -> Result<Selected, ApiError> {
    let bad = |why: String| invalid(format!("`{name}` is no image name: {why}"));
    let (image, reference) = match name.split_once('@') {
        Some((image, digest)) => {
            // `name:tag@digest`, as `docker images --digests` users write it: the digest decides.
            let image = image
                .rsplit_once(':')
                .filter(|(_, tag)| !tag.contains('/'))
                .map_or(image, |(image, _)| image);
            (image, Some(Reference::Digest(digest.parse().map_err(|e| bad(format!("{e}")))?)))
        }
        None => match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((image, tag)) => {
                (image, Some(Reference::Tag(tag.parse().map_err(|e| bad(format!("{e}")))?)))
            }
            None => (name, None),
        },
    };
    // Docker's rule for a first part that is a registry (distribution reference, "normalizedDockerName").
    let has_registry =
        image.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost");
    let full = match (has_registry, image.contains('/')) {
        (true, _) => image.to_owned(),
        (false, true) => format!("docker.io/{image}"),
        (false, false) => format!("docker.io/library/{image}"),
    };
    Ok(Selected { image: full.parse::<ImageName>().map_err(|e| bad(e.to_string()))?, reference })
}

/// What was named is not there.
pub(crate) fn not_held(message: impl Into<String>, next_step: &str) -> ApiError {
    ApiError { code: Code::NotHeld, message: message.into(), next_step: Some(next_step.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_selected_by_the_names_people_type() {
        for (typed, full) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis"),
            ("docker.io/library/nginx:1.27", "docker.io/library/nginx:1.27"),
            ("ghcr.io/a/b:c", "ghcr.io/a/b:c"),
            ("localhost:5000/a", "localhost:5000/a"),
        ] {
            let selected = selected(typed).unwrap();
            let shown = selected.reference.map_or(selected.image.to_string(), |r| selected.image.with(&r));
            assert_eq!(shown, full, "{typed}");
        }
        let digest = Digest::of(b"x");
        let by_digest = selected(&format!("nginx:1.27@{digest}")).unwrap();
        assert_eq!(by_digest.reference, Some(Reference::Digest(digest)));
        for bad in ["", "NGINX", "nginx:", "nginx:a b", "nginx@sha256:x", "../x", "a//b"] {
            assert!(selected(bad).is_err(), "{bad:?}");
        }
    }
}
