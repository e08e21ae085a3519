//! The running Sampan.

mod answer;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sampan_mirror::{EventSink, Mirror, MirrorOptions, Tasks};
use sampan_oci::{Clock, Event, Failure, Millis, Outcome};
use sampan_stats::{Stats, engine_asked};
use sampan_store::{Store, StoreOptions};
use sampan_upstream::{Upstream, UpstreamConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiError, Cache, Code, Command, Reply, Settings, Snapshot};
use crate::cache::{Keeper, Undos};
use crate::housekeeping::{self, Wakes};
use crate::pause::Pause;
use crate::scrub::{self, Scrubs};
use crate::socket::{ControlSocket, Handler};
use crate::start::{StartError, listen, make_private};
use crate::state::{Keeping, mirror_state, same};
use crate::task::TaskSlot;
use crate::upstreams::Chooser;
use crate::{
    Config, Surroundings, SystemClock, allowance, cache, convert, docker, freshness, prefetch, private,
};

/// How often the state is looked at for something new to show.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked at all the same: free disk space changes without an event.
const LOOK_ANYWAY_EVERY: u32 = 120;
/// After how many looks an upstream that did not answer is asked again: once a minute.
const ASK_SILENT_EVERY: u32 = 240;
/// How long tasks may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A running Sampan. Cheap to clone; [`shutdown`](Self::shutdown) ends it for all clones.
#[derive(Clone)]
pub struct App {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Store,
    pub(crate) stats: Stats,
    pub(crate) mirror: Mirror,
    pub(crate) environment: sampan_docker::Environment,
    /// Whether the next start will have the same port.
    pub(crate) port_is_fixed: bool,
    /// Written: one change of what pulls images at a time. Read: a look that none may disturb.
    pub(crate) changing_docker: tokio::sync::RwLock<()>,
    pub(crate) drift: docker::Watch,
    pub(crate) last_used: AtomicI64,
    /// When bytes last flowed.
    pub(crate) flowed: AtomicI64,
    /// Something changed that the events do not tell of.
    pub(crate) shows_something_new: AtomicBool,
    pub(crate) keeping: Keeping,
    pub(crate) undos: Undos,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) scrubs: Scrubs,
    pub(crate) task: TaskSlot,
    pub(crate) chooser: Chooser,
    pub(crate) prefetch: prefetch::Queue,
    /// The counts of damage, as last read.
    pub(crate) health: Mutex<api::Health>,
    /// Free bytes of the disk that are left alone.
    pub(crate) floor_bytes: u64,
    /// The network file system the cache is on.
    pub(crate) network: Option<&'static str>,
    pub(crate) lower_quota: Mutex<Option<u64>>,
    /// Grows with each change of the list of images.
    pub(crate) listed: AtomicU64,
    pub(crate) private: private::Rules,
    tasks: Tasks,
    stop: CancellationToken,
    /// Cancelled once the mirror has let its connections end.
    drained: CancellationToken,
    started: Millis,
    sequence: AtomicU64,
    settings: Mutex<Settings>,
    changing_settings: tokio::sync::Mutex<()>,
    pause: Mutex<Pause>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// One at a time, or an older snapshot could come after a newer one and stay.
    refreshing: tokio::sync::Mutex<()>,
    open_window: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl App {
    /// Takes the port, the cache and the control socket, then starts to serve.
    /// # Errors
    /// [`StartError`]: nothing runs and nothing was changed but folders made.
    pub async fn start(config: Config, surroundings: &Surroundings) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        make_private(&config.state_dir)?;
        // The control socket first: a second start with the same folders should hear "already runs", not "port taken".
        let socket = ControlSocket::open(&config.state_dir)?;
        let listener = listen(config.listen).await?;
        let disk = sampan_store::disk_space(&config.cache_dir);
        let floor_bytes = config
            .free_space_floor_bytes
            .unwrap_or_else(|| cache::default_floor(disk.map(|disk| disk.total_bytes)));
        let options = StoreOptions {
            free_space_floor_bytes: floor_bytes,
            ..StoreOptions::new(config.cache_dir.clone(), clock.clone())
        };
        let store = Store::open(options)
            .map_err(|source| StartError::Cache { folder: config.cache_dir.clone(), source })?;
        let network = sampan_store::network_of(&config.cache_dir);
        if let Some(network) = network {
            let dir = config.cache_dir.display();
            tracing::warn!(%dir, network, "the cache is on a network file system: locks and renames are not dependable there; choose a folder on a disk of this machine");
        }
        let stats =
            Stats::open(&config.state_dir.join("stats.db"), clock.clone(), jiff::tz::TimeZone::system())?;
        let client = sampan_upstream::client()?;
        let upstreams = config.upstreams.iter().map(|(registry, url)| {
            Upstream::new(UpstreamConfig { registry: registry.clone(), url: url.clone() }, client.clone())
        });
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let upstreams = upstreams.collect();
        // With port 0 the system chose: everything after this must name the real one.
        let port_is_fixed = config.listen.port() != 0;
        let mut config = config;
        config.listen =
            listener.local_addr().map_err(|source| StartError::Listen { listen: config.listen, source })?;
        let inner = Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let theirs = inner.clone();
            let sink = EventSink::new(move |event| {
                if let Some(inner) = theirs.upgrade() {
                    inner.take(event);
                }
            });
            let mirror = Mirror::new(MirrorOptions {
                store: store.clone(),
                upstreams,
                clock: clock.clone(),
                sink,
                tasks: tasks.clone(),
                freshness: freshness::rules(&config.settings.freshness),
                revalidate_timeout: config.revalidate_timeout,
                connections_max: config.connections,
                outage_wait: config.outage_wait,
                speed_limit: config.settings.speed_limit,
            });
            mirror.set_offline(config.settings.offline);
            let started = clock.now();
            let snapshot = Arc::new(convert::empty_snapshot(&config, started));
            Inner {
                environment: surroundings.docker(&config),
                port_is_fixed,
                changing_docker: tokio::sync::RwLock::new(()),
                drift: docker::Watch::open(&config.state_dir),
                private: private::Rules::open(&config.state_dir, surroundings.docker_logins()),
                last_used: AtomicI64::new(stats.last_used().map_or(i64::MIN, |at| at.0)),
                settings: Mutex::new(config.settings.clone()),
                changing_settings: tokio::sync::Mutex::new(()),
                flowed: AtomicI64::new(i64::MIN),
                shows_something_new: AtomicBool::new(false),
                keeping: Keeping::of(&store),
                undos: Undos::default(),
                wakes: Arc::default(),
                scrubs: Scrubs::default(),
                task: TaskSlot::default(),
                chooser: Chooser::open(client.clone(), &config),
                prefetch: prefetch::Queue::open(&config.state_dir, started),
                health: Mutex::default(),
                floor_bytes,
                network,
                lower_quota: Mutex::default(),
                listed: AtomicU64::new(0),
                sequence: AtomicU64::new(1),
                pause: Mutex::default(),
                snapshots: watch::Sender::new(snapshot),
                refreshing: tokio::sync::Mutex::default(),
                open_window: Mutex::default(),
                config,
                clock,
                store,
                stats,
                mirror,
                tasks,
                stop,
                drained: CancellationToken::new(),
                started,
            }
        });
        let app = Self { inner };
        app.recall().await;
        app.run(listener, socket);
        Ok(app)
    }

    /// What was chosen, and what was known, when Sampan ended last.
    async fn recall(&self) {
        let inner = &self.inner;
        let settings = inner.settings();
        inner.recall_upstreams().await;
        allowance::recall(&inner.stats, &inner.mirror, inner.started);
        inner.keep_by(&settings, None).await;
        inner.enforce_private();
        inner.prefetch_by(&settings);
        inner.read_health().await;
        inner.refresh().await;
    }

    fn run(&self, listener: tokio::net::TcpListener, socket: ControlSocket) {
        let inner = self.inner.clone();
        self.inner.tasks.spawn("mirror", |_| async move {
            inner.mirror.serve(listener, inner.stop.clone()).await;
            inner.drained.cancel();
        });
        let (handler, stop) = (Arc::new(self.clone()), self.inner.stop.clone());
        self.inner.tasks.spawn("socket", |_| socket.serve(handler, stop));
        let inner = self.inner.clone();
        self.inner.tasks.spawn("docker", |token| async move {
            docker::recover(&inner).await;
            docker::watch(&inner, token).await;
        });
        let inner = self.inner.clone();
        self.inner.tasks.spawn("state", |token| async move { inner.look(token).await });
        let inner = self.inner.clone();
        self.inner.tasks.spawn("prefetch", |token| inner.run_prefetch(token));
        let (keeper, wakes) = (Keeper(self.inner.clone()), self.inner.wakes.clone());
        self.inner.tasks.spawn("housekeeping", |token| housekeeping::run(keeper, wakes, token));
    }

    /// Carries out a command. [`Command::Watch`] is answered with one snapshot here; see [`snapshots`](Self::snapshots).
    pub async fn call(&self, command: Command) -> Reply {
        self.inner.clone().answer(command).await.unwrap_or_else(Reply::Error)
    }

    /// The state now, and again after each change.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshots.subscribe()
    }

    /// Says how a window is opened. Without it [`Command::OpenWindow`] answers [`Code::NoDesktop`].
    pub fn on_open_window(&self, open: impl Fn() + Send + Sync + 'static) {
        *locked(&self.inner.open_window) = Some(Arc::new(open));
    }

    /// The address engines are pointed at.
    pub fn listen(&self) -> std::net::SocketAddr {
        self.inner.config.listen
    }

    /// The configuration in use.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Stops taking requests, lets answers end for a moment, writes the numbers down.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        // Answers end first; downloads are cancelled only with the rest.
        let _ = tokio::time::timeout(END_WITHIN, self.inner.drained.cancelled()).await;
        let left = self.inner.tasks.shutdown(END_WITHIN).await;
        if left > 0 {
            tracing::warn!(left, "tasks did not end in time");
        }
        if let Err(error) = self.inner.store.flush().await {
            tracing::error!(%error, "the last uses could not be written");
        }
        allowance::keep(&self.inner.stats, &self.inner.mirror, self.inner.clock.now(), Duration::MAX).await;
        let stats = self.inner.stats.clone();
        match tokio::task::spawn_blocking(move || stats.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the last numbers could not be written"),
            Err(error) => tracing::error!(%error, "the last numbers could not be written"),
        }
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("listen", &self.inner.config.listen).finish_non_exhaustive()
    }
}

impl Handler for App {
    fn call(&self, command: Command) -> BoxFuture<'_, Reply> {
        Box::pin(Self::call(self, command))
    }

    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        Self::snapshots(self)
    }
}

impl Inner {
    fn take(&self, event: &Event) {
        self.stats.record(event);
        if self.chooser.learn(event) {
            self.shows_something_new.store(true, Ordering::Relaxed);
        }
        if self.keeping.learn(event) {
            self.tell_not_keeping();
        }
        // The newest and not the latest: a clock that was set back must not hide what flows.
        self.flowed.store(scrub::flowed(event).0, Ordering::Relaxed);
        if let Event::Answered(answered) = event
            && answered.outcome == Outcome::Failed(Failure::NotFound)
        {
            // Perhaps it is private, and there is something to say about it.
            self.shows_something_new.store(true, Ordering::Relaxed);
        }
        if let Some(at) = engine_asked(event) {
            self.last_used.fetch_max(at.0, Ordering::Relaxed);
        }
    }

    /// A token that is cancelled at the end.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.child_token()
    }

    pub(crate) fn spawn<F>(&self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(name, start);
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Settings {
        locked(&self.settings).clone()
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    pub(crate) fn reach(&self) -> docker::Reach {
        docker::Reach { listen: self.config.listen, fixed: self.port_is_fixed }
    }

    pub(crate) fn last_used(&self) -> Option<i64> {
        Some(self.last_used.load(Ordering::Relaxed)).filter(|at| *at > i64::MIN)
    }

    /// Looks for something new to show, until the end.
    async fn look(&self, token: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut idle, mut silent) = (0, 0);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let pause_ended = self.settle_pause();
            idle += 1;
            silent += 1;
            if silent >= ASK_SILENT_EVERY {
                silent = 0;
                self.ask_silent_upstreams();
            }
            self.keep_upstreams().await;
            let told = self.shows_something_new.swap(false, Ordering::Relaxed);
            if self.stats.tick() || pause_ended || told || idle >= LOOK_ANYWAY_EVERY {
                idle = 0;
                self.refresh().await;
            }
        }
    }

    /// Asks the upstreams that did not answer last time whether they do now: else one lost packet would show a warning
    /// until somebody pulls.
    fn ask_silent_upstreams(&self) {
        for upstream in self.mirror.upstreams().filter(|upstream| upstream.health().reachable == Some(false))
        {
            self.tasks.spawn("ping", |token| async move {
                tokio::select! {
                    answer = upstream.ping() => if let Err(error) = answer {
                        tracing::debug!(registry = %upstream.registry(), %error, "still does not answer");
                    },
                    () = token.cancelled() => {}
                }
            });
        }
    }

    /// Ends a pause whose time has come; says whether it did.
    fn settle_pause(&self) -> bool {
        let mut pause = locked(&self.pause);
        let now = pause.at(self.clock.now());
        let ended = now != *pause;
        *pause = now;
        if ended {
            self.mirror.set_paused(false);
        }
        ended
    }

    /// Whether Sampan is paused now.
    pub(crate) fn is_paused(&self) -> bool {
        locked(&self.pause).at(self.clock.now()) != Pause::Off
    }

    fn set_pause(&self, pause: Pause) {
        *locked(&self.pause) = pause;
        self.mirror.set_paused(pause != Pause::Off);
        self.prefetch.look_again();
    }

    /// Takes a snapshot and tells it if it shows something new.
    pub(crate) async fn refresh(&self) {
        let _one_at_a_time = self.refreshing.lock().await;
        let snapshot = self.snapshot().await;
        self.snapshots.send_if_modified(|current| {
            let new = current.sequence == 0 || !same(current, &snapshot);
            if new {
                *current = Arc::new(snapshot);
            }
            new
        });
    }

    async fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let pause = locked(&self.pause).at(now);
        let paused = pause != Pause::Off;
        let usage = self.store.usage().await.unwrap_or_else(|error| {
            tracing::error!(%error, "the cache cannot be measured");
            sampan_store::Usage::default()
        });
        let pulls: Vec<api::Pull> = self.stats.live().into_iter().map(convert::pull).collect();
        let upstreams: Vec<_> =
            self.mirror.upstreams().map(|upstream| convert::upstream(&upstream, now)).collect();
        let mut cache = Cache {
            dir: self.config.cache_dir.display().to_string(),
            size_bytes: usage.size_bytes,
            partial_bytes: usage.partial_bytes,
            blobs: usage.blobs,
            free_bytes: usage.free_bytes,
            not_keeping: None,
            quota_bytes: self.lower_quota().or(usage.quota_bytes),
            pinned_bytes: usage.pinned_bytes,
            quarantine_bytes: usage.quarantine_bytes,
            own_bytes: usage.own_bytes,
            network: self.network.map(Into::into),
            floor_bytes: self.floor_bytes,
            listed: self.listed.load(Ordering::Relaxed),
            health: *locked(&self.health),
            scrub: self.scrubs.state(),
        };
        cache.not_keeping = self.keeping.not_keeping(paused, self.bounds(&cache));
        let keeps = matches!(cache.not_keeping, None | Some(api::NotKeeping::Paused));
        let settings = self.settings();
        // Offline nobody is asked: what did not answer before is no news.
        let silent = upstreams.iter().any(|upstream| upstream.reachable == Some(false));
        let troubled = !keeps || (silent && !settings.offline);
        Snapshot {
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            at: now.0,
            mirror: api::Mirror {
                version: env!("CARGO_PKG_VERSION").into(),
                listen: self.config.listen.to_string(),
                started: self.started.0,
                state: mirror_state(paused, troubled, &pulls),
                paused_until: pause.until().map(|at| at.0),
                upstreams,
                tag_answers: convert::tag_answers(self.mirror.tag_answers()),
            },
            today: convert::totals(&self.stats.today()),
            cache,
            pulls,
            last_used: self.last_used(),
            settings,
            task: self.task.shown(),
            prefetch: self.prefetch_shown(),
            docker_drift: self.drift.shown(),
            docker_set_up: self.drift.is_set_up(),
            allowances: allowance::gauges(&self.mirror, now),
            private: self.private_images(),
        }
    }

    /// Reads from the statistics' file, off the threads that serve.
    pub(crate) async fn read_stats<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Stats) -> Result<T, sampan_stats::StatsError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let stats = self.stats.clone();
        match tokio::task::spawn_blocking(move || read(&stats)).await {
            Ok(read) => read.map_err(|error| convert::stats_failed(&error)),
            Err(error) => Err(ApiError { code: Code::Internal, message: error.to_string(), next_step: None }),
        }
    }
}

/// A bad value, with what a good one is.
pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError { code: Code::InvalidRequest, message: message.into(), next_step: None }
}
