//! How the downloads of a pull's blobs go: connections, requests asked again, breaks repaired.

use sampan_oci::{Digest, Millis, Source};

use super::PullTracker;
use crate::pull::Effort;

/// The most downloads followed at once; of more, those told of later are shown once they are told of again.
const DOWNLOADS_MAX: usize = 4_096;

impl PullTracker {
    /// The download of a blob goes as told, for every pull that waits for it.
    pub(super) fn download(&mut self, at: Millis, digest: Digest, effort: Effort) {
        if self.waits(&digest) {
            // Nobody was silent meanwhile: there was nothing to hand over.
            for transfer in self.transfers.values_mut().filter(|transfer| transfer.digest == digest) {
                transfer.active = transfer.active.max(at);
            }
        }
        // Without a connection it has ended, or pauses and will be told of again.
        if effort.connections == 0 && !effort.waiting {
            self.downloads.remove(&digest);
        } else if self.downloads.len() < DOWNLOADS_MAX || self.downloads.contains_key(&digest) {
            self.downloads.insert(digest, effort);
        }
        for pull in self.pulls.values_mut().filter(|pull| pull.is_active()) {
            let Some(part) = pull.part_mut(&digest) else { continue };
            if matches!(part.source, Some(Source::Joined | Source::Upstream)) && part.effort != effort {
                part.effort = effort;
                pull.changed = true;
            }
        }
    }

    /// Whether the download of a blob waits for its upstream.
    pub(super) fn waits(&self, digest: &Digest) -> bool {
        self.downloads.get(digest).is_some_and(|effort| effort.waiting)
    }

    /// What is known of the download that a transfer from `source` follows: it may have begun before the transfer.
    pub(super) fn effort_behind(&self, digest: &Digest, source: Source) -> Option<Effort> {
        match source {
            Source::Disk => None,
            Source::Joined | Source::Upstream => self.downloads.get(digest).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sampan_oci::{Event, Millis, Outcome};

    use crate::PullState;
    use crate::record::PullRecord;
    use crate::tracker::PullTracker;
    use crate::tracker::testing::*;

    fn after(events: &[Event]) -> PullTracker {
        let mut tracker = PullTracker::new(1);
        for event in events {
            tracker.record(event);
        }
        tracker
    }

    fn shown(pull: &PullRecord) -> (u32, u64, u64) {
        (pull.connections, pull.retries, pull.repaired)
    }

    /// A pull of `name` whose layers a and b come from `source`.
    fn pull_of(id: u64, name: &str, source: sampan_oci::Source) -> Vec<Event> {
        vec![
            get(0, name, tag("1"), &manifest(&[("config", 10), ("a", 100), ("b", 200)])),
            start_from(source, id, 1, name, blob("a"), 100, 0),
            start_from(source, id + 1, 1, name, blob("b"), 200, 0),
        ]
    }

    #[test]
    fn a_pull_adds_up_the_downloads_of_its_blobs() {
        let mut events = pull_of(1, "nginx", sampan_oci::Source::Upstream);
        events.push(download(2, blob("a"), 3, 1, 0));
        events.push(download(2, blob("b"), 5, 2, 4));
        let mut tracker = after(&events);
        assert_eq!(shown(&tracker.live(Millis(2))[0]), (8, 3, 4));
        tracker.record(&download(3, blob("b"), 4, 2, 5));
        assert_eq!(shown(&tracker.live(Millis(3))[0]), (7, 3, 5), "the last word of each blob counts");
        tracker.record(&download(4, blob("elsewhere"), 9, 9, 9));
        assert_eq!(shown(&tracker.live(Millis(4))[0]), (7, 3, 5), "not what it does not consist of");
    }

    #[test]
    fn everyone_who_follows_a_download_shows_it_and_whoever_has_the_disk_does_not() {
        let mut events = pull_of(1, "nginx", sampan_oci::Source::Upstream);
        events.extend(pull_of(10, "redis", sampan_oci::Source::Joined));
        events.extend(pull_of(20, "alpine", sampan_oci::Source::Disk));
        events.push(download(2, blob("a"), 3, 1, 2));
        let live = after(&events).live(Millis(2));
        assert_eq!(live.iter().map(shown).collect::<Vec<_>>(), [(0, 0, 0), (3, 1, 2), (3, 1, 2)]);
    }

    #[test]
    fn a_download_that_was_told_before_its_transfer_is_shown_with_it() {
        let mut events = vec![download(0, blob("a"), 2, 1, 1)];
        events.extend(pull_of(1, "nginx", sampan_oci::Source::Upstream));
        let mut tracker = after(&events);
        assert_eq!(shown(&tracker.live(Millis(1))[0]), (2, 1, 1));
        tracker.record(&download(2, blob("a"), 0, 1, 1));
        assert_eq!(shown(&tracker.live(Millis(2))[0]), (0, 1, 1), "what was repaired stays told");
        for event in pull_of(10, "redis", sampan_oci::Source::Upstream) {
            tracker.record(&event);
        }
        assert_eq!(shown(&tracker.live(Millis(3))[0]), (0, 0, 0), "that download is no other pull's");
    }

    #[test]
    fn an_ended_pull_keeps_what_it_took_and_has_no_connections() {
        let mut events = pull_of(1, "nginx", sampan_oci::Source::Upstream);
        events.push(download(2, blob("a"), 3, 1, 2));
        events.extend([end(1, 3, 100, Outcome::Miss), end(2, 3, 200, Outcome::Miss)]);
        let mut tracker = after(&events);
        tracker.tick(Millis(10_000));
        let pull = &tracker.live(Millis(10_000))[0];
        assert_eq!((pull.state, shown(pull)), (PullState::Complete, (0, 1, 2)));
        tracker.record(&start(7, 11_000, "nginx", blob("config"), 10, 0));
        assert_eq!(shown(&tracker.live(Millis(11_000))[0]), (0, 1, 2), "nor after it went on");
    }

    #[test]
    fn a_pull_waits_while_any_of_its_downloads_does() {
        let mut events = pull_of(1, "nginx", sampan_oci::Source::Upstream);
        events.extend(pull_of(10, "alpine", sampan_oci::Source::Disk));
        events.extend([download(2, blob("a"), 3, 0, 0), waiting(2, blob("b"), 0)]);
        let mut tracker = after(&events);
        let waits = |tracker: &PullTracker, at| {
            tracker.live(Millis(at)).iter().map(|pull| pull.waiting).collect::<Vec<_>>()
        };
        assert_eq!(waits(&tracker, 2), [false, true], "whoever has the disk waits for nobody");
        assert!(tracker.take_changed().iter().all(|pull| !pull.waiting), "the history keeps no waiting");
        for event in pull_of(20, "redis", sampan_oci::Source::Joined) {
            tracker.record(&event);
        }
        assert_eq!(waits(&tracker, 3), [true, false, true], "it waited before the transfer began");
        tracker.record(&download(4, blob("b"), 1, 0, 0));
        assert_eq!(waits(&tracker, 4), [false, false, false], "it is back");
        tracker.record(&waiting(5, blob("b"), 1));
        tracker.record(&download(6, blob("b"), 0, 0, 0));
        assert_eq!(waits(&tracker, 6), [false, false, false], "it has ended");
    }

    #[test]
    fn an_ended_pull_waits_no_more() {
        let mut events = pull_of(1, "nginx", sampan_oci::Source::Upstream);
        events.push(waiting(2, blob("a"), 0));
        events.extend([end(1, 3, 50, Outcome::Miss), end(2, 3, 200, Outcome::Miss)]);
        let mut tracker = after(&events);
        tracker.tick(Millis(10_000));
        let pull = &tracker.live(Millis(10_000))[0];
        assert!(!pull.waiting && pull.state != PullState::Active, "{pull:?}");
    }

    #[test]
    fn a_transfer_is_not_silent_while_its_download_waits_out_a_day() {
        const DAY: i64 = 24 * 60 * 60_000;
        let mut events = pull_of(1, "nginx", sampan_oci::Source::Upstream);
        events.push(waiting(2, blob("a"), 0));
        let mut tracker = after(&events);
        tracker.tick(Millis(DAY));
        assert_eq!(tracker.transfers.len(), 1, "the other has a dead client");
        tracker.record(&download(DAY, blob("a"), 1, 0, 0));
        tracker.tick(Millis(DAY + 1_000));
        tracker.record(&progress(1, DAY + 1_001, 40));
        let pull = &tracker.live(Millis(DAY + 1_001))[0];
        assert_eq!((pull.done_bytes, pull.state), (40, PullState::Active), "its bytes still count");
        tracker.tick(Millis(DAY + 1_001 + super::super::SILENCE_MILLIS.cast_signed()));
        assert_eq!(tracker.transfers.len(), 0, "and silence is silence again");
    }

    #[test]
    fn the_manifest_that_comes_late_forgets_no_connection() {
        let tracker = after(&[
            start(1, 0, "nginx", blob("a"), 100, 0),
            download(1, blob("a"), 3, 1, 2),
            get(2, "nginx", tag("1"), &manifest(&[("config", 10), ("a", 100)])),
        ]);
        assert_eq!(shown(&tracker.live(Millis(2))[0]), (3, 1, 2));
    }
}
