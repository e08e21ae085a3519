//! The connections to one upstream, shared fairly by all its downloads.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many connections are in use, by whom, and who waits for one.
///
/// A download without a connection gets one at once while fewer than `max` are in use: no blob stands still behind
/// another. Beyond its first one, a download gets more while fewer than the level are in use. Of those that wait, the one
/// with the fewest comes first, then the one that waits longest; so shares become equal as pieces end.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    max: usize,
    level: usize,
    in_use: usize,
    /// How many slots each member holds.
    members: HashMap<MemberId, usize>,
    next_member: u64,
    /// In the order they came.
    waiting: VecDeque<Waiter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct MemberId(u64);

#[derive(Debug)]
struct Waiter {
    member: MemberId,
    grant: oneshot::Sender<Slot>,
}

impl Slots {
    /// Slots for at most `max` connections (at least one), all of which may be used until a level is set.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self(Arc::new(Mutex::new(State {
            max,
            level: max,
            in_use: 0,
            members: HashMap::new(),
            next_member: 0,
            waiting: VecDeque::new(),
        })))
    }

    /// A download that will want slots. It leaves by being dropped.
    pub(crate) fn register(&self) -> Member {
        let mut state = self.lock();
        let id = MemberId(state.next_member);
        state.next_member += 1;
        state.members.insert(id, 0);
        Member { slots: self.clone(), id }
    }

    /// How many connections are worth having. Nobody loses one: a lower level is reached as slots come back.
    pub(crate) fn set_level(&self, level: usize) {
        self.lock().level = level;
        self.grant();
    }

    /// How many slots are held.
    pub(crate) fn in_use(&self) -> usize {
        self.lock().in_use
    }

    /// How many downloads share them.
    pub(crate) fn members(&self) -> usize {
        self.lock().members.len()
    }

    /// How many acquirers wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        let mut state = self.lock();
        state.waiting.retain(|waiter| !waiter.grant.is_closed());
        state.waiting.len()
    }

    /// Gives out what may be given. Must be called without the lock: a grant that nobody takes comes back through it.
    fn grant(&self) {
        loop {
            let Some(waiter) = self.lock().next_to_serve() else { return };
            let slot = Slot { slots: self.clone(), member: waiter.member };
            // Whoever gave up meanwhile hands the slot back by dropping it.
            drop(waiter.grant.send(slot));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who gets a slot now, if anybody may; it is counted as held already.
    fn next_to_serve(&mut self) -> Option<Waiter> {
        self.waiting.retain(|waiter| !waiter.grant.is_closed());
        let holds = |waiter: &Waiter| self.members.get(&waiter.member).copied().unwrap_or(0);
        let (at, fewest) = self.waiting.iter().map(holds).enumerate().min_by_key(|&(at, held)| (held, at))?;
        if self.in_use >= self.max || (self.in_use >= self.level && fewest > 0) {
            return None;
        }
        let waiter = self.waiting.remove(at)?;
        self.in_use += 1;
        *self.members.entry(waiter.member).or_default() += 1;
        Some(waiter)
    }
}

/// One download among those that share the connections.
#[derive(Debug)]
pub(crate) struct Member {
    slots: Slots,
    id: MemberId,
}

impl Member {
    /// Waits for a slot. Given up (dropped), it costs nobody anything.
    pub(crate) async fn acquire(&self) -> Slot {
        loop {
            let (grant, granted) = oneshot::channel();
            self.slots.lock().waiting.push_back(Waiter { member: self.id, grant });
            self.slots.grant();
            // A waiter is only forgotten once nobody listens to it.
            if let Ok(slot) = granted.await {
                return slot;
            }
        }
    }

    /// How many slots it holds.
    pub(crate) fn held(&self) -> usize {
        self.slots.lock().members.get(&self.id).copied().unwrap_or(0)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.slots.lock().members.remove(&self.id);
    }
}

/// The right to one connection, for the time of one piece. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    member: MemberId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.slots.lock();
            state.in_use -= 1;
            if let Some(held) = state.members.get_mut(&self.member) {
                *held -= 1;
            }
        }
        self.slots.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn slots(max: usize, level: usize) -> Slots {
        let slots = Slots::new(max);
        slots.set_level(level);
        slots
    }

    /// As many slots as it gets without waiting.
    fn all(member: &Member) -> Vec<Slot> {
        std::iter::from_fn(|| member.acquire().now_or_never()).collect()
    }

    #[test]
    fn one_download_may_use_all_up_to_the_level() {
        let slots = slots(32, 5);
        let alone = slots.register();
        let held = all(&alone);
        assert_eq!((held.len(), slots.in_use(), alone.held(), slots.waiting()), (5, 5, 5, 0));
    }

    #[test]
    fn a_new_blob_gets_a_connection_at_once_until_there_are_too_many() {
        let slots = slots(6, 4);
        let first = slots.register();
        let mut held = all(&first);
        let others: Vec<_> = (0..3).map(|_| slots.register()).collect();
        held.extend(others[0].acquire().now_or_never());
        held.extend(others[1].acquire().now_or_never());
        assert_eq!((held.len(), slots.in_use()), (6, 6), "beyond the level");
        assert!(others[2].acquire().now_or_never().is_none(), "but not beyond the most there may be");
    }

    #[test]
    fn shares_become_equal_as_pieces_end() {
        let slots = slots(8, 8);
        let (first, second) = (slots.register(), slots.register());
        let mut pieces: VecDeque<_> = all(&first).into();
        let mut wanted: Vec<_> = (0..16).map(|n| if n % 2 == 0 { &first } else { &second }).collect();
        let mut waiting: Vec<_> = wanted.drain(..).map(|member| Box::pin(member.acquire())).collect();
        for waiter in &mut waiting {
            assert!(waiter.now_or_never().is_none());
        }
        for _ in 0..8 {
            pieces.pop_front();
            let before = waiting.len();
            waiting.retain_mut(|waiter| match waiter.now_or_never() {
                Some(slot) => {
                    pieces.push_back(slot);
                    false
                }
                None => true,
            });
            assert_eq!(waiting.len(), before - 1, "one came back, one was given");
        }
        assert_eq!((first.held(), second.held(), slots.in_use()), (4, 4, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn sixty_four_blobs_with_half_as_many_connections_are_each_served_within_two_rounds() {
        const PIECE: std::time::Duration = std::time::Duration::from_secs(1);
        let slots = slots(32, 32);
        let begun = tokio::time::Instant::now();
        let downloads = (0..64).map(|_| {
            let member = slots.register();
            async move {
                let mut waits = Vec::new();
                for _ in 0..10 {
                    let asked = tokio::time::Instant::now();
                    let _slot = member.acquire().await;
                    waits.push(asked.elapsed());
                    tokio::time::sleep(PIECE).await;
                }
                waits
            }
        });
        let waits = futures_util::future::join_all(downloads).await;
        assert!(waits.iter().flatten().all(|wait| wait.as_millis() <= 1100), "{waits:?}");
        assert!((20..22).contains(&begun.elapsed().as_secs()), "no slot was idle: {:?}", begun.elapsed());
        assert_eq!(slots.in_use(), 0);
    }

    #[test]
    fn a_grant_nobody_takes_any_more_goes_to_the_next() {
        let slots = slots(1, 1);
        let (holder, quitter, patient) = (slots.register(), slots.register(), slots.register());
        let slot = holder.acquire().now_or_never().unwrap();
        let mut given_up = Box::pin(quitter.acquire());
        let mut waits = Box::pin(patient.acquire());
        assert!((&mut given_up).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        assert_eq!(slots.waiting(), 2);
        drop(slot); // Granted to the quitter, who is not polled again.
        drop(given_up);
        assert!(waits.now_or_never().is_some());
        assert_eq!((slots.in_use(), slots.waiting()), (0, 0));
    }

    #[test]
    fn who_gives_up_waiting_is_passed_over() {
        let slots = slots(1, 1);
        let (holder, quitter) = (slots.register(), slots.register());
        let slot = holder.acquire().now_or_never().unwrap();
        assert!(quitter.acquire().now_or_never().is_none());
        drop(slot);
        assert_eq!((slots.in_use(), slots.waiting()), (0, 0));
        assert!(holder.acquire().now_or_never().is_some());
    }

    #[test]
    fn a_lower_level_gives_nothing_until_enough_came_back() {
        let slots = slots(32, 8);
        let only = slots.register();
        let mut held = all(&only);
        slots.set_level(3);
        let mut waits = Box::pin(only.acquire());
        for left in (3..8).rev() {
            held.pop();
            assert!((&mut waits).now_or_never().is_none(), "{left} are in use");
        }
        held.pop();
        assert!((&mut waits).now_or_never().is_some());
    }

    #[test]
    fn a_raised_level_reaches_those_who_wait() {
        let slots = slots(32, 1);
        let only = slots.register();
        let _held = all(&only);
        let mut waits = Box::pin(only.acquire());
        assert!((&mut waits).now_or_never().is_none());
        slots.set_level(2);
        assert!(waits.now_or_never().is_some());
    }

    #[test]
    fn slots_outlive_the_download_that_took_them() {
        let slots = slots(2, 2);
        let gone = slots.register();
        let held = all(&gone);
        drop(gone);
        assert_eq!(slots.in_use(), 2);
        drop(held);
        assert_eq!(slots.in_use(), 0);
    }
}
