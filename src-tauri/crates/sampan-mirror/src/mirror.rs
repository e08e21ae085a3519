//! The mirror as the rest of Sampan sees it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sampan_oci::{Clock, Digest, Event, ImageName, Reference, RegistryName, Tag, TransferId};
use sampan_store::{BlobFile, Store};
use sampan_upstream::{Upstream, Url};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::age::Ages;
use crate::ask::{Counts, Overdue, Refreshed, TagAnswers};
use crate::attestations::Attestations;
use crate::download::{Downloads, Limits, Throttle};
use crate::error::PullError;
use crate::freshness::{Freshness, Policy};
use crate::manifests::Resolved;
use crate::parsed::Parsed;
use crate::passthrough::Passage;
use crate::plan::Word;
use crate::private::Private;
use crate::probe::{Probe, ProbeTicket};
use crate::single_flight::SingleFlight;
use crate::sources::{Dropped, Registries, RegistryUpstreams, Sources, UpstreamWeather};
use crate::{Tasks, server};

/// Takes every [`Event`] the moment it happens. Called on request tasks: it must be quick and must not block.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(&Event) + Send + Sync>);

impl EventSink {
    /// A sink that calls `take` with each event.
    pub fn new(take: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn tell(&self, event: &Event) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

/// What a mirror is made of.
#[derive(Debug)]
pub struct MirrorOptions {
    /// Where blobs and manifests are kept.
    pub store: Store,
    /// The registries behind the mirror. Any other is refused: this is never an open proxy.
    pub upstreams: Vec<Upstream>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who hears what happens.
    pub sink: EventSink,
    /// Who owns downloads and connections.
    pub tasks: Tasks,
    /// How often tags are asked about.
    pub freshness: Freshness,
    /// How long a held tag waits for the upstream's word before it is served stale.
    pub revalidate_timeout: Duration,
    /// The most connections to one upstream: 1 or more.
    pub connections_max: usize,
    /// How long a download waits out an outage while a client listens.
    pub outage_wait: Duration,
    /// Bytes per second that all downloads share; `None`: as fast as they come.
    pub speed_limit: Option<u64>,
}

/// A registry mirror. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sink: EventSink,
    pub(crate) tasks: Tasks,
    pub(crate) revalidate_timeout: Duration,
    pub(crate) downloads: Downloads,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) passage: Passage,
    pub(crate) fetching: SingleFlight<(ImageName, Reference), Result<Resolved, PullError>>,
    /// Blobs on disk that are hashed.
    pub(crate) checking: SingleFlight<Digest, Result<(bool, BlobFile), PullError>>,
    pub(crate) asking: SingleFlight<(ImageName, Reference), Word>,
    pub(crate) parsed: Parsed,
    pub(crate) attestations: Attestations,
    pub(crate) ages: Ages,
    pub(crate) overdue: Overdue,
    pub(crate) counts: Counts,
    pub(crate) probe: Probe,
    pub(crate) private: Private,
    registries: Registries,
    freshness: Mutex<Arc<Freshness>>,
    paused: AtomicBool,
    offline: AtomicBool,
    next_id: AtomicU64,
}

impl Mirror {
    /// A mirror that serves nothing yet.
    pub fn new(options: MirrorOptions) -> Self {
        let MirrorOptions {
            store,
            upstreams,
            clock,
            sink,
            tasks,
            freshness,
            revalidate_timeout,
            connections_max,
            outage_wait,
            speed_limit,
        } = options;
        let ages = Ages::new(&*clock);
        let throttle = Arc::new(Throttle::new(speed_limit));
        let limits = Limits { outage_wait, throttle: throttle.clone() };
        let passage = Passage::new(outage_wait, throttle.clone(), clock.clone(), sink.clone());
        let downloads = Downloads::new(store.clone(), clock.clone(), sink.clone(), tasks.clone(), limits);
        let registries = Registries::new(upstreams, connections_max, clock.clone(), sink.clone());
        Self {
            inner: Arc::new(Inner {
                store,
                clock,
                sink,
                tasks,
                revalidate_timeout,
                downloads,
                throttle,
                passage,
                fetching: SingleFlight::default(),
                checking: SingleFlight::default(),
                asking: SingleFlight::default(),
                parsed: Parsed::default(),
                attestations: Attestations::default(),
                ages,
                overdue: Overdue::default(),
                counts: Counts::default(),
                freshness: Mutex::new(Arc::new(freshness)),
                probe: Probe::default(),
                private: Private::default(),
                registries,
                paused: AtomicBool::new(false),
                offline: AtomicBool::new(false),
                next_id: AtomicU64::new(1),
            }),
        }
    }

    /// Serves on `listener` until `stop` is cancelled, then lets running answers finish for a moment.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        server::serve(self.inner.clone(), listener, stop).await;
    }

    /// While paused, what is held is served and the rest passes through without being kept. Running downloads end at once;
    /// their bytes stay for later, and their clients go on without the cache.
    pub fn set_paused(&self, paused: bool) {
        self.inner.paused.store(paused, Ordering::Relaxed);
        self.inner.downloads.set_paused(paused);
    }

    /// Whether anything is fetched that nobody asked for: the attestations of what was pulled. It is, unless told
    /// otherwise; a link that is paid for by the byte is a reason to.
    pub fn set_fetch_unasked(&self, wanted: bool) {
        self.inner.attestations.set_wanted(wanted);
    }

    /// While offline no upstream is asked anything: what is held is served, stale tags marked as such, and the rest fails
    /// at once. Requests under way end; running downloads keep their bytes and wait, as they wait out an outage.
    pub fn set_offline(&self, offline: bool) {
        self.inner.offline.store(offline, Ordering::Relaxed);
        for upstream in self.upstreams() {
            upstream.set_offline(offline);
        }
    }

    /// Asks about tags as often as these policies say, from now on.
    pub fn set_freshness(&self, freshness: Freshness) {
        *self.inner.freshness.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(freshness);
    }

    /// Asks now where a tag points, because a person wants it; its manifest is fetched where it moved.
    pub async fn refresh(&self, image: &ImageName, tag: &Tag) -> Refreshed {
        self.inner.refresh(image, tag).await
    }

    /// How answers about tags came about, since the mirror began.
    pub fn tag_answers(&self) -> TagAnswers {
        self.inner.counts.read()
    }

    /// Lets all downloads together take at most `limit` bytes per second, from now on; `None` lifts the limit.
    pub fn set_speed_limit(&self, limit: Option<u64>) {
        self.inner.throttle.set(limit);
    }

    /// The limit in force, in bytes per second; `None`: there is none.
    pub fn speed_limit(&self) -> Option<u64> {
        self.inner.throttle.limit()
    }

    /// Of each registry behind the mirror, by name, the upstream that says where tags point.
    pub fn upstreams(&self) -> impl Iterator<Item = Upstream> {
        let trusted = |sources: &Arc<Sources>| sources.trusted().map(|source| source.upstream.clone());
        self.inner.registries.all().into_iter().filter_map(move |sources| trusted(&sources))
    }

    /// Of each registry behind the mirror, by name, the registry itself.
    pub fn origins(&self) -> impl Iterator<Item = Upstream> {
        let origin = |sources: &Arc<Sources>| sources.origin().map(|source| source.upstream.clone());
        self.inner.registries.all().into_iter().filter_map(move |sources| origin(&sources))
    }

    /// These are the upstreams of their registry from now on, which is mirrored from now on if it was not. Downloads under
    /// way end as they began. What is known of an upstream that stays, stays known.
    pub fn set_upstreams(&self, upstreams: RegistryUpstreams) {
        self.inner.registries.set(upstreams);
    }

    /// That registry is mirrored no longer. What is held of it stays on disk.
    pub fn remove_registry(&self, registry: &RegistryName) {
        self.inner.registries.remove(registry);
    }

    /// How the upstreams of each registry do: the registries by name, of each its origin first.
    pub fn weather(&self) -> Vec<Vec<UpstreamWeather>> {
        self.inner.registries.weather()
    }

    /// Puts a mirror back that lied (`None`), or drops it as an earlier run did. Whether there is such a one.
    pub fn set_dropped(&self, registry: &RegistryName, url: &Url, dropped: Option<Dropped>) -> bool {
        self.inner.registries.set_dropped(registry, url, dropped)
    }

    /// Makes a tiny image that an engine can be told to pull, to prove that it asks this mirror.
    pub fn arm_probe(&self) -> ProbeTicket {
        self.inner.probe.arm(self.inner.clock.now())
    }

    /// Stops serving that image.
    pub fn disarm_probe(&self) {
        self.inner.probe.disarm();
    }
}

impl Inner {
    /// The upstream that is believed about what a registry has, and where its tags point.
    pub(crate) fn upstream(&self, registry: &RegistryName) -> Option<Upstream> {
        Some(self.registries.of(registry)?.trusted()?.upstream.clone())
    }

    /// The registry itself: a login is for nobody else.
    pub(crate) fn origin(&self, registry: &RegistryName) -> Option<Upstream> {
        Some(self.registries.of(registry)?.origin()?.upstream.clone())
    }

    /// Everybody who may be asked for the bytes of an image: of a private one, the registry itself with a login alone. What
    /// it is called is no mirror's business.
    pub(crate) fn sources_for(&self, image: &ImageName) -> Option<Arc<Sources>> {
        let sources = self.registries.of(&image.registry)?;
        match self.private_upstream(image) {
            Some(with_login) => sources.only(with_login),
            None => self.upstream_for(image).map(|_| sources),
        }
    }

    /// Whether a manifest fetched now would be one of the last few its registry allows, and nobody else can be asked.
    pub(crate) fn spends_the_last(&self, image: &ImageName) -> bool {
        self.sources_for(image).is_some_and(|sources| {
            sources.is_alone() && sources.trusted().is_some_and(|trusted| trusted.upstream.is_low())
        })
    }

    /// Whether that registry is mirrored.
    pub(crate) fn is_mirrored(&self, registry: &RegistryName) -> bool {
        self.registries.has(registry)
    }

    /// What holds for the tags of an image.
    pub(crate) fn policy(&self, image: &ImageName) -> Policy {
        self.freshness.lock().unwrap_or_else(PoisonError::into_inner).policy(image)
    }

    pub(crate) fn offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    pub(crate) fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) fn next_id(&self) -> TransferId {
        TransferId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn tell_fetched(&self, image: &ImageName, digest: Digest, bytes: u64) {
        let (at, image, digest) = (self.clock.now(), image.clone(), Some(digest));
        self.sink.tell(&Event::Fetched { at, image, digest, bytes });
    }
}
