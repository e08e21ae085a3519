//! What a pull needs, decided without I/O and without reading a clock.

use sampan_oci::{Digest, Reference};

/// What to do about a manifest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Serve what is held.
    Hit(Digest),
    /// Ask the upstream whether the tag still points at this, then serve.
    Revalidate(Digest),
    /// Fetch.
    Miss,
}

/// Decides from what is held under the reference. A tag is asked about at every pull: a HEAD request is free of Docker
/// Hub's quota, and `latest` must mean latest (DESIGN.md 3, step 2).
pub(crate) fn plan(wanted: &Reference, held: Option<Digest>) -> Plan {
    match (wanted, held) {
        (_, None) => Plan::Miss,
        // A digest names its own bytes: a verified copy cannot go stale.
        (Reference::Digest(_), Some(digest)) => Plan::Hit(digest),
        (Reference::Tag(_), Some(digest)) => Plan::Revalidate(digest),
    }
}

/// What to do once the upstream was asked about a held tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Our copy is current.
    Current,
    /// The tag moved (or the upstream would not say where it points): fetch.
    Moved,
    /// The upstream could not answer: serve ours and say so.
    Stale,
    /// The upstream says that the tag is gone, or is not for us to see: so do we.
    Gone,
}

/// Reads the upstream's answer about a held tag. An upstream that says "no" is believed; one that cannot answer is not
/// a reason to fail a pull (SECURITY.md R12).
pub(crate) fn verdict(held: Digest, answer: &Result<Option<Digest>, sampan_oci::Failure>) -> Verdict {
    use sampan_oci::Failure;
    match answer {
        Ok(Some(now)) if *now == held => Verdict::Current,
        Ok(_) => Verdict::Moved,
        Err(Failure::NotFound) => Verdict::Gone,
        Err(
            Failure::Invalid
            | Failure::Forbidden
            | Failure::ClientLeft
            | Failure::Unreachable
            | Failure::RateLimited
            | Failure::Upstream
            | Failure::Mismatch
            | Failure::Store
            | Failure::Stopping,
        ) => Verdict::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sampan_oci::Failure;

    #[test]
    fn a_digest_never_goes_stale_and_a_tag_is_always_asked_about() {
        let digest = Digest::of(b"x");
        let tag: Reference = "latest".parse().unwrap();
        assert_eq!(plan(&Reference::Digest(digest), Some(digest)), Plan::Hit(digest));
        assert_eq!(plan(&tag, Some(digest)), Plan::Revalidate(digest));
        assert_eq!(plan(&Reference::Digest(digest), None), Plan::Miss);
        assert_eq!(plan(&tag, None), Plan::Miss);
    }

    #[test]
    fn an_upstream_that_cannot_answer_makes_a_tag_stale_and_one_that_says_no_makes_it_gone() {
        let (held, other) = (Digest::of(b"x"), Digest::of(b"y"));
        assert_eq!(verdict(held, &Ok(Some(held))), Verdict::Current);
        assert_eq!(verdict(held, &Ok(Some(other))), Verdict::Moved);
        assert_eq!(verdict(held, &Ok(None)), Verdict::Moved);
        assert_eq!(verdict(held, &Err(Failure::NotFound)), Verdict::Gone);
        for failure in [Failure::Unreachable, Failure::RateLimited, Failure::Upstream, Failure::Mismatch] {
            assert_eq!(verdict(held, &Err(failure)), Verdict::Stale, "{failure:?}");
        }
    }
}
