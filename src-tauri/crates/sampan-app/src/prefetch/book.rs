//! What waits to be fetched ahead, and what is kept fresh: as it is, and as it is kept in `prefetch.json` of the state
//! folder.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sampan_oci::Millis;
use serde::{Deserialize, Serialize};

use crate::api::{Kept, PrefetchJob, PrefetchJobState};
use crate::aside::set_aside;

/// The version written. One that older versions would misread raises it.
const VERSION: u32 = 1;
/// The most images that wait.
pub(super) const WAITING_MAX: usize = 1000;
/// How many that have ended are remembered.
const ENDED_MAX: usize = 30;
/// The most images that are kept fresh.
pub(super) const KEPT_MAX: usize = 500;
/// How long something that fails for now is tried again.
const TRIED_FOR_MILLIS: u64 = 24 * 60 * 60_000;
const AGAIN_FIRST_MILLIS: i64 = 10_000;
const AGAIN_AT_MOST_MILLIS: i64 = 10 * 60_000;

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Book {
    version: u32,
    next_id: u64,
    pub(super) paused: bool,
    pub(super) jobs: Vec<Entry>,
    pub(super) kept: Vec<Kept>,
}

/// A job, with what nobody else needs to know of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) job: PrefetchJob,
    /// When it first failed for now, and how often since.
    #[serde(default)]
    failing: Option<(i64, u32)>,
}

impl Default for Book {
    fn default() -> Self {
        Self { version: VERSION, next_id: 1, paused: false, jobs: Vec::new(), kept: Vec::new() }
    }
}

impl Book {
    fn file(state_dir: &Path) -> PathBuf {
        state_dir.join("prefetch.json")
    }

    /// Reads it. A damaged file is kept aside and costs the queue, never the start.
    pub(super) fn load(state_dir: &Path) -> Self {
        let file = Self::file(state_dir);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "what was to be fetched ahead cannot be read");
                return Self::default();
            }
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(mut book) if book.version == VERSION => {
                for entry in book.jobs.iter_mut().filter(|entry| entry.job.state == PrefetchJobState::Running)
                {
                    entry.job.state = PrefetchJobState::Waiting;
                }
                book
            }
            Ok(_) | Err(_) => {
                tracing::warn!(file = %file.display(), "what was to be fetched ahead is damaged, or a newer Sampan's: it is kept aside");
                if let Err(error) = set_aside(&file) {
                    tracing::warn!(%error, "it could not be kept aside");
                }
                Self::default()
            }
        }
    }

    /// Writes it, whole or not at all. Blocks.
    pub(super) fn save(&self, state_dir: &Path) -> io::Result<()> {
        let mut staged = tempfile::Builder::new().prefix(".prefetch-").tempfile_in(state_dir)?;
        staged.write_all(&serde_json::to_vec_pretty(self)?)?;
        staged.as_file().sync_all()?;
        staged.persist(Self::file(state_dir)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Adds an image, or finds the one that waits already; what either wants holds for it. `None`: too many wait.
    pub(super) fn add(&mut self, wanted: PrefetchJob) -> Option<u64> {
        let same = |entry: &&mut Entry| {
            let job = &entry.job;
            !has_ended(job.state) && job.name == wanted.name && job.platform == wanted.platform
        };
        if let Some(Entry { job, failing }) = self.jobs.iter_mut().find(same) {
            job.pin |= wanted.pin;
            job.now |= wanted.now;
            job.kept &= wanted.kept;
            if wanted.now {
                (job.again_at, *failing) = (None, None);
            }
            return Some(job.id);
        }
        if self.jobs.iter().filter(|entry| !has_ended(entry.job.state)).count() >= WAITING_MAX {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        // What ended before under this name is told anew.
        self.jobs.retain(|entry| entry.job.name != wanted.name || entry.job.platform != wanted.platform);
        self.jobs.push(Entry { job: PrefetchJob { id, ..wanted }, failing: None });
        Some(id)
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Entry> {
        self.jobs.iter_mut().find(|entry| entry.job.id == id)
    }

    /// Which one is fetched next, of those that `may`; what a person asked for comes before what is kept fresh.
    pub(super) fn next(&self, now: Millis, may: impl Fn(&PrefetchJob) -> bool) -> Option<&PrefetchJob> {
        let ready = |job: &&PrefetchJob| {
            job.state == PrefetchJobState::Waiting && job.again_at.is_none_or(|at| at <= now.0) && may(job)
        };
        let jobs = || self.jobs.iter().map(|entry| &entry.job).filter(ready);
        jobs().find(|job| job.now).or_else(|| jobs().find(|job| !job.kept)).or_else(|| jobs().next())
    }

    /// When the first of those that rest is tried again.
    pub(super) fn again_at(&self) -> Option<i64> {
        let waiting =
            self.jobs.iter().map(|entry| &entry.job).filter(|job| job.state == PrefetchJobState::Waiting);
        waiting.filter_map(|job| job.again_at).min()
    }

    /// Forgets those that ended first, beyond as many as are remembered.
    pub(super) fn forget_old(&mut self) {
        let ended = self.jobs.iter().filter(|entry| has_ended(entry.job.state)).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        self.jobs.retain(|entry| {
            let goes = surplus > 0 && has_ended(entry.job.state);
            surplus -= usize::from(goes);
            !goes
        });
    }
}

impl Entry {
    /// It failed for now; says when it is tried again. `None`: it has been tried for long enough.
    pub(super) fn again(&mut self, now: Millis, at_least: i64) -> Option<i64> {
        let (since, times) = self.failing.unwrap_or((now.0, 0));
        if now.since(Millis(since)) >= TRIED_FOR_MILLIS {
            return None;
        }
        self.failing = Some((since, times.saturating_add(1)));
        let rest =
            AGAIN_FIRST_MILLIS.saturating_mul(1 << times.min(10)).min(AGAIN_AT_MOST_MILLIS).max(at_least);
        Some(now.0 + rest)
    }

    /// It begins anew.
    pub(super) fn anew(&mut self) {
        self.failing = None;
        self.job.state = PrefetchJobState::Waiting;
        (self.job.again_at, self.job.problem, self.job.ended) = (None, None, None);
    }
}

/// Whether nothing more happens with it.
pub(super) fn has_ended(state: PrefetchJobState) -> bool {
    match state {
        PrefetchJobState::Done | PrefetchJobState::Failed => true,
        PrefetchJobState::Waiting | PrefetchJobState::Running => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> PrefetchJob {
        PrefetchJob {
            id: 0,
            name: name.into(),
            platform: "linux/amd64".into(),
            pin: false,
            now: false,
            kept: false,
            state: PrefetchJobState::Waiting,
            size_bytes: None,
            held_bytes: 0,
            fetched_bytes: 0,
            added: 0,
            ended: None,
            again_at: None,
            problem: None,
            moved: false,
        }
    }

    fn next(book: &Book, now: i64) -> Option<&str> {
        book.next(Millis(now), |_| true).map(|job| job.name.as_str())
    }

    #[test]
    fn what_a_person_asked_for_comes_before_what_is_kept_fresh_and_what_waits_is_not_added_twice() {
        let mut book = Book::default();
        assert_eq!(book.add(PrefetchJob { kept: true, ..job("kept") }), Some(1));
        assert_eq!(book.add(job("a")), Some(2));
        assert_eq!(book.add(PrefetchJob { now: true, ..job("b") }), Some(3));
        assert_eq!(book.add(PrefetchJob { pin: true, ..job("a") }), Some(2));
        assert!(book.find(2).unwrap().job.pin, "what either wanted");
        assert_eq!(next(&book, 0), Some("b"));
        book.find(3).unwrap().job.state = PrefetchJobState::Done;
        assert_eq!(next(&book, 0), Some("a"));
        book.find(2).unwrap().job.again_at = Some(10);
        assert_eq!(next(&book, 9), Some("kept"));
        assert_eq!((next(&book, 10), book.again_at()), (Some("a"), Some(10)));
        assert_eq!(book.add(job("b")), Some(4), "what ended is fetched anew");
        assert_eq!(book.jobs.len(), 3);
    }

    #[test]
    fn what_fails_for_now_is_tried_again_less_and_less_often_for_a_day() {
        let mut book = Book::default();
        book.add(job("a"));
        let entry = book.find(1).unwrap();
        let mut now = Millis(0);
        let mut rests = Vec::new();
        while let Some(again) = entry.again(now, 0) {
            rests.push((again - now.0) / 1000);
            now = Millis(again);
        }
        assert_eq!(rests[..8], [10, 20, 40, 80, 160, 320, 600, 600]);
        assert!((140..160).contains(&rests.len()), "{}", rests.len());
        entry.anew();
        assert_eq!(entry.again(now, 900_000), Some(now.0 + 900_000), "no sooner than the registry wants");
    }

    #[test]
    fn it_is_read_as_it_was_written_and_what_ran_waits_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Book::load(dir.path()), Book::default());
        let mut book = Book { paused: true, ..Book::default() };
        book.add(job("a"));
        book.find(1).unwrap().again(Millis(5), 0);
        book.save(dir.path()).unwrap();
        assert_eq!(Book::load(dir.path()), book);
        let mut running = book.clone();
        running.find(1).unwrap().job.state = PrefetchJobState::Running;
        running.save(dir.path()).unwrap();
        assert_eq!(Book::load(dir.path()), book);
        std::fs::write(Book::file(dir.path()), b"{").unwrap();
        assert_eq!(Book::load(dir.path()), Book::default());
        assert!(dir.path().join("prefetch.json.damaged").exists(), "a person may want to look");
    }

    #[test]
    fn of_what_ended_the_latest_are_remembered() {
        let mut book = Book::default();
        for n in 0..40 {
            let id = book.add(job(&n.to_string())).unwrap();
            book.find(id).unwrap().job.state = PrefetchJobState::Failed;
        }
        book.add(job("waits"));
        book.forget_old();
        assert_eq!((book.jobs.len(), book.jobs[0].job.name.as_str()), (31, "10"));
        for n in 0..=WAITING_MAX {
            let added = book.add(job(&format!("more-{n}")));
            assert_eq!(added.is_some(), n + 1 < WAITING_MAX, "{n}");
        }
    }
}
