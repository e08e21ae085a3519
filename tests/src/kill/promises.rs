//! What clients were given to its end, and nobody has cleared since: it must be there after every kill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sampan_oci::Digest;

/// How something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Manifest,
    Blob,
}

/// What a repository, by its place in the world, showed.
pub(super) type Key = (usize, Digest, Part);

/// The promises in force. A clearing takes back whatever it could reach, from its beginning on: what it really removes
/// is Sampan's decision, and not looked at here.
#[derive(Debug, Default)]
pub(super) struct Promises(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// With the round in which it was made.
    held: BTreeMap<Key, u32>,
    tags: BTreeMap<usize, Digest>,
    /// The clearings of this round.
    clears: Vec<Clear>,
    /// The repositories whose tags were moved in this round: which of two answers came last is not known then.
    moved: BTreeSet<usize>,
    /// The repositories whose tags are pinned, with what clearing that could unpin them would lead to.
    pins: BTreeMap<usize, BTreeSet<Digest>>,
    /// What a pinned tag led to at the beginning of this round, and lay there then: nothing makes it go but a person.
    firm: BTreeMap<usize, BTreeSet<Digest>>,
    /// What was done, and how often.
    done: BTreeMap<&'static str, u64>,
    round: u32,
}

#[derive(Debug)]
struct Clear {
    reach: BTreeSet<Digest>,
    ended: bool,
    /// What was promised until it began, and which others ran then.
    took: Vec<(Key, u32)>,
    running: Vec<usize>,
}

/// Which clearings may have met what was asked for since.
#[derive(Debug)]
pub(super) struct Asked {
    running: Vec<usize>,
    next: usize,
}

impl State {
    fn running(&self) -> Vec<usize> {
        (0..self.clears.len()).filter(|&at| !self.clears[at].ended).collect()
    }

    /// Whether a clearing that ran then, or has begun since, may have met it.
    fn met(&self, asked: &Asked, meets: impl Fn(&BTreeSet<Digest>) -> bool) -> bool {
        let since = asked.next..self.clears.len();
        asked.running.iter().copied().chain(since).any(|at| meets(&self.clears[at].reach))
    }
}

impl Promises {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a round: nothing of an earlier one is under way.
    pub(super) fn begin_round(&self, round: u32) {
        let mut state = self.state();
        state.clears.clear();
        state.moved.clear();
        state.firm.clear();
        state.round = round;
    }

    /// Forgets everything but what was counted: the cache is a new one.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        let done = std::mem::take(&mut state.done);
        *state = State { done, ..State::default() };
    }

    /// Counts that something was done.
    pub(super) fn count(&self, what: &'static str, times: u64) {
        *self.state().done.entry(what).or_default() += times;
    }

    /// What was done, and how often.
    pub(super) fn done(&self) -> BTreeMap<&'static str, u64> {
        self.state().done.clone()
    }

    /// To be called before something is asked for.
    pub(super) fn ask(&self) -> Asked {
        let state = self.state();
        Asked { running: state.running(), next: state.clears.len() }
    }

    /// It was given to its end, by the tag too if that was asked for.
    pub(super) fn given(&self, asked: &Asked, key: Key, by_tag: bool) {
        let mut state = self.state();
        if state.met(asked, |reach| reach.contains(&key.1)) {
            return;
        }
        let round = state.round;
        state.held.insert(key, round);
        if by_tag && !state.moved.contains(&key.0) {
            state.tags.insert(key.0, key.1);
        }
    }

    /// Something is about to be cleared that leads to at most this; returns what to [end](Self::cleared) it by.
    pub(super) fn clear(&self, reach: BTreeSet<Digest>) -> usize {
        let mut state = self.state();
        let took = state.held.extract_if(.., |(_, digest, _), _| reach.contains(digest)).collect();
        state.tags.retain(|_, digest| !reach.contains(digest));
        state.pins.retain(|_, pinned| pinned.is_disjoint(&reach));
        for firm in state.firm.values_mut() {
            firm.retain(|digest| !reach.contains(digest));
        }
        let running = state.running();
        state.clears.push(Clear { reach, ended: false, took, running });
        state.clears.len() - 1
    }

    pub(super) fn cleared(&self, clear: usize) {
        self.state().clears[clear].ended = true;
    }

    /// What was cleared is back as it was, unless another clearing could meet it too.
    pub(super) fn undone(&self, clear: usize) {
        let mut state = self.state();
        state.clears[clear].ended = true;
        let took = std::mem::take(&mut state.clears[clear].took);
        let asked = Asked { running: state.clears[clear].running.clone(), next: clear + 1 };
        for (key, round) in took {
            if !state.met(&asked, |reach| reach.contains(&key.1)) {
                state.held.entry(key).or_insert(round);
            }
        }
    }

    /// The tag of a repository was pinned; `reach` is what its versions lead to.
    pub(super) fn pinned(&self, asked: &Asked, repository: usize, reach: BTreeSet<Digest>) {
        let mut state = self.state();
        if !state.met(asked, |cleared| !cleared.is_disjoint(&reach)) {
            state.pins.insert(repository, reach);
        }
    }

    /// The tag of a repository is about to be unpinned.
    pub(super) fn unpin(&self, repository: usize) {
        let mut state = self.state();
        state.pins.remove(&repository);
        state.firm.remove(&repository);
    }

    /// The repositories whose tags are pinned.
    pub(super) fn pins(&self) -> Vec<usize> {
        self.state().pins.keys().copied().collect()
    }

    /// A pinned tag leads to this, and it lies there; in this round it stays.
    pub(super) fn stays(&self, repository: usize, digests: BTreeSet<Digest>) {
        self.state().firm.insert(repository, digests);
    }

    /// What had to stay in this round, whatever room was needed.
    pub(super) fn stayed(&self) -> Vec<(usize, Digest)> {
        let state = self.state();
        let each = |(at, digests): (&usize, &BTreeSet<Digest>)| {
            digests.iter().map(|digest| (*at, *digest)).collect::<Vec<_>>()
        };
        state.firm.iter().flat_map(each).collect()
    }

    /// A tag is about to move.
    pub(super) fn moves(&self, repository: usize) {
        let mut state = self.state();
        state.moved.insert(repository);
        state.tags.remove(&repository);
        state.firm.remove(&repository);
    }

    /// What was promised: those of this round, those of earlier ones, and where tags point.
    pub(super) fn all(&self) -> (Vec<Key>, Vec<Key>, Vec<(usize, Digest)>) {
        let state = self.state();
        let (new, old): (Vec<_>, Vec<_>) = state.held.iter().partition(|(_, round)| **round == state.round);
        let keys = |of: Vec<(&Key, &u32)>| of.into_iter().map(|(key, _)| *key).collect();
        (keys(new), keys(old), state.tags.iter().map(|(at, digest)| (*at, *digest)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clearing_could_meet_is_promised_no_longer() {
        let promises = Promises::default();
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let held = || promises.all().0.into_iter().map(|(_, digest, _)| digest).collect::<Vec<_>>();
        let asked = promises.ask();
        promises.given(&asked, (0, a, Part::Blob), false);
        promises.given(&asked, (0, b, Part::Manifest), true);
        assert_eq!((held().len(), promises.all().2), (2, vec![(0, b)]));
        let clear = promises.clear(BTreeSet::from([a]));
        assert_eq!(held(), [b], "as soon as it begins");
        let during = promises.ask();
        promises.cleared(clear);
        promises.given(&asked, (0, a, Part::Blob), false);
        promises.given(&during, (0, a, Part::Blob), false);
        assert_eq!(held(), [b], "asked for before its end, or before its beginning");
        promises.given(&promises.ask(), (0, a, Part::Blob), false);
        assert_eq!(held().len(), 2, "asked for after its end");
        promises.moves(0);
        promises.given(&promises.ask(), (0, b, Part::Manifest), true);
        assert!(promises.all().2.is_empty(), "where a tag that moved points is not known in that round");
        promises.begin_round(1);
        assert_eq!((held(), promises.all().1.len()), (vec![], 2), "and all of it is old in the next one");
    }

    #[test]
    fn what_is_brought_back_is_promised_again_unless_another_clearing_could_meet_it() {
        let promises = Promises::default();
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let held = || promises.all().0.into_iter().map(|(_, digest, _)| digest).collect::<Vec<_>>();
        for digest in [a, b] {
            promises.given(&promises.ask(), (0, digest, Part::Blob), false);
        }
        let hidden = promises.clear(BTreeSet::from([a]));
        promises.undone(hidden);
        assert_eq!(held().len(), 2);
        let hidden = promises.clear(BTreeSet::from([a, b]));
        promises.cleared(promises.clear(BTreeSet::from([b])));
        promises.undone(hidden);
        assert_eq!(held(), [a], "the other one was cleared in between");
    }

    #[test]
    fn what_is_pinned_stays_until_it_is_unpinned_cleared_or_moved() {
        let promises = Promises::default();
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let pin = || {
            promises.pinned(&promises.ask(), 3, BTreeSet::from([a, b]));
            promises.stays(3, BTreeSet::from([a, b]));
        };
        pin();
        let (pins, stayed) = (promises.pins(), promises.stayed().into_iter().collect::<BTreeSet<_>>());
        assert_eq!((pins, stayed), (vec![3], BTreeSet::from([(3, a), (3, b)])));
        promises.moves(3);
        assert_eq!((promises.pins(), promises.stayed()), (vec![3], vec![]), "the pin follows the tag");
        pin();
        promises.clear(BTreeSet::from([a]));
        assert_eq!((promises.pins(), promises.stayed()), (vec![], vec![(3, b)]));
        promises.unpin(3);
        assert_eq!(promises.stayed(), []);
        pin();
        assert_eq!(promises.pins(), [0; 0], "the clearing has not ended");
    }
}
