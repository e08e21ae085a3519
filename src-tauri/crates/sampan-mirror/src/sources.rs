//! Who is asked for what: a registry's origin, its mirrors, and which one of them is believed about tags.
//!
//! Where a tag points, and what a repository has, only the trusted one says. Bytes have a digest, so they may come from
//! any: from whichever is quickest now (`weather`). One that sends other bytes than asked for is dropped (`liar` finds out
//! which one it was), until a person puts it back or a day passes.

mod liar;
mod manifest;
mod weather;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use sampan_oci::{Clock, Digest, Event, ImageName, Lie, Millis, RegistryName, RepositoryName};
use sampan_upstream::{Upstream, Url};
use tokio::time::Instant;

use crate::EventSink;
use crate::download::Link;
pub(crate) use liar::{Brought, Evidence, Receipt};
pub(crate) use weather::Weather;

/// How long it is remembered that an upstream does not have something (SECURITY.md R38).
const ABSENT_FOR: Duration = Duration::from_mins(1);
/// How many such things are remembered; beyond it all are forgotten.
const ABSENT_MAX: usize = 4096;
/// How long one that lied is asked nothing, unless a person puts it back.
const DROPPED_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// That an upstream was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When.
    pub at: Millis,
    /// What it did.
    pub lie: Lie,
    /// The repository it was asked for.
    pub image: ImageName,
    /// What it was asked for.
    pub digest: Digest,
}

/// The upstreams of one registry, as a person chose them.
#[derive(Clone, Debug)]
pub struct RegistryUpstreams {
    /// The registry itself. It is never dropped.
    pub origin: Upstream,
    /// Others that have its content.
    pub mirrors: Vec<Upstream>,
    /// Which of the mirrors is believed about tags; `None`: the origin is.
    pub trusted: Option<Url>,
}

/// How one upstream does.
#[derive(Clone, Debug)]
pub struct UpstreamWeather {
    /// The upstream.
    pub upstream: Upstream,
    /// Whether it is the registry itself.
    pub is_origin: bool,
    /// Whether it says where tags point.
    pub is_trusted: bool,
    /// Blob bytes per second, smoothed, as last measured.
    pub rate: Option<u64>,
    /// The time to an answer's head, smoothed.
    pub first_byte: Option<Duration>,
    /// Failures, each counting less as it is forgotten: whole ones.
    pub failures: u32,
    /// Blob bytes it brought since the start.
    pub bytes: u64,
    /// How much longer it is left alone, because it did not answer.
    pub rests_for: Option<Duration>,
    /// That it lied, and is asked nothing.
    pub dropped: Option<Dropped>,
}

/// One upstream among those of its registry.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) upstream: Upstream,
    pub(crate) is_origin: bool,
    pub(crate) link: Arc<Link>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    absent: HashMap<Digest, Instant>,
    absent_in: HashMap<RepositoryName, Instant>,
    dropped: Option<Dropped>,
}

impl Source {
    fn new(upstream: Upstream, is_origin: bool, connections_max: usize) -> Self {
        let link = Arc::new(Link::new(connections_max));
        Self { upstream, is_origin, link, state: Mutex::default() }
    }

    /// Reads or changes its weather.
    pub(crate) fn weather<T>(&self, look: impl FnOnce(&mut Weather) -> T) -> T {
        look(&mut self.state().weather)
    }

    /// It does not have this blob or manifest.
    pub(crate) fn lacks(&self, image: &ImageName, digest: &Digest) {
        let now = Instant::now();
        let mut state = self.state();
        if state.absent.len() >= ABSENT_MAX {
            state.absent.clear();
            state.absent_in.clear();
        }
        state.absent.insert(*digest, now);
        state.absent_in.insert(image.repository.clone(), now);
    }

    /// Whether it said a moment ago that it does not have this.
    pub(crate) fn is_known_to_lack(&self, digest: &Digest) -> bool {
        self.state().absent.get(digest).is_some_and(|at| at.elapsed() < ABSENT_FOR)
    }

    /// Whether it said a moment ago that it does not have something else of that repository: likely, it has nothing of it.
    fn is_likely_to_lack(&self, image: &ImageName) -> bool {
        self.state().absent_in.get(&image.repository).is_some_and(|at| at.elapsed() < ABSENT_FOR)
    }

    /// It has something of that repository.
    pub(crate) fn has(&self, image: &ImageName) {
        self.state().absent_in.remove(&image.repository);
    }

    fn dropped(&self, now: Millis) -> Option<Dropped> {
        self.state().dropped.clone().filter(|dropped| now.since(dropped.at) < DROPPED_MILLIS)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The upstreams of one registry.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The origin first.
    all: Vec<Arc<Source>>,
    trusted: usize,
    clock: Arc<dyn Clock>,
    sink: EventSink,
}

impl Sources {
    /// The one that says where tags point, and what a repository has; the origin in place of one that was dropped.
    pub(crate) fn trusted(&self) -> Option<&Arc<Source>> {
        let now = self.clock.now();
        let trusted = self.all.get(self.trusted).filter(|source| source.dropped(now).is_none());
        trusted.or(self.origin())
    }

    /// The registry itself.
    pub(crate) fn origin(&self) -> Option<&Arc<Source>> {
        self.all.first()
    }

    /// The registry itself, asked by this upstream (it with a login) and by nobody else, over the same connections.
    pub(crate) fn only(&self, origin: Upstream) -> Option<Arc<Self>> {
        let link = self.origin()?.link.clone();
        let source = Source { upstream: origin, is_origin: true, link, state: Mutex::default() };
        let (clock, sink) = (self.clock.clone(), self.sink.clone());
        Some(Arc::new(Self { all: vec![Arc::new(source)], trusted: 0, clock, sink }))
    }

    /// Whether bytes of any of them came lately.
    pub(crate) fn is_hopeful(&self) -> bool {
        self.all.iter().any(|source| source.link.is_hopeful())
    }

    /// Whether nobody is asked now, because nobody answered: of those that may be asked for bytes, or of the trusted one
    /// where the repository is not known to have them.
    pub(crate) fn all_rest(&self, proven: bool) -> bool {
        let (now, wall) = (Instant::now(), self.clock.now());
        let rests = |source: &Arc<Source>| {
            source.upstream.health().resting || source.weather(|weather| weather.is_resting(now))
        };
        let trusted_rests = self.trusted().is_none_or(|trusted| trusted.upstream.health().resting);
        let others_rest = || {
            let fit = |source: &&Arc<Source>| source.is_origin || source.dropped(wall).is_none();
            self.all.iter().filter(fit).all(rests)
        };
        trusted_rests && (!proven || self.is_alone() || others_rest())
    }

    /// Whether there is but one.
    pub(crate) fn is_alone(&self) -> bool {
        self.all.len() == 1
    }

    /// Who may be asked for these bytes, most promising first; never empty unless there is nobody.
    pub(crate) fn for_bytes(
        &self,
        image: &ImageName,
        digest: &Digest,
        bytes: Option<u64>,
    ) -> Vec<Arc<Source>> {
        let (now, wall) = (Instant::now(), self.clock.now());
        let trusted = self.trusted();
        let is_trusted = |source: &Arc<Source>| trusted.is_some_and(|trusted| Arc::ptr_eq(trusted, source));
        let mut fit: Vec<_> = self
            .all
            .iter()
            .filter(|source| source.is_origin || source.dropped(wall).is_none())
            .filter(|source| is_trusted(source) || !source.is_known_to_lack(digest))
            .cloned()
            .collect();
        let usual = fit.iter().filter_map(|source| source.weather(|weather| weather.last_rate())).max();
        fit.sort_by_cached_key(|source| {
            let expected = source.weather(|weather| weather.expected_seconds(bytes, usual, now));
            let last = source.weather(|weather| weather.is_doubtful()) || source.is_likely_to_lack(image);
            (last, millis(expected))
        });
        fit
    }

    /// That an upstream lied is told to everybody: the log, the events, and the weather. A mirror is dropped; the origin is
    /// named, and its bytes are the last ones asked for a while.
    pub(crate) fn lied(&self, source: &Source, lie: Lie, image: &ImageName, digest: &Digest) {
        let (at, url) = (self.clock.now(), source.upstream.url().to_string());
        let dropped = !source.is_origin;
        if dropped {
            if source.dropped(at).is_some() {
                return;
            }
            source.state().dropped = Some(Dropped { at, lie, image: image.clone(), digest: *digest });
            tracing::warn!(upstream = %url, %image, %digest, lie = lie.as_str(), "an upstream lied and is dropped for a day");
        } else {
            source.weather(|weather| weather.failed(Instant::now()));
            tracing::warn!(upstream = %url, %image, %digest, lie = lie.as_str(), "the registry itself sent something wrong");
        }
        let (image, digest) = (image.clone(), *digest);
        self.sink.tell(&Event::Lied { at, image, digest, url, lie, dropped });
    }

    fn weather(&self) -> Vec<UpstreamWeather> {
        let (now, wall) = (Instant::now(), self.clock.now());
        let trusted = self.trusted().cloned();
        let shown = |source: &Arc<Source>| {
            let dropped = source.dropped(wall);
            let state = source.state();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            UpstreamWeather {
                upstream: source.upstream.clone(),
                is_origin: source.is_origin,
                is_trusted: trusted.as_ref().is_some_and(|trusted| Arc::ptr_eq(trusted, source)),
                rate: state.weather.last_rate(),
                first_byte: state.weather.first_byte(),
                failures: state.weather.failures(now).round() as u32,
                bytes: state.weather.bytes(),
                rests_for: state.weather.rests_until(now).map(|until| until - now),
                dropped,
            }
        };
        self.all.iter().map(shown).collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an order of some seconds")]
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// The registries behind the mirror, and the upstreams of each. Never a registry that a person did not name.
#[derive(Debug)]
pub(crate) struct Registries {
    all: RwLock<HashMap<RegistryName, Arc<Sources>>>,
    connections_max: usize,
    clock: Arc<dyn Clock>,
    sink: EventSink,
}

impl Registries {
    /// Each with its origin alone.
    pub(crate) fn new(
        origins: Vec<Upstream>,
        connections_max: usize,
        clock: Arc<dyn Clock>,
        sink: EventSink,
    ) -> Self {
        let registries = Self { all: RwLock::default(), connections_max, clock, sink };
        for origin in origins {
            registries.set(RegistryUpstreams { origin, mirrors: Vec::new(), trusted: None });
        }
        registries
    }

    /// The upstreams of a registry, if it is one of those a person named.
    pub(crate) fn of(&self, registry: &RegistryName) -> Option<Arc<Sources>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(registry).cloned()
    }

    /// Whether that registry is mirrored.
    pub(crate) fn has(&self, registry: &RegistryName) -> bool {
        self.all.read().unwrap_or_else(PoisonError::into_inner).contains_key(registry)
    }

    /// These are the upstreams of their registry from now on. What is known of one that stays, stays known.
    pub(crate) fn set(&self, upstreams: RegistryUpstreams) {
        let RegistryUpstreams { origin, mirrors, trusted } = upstreams;
        let registry = origin.registry().clone();
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(&registry).cloned();
        let known = |upstream: &Upstream, is_origin: bool| {
            let before = before.as_ref().map(|sources| sources.all.as_slice()).unwrap_or_default();
            let same = before.iter().find(|s| s.upstream.url() == upstream.url() && s.is_origin == is_origin);
            same.cloned()
        };
        let source = |upstream: Upstream, is_origin: bool| {
            known(&upstream, is_origin)
                .unwrap_or_else(|| Arc::new(Source::new(upstream, is_origin, self.connections_max)))
        };
        let sources: Vec<_> = std::iter::once(source(origin, true))
            .chain(mirrors.into_iter().map(|mirror| source(mirror, false)))
            .collect();
        let trusted = trusted.and_then(|url| sources.iter().position(|s| *s.upstream.url() == url));
        let (clock, sink) = (self.clock.clone(), self.sink.clone());
        let sources = Sources { all: sources, trusted: trusted.unwrap_or(0), clock, sink };
        all.insert(registry, Arc::new(sources));
    }

    /// That registry is mirrored no longer.
    pub(crate) fn remove(&self, registry: &RegistryName) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(registry);
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Sources>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = all.iter().map(|(name, sources)| (name.clone(), sources.clone())).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named.into_iter().map(|(_, sources)| sources).collect()
    }

    /// How the upstreams of each registry do: the registries by name, of each its origin first.
    pub(crate) fn weather(&self) -> Vec<Vec<UpstreamWeather>> {
        self.all().iter().map(|sources| sources.weather()).collect()
    }

    /// Puts back one that was dropped, or (with `dropped`) drops one, as an earlier run did. Whether there is such a one.
    pub(crate) fn set_dropped(&self, registry: &RegistryName, url: &Url, dropped: Option<Dropped>) -> bool {
        let Some(sources) = self.of(registry) else { return false };
        let Some(source) = sources.all.iter().find(|s| s.upstream.url() == url && !s.is_origin) else {
            return false;
        };
        source.state().dropped = dropped;
        true
    }
}
