//! The queue of images that are fetched ahead: one at a time, behind every client, within the quiet hours.

mod book;
mod hours;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use sampan_mirror::{Platforms, PrefetchError, PrefetchFailure, PrefetchProgress, Prefetched};
use sampan_oci::{Millis, Platform};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{
    ApiError, Code, Kept, Metered, Prefetch, PrefetchChange, PrefetchItem, PrefetchJob, PrefetchJobState,
    PrefetchWait, Reply, Settings,
};
use crate::app::{Inner, invalid};
use crate::{convert, image_name};
use book::{Book, has_ended};

/// How often it is looked at whether what is fetched may still be fetched, and whether what waits may begin.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while nothing can begin but by the clock.
const WAIT_AT_MOST: Duration = Duration::from_secs(20);
/// No sooner is a registry asked again whose allowance is used up.
const ALLOWANCE_MILLIS: i64 = 15 * 60_000;
/// What was due while no Sampan ran is asked for within so many milliseconds of the start.
const CATCH_UP_MILLIS: i64 = 10 * 60_000;
/// The most images of one command.
const ITEMS_MAX: usize = 1000;

/// The queue, and what is kept fresh.
#[derive(Debug)]
pub(crate) struct Queue {
    book: Mutex<Book>,
    /// Told when something is not as it was.
    changed: watch::Sender<u64>,
    state_dir: PathBuf,
    /// One writes at a time, or an older book could be written over a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Queue {
    /// As the last run left it.
    pub(crate) fn open(state_dir: &std::path::Path, now: Millis) -> Self {
        let mut book = Book::load(state_dir);
        for kept in book.kept.iter_mut().filter(|kept| kept.next <= now.0) {
            kept.next = now.0 + i64::try_from(jitter()).unwrap_or(0) * CATCH_UP_MILLIS / 1024;
        }
        let changed = watch::Sender::new(0);
        Self {
            book: Mutex::new(book),
            changed,
            state_dir: state_dir.to_owned(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|times| *times += 1);
    }

    /// Something outside of it may let it go on, or stop it.
    pub(crate) fn look_again(&self) {
        self.tell();
    }

    async fn save(&self) -> Result<(), ApiError> {
        let _one_at_a_time = self.writing.lock().await;
        let (book, state_dir) = (self.book().clone(), self.state_dir.clone());
        let saved = tokio::task::spawn_blocking(move || book.save(&state_dir)).await;
        match saved.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "what is to be fetched ahead could not be written down");
                let message = format!("what is to be fetched ahead could not be written down: {error}");
                let next_step = Some("Check the rights and the free space of the state folder.".into());
                Err(ApiError { code: Code::Store, message, next_step })
            }
        }
    }
}

/// 0 to 1023.
fn jitter() -> u64 {
    RandomState::new().build_hasher().finish() % 1024
}

/// A platform as it is shown; `None`: this machine's.
fn platform_text(text: Option<&str>) -> Result<String, ApiError> {
    match text.map(str::trim) {
        None | Some("") => Ok(Platform::of_this_machine().to_string()),
        Some("all") => Ok("all".into()),
        Some(text) => match text.parse::<Platform>() {
            Ok(platform) => Ok(platform.to_string()),
            Err(error) => Err(invalid(format!("`{text}`: {error}, or all"))),
        },
    }
}

/// The same as the mirror takes it.
pub(crate) fn platforms(text: &str) -> Result<Platforms, ApiError> {
    match text {
        "all" => Ok(Platforms::All),
        text => text.parse().map(Platforms::One).map_err(|error| invalid(format!("`{text}`: {error}"))),
    }
}

/// An image's full name and platform.
pub(crate) fn wanted(name: &str, platform: Option<&str>) -> Result<(String, String), ApiError> {
    Ok((image_name::full(name).map_err(invalid)?, platform_text(platform)?))
}

fn job(name: String, platform: String, now: Millis) -> PrefetchJob {
    PrefetchJob {
        id: 0,
        name,
        platform,
        pin: false,
        now: false,
        kept: false,
        state: PrefetchJobState::Waiting,
        size_bytes: None,
        held_bytes: 0,
        fetched_bytes: 0,
        added: now.0,
        ended: None,
        again_at: None,
        problem: None,
        moved: false,
    }
}

/// Whether the link is paid for by the byte. No system is asked yet: `auto` is no.
pub(crate) fn is_metered(settings: &Settings) -> bool {
    match settings.metered {
        Metered::On => true,
        Metered::Auto | Metered::Off => false,
    }
}

/// Why an image may not be fetched now.
fn waits(
    job: &PrefetchJob,
    paused: bool,
    sampan_paused: bool,
    settings: &Settings,
    now: &Zoned,
) -> Option<PrefetchWait> {
    if sampan_paused {
        Some(PrefetchWait::SampanPaused)
    } else if settings.offline {
        Some(PrefetchWait::Offline)
    } else if paused {
        Some(PrefetchWait::Paused)
    } else if job.now {
        None
    } else if is_metered(settings) {
        Some(PrefetchWait::Metered)
    } else if settings.quiet_hours.is_some_and(|quiet| !hours::is_open(quiet, now)) {
        Some(PrefetchWait::QuietHours)
    } else {
        None
    }
}

fn too_many(most: usize) -> ApiError {
    let next_step = Some("See `sampan queue`; cancel what is not needed.".into());
    ApiError { code: Code::Busy, message: format!("{most} images wait already"), next_step }
}

impl Inner {
    fn local_now(&self) -> Zoned {
        let now = Timestamp::from_millisecond(self.clock.now().0).unwrap_or(Timestamp::UNIX_EPOCH);
        now.to_zoned(TimeZone::system())
    }

    fn waits(&self, job: &PrefetchJob) -> Option<PrefetchWait> {
        let paused = self.prefetch.book().paused;
        waits(job, paused, self.is_paused(), &self.settings(), &self.local_now())
    }

    /// What is shown of it.
    pub(crate) fn prefetch_shown(&self) -> Prefetch {
        let (paused, jobs, kept) = {
            let book = self.prefetch.book();
            let jobs: Vec<_> = book.jobs.iter().map(|entry| entry.job.clone()).collect();
            (book.paused, jobs, book.kept.clone())
        };
        let running = jobs.iter().any(|job| job.state == PrefetchJobState::Running);
        let first = jobs.iter().find(|job| !has_ended(job.state));
        let waits = first.filter(|_| !running).and_then(|job| self.waits(job));
        let opens = self
            .settings()
            .quiet_hours
            .filter(|_| waits == Some(PrefetchWait::QuietHours))
            .map(|quiet| hours::opens(quiet, &self.local_now()).0);
        Prefetch { paused, waits, opens, jobs, kept }
    }

    /// Carries out a change.
    pub(crate) async fn prefetch_change(&self, change: &PrefetchChange) -> Result<Reply, ApiError> {
        match change {
            PrefetchChange::Add { images, pin, now } => {
                return self.prefetch_add(images, *pin, *now).await.map(Reply::Prefetching);
            }
            PrefetchChange::Cancel { id } => self.prefetch_cancel(*id).await,
            PrefetchChange::Retry { id } => self.prefetch_retry(*id).await,
            PrefetchChange::Pause { paused } => self.prefetch_pause(*paused).await,
            PrefetchChange::Keep { name, platform, keep } => {
                self.keep_fresh(name, platform.as_deref(), *keep).await
            }
        }
        .map(|()| Reply::Done)
    }

    /// Puts images in the queue.
    async fn prefetch_add(&self, items: &[PrefetchItem], pin: bool, now: bool) -> Result<Vec<u64>, ApiError> {
        if items.is_empty() || items.len() > ITEMS_MAX {
            return Err(invalid(format!("`images` names 1 to {ITEMS_MAX} images")));
        }
        let mut named = Vec::new();
        for item in items {
            let (name, platform) = wanted(&item.name, item.platform.as_deref())?;
            self.check_mirrored(&name)?;
            named.push((name, platform));
        }
        let mut ids = Vec::new();
        let added = self.clock.now();
        for (name, platform) in named {
            let job = PrefetchJob { pin, now, ..job(name, platform, added) };
            let id = self.prefetch.book().add(job).ok_or_else(|| too_many(book::WAITING_MAX))?;
            ids.push(id);
        }
        self.prefetch_changed().await?;
        Ok(ids)
    }

    /// Of a registry that is not mirrored nothing can be fetched, now or later.
    fn check_mirrored(&self, name: &str) -> Result<(), ApiError> {
        let (image, _) = image_name::parse(name).map_err(invalid)?;
        if self.mirror.upstreams().any(|upstream| *upstream.registry() == image.registry) {
            return Ok(());
        }
        let next_step = Some(format!(
            "Add it under `upstreams` in the configuration file, or by --upstream {}=URL.",
            image.registry
        ));
        let message = format!("{} is not among the registries that Sampan mirrors", image.registry);
        Err(ApiError { code: Code::InvalidRequest, message, next_step })
    }

    /// Takes one out of the queue and the list; without a number, all that have not ended.
    async fn prefetch_cancel(&self, id: Option<u64>) -> Result<(), ApiError> {
        let found = {
            let mut book = self.prefetch.book();
            let before = book.jobs.len();
            book.jobs.retain(|entry| match id {
                Some(id) => entry.job.id != id,
                None => has_ended(entry.job.state),
            });
            before != book.jobs.len()
        };
        if !found && id.is_some() {
            return Err(convert::not_held("there is no such image in the queue", "See `sampan queue`."));
        }
        self.prefetch_changed().await
    }

    /// Tries one again, or goes on with one that rests, at once.
    async fn prefetch_retry(&self, id: u64) -> Result<(), ApiError> {
        let unknown = || convert::not_held("there is no such image in the queue", "See `sampan queue`.");
        {
            let mut book = self.prefetch.book();
            let entry = book.find(id).ok_or_else(unknown)?;
            if entry.job.state != PrefetchJobState::Running {
                entry.anew();
            }
        }
        self.prefetch_changed().await
    }

    /// Stops the queue for a while, or lets it go on.
    async fn prefetch_pause(&self, paused: bool) -> Result<(), ApiError> {
        self.prefetch.book().paused = paused;
        self.prefetch_changed().await
    }

    /// Keeps an image fresh from now on, or no longer.
    async fn keep_fresh(&self, name: &str, platform: Option<&str>, keep: bool) -> Result<(), ApiError> {
        let (name, platform) = wanted(name, platform)?;
        let (_, reference) = image_name::parse(&name).map_err(invalid)?;
        if keep {
            if matches!(reference, sampan_oci::Reference::Digest(_)) {
                return Err(invalid("a digest never changes: pin it instead"));
            }
            self.check_mirrored(&name)?;
            let next = self.next_night().0;
            let mut book = self.prefetch.book();
            if !book.kept.iter().any(|kept| kept.name == name && kept.platform == platform) {
                if book.kept.len() >= book::KEPT_MAX {
                    return Err(invalid(format!("{} images are kept fresh already", book::KEPT_MAX)));
                }
                let kept =
                    Kept { name, platform, next, checked: None, moved: None, moved_bytes: 0, problem: None };
                book.kept.push(kept);
                book.kept.sort_by(|a, b| (&a.name, &a.platform).cmp(&(&b.name, &b.platform)));
            }
        } else {
            let mut book = self.prefetch.book();
            let before = book.kept.len();
            book.kept.retain(|kept| kept.name != name || kept.platform != platform);
            if before == book.kept.len() {
                drop(book);
                let message = format!("{name} for {platform} is not kept fresh");
                return Err(convert::not_held(message, "See `sampan keep list`."));
            }
        }
        self.prefetch_changed().await
    }

    fn next_night(&self) -> Millis {
        hours::next_night(self.settings().quiet_hours, &self.local_now(), jitter())
    }

    /// The settings changed.
    pub(crate) fn prefetch_by(&self, settings: &Settings) {
        self.mirror.set_fetch_unasked(!is_metered(settings));
        self.prefetch.look_again();
    }

    async fn prefetch_changed(&self) -> Result<(), ApiError> {
        self.prefetch.tell();
        let saved = self.prefetch.save().await;
        self.refresh().await;
        saved
    }

    /// Puts what is due in the queue.
    fn queue_due(&self) -> bool {
        let now = self.clock.now();
        let due: Vec<(String, String)> = {
            let book = self.prefetch.book();
            let due = book.kept.iter().filter(|kept| kept.next <= now.0);
            due.map(|kept| (kept.name.clone(), kept.platform.clone())).collect()
        };
        for (name, platform) in &due {
            let next = self.next_night().0;
            let mut book = self.prefetch.book();
            if let Some(kept) =
                book.kept.iter_mut().find(|kept| kept.name == *name && kept.platform == *platform)
            {
                kept.next = next;
            }
            let wanted = PrefetchJob { kept: true, ..job(name.clone(), platform.clone(), now) };
            if book.add(wanted).is_none() {
                tracing::warn!(name, "it could not be kept fresh: too many images wait to be fetched");
            }
        }
        !due.is_empty()
    }

    /// Fetches what waits, one after the other, until the end.
    pub(crate) async fn run_prefetch(self: Arc<Self>, token: CancellationToken) {
        let mut changed = self.prefetch.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if self.queue_due() {
                let _ = self.prefetch_changed().await;
            }
            let now = self.clock.now();
            let (next, idle, due) = {
                let candidates: Vec<PrefetchJob> =
                    self.prefetch.book().jobs.iter().map(|entry| entry.job.clone()).collect();
                let may: Vec<u64> =
                    candidates.iter().filter(|job| self.waits(job).is_none()).map(|job| job.id).collect();
                let book = self.prefetch.book();
                let next = book.next(now, |job| may.contains(&job.id)).cloned();
                let waiting = candidates.iter().any(|job| !has_ended(job.state));
                let kept = book.kept.iter().map(|kept| kept.next).min();
                let again = book.again_at().filter(|at| *at > now.0);
                (next, !waiting && kept.is_none(), [kept, again].into_iter().flatten().min())
            };
            if let Some(job) = next {
                tokio::select! {
                    () = self.fetch_ahead(&job) => {}
                    () = token.cancelled() => return,
                }
                continue;
            }
            // The clock may be set meanwhile: it is never slept past for long.
            let rest =
                due.and_then(|at| u64::try_from(at - now.0).ok()).map_or(WAIT_AT_MOST, Duration::from_millis);
            let rest = rest.clamp(Duration::from_millis(100), WAIT_AT_MOST);
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(rest), if !idle => {}
                () = token.cancelled() => return,
            }
        }
    }

    /// Fetches one, until its end or until it may not be fetched any longer.
    async fn fetch_ahead(&self, job: &PrefetchJob) {
        let id = job.id;
        if let Some(entry) = self.prefetch.book().find(id) {
            entry.job.state = PrefetchJobState::Running;
            entry.job.problem = None;
        }
        let _ = self.prefetch_changed().await;
        let named = image_name::parse(&job.name).map_err(invalid);
        let ended = match (named, platforms(&job.platform)) {
            (Ok((image, reference)), Ok(platforms)) => {
                let fetching =
                    self.mirror.prefetch(&image, &reference, &platforms, |now| self.prefetched(id, now));
                tokio::select! {
                    ended = fetching => Some(ended),
                    () = self.may_no_longer(id) => None,
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                Some(Err(PrefetchError { why: PrefetchFailure::NotFound, text: error.message }))
            }
        };
        let still = self.prefetch.book().find(id).map(|entry| entry.job.clone());
        match (ended, still) {
            // Cancelled: what was fetched stays.
            (_, None) => {}
            (None, Some(_)) => {
                if let Some(entry) = self.prefetch.book().find(id) {
                    entry.job.state = PrefetchJobState::Waiting;
                }
            }
            (Some(Ok(fetched)), Some(job)) => self.arrived(&job, &fetched).await,
            (Some(Err(error)), Some(job)) => self.not_arrived(&job, &error),
        }
        self.prefetch.book().forget_old();
        let _ = self.prefetch_changed().await;
    }

    /// Takes note of how far one is.
    fn prefetched(&self, id: u64, now: PrefetchProgress) {
        if let Some(entry) = self.prefetch.book().find(id) {
            let job = &mut entry.job;
            let before = (job.size_bytes, job.held_bytes, job.fetched_bytes);
            (job.size_bytes, job.held_bytes, job.fetched_bytes) =
                (now.size_bytes, now.held_bytes, now.fetched_bytes);
            if before != (job.size_bytes, job.held_bytes, job.fetched_bytes) {
                self.shows_something_new.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Waits until it is cancelled, or has to wait itself.
    async fn may_no_longer(&self, id: u64) {
        let mut changed = self.prefetch.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let job = self.prefetch.book().find(id).map(|entry| entry.job.clone());
            if job.is_none_or(|job| self.waits(&job).is_some()) {
                return;
            }
            let _ = tokio::time::timeout(LOOK_EVERY, changed.changed()).await;
        }
    }

    async fn arrived(&self, job: &PrefetchJob, fetched: &Prefetched) {
        let moved = fetched.before.is_some_and(|before| before != fetched.digest);
        let (name, bytes) = (&job.name, fetched.progress.fetched_bytes);
        tracing::info!(name, bytes, moved, "an image was fetched ahead");
        let mut problem = None;
        if job.pin
            && let Err(error) = self.pin(name, true).await
        {
            problem = Some(error);
        }
        let now = self.clock.now();
        {
            let mut book = self.prefetch.book();
            if let Some(entry) = book.find(job.id) {
                let failed = problem.is_some();
                entry.job.state = if failed { PrefetchJobState::Failed } else { PrefetchJobState::Done };
                (entry.job.problem, entry.job.moved) = (problem, moved);
                (entry.job.ended, entry.job.again_at) = (Some(now.0), None);
            }
            let same = |kept: &&mut Kept| kept.name == job.name && kept.platform == job.platform;
            if let Some(kept) = book.kept.iter_mut().find(same) {
                (kept.checked, kept.problem) = (Some(now.0), None);
                if moved {
                    (kept.moved, kept.moved_bytes) = (Some(now.0), bytes);
                }
            }
        }
        self.keeping.forget();
        self.list_changed();
    }

    fn not_arrived(&self, job: &PrefetchJob, error: &PrefetchError) {
        let now = self.clock.now();
        let at_least = if error.why == PrefetchFailure::RateLimited { ALLOWANCE_MILLIS } else { 0 };
        let problem = problem(job, error);
        tracing::info!(name = job.name, %error, "an image could not be fetched ahead");
        let mut book = self.prefetch.book();
        let Some(entry) = book.find(job.id) else { return };
        let again = if error.why.is_passing() { entry.again(now, at_least) } else { None };
        entry.job.problem = Some(problem.clone());
        entry.job.again_at = again;
        if again.is_some() {
            entry.job.state = PrefetchJobState::Waiting;
            return;
        }
        (entry.job.state, entry.job.ended) = (PrefetchJobState::Failed, Some(now.0));
        let same = |kept: &&mut Kept| kept.name == job.name && kept.platform == job.platform;
        if let Some(kept) = book.kept.iter_mut().find(same) {
            kept.problem = Some(problem.message);
        }
    }
}

/// What went wrong, and what to do about it.
fn problem(job: &PrefetchJob, error: &PrefetchError) -> ApiError {
    let (code, step) = match error.why {
        PrefetchFailure::NotFound => {
            (Code::NotHeld, "Check its name and tag; private images are pulled by Docker with its own login.")
        }
        PrefetchFailure::NotMirrored => {
            (Code::InvalidRequest, "Add its registry under `upstreams` in the configuration file.")
        }
        PrefetchFailure::NoPlatform => (Code::NotHeld, "Choose another platform, or all."),
        PrefetchFailure::Unreachable => {
            (Code::Upstream, "It is tried again by itself; what was fetched is kept.")
        }
        PrefetchFailure::RateLimited => {
            (Code::Upstream, "It is tried again by itself; `sampan allowance` shows what is left.")
        }
        PrefetchFailure::Upstream => {
            (Code::Upstream, "Try it again later, or tell whoever runs the registry.")
        }
        PrefetchFailure::Full => (Code::Store, "Make room: clear images or unpin some, or raise the quota."),
        PrefetchFailure::Store => (Code::Store, "See `sampan doctor`."),
        PrefetchFailure::Paused | PrefetchFailure::Stopping => (Code::Stopped, "It goes on by itself."),
    };
    let message =
        if error.text.contains(&job.name) { error.text.clone() } else { format!("{}: {error}", job.name) };
    ApiError { code, message, next_step: Some(step.into()) }
}
