//! What a failure means: for the upstream it happened at, and for the download.

use sampan_oci::Lie;
use sampan_upstream::{OTHER_SIZE, UpstreamError};
use tokio::time::Instant;

use super::super::lanes::Lane;
use super::super::patience::{Facts, Verdict};
use super::super::supply::Out;
use super::{Fetch, JUST_NOW};
use crate::error::PullError;

impl Fetch<'_> {
    /// Does what a failure of an upstream means.
    pub(super) fn failed(
        &mut self,
        nth: usize,
        error: UpstreamError,
        was_open: bool,
    ) -> Result<(), PullError> {
        let link = self.supplies[nth].source.link.clone();
        let works = |lane: &Lane| lane.supply == nth && lane.is_open();
        let facts = Facts {
            now: Instant::now(),
            was_open,
            others_bring: self.lanes.values().any(works)
                && link.silent_for().is_some_and(|silence| silence < JUST_NOW),
            one_stream: self.one_stream,
            wait: self.wait(),
        };
        self.note(nth, &error, facts);
        if self.others_are_left(nth) && self.passes_by(nth, &error, facts) {
            tracing::debug!(digest = %self.run.wanted.digest, upstream = %self.supplies[nth].source.upstream.url(), %error,
                "an upstream is passed by");
            self.close_all(Some(nth));
            self.supplies[nth].last_error = Some(error);
            self.count(was_open);
            self.choose();
            return Ok(());
        }
        if self.is_hopeless(nth) && !was_open {
            return self.give_up(nth, error);
        }
        let promised = self.run.download.is_promised();
        let patience = &mut self.supplies[nth].patience;
        if promised {
            patience.hope();
        }
        let verdict = patience.judge(&error, facts);
        let (digest, held) = (&self.run.wanted.digest, self.claims.held().len());
        tracing::debug!(%digest, held, %error, ?verdict, "a connection failed");
        match verdict {
            Verdict::GiveUp if self.others_are_left(nth) => {
                self.close_all(Some(nth));
                self.supplies[nth].rest(&error);
            }
            Verdict::GiveUp => return self.give_up(nth, error),
            Verdict::OneStream => {
                // It refuses parts, or lies about them. What it sent so far is judged by the digest.
                tracing::info!(%digest, %error, "going on with one stream");
                self.close_all(None);
                (self.one_stream, self.lead) = (true, nth);
            }
            Verdict::AgainAfter(rest) => link.refused(rest),
            Verdict::AgainWithFewer => link.refused(std::time::Duration::ZERO),
            Verdict::Again => {}
        }
        self.supplies[nth].last_error = Some(error);
        self.count(was_open);
        self.choose();
        Ok(())
    }

    fn count(&mut self, was_open: bool) {
        if was_open {
            self.meter.repaired();
        } else {
            self.meter.retried();
        }
        self.go();
    }

    /// Whether another upstream may bring the rest.
    fn others_are_left(&self, nth: usize) -> bool {
        let left = |(other, supply): (usize, &super::Supply)| other != nth && supply.out.is_none();
        !self.one_stream && self.supplies.iter().enumerate().any(left)
    }

    /// Whether only this upstream is left, nothing came, and the trusted one said that there is no such blob: then nobody
    /// waits for better times.
    pub(super) fn is_hopeless(&self, nth: usize) -> bool {
        let lacks = |supply: &super::Supply| {
            matches!(supply.out, Some(Out::Lacks)) && self.run.is_trusted(&supply.source)
        };
        !self.is_answered() && !self.others_are_left(nth) && self.supplies.iter().any(lacks)
    }

    /// Takes note of what a failure says of the upstream itself.
    fn note(&mut self, nth: usize, error: &UpstreamError, facts: Facts) {
        let now = facts.now;
        let supply = &mut self.supplies[nth];
        match error {
            UpstreamError::Unreachable(_) | UpstreamError::Timeout if !facts.others_bring => {
                supply.source.weather(|weather| weather.silent(now));
            }
            UpstreamError::NotFound | UpstreamError::Denied => {
                if self.run.is_choice() {
                    supply.source.lacks(&self.run.wanted.image, &self.run.wanted.digest);
                }
            }
            UpstreamError::Mismatch { .. } => supply.suspect = Some(Lie::Digest),
            UpstreamError::OtherPart => supply.suspect = Some(Lie::Part),
            UpstreamError::Protocol(OTHER_SIZE) => supply.suspect = Some(Lie::Size),
            UpstreamError::RateLimited { .. }
            | UpstreamError::Busy { .. }
            | UpstreamError::Status(_)
            | UpstreamError::Unreachable(_)
            | UpstreamError::Timeout
            | UpstreamError::Truncated { .. }
            | UpstreamError::InvalidManifest(_)
            | UpstreamError::Changed
            | UpstreamError::Protocol(_) => supply.source.weather(|weather| weather.failed(now)),
            UpstreamError::RangeRefused
            | UpstreamError::Offline
            | UpstreamError::Resting
            | UpstreamError::Login(_) => {}
        }
    }

    /// Whether the upstream is left out, for this blob or for a while, because others are there.
    fn passes_by(&mut self, nth: usize, error: &UpstreamError, facts: Facts) -> bool {
        let supply = &mut self.supplies[nth];
        match error {
            UpstreamError::RangeRefused
            | UpstreamError::Mismatch { .. }
            | UpstreamError::OtherPart
            | UpstreamError::Changed
            | UpstreamError::Protocol(OTHER_SIZE) => supply.leave(Out::NoParts),
            UpstreamError::NotFound | UpstreamError::Denied if !facts.others_bring => {
                supply.leave(Out::Lacks);
            }
            // A person went offline, or a login is the trouble: no other upstream would do better.
            UpstreamError::Offline | UpstreamError::Login(_) => return false,
            UpstreamError::RateLimited { .. }
            | UpstreamError::Busy { .. }
            | UpstreamError::Status(_)
            | UpstreamError::Unreachable(_)
            | UpstreamError::Timeout
            | UpstreamError::Resting
            | UpstreamError::Truncated { .. }
            | UpstreamError::InvalidManifest(_)
            | UpstreamError::Protocol(_)
            | UpstreamError::NotFound
            | UpstreamError::Denied => {
                // One connection among several that work, or in the middle of its part, is just replaced.
                if facts.others_bring || facts.was_open {
                    return false;
                }
                supply.rest(error);
            }
        }
        true
    }

    /// Nobody is left who gives parts. Who gives the whole is asked for that; else it ends, with what the trusted one said.
    fn give_up(&mut self, nth: usize, error: UpstreamError) -> Result<(), PullError> {
        let whole = |supply: &super::Supply| {
            matches!(supply.out, Some(Out::NoParts)) && supply.suspect != Some(Lie::Size)
        };
        if let Some(last) = (!self.one_stream).then(|| self.supplies.iter().position(whole)).flatten() {
            self.close_all(None);
            self.supplies[nth].last_error = Some(error);
            self.supplies[nth].leave(Out::Lacks);
            self.supplies[last].come_back(&self.run.wanted);
            (self.one_stream, self.lead) = (true, last);
            return Ok(());
        }
        let trusted = |supply: &&mut super::Supply| self.run.is_trusted(&supply.source);
        let theirs = self.supplies.iter_mut().find(trusted).and_then(|supply| supply.last_error.take());
        let is_trusted = self.run.is_trusted(&self.supplies[nth].source);
        Err(self.run.failed(if is_trusted { error } else { theirs.unwrap_or(error) }))
    }

    /// Closes the connections of one upstream, or all.
    pub(super) fn close_all(&mut self, of: Option<usize>) {
        let of = |lane: &Lane| of.is_none_or(|nth| lane.supply == nth);
        let ids: Vec<u64> = self.lanes.iter().filter(|(_, lane)| of(lane)).map(|(id, _)| *id).collect();
        for id in ids {
            self.close(id);
        }
    }
}
