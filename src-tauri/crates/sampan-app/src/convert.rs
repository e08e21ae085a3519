//! Between what the crates below say and what the contract says. No decisions here.

use sampan_oci::{ImageName, Millis, Reference, Source};
use sampan_stats::{PullRecord, StatsError};
use sampan_store::{Cleared, ImageEntry, Selected, Selection, StoreError};

use crate::Config;
use crate::api::{
    ApiError, Cache, ClearReport, ClearSelection, Code, DayTotals, Image, ImageTotals, Layer, LayerSource,
    Mirror, MirrorState, Pull, PullState, Savings, Snapshot, Totals, Upstream,
};
use crate::app::invalid;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// What is shown before anything was looked at. Its sequence is 0, which no real snapshot has.
pub(crate) fn empty_snapshot(config: &Config, started: Millis) -> Snapshot {
    Snapshot {
        sequence: 0,
        at: started.0,
        mirror: Mirror {
            version: env!("CARGO_PKG_VERSION").into(),
            listen: config.listen.to_string(),
            started: started.0,
            state: MirrorState::Serving,
            paused_until: None,
            upstreams: Vec::new(),
        },
        today: Totals::default(),
        cache: Cache {
            dir: config.cache_dir.display().to_string(),
            size_bytes: 0,
            partial_bytes: 0,
            blobs: 0,
            free_bytes: None,
            not_keeping: None,
        },
        pulls: Vec::new(),
        last_used: None,
        settings: config.settings.clone(),
    }
}

pub(crate) fn totals(totals: &sampan_stats::Totals) -> Totals {
    Totals {
        requests: totals.requests,
        hits: totals.hits,
        failures: totals.failures,
        served_bytes: totals.served_bytes,
        fetched_bytes: totals.fetched_bytes,
        hit_bytes: totals.hit_bytes,
        saved_bytes: totals.saved_bytes(),
    }
}

pub(crate) fn savings(report: &sampan_stats::SavingsReport) -> Savings {
    let day =
        |day: &sampan_stats::DayTotals| DayTotals { day: day.day.to_string(), totals: totals(&day.totals) };
    let image = |image: &sampan_stats::ImageTotals| ImageTotals {
        image: image.image.to_string(),
        totals: totals(&image.totals),
    };
    Savings {
        total: totals(&report.total),
        days: report.days.iter().map(day).collect(),
        images: report.images.iter().map(image).collect(),
    }
}

pub(crate) fn pull(pull: PullRecord) -> Pull {
    let source = |source: Option<Source>| match source {
        None => LayerSource::Waiting,
        Some(Source::Disk) => LayerSource::Disk,
        Some(Source::Joined) => LayerSource::Joined,
        Some(Source::Upstream) => LayerSource::Upstream,
    };
    Pull {
        id: pull.id,
        image: pull.image.to_string(),
        reference: pull.reference.to_string(),
        started: pull.started.0,
        ended: pull.ended.map(|at| at.0),
        state: match pull.state {
            sampan_stats::PullState::Active => PullState::Active,
            sampan_stats::PullState::Complete => PullState::Complete,
            sampan_stats::PullState::Interrupted => PullState::Interrupted,
            sampan_stats::PullState::Failed => PullState::Failed,
        },
        stale: pull.stale,
        size_bytes: pull.size_bytes,
        done_bytes: pull.done_bytes,
        fetched_bytes: pull.fetched_bytes,
        rate: pull.rate,
        eta_seconds: pull.eta_seconds,
        connections: pull.connections,
        retries: pull.retries,
        repaired: pull.repaired,
        waiting: pull.waiting,
        layers: pull
            .layers
            .into_iter()
            .map(|layer| Layer {
                digest: layer.digest.to_string(),
                size_bytes: layer.size_bytes,
                done_bytes: layer.done_bytes,
                source: source(layer.source),
            })
            .collect(),
        client: pull.client,
    }
}

pub(crate) fn upstream(upstream: &sampan_upstream::Upstream, now: Millis) -> Upstream {
    let health = upstream.health();
    let ago = |at: std::time::Instant| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
    Upstream {
        registry: upstream.registry().to_string(),
        url: upstream.url().to_string(),
        reachable: health.reachable,
        // Whole seconds, so that looking twice at the same contact shows the same time.
        checked: health.checked.map(|at| now.plus(-ago(at)).0 / 1000 * 1000),
    }
}

pub(crate) fn image(entry: ImageEntry) -> Image {
    Image {
        image: entry.image.to_string(),
        tag: entry.tag.map(|tag| tag.to_string()),
        digest: entry.digest.to_string(),
        platforms: entry.platforms.iter().map(ToString::to_string).collect(),
        size_bytes: entry.size_bytes,
        own_bytes: entry.own_bytes,
        created: entry.created.0,
        last_used: entry.last_used.0,
    }
}

pub(crate) fn cleared(cleared: Cleared) -> ClearReport {
    ClearReport {
        images: cleared.images.into_iter().map(image).collect(),
        blobs: cleared.blobs,
        freed_bytes: cleared.freed_bytes,
    }
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

fn selected(name: &str) -> Result<Selected, ApiError> {
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

pub(crate) fn store_failed(error: &StoreError) -> ApiError {
    ApiError {
        code: Code::Store,
        message: format!("the cache failed: {error}"),
        next_step: Some(
            "Run `sampan doctor`; check the rights and the free space of the cache folder.".into(),
        ),
    }
}

pub(crate) fn stats_failed(error: &StatsError) -> ApiError {
    ApiError {
        code: Code::Store,
        message: format!("the statistics failed: {error}"),
        next_step: Some(
            "Run `sampan doctor`; check the rights and the free space of the state folder.".into(),
        ),
    }
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
        let digest = sampan_oci::Digest::of(b"x");
        let by_digest = selected(&format!("nginx:1.27@{digest}")).unwrap();
        assert_eq!(by_digest.reference, Some(Reference::Digest(digest)));
        for bad in ["", "NGINX", "nginx:", "nginx:a b", "nginx@sha256:x", "../x", "a//b"] {
            assert!(selected(bad).is_err(), "{bad:?}");
        }
    }
}
