//! Decides which troubles a person is told of: snapshots and the time go in, notices come out. Nothing else notifies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sampan_desktop::engine::Locale;
use sampan_desktop::engine::api::{NotKeeping, PullState, Snapshot};

/// A link that is back within this time was no trouble.
const DOWN_FOR: Duration = Duration::from_mins(1);
/// The same trouble again is not news.
const QUIET_FOR: Duration = Duration::from_hours(1);

/// Something a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Notice {
    /// New blobs are not kept because the disk is full.
    DiskFull,
    /// The quota is used up, and nothing can make way.
    QuotaFull,
    /// New blobs are not kept because the cache cannot be written.
    StoreFailed,
    /// A pull waits for a registry that has not answered for a minute.
    UpstreamDown {
        /// As in image names: `docker.io`.
        registry: String,
    },
}

impl Notice {
    /// Title and body.
    pub(crate) fn texts(&self, locale: Locale) -> (String, String) {
        match self {
            Self::DiskFull => texts("disk_full", &[], locale),
            Self::QuotaFull => texts("quota_full", &[], locale),
            Self::StoreFailed => texts("store_failed", &[], locale),
            Self::UpstreamDown { registry } => texts("upstream_down", &[("registry", registry)], locale),
        }
    }
}

/// Title and body of the notification `name`.
pub(crate) fn texts(name: &str, values: &[(&str, &str)], locale: Locale) -> (String, String) {
    let text = |part| locale.text(&format!("notify.{name}.{part}"), values);
    (text("title"), text("body"))
}

/// What is known of the troubles so far.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// Since when each unreachable upstream is.
    down: BTreeMap<String, Instant>,
    /// The troubles of the last snapshot: one that goes on is not told again.
    present: BTreeSet<Notice>,
    /// When each was last told.
    told: BTreeMap<Notice, Instant>,
}

impl Trouble {
    /// Takes the state at `now` and returns what to tell. Call it again at [`Trouble::due`] even if nothing changed.
    pub(crate) fn fold(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<Notice> {
        let unreachable =
            snapshot.mirror.upstreams.iter().filter(|upstream| upstream.reachable == Some(false));
        self.down = unreachable
            .map(|upstream| &upstream.registry)
            .map(|registry| (registry.clone(), self.down.get(registry).copied().unwrap_or(now)))
            .collect();
        let present = self.present_at(snapshot, now);
        self.told.retain(|_, told| now.duration_since(*told) < QUIET_FOR);
        let news: Vec<Notice> = present
            .iter()
            .filter(|notice| !self.present.contains(notice) && !self.told.contains_key(notice))
            .cloned()
            .collect();
        self.told.extend(news.iter().map(|notice| (notice.clone(), now)));
        self.present = present;
        news
    }

    /// When time alone may turn something into trouble.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.down.values().map(|since| *since + DOWN_FOR).filter(|due| *due > now).min()
    }

    fn present_at(&self, snapshot: &Snapshot, now: Instant) -> BTreeSet<Notice> {
        let keeping = match snapshot.cache.not_keeping {
            Some(NotKeeping::DiskFull) => Some(Notice::DiskFull),
            Some(NotKeeping::QuotaFull) => Some(Notice::QuotaFull),
            Some(NotKeeping::ReadOnly) => Some(Notice::StoreFailed),
            // A person asked for it.
            Some(NotKeeping::Paused) | None => None,
        };
        let waiting = |registry: &str| {
            snapshot.pulls.iter().any(|pull| {
                let name = pull.image.strip_prefix(registry);
                pull.state == PullState::Active && name.is_some_and(|rest| rest.starts_with('/'))
            })
        };
        let down = self
            .down
            .iter()
            .filter(|(registry, since)| now.duration_since(**since) >= DOWN_FOR && waiting(registry))
            .map(|(registry, _)| Notice::UpstreamDown { registry: registry.clone() });
        keeping.into_iter().chain(down).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sampan_desktop::engine::api::{
        Cache, Mirror, MirrorState, Pull, Settings, TagAnswers, Totals, Upstream,
    };

    pub(crate) fn snapshot() -> Snapshot {
        Snapshot {
            sequence: 1,
            at: 1_763_600_000_000,
            mirror: Mirror {
                version: "0.1.0".to_owned(),
                listen: "127.0.0.1:7267".to_owned(),
                started: 1_763_600_000_000,
                state: MirrorState::Serving,
                paused_until: None,
                upstreams: vec![upstream("docker.io", Some(true)), upstream("ghcr.io", None)],
                tag_answers: TagAnswers::default(),
            },
            today: Totals::default(),
            cache: Cache {
                dir: "/cache".to_owned(),
                size_bytes: 0,
                partial_bytes: 0,
                blobs: 0,
                free_bytes: None,
                ..Cache::default()
            },
            pulls: Vec::new(),
            last_used: None,
            settings: Settings::default(),
            task: None,
            docker_drift: None,
            docker_set_up: false,
            allowances: Vec::new(),
            private: sampan_desktop::engine::api::PrivateImages::default(),
            prefetch: sampan_desktop::engine::api::Prefetch::default(),
        }
    }

    pub(crate) fn pull(image: &str, reference: &str, size_bytes: Option<u64>, done_bytes: u64) -> Pull {
        Pull {
            id: 1,
            image: image.to_owned(),
            reference: reference.to_owned(),
            started: 1_763_600_000_000,
            ended: None,
            state: PullState::Active,
            stale: false,
            stale_reason: None,
            size_bytes,
            done_bytes,
            fetched_bytes: 0,
            rate: None,
            eta_seconds: None,
            connections: 0,
            retries: 0,
            repaired: 0,
            waiting: false,
            layers: Vec::new(),
            client: "docker".to_owned(),
        }
    }

    fn upstream(registry: &str, reachable: Option<bool>) -> Upstream {
        Upstream {
            registry: registry.to_owned(),
            url: format!("https://{registry}"),
            reachable,
            checked: None,
            resting: false,
            rests_until: None,
        }
    }

    fn not_keeping(why: Option<NotKeeping>) -> Snapshot {
        let mut snapshot = snapshot();
        snapshot.cache.not_keeping = why;
        snapshot
    }

    fn hub_down_during_a_pull_of(image: &str) -> Snapshot {
        let mut snapshot = snapshot();
        snapshot.mirror.upstreams[0].reachable = Some(false);
        snapshot.pulls = vec![pull(image, "latest", None, 0)];
        snapshot
    }

    fn hub_down() -> Notice {
        Notice::UpstreamDown { registry: "docker.io".to_owned() }
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_cache_that_cannot_keep_is_told_once_and_a_pause_never() {
        let table = [
            (None, vec![]),
            (Some(NotKeeping::Paused), vec![]),
            (Some(NotKeeping::DiskFull), vec![Notice::DiskFull]),
            (Some(NotKeeping::QuotaFull), vec![Notice::QuotaFull]),
            (Some(NotKeeping::ReadOnly), vec![Notice::StoreFailed]),
        ];
        for (why, told) in table {
            let (mut trouble, now) = (Trouble::default(), Instant::now());
            assert_eq!(trouble.fold(&not_keeping(why), now), told, "{why:?}");
            for minutes in 1..180 {
                let later = trouble.fold(&not_keeping(why), now + MINUTE * minutes);
                assert_eq!(later, [], "a state that goes on is not news ({why:?}, {minutes} min)");
            }
        }
    }

    #[test]
    fn the_same_trouble_comes_back_at_most_once_an_hour() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        let full = not_keeping(Some(NotKeeping::DiskFull));
        let mut told = Vec::new();
        for minutes in 0..120 {
            let now = now + MINUTE * minutes;
            if !trouble.fold(&full, now).is_empty() {
                told.push(minutes);
            }
            trouble.fold(&snapshot(), now + MINUTE / 2);
        }
        assert_eq!(told, [0, 60], "it comes and goes each minute, and is told once an hour");
    }

    #[test]
    fn two_troubles_do_not_silence_each_other() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.fold(&not_keeping(Some(NotKeeping::DiskFull)), now), [Notice::DiskFull]);
        let read_only = trouble.fold(&not_keeping(Some(NotKeeping::ReadOnly)), now + MINUTE);
        assert_eq!(read_only, [Notice::StoreFailed]);
    }

    #[test]
    fn a_registry_is_missed_only_after_a_minute_and_only_by_a_pull() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        let waiting = hub_down_during_a_pull_of("docker.io/library/nginx");
        let mut idle = waiting.clone();
        idle.pulls.clear();
        assert_eq!(trouble.fold(&waiting, now), [], "it may be back in a moment");
        assert_eq!(trouble.due(now), Some(now + MINUTE), "time alone can make it trouble");
        assert_eq!(trouble.fold(&idle, now + MINUTE), [], "nobody waits for it");
        assert_eq!(trouble.fold(&waiting, now + MINUTE * 2), [hub_down()]);
        assert_eq!(trouble.due(now + MINUTE * 2), None, "nothing is left to wait for");
    }

    #[test]
    fn a_registry_that_answers_in_between_starts_its_minute_anew() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        let waiting = hub_down_during_a_pull_of("docker.io/library/nginx");
        trouble.fold(&waiting, now);
        trouble.fold(&snapshot(), now + MINUTE / 2);
        assert_eq!(trouble.due(now + MINUTE / 2), None, "a registry that answers is no trouble to come");
        assert_eq!(trouble.fold(&waiting, now + MINUTE), []);
        assert_eq!(trouble.fold(&waiting, now + MINUTE * 2), [hub_down()]);
    }

    #[test]
    fn a_pull_from_one_registry_does_not_miss_another() {
        for image in ["ghcr.io/docker.io/x", "docker.io.example.org/x"] {
            let (mut trouble, now) = (Trouble::default(), Instant::now());
            let waiting = hub_down_during_a_pull_of(image);
            trouble.fold(&waiting, now);
            assert_eq!(trouble.fold(&waiting, now + MINUTE * 2), [], "{image} is not on docker.io");
        }
    }

    #[test]
    fn every_notice_has_texts_in_both_languages() {
        for locale in Locale::ALL {
            for notice in [Notice::DiskFull, Notice::QuotaFull, Notice::StoreFailed, hub_down()] {
                let (title, body) = notice.texts(locale);
                for text in [&title, &body] {
                    assert!(!text.contains("notify.") && !text.contains("%{"), "{notice:?}: {text:?}");
                }
                assert_ne!(title, body);
            }
            let (title, _) = texts("port_taken", &[], locale);
            assert!(!title.contains("notify."), "{locale:?} has no title for a taken port");
        }
    }
}
