//! The snapshot: everything the first screen shows, put together from those who know it.

use sampan_oci::{Bypass, Event, Failure, Millis, Outcome};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::api::{MirrorState, NotKeeping, PullState, Snapshot};

/// Whether the cache takes what is fetched, learnt from what happened last.
#[derive(Debug, Default)]
pub(crate) struct Keeping(AtomicU8);

const GOOD: u8 = 0;
const FULL: u8 = 1;
const READ_ONLY: u8 = 2;

impl Keeping {
    /// Takes in an event.
    pub(crate) fn learn(&self, event: &Event) {
        let Event::Answered(answered) = event else { return };
        let now = match answered.outcome {
            Outcome::Bypass(Bypass::Full) => FULL,
            Outcome::Bypass(Bypass::ReadOnly) => READ_ONLY,
            Outcome::Miss => GOOD,
            Outcome::Hit
            | Outcome::Revalidated
            | Outcome::Joined
            | Outcome::Stale
            | Outcome::Bypass(Bypass::Paused | Bypass::Uncacheable)
            | Outcome::Failed(_) => return,
        };
        self.0.store(now, Ordering::Relaxed);
    }

    /// Why nothing new is kept, if so.
    pub(crate) fn not_keeping(&self, paused: bool) -> Option<NotKeeping> {
        match (self.0.load(Ordering::Relaxed), paused) {
            (_, true) => Some(NotKeeping::Paused),
            (FULL, _) => Some(NotKeeping::DiskFull),
            (READ_ONLY, _) => Some(NotKeeping::ReadOnly),
            _ => None,
        }
    }
}

/// Whether a container engine asked for a manifest: what "Docker last used Sampan" means.
pub(crate) fn engine_asked(event: &Event) -> Option<Millis> {
    match event {
        Event::Answered(answered) => {
            let asked = answered.kind == sampan_oci::RequestKind::Manifest;
            let refused = matches!(answered.outcome, Outcome::Failed(Failure::Invalid | Failure::Forbidden));
            (asked && !refused).then_some(answered.at)
        }
        Event::Manifest { .. }
        | Event::BlobStarted { .. }
        | Event::BlobProgress { .. }
        | Event::Fetched { .. }
        | Event::Download { .. } => None,
    }
}

/// The tray's state: trouble first, then what a person asked for, then what goes on.
pub(crate) fn mirror_state(paused: bool, troubled: bool, pulls: &[crate::api::Pull]) -> MirrorState {
    match (troubled, paused, pulls.iter().any(|pull| pull.state == PullState::Active)) {
        (true, _, _) => MirrorState::Attention,
        (false, true, _) => MirrorState::Paused,
        (false, false, true) => MirrorState::Working,
        (false, false, false) => MirrorState::Serving,
    }
}

/// Whether two snapshots show the same, whenever they were taken.
pub(crate) fn same(one: &Snapshot, other: &Snapshot) -> bool {
    let other = Snapshot { sequence: one.sequence, at: one.at, ..other.clone() };
    *one == other
}
