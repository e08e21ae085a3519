//! What a failure means for a download: another try, one stream, or the end. Pure; time is brought along.

use std::time::Duration;

use sampan_upstream::UpstreamError;
use tokio::time::Instant;

use super::pace::back_off;

/// A first failure this quick is tried once more; after a slow one the client that waits for headers is better off with
/// an error it can fall back from.
const QUICK: Duration = Duration::from_secs(2);
/// The rest where an upstream that has too much to do names none, and the longest one before the first byte of a blob.
const REST: Duration = Duration::from_secs(10);
/// How long an outage is waited out while no client listens.
const UNWATCHED_WAIT: Duration = Duration::from_mins(1);
/// How often in a row an answer that would end a download may come once the blob has brought bytes: a captive portal and
/// a CDN's bad moment look like that.
const STRAYS_AT_MOST: u32 = 5;
/// How often in a row everything is sent from the first byte again without bringing a new one.
const STREAMS_IN_VAIN: u32 = 3;

/// What is to be done after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask again, not before [`Patience::retry_at`].
    Again,
    /// The same, and with fewer connections: the upstream refuses more.
    AgainWithFewer,
    /// The same, after the upstream's rest.
    AgainAfter(Duration),
    /// Parts are refused, or lied about: one stream of everything.
    OneStream,
    /// Nothing will help, or nobody waits any longer.
    GiveUp,
}

/// What is true while a connection fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) now: Instant,
    /// Whether its answer's head had come.
    pub(crate) was_open: bool,
    /// Whether other connections to the upstream bring bytes at this moment.
    pub(crate) others_bring: bool,
    /// Whether everything is fetched as one stream already.
    pub(crate) one_stream: bool,
    /// How long an outage is waited out: by who listens.
    pub(crate) wait: Duration,
}

/// How long to wait for an outage to end.
pub(super) fn wait(watched: bool, outage_wait: Duration) -> Duration {
    if watched { outage_wait } else { UNWATCHED_WAIT.min(outage_wait) }
}

/// How a download bears failures.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// Failures since the last byte.
    failures: u32,
    /// When the last byte came, or the download began.
    progress_at: Instant,
    retry_at: Option<Instant>,
    /// Whether an outage is likely to end: bytes of the blob, or of another one of its upstream, came lately.
    hopeful: bool,
    /// Whether this blob has brought bytes since the download began.
    fed: bool,
    streams_in_vain: u32,
}

impl Patience {
    pub(crate) fn new(now: Instant, hopeful: bool) -> Self {
        Self { failures: 0, progress_at: now, retry_at: None, hopeful, fed: false, streams_in_vain: 0 }
    }

    /// Bytes came; `new` ones, or such as were known. A pause before the next question stays: bytes of one connection
    /// are no reason to storm an upstream that refuses others.
    pub(crate) fn progress(&mut self, now: Instant, new: bool) {
        (self.failures, self.progress_at) = (0, now);
        if new {
            (self.hopeful, self.fed, self.streams_in_vain) = (true, true, 0);
        }
    }

    /// A client was told that the bytes will come: from here on an outage is waited out.
    pub(crate) fn hope(&mut self) {
        self.hopeful = true;
    }

    /// A stream of everything begins.
    pub(crate) fn stream_begins(&mut self) {
        self.streams_in_vain += 1;
    }

    /// Other connections are fine: what failed is replaced at once.
    pub(crate) fn forgive(&mut self) {
        (self.failures, self.retry_at) = (0, None);
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether the next question has to wait.
    pub(crate) fn is_pausing(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    /// When the next question may be asked, after a failure.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Whether nothing came for so long that nobody waits any more.
    pub(crate) fn is_over(&self, now: Instant, wait: Duration) -> bool {
        now - self.progress_at >= wait
    }

    /// Decides.
    pub(crate) fn judge(&mut self, error: &UpstreamError, facts: Facts) -> Verdict {
        let Facts { now, was_open, others_bring, one_stream, wait } = facts;
        let lies =
            matches!(error, UpstreamError::RangeRefused | UpstreamError::Changed | UpstreamError::OtherPart);
        if lies {
            return if one_stream { Verdict::GiveUp } else { Verdict::OneStream };
        }
        // Connections that break together are one failure.
        if !self.is_pausing(now) {
            self.failures += 1;
            self.retry_at = Some(now + back_off(self.failures));
        }
        if self.is_over(now, wait) || (one_stream && self.streams_in_vain > STREAMS_IN_VAIN) {
            return Verdict::GiveUp;
        }
        if !error.is_transient() {
            let stray = others_bring || (self.fed && self.failures <= STRAYS_AT_MOST);
            return if stray { Verdict::Again } else { Verdict::GiveUp };
        }
        let waits = self.hopeful || others_bring;
        if matches!(error, UpstreamError::RateLimited { .. } | UpstreamError::Busy { .. }) {
            let rest = error.retry_after().unwrap_or(REST);
            return if waits || rest < REST { Verdict::AgainAfter(rest) } else { Verdict::GiveUp };
        }
        if others_bring && !was_open {
            return Verdict::AgainWithFewer;
        }
        if !waits && (self.failures >= 2 || now - self.progress_at >= QUICK) {
            return Verdict::GiveUp;
        }
        Verdict::Again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_mins(10);

    fn facts(now: Instant) -> Facts {
        Facts { now, was_open: false, others_bring: false, one_stream: false, wait: WAIT }
    }

    fn fed(now: Instant) -> Patience {
        let mut patience = Patience::new(now, false);
        patience.progress(now, true);
        patience
    }

    #[tokio::test]
    async fn what_each_failure_means_before_and_after_the_first_byte() {
        use Verdict::{Again, AgainAfter, GiveUp, OneStream};
        let now = Instant::now();
        let busy = |seconds| UpstreamError::Busy { retry_after: Duration::from_secs(seconds) };
        let gone = || UpstreamError::Unreachable(String::new());
        for (error, first, later) in [
            (UpstreamError::RangeRefused, OneStream, OneStream),
            (UpstreamError::Changed, OneStream, OneStream),
            (UpstreamError::OtherPart, OneStream, OneStream),
            (UpstreamError::NotFound, GiveUp, Again),
            (UpstreamError::Denied, GiveUp, Again),
            (UpstreamError::Protocol("a captive portal"), GiveUp, Again),
            (UpstreamError::Status(400), GiveUp, Again),
            (UpstreamError::Status(500), Again, Again),
            (UpstreamError::Timeout, Again, Again),
            (gone(), Again, Again),
            (busy(3), AgainAfter(Duration::from_secs(3)), AgainAfter(Duration::from_secs(3))),
            (busy(30), GiveUp, AgainAfter(Duration::from_secs(30))),
            (UpstreamError::RateLimited { retry_after: None }, GiveUp, AgainAfter(REST)),
        ] {
            assert_eq!(Patience::new(now, false).judge(&error, facts(now)), first, "at first: {error}");
            assert_eq!(fed(now).judge(&error, facts(now)), later, "later: {error}");
        }
    }

    #[tokio::test]
    async fn before_the_first_byte_one_quick_failure_is_forgiven_unless_the_bytes_were_promised() {
        let now = Instant::now();
        let mut patience = Patience::new(now, false);
        assert_eq!(patience.judge(&UpstreamError::Timeout, facts(now)), Verdict::Again);
        let soon = now + Duration::from_secs(1);
        assert_eq!(patience.clone().judge(&UpstreamError::Timeout, facts(soon)), Verdict::GiveUp);
        patience.hope();
        assert_eq!(
            patience.judge(&UpstreamError::Timeout, facts(soon)),
            Verdict::Again,
            "they were promised"
        );
        let late = facts(now + QUICK);
        assert_eq!(Patience::new(now, false).judge(&UpstreamError::Timeout, late), Verdict::GiveUp);
        assert_eq!(Patience::new(now, true).judge(&UpstreamError::Timeout, late), Verdict::Again);
    }

    #[tokio::test]
    async fn an_outage_is_waited_out_as_long_as_somebody_waits_and_no_longer() {
        let now = Instant::now();
        let mut patience = fed(now);
        for minute in 0..10 {
            let at = now + Duration::from_mins(minute);
            assert_eq!(patience.judge(&UpstreamError::Timeout, facts(at)), Verdict::Again, "{minute}");
        }
        assert_eq!(patience.judge(&UpstreamError::Timeout, facts(now + WAIT)), Verdict::GiveUp);
        assert_eq!(wait(false, WAIT), UNWATCHED_WAIT);
        assert_eq!(wait(false, Duration::ZERO), Duration::ZERO, "whoever wants no waiting gets none");
    }

    #[tokio::test]
    async fn a_refused_connection_beside_working_ones_means_that_they_are_too_many() {
        let now = Instant::now();
        let beside = Facts { others_bring: true, ..facts(now) };
        assert_eq!(fed(now).judge(&UpstreamError::Status(503), beside), Verdict::AgainWithFewer);
        let broken = Facts { was_open: true, ..beside };
        assert_eq!(fed(now).judge(&UpstreamError::Timeout, broken), Verdict::Again, "this one just broke");
    }

    #[tokio::test]
    async fn bytes_do_not_lift_a_pause_and_connections_that_break_together_are_one_failure() {
        let now = Instant::now();
        let mut patience = fed(now);
        for _ in 0..32 {
            patience.judge(&UpstreamError::Timeout, facts(now));
        }
        assert!(patience.is_pausing(now) && !patience.is_pausing(now + Duration::from_millis(250)));
        patience.progress(now, true);
        assert!(patience.is_pausing(now) && !patience.is_failing());
        patience.forgive();
        assert!(!patience.is_pausing(now));
    }

    #[tokio::test]
    async fn a_stream_of_everything_is_repeated_while_it_brings_something_new() {
        let now = Instant::now();
        let mut patience = fed(now);
        let one_stream = Facts { one_stream: true, was_open: true, ..facts(now) };
        for _ in 0..20 {
            patience.stream_begins();
            patience.progress(now, true);
            assert_eq!(patience.judge(&UpstreamError::Timeout, one_stream), Verdict::Again);
        }
        for round in 0..5 {
            patience.stream_begins();
            patience.progress(now, false);
            let verdict = patience.judge(&UpstreamError::Timeout, one_stream);
            assert_eq!(verdict == Verdict::GiveUp, round >= 3, "round {round}: nothing but known bytes");
        }
    }

    #[tokio::test]
    async fn strays_are_borne_for_a_while() {
        let mut now = Instant::now();
        let mut patience = fed(now);
        let mut borne = 0;
        while patience.judge(&UpstreamError::NotFound, facts(now)) == Verdict::Again {
            (borne, now) = (borne + 1, now + Duration::from_secs(6));
        }
        assert_eq!(borne, STRAYS_AT_MOST);
    }
}
