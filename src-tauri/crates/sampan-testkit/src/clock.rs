//! A clock that stands still until a test moves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sampan_oci::{Clock, Millis};

/// A wall clock set by hand. Clones share the time.
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// A clock at 2026-01-01 12:00 UTC: noon, so that no time zone is near midnight by accident.
    pub fn new() -> Self {
        Self::at(Millis(1_767_268_800_000))
    }

    /// A clock at the given time.
    pub fn at(now: Millis) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the clock, backwards too: a person or a time server may do that.
    pub fn set(&self, now: Millis) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_tell_the_same_time_and_only_hands_move_it() {
        let clock = TestClock::new();
        let clone = clock.clone();
        let before = clock.now();
        assert_eq!(clock.now(), before, "the clock stands still");
        clock.advance(Duration::from_mins(1));
        assert_eq!(clone.now().since(before), 60_000, "a clone is the same clock");
        clone.set(Millis(5));
        assert_eq!(clock.now(), Millis(5), "a clock may be set back");
    }
}
