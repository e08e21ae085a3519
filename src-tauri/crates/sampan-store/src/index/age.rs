//! How old things are, by time this cache has seen pass.
//!
//! No wall clock tells that: one step of it would make everything old at once (SECURITY.md R75). So the index counts for
//! itself. It goes on while a process has the index open, by a clock that only goes forward ([`Moment`]); and
//! from one process to the next by what the wall clock says has passed, but no more than three days. Every use is noted
//! in this count too, and the rule of age compares nothing else. It errs on one side only: things count as younger than
//! they are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use sampan_oci::Millis;

use super::Change;
use crate::moment::Moment;

/// The most that is believed to have passed from one process to the next, in milliseconds.
const GAP_MAX: u64 = 3 * 24 * 3_600_000;
/// How often the count is written down.
const KEPT_EVERY: Duration = Duration::from_hours(1);

/// The notes this file keeps: the count in milliseconds, and what the wall clock said then.
const AGE: &str = "age";
const AGE_AT: &str = "age at";

/// The count, as it goes on.
#[derive(Debug)]
pub(super) struct Age {
    /// What it was when the index was opened, in milliseconds.
    base: i64,
    since: Moment,
    kept: Mutex<Moment>,
}

impl Age {
    /// Goes on from what the index has noted; `now` by the wall clock.
    pub(super) fn read(connection: &Connection, now: Millis) -> rusqlite::Result<Self> {
        let note = |name: &str| -> rusqlite::Result<Option<i64>> {
            let mut statement = connection.prepare("SELECT value FROM note WHERE name = ?1")?;
            statement.query_row([name], |row| row.get(0)).optional()
        };
        let base = after(note(AGE)?.unwrap_or(0), note(AGE_AT)?.map(Millis), now);
        let since = Moment::now();
        Ok(Self { base, since, kept: Mutex::new(since) })
    }

    /// The count now, in milliseconds.
    pub(super) fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.base.saturating_add(elapsed)
    }

    /// Whether it is time to write it down. Says so once in an hour.
    pub(super) fn is_due(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = kept.elapsed() >= KEPT_EVERY;
        if due {
            *kept = Moment::now();
        }
        due
    }
}

/// What the count is, `now` by the wall clock, that was `count` at `kept`.
fn after(count: i64, kept: Option<Millis>, now: Millis) -> i64 {
    // One that was set back says nothing.
    let gap = kept.filter(|kept| *kept <= now).map_or(0, |kept| now.since(kept).min(GAP_MAX));
    count.max(0).saturating_add(i64::try_from(gap).unwrap_or(0))
}

/// Writes the count down.
pub(super) fn keep(change: &Change<'_>, now: Millis) -> rusqlite::Result<()> {
    for (name, value) in [(AGE, change.age()), (AGE_AT, now.0)] {
        change.run(
            "INSERT INTO note (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            params![name, value],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_of_the_clock_makes_more_than_three_days_of_age() {
        const DAY: i64 = 24 * 3_600_000;
        const YEARS: i64 = 3650 * DAY;
        let kept = Some(Millis(0));
        assert_eq!(after(7, kept, Millis(2 * DAY)), 7 + 2 * DAY, "what has passed, as it seems");
        assert_eq!(after(7, kept, Millis(YEARS)), 7 + 3 * DAY);
        assert_eq!(after(7, kept, Millis(-YEARS)), 7, "nothing passes backwards");
        assert_eq!(after(7, Some(Millis(i64::MIN)), Millis(i64::MAX)), 7 + 3 * DAY);
        assert_eq!(after(0, None, Millis(YEARS)), 0, "of a new index nothing is known");
    }
}
