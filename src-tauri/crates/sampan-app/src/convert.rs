//! Between what the crates below say and what the contract says. No decisions here.

mod cache;
mod carry;

use sampan_oci::{Millis, Source, Stale};
use sampan_stats::{PullRecord, StatsError};
use sampan_store::StoreError;

use crate::Config;
use crate::api::{
    ApiError, Cache, Code, DayTotals, ImageTotals, Layer, LayerSource, Mirror, MirrorState, Prefetch, Pull,
    PullState, Savings, Snapshot, StaleReason, TagAnswers, Totals, Upstream,
};

pub(crate) use cache::{
    DAY_MILLIS, blobs, cleared, health, image, not_held, reference, scrub_run, selected, selection, verify,
};
pub(crate) use carry::{archive_failed, exported, imported};

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
            tag_answers: TagAnswers::default(),
        },
        today: Totals::default(),
        cache: Cache { dir: config.cache_dir.display().to_string(), ..Cache::default() },
        pulls: Vec::new(),
        last_used: None,
        settings: config.settings.clone(),
        task: None,
        prefetch: Prefetch::default(),
        docker_drift: None,
        docker_set_up: false,
        allowances: Vec::new(),
        private: crate::api::PrivateImages::default(),
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
        stale: pull.stale.is_some(),
        stale_reason: pull.stale.map(stale_reason),
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

fn stale_reason(why: Stale) -> StaleReason {
    match why {
        Stale::Outage => StaleReason::Outage,
        Stale::RateLimit => StaleReason::RateLimit,
        Stale::Deadline => StaleReason::Deadline,
        Stale::Upstream => StaleReason::Upstream,
        Stale::Offline => StaleReason::Offline,
        Stale::Resting => StaleReason::Resting,
    }
}

pub(crate) fn tag_answers(answers: sampan_mirror::TagAnswers) -> TagAnswers {
    let sampan_mirror::TagAnswers { unasked, outage, rate_limit, deadline, upstream, offline, resting } =
        answers;
    TagAnswers { unasked, outage, rate_limit, deadline, upstream, offline, resting }
}

pub(crate) fn upstream(upstream: &sampan_upstream::Upstream, now: Millis) -> Upstream {
    let health = upstream.health();
    let until = |at: std::time::Instant| {
        i64::try_from(at.saturating_duration_since(std::time::Instant::now()).as_millis()).unwrap_or(i64::MAX)
    };
    let ago = |at: std::time::Instant| i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
    Upstream {
        registry: upstream.registry().to_string(),
        url: upstream.url().to_string(),
        reachable: health.reachable,
        // Whole seconds, so that looking twice at the same contact shows the same time.
        checked: health.checked.map(|at| now.plus(-ago(at)).0 / 1000 * 1000),
        resting: health.resting,
        // Likewise; what is over is over since then.
        rests_until: health.probe_at.map(|at| (now.plus(until(at)).0 + 999) / 1000 * 1000),
    }
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
