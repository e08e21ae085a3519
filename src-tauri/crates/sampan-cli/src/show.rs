//! Answers as text for people: aligned, sizes in SI units, times of the person's own clock. Pure.

mod allowance;
mod cache;
mod docker;
mod freshness;
mod prefetch;
mod private;

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sampan_app::api::{
    Check, CheckStatus, Image, MirrorState, NotKeeping, Pull, PullState, Snapshot, Totals, Upstream,
};

use crate::speed::speed;

pub(crate) use allowance::allowances;
pub(crate) use cache::{
    cache, cancelled, clear, details, exported, goes_soon, images, imported, pinned, scrub_progress,
    scrubbed, task_progress,
};
pub(crate) use docker::{applied, docker, plan, questions};
pub(crate) use freshness::{freshness, offline, refreshed};
pub(crate) use prefetch::{count, fetched, job, kept, queue, verified, verified_sum};
pub(crate) use private::private;

/// What `status` says.
pub(crate) fn status(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let mirror = &snapshot.mirror;
    let state = match mirror.state {
        MirrorState::Serving => "is ready".to_owned(),
        MirrorState::Working => "is serving pulls".to_owned(),
        MirrorState::Paused => match mirror.paused_until {
            Some(until) => {
                format!("is paused until {}: pulls pass through and are not kept", time(until, zone))
            }
            None => "is paused: pulls pass through and are not kept".to_owned(),
        },
        MirrorState::Attention => "needs attention (see `sampan doctor`)".to_owned(),
    };
    let cache = &snapshot.cache;
    let free = cache.free_bytes.map(|free| format!(", {} free on the disk", size(free))).unwrap_or_default();
    let partial = match cache.partial_bytes {
        0 => String::new(),
        bytes => format!(", {} of unfinished downloads", size(bytes)),
    };
    let mut rows = vec![
        ["Address".into(), format!("http://{}", mirror.listen)],
        ["Running since".into(), time(mirror.started, zone)],
        ["Cache".into(), cache.dir.clone()],
        [String::new(), format!("{} in {} blobs{partial}{free}", size(cache.size_bytes), cache.blobs)],
    ];
    if let Some(network) = &cache.network {
        let note = format!("on {network}: locks and renames are not dependable there (see `sampan doctor`)");
        rows.push([String::new(), note]);
    }
    if let Some(why) = cache.not_keeping {
        let why = match why {
            NotKeeping::DiskFull => {
                let floor = size(cache.floor_bytes);
                &format!(
                    "too little room is left on the disk, of which Sampan leaves {floor} alone: pulls go on, nothing new is kept"
                )
            }
            NotKeeping::QuotaFull => {
                "the quota is used up: pulls go on, nothing new is kept (see `sampan cache`)"
            }
            NotKeeping::ReadOnly => "the folder cannot be written to: pulls go on, nothing new is kept",
            NotKeeping::Paused => "nothing new is kept while paused",
        };
        rows.push([String::new(), why.into()]);
    }
    if let Some(quota) = cache.quota_bytes {
        rows.push([String::new(), format!("at most {}", size(quota))]);
    }
    if let Some(limit) = snapshot.settings.speed_limit {
        rows.push(["Speed limit".into(), format!("{} for all downloads together", speed(limit))]);
    }
    if snapshot.settings.offline {
        rows.push(["Offline".into(), "no registry is asked; `sampan offline off` ends that".into()]);
    }
    for (nth, upstream) in mirror.upstreams.iter().enumerate() {
        let label = if nth == 0 { "Mirrors" } else { "" };
        rows.push([label.into(), upstream_line(upstream, zone)]);
    }
    for allowance in &snapshot.allowances {
        rows.push(["Allowance".into(), allowance::line(allowance, zone)]);
    }
    let [moved, counted] = totals(&snapshot.today);
    rows.push(["Today".into(), moved]);
    rows.push([String::new(), counted]);
    let last_used = snapshot.last_used.map_or("never, as far as is recorded".into(), |at| time(at, zone));
    rows.push(["Last asked".into(), last_used]);
    if snapshot.docker_drift.is_some() {
        rows.push([
            String::new(),
            "somebody else changed Docker's set-up (see `sampan docker status`)".into(),
        ]);
    }

    let mut text = format!("Sampan {} {state}\n\n{}", plain(&mirror.version), columns(&rows));
    if !snapshot.pulls.is_empty() {
        let rows: Vec<_> = snapshot.pulls.iter().map(pull_row).collect();
        text.push_str("\nPulls\n");
        text.push_str(&columns(&rows));
    }
    text
}

fn upstream_line(upstream: &Upstream, zone: &TimeZone) -> String {
    let at = upstream.checked.map(|at| format!(" at {}", time(at, zone))).unwrap_or_default();
    let contact = match upstream.reachable {
        Some(true) => format!("answered{at}"),
        Some(false) if upstream.resting => format!("did not answer{at}; left alone for a moment"),
        Some(false) => format!("did not answer{at}"),
        None => "not asked yet".into(),
    };
    format!("{} from {} ({contact})", upstream.registry, upstream.url.trim_end_matches('/'))
}

fn totals(totals: &Totals) -> [String; 2] {
    let moved = format!(
        "served {}, fetched {}, saved {}{}",
        size(totals.served_bytes),
        size(totals.fetched_bytes),
        signed_size(totals.saved_bytes),
        percent(totals.hit_bytes, totals.served_bytes)
            .map(|p| format!("; {p} of the bytes from the cache"))
            .unwrap_or_default(),
    );
    let counted =
        format!("{} requests, {} from the cache, {} failed", totals.requests, totals.hits, totals.failures);
    [moved, counted]
}

fn pull_row(pull: &Pull) -> [String; 6] {
    let state = match pull.state {
        PullState::Active => "pulling",
        PullState::Complete => "complete",
        PullState::Interrupted => "interrupted",
        PullState::Failed => "failed",
    };
    let from_memory = if pull.stale { freshness::stale(pull.stale_reason) } else { "" };
    let progress = match (pull.state, pull.size_bytes) {
        (PullState::Active, Some(whole)) => format!("{} of {}", size(pull.done_bytes), size(whole)),
        (PullState::Active, None) => format!("{} so far", size(pull.done_bytes)),
        // What the client had already is not in it: beside the whole it would look unfinished.
        (PullState::Complete | PullState::Interrupted | PullState::Failed, _) => size(pull.done_bytes),
    };
    let (rate, left) = if pull.waiting {
        ("waiting for the link".into(), String::new())
    } else {
        let left = pull.eta_seconds.map(|seconds| format!("{} left", duration(seconds)));
        (pull.rate.map(speed).unwrap_or_default(), left.unwrap_or_default())
    };
    [
        format!("  {}", name(&pull.image, &pull.reference)),
        format!("{state}{from_memory}"),
        progress,
        rate,
        left,
        effort(pull),
    ]
}

/// What it takes, as far as it takes anything: a calm link needs no words.
fn effort(pull: &Pull) -> String {
    let count = |count: u64, one: &str, other: &str| {
        (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { other }))
    };
    let parts = [
        count(pull.connections.into(), "connection", "connections"),
        count(pull.repaired, "break repaired", "breaks repaired"),
        count(pull.retries, "asked again", "asked again"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What `limit` says.
pub(crate) fn limit(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!("All downloads together take at most {}.\n", speed(limit)),
        None => "There is no speed limit.\n".into(),
    }
}

/// What `pause` says.
pub(crate) fn paused(until: Option<i64>, zone: &TimeZone) -> String {
    let end = until.map_or("`sampan resume`".into(), |until| time(until, zone));
    format!("Sampan is paused until {end}: pulls pass through and are not kept.\n")
}

/// What `doctor` says.
pub(crate) fn checks(checks: &[Check]) -> String {
    let mut text = String::new();
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            let status = match check.status {
                CheckStatus::Good => "good",
                CheckStatus::Warning => "warning",
                CheckStatus::Bad => "BAD",
            };
            [status.to_owned(), check.name.clone(), check.detail.clone()]
        })
        .collect();
    for (line, check) in columns(&rows).lines().zip(checks) {
        text.push_str(line);
        text.push('\n');
        if let Some(step) = &check.next_step {
            text.push_str("         → ");
            text.push_str(&plain(step));
            text.push('\n');
        }
    }
    text
}

fn image_name(image: &Image) -> String {
    name(&image.image, image.tag.as_ref().unwrap_or(&image.digest))
}

/// An image's name with its tag, or with the start of its digest: enough to tell it, short enough for a line.
fn name(image: &str, reference: &str) -> String {
    match reference.split_once(':') {
        Some((algorithm, hex)) => format!("{image}@{algorithm}:{}", hex.chars().take(12).collect::<String>()),
        None => format!("{image}:{reference}"),
    }
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

fn signed_size(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

fn percent(part: u64, whole: u64) -> Option<String> {
    (whole > 0).then(|| format!("{} %", u128::from(part) * 100 / u128::from(whole)))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn time(millis: i64, zone: &TimeZone) -> String {
    Timestamp::from_millisecond(millis).map_or_else(
        |_| "at an unknown time".into(),
        |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// Text that moves no cursor and colours nothing, whatever was in it.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// Rows with their columns aligned, two spaces apart, none trailing.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| std::array::from_fn(|n| plain(&row[n]))).collect();
    let widths: [usize; N] =
        std::array::from_fn(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
