//! What a pull needs, decided without I/O and without reading a clock.

use std::time::Duration;

use sampan_oci::{Digest, Failure, Reference, Stale};

use crate::age::{Checked, Moment};
use crate::freshness::{Check, Policy};

/// What is held under a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) digest: Digest,
    /// When its upstream last confirmed that the tag points there. Says nothing of a digest.
    pub(crate) checked: Checked,
    /// Whether a person froze the tag there.
    pub(crate) frozen: bool,
}

/// What to do about a manifest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Serve what is held.
    Hit(Digest),
    /// The same of a tag, whose upstream is not to be asked now.
    Unasked(Digest),
    /// Ask the upstream whether the tag still points at this, then serve.
    Revalidate(Digest),
    /// Fetch.
    Miss,
}

/// Decides from what is held under the reference, and from how often its tags are to be asked about. By default that is at
/// every pull: a HEAD request is free of Docker Hub's quota, and `latest` must mean latest (DESIGN.md 3, step 2).
pub(crate) fn plan(wanted: &Reference, held: Option<Held>, now: Moment, policy: Policy) -> Plan {
    let Some(held) = held else { return Plan::Miss };
    match wanted {
        // A digest names its own bytes: a verified copy cannot go stale.
        Reference::Digest(_) => Plan::Hit(held.digest),
        Reference::Tag(_) if held.frozen => Plan::Unasked(held.digest),
        Reference::Tag(_) => match policy.check {
            Check::OnRequest | Check::Never => Plan::Unasked(held.digest),
            // The clock was set back: asking is cheap, trusting the future is not (SECURITY.md R75).
            Check::Every(most) if held.checked.age(now) < most && !held.checked.is_in_the_future(now) => {
                Plan::Unasked(held.digest)
            }
            Check::Always | Check::Every(_) => Plan::Revalidate(held.digest),
        },
    }
}

/// What an upstream said of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It points there now; `None`: it is there, and the upstream does not say where it points.
    Points(Option<Digest>),
    /// There is no such tag.
    Gone,
    /// It is not shown to somebody without a login.
    Denied,
    /// It did not say in time.
    Late,
    /// It was not asked: it did not answer the last times.
    Resting,
    /// It could not say.
    Failed(Failure),
}

/// What to do once the upstream was asked about a held tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Our copy is current.
    Current,
    /// The tag moved (or the upstream would not say where it points): fetch.
    Moved,
    /// The upstream could not answer: serve ours and say so.
    Stale(Stale),
    /// The upstream could not answer, and ours is older than it may be then.
    TooOld,
    /// The upstream says that the tag is gone: so do we, from now on.
    Gone,
    /// The upstream says that the tag is not for us to see: so do we.
    Denied,
}

/// Reads the upstream's answer about a held tag, which was confirmed `age` ago. An upstream that says "no" is believed; one
/// that cannot answer is not a reason to fail a pull (SECURITY.md R12), unless a person set a bound to that.
pub(crate) fn verdict(held: Digest, word: Word, age: Duration, policy: Policy) -> Verdict {
    let why = match word {
        Word::Points(Some(now)) if now == held => return Verdict::Current,
        Word::Points(_) => return Verdict::Moved,
        Word::Gone => return Verdict::Gone,
        Word::Denied => return Verdict::Denied,
        Word::Late => Stale::Deadline,
        Word::Resting => Stale::Resting,
        Word::Failed(failure) => Stale::of(failure),
    };
    stale(why, age, policy)
}

/// Whether a tag that was confirmed `age` ago is answered although its upstream cannot confirm it.
pub(crate) fn stale(why: Stale, age: Duration, policy: Policy) -> Verdict {
    if policy.stale_max.is_some_and(|most| age > most) { Verdict::TooOld } else { Verdict::Stale(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sampan_oci::Millis;

    const QUARTER: Duration = Duration::from_mins(15);
    const EVERY: Policy = Policy { check: Check::Every(QUARTER), stale_max: None };

    fn moment(wall: i64, lived: Duration) -> Moment {
        Moment { wall: Millis(wall), lived, began: Millis(0) }
    }

    fn held(checked: Checked) -> Held {
        Held { digest: Digest::of(b"x"), checked, frozen: false }
    }

    #[test]
    fn a_digest_never_goes_stale_and_what_is_not_held_is_fetched() {
        let held = held(Checked { wall: Millis(0), lived: None });
        let (digest, tag) = (Reference::Digest(held.digest), "latest".parse().unwrap());
        for check in [Check::Always, Check::Every(QUARTER), Check::OnRequest, Check::Never] {
            let (now, policy) = (moment(1 << 50, QUARTER * 9), Policy { check, stale_max: None });
            assert_eq!(plan(&digest, Some(held), now, policy), Plan::Hit(held.digest), "{check:?}");
            assert_eq!(plan(&digest, None, now, policy), Plan::Miss, "{check:?}");
            assert_eq!(plan(&tag, None, now, policy), Plan::Miss, "{check:?}: what is not held has to come");
        }
    }

    #[test]
    fn a_tag_is_asked_about_as_often_as_its_policy_says() {
        let tag: Reference = "latest".parse().unwrap();
        let confirmed = held(Checked { wall: Millis(0), lived: Some(Duration::ZERO) });
        let frozen = Held { frozen: true, ..confirmed };
        let (ask, serve) = (Plan::Revalidate(confirmed.digest), Plan::Unasked(confirmed.digest));
        for (check, held, millis, expected) in [
            (Check::Always, confirmed, 0, ask),
            (Check::Every(QUARTER), confirmed, 0, serve),
            (Check::Every(QUARTER), confirmed, 899_999, serve),
            (Check::Every(QUARTER), confirmed, 900_000, ask),
            (Check::OnRequest, confirmed, 1 << 50, serve),
            (Check::Never, confirmed, 1 << 50, serve),
            (Check::Always, frozen, 1 << 50, serve),
            (Check::Every(QUARTER), frozen, 1 << 50, serve),
        ] {
            let now = moment(millis, Duration::from_millis(millis.try_into().unwrap()));
            let policy = Policy { check, stale_max: None };
            assert_eq!(plan(&tag, Some(held), now, policy), expected, "{check:?} {millis} {held:?}");
        }
    }

    #[test]
    fn a_confirmation_from_the_future_is_asked_about() {
        let tag: Reference = "latest".parse().unwrap();
        for lived in [None, Some(Duration::ZERO)] {
            let held = held(Checked { wall: Millis(5_000), lived });
            let now = moment(4_999, Duration::ZERO);
            assert_eq!(plan(&tag, Some(held), now, EVERY), Plan::Revalidate(held.digest), "{lived:?}");
        }
    }

    proptest! {
        #[test]
        fn no_step_of_the_clock_makes_a_tag_fresher_than_its_policy_allows(
            wall in any::<i64>(), then in any::<i64>(), began in any::<i64>(),
            known in prop::option::of(0_u64..1 << 40), since in 900_000_u64..1 << 40,
        ) {
            // Known to this process, or held since it began, for longer than the policy allows.
            let lived = Duration::from_millis(known.unwrap_or(0) + since);
            let held = held(Checked { wall: Millis(then), lived: known.map(Duration::from_millis) });
            let now = Moment { wall: Millis(wall), lived, began: Millis(began) };
            let tag: Reference = "latest".parse().unwrap();
            prop_assert_eq!(plan(&tag, Some(held), now, EVERY), Plan::Revalidate(held.digest));
        }
    }

    #[test]
    fn an_upstream_that_cannot_answer_makes_a_tag_stale_and_one_that_says_no_is_believed() {
        let (held, other) = (Digest::of(b"x"), Digest::of(b"y"));
        let day = Duration::from_hours(24);
        let bound = Policy { check: Check::Always, stale_max: Some(day) };
        for (word, within, beyond) in [
            (Word::Points(Some(held)), Verdict::Current, Verdict::Current),
            (Word::Points(Some(other)), Verdict::Moved, Verdict::Moved),
            (Word::Points(None), Verdict::Moved, Verdict::Moved),
            (Word::Gone, Verdict::Gone, Verdict::Gone),
            (Word::Denied, Verdict::Denied, Verdict::Denied),
            (Word::Late, Verdict::Stale(Stale::Deadline), Verdict::TooOld),
            (Word::Resting, Verdict::Stale(Stale::Resting), Verdict::TooOld),
            (Word::Failed(Failure::Unreachable), Verdict::Stale(Stale::Outage), Verdict::TooOld),
            (Word::Failed(Failure::RateLimited), Verdict::Stale(Stale::RateLimit), Verdict::TooOld),
            (Word::Failed(Failure::Upstream), Verdict::Stale(Stale::Upstream), Verdict::TooOld),
            (Word::Failed(Failure::Mismatch), Verdict::Stale(Stale::Upstream), Verdict::TooOld),
            (Word::Failed(Failure::Offline), Verdict::Stale(Stale::Offline), Verdict::TooOld),
        ] {
            assert_eq!(verdict(held, word, day, bound), within, "{word:?}");
            assert_eq!(verdict(held, word, day + Duration::from_millis(1), bound), beyond, "{word:?}");
            assert_eq!(verdict(held, word, Duration::MAX, Policy::default()), within, "{word:?}: no bound");
        }
    }
}
