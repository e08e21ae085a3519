//! One flight for many passengers: the same question asked twice at once is asked once.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::Tasks;

/// Runs at most one task a key; everybody who asks meanwhile gets that task's answer. The task belongs to the mirror:
/// whoever asked may leave, and it still finishes.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    flights: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { flights: Arc::default() }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Debug + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The answer for `key`, from the flight under way (`true`) or from a new one that runs `work` (`false`). `None` only
    /// when the task was cancelled by a shutdown.
    pub(crate) async fn run<F>(&self, tasks: &Tasks, key: K, work: F) -> Option<(V, bool)>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (mut answer, new) = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(answer) = flights.get(&key) {
                (answer.clone(), None)
            } else {
                let (tell, answer) = watch::channel(None);
                flights.insert(key.clone(), answer.clone());
                (answer, Some(tell))
            }
        };
        let joined = new.is_none();
        // The lock is free here: a runtime that is ending drops the task at once, and that takes the lock again.
        if let Some(tell) = new {
            // Dropped with the task, so that a panic or a shutdown leaves no flight that never lands.
            let landed = Landed { flights: self.flights.clone(), key };
            tasks.spawn("flight", |token| async move {
                tokio::select! {
                    value = work => { drop(landed); let _ = tell.send(Some(value)); }
                    () = token.cancelled() => {}
                }
            });
        }
        let landed = answer.wait_for(Option::is_some).await.ok()?;
        landed.clone().map(|value| (value, joined))
    }
}

struct Landed<K: Eq + Hash, V> {
    flights: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landed<K, V> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Barrier;

    #[tokio::test]
    async fn many_who_ask_at_once_cause_one_flight() {
        let (flights, tasks, flown) = (SingleFlight::default(), Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Barrier::new(2));
        let ask = || {
            let (flown, gate) = (flown.clone(), gate.clone());
            flights.run(&tasks, "key", async move {
                gate.wait().await;
                flown.fetch_add(1, Ordering::SeqCst)
            })
        };
        let (a, b, _) = tokio::join!(ask(), ask(), gate.wait());
        assert_eq!((a, b), (Some((0, false)), Some((0, true))), "both get the one answer");
        let (c, _) = tokio::join!(ask(), gate.wait());
        assert_eq!(c, Some((1, false)), "a later question is a new flight");
    }

    #[tokio::test]
    async fn the_flight_goes_on_when_whoever_asked_first_leaves() {
        let (flights, tasks) = (SingleFlight::default(), Tasks::new());
        let gate = Arc::new(Barrier::new(2));
        let theirs = gate.clone();
        let first = flights.run(&tasks, 1, async move {
            theirs.wait().await;
            "landed"
        });
        assert!(
            futures_util::FutureExt::now_or_never(first).is_none(),
            "the first one leaves while it flies"
        );
        let (second, _) = tokio::join!(flights.run(&tasks, 1, async { "another" }), gate.wait());
        assert_eq!(second, Some(("landed", true)));
    }
}
