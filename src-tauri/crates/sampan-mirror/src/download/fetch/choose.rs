//! Which upstream is asked next, and for how much. With one upstream all of this is the same as ever.

use std::time::Duration;

use sampan_upstream::UpstreamError;
use tokio::time::Instant;

use super::super::claims::{FIRST_PIECE, MIN_PIECE, piece_len};
use super::super::lanes::Lane;
use super::super::pace;
use super::super::supply::{Out, Supply};
use super::Fetch;

/// What is given to an upstream only to see how fast it is, and of how large a rest at least.
const SCOUT_BYTES: u64 = 256 * 1024;
const SCOUTED_REST: u64 = 4 * SCOUT_BYTES;
/// How often that is done.
const SCOUT_EVERY: Duration = Duration::from_mins(1);
/// An upstream this many times slower than the best brings nothing worth its connections.
const FAR_SLOWER: u64 = 8;
/// The best one keeps what readers need next; the others begin beyond what it brings in this time.
const AHEAD: Duration = Duration::from_secs(8);
/// Another one has to be this much better than the best so far.
const BETTER: f64 = 0.8;

/// What is asked of an upstream that is not the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Nothing,
    /// One small part, to see how fast it is.
    Scout,
    /// Parts of about this many bytes.
    Parts(u64),
}

impl Fetch<'_> {
    /// Whether there is more than one upstream to choose from.
    pub(super) fn is_choice(&self) -> bool {
        self.supplies.len() > 1
    }

    /// How many connections an upstream has.
    pub(super) fn lanes_of(&self, supply: usize) -> usize {
        self.lanes.values().filter(|lane| lane.supply == supply).count()
    }

    /// Gets in line for connections where there is something to ask for; leaves the line where there is not.
    pub(super) fn want_slots(&mut self) {
        for nth in 0..self.supplies.len() {
            let wants = self.wants(nth);
            self.supplies[nth].want_slot(wants);
        }
    }

    fn wants(&self, nth: usize) -> bool {
        let supply = &self.supplies[nth];
        let unclaimed = self.claims.unclaimed();
        if supply.out.is_some() || supply.is_resting() || unclaimed == 0 {
            return false;
        }
        // The first answer, a probe after failures, and an upstream without ranges: one connection.
        let alone = !supply.answered || supply.patience.is_failing() || self.one_stream;
        let lanes = if alone || nth != self.lead { self.lanes_of(nth) } else { 0 };
        if alone && lanes > 0 {
            return false;
        }
        if nth == self.lead {
            return true;
        }
        if self.one_stream {
            return false;
        }
        if !self.is_answered() {
            return self.rank(nth) <= self.asked_besides;
        }
        match self.share(nth, unclaimed) {
            Share::Nothing => false,
            Share::Scout => lanes == 0,
            Share::Parts(_) => true,
        }
    }

    /// Whether anybody answered.
    pub(super) fn is_answered(&self) -> bool {
        self.supplies.iter().any(|supply| supply.answered)
    }

    /// How many others are asked before this one while nobody has answered: the best first, then in their order.
    fn rank(&self, nth: usize) -> usize {
        if nth == self.lead { 0 } else { nth + usize::from(nth < self.lead) }
    }

    fn share(&self, nth: usize, unclaimed: u64) -> Share {
        let (now, supply) = (Instant::now(), &self.supplies[nth]);
        let rate = |supply: &Supply| supply.source.weather(|weather| weather.rate(now));
        let scout = || {
            let due = supply.scouted.is_none_or(|at| now - at >= SCOUT_EVERY);
            if due && unclaimed >= SCOUTED_REST { Share::Scout } else { Share::Nothing }
        };
        if supply.source.weather(|weather| weather.is_resting(now)) {
            return Share::Nothing;
        }
        if supply.source.weather(|weather| weather.is_doubtful()) {
            return scout();
        }
        let (Some(own), Some(best)) = (rate(supply), rate(&self.supplies[self.lead])) else { return scout() };
        // One connection shows what one connection can do: it is held against one of the best one's.
        let lanes = u64::try_from(self.lanes_of(self.lead)).unwrap_or(u64::MAX);
        if own.saturating_mul(FAR_SLOWER.max(lanes)) < best {
            return Share::Nothing;
        }
        let link = &supply.source.link;
        let theirs = u128::from(unclaimed) * u128::from(own) / u128::from((own + best).max(1));
        let theirs = u64::try_from(theirs).unwrap_or(u64::MAX);
        let known = link.known(supply.member.held());
        let len = piece_len(known, theirs);
        // Towards the end everything is left to the best one: a last part with a slow one keeps everybody waiting.
        if theirs / (known.connections.max(1) as u64) < MIN_PIECE {
            Share::Nothing
        } else {
            Share::Parts(len)
        }
    }

    /// Where the next part of an upstream begins, and how long it is; `None`: nothing is asked of it after all.
    pub(super) fn piece(&mut self, nth: usize) -> Option<(Option<u64>, u64)> {
        let turn = usize::try_from(self.asked).unwrap_or(0);
        let reader = self.run.download.reader(turn);
        let unclaimed = self.claims.unclaimed();
        let supply = &self.supplies[nth];
        let is_first = !self.is_answered();
        if nth == self.lead || is_first {
            let known = supply.source.link.known(supply.member.held());
            let len = if supply.answered { piece_len(known, unclaimed) } else { FIRST_PIECE };
            return Some((reader, len));
        }
        let now = Instant::now();
        let len = match self.share(nth, unclaimed) {
            Share::Nothing => return None,
            Share::Scout => {
                self.supplies[nth].scouted = Some(now);
                SCOUT_BYTES
            }
            Share::Parts(len) => len,
        };
        let best = self.supplies[self.lead].source.weather(|weather| weather.rate(now)).unwrap_or(0);
        let ahead = (best * AHEAD.as_secs()).min(unclaimed / 2);
        Some((Some(reader.unwrap_or(0) + ahead), len))
    }

    /// Finds the upstream that brings the rest the soonest.
    pub(super) fn choose(&mut self) {
        if !self.is_choice() || (self.one_stream && !self.lanes.is_empty()) {
            return;
        }
        let now = Instant::now();
        let left = self.partial.size() - self.claims.held().len();
        let rates = self.supplies.iter().filter_map(|s| s.source.weather(|weather| weather.last_rate()));
        let usual = rates.max();
        let rank = |nth: usize| {
            let supply = &self.supplies[nth];
            let (doubtful, expected) = supply
                .source
                .weather(|weather| (weather.is_doubtful(), weather.expected_seconds(Some(left), usual, now)));
            let expected = if nth == self.lead { expected * BETTER } else { expected };
            // Before anybody answered the order they came in holds: it knows more.
            let expected = if self.is_answered() { expected } else { 0.0 };
            (supply.out.is_some(), supply.is_resting() || supply.patience.is_failing(), doubtful, expected)
        };
        let mut best = self.lead;
        for nth in 0..self.supplies.len() {
            let (this, that) = (rank(nth), rank(best));
            let better =
                (this.0, this.1, this.2).cmp(&(that.0, that.1, that.2)).then(this.3.total_cmp(&that.3));
            if better.is_lt() {
                best = nth;
            }
        }
        if best != self.lead {
            let url = self.supplies[best].source.upstream.url();
            tracing::debug!(digest = %self.run.wanted.digest, upstream = %url, "another upstream is the best now");
            self.lead = best;
        }
    }

    /// Looks after upstreams that do not answer, that failed a while ago, and that became far slower than the best.
    pub(super) fn look_at_upstreams(
        &mut self,
        now: Instant,
        excused: bool,
    ) -> Result<(), crate::error::PullError> {
        for nth in 0..self.supplies.len() {
            let open = self.lanes.values().any(|lane| lane.supply == nth && lane.is_open());
            self.supplies[nth].source.weather(|weather| weather.look(open, excused, now));
            if matches!(self.supplies[nth].out, Some(Out::Failed { until }) if until <= now) {
                self.supplies[nth].come_back(&self.run.wanted);
            }
        }
        if !self.is_choice() || self.one_stream {
            return Ok(());
        }
        self.ask_besides(now);
        let mut late = Vec::new();
        for (id, lane) in self.lanes.iter().filter(|(_, lane)| !lane.is_open()) {
            let supply = &self.supplies[lane.supply];
            let patience = supply.head_within();
            // Of one that has answered, a connection may be unlucky; of one that has not, the question is for nothing.
            let patience = if supply.answered { patience * 3 } else { patience };
            if now - lane.last >= patience
                && (self.others_are_able(lane.supply) || self.is_hopeless(lane.supply))
            {
                late.push((*id, lane.supply));
            }
        }
        for (id, nth) in late {
            self.close(id);
            self.failed(nth, UpstreamError::Timeout, false)?;
        }
        self.leave_far_slower(now);
        self.choose();
        Ok(())
    }

    /// Takes note of upstreams that had time enough to answer and did not: the next blob is not begun with them.
    pub(super) fn note_unanswered(&self) {
        let now = Instant::now();
        for lane in self.lanes.values().filter(|lane| !lane.is_open()) {
            let supply = &self.supplies[lane.supply];
            if self.is_choice() && !supply.answered && now - lane.last >= supply.head_within() {
                supply.source.weather(|weather| weather.silent(now));
            }
        }
    }

    /// Whether another upstream answered and nothing is wrong with it: it can have the bytes this one does not bring, also
    /// where it has nothing to do just now because they are the last ones.
    pub(super) fn others_are_able(&self, nth: usize) -> bool {
        let able = |(other, supply): (usize, &Supply)| {
            other != nth && supply.out.is_none() && supply.answered && !supply.patience.is_failing()
        };
        !self.one_stream && self.supplies.iter().enumerate().any(able)
    }

    /// Whether another upstream brings bytes now.
    fn others_bring(&self, nth: usize) -> bool {
        self.lanes.values().any(|lane| {
            let link = &self.supplies[lane.supply].source.link;
            lane.supply != nth
                && lane.is_open()
                && link.silent_for().is_some_and(|silence| silence < pace::SILENCE_AT_MOST / 5)
        })
    }

    /// Asks the next upstream too where the ones that were asked do not answer. Whoever answers first brings the bytes.
    fn ask_besides(&mut self, now: Instant) {
        if self.is_answered() || self.lanes.is_empty() || self.asked_besides + 1 >= self.supplies.len() {
            return;
        }
        let waits = |lane: &Lane| now - lane.last >= self.supplies[lane.supply].head_within();
        if self.lanes.values().all(waits) {
            self.asked_besides += 1;
            for lane in self.lanes.values_mut() {
                self.claims.loosen(lane.claim);
                lane.shrunk = true;
            }
        }
    }

    /// Takes parts back from upstreams that became far slower than the best: a reader may be waiting for them.
    fn leave_far_slower(&mut self, now: Instant) {
        let best = self.supplies[self.lead].source.weather(|weather| weather.rate(now));
        let Some(best) = best.filter(|_| self.others_bring(usize::MAX)) else { return };
        let far_slower = |lane: &Lane| {
            lane.supply != self.lead
                && lane.was_just_measured(now)
                && lane.rate.is_some_and(|rate| {
                    let left = pace::time_for(self.claims.remaining_of(lane.claim), rate);
                    rate.saturating_mul(FAR_SLOWER) < best && left > pace::SOON
                })
        };
        let slow: Vec<u64> =
            self.lanes.iter().filter(|(_, lane)| far_slower(lane)).map(|(id, _)| *id).collect();
        for id in slow {
            self.close(id);
            self.meter.repaired();
        }
    }
}
