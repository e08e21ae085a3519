//! How long ago a tag was confirmed, whatever happens to the clock (SECURITY.md R75). Pure but for [`Ages`], which
//! remembers.
//!
//! Two clocks tell it, and the older of their ages counts. The wall clock goes on while the machine sleeps and across
//! restarts, and may be set; the count of this process only goes forward. So a step of the wall clock makes a tag look
//! older, and a question too many is all that costs; or it makes it look younger, and then never younger than this process
//! has known it for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sampan_oci::{Clock, ImageName, Millis, Tag};

/// The most tags whose confirmation is remembered to the moment; beyond it all is forgotten, which costs questions.
const TAGS_MAX: usize = 16 * 1024;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: Millis,
    /// How long the mirror has lived.
    pub(crate) lived: Duration,
    /// What the wall clock said when it began.
    pub(crate) began: Millis,
}

/// When a tag was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) wall: Millis,
    /// How long the mirror had lived then; `None`: it was another one, before.
    pub(crate) lived: Option<Duration>,
}

impl Checked {
    /// How long ago that is, at least.
    pub(crate) fn age(self, now: Moment) -> Duration {
        let by_wall = Duration::from_millis(now.wall.since(self.wall));
        let by_count = match self.lived {
            Some(then) => now.lived.saturating_sub(then),
            None => now.lived + Duration::from_millis(now.began.since(self.wall)),
        };
        by_wall.max(by_count)
    }

    /// Whether the wall clock was set back since: then nobody knows how long ago it is.
    pub(crate) fn is_in_the_future(self, now: Moment) -> bool {
        self.wall > now.wall
    }
}

/// Remembers when tags were confirmed.
#[derive(Debug)]
pub(crate) struct Ages {
    since: Instant,
    began: Millis,
    checked: Mutex<HashMap<ImageName, HashMap<Tag, Checked>>>,
}

impl Ages {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { since: Instant::now(), began: clock.now(), checked: Mutex::default() }
    }

    pub(crate) fn now(&self, clock: &dyn Clock) -> Moment {
        Moment { wall: clock.now(), lived: self.since.elapsed(), began: self.began }
    }

    /// The upstream confirmed the tag now.
    pub(crate) fn confirmed(&self, image: &ImageName, tag: &Tag, clock: &dyn Clock) {
        let now = self.now(clock);
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.values().map(HashMap::len).sum::<usize>() >= TAGS_MAX {
            checked.clear();
        }
        let tags = checked.entry(image.clone()).or_default();
        tags.insert(tag.clone(), Checked { wall: now.wall, lived: Some(now.lived) });
    }

    /// When it was confirmed: by this mirror, else as the store noted it.
    pub(crate) fn checked(&self, image: &ImageName, tag: &Tag, noted: Millis) -> Checked {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = checked.get(image).and_then(|tags| tags.get(tag)).copied();
        known.unwrap_or(Checked { wall: noted, lived: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(wall: i64, lived: u64) -> Moment {
        Moment { wall: Millis(wall), lived: Duration::from_millis(lived), began: Millis(1_000_000) }
    }

    #[test]
    fn the_older_of_both_ages_counts() {
        let here = Checked { wall: Millis(1_000_500), lived: Some(Duration::from_millis(500)) };
        let before = Checked { wall: Millis(999_000), lived: None };
        let years = 10 * 365 * 24 * 3_600_000;
        for (what, checked, now, age) in [
            ("as it goes", here, at(1_002_500, 2_500), 2_000_i64),
            ("the machine slept", here, at(1_062_500, 2_500), 62_000),
            ("set back", here, at(0, 2_500), 2_000),
            ("set back by little", here, at(1_000_600, 2_500), 2_000),
            ("set forward", here, at(1_000_500 + years, 2_500), years),
            ("from before", before, at(1_000_100, 100), 1_100),
            ("from before, and set back", before, at(0, 100), 1_100),
            ("from the future", Checked { wall: Millis(years), lived: None }, at(1_000_100, 100), 100),
        ] {
            assert_eq!(checked.age(now), Duration::from_millis(age.try_into().unwrap()), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_clock_makes_a_tag_younger_than_this_process_has_known_it_for(
            wall in any::<i64>(), then in any::<i64>(), began in any::<i64>(),
            known in prop::option::of(0_u64..1 << 40), lived in 0_u64..1 << 40,
        ) {
            let now = Moment { wall: Millis(wall), lived: Duration::from_millis(lived), began: Millis(began) };
            let checked = Checked { wall: Millis(then), lived: known.map(Duration::from_millis) };
            let least = lived.saturating_sub(known.unwrap_or(0));
            prop_assert!(checked.age(now) >= Duration::from_millis(least));
        }
    }
}
