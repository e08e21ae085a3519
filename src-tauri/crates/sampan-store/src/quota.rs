//! Room for what is to come: what is asked for, what makes way.

use crate::error::StoreError;
use crate::room::Room;
use crate::store::Inner;

impl Inner {
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        fs4::available_space(&self.dir).ok()
    }

    /// Sets room aside for `size` bytes. Idle partial downloads make way for them, oldest first, where that is enough.
    pub(crate) fn reserve(&self, size: u64) -> Result<Room, StoreError> {
        let floor = self.free_space_floor_bytes;
        loop {
            let free = self.free_bytes();
            let room = self.running.reserve(size, free, floor);
            if room.is_ok() {
                return room;
            }
            // What would not fit even without them is no reason to lose them.
            let without_idle = free.map(|free| free.saturating_add(self.partials.idle_bytes()));
            drop(self.running.reserve(size, without_idle, floor)?);
            if !self.partials.remove_oldest_idle(&self.layout.partial)? {
                return room;
            }
        }
    }
}
