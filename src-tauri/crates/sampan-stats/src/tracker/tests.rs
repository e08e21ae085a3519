use std::sync::Arc;

use proptest::prelude::*;
use sampan_oci::{Answered, Event, Failure, Manifest, Millis, Outcome, Reference, RequestKind, Stale};

use super::testing::*;
use super::*;
use crate::PullState;

const LEFT: Outcome = Outcome::Failed(Failure::ClientLeft);
const BROKEN: Outcome = Outcome::Failed(Failure::Unreachable);

fn after(events: &[Event]) -> PullTracker {
    let mut tracker = PullTracker::new(1);
    record_all(&mut tracker, events);
    tracker
}

fn record_all(tracker: &mut PullTracker, events: &[Event]) {
    for event in events {
        tracker.record(event);
    }
}

/// The only pull there is.
fn only(tracker: &PullTracker, now: i64) -> PullRecord {
    let live = tracker.live(Millis(now));
    assert_eq!(live.len(), 1, "exactly one pull: {live:#?}");
    live[0].clone()
}

fn nginx() -> Arc<Manifest> {
    manifest(&[("config", 10), ("a", 100), ("b", 200)])
}

/// A pull of nginx:1.27 whose first layer begins at 1000.
fn begun() -> Vec<Event> {
    vec![get(0, "nginx", tag("1.27"), &nginx()), start(1, 1_000, "nginx", blob("a"), 100, 0)]
}

#[test]
fn a_whole_pull_by_docker_is_one_record_named_by_its_tag() {
    let platform = nginx();
    let index = index(&[&platform], None);
    let mut events = vec![
        head(0, "nginx", tag("1.27"), Outcome::Miss),
        get_by_digest(10, "nginx", &index),
        get_by_digest(20, "nginx", &platform),
    ];
    for (id, (name, size)) in (1..).zip([("config", 10), ("a", 100), ("b", 200)]) {
        events.push(start(id, 30, "nginx", blob(name), size, 0));
        events.push(end(id, 40, size, Outcome::Miss));
    }
    let mut tracker = after(&events);
    let pull = only(&tracker, 50);
    assert_eq!(pull.reference, tag("1.27"), "docker asks for the tag by HEAD only");
    assert_eq!((pull.state, pull.ended), (PullState::Active, None), "bytes flowed within three seconds");
    assert_eq!((pull.size_bytes, pull.done_bytes), (Some(310), 310));
    assert_eq!(pull.layers.iter().map(|l| l.digest).collect::<Vec<_>>(), ["config", "a", "b"].map(blob));
    assert_eq!(pull.client, "docker");
    tracker.tick(Millis(3_039));
    assert_eq!(only(&tracker, 3_039).state, PullState::Active);
    tracker.tick(Millis(3_040));
    let ended = only(&tracker, 3_040);
    assert_eq!(
        (ended.state, ended.ended),
        (PullState::Complete, Some(Millis(40))),
        "when its last byte left"
    );
    assert!(tracker.live(Millis(60_040)).is_empty(), "shown for a minute");
}

#[test]
fn the_size_is_unknown_until_the_image_manifest_is() {
    let platform = nginx();
    let mut tracker = after(&[get(0, "nginx", tag("1.27"), &index(&[&platform], None))]);
    assert_eq!((only(&tracker, 0).size_bytes, only(&tracker, 0).eta_seconds), (None, None));
    tracker.record(&get_by_digest(50_000, "nginx", &platform));
    let pull = only(&tracker, 50_000);
    assert_eq!((pull.size_bytes, pull.reference), (Some(310), tag("1.27")), "a slow upstream keeps the name");
}

#[test]
fn a_platform_manifest_finds_its_tag_even_after_the_index_seemed_all() {
    let platform = nginx();
    let mut tracker = after(&[get(0, "nginx", tag("1.27"), &index(&[&platform], None))]);
    tracker.tick(Millis(5_000));
    assert_eq!(only(&tracker, 5_000).state, PullState::Complete);
    tracker.record(&get_by_digest(59_999, "nginx", &platform));
    let pull = only(&tracker, 60_000);
    assert_eq!((pull.state, pull.id), (PullState::Active, 1), "the same pull goes on");
    tracker.record(&get_by_digest(500_000, "nginx", &manifest(&[("other", 1)])));
    let other = &tracker.live(Millis(500_000))[0];
    assert!(matches!(other.reference, Reference::Digest(_)), "a digest nobody led to is named by itself");
}

#[test]
fn a_head_names_one_pull_only_and_says_whether_it_is_stale() {
    let (first, second) = (nginx(), manifest(&[("other", 1)]));
    let tracker = after(&[
        head(0, "nginx", tag("1.27"), Outcome::Stale(Stale::Outage)),
        get_by_digest(1, "nginx", &first),
        get_by_digest(2, "nginx", &second),
    ]);
    let live = tracker.live(Millis(2));
    assert_eq!(
        (live[1].reference.clone(), live[1].stale),
        (tag("1.27"), Some(Stale::Outage)),
        "the GET by digest is a mere hit"
    );
    assert_eq!((live[0].reference.clone(), live[0].stale), (Reference::Digest(second.digest), None));
    let refused = after(&[head(0, "nginx", tag("1"), BROKEN), get_by_digest(1, "nginx", &first)]);
    assert!(matches!(only(&refused, 1).reference, Reference::Digest(_)), "a HEAD that failed led nowhere");
}

#[test]
fn requests_that_only_look_are_no_pulls() {
    let ping = Event::Answered(Answered { kind: RequestKind::Ping, ..answer(1, 0) });
    let blob_head = Event::Answered(Answered {
        head: true,
        image: Some(image("nginx")),
        reference: Some(Reference::Digest(blob("a"))),
        ..answer(2, 0)
    });
    let tracker =
        after(&[ping, blob_head, head(0, "nginx", tag("1.27"), Outcome::Hit), end(9, 0, 5, BROKEN)]);
    assert!(tracker.live(Millis(0)).is_empty());
}

#[test]
fn repeated_gets_and_several_clients_are_one_pull_and_bytes_count_once() {
    let mut events = begun();
    events.extend([
        get(1_100, "nginx", tag("1.27"), &nginx()),
        get_by_digest(1_200, "nginx", &nginx()),
        start(2, 1_300, "nginx", blob("a"), 100, 0),
        progress(2, 1_400, 60),
        progress(1, 1_500, 40),
    ]);
    let pull = only(&after(&events), 1_500);
    assert_eq!(pull.done_bytes, 60, "the same bytes to two clients are delivered once");
}

#[test]
fn two_platforms_of_one_tag_are_two_pulls_with_its_name() {
    let (amd64, arm64) = (nginx(), manifest(&[("config-arm", 10), ("arm", 50)]));
    let tracker = after(&[
        get(0, "nginx", tag("1.27"), &index(&[&amd64, &arm64], None)),
        get_by_digest(1, "nginx", &amd64),
        get_by_digest(2, "nginx", &arm64),
        start(1, 3, "nginx", blob("arm"), 50, 0),
        end(1, 4, 50, Outcome::Miss),
    ]);
    let live = tracker.live(Millis(4));
    assert_eq!(live.iter().map(|p| p.done_bytes).collect::<Vec<_>>(), [50, 0], "newest first");
    assert!(live.iter().all(|pull| pull.reference == tag("1.27")));
}

#[test]
fn an_attestation_is_fetched_with_its_image_but_is_no_part_of_it() {
    let (platform, attestation) = (nginx(), manifest(&[("in-toto-config", 3), ("in-toto", 4)]));
    let mut tracker = after(&[
        get(0, "nginx", tag("1.27"), &index(&[&platform], Some(&attestation))),
        get_by_digest(1, "nginx", &platform),
        get_by_digest(2, "nginx", &attestation),
        start(1, 3, "nginx", blob("in-toto"), 4, 0),
        fetched(3, "nginx", Some(blob("in-toto")), 4),
    ]);
    tracker.tick(Millis(100_000));
    let pull = only(&tracker, 100_000);
    assert_eq!((pull.size_bytes, pull.done_bytes, pull.layers.len()), (Some(310), 0, 3));
    assert_eq!((pull.fetched_bytes, pull.state), (4, PullState::Active), "it crossed the link, and goes on");
}

#[test]
fn a_layer_listed_twice_is_delivered_once() {
    let tracker = after(&[
        get(0, "x", tag("1"), &manifest(&[("c", 1), ("empty", 32), ("empty", 32)])),
        start(1, 1, "x", blob("empty"), 32, 0),
        end(1, 2, 32, Outcome::Hit),
    ]);
    let pull = only(&tracker, 2);
    assert_eq!((pull.size_bytes, pull.done_bytes, pull.layers.len()), (Some(33), 32, 2));
}

#[test]
fn a_resumed_layer_goes_on_where_it_stopped() {
    let mut events = begun();
    events.extend([
        end(1, 2_000, 60, LEFT),
        start(2, 3_000, "nginx", blob("a"), 100, 60),
        progress(2, 3_100, 10),
    ]);
    let mut tracker = after(&events);
    assert_eq!(only(&tracker, 3_100).done_bytes, 70);
    tracker.record(&end(2, 3_200, 40, Outcome::Miss));
    tracker.tick(Millis(10_000));
    let pull = only(&tracker, 10_000);
    assert_eq!((pull.state, pull.done_bytes), (PullState::Complete, 100), "it came back for the rest");
}

#[test]
fn a_client_that_comes_back_within_a_minute_goes_on_with_its_pull() {
    let mut events = begun();
    events.push(end(1, 2_000, 60, BROKEN));
    let mut tracker = after(&events);
    tracker.tick(Millis(5_000));
    assert_eq!(only(&tracker, 5_000).state, PullState::Failed, "for now: docker waits before it asks again");
    assert_eq!(tracker.take_changed()[0].state, PullState::Failed);
    tracker.record(&start(2, 20_000, "nginx", blob("a"), 100, 60));
    assert_eq!(only(&tracker, 20_000).state, PullState::Active);
    tracker.record(&end(2, 21_000, 40, Outcome::Miss));
    tracker.tick(Millis(30_000));
    let again = tracker.take_changed();
    assert_eq!((again[0].id, again[0].state), (1, PullState::Complete), "the history is corrected");
    tracker.record(&start(3, 31_000, "nginx", blob("a"), 100, 0));
    assert_eq!(tracker.live(Millis(31_000)).len(), 2, "what was delivered is asked for anew: another pull");
}

#[test]
fn how_a_pull_ends_is_told_by_its_last_answers() {
    let range = Outcome::Hit;
    let cases: [(&str, &[Event], PullState); 7] = [
        ("nothing asked for", &[], PullState::Complete),
        ("left", &[start(2, 9, "nginx", blob("b"), 200, 0), end(2, 10, 9, LEFT)], PullState::Interrupted),
        ("broke", &[start(2, 9, "nginx", blob("b"), 200, 0), end(2, 10, 9, BROKEN)], PullState::Failed),
        (
            "a range, whole",
            &[start(2, 9, "nginx", blob("b"), 200, 0), end(2, 10, 9, range)],
            PullState::Complete,
        ),
        (
            "left after its last byte",
            &[start(2, 9, "nginx", blob("b"), 200, 0), end(2, 10, 200, LEFT)],
            PullState::Complete,
        ),
        ("refused before its first byte", &[refused(2, 10, "b", BROKEN)], PullState::Failed),
        (
            "broke, then left",
            &[
                start(2, 9, "nginx", blob("b"), 200, 0),
                end(2, 10, 9, BROKEN),
                start(3, 11, "nginx", blob("b"), 200, 0),
                end(3, 12, 9, LEFT),
            ],
            PullState::Interrupted,
        ),
    ];
    for (what, events, state) in cases {
        let mut tracker = after(&[get(0, "nginx", tag("1.27"), &nginx())]);
        record_all(&mut tracker, events);
        tracker.tick(Millis(10_000));
        assert_eq!(only(&tracker, 10_000).state, state, "{what}");
    }
}

fn refused(id: u64, at: i64, name: &str, outcome: Outcome) -> Event {
    let (image, reference) = (Some(image("nginx")), Some(Reference::Digest(blob(name))));
    Event::Answered(Answered { image, reference, outcome, ..answer(id, at) })
}

#[test]
fn a_manifest_that_does_not_arrive_fails_the_pull() {
    let platform = nginx();
    let gone = Event::Answered(Answered {
        kind: RequestKind::Manifest,
        image: Some(image("nginx")),
        reference: Some(Reference::Digest(platform.digest)),
        outcome: BROKEN,
        ..answer(1, 10)
    });
    let mut tracker = after(&[get(0, "nginx", tag("1.27"), &index(&[&platform], None)), gone]);
    tracker.tick(Millis(5_000));
    assert_eq!(only(&tracker, 5_000).state, PullState::Failed);
}

#[test]
fn blobs_without_a_manifest_are_one_pull_named_by_the_repositorys_last_reference() {
    let blobs =
        [start(1, 600_000, "nginx", blob("a"), 100, 0), start(2, 600_001, "nginx", blob("b"), 200, 0)];
    let mut tracker = after(&[head(0, "nginx", tag("1.27"), Outcome::Hit)]);
    tracker.record(&head(100, "redis", tag("8"), Outcome::Hit));
    record_all(&mut tracker, &blobs);
    let late = only(&tracker, 600_001);
    assert_eq!(late.reference, Reference::Digest(blob("a")), "ten minutes later the tag means nothing");
    assert_eq!((late.size_bytes, late.layers.len()), (None, 2), "nobody knows what else there is");

    let mut tracker = after(&[head(1, "nginx", tag("1.27"), Outcome::Hit)]);
    record_all(&mut tracker, &blobs);
    assert_eq!(only(&tracker, 600_001).reference, tag("1.27"));
}

#[test]
fn a_client_that_kept_the_manifest_pulls_an_image_of_known_size() {
    let mut tracker = after(&begun());
    for (id, part, size) in [(2, "config", 10), (3, "a", 100), (4, "b", 200)] {
        tracker.record(&start(id, 2_000, "nginx", blob(part), size, 0));
        tracker.record(&end(id, 2_100, size, Outcome::Miss));
    }
    tracker.record(&end(1, 2_100, 100, Outcome::Miss));
    tracker.tick(Millis(10_000));
    let cold = only(&tracker, 10_000);
    assert_eq!((cold.state, cold.size_bytes), (PullState::Complete, Some(310)));
    // docker forgets an image, but not its manifests: the next pull asks where the tag points, then for blobs.
    tracker.record(&head(300_000, "nginx", tag("1.27"), Outcome::Revalidated));
    tracker.record(&start(5, 300_010, "nginx", blob("a"), 100, 0));
    let warm = tracker.live(Millis(300_010)).remove(0);
    assert_eq!((warm.size_bytes, warm.done_bytes, warm.reference), (Some(310), 0, tag("1.27")));
    assert_eq!(warm.layers.len(), 3, "the same parts, none of them asked for but one");
    assert_ne!(warm.id, cold.id);
}

#[test]
fn events_out_of_order_give_the_same_pull() {
    let platform = nginx();
    let mut events = vec![
        end(1, 40, 100, Outcome::Miss),
        start(1, 30, "nginx", blob("a"), 100, 0),
        progress(1, 35, 50),
        progress(7, 35, 50),
        start(1, 30, "nginx", blob("a"), 100, 0),
        get(20, "nginx", tag("1.27"), &platform),
    ];
    let mut tracker = after(&events);
    tracker.tick(Millis(3_040));
    let pull = only(&tracker, 3_040);
    assert_eq!((pull.done_bytes, pull.size_bytes, pull.reference), (100, Some(310), tag("1.27")));
    assert_eq!(pull.state, PullState::Active, "the repeated beginning is a transfer that has not ended");
    events.remove(4);
    let mut tracker = after(&events);
    tracker.tick(Millis(3_040));
    assert_eq!(only(&tracker, 3_040).state, PullState::Complete);
}

#[test]
fn dropped_progress_is_made_up_for_by_the_answer() {
    let mut events = begun();
    events.push(progress(1, 1_100, 30));
    events.push(progress(1, 1_050, 20));
    assert_eq!(only(&after(&events), 1_100).done_bytes, 30, "late reports take nothing back");
    events.push(end(1, 2_000, 100, Outcome::Miss));
    assert_eq!(only(&after(&events), 2_000).done_bytes, 100);
}

#[test]
fn bytes_from_upstream_find_their_pull_before_and_after_it() {
    let platform = nginx();
    let mut tracker = after(&[
        fetched(0, "nginx", Some(platform.digest), 500),
        fetched(0, "redis", Some(platform.digest), 7),
        fetched(0, "nginx", None, 9),
    ]);
    tracker.record(&get(10, "nginx", tag("1.27"), &platform));
    assert_eq!(only(&tracker, 10).fetched_bytes, 500, "its manifest was fetched first");
    tracker.record(&fetched(20, "nginx", Some(blob("a")), 30));
    tracker.tick(Millis(10_000));
    assert_eq!(tracker.take_changed().len(), 1);
    tracker.record(&fetched(20_000, "nginx", Some(blob("a")), 70));
    let told = tracker.take_changed();
    assert_eq!(told[0].fetched_bytes, 600, "the download goes on without its client, and the history knows");
    assert_eq!(told[0].ended, Some(Millis(10)));
}

#[test]
fn speed_and_time_left_come_from_what_flows_to_the_client() {
    let mut events = begun();
    events.push(progress(1, 3_000, 50));
    let pull = only(&after(&events), 3_000);
    assert_eq!(pull.rate, Some(25), "50 bytes in 2 s");
    assert_eq!(pull.eta_seconds, Some(11), "260 bytes are left, waiting layers included, rounded up");
    assert_eq!(only(&after(&events), 30_000).eta_seconds, None, "nothing flows, nothing is promised");
}

#[test]
fn a_transfer_that_never_ends_is_given_up_after_an_hour() {
    let mut tracker = after(&begun());
    tracker.tick(Millis(3_600_999));
    assert_eq!(only(&tracker, 3_600_999).state, PullState::Active, "an outage is waited out");
    tracker.tick(Millis(3_601_000));
    assert_eq!(tracker.take_changed()[0].state, PullState::Interrupted);
    assert!(tracker.transfers.is_empty());
}

#[test]
fn a_clock_set_back_does_not_keep_a_pull_forever() {
    let mut tracker = after(&[get(1_000_000, "nginx", tag("1.27"), &nginx())]);
    tracker.tick(Millis(0));
    tracker.tick(Millis(3_000));
    assert_eq!(only(&tracker, 3_000).state, PullState::Complete);
}

#[test]
fn thousands_of_pulls_leave_memory_but_not_the_history() {
    let mut tracker = PullTracker::new(1);
    for n in 0..3_000_u32 {
        let name = format!("image{n}");
        tracker.record(&get(i64::from(n), &name, tag("1"), &nginx()));
        tracker.record(&start(u64::from(n), i64::from(n), &name, blob("a"), 100, 0));
        assert!(tracker.pulls.len() <= ACTIVE_MAX + ENDED_MAX && tracker.transfers.len() <= TRANSFERS_MAX);
    }
    assert_eq!(tracker.live(Millis(3_000)).len(), LIVE_MAX);
    assert_eq!(tracker.live(Millis(3_000))[0].id, 3_000, "newest first");
    assert!(tracker.names.len() <= NAMES_MAX);
    let told = tracker.take_changed();
    assert_eq!(told.len(), 3_000, "each is written once");
    assert!(tracker.take_changed().is_empty());
}

#[test]
fn one_client_with_endless_transfers_and_blobs_stays_within_limits() {
    let mut tracker = PullTracker::new(1);
    for n in 0..5_000 {
        tracker.record(&start(n, 0, "x", blob(&n.to_string()), 1, 0));
        tracker.record(&fetched(0, "x", Some(blob(&format!("f{n}"))), 1));
        tracker.record(&end(1_000_000 + n, 0, 1, Outcome::Hit));
    }
    assert!(tracker.transfers.len() <= TRANSFERS_MAX);
    assert!(tracker.pulls.values().all(|pull| pull.parts.len() <= PARTS_MAX));
    assert!(tracker.unclaimed.len() <= EARLY_MAX && tracker.early.len() <= EARLY_MAX);
    tracker.tick(Millis(SILENCE_MILLIS.cast_signed()));
    assert_eq!(tracker.active_count(), 0, "no count of open transfers was lost on the way");
}

/// Anything that may happen to two repositories, in any order, at times that jump.
fn any_event() -> impl Strategy<Value = Event> {
    let name = prop::sample::select(vec!["nginx", "redis"]);
    let part = prop::sample::select(vec![("config", 10_u64), ("a", 100), ("b", 200), ("stray", 50)]);
    let outcome =
        prop::sample::select(vec![Outcome::Hit, Outcome::Miss, Outcome::Stale(Stale::Outage), LEFT, BROKEN]);
    (0..8_u8, 0..40_000_i64, name, part, outcome, 0..12_u64, 0..300_u64).prop_map(
        |(which, at, name, (part, size), outcome, id, bytes)| {
            let platform = nginx();
            match which {
                0 => head(at, name, tag("1.27"), outcome),
                1 => get(at, name, tag("1.27"), &index(&[&platform], None)),
                2 => get_by_digest(at, name, &platform),
                3 | 4 => start(id, at, name, blob(part), size, bytes),
                5 => progress(id, at, bytes),
                6 => fetched(at, name, Some(blob(part)), bytes),
                _ => end(id, at, bytes, outcome),
            }
        },
    )
}

proptest! {
    #[test]
    fn whatever_happens_the_records_make_sense(
        events in prop::collection::vec(any_event(), 0..120), ticks in prop::collection::vec(any::<bool>(), 120),
    ) {
        let mut tracker = PullTracker::new(1);
        let fetched: u64 = events.iter().map(|event| match event {
            Event::Fetched { bytes, .. } => *bytes,
            Event::Manifest { .. } | Event::BlobStarted { .. } | Event::BlobProgress { .. } | Event::Download { .. } | Event::Lied { .. }
            | Event::Answered(_) => 0,
        }).sum();
        let mut now = 0;
        for (event, tick) in events.iter().zip(ticks) {
            tracker.record(event);
            if tick {
                now += 1_000;
                tracker.tick(Millis(now));
            }
            for pull in tracker.live(Millis(now)) {
                let done: u64 = pull.layers.iter().map(|layer| layer.done_bytes).sum();
                prop_assert_eq!(pull.done_bytes, done);
                prop_assert!(pull.layers.iter().all(|layer| layer.done_bytes <= layer.size_bytes));
                prop_assert!(pull.size_bytes.is_none_or(|size| pull.done_bytes <= size));
                prop_assert_eq!(pull.ended.is_none(), pull.state == PullState::Active);
                prop_assert!(pull.ended.is_none_or(|ended| ended >= pull.started));
                prop_assert!(pull.layers.iter().all(|layer| layer.source.is_some() || layer.done_bytes == 0));
            }
            let mut open: HashMap<u64, usize> = HashMap::new();
            tracker.transfers.values().for_each(|transfer| *open.entry(transfer.pull).or_default() += 1);
            for pull in tracker.pulls.values() {
                prop_assert_eq!(open.get(&pull.id).copied().unwrap_or(0), pull.open);
                prop_assert!(pull.open == 0 || pull.is_active(), "no pull ends before its last transfer");
            }
        }
        let told: u64 = tracker.pulls.values().map(|pull| pull.fetched).sum();
        prop_assert!(told <= fetched, "no pull claims bytes that did not come");
        prop_assert!(tracker.live(Millis(now)).len() <= LIVE_MAX);

        for id in 0..12 {
            tracker.record(&end(id, now, 0, Outcome::Miss));
        }
        tracker.tick(Millis(i64::MAX));
        prop_assert_eq!(tracker.active_count(), 0, "with its transfers ended every pull ends");
        prop_assert!(tracker.transfers.is_empty());
    }
}

#[test]
fn identifiers_go_on_from_where_the_last_run_stopped() {
    let mut tracker = PullTracker::new(41);
    tracker.record(&get(0, "a", tag("1"), &nginx()));
    tracker.record(&get(0, "b", tag("1"), &nginx()));
    assert_eq!(tracker.live(Millis(0)).iter().map(|pull| pull.id).collect::<Vec<_>>(), [42, 41]);
}
