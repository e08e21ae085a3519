use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use jiff::civil::date;
use proptest::prelude::*;
use sampan_oci::{Answered, Failure, Outcome, Reference, RequestKind};
use tempfile::TempDir;

use super::*;
use crate::PullState;
use crate::tracker::testing::*;

/// A clock that stands still until told otherwise.
#[derive(Debug, Default)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }
}

struct Fixture {
    folder: TempDir,
    clock: Arc<Hands>,
    zone: TimeZone,
}

impl Fixture {
    fn at(moment: &str) -> Self {
        let clock = Arc::new(Hands::default());
        let fixture =
            Self { folder: TempDir::new().unwrap(), clock, zone: TimeZone::get("Asia/Ho_Chi_Minh").unwrap() };
        fixture.set(millis(moment));
        fixture
    }

    fn set(&self, now: i64) {
        self.clock.0.store(now, Ordering::Relaxed);
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("stats.db")
    }

    fn open(&self) -> Stats {
        Stats::open(&self.path(), self.clock.clone(), self.zone.clone()).unwrap()
    }
}

fn millis(moment: &str) -> i64 {
    moment.parse::<Timestamp>().unwrap().as_millisecond()
}

fn served(at: i64, name: Option<&str>, bytes: u64, outcome: Outcome) -> Event {
    let (image, reference) = (name.map(image), Some(Reference::Digest(blob("a"))));
    Event::Answered(Answered { image, reference, served_bytes: bytes, outcome, ..answer(0, at) })
}

/// A pull of one layer of 100 bytes, begun and ended at `at`; its transfer is `id`.
fn pull(id: u64, at: i64, name: &str) -> [Event; 4] {
    [
        get(at, name, tag("1"), &manifest(&[("config", 10), ("a", 100)])),
        start(id, at, name, blob("a"), 100, 0),
        fetched(at, name, Some(blob("a")), 100),
        Event::Answered(Answered { image: Some(image(name)), served_bytes: 100, ..answer(id, at) }),
    ]
}

fn record_all(stats: &Stats, events: &[Event]) {
    for event in events {
        stats.record(event);
    }
}

const NOON: &str = "2026-11-20T05:00:00Z";

#[test]
fn everything_flushed_is_there_after_reopening() {
    let fixture = Fixture::at(NOON);
    let now = millis(NOON);
    let stats = fixture.open();
    record_all(&stats, &pull(1, now, "nginx"));
    stats.record(&served(now, Some("nginx"), 40, Outcome::Hit));
    fixture.set(now + 3_000);
    assert!(stats.tick());
    let (today, savings, history) = (stats.today(), stats.savings(7).unwrap(), stats.history(10).unwrap());
    assert_eq!((today.served_bytes, today.fetched_bytes, today.saved_bytes()), (140, 100, 40));
    assert_eq!((today.requests, today.hits, today.hit_bytes), (2, 1, 40));
    assert_eq!((history.len(), history[0].state), (1, PullState::Complete));
    assert_eq!(history[0].layers[1].done_bytes, 100);
    stats.flush().unwrap();
    drop(stats);

    let stats = fixture.open();
    assert_eq!(stats.today(), today);
    assert_eq!(stats.savings(7).unwrap(), savings);
    assert_eq!(stats.history(10).unwrap(), history);
    assert!(stats.live().is_empty(), "a pull of an earlier run is history");
    record_all(&stats, &pull(2, now + 4_000, "redis"));
    assert!(stats.live()[0].id > history[0].id, "numbers of pulls grow across runs");
}

#[test]
fn when_an_engine_last_asked_is_known_after_reopening() {
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    stats.record(&head(millis(NOON), "nginx", tag("1"), Outcome::Hit));
    stats.flush().unwrap();
    drop(stats);
    assert_eq!(fixture.open().last_used(), Some(Millis(millis(NOON))));
}

#[test]
fn when_an_engine_last_asked_is_known_without_a_sampan_and_asking_leaves_nothing() {
    let fixture = Fixture::at(NOON);
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(fixture.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(crate::last_used(&fixture.path()), None, "there is no such file");
    assert!(names().is_empty(), "and none is made");
    let stats = fixture.open();
    stats.record(&head(millis(NOON), "nginx", tag("1"), Outcome::Hit));
    stats.flush().unwrap();
    drop(stats);
    let before = names();
    assert_eq!(crate::last_used(&fixture.path()), Some(Millis(millis(NOON))));
    assert_eq!(names(), before, "no journal stays behind");
    std::fs::write(fixture.path(), "not a database").unwrap();
    assert_eq!(crate::last_used(&fixture.path()), None, "nor does a damaged one stop anybody");
}

#[test]
fn what_is_read_does_not_depend_on_what_is_written_already() {
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    for round in 1..=5 {
        record_all(&stats, &pull(round, millis(NOON), "nginx"));
        let before = (stats.savings(1).unwrap(), stats.history(5).unwrap());
        stats.flush().unwrap();
        assert_eq!((stats.savings(1).unwrap(), stats.history(5).unwrap()), before, "counted exactly once");
        assert_eq!(stats.savings(1).unwrap().total.requests, round);
    }
}

#[test]
fn a_day_ends_at_midnight_in_vietnam() {
    let fixture = Fixture::at("2026-11-20T16:59:59.999Z");
    let midnight = millis("2026-11-20T17:00:00Z");
    let stats = fixture.open();
    stats.record(&served(midnight - 1, Some("nginx"), 10, Outcome::Hit));
    assert!(stats.tick());
    assert!(!stats.tick(), "nothing happened since");
    fixture.set(midnight);
    assert!(stats.tick(), "today is another day");
    assert_eq!(stats.today(), Totals::default());
    stats.record(&served(midnight, Some("nginx"), 3, Outcome::Hit));
    for flushed in [false, true] {
        let report = stats.savings(3).unwrap();
        let days: Vec<_> = report.days.iter().map(|day| (day.day, day.totals.served_bytes)).collect();
        let expected = [(date(2026, 11, 19), 0), (date(2026, 11, 20), 10), (date(2026, 11, 21), 3)];
        assert_eq!(days, expected, "days without requests included, oldest first (flushed: {flushed})");
        assert_eq!(report.total.served_bytes, 13);
        assert_eq!(stats.savings(1).unwrap().images[0].totals.served_bytes, 3, "images of these days only");
        stats.flush().unwrap();
    }
    assert_eq!(stats.savings(0).unwrap().days.len(), 1, "at least today");
    assert_eq!(stats.savings(u32::MAX).unwrap().days.len(), 366);
}

#[test]
fn images_are_sorted_by_what_they_saved_and_unnamed_requests_stand_apart() {
    let fixture = Fixture::at(NOON);
    let now = millis(NOON);
    let stats = fixture.open();
    record_all(
        &stats,
        &[
            served(now, Some("small"), 5, Outcome::Hit),
            served(now, Some("large"), 50, Outcome::Hit),
            fetched(now, "loss", None, 70),
            served(now, None, 9, Outcome::Failed(Failure::Invalid)),
        ],
    );
    for _ in 0..2 {
        let report = stats.savings(1).unwrap();
        let names: Vec<_> = report.images.iter().map(|entry| entry.image.clone()).collect();
        assert_eq!(names, ["large", "small", "loss"].map(image));
        assert_eq!((report.unnamed.requests, report.unnamed.failures), (1, 1));
        assert_eq!(report.total.saved_bytes(), 5 + 50 - 70 + 9, "a day may cost more than it saved");
        stats.flush().unwrap();
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let damages: [fn(&Path); 4] = [
        |path| std::fs::write(path, "this is not a database, however long it may be").unwrap(),
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[100..].fill(0xA5);
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let page = bytes.len() / 2 / 4_096 * 4_096;
            bytes[page..page + 512].fill(0xA5);
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection.execute_batch("DROP TABLE facts").unwrap();
        },
    ];
    for damage in damages {
        let fixture = Fixture::at(NOON);
        let stats = fixture.open();
        for id in 0..200 {
            record_all(&stats, &pull(id, millis(NOON), &format!("nginx{id}")));
        }
        stats.flush().unwrap();
        drop(stats);
        damage(&fixture.path());
        let before = std::fs::read(fixture.path()).unwrap();

        let stats = fixture.open();
        assert_eq!(stats.savings(7).unwrap().total, Totals::default(), "a new file knows nothing");
        record_all(&stats, &pull(1, millis(NOON), "nginx"));
        stats.flush().unwrap();
        drop(stats);
        let aside = fixture.folder.path().join(format!("stats.db.damaged-{}", millis(NOON)));
        assert_eq!(std::fs::read(aside).unwrap(), before, "nothing of the old file is lost");
        assert_eq!(fixture.open().today().requests, 1, "and the new one is sound");
    }
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let fixture = Fixture::at(NOON);
    drop(fixture.open());
    let version = |sql| rusqlite::Connection::open(fixture.path()).unwrap().execute_batch(sql).unwrap();
    version("PRAGMA user_version = 99");
    let refused = Stats::open(&fixture.path(), fixture.clock.clone(), TimeZone::UTC);
    assert!(matches!(refused, Err(StatsError::Future(99))), "a downgrade must not cost the history");
    version("PRAGMA user_version = 3");
    fixture.open();
}

#[test]
fn the_history_of_the_first_version_goes_on() {
    let fixture = Fixture::at(NOON);
    let now = millis(NOON);
    let first = rusqlite::Connection::open(fixture.path()).unwrap();
    first.execute_batch(crate::db::FIRST).unwrap();
    first
        .execute_batch(
            "INSERT INTO pulls VALUES (7, 'docker.io/library/nginx', '1.27', 1, 2, 'complete', 0, 10, 10, 12, 'docker',
                '[]');
            PRAGMA user_version = 1",
        )
        .unwrap();
    drop(first);
    let stats = fixture.open();
    let old = stats.history(9).unwrap();
    assert_eq!((old.len(), old[0].id, old[0].fetched_bytes), (1, 7, 12), "nothing is lost");
    assert_eq!((old[0].retries, old[0].repaired), (0, 0), "nobody counted then");
    record_all(&stats, &pull(1, now, "redis")[..2]);
    record_all(&stats, &[download(now, blob("a"), 3, 4, 5), end(1, now, 100, Outcome::Miss)]);
    fixture.set(now + 3_000);
    stats.tick();
    stats.flush().unwrap();
    drop(stats);
    let newest = &fixture.open().history(9).unwrap()[0];
    assert_eq!((newest.connections, newest.retries, newest.repaired), (0, 4, 5), "counted and kept");
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_which_images_a_person_uses() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    record_all(&stats, &pull(1, millis(NOON), "nginx"));
    stats.flush().unwrap();
    for file in std::fs::read_dir(fixture.folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", file.path().display());
    }
}

#[test]
fn a_write_that_fails_is_made_up_for_later() {
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    let other = rusqlite::Connection::open(fixture.path()).unwrap();
    other.execute_batch("ALTER TABLE totals RENAME TO elsewhere").unwrap();
    record_all(&stats, &pull(1, millis(NOON), "nginx"));
    assert!(stats.flush().is_err(), "told, not swallowed");
    record_all(&stats, &pull(2, millis(NOON), "nginx"));
    assert_eq!(stats.today().requests, 2, "memory goes on counting");
    other.execute_batch("ALTER TABLE elsewhere RENAME TO totals").unwrap();
    stats.flush().unwrap();
    drop(stats);
    assert_eq!(fixture.open().savings(1).unwrap().total.fetched_bytes, 200, "each batch is there, once");
}

#[test]
fn the_writer_needs_nobody_to_flush() {
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    stats.record(&served(millis(NOON), Some("nginx"), 10, Outcome::Hit));
    let other = rusqlite::Connection::open(fixture.path()).unwrap();
    let written = || other.query_row("SELECT COUNT(*) FROM totals", [], |row| row.get::<_, i64>(0)).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while written() == 0 {
        assert!(std::time::Instant::now() < deadline, "a batch is written within a quarter of a second");
        std::thread::yield_now();
    }
}

#[test]
fn the_history_keeps_the_last_ten_thousand_pulls() {
    let fixture = Fixture::at(NOON);
    let now = millis(NOON);
    let stats = fixture.open();
    let kept = u64::try_from(HISTORY_MAX).unwrap();
    for id in 1..=kept + 500 {
        let at = now + i64::try_from(id).unwrap() * 4_000;
        fixture.set(at);
        stats.tick();
        record_all(&stats, &pull(id, at, "nginx"));
    }
    fixture.set(now + 1_000_000_000);
    stats.tick();
    stats.flush().unwrap();
    let history = stats.history(u32::MAX).unwrap();
    assert_eq!(history.len(), HISTORY_MAX);
    assert!(history.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
    assert_eq!(history[HISTORY_MAX - 1].id, history[0].id + 1 - kept, "the oldest went");
    assert_eq!(stats.history(3).unwrap(), history[..3]);
}

#[test]
fn a_pull_that_goes_on_is_live_and_not_history() {
    let fixture = Fixture::at(NOON);
    let now = millis(NOON);
    let stats = fixture.open();
    record_all(&stats, &pull(1, now, "nginx")[..2]);
    stats.flush().unwrap();
    assert_eq!((stats.live().len(), stats.history(9).unwrap().len()), (1, 0));
    assert!(stats.tick() && stats.tick(), "its speed falls even when nothing arrives");
    drop(stats);
    let history = fixture.open().history(9).unwrap();
    assert_eq!((history.len(), history[0].state), (1, PullState::Interrupted), "that run was killed");
}

#[test]
fn a_manifest_asked_for_is_a_use_and_a_web_page_is_not() {
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    assert_eq!(stats.last_used(), None);
    stats.record(&head(5, "nginx", tag("1"), Outcome::Failed(Failure::Forbidden)));
    stats.record(&served(6, Some("nginx"), 1, Outcome::Hit));
    assert_eq!(stats.last_used(), None, "nor is a blob");
    for (user_agent, engine) in [
        ("curl/8.5.0", false),
        ("Mozilla/5.0 (X11; Linux x86_64)", false),
        ("skopeo/1.18.0", false),
        ("", false),
        ("buildkit/v0.25", true),
        ("containerd/v2.1.4", false),
        ("containers/5.36 (github.com/containers/image)", false),
        ("libpod/5.4.0", false),
        ("Docker/29.7.2 containerd-client/2.2", true),
    ] {
        let stats = Fixture::at(NOON).open();
        let Event::Answered(answer) = head(6, "nginx", tag("1"), Outcome::Hit) else { panic!("an answer") };
        stats.record(&Event::Answered(Answered { user_agent: user_agent.into(), ..answer }));
        assert_eq!(stats.last_used().is_some(), engine, "{user_agent:?}");
    }
    stats.record(&head(7, "nginx", tag("1"), Outcome::Hit));
    assert_eq!(stats.last_used(), Some(Millis(7)), "docker asks for no more when its image is current");
}

/// Not a test of its own: the process that the next test kills. It reads the database's path from its input.
#[test]
#[ignore = "is killed by `a_killed_process_loses_at_most_what_was_not_flushed`"]
fn process_to_kill() {
    let mut lines = std::io::stdin().lock().lines();
    let Some(Ok(path)) = lines.next() else { return };
    let clock = Arc::new(Hands::default());
    let stats = Stats::open(Path::new(&path), clock, TimeZone::UTC).unwrap();
    for id in 0..5 {
        record_all(&stats, &pull(id, 0, &format!("flushed{id}")));
    }
    stats.flush().unwrap();
    for id in 5..8 {
        record_all(&stats, &pull(id, 0, &format!("unflushed{id}")));
    }
    println!("highest id {}", stats.live()[0].id);
    std::io::stdout().flush().unwrap();
    // Until it is killed: its input never ends.
    drop(lines.next());
}

#[test]
fn a_killed_process_loses_at_most_what_was_not_flushed() {
    let fixture = Fixture::at("1970-01-01T00:00:00Z");
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stats::tests::process_to_kill", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    writeln!(input, "{}", fixture.path().display()).unwrap();
    let output = std::io::BufReader::new(process.stdout.take().unwrap());
    let highest: u64 = output
        .lines()
        .find_map(|line| line.unwrap().split_once("highest id ").map(|(_, id)| id.parse().unwrap()))
        .expect("the process got as far as recording");
    process.kill().unwrap();
    process.wait().unwrap();

    let stats = fixture.open();
    let total = stats.savings(1).unwrap().total;
    assert!((5..=8).contains(&total.requests), "flushed: 5, recorded: 8, found: {}", total.requests);
    assert_eq!(total.fetched_bytes, total.requests * 100, "a batch is there whole or not at all");
    let names: Vec<String> = stats.history(100).unwrap().iter().map(|pull| pull.image.to_string()).collect();
    assert_eq!(names.iter().filter(|name| name.contains("/flushed")).count(), 5, "{names:?}");
    record_all(&stats, &pull(1, 0, "after"));
    assert!(stats.live()[0].id > highest, "a number given out before the kill is not given out again");
}

/// Events over four days and three images, some with no image.
fn any_event() -> impl Strategy<Value = Event> {
    let name = prop::sample::select(vec![None, Some("nginx"), Some("redis"), Some("alpine")]);
    let outcome = prop::sample::select(vec![
        Outcome::Hit,
        Outcome::Joined,
        Outcome::Miss,
        Outcome::Failed(Failure::Unreachable),
        Outcome::Failed(Failure::ClientLeft),
    ]);
    let kind = prop::sample::select(vec![RequestKind::Blob, RequestKind::Manifest, RequestKind::Tags]);
    let kinds =
        (0..4_u8, 0..4_u64, 0..4 * 86_400_000_i64, name, outcome, kind, any::<bool>(), 0..1_000_000_u64);
    kinds.prop_map(|(which, id, before, name, outcome, kind, head, bytes)| {
        let at = millis(NOON) - before;
        match which {
            0 => {
                let image = name.map(image);
                let served_bytes = if head { 0 } else { bytes };
                Event::Answered(Answered { image, kind, head, served_bytes, outcome, ..answer(id, at) })
            }
            1 => fetched(at, name.unwrap_or("nginx"), None, bytes),
            2 => start(id, at, name.unwrap_or("nginx"), blob("a"), bytes, 0),
            _ => progress(id, at, bytes),
        }
    })
}

fn sum(parts: impl IntoIterator<Item = Totals>) -> Totals {
    parts.into_iter().fold(Totals::default(), |mut sum, part| {
        sum += part;
        sum
    })
}

#[test]
fn what_leaves_is_counted_as_it_leaves_and_once() {
    let now = millis(NOON);
    let fixture = Fixture::at(NOON);
    let stats = fixture.open();
    let served = || stats.today().served_bytes;
    stats.record(&start(1, now, "nginx", blob("a"), 100, 0));
    stats.record(&progress(1, now, 30));
    stats.record(&progress(1, now, 70));
    assert_eq!(served(), 70, "a pull that flows is no loss");
    let ended = Answered { at: Millis(now), served_bytes: 100, ..answer(1, 0) };
    stats.record(&Event::Answered(ended));
    assert_eq!(served(), 100, "and no byte counts twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn days_images_and_events_add_up_to_the_same(
        events in prop::collection::vec(any_event(), 0..80), flushes in prop::collection::vec(0..12_u8, 80),
    ) {
        let fixture = Fixture::at(NOON);
        let mut stats = fixture.open();
        // What leaves is counted as it leaves, and once.
        let (mut flowing, mut served_bytes) = (std::collections::HashMap::new(), 0);
        for (event, flush) in events.iter().zip(flushes) {
            stats.record(event);
            match event {
                Event::BlobStarted { id, .. } => drop(flowing.entry(*id).or_insert(0)),
                Event::BlobProgress { id, sent, .. } => if let Some(counted) = flowing.get_mut(id) {
                    served_bytes += sent.saturating_sub(*counted);
                    *counted = (*counted).max(*sent);
                },
                Event::Answered(answer) => {
                    let counted = flowing.remove(&answer.id).unwrap_or(0);
                    if matches!(answer.kind, RequestKind::Blob | RequestKind::Manifest) {
                        served_bytes += answer.served_bytes.saturating_sub(counted);
                    }
                }
                Event::Manifest { .. } | Event::Fetched { .. } | Event::Download { .. } | Event::Lied { .. } => {}
            }
            if flush == 1 {
                // A new run knows nothing of the answers of the one before.
                flowing.clear();
            }
            match flush {
                0 => stats.flush().unwrap(),
                1 => {
                    stats.flush().unwrap();
                    drop(stats);
                    stats = fixture.open();
                }
                _ => {}
            }
        }
        let expected = {
            let counted = |answer: &&Answered| matches!(answer.kind, RequestKind::Blob | RequestKind::Manifest);
            let answers = || events.iter().filter_map(|event| match event {
                Event::Answered(answer) => Some(answer),
                Event::Manifest { .. } | Event::BlobStarted { .. } | Event::BlobProgress { .. }
                | Event::Fetched { .. } | Event::Download { .. } | Event::Lied { .. } => None,
            }).filter(counted);
            let hits = || answers().filter(|answer| answer.outcome.is_hit());
            let count = |number: usize| u64::try_from(number).unwrap();
            Totals {
                requests: count(answers().count()),
                hits: count(hits().count()),
                failures: count(answers().filter(|answer| matches!(answer.outcome, Outcome::Failed(_))).count()),
                served_bytes,
                fetched_bytes: events.iter().map(|event| match event {
                    Event::Fetched { bytes, .. } => *bytes,
                    Event::Manifest { .. } | Event::BlobStarted { .. } | Event::BlobProgress { .. }
                    | Event::Download { .. } | Event::Lied { .. } | Event::Answered(_) => 0,
                }).sum(),
                hit_bytes: hits().map(|answer| answer.served_bytes).sum(),
            }
        };
        for _ in 0..2 {
            let report = stats.savings(30).unwrap();
            prop_assert_eq!(report.total, expected, "the sum over the events");
            prop_assert_eq!(sum(report.days.iter().map(|day| day.totals)), expected, "over the days");
            let images = sum(report.images.iter().map(|image| image.totals).chain([report.unnamed]));
            prop_assert_eq!(images, expected, "over the images and the unnamed");
            prop_assert_eq!(
                report.total.saved_bytes(),
                expected.served_bytes.cast_signed() - expected.fetched_bytes.cast_signed()
            );
            prop_assert_eq!(report.days.last().unwrap().totals, stats.today());
            stats.flush().unwrap();
        }
    }
}

#[test]
fn what_was_spent_survives_a_restart() {
    let fixture = Fixture::at(NOON);
    let spent = |at, image: &str| (Millis(at), image.parse().unwrap());
    let stats = fixture.open();
    assert_eq!(stats.spent().unwrap(), []);
    stats.keep_spent(&[spent(1, "docker.io/library/a")]).unwrap();
    let newer = [spent(2, "docker.io/library/a"), spent(2, "ghcr.io/o/b"), spent(3, "docker.io/library/a")];
    stats.keep_spent(&newer).unwrap();
    drop(stats);
    assert_eq!(fixture.open().spent().unwrap(), newer, "instead of those kept before");
}
