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
    round: u32,
}

#[derive(Debug)]
struct Clear {
    reach: BTreeSet<Digest>,
    ended: bool,
}

/// Which clearings may have met what was asked for since.
#[derive(Debug)]
pub(super) struct Asked {
    running: Vec<usize>,
    next: usize,
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
        state.round = round;
    }

    /// Forgets everything: the cache is a new one.
    pub(super) fn forget(&self) {
        *self.state() = State::default();
    }

    /// To be called before something is asked for.
    pub(super) fn ask(&self) -> Asked {
        let state = self.state();
        let running = (0..state.clears.len()).filter(|&at| !state.clears[at].ended).collect();
        Asked { running, next: state.clears.len() }
    }

    /// It was given to its end, by the tag too if that was asked for.
    pub(super) fn given(&self, asked: &Asked, key: Key, by_tag: bool) {
        let mut state = self.state();
        let since = asked.next..state.clears.len();
        if asked.running.iter().copied().chain(since).any(|at| state.clears[at].reach.contains(&key.1)) {
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
        state.held.retain(|(_, digest, _), _| !reach.contains(digest));
        state.tags.retain(|_, digest| !reach.contains(digest));
        state.clears.push(Clear { reach, ended: false });
        state.clears.len() - 1
    }

    pub(super) fn cleared(&self, clear: usize) {
        self.state().clears[clear].ended = true;
    }

    /// A tag is about to move.
    pub(super) fn moves(&self, repository: usize) {
        let mut state = self.state();
        state.moved.insert(repository);
        state.tags.remove(&repository);
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
}
