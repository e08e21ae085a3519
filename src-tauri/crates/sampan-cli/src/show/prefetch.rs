//! The queue, what is kept fresh, and the checklist for a pull offline, as text for people.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use sampan_app::api::{
    Kept, Metered, OfflineCheck, OfflineImage, OfflinePart, OfflineProblem, Prefetch, PrefetchJob,
    PrefetchJobState, PrefetchWait, Settings,
};

use super::{columns, percent, plain, size, time};

/// `1 image is`, `2 images are`.
pub(crate) fn count(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// One line about an image on its way.
pub(crate) fn job(job: &PrefetchJob, queue: &Prefetch, zone: &TimeZone) -> String {
    plain(&format!("{}: {}", job.name, state(job, queue, zone)))
}

fn state(job: &PrefetchJob, queue: &Prefetch, zone: &TimeZone) -> String {
    let problem = || job.problem.as_ref().map(|problem| problem.message.clone()).unwrap_or_default();
    match (job.state, job.size_bytes) {
        (PrefetchJobState::Running, Some(whole)) => {
            let part = percent(job.held_bytes, whole).map(|part| format!(", {part}")).unwrap_or_default();
            format!("{} of {}{part}", size(job.held_bytes), size(whole))
        }
        (PrefetchJobState::Running, None) => "asking its registry".into(),
        (PrefetchJobState::Waiting, _) => match (job.again_at, waits(job, queue, zone)) {
            (Some(at), _) => format!("{}; tried again at {}", problem(), time(at, zone)),
            (None, Some(why)) => why,
            (None, None) => "waits for its turn".into(),
        },
        (PrefetchJobState::Done, _) => {
            let moved = if job.moved { "moved, " } else { "" };
            let came = match job.fetched_bytes {
                0 => "nothing had to be fetched".into(),
                bytes => format!("{} came over the link", size(bytes)),
            };
            format!("{moved}in the cache; {came}")
        }
        (PrefetchJobState::Failed, _) => {
            let step = job.problem.as_ref().and_then(|problem| problem.next_step.clone());
            format!("failed: {}. {}", problem(), step.unwrap_or_default()).trim_end().to_owned()
        }
    }
}

fn waits(job: &PrefetchJob, queue: &Prefetch, zone: &TimeZone) -> Option<String> {
    let why = queue.waits.filter(|why| {
        !job.now || matches!(why, PrefetchWait::Paused | PrefetchWait::SampanPaused | PrefetchWait::Offline)
    })?;
    Some(match why {
        PrefetchWait::Paused => "waits: the queue is paused (`sampan queue resume`)".into(),
        PrefetchWait::SampanPaused => "waits: Sampan is paused (`sampan resume`)".into(),
        PrefetchWait::Offline => "waits: Sampan is offline (`sampan offline off`)".into(),
        PrefetchWait::Metered => "waits: the link is metered (--now does not wait)".into(),
        PrefetchWait::QuietHours => {
            let opens = queue.opens.map(|at| format!(" at {}", time(at, zone))).unwrap_or_default();
            format!("waits for the quiet hours{opens} (--now does not wait)")
        }
    })
}

/// What `pull` says at its end.
pub(crate) fn fetched(jobs: &[PrefetchJob]) -> String {
    let done = jobs.iter().filter(|job| job.state == PrefetchJobState::Done).count();
    let bytes = jobs.iter().map(|job| job.fetched_bytes).sum();
    let failed = match jobs.len() - done {
        0 => String::new(),
        failed => format!("; {failed} failed"),
    };
    format!(
        "{} in the cache; {} came over the link{failed}.\n",
        count(done, "image is", "images are"),
        size(bytes)
    )
}

/// What `queue` says.
pub(crate) fn queue(queue: &Prefetch, settings: &Settings, zone: &TimeZone) -> String {
    let mut text = String::new();
    if queue.jobs.is_empty() {
        text.push_str("No images wait. Put some in the queue by `sampan pull`.\n");
    } else {
        let mut rows = vec![["NUMBER", "IMAGE", "PLATFORM", "STATE"].map(str::to_owned)];
        rows.extend(queue.jobs.iter().map(|job| {
            let marks = [(job.pin, " (pin)"), (job.now, " (now)"), (job.kept, " (kept fresh)")];
            let marks: String = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
            [job.id.to_string(), job.name.clone() + &marks, job.platform.clone(), state(job, queue, zone)]
        }));
        text.push_str(&columns(&rows));
    }
    if queue.paused {
        text.push_str("The queue is paused: `sampan queue resume`.\n");
    }
    match settings.quiet_hours {
        Some(hours) => text.extend([format!("Quiet hours: {hours}.\n")]),
        None => text.push_str("Quiet hours: none; images are fetched ahead at any time.\n"),
    }
    if settings.metered == Metered::On {
        text.push_str("The link is metered: only what is asked for with --now is fetched.\n");
    }
    text
}

/// What `keep list` says.
pub(crate) fn kept(kept: &[Kept], zone: &TimeZone) -> String {
    if kept.is_empty() {
        return "Nothing is kept fresh. Add an image by `sampan keep add`.\n".into();
    }
    let mut rows = vec![["IMAGE", "PLATFORM", "ASKED", "NEXT", "WHAT CHANGED"].map(str::to_owned)];
    rows.extend(kept.iter().map(|kept| {
        let changed = match (&kept.problem, kept.moved) {
            (Some(problem), _) => format!("failed: {problem}"),
            (None, Some(at)) => format!("moved {}, {}", time(at, zone), size(kept.moved_bytes)),
            (None, None) => "nothing".into(),
        };
        let asked = kept.checked.map_or_else(|| "not yet".into(), |at| time(at, zone));
        [kept.name.clone(), kept.platform.clone(), asked, time(kept.next, zone), changed]
    }));
    columns(&rows)
}

/// What `verify-offline` says of one image.
pub(crate) fn verified(image: &OfflineImage) -> String {
    let mut text = format!("{} for {}\n", plain(&image.name), plain(&image.platform));
    for check in &image.checks {
        let mark = if check.problem.is_none() { "✓" } else { "✗" };
        let whole = check.size_bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
        let name = plain(&short(&check.name));
        let _ = write!(text, "  {mark} {} {name}{whole}", part(check.what));
        if let Some(problem) = check.problem {
            let _ = write!(text, ": {}", said(problem));
        }
        text.push('\n');
    }
    if let Some(step) = step(image) {
        let _ = writeln!(text, "  {step}");
    }
    text
}

/// The last line of `verify-offline`.
pub(crate) fn verified_sum(images: &[OfflineImage]) -> String {
    let holding = images.iter().filter(|image| image.holds).count();
    let hashed = images.iter().map(|image| image.hashed_bytes).sum();
    let all = if holding == images.len() { "" } else { "Only " };
    format!(
        "{all}{holding} of {} can be pulled with the network off ({} were read and hashed).\n",
        count(images.len(), "image", "images"),
        size(hashed)
    )
}

fn short(name: &str) -> String {
    if name.starts_with("sha256:") {
        name.chars().take("sha256:".len() + 12).collect()
    } else {
        name.to_owned()
    }
}

fn part(part: OfflinePart) -> &'static str {
    match part {
        OfflinePart::Registry => "registry",
        OfflinePart::Tag => "tag",
        OfflinePart::Index => "index",
        OfflinePart::Platform => "platform",
        OfflinePart::Manifest => "manifest",
        OfflinePart::Config => "configuration",
        OfflinePart::Layer => "layer",
        OfflinePart::Attestation => "attestation",
    }
}

fn said(problem: OfflineProblem) -> &'static str {
    match problem {
        OfflineProblem::Missing => "not in the cache",
        OfflineProblem::Damaged => "damaged on disk; it was set aside",
        OfflineProblem::Unreadable => "the disk cannot read it",
        OfflineProblem::Unproven => "in the cache for another repository only",
        OfflineProblem::NotMirrored => "Sampan does not mirror it",
    }
}

/// What to do, by the first point that does not hold.
fn step(image: &OfflineImage) -> Option<String> {
    let first: &OfflineCheck = image.checks.iter().find(|check| check.problem.is_some())?;
    let platform = format!("sampan pull {} --platform {}", plain(&image.name), plain(&image.platform));
    Some(match (first.problem?, first.what) {
        (OfflineProblem::NotMirrored, _) => {
            "Add its registry under `upstreams` in the configuration file, then pull it.".into()
        }
        (_, OfflinePart::Platform) => {
            "Its registry has it for other platforms only; choose one by --platform.".into()
        }
        (OfflineProblem::Unreadable, _) => "Check the disk; then run `sampan scrub`.".into(),
        _ => format!("While the network is there: {platform}"),
    })
}
