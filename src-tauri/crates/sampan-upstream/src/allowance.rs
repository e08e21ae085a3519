//! What a registry lets us have: what its answers told, what we spent of it, and when it wants to be left alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_oci::RepositoryName;
use tokio::time::Instant;

use crate::UpstreamError;
use crate::limits::RETRY_AFTER_MAX;
use crate::ratelimit::RateHeaders;

/// The window of a registry that does not tell it: Docker Hub's.
const WINDOW_DEFAULT: Duration = Duration::from_hours(6);
/// How long a registry is left alone after a 429 that does not say it.
const REST_DEFAULT: Duration = Duration::from_mins(1);
/// And at least, whatever it says: `Retry-After: 0` is no leave to ask in a circle.
const REST_MIN: Duration = Duration::from_secs(1);
/// How long the others wait before they look whether the first question after a rest was answered.
const PROBE: Duration = Duration::from_millis(500);
/// The most pulls that are remembered, the newest.
const SPENT_MAX: usize = 2048;
/// HEADs in a row after each of which less was left, before HEADs are taken to be counted. Others may share the address,
/// and spend between two of ours.
const FALLS: u32 = 3;
/// The least that is kept for pulls of what is not held.
const RESERVE_MIN: u64 = 3;

/// What a registry lets us have, as its answers told and as we counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Pulls in a window.
    pub limit: Option<u64>,
    /// Pulls left; `None` also once the window they were left of is over.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// Whom the registry counts: an address, or an account's name.
    pub source: Option<String>,
    /// When an answer last told any of this.
    pub seen: Instant,
    /// When there will be more; in the future. Told by the registry, or one window after the count last was seen to begin:
    /// then it is the latest moment, not the exact one.
    pub resets: Option<Instant>,
    /// Until then no manifest is asked for: the registry said 429. In the future.
    pub rests_until: Option<Instant>,
    /// So little is left that it is kept for what is not held: see [`is_low`].
    pub is_low: bool,
    /// Whether HEAD requests seem to be counted too.
    pub counts_heads: bool,
    /// The manifests fetched within one window, oldest first: when, and of which repository.
    pub spent: Vec<(Instant, RepositoryName)>,
}

/// Whether what is left is the reserve for pulls of what is not held: 5 % of the limit, at least 3, at most half of it.
/// Then revalidation has to stop before pulls do.
pub fn is_low(limit: Option<u64>, remaining: Option<u64>) -> bool {
    let reserve = limit.map_or(RESERVE_MIN, |limit| (limit / 20).max(RESERVE_MIN).min(limit / 2));
    remaining.is_some_and(|remaining| remaining <= reserve)
}

/// How a manifest is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Its bytes: what registries count.
    Get,
    /// Only where it is: free at Docker Hub.
    Head,
}

/// The allowance of one upstream, shared by all who ask it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    told: Option<Told>,
    spent: VecDeque<(Instant, RepositoryName)>,
    gets: Rest,
    heads: Rest,
    /// Questions asked so far, and those without an end yet.
    asked: u64,
    open: u32,
    /// What `asked` was when an answer was last noted: a question with a lower number began before that.
    noted: u64,
    /// A question ended without an answer: whether it was counted is not known.
    unsure: bool,
    /// HEADs in a row after which less was left than before.
    falls: u32,
}

/// That the registry wants to be left alone with one kind of question.
#[derive(Debug, Default)]
struct Rest {
    /// Since the last 429; `None` again with the first other answer.
    until: Option<Instant>,
    /// The one question that finds out whether it is over is on its way.
    is_probed: bool,
}

impl Rest {
    /// How much longer; once it is over, one question goes first (`Ok(true)`) and the others wait for its answer.
    fn pass(&mut self, now: Instant) -> Result<bool, Duration> {
        match self.until {
            None => Ok(false),
            Some(until) if until > now => Err(until - now),
            Some(_) if self.is_probed => Err(PROBE),
            Some(_) => {
                self.is_probed = true;
                Ok(true)
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Told {
    limit: Option<u64>,
    remaining: Option<u64>,
    window: Option<Duration>,
    source: Option<String>,
    seen: Instant,
    resets: Option<Instant>,
}

/// One question on its way. Dropped without [`Ticket::answered`], nothing is known of it.
#[derive(Debug)]
pub(crate) struct Ticket {
    book: Book,
    ask: Ask,
    number: u64,
    /// Whether no other question was on its way when it began.
    alone: bool,
    /// Whether it is the first after a rest.
    probes: bool,
    ended: bool,
}

impl Book {
    /// Begins a question, unless the registry wants to be left alone.
    /// # Errors
    /// [`UpstreamError::RateLimited`]: nothing may be sent.
    pub(crate) fn begin(&self, ask: Ask) -> Result<Ticket, UpstreamError> {
        let now = Instant::now();
        let mut pages = self.pages();
        if ask == Ask::Head && pages.falls >= FALLS && pages.is_low(now) {
            return Err(UpstreamError::RateLimited { retry_after: None });
        }
        let wait = |left| UpstreamError::RateLimited { retry_after: Some(left) };
        let probes = pages.rest_of(ask).pass(now).map_err(wait)?;
        let (number, alone) = (pages.asked, pages.open == 0);
        pages.asked += 1;
        pages.open += 1;
        drop(pages);
        Ok(Ticket { book: self.clone(), ask, number, alone, probes, ended: false })
    }

    /// What is known now; `None`: the registry told no numbers, and need not be left alone.
    pub(crate) fn read(&self) -> Option<Allowance> {
        let now = Instant::now();
        let pages = self.pages();
        let rests_until = pages.gets.until.filter(|until| *until > now);
        // A registry that only ever said 429 has no gauge once that is over.
        let is_shown = |told: &&Told| told.limit.or(told.remaining).is_some() || rests_until.is_some();
        let told = pages.told.as_ref().filter(is_shown)?;
        Some(Allowance {
            limit: told.limit,
            remaining: told.left(now),
            window: told.window,
            source: told.source.clone(),
            seen: told.seen,
            resets: told.resets.filter(|at| *at > now),
            rests_until,
            is_low: pages.is_low(now),
            counts_heads: pages.falls >= FALLS,
            spent: pages.spent_within_window(now).cloned().collect(),
        })
    }

    /// What was spent within one window, oldest first, and how long ago.
    pub(crate) fn spent(&self) -> Vec<(Duration, RepositoryName)> {
        let now = Instant::now();
        self.pages().spent_within_window(now).map(|(at, name)| (now - *at, name.clone())).collect()
    }

    /// Takes back what an earlier run spent: how long ago, and for which repository.
    pub(crate) fn recall(&self, spent: impl IntoIterator<Item = (Duration, RepositoryName)>) {
        let now = Instant::now();
        let spent = spent.into_iter().filter_map(|(ago, name)| Some((now.checked_sub(ago)?, name)));
        let mut pages = self.pages();
        pages.spent.extend(spent);
        pages.spent.make_contiguous().sort_by_key(|(at, _)| *at);
        let surplus = pages.spent.len().saturating_sub(SPENT_MAX);
        pages.spent.drain(..surplus);
    }

    /// Whether so little is left that it is kept for what is not held.
    pub(crate) fn is_low(&self) -> bool {
        self.pages().is_low(Instant::now())
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Notes the answer: its status, what it told, and how long it asked to wait. `repository` is what was asked for.
    pub(crate) fn answered(
        mut self,
        repository: &RepositoryName,
        status: u16,
        headers: &RateHeaders,
        retry_after: Option<Duration>,
    ) {
        self.ended = true;
        let now = Instant::now();
        let mut pages = self.book.pages();
        pages.note(&self, headers, now);
        if status == 429 {
            pages.rest(self.ask, headers, retry_after, now);
        } else if self.probes {
            pages.rest_of(self.ask).until = None;
        }
        if self.ask == Ask::Get && (200..300).contains(&status) && pages.told.is_some() {
            if pages.spent.len() >= SPENT_MAX {
                pages.spent.pop_front();
            }
            pages.spent.push_back((now, repository.clone()));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut pages = self.book.pages();
        pages.open -= 1;
        if self.probes {
            pages.rest_of(self.ask).is_probed = false;
        }
        pages.unsure |= !self.ended;
    }
}

impl Told {
    /// What is left at `now`.
    fn left(&self, now: Instant) -> Option<u64> {
        self.remaining.filter(|_| self.resets.is_none_or(|at| at > now))
    }
}

impl Pages {
    fn rest_of(&mut self, ask: Ask) -> &mut Rest {
        match ask {
            Ask::Get => &mut self.gets,
            Ask::Head => &mut self.heads,
        }
    }

    fn spent_within_window(&self, now: Instant) -> impl Iterator<Item = &(Instant, RepositoryName)> {
        let window = self.told.as_ref().and_then(|told| told.window).unwrap_or(WINDOW_DEFAULT);
        self.spent.iter().filter(move |(at, _)| now.saturating_duration_since(*at) < window)
    }

    fn is_low(&self, now: Instant) -> bool {
        self.told.as_ref().is_some_and(|told| is_low(told.limit, told.left(now)))
    }

    fn note(&mut self, ticket: &Ticket, headers: &RateHeaders, now: Instant) {
        if !headers.counts() {
            return;
        }
        // Answers that were on their way together may come in any order: of those the lowest count is the newest.
        let overlapped = ticket.number < self.noted;
        let alone = ticket.alone && self.asked == ticket.number + 1;
        let before = self.told.as_ref().and_then(|told| told.left(now));
        let remaining = match (before, headers.remaining) {
            (Some(before), Some(left)) if overlapped => Some(before.min(left)),
            (_, left) => left,
        };
        let is_proof = ticket.ask == Ask::Head && alone && !self.unsure;
        if let (true, Some(before), Some(left)) = (is_proof, before, remaining) {
            self.falls = if left < before { (self.falls + 1).min(FALLS) } else { 0 };
        }
        let old = self.told.take();
        let kept = old.as_ref().and_then(|told| told.resets).filter(|at| *at > now);
        let window = headers.window.or(old.as_ref().and_then(|told| told.window));
        let is_full = remaining.is_some() && remaining == headers.limit;
        let is_refilled = before.is_none() || remaining > before;
        let resets = match headers.reset {
            Some(reset) => Some(now + reset),
            None if is_full => None,
            None if is_refilled || kept.is_none() => window.map(|window| now + window),
            None => kept,
        };
        let source = headers.source.clone().or(old.and_then(|told| told.source));
        self.told = Some(Told { limit: headers.limit, remaining, window, source, seen: now, resets });
        self.noted = self.asked;
        self.unsure = false;
    }

    /// The registry said 429. A count that is used up stops what is counted; any other 429 is about asking at all.
    fn rest(&mut self, ask: Ask, headers: &RateHeaders, retry_after: Option<Duration>, now: Instant) {
        let wait = retry_after.or(headers.reset).unwrap_or(REST_DEFAULT).clamp(REST_MIN, RETRY_AFTER_MAX);
        let until = now + wait;
        self.gets.until = self.gets.until.max(Some(until));
        if ask == Ask::Head || headers.remaining != Some(0) {
            self.heads.until = self.heads.until.max(Some(until));
        }
        // That it said no is worth showing, whatever it does not say of numbers.
        self.told.get_or_insert(Told {
            limit: None,
            remaining: None,
            window: None,
            source: headers.source.clone(),
            seen: now,
            resets: None,
        });
    }
}

#[cfg(test)]
mod tests;
