//! Sums: what one event adds to the numbers. Pure.

use std::ops::AddAssign;

use sampan_oci::{Answered, Failure, Outcome, Reference, RequestKind};

/// Sums over some manifest and blob requests, GET and HEAD. Sizes are bytes of bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests answered.
    pub requests: u64,
    /// Those answered without the body crossing the link ([`Outcome::is_hit`]).
    pub hits: u64,
    /// Those that failed. A referrers fallback tag that does not exist is an answer, not a failure.
    pub failures: u64,
    /// Body bytes handed to clients.
    pub served_bytes: u64,
    /// Body bytes received from upstreams.
    pub fetched_bytes: u64,
    /// Body bytes handed to clients by hits.
    pub hit_bytes: u64,
}

impl Totals {
    /// `served_bytes − fetched_bytes`; negative where more was fetched than handed out.
    pub fn saved_bytes(&self) -> i64 {
        self.served_bytes
            .checked_signed_diff(self.fetched_bytes)
            .unwrap_or(if self.served_bytes > self.fetched_bytes { i64::MAX } else { i64::MIN })
    }

    /// What one answer adds; `None` for requests that are no part of a pull.
    pub(crate) fn of_answer(answer: &Answered) -> Option<Self> {
        match answer.kind {
            RequestKind::Manifest | RequestKind::Blob => {}
            RequestKind::Ping | RequestKind::Tags | RequestKind::Referrers | RequestKind::Other => {
                return None;
            }
        }
        let hit = answer.outcome.is_hit();
        Some(Self {
            requests: 1,
            hits: u64::from(hit),
            failures: u64::from(is_failure(answer)),
            served_bytes: answer.served_bytes,
            fetched_bytes: 0,
            hit_bytes: if hit { answer.served_bytes } else { 0 },
        })
    }

    /// What bytes received from an upstream add.
    pub(crate) fn of_fetched(bytes: u64) -> Self {
        Self { fetched_bytes: bytes, ..Self::default() }
    }
}

fn is_failure(answer: &Answered) -> bool {
    match answer.outcome {
        Outcome::Failed(Failure::NotFound) => !answer.reference.as_ref().is_some_and(is_referrers_tag),
        Outcome::Failed(_) => true,
        Outcome::Hit
        | Outcome::Revalidated
        | Outcome::Miss
        | Outcome::Joined
        | Outcome::Stale(_)
        | Outcome::Bypass(_) => false,
    }
}

/// Whether a tag stands for the referrers of a digest (distribution-spec, "Referrers Tag Schema"): clients ask for it
/// on the chance that it exists, as cosign does for `sha256-….sig`.
fn is_referrers_tag(reference: &Reference) -> bool {
    match reference {
        Reference::Digest(_) => false,
        Reference::Tag(tag) => tag.as_str().split_once('-').is_some_and(|(algorithm, rest)| {
            matches!(algorithm, "sha256" | "sha512")
                && rest.bytes().take_while(u8::is_ascii_hexdigit).count() >= 64
        }),
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.hits = self.hits.saturating_add(other.hits);
        self.failures = self.failures.saturating_add(other.failures);
        self.served_bytes = self.served_bytes.saturating_add(other.served_bytes);
        self.fetched_bytes = self.fetched_bytes.saturating_add(other.fetched_bytes);
        self.hit_bytes = self.hit_bytes.saturating_add(other.hit_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::testing::answer;
    use sampan_oci::Stale;

    #[test]
    fn only_manifests_and_blobs_are_counted() {
        for kind in [RequestKind::Ping, RequestKind::Tags, RequestKind::Referrers, RequestKind::Other] {
            assert_eq!(Totals::of_answer(&Answered { kind, ..answer(1, 0) }), None, "{kind:?} is no pull");
        }
        for head in [false, true] {
            let blob = Answered { head, served_bytes: 7, outcome: Outcome::Miss, ..answer(1, 0) };
            let expected = Totals { requests: 1, served_bytes: 7, ..Totals::default() };
            assert_eq!(Totals::of_answer(&blob), Some(expected));
        }
    }

    #[test]
    fn bytes_of_hits_are_bytes_the_link_did_not_carry() {
        for outcome in [Outcome::Hit, Outcome::Revalidated, Outcome::Stale(Stale::Outage), Outcome::Joined] {
            let totals = Totals::of_answer(&Answered { outcome, served_bytes: 7, ..answer(1, 0) }).unwrap();
            assert_eq!((totals.hits, totals.hit_bytes, totals.served_bytes), (1, 7, 7), "{outcome:?}");
        }
    }

    #[test]
    fn a_missing_referrers_tag_is_no_failure_but_a_missing_image_is() {
        let hex = "a".repeat(64);
        for (tag, failures) in [
            (format!("sha256-{hex}"), 0),
            (format!("sha256-{hex}.sig"), 0),
            (format!("sha512-{hex}"), 0),
            ("sha256-short".into(), 1),
            ("latest".into(), 1),
        ] {
            let asked = Answered {
                kind: RequestKind::Manifest,
                reference: Some(tag.parse().unwrap()),
                outcome: Outcome::Failed(Failure::NotFound),
                ..answer(1, 0)
            };
            assert_eq!(Totals::of_answer(&asked).unwrap().failures, failures, "{tag}");
        }
        let left = Answered { outcome: Outcome::Failed(Failure::ClientLeft), ..answer(1, 0) };
        assert_eq!(Totals::of_answer(&left).unwrap().failures, 1, "it was not served to its end");
    }

    #[test]
    fn a_day_may_cost_more_than_it_saved() {
        let mut totals = Totals::of_fetched(100);
        totals.served_bytes = 30;
        assert_eq!(totals.saved_bytes(), -70, "told as it is");
        assert_eq!(Totals::of_fetched(u64::MAX).saved_bytes(), i64::MIN, "absurd numbers do not panic");
    }
}
