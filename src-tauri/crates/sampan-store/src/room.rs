//! Room on the disk: what running downloads have yet to write is spoken for.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::StoreError;

/// What running downloads have asked for, and have written since.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<Sums>);

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    promised: u64,
    written: u64,
}

impl Running {
    /// Bytes that running downloads have written.
    pub(crate) fn written(&self) -> u64 {
        self.sums().written
    }

    /// Sets room aside for a download of `size` bytes, if `free` has it beyond the floor and what other running
    /// downloads have yet to write. Where free space is not known, only the disk itself can refuse.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        size: u64,
        free: Option<u64>,
        floor: u64,
    ) -> Result<Room, StoreError> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = size.saturating_add(sums.promised.saturating_sub(sums.written)).saturating_add(floor);
        if free.is_some_and(|free| free < needed) {
            return Err(StoreError::Full);
        }
        sums.promised = sums.promised.saturating_add(size);
        Ok(Room { running: Arc::clone(self), promised: size, written: 0 })
    }

    fn sums(&self) -> Sums {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One download's share of [`Running`].
#[derive(Debug)]
pub(crate) struct Room {
    running: Arc<Running>,
    promised: u64,
    written: u64,
}

impl Room {
    /// Bytes written into it.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).written += bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut sums = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.promised = sums.promised.saturating_sub(self.promised);
        sums.written = sums.written.saturating_sub(self.written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_together_never_promise_more_than_the_disk_has() {
        let running = Arc::new(Running::default());
        let mut first = running.reserve(60, Some(100), 10).unwrap();
        assert!(
            matches!(running.reserve(40, Some(100), 10), Err(StoreError::Full)),
            "60 are promised already, and 10 are to stay free"
        );
        let second = running.reserve(30, Some(100), 10).unwrap();
        first.wrote(60);
        assert_eq!(running.written(), 60);
        assert!(running.reserve(1, Some(40), 10).is_err(), "the second's 30 are not on disk yet");
        drop(second);
        assert!(running.reserve(30, Some(40), 10).is_ok(), "what was given up is free again");
        drop(first);
        assert_eq!(running.written(), 0);
        assert!(running.reserve(u64::MAX, None, 10).is_ok(), "unknown free space refuses nothing");
    }
}
