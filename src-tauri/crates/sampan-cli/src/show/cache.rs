//! What is in the cache, as text for people.

use jiff::tz::TimeZone;
use sampan_app::api::{
    Cache, ClearReport, Exported, Health, Image, ImageDetails, Imported, Quota, ScrubRun, ScrubState,
    Settings, Skipped, Snapshot, Task, TaskKind, Verify,
};

use super::freshness::past;
use super::{columns, duration, image_name, percent, plain, size, time};

/// What `images` says.
pub(crate) fn images(images: &[Image], zone: &TimeZone) -> String {
    if images.is_empty() {
        return "No images are in the cache yet.\n".into();
    }
    let head = ["IMAGE", "PLATFORMS", "SIZE", "FREES", "FETCHED", "HITS", "LAST ASKED", "NOTE"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        [
            image_name(image),
            image.platforms.join(" "),
            size(image.size_bytes),
            size(image.own_bytes),
            size(image.fetched_bytes),
            image.hits.to_string(),
            time(image.last_used, zone),
            note(image),
        ]
    }));
    columns(&rows)
}

fn note(image: &Image) -> String {
    let notes = [
        (image.pinned, "pinned"),
        (image.frozen.is_some(), "frozen"),
        (image.gone.is_some(), "gone at its registry"),
        (image.unconfirmed, "not confirmed"),
    ];
    let notes: Vec<&str> = notes.iter().filter(|(is_so, _)| *is_so).map(|(_, note)| *note).collect();
    notes.join(", ")
}

/// What `images IMAGE` says.
pub(crate) fn details(details: &[ImageDetails], now: i64, zone: &TimeZone) -> String {
    details.iter().map(|details| image_details(details, now, zone)).collect::<Vec<_>>().join("\n")
}

fn image_details(details: &ImageDetails, now: i64, zone: &TimeZone) -> String {
    let image = &details.image;
    let kept = match (image.pinned, image.frozen.is_some(), image.unconfirmed) {
        (true, _, _) => "pinned: it never makes way",
        (false, true, _) => "frozen: it never makes way",
        (false, false, true) => "imported; served once its registry has confirmed it",
        (false, false, false) => "until its room is needed",
    };
    let rows = [
        ["Digest".into(), image.digest.clone()],
        ["Platforms".into(), image.platforms.join(" ")],
        [
            "Size".into(),
            format!("{}, of which deleting it frees {}", size(image.size_bytes), size(image.own_bytes)),
        ],
        ["Cost".into(), format!("{} came over the link", size(image.fetched_bytes))],
        ["Used".into(), format!("{} times from the cache, last {}", image.hits, time(image.last_used, zone))],
        ["Held since".into(), time(image.created, zone)],
        ["Kept".into(), kept.into()],
    ];
    let mut text = format!("{}\n{}", plain(&image_name(image)), indented(&columns(&rows)));
    if let Some(past) = past(image, now, zone) {
        text.extend(["\n  ", &past, "\n"]);
    }
    if !image.history.is_empty() {
        let rows: Vec<_> = image
            .history
            .iter()
            .map(|known| {
                let held = if known.held { "in the cache" } else { "not in the cache" };
                [time(known.first_seen, zone), known.digest.clone(), held.to_owned()]
            })
            .collect();
        text.push_str("\n  What the tag was, newest first\n");
        text.push_str(&indented(&columns(&rows)));
    }
    let mut rows = vec![["BLOB", "SIZE", "IMAGES", "CHECKED", "WHAT"].map(str::to_owned)];
    rows.extend(details.blobs.iter().map(|blob| {
        let checked = match (blob.held, blob.checked) {
            (false, _) => "not in the cache".into(),
            (true, Some(at)) => time(at, zone),
            (true, None) => "not yet".into(),
        };
        let what = blob.media_type.clone().unwrap_or_default();
        [short(&blob.digest), size(blob.size_bytes), blob.shared.to_string(), checked, what]
    }));
    format!("{text}\n{}", indented(&columns(&rows)))
}

/// The start of a digest: enough to tell it in a list.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["  ", line, "\n"]).collect()
}

/// What `clear` says: what `would` go, or has gone.
pub(crate) fn clear(report: &ClearReport, would: bool, zone: &TimeZone) -> String {
    let list =
        if report.images.is_empty() { String::new() } else { format!("{}\n", images(&report.images, zone)) };
    let verb = match (would, report.undo) {
        (true, _) => "would free",
        (false, Some(_)) => "frees",
        (false, None) => "freed",
    };
    let one = report.images.len() == 1;
    let image = if one { "image" } else { "images" };
    let mut text = format!(
        "{list}Clearing {} {image} ({} blobs) {verb} {}.\n",
        report.images.len(),
        report.blobs,
        size(report.freed_bytes)
    );
    if would && report.refetch_bytes > 0 {
        let took = report
            .refetch_seconds
            .map(|seconds| format!(", about {} at the speed of your last pulls", duration(seconds)));
        let them = if one { "it" } else { "them" };
        let (again, took) = (size(report.refetch_bytes), took.unwrap_or_default());
        text.extend(["Fetching ", them, " again would take ", &again, &took, ".\n"]);
    }
    if report.undo.is_some() {
        text.push_str("Removed; `sampan undo` brings it back within 10 s.\n");
    }
    text
}

/// What `pin` and `unpin` say.
pub(crate) fn pinned(names: &[String], pinned: bool) -> String {
    let names = plain(&names.join(", "));
    if pinned {
        format!("Pinned {names}: the quota and the age limit never remove it.\n")
    } else {
        format!("Unpinned {names}: it makes way when room is needed.\n")
    }
}

/// What `cache` says.
pub(crate) fn cache(cache: &Cache, settings: &Settings, task: Option<&Task>, zone: &TimeZone) -> String {
    let used = cache.used_bytes();
    let left = match cache.floor_bytes {
        0 => String::new(),
        floor => format!(", of which Sampan leaves {} alone", size(floor)),
    };
    let free = cache.free_bytes.map(|free| format!(", {} free on the disk{left}", size(free)));
    let free = free.unwrap_or_default();
    let mut rows = vec![
        ["Folder".into(), cache.dir.clone()],
        ["Size".into(), format!("{} in {} blobs{free}", size(cache.size_bytes), cache.blobs)],
    ];
    if cache.partial_bytes > 0 {
        rows.push([
            "Unfinished".into(),
            format!("{} of downloads, gone on with by the next pull", size(cache.partial_bytes)),
        ]);
    }
    if cache.quarantine_bytes > 0 {
        rows.push([
            "Quarantine".into(),
            format!("{} of damaged blobs, set aside", size(cache.quarantine_bytes)),
        ]);
    }
    if cache.own_bytes > 0 {
        rows.push(["Index".into(), size(cache.own_bytes)]);
    }
    let quota = match (cache.quota_bytes, settings.quota) {
        (None, _) => "none: as much as the disk has".into(),
        (Some(quota), chosen) => {
            let chosen = if chosen == Quota::Auto { ", chosen by the free disk space" } else { "" };
            let part = percent(used, quota).map(|part| format!("; {part} of it is used")).unwrap_or_default();
            format!("{}{chosen}{part}", size(quota))
        }
    };
    rows.push(["Quota".into(), quota]);
    rows.push(["Pinned".into(), size(cache.pinned_bytes)]);
    rows.push(["Age limit".into(), settings.max_age_days.map_or_else(|| "none".into(), days)]);
    let verify = match settings.verify {
        Verify::Daily => "at the first read since the start, then daily",
        Verify::Always => "at every read",
    };
    rows.push(["Checked".into(), verify.into()]);
    rows.push(["Health".into(), health(cache.health)]);
    rows.push([
        "Every byte".into(),
        match cache.health.checked_since {
            Some(at) => format!("checked {} or later", time(at, zone)),
            None => "not checked yet".into(),
        },
    ]);
    if let Some(scrub) = &cache.scrub {
        rows.push(["Scrub".into(), scrub_progress(scrub)]);
    }
    if let Some(task) = task {
        rows.push(["At work".into(), task_progress(task)]);
    }
    columns(&rows)
}

/// What a change of the settings makes go, if it does; `before` is how they were.
pub(crate) fn goes_soon(before: &Settings, now: &Snapshot) -> String {
    let (cache, settings) = (&now.cache, &now.settings);
    let used = cache.used_bytes();
    let mut text = String::new();
    if let Some(quota) = cache.quota_bytes.filter(|quota| *quota < used && before.quota != settings.quota) {
        let left = size(quota);
        text.extend([
            "\nIn 10 s the images not asked for the longest go, until ",
            &left,
            " or less are left.\n",
        ]);
    }
    match (before.max_age_days, settings.max_age_days) {
        (before, Some(days)) if before.is_none_or(|before| days < before) => {
            text.extend([
                "\nIn 10 s the images not asked for in ",
                &counted_days(days),
                " go. Of a time in which Sampan does not run, 3 days at most count.\n",
            ]);
        }
        (_, Some(_) | None) => {}
    }
    text
}

fn counted_days(days: u32) -> String {
    if days == 1 { "1 day".into() } else { format!("{days} days") }
}

fn days(days: u32) -> String {
    format!("images not asked for in {} are removed", counted_days(days))
}

fn health(health: Health) -> String {
    if health.damaged == 0 {
        return "no damage was ever found".into();
    }
    let found = if health.damaged == 1 {
        "1 blob was damaged".into()
    } else {
        format!("{} blobs were damaged", health.damaged)
    };
    let waiting = match health.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} wait for the next pull"),
    };
    format!("{found}, {} fetched again{waiting}", health.healed)
}

/// How far a scrub is.
pub(crate) fn scrub_progress(scrub: &ScrubState) -> String {
    let slowly = if scrub.background { ", slowly, while nothing is pulled" } else { "" };
    format!(
        "{} of {} read, {} damaged{slowly}",
        size(scrub.done_bytes),
        size(scrub.total_bytes),
        scrub.damaged
    )
}

/// What `scrub` says at its end.
pub(crate) fn scrubbed(run: &ScrubRun) -> String {
    if let Some(error) = &run.error {
        let error = plain(error.trim_end_matches('.'));
        return format!("It broke off: {error}. Run `sampan doctor`, then `sampan scrub` again.\n");
    }
    let read = format!("{} blobs ({})", run.blobs, size(run.bytes));
    let mut text = match (run.damaged, run.complete) {
        (0, true) if run.unreadable > 0 => format!("Read {read}: no damage in them.\n"),
        (0, true) => format!("Read {read}: all as they should be.\n"),
        (0, false) => {
            format!("Stopped after {read}: no damage in them. Run `sampan scrub` again for the rest.\n")
        }
        (damaged, complete) => {
            let (is, them) = if damaged == 1 { ("is", "it") } else { ("are", "them") };
            let ended = if complete { "Read" } else { "Stopped after" };
            format!(
                "{ended} {read}: {damaged} {is} damaged and set aside. The next pull that needs {them} fetches {them} \
                 again; `sampan doctor` says what to check.\n"
            )
        }
    };
    if run.unreadable > 0 {
        let what =
            "could not be read from the disk and stay as they are. Look at the disk (smartctl, dmesg).";
        text.extend([&run.unreadable.to_string(), " files ", what, "\n"]);
    }
    text
}

/// How far an export or import is.
pub(crate) fn task_progress(task: &Task) -> String {
    let kind = match task.kind {
        TaskKind::Export => "exporting",
        TaskKind::Import => "importing",
    };
    format!("{kind} {}: {} of {}", plain(&task.name), size(task.done_bytes), size(task.total_bytes))
}

/// What `cancel` says.
pub(crate) fn cancelled(task: Option<&Task>) -> String {
    match task.map(|task| task.kind) {
        Some(TaskKind::Export) => "The export was stopped.\n".into(),
        Some(TaskKind::Import) => "The import was stopped; what had come in stays.\n".into(),
        None => "No export or import goes on.\n".into(),
    }
}

/// What `export` says.
pub(crate) fn exported(exported: &Exported) -> String {
    let done = format!(
        "Wrote {} ({} blobs, {}) to {}.\n",
        counted(exported.images.len()),
        exported.blobs,
        size(exported.bytes),
        plain(&exported.path)
    );
    let next = "On the other machine: `sampan import PATH`, or `podman load --input FILE.tar`.\n";
    format!("{done}{}{next}", left_out(&exported.skipped))
}

/// What `import` says.
pub(crate) fn imported(imported: &Imported, trusted: bool) -> String {
    let mut text = format!(
        "{} came in: {} new blobs ({}), {} were there already.\n",
        counted(imported.images.len()),
        imported.blobs,
        size(imported.bytes),
        imported.held_blobs
    );
    for image in &imported.images {
        text.extend(["  ", &plain(image), "\n"]);
    }
    text.push_str(&left_out(&imported.skipped));
    for note in &imported.notes {
        text.push_str(&plain(note));
        text.push('\n');
    }
    if !trusted && !imported.images.is_empty() {
        text.push_str(
            "Each is served once its registry has confirmed it, at the next pull. Without a link to the registry, import \
             again with --trust-names, if you trust where the file comes from.\n",
        );
    }
    text
}

fn counted(images: usize) -> String {
    if images == 1 { "1 image".into() } else { format!("{images} images") }
}

fn left_out(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return String::new();
    }
    let mut text = "Left out:\n".to_owned();
    for Skipped { name, why } in skipped {
        text.extend(["  ", &plain(name), ": ", &plain(why), "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_app::api::{ImageBlob, TagDigest};

    const DAY: i64 = 1_795_132_800_000; // 2026-11-20T00:00:00Z

    fn held() -> Cache {
        Cache { dir: "/cache".into(), size_bytes: 12_000_000_000, blobs: 120, ..Cache::default() }
    }

    #[test]
    fn the_cache_says_what_it_takes_and_what_it_may() {
        let full = Cache {
            partial_bytes: 500_000_000,
            quarantine_bytes: 3_000_000,
            free_bytes: Some(38_200_000_000),
            floor_bytes: 10_000_000_000,
            quota_bytes: Some(50_000_000_000),
            pinned_bytes: 1_200_000_000,
            health: Health { damaged: 3, healed: 2, waiting: 1, checked_since: Some(DAY) },
            scrub: Some(ScrubState {
                done_bytes: 1_000_000_000,
                total_bytes: 12_000_000_000,
                damaged: 0,
                background: true,
            }),
            ..held()
        };
        let settings = Settings { max_age_days: Some(90), ..Settings::default() };
        let task =
            Task { kind: TaskKind::Export, done_bytes: 0, total_bytes: 1_000_000, name: "/usb/x.tar".into() };
        let expected = "\
Folder      /cache
Size        12.0 GB in 120 blobs, 38.2 GB free on the disk, of which Sampan leaves 10.0 GB alone
Unfinished  500.0 MB of downloads, gone on with by the next pull
Quarantine  3.0 MB of damaged blobs, set aside
Quota       50.0 GB, chosen by the free disk space; 25 % of it is used
Pinned      1.2 GB
Age limit   images not asked for in 90 days are removed
Checked     at the first read since the start, then daily
Health      3 blobs were damaged, 2 fetched again, 1 wait for the next pull
Every byte  checked 2026-11-20 00:00:00 or later
Scrub       1.0 GB of 12.0 GB read, 0 damaged, slowly, while nothing is pulled
At work     exporting /usb/x.tar: 0 B of 1.0 MB
";
        assert_eq!(cache(&full, &settings, Some(&task), &TimeZone::UTC), expected);
        let settings = Settings { quota: Quota::Off, verify: Verify::Always, ..Settings::default() };
        let text = cache(&held(), &settings, None, &TimeZone::UTC);
        assert!(
            text.contains("none: as much as the disk has\n") && text.contains("at every read\n"),
            "{text}"
        );
        assert!(
            text.contains("no damage was ever found\n") && text.contains("Every byte  not checked yet\n"),
            "{text}"
        );
    }

    #[test]
    fn a_change_says_what_goes_by_it_and_one_that_takes_nothing_says_nothing() {
        let before = Settings { max_age_days: Some(90), ..Settings::default() };
        let after = |quota: Quota, quota_bytes, max_age_days| {
            let mut now = super::super::tests::snapshot();
            now.cache = Cache { quota_bytes, ..held() };
            now.settings = Settings { quota, max_age_days, ..Settings::default() };
            goes_soon(&before, &now)
        };
        let (five, fifty) = (5_000_000_000, 50_000_000_000);
        assert_eq!(
            after(Quota::Bytes(five), Some(five), Some(30)),
            "\nIn 10 s the images not asked for the longest go, until 5.0 GB or less are left.\n\
             \nIn 10 s the images not asked for in 30 days go. Of a time in which Sampan does not run, 3 days at most \
             count.\n"
        );
        assert_eq!(after(Quota::Bytes(fifty), Some(fifty), Some(90)), "", "there is room");
        assert_eq!(after(Quota::Off, None, None), "");
        assert_eq!(
            after(Quota::Auto, Some(five), Some(365)),
            "",
            "the quota is as it was, the age limit is longer"
        );
    }

    #[test]
    fn an_image_is_shown_with_its_past_and_its_parts() {
        let image = Image {
            image: "docker.io/library/nginx".into(),
            tag: Some("1.27".into()),
            digest: format!("sha256:{}", "ab".repeat(32)),
            platforms: vec!["linux/amd64".into()],
            size_bytes: 72_000_000,
            own_bytes: 43_000_000,
            created: DAY,
            last_used: DAY,
            pinned: true,
            hits: 12,
            fetched_bytes: 72_000_000,
            history: vec![TagDigest { digest: "sha256:aa".into(), first_seen: DAY, held: false }],
            unconfirmed: false,
            frozen: None,
            gone: None,
        };
        let blob = ImageBlob {
            digest: format!("sha256:{}", "cd".repeat(32)),
            size_bytes: 28_000_000,
            held: true,
            media_type: Some("application/vnd.oci.image.layer.v1.tar+gzip".into()),
            shared: 3,
            checked: None,
        };
        let text = details(&[ImageDetails { image, blobs: vec![blob] }], 0, &TimeZone::UTC);
        for part in [
            "docker.io/library/nginx:1.27\n",
            "  Size        72.0 MB, of which deleting it frees 43.0 MB\n",
            "  Used        12 times from the cache, last 2026-11-20 00:00:00\n",
            "  Kept        pinned: it never makes way\n",
            "  2026-11-20 00:00:00  sha256:aa  not in the cache\n",
            "  sha256:cdcdcdcdcdcd  28.0 MB  3       not yet  application/vnd.oci.image.layer.v1.tar+gzip\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn clearing_says_what_it_costs_to_have_it_again_and_how_it_comes_back() {
        let one =
            Image { image: "docker.io/library/nginx".into(), tag: Some("1".into()), ..Image::default() };
        let report = ClearReport {
            images: vec![one.clone()],
            blobs: 3,
            freed_bytes: 5_000_000,
            refetch_bytes: 84_000_000,
            refetch_seconds: Some(118),
            ..ClearReport::default()
        };
        let preview = clear(&report, true, &TimeZone::UTC);
        let cost = "Fetching it again would take 84.0 MB, about 2 min at the speed of your last pulls.\n";
        assert!(preview.ends_with(&format!("would free 5.0 MB.\n{cost}")), "{preview}");
        let unmeasured =
            ClearReport { refetch_seconds: None, images: vec![one.clone(), one], ..report.clone() };
        assert!(
            clear(&unmeasured, true, &TimeZone::UTC).ends_with("Fetching them again would take 84.0 MB.\n")
        );
        let done = clear(&ClearReport { undo: Some(7), ..report }, false, &TimeZone::UTC);
        assert!(
            done.ends_with("frees 5.0 MB.\nRemoved; `sampan undo` brings it back within 10 s.\n"),
            "{done}"
        );
    }

    #[test]
    fn a_scrub_says_what_it_found_and_what_happens_next() {
        let run = ScrubRun {
            ended: DAY,
            blobs: 120,
            bytes: 12_000_000_000,
            damaged: 0,
            unreadable: 0,
            complete: true,
            error: None,
        };
        let table = [
            (run.clone(), "all as they should be"),
            (ScrubRun { complete: false, ..run.clone() }, "Run `sampan scrub` again"),
            (
                ScrubRun { damaged: 1, ..run.clone() },
                "1 is damaged and set aside. The next pull that needs it fetches it again",
            ),
            (
                ScrubRun { damaged: 2, complete: false, ..run },
                "Stopped after 120 blobs (12.0 GB): 2 are damaged",
            ),
            (
                ScrubRun { error: Some("the cache failed: no such folder".into()), ..ScrubRun::default() },
                "It broke off: the cache failed: no such folder. Run `sampan doctor`",
            ),
        ];
        for (run, told) in table {
            assert!(scrubbed(&run).contains(told), "{told:?}: {}", scrubbed(&run));
        }
    }

    #[test]
    fn an_export_and_an_import_say_what_was_left_out_and_what_to_do_next() {
        let skipped = vec![Skipped { name: "nginx\u{1b}".into(), why: "it is damaged".into() }];
        let images = vec!["docker.io/library/alpine:3".to_owned()];
        let out = exported(&Exported {
            path: "/usb/x.tar".into(),
            images: images.clone(),
            blobs: 3,
            bytes: 8_000_000,
            skipped: skipped.clone(),
        });
        assert!(
            out.starts_with(
                "Wrote 1 image (3 blobs, 8.0 MB) to /usb/x.tar.\nLeft out:\n  nginx\\u{1b}: it is damaged\n"
            ),
            "{out}"
        );
        assert!(out.contains("sampan import"), "{out}");
        let took = Imported { images, skipped, notes: vec!["It ends early.".into()], ..Imported::default() };
        let text = imported(&took, false);
        assert!(text.contains("It ends early.\n") && text.contains("--trust-names"), "{text}");
        assert!(!imported(&took, true).contains("--trust-names"), "that was said already");
    }
}
