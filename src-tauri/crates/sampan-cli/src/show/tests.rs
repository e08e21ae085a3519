//! What people read.

use super::*;
use sampan_app::api::{
    Cache, ClearReport, Layer, LayerSource, Mirror, Prefetch, Settings, StaleReason, TagAnswers,
};

const DAY: i64 = 1_795_132_800_000; // 2026-11-20T00:00:00Z

fn image(tag: Option<&str>, size_bytes: u64) -> Image {
    Image {
        image: "docker.io/library/nginx".into(),
        tag: tag.map(Into::into),
        digest: format!("sha256:{}", "ab".repeat(32)),
        platforms: vec!["linux/amd64".into()],
        size_bytes,
        own_bytes: size_bytes / 2,
        created: DAY,
        last_used: DAY,
        fetched_bytes: size_bytes,
        hits: 3,
        ..Image::default()
    }
}

fn pull() -> Pull {
    let layer = |source, size_bytes| Layer { digest: String::new(), size_bytes, done_bytes: 0, source };
    Pull {
        id: 1,
        image: "docker.io/library/nginx".into(),
        reference: "1.27".into(),
        started: DAY,
        ended: None,
        state: PullState::Active,
        stale: true,
        stale_reason: Some(StaleReason::Outage),
        size_bytes: Some(90_000_000),
        done_bytes: 10_000_000,
        fetched_bytes: 10_000_000,
        rate: Some(1_000_000),
        eta_seconds: Some(61),
        connections: 8,
        retries: 3,
        repaired: 2,
        waiting: false,
        layers: vec![layer(LayerSource::Waiting, 50_000_000), layer(LayerSource::Upstream, 40_000_000)],
        client: "docker".into(),
    }
}

pub(super) fn snapshot() -> Snapshot {
    Snapshot {
        sequence: 1,
        at: DAY,
        mirror: Mirror {
            version: "0.1.0".into(),
            listen: "127.0.0.1:7267".into(),
            started: DAY,
            state: MirrorState::Working,
            paused_until: None,
            upstreams: vec![Upstream {
                registry: "docker.io".into(),
                url: "https://registry-1.docker.io/".into(),
                reachable: Some(false),
                checked: Some(DAY),
                resting: false,
                rests_until: None,
            }],
            tag_answers: TagAnswers::default(),
        },
        today: Totals {
            requests: 20,
            hits: 12,
            failures: 1,
            served_bytes: 1_200_000_000,
            fetched_bytes: 1_500_000_000,
            hit_bytes: 900_000_000,
            saved_bytes: -300_000_000,
        },
        cache: Cache {
            dir: "/cache".into(),
            size_bytes: 12_400_000_000,
            partial_bytes: 0,
            blobs: 120,
            free_bytes: Some(38_200_000_000),
            ..Cache::default()
        },
        pulls: vec![pull()],
        last_used: None,
        settings: Settings::default(),
        task: None,
        prefetch: Prefetch::default(),
        docker_drift: None,
        docker_set_up: false,
        allowances: Vec::new(),
        private: sampan_app::api::PrivateImages::default(),
    }
}

#[test]
fn status_says_that_the_cache_is_on_another_machine() {
    let mut there = snapshot();
    assert!(!status(&there, &TimeZone::UTC).contains("dependable"));
    there.cache.network = Some("NFS".into());
    assert!(status(&there, &TimeZone::UTC).contains("on NFS: locks and renames are not dependable"));
}

#[test]
fn status_says_what_happens_in_whole_sentences() {
    let text = status(&snapshot(), &TimeZone::UTC);
    let expected = "\
Sampan 0.1.0 is serving pulls

Address        http://127.0.0.1:7267
Running since  2026-11-20 00:00:00
Cache          /cache
               12.4 GB in 120 blobs, 38.2 GB free on the disk
Mirrors        docker.io from https://registry-1.docker.io (did not answer at 2026-11-20 00:00:00)
Today          served 1.2 GB, fetched 1.5 GB, saved -300.0 MB; 75 % of the bytes from the cache
               20 requests, 12 from the cache, 1 failed
Last asked     never, as far as is recorded

Pulls
  docker.io/library/nginx:1.27  pulling, copy at hand (the registry could not be asked)  10.0 MB of 90.0 MB  1.0 MB/s  2 min left  8 connections, 2 breaks repaired, 3 asked again
";
    assert_eq!(text, expected);
}

#[test]
fn only_what_a_pull_takes_is_told() {
    let table = [
        ((0, 0, 0), ""),
        ((1, 0, 0), "1 connection"),
        ((2, 0, 0), "2 connections"),
        ((0, 1, 0), "1 break repaired"),
        ((0, 0, 1), "1 asked again"),
        ((1, 12, 3), "1 connection, 12 breaks repaired, 3 asked again"),
    ];
    for ((connections, repaired, retries), told) in table {
        assert_eq!(effort(&Pull { connections, repaired, retries, ..pull() }), told);
    }
}

#[test]
fn a_pull_that_waits_for_the_link_shows_no_speed_of_nothing() {
    let waits = Pull { waiting: true, rate: Some(0), eta_seconds: None, connections: 0, ..pull() };
    let [.., progress, rate, left, _] = pull_row(&waits);
    assert_eq!([progress, rate, left], ["10.0 MB of 90.0 MB", "waiting for the link", ""]);
}

#[test]
fn what_ended_is_not_measured_against_what_the_client_had_already() {
    for state in [PullState::Complete, PullState::Interrupted, PullState::Failed] {
        assert_eq!(pull_row(&Pull { state, ..pull() })[2], "10.0 MB", "{state:?}");
    }
    assert_eq!(pull_row(&Pull { size_bytes: None, ..pull() })[2], "10.0 MB so far");
}

#[test]
fn a_pause_says_when_it_ends() {
    assert_eq!(
        paused(Some(DAY), &TimeZone::UTC),
        "Sampan is paused until 2026-11-20 00:00:00: pulls pass through and are not kept.\n"
    );
    assert!(paused(None, &TimeZone::UTC).contains("until `sampan resume`:"));
}

#[test]
fn a_limit_is_told_where_a_person_wonders_why_it_is_slow() {
    let mut limited = snapshot();
    assert!(!status(&limited, &TimeZone::UTC).contains("limit"), "none is not worth a line");
    limited.settings.speed_limit = Some(250_000);
    let text = status(&limited, &TimeZone::UTC);
    assert!(text.contains("Speed limit    250.0 kB/s for all downloads together\n"), "{text}");
    assert_eq!(limit(Some(2_000_000)), "All downloads together take at most 2.0 MB/s.\n");
    assert_eq!(limit(None), "There is no speed limit.\n");
}

#[test]
fn times_are_those_of_the_persons_own_clock() {
    let vietnam = TimeZone::get("Asia/Ho_Chi_Minh").unwrap();
    assert_eq!(time(DAY, &vietnam), "2026-11-20 07:00:00");
    assert_eq!(time(i64::MAX, &vietnam), "at an unknown time", "a damaged time is no panic");
}

#[test]
fn images_are_a_table() {
    let pinned = Image { pinned: true, ..image(Some("1.27"), 187_200_000) };
    let text = images(&[pinned, image(None, 1_000)], &TimeZone::UTC);
    let expected = "\
IMAGE                                        PLATFORMS    SIZE      FREES    FETCHED   HITS  LAST ASKED           NOTE
docker.io/library/nginx:1.27                 linux/amd64  187.2 MB  93.6 MB  187.2 MB  3     2026-11-20 00:00:00  pinned
docker.io/library/nginx@sha256:abababababab  linux/amd64  1.0 kB    500 B    1.0 kB    3     2026-11-20 00:00:00
";
    assert_eq!(text, expected);
    assert_eq!(images(&[], &TimeZone::UTC), "No images are in the cache yet.\n");
}

#[test]
fn a_preview_and_a_report_differ_in_one_word() {
    let report = ClearReport {
        images: vec![image(Some("1"), 10)],
        blobs: 3,
        freed_bytes: 5_000_000,
        ..ClearReport::default()
    };
    assert!(
        clear(&report, true, &TimeZone::UTC).ends_with("Clearing 1 image (3 blobs) would free 5.0 MB.\n")
    );
    assert!(clear(&report, false, &TimeZone::UTC).ends_with("Clearing 1 image (3 blobs) freed 5.0 MB.\n"));
}

#[test]
fn each_check_is_a_line_and_its_advice_the_next() {
    let check = |name: &str, status, next_step: Option<&str>| Check {
        name: name.into(),
        status,
        detail: "seen".into(),
        next_step: next_step.map(Into::into),
    };
    let text = checks(&[
        check("port", CheckStatus::Bad, Some("Choose another.")),
        check("cache folder", CheckStatus::Good, None),
    ]);
    assert_eq!(text, "BAD   port          seen\n         → Choose another.\ngood  cache folder  seen\n");
}

#[test]
fn nothing_shown_can_steer_the_terminal() {
    let mut hostile = image(Some("1"), 1);
    hostile.image = "a\u{1b}[2J\nb\u{9b}31m".into();
    let text = images(&[hostile], &TimeZone::UTC);
    assert!(!text.replace('\n', "").contains(|c: char| c.is_control()), "{text:?}");
    assert_eq!(text.lines().count(), 2, "a name cannot make a line of its own");
}
