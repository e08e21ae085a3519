//! Who brings which bytes of one blob: the ledger that its connections share.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use sampan_oci::RangeSet;

/// The least worth a request of its own: on a far link a round trip costs more than these bytes.
pub(crate) const MIN_PIECE: u64 = 64 * 1024;
/// The first question about a blob: its answer tells whether parts can be had.
pub(crate) const FIRST_PIECE: u64 = 512 * 1024;
/// What is asked for while little is known about the link: enough for a new connection to show what it can do.
const UNKNOWN_PIECE: u64 = 1024 * 1024;
/// Bounds of a piece once the link is known. A broken connection costs no byte that came, only the round trips of
/// asking again; but a piece is also how long a connection stays with one blob when another one wants its share.
const PIECE: std::ops::RangeInclusive<u64> = 128 * 1024..=32 * 1024 * 1024;
/// How long a piece should keep a connection busy, so that the one idle round trip between two pieces is cheap.
const PIECE_TIME: Duration = Duration::from_secs(4);
const PIECE_ROUND_TRIPS: u32 = 16;
/// The same while the number of connections is sought.
const SEEKING_ROUND_TRIPS: u32 = 12;
/// The least a piece should keep it busy, at the end of a blob too.
const LEAST_ROUND_TRIPS: u32 = 2;

/// What is known of a link when a piece of it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// What one connection brings, in bytes per second.
    pub(crate) rate: Option<u64>,
    pub(crate) round_trip: Duration,
    /// Whether the number of connections has been found. While it is sought, long pieces would keep the blob with the
    /// few there were.
    pub(crate) settled: bool,
    /// How many connections will share what is left of the blob.
    pub(crate) connections: usize,
}

/// How many bytes to ask for next, with `unclaimed` as [`Claims::unclaimed`] says. Towards the end pieces become small, so
/// that all connections end together.
pub(crate) fn piece_len(known: Known, unclaimed: u64) -> u64 {
    let Known { rate, round_trip, settled, connections } = known;
    let brings = |time: Duration| {
        u64::try_from(u128::from(rate.unwrap_or(0)) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
    };
    let wanted = match (rate, settled) {
        (None, _) => UNKNOWN_PIECE,
        (Some(_), false) => brings(round_trip.saturating_mul(SEEKING_ROUND_TRIPS)).max(UNKNOWN_PIECE),
        (Some(_), true) => brings(PIECE_TIME.max(round_trip.saturating_mul(PIECE_ROUND_TRIPS))),
    };
    // A piece that is there sooner than its question is not worth asking.
    let least = MIN_PIECE.max(brings(round_trip.saturating_mul(LEAST_ROUND_TRIPS)));
    let share = unclaimed / (2 * connections.max(1) as u64);
    wanted.clamp(*PIECE.start(), *PIECE.end()).min(share.max(least))
}

/// Names one claim of one [`Claims`]; never used again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClaimId(u64);

/// Bytes that one connection has set out to bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) id: ClaimId,
    /// What to ask for: not empty.
    pub(crate) range: Range<u64>,
}

#[derive(Debug)]
struct InFlight {
    /// Of a part: no byte of it was held when it was claimed, and nobody else brings one.
    range: Range<u64>,
    /// The byte that comes next.
    position: u64,
    /// Others may bring its bytes too.
    loose: bool,
}

/// What of one blob is held, what is on its way and with whom, and what is left.
///
/// No byte is on its way twice (but for those of a [loosened](Claims::loosen) claim), and none that is held is asked for
/// again (but for a stream of the whole, which cannot leave any out). What a claim did not bring is free again when it is
/// released.
#[derive(Debug)]
pub(crate) struct Claims {
    size: u64,
    held: RangeSet,
    /// Held or on its way.
    taken: RangeSet,
    in_flight: BTreeMap<ClaimId, InFlight>,
    next_id: u64,
}

impl Claims {
    /// The ledger of a blob of `size` bytes, of which `held` need not be brought.
    pub(crate) fn new(size: u64, mut held: RangeSet) -> Self {
        held.remove(size..u64::MAX);
        Self { size, taken: held.clone(), held, in_flight: BTreeMap::new(), next_id: 0 }
    }

    /// The next piece to ask for, at most `len` bytes and at least one: from the first free byte at or after
    /// `readers_at`, where the slowest reader is, or from the first free byte of all. A rest behind it that is not worth
    /// a request of its own is taken along. `None` when everything is held or on its way.
    pub(crate) fn next(&mut self, readers_at: Option<u64>, len: u64) -> Option<Claim> {
        let from = readers_at.unwrap_or(0).min(self.size);
        let free =
            self.taken.gaps(from..self.size).next().or_else(|| self.taken.gaps(0..self.size).next())?;
        let len = len.max(1);
        let rest = (free.end - free.start).saturating_sub(len);
        let end = if rest < MIN_PIECE { free.end } else { free.start + len };
        Some(self.claim(free.start..end))
    }

    /// The whole blob as one stream from its first byte, for an upstream that sends no parts. `None` while anything
    /// else is on its way, or when nothing is missing; while it lives, nothing else can be claimed.
    pub(crate) fn claim_whole(&mut self) -> Option<Claim> {
        (self.in_flight.is_empty() && !self.is_complete()).then(|| self.claim(0..self.size))
    }

    fn claim(&mut self, range: Range<u64>) -> Claim {
        let id = ClaimId(self.next_id);
        self.next_id += 1;
        self.taken.insert(range.clone());
        self.in_flight.insert(id, InFlight { range: range.clone(), position: range.start, loose: false });
        Claim { id, range }
    }

    /// `len` bytes came for a claim, the first of them the blob's byte `at`. Returns which of them are wanted, in order:
    /// those within the claim and not held yet. From here on they count as held.
    pub(crate) fn received(&mut self, id: ClaimId, at: u64, len: u64) -> Vec<Range<u64>> {
        let Some(claim) = self.in_flight.get_mut(&id) else { return Vec::new() };
        let came = at.max(claim.range.start)..at.saturating_add(len).min(claim.range.end);
        claim.position = claim.position.max(came.end);
        let wanted: Vec<_> = self.held.gaps(came).collect();
        for range in &wanted {
            self.held.insert(range.clone());
        }
        wanted
    }

    /// Takes the second half of what a claim has still to bring away from it, and frees it. Says whether it did: halves of
    /// less than `min` bytes are left alone, and so is a stream of the whole, which sends everything whatever is wanted.
    pub(crate) fn split(&mut self, id: ClaimId, min: u64) -> bool {
        let size = self.size;
        let fit = |claim: &&mut InFlight| claim.range != (0..size) && !claim.loose;
        let Some(claim) = self.in_flight.get_mut(&id).filter(fit) else { return false };
        let rest = claim.range.end - claim.position;
        if rest < 2 * min.max(1) {
            return false;
        }
        let second = claim.position + rest.div_ceil(2)..claim.range.end;
        claim.range.end = second.start;
        self.free(second);
        true
    }

    /// The claim ended or broke: what it did not bring is free again. A claim that is not there changes nothing.
    pub(crate) fn release(&mut self, id: ClaimId) {
        if let Some(claim) = self.in_flight.remove(&id) {
            self.free(claim.range);
        }
    }

    /// Lets others bring what a claim has still to bring, because it may never come: who brings a byte first, brings it.
    pub(crate) fn loosen(&mut self, id: ClaimId) {
        let Some(claim) = self.in_flight.get_mut(&id) else { return };
        claim.loose = true;
        let rest = claim.position..claim.range.end;
        self.free(rest);
    }

    fn free(&mut self, range: Range<u64>) {
        for gap in self.held.gaps(range) {
            self.taken.remove(gap);
        }
        // What was loosened may be on its way with somebody else by now.
        for claim in self.in_flight.values().filter(|claim| !claim.loose) {
            self.taken.insert(claim.position..claim.range.end);
        }
    }

    /// How many bytes that are wanted a claim has still to bring; 0 of one that is not there.
    pub(crate) fn remaining_of(&self, id: ClaimId) -> u64 {
        let Some(claim) = self.in_flight.get(&id) else { return 0 };
        self.held.gaps(claim.position..claim.range.end).map(|gap| gap.end - gap.start).sum()
    }

    /// How many bytes are neither held nor on their way.
    pub(crate) fn unclaimed(&self) -> u64 {
        self.size - self.taken.len()
    }

    /// Whether every byte is held.
    pub(crate) fn is_complete(&self) -> bool {
        self.held.len() == self.size
    }

    /// What is held.
    pub(crate) fn held(&self) -> &RangeSet {
        &self.held
    }

    /// How many claims live.
    #[cfg(test)]
    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1024;

    fn held(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::new();
        for &(start, end) in ranges {
            set.insert(start..end);
        }
        set
    }

    fn one(start: u64, end: u64) -> Vec<Range<u64>> {
        held(&[(start, end)]).iter().collect()
    }

    fn taken(claims: &mut Claims, readers_at: Option<u64>, len: u64) -> Range<u64> {
        claims.next(readers_at, len).unwrap().range
    }

    #[test]
    fn the_slowest_reader_is_served_first_and_then_what_lies_before_it() {
        let mut claims = Claims::new(1000 * KIB, RangeSet::new());
        assert_eq!(taken(&mut claims, Some(600 * KIB), 200 * KIB), 600 * KIB..800 * KIB);
        assert_eq!(taken(&mut claims, Some(600 * KIB), 200 * KIB), 800 * KIB..1000 * KIB);
        assert_eq!(taken(&mut claims, Some(600 * KIB), 500 * KIB), 0..500 * KIB);
        assert_eq!(taken(&mut claims, None, 500 * KIB), 500 * KIB..600 * KIB, "up to what is claimed");
        assert_eq!(claims.next(None, 1), None);
    }

    #[test]
    fn a_rest_not_worth_a_request_is_taken_along() {
        let mut claims = Claims::new(1000 * KIB, held(&[(300 * KIB, 400 * KIB)]));
        assert_eq!(taken(&mut claims, None, 240 * KIB), 0..300 * KIB);
        assert_eq!(taken(&mut claims, None, 536 * KIB), 400 * KIB..936 * KIB, "64 KiB are worth one");
        assert_eq!(taken(&mut claims, None, 1), 936 * KIB..1000 * KIB, "and there is no smaller rest");
    }

    #[test]
    fn bytes_beyond_the_end_of_a_shrunk_claim_are_not_wanted() {
        let mut claims = Claims::new(1000 * KIB, RangeSet::new());
        let first = claims.next(None, 999 * KIB).unwrap();
        claims.release(first.id);
        let first = claims.next(Some(KIB), 999 * KIB).unwrap();
        assert_eq!(claims.received(first.id, KIB, 199 * KIB), one(KIB, 200 * KIB));
        assert!(!claims.split(first.id, 401 * KIB), "too small for two");
        assert!(claims.split(first.id, 400 * KIB));
        assert_eq!(claims.remaining_of(first.id), 400 * KIB);
        let second = claims.next(Some(KIB), 600 * KIB).unwrap();
        assert_eq!(second.range, 600 * KIB..1000 * KIB);
        assert_eq!(claims.received(first.id, 200 * KIB, 500 * KIB), one(200 * KIB, 600 * KIB));
        assert_eq!(claims.received(first.id, 700 * KIB, KIB), [], "the second one brings these");
    }

    #[test]
    fn a_broken_claim_keeps_what_it_brought() {
        let mut claims = Claims::new(100 * KIB, RangeSet::new());
        let broken = claims.next(None, 100 * KIB).unwrap();
        claims.received(broken.id, 0, 30 * KIB);
        claims.release(broken.id);
        assert_eq!((claims.in_flight(), claims.unclaimed()), (0, 70 * KIB));
        assert_eq!(claims.received(broken.id, 30 * KIB, KIB), [], "it is over");
        assert_eq!(taken(&mut claims, None, 100 * KIB), 30 * KIB..100 * KIB);
    }

    #[test]
    fn a_loosened_claim_is_brought_by_whoever_is_first() {
        let mut claims = Claims::new(100, RangeSet::new());
        let slow = claims.next(None, 100).unwrap();
        claims.received(slow.id, 0, 10);
        claims.loosen(slow.id);
        let quick = claims.next(None, 100).unwrap();
        assert_eq!(quick.range, 10..100, "what came is not asked for again");
        assert_eq!(claims.received(quick.id, 10, 40), one(10, 50));
        assert_eq!(claims.received(slow.id, 10, 50), one(50, 60), "and the slow one's bytes are of use too");
        claims.release(slow.id);
        assert_eq!(
            (claims.unclaimed(), claims.next(None, 1)),
            (0, None),
            "the quick one still brings the rest"
        );
        assert_eq!(claims.received(quick.id, 50, 50), one(60, 100));
        assert!(claims.is_complete());
    }

    #[test]
    fn a_stream_of_the_whole_passes_over_what_is_held_and_is_alone() {
        let mut claims = Claims::new(100, held(&[(10, 20), (50, 60)]));
        let part = claims.next(None, 1).unwrap();
        assert_eq!(claims.claim_whole(), None, "something else is on its way");
        claims.release(part.id);
        let whole = claims.claim_whole().unwrap();
        assert_eq!(whole.range, 0..100);
        assert_eq!((claims.next(None, 1), claims.claim_whole()), (None, None));
        assert!(!claims.split(whole.id, 1));
        assert_eq!(claims.received(whole.id, 0, 15).len(), 1);
        assert_eq!(claims.received(whole.id, 15, 85), [20..50, 60..100]);
        assert!(claims.is_complete());
        claims.release(whole.id);
        assert_eq!(claims.claim_whole(), None, "nothing is missing");
    }

    #[test]
    fn a_blob_without_bytes_is_complete() {
        let mut claims = Claims::new(0, held(&[(0, 10)]));
        assert!(claims.is_complete());
        assert_eq!((claims.next(Some(5), 1), claims.claim_whole()), (None, None));
    }

    #[test]
    fn a_piece_is_as_long_as_the_link_is_fast_and_short_at_the_end() {
        const MIB: u64 = 1024 * KIB;
        let far = Duration::from_millis(220);
        let long = Duration::from_secs(1);
        for (rate, round_trip, unclaimed, connections, expected, why) in [
            (None, far, 1000 * MIB, 4, UNKNOWN_PIECE, "nothing is known"),
            (Some(145_000), far, 1000 * MIB, 32, 580_000, "four seconds' worth"),
            (Some(145_000), long, 1000 * MIB, 32, 2_320_000, "sixteen round trips' worth"),
            (Some(100), far, 1000 * MIB, 32, 128 * KIB, "not too many requests"),
            (Some(u64::MAX), far, 1000 * MIB, 1, 32 * MIB, "other blobs want their turn"),
            (Some(145_000), far, 20 * MIB, 32, 320 * KIB, "the end is near"),
            (Some(145_000), far, MIB, 32, MIN_PIECE, "and here"),
            (None, far, MIB, 4, 128 * KIB, "a small blob"),
            (Some(100 * MIB), Duration::from_millis(5), 4 * MIB, 8, MIB, "quick anyway: not many requests"),
            (None, far, 0, 0, MIN_PIECE, "nothing left, nobody there"),
        ] {
            let known = Known { rate, round_trip, settled: true, connections };
            assert_eq!(piece_len(known, unclaimed), expected, "{why}");
        }
        for (rate, expected, why) in [
            (145_000, UNKNOWN_PIECE, "what a connection brings at first is more than it can keep up"),
            (2_800_000, 7_392_000, "a fast connection must not stand idle between two pieces"),
        ] {
            let known = Known { rate: Some(rate), round_trip: far, settled: false, connections: 4 };
            assert_eq!(piece_len(known, 1000 * MIB), expected, "{why}");
        }
    }

    /// What happens next, and to which lane.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask { readers_at: Option<u64>, len: u64 },
        Whole,
        Bytes { lane: usize, len: u64 },
        Break { lane: usize },
        Split { lane: usize, min: u64 },
        Resume,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = || 1..600 * KIB;
        let lane = || 0usize..8;
        let step = prop_oneof![
            4 => (prop::option::of(0..3000 * KIB), len()).prop_map(|(readers_at, len)| Step::Ask { readers_at, len }),
            1 => Just(Step::Whole),
            8 => (lane(), len()).prop_map(|(lane, len)| Step::Bytes { lane, len }),
            1 => lane().prop_map(|lane| Step::Break { lane }),
            2 => (lane(), 1..200 * KIB).prop_map(|(lane, min)| Step::Split { lane, min }),
            1 => Just(Step::Resume),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// Lanes that bring bytes as they come, and what all of them must never do.
    struct World {
        size: u64,
        claims: Claims,
        /// The claims of the lanes that live, and where their bodies are.
        lanes: Vec<(Claim, u64)>,
        /// Brought by anybody, so far.
        brought: RangeSet,
    }

    impl World {
        fn ask(&mut self, claim: Option<Claim>) {
            let Some(claim) = claim else { return };
            let whole = claim.range == (0..self.size);
            assert!(!claim.range.is_empty() && claim.range.end <= self.size);
            for (other, _) in &self.lanes {
                let Range { start, end } = claim.range;
                assert!(end <= other.range.start || other.range.end <= start, "nobody else brings these");
            }
            let missing: u64 = self.brought.gaps(claim.range.clone()).map(|gap| gap.end - gap.start).sum();
            assert!(whole || missing == claim.range.end - claim.range.start, "none of these is held");
            let position = claim.range.start;
            self.lanes.push((claim, position));
        }

        fn bytes(&mut self, lane: usize, len: u64) {
            let Some((claim, position)) = self.lanes.get_mut(lane) else { return };
            let len = len.min(claim.range.end - *position);
            let prefix = self.claims.held().end_of_run(0);
            for wanted in self.claims.received(claim.id, *position, len) {
                assert!(!wanted.is_empty() && wanted.start >= *position && wanted.end <= *position + len);
                assert!(self.brought.gaps(wanted.clone()).eq([wanted.clone()]), "once only");
                self.brought.insert(wanted);
            }
            *position += len;
            assert!(self.claims.held().end_of_run(0) >= prefix, "the prefix only grows");
            assert_eq!(*self.claims.held(), self.brought, "no byte is lost or made up");
            if *position == claim.range.end || self.claims.remaining_of(claim.id) == 0 {
                self.end(lane);
            }
        }

        fn end(&mut self, lane: usize) {
            if lane < self.lanes.len() {
                let (claim, _) = self.lanes.swap_remove(lane);
                self.claims.release(claim.id);
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Ask { readers_at, len } => {
                    let claim = self.claims.next(readers_at, len);
                    self.ask(claim);
                }
                Step::Whole => {
                    let claim = self.claims.claim_whole();
                    self.ask(claim);
                }
                Step::Bytes { lane, len } => self.bytes(lane, len),
                Step::Break { lane } => self.end(lane),
                Step::Split { lane, min } => {
                    if let Some((claim, position)) = self.lanes.get_mut(lane)
                        && self.claims.split(claim.id, min)
                    {
                        // Nothing in a part is held before it comes.
                        claim.range.end = *position + self.claims.remaining_of(claim.id);
                    }
                }
                Step::Resume => {
                    self.lanes.clear();
                    self.claims = Claims::new(self.size, self.claims.held().clone());
                }
            }
            assert_eq!(self.claims.in_flight(), self.lanes.len());
            let on_the_way: u64 =
                self.lanes.iter().map(|(claim, _)| self.claims.remaining_of(claim.id)).sum();
            let all = self.claims.unclaimed() + on_the_way + self.claims.held().len();
            assert_eq!(all, self.size, "every byte is in one place");
        }
    }

    proptest! {
        #[test]
        fn every_byte_comes_once_whatever_happens(
            size in 0..3000 * KIB,
            already in prop::collection::vec((0..3000 * KIB, 1..300 * KIB), 0..4),
            steps in steps(),
            len in 1..600 * KIB,
        ) {
            let mut already = held(&already.iter().map(|&(at, len)| (at, at + len)).collect::<Vec<_>>());
            already.remove(size..u64::MAX);
            let claims = Claims::new(size, already.clone());
            let mut world = World { size, claims, lanes: Vec::new(), brought: already };
            for step in steps {
                world.step(step);
            }
            // From here on nothing goes wrong: then it must come to its end.
            let mut rounds = 0;
            while !world.claims.is_complete() {
                world.step(Step::Ask { readers_at: None, len });
                world.step(Step::Bytes { lane: 0, len: 600 * KIB });
                rounds += 1;
                prop_assert!(rounds < 1_000_000, "it never ends");
            }
            prop_assert_eq!(world.brought.len(), size);
            prop_assert_eq!(world.claims.unclaimed(), 0);
        }

        #[test]
        fn one_lane_gets_the_pieces_in_order(size in 1..3000 * KIB, lens in prop::collection::vec(1..600 * KIB, 1..9)) {
            let mut claims = Claims::new(size, RangeSet::new());
            let mut at = 0;
            for len in lens.iter().cycle() {
                let Some(claim) = claims.next(None, *len) else { break };
                prop_assert_eq!(claim.range.start, at);
                at = claim.range.end;
                claims.received(claim.id, claim.range.start, at - claim.range.start);
                claims.release(claim.id);
            }
            prop_assert_eq!(at, size);
            prop_assert!(claims.is_complete());
        }
    }
}
