//! The quota is lowered while clients ask: how soon blobs go, and what that does to the hits.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    load::{Load, Pace, Window},
    make::{self, Contents},
    sampan::{Held, Sampan},
};

/// Before an eviction, hits are counted for so long.
const QUIET: Duration = Duration::from_secs(10);
/// How long a new quota waits before anything goes, so that whoever goes through a list is not taken at the first word: as
/// `SETTINGS_WAIT` in sampan-app's `housekeeping.rs`.
const SETTINGS_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at the cache's size, before an eviction as during it: looking costs processor time too.
const GLANCE: Duration = Duration::from_millis(250);
/// After so many looks without a change an eviction is over.
const STEADY: usize = 6;
/// An eviction that takes longer is given up.
const EVICTION_MAX: Duration = Duration::from_mins(2);

/// What went, how soon, and how hits fared before and meanwhile.
#[derive(Debug)]
pub(super) struct Eviction {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    /// From when the new quota was to act, [`SETTINGS_WAIT`] after it was asked for, until the last of them was seen to be
    /// gone: with finding out what goes. Where something went sooner, from the last look that saw nothing go.
    pub(super) time: Duration,
    pub(super) quiet: Window,
    pub(super) meanwhile: Window,
}

/// Has about `wanted` blobs go by lowering the quota, under load.
///
/// # Errors
/// A hit was none, or the eviction does not end.
pub(super) fn evict(sampan: &Sampan, contents: &Contents, wanted: usize, pace: Pace) -> Result<Eviction> {
    eprintln!("Evicting, clients {} ...", pace.name());
    let load = Load { port: sampan.mirror.port(), small: &contents.kept, big: &contents.big, pace };
    load.warm()?;
    let (times, hits) = load.during(|| {
        let begun = Instant::now();
        let mut before = sampan.held()?;
        while begun.elapsed() < QUIET {
            thread::sleep(GLANCE);
            before = sampan.held()?;
        }
        let quota = quota_for(before, wanted);
        let asked = Instant::now();
        sampan.lower_quota(quota)?;
        let mut unchanged = asked;
        while asked.elapsed() < EVICTION_MAX {
            let looked = Instant::now();
            if sampan.held()?.blobs != before.blobs {
                break;
            }
            unchanged = looked;
            thread::sleep(GLANCE);
        }
        // What is to go is found out before the first of it is gone: that time counts.
        let lowered = unchanged.min(asked + SETTINGS_WAIT);
        let mut last = (sampan.held()?, Instant::now());
        let mut same = 0;
        // A step may take longer than some looks: it is over when it is under the quota and stays where it is.
        while same < STEADY {
            thread::sleep(GLANCE);
            let now = sampan.held()?;
            same = if now.blobs == last.0.blobs && now.bytes + now.own_bytes <= quota { same + 1 } else { 0 };
            if now.blobs != last.0.blobs {
                last = (now, Instant::now());
            }
            if lowered.elapsed() > EVICTION_MAX {
                bail!(
                    "{} blobs of {} are still held after {} s",
                    now.blobs,
                    before.blobs,
                    EVICTION_MAX.as_secs()
                );
            }
        }
        Ok((begun, lowered, last, before))
    })?;
    let (begun, lowered, (after, gone), before) = times;
    sampan.lift_quota()?;
    Ok(Eviction {
        blobs: before.blobs.saturating_sub(after.blobs),
        bytes: before.bytes.saturating_sub(after.bytes),
        time: gone - lowered,
        quiet: Window::of(&hits, begun, lowered),
        meanwhile: Window::of(&hits, lowered, gone),
    })
}

/// The quota under which about so many small blobs go. Going down to nine tenths is Sampan's way to have rest afterwards;
/// what it keeps beside blobs is taken from the quota beforehand.
fn quota_for(held: Held, wanted: usize) -> u64 {
    let small = held.bytes.saturating_sub(make::BIG_BYTES) / held.blobs.max(1);
    let left = held.bytes.saturating_sub(small * wanted as u64);
    // At the quota nothing goes. What Sampan keeps beside blobs it measured a while ago: it may be less than it is now.
    (left / 9 * 10).min(held.bytes - held.bytes / 100) + held.own_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_leaves_room_below_it_for_what_stays() {
        let held = Held { blobs: 1000, bytes: 1_000_000 + make::BIG_BYTES, own_bytes: 0 };
        let quota = quota_for(held, 200 + 10_000);
        assert!(quota < held.bytes, "at the quota nothing goes: {quota}");
        for own_bytes in [0, 60_000_000, 3_000_000_000] {
            let small = Held { blobs: 1_000_000, bytes: 10_000_000_000 + make::BIG_BYTES, own_bytes };
            // As Sampan does: what it keeps beside blobs makes way for nobody.
            let for_blobs = |quota: u64| quota - own_bytes;
            let left = for_blobs(quota_for(small, 200_000)) / 10 * 9;
            let gone = small.bytes - left;
            assert!((1_980_000_000..2_000_000_100).contains(&gone), "a fifth of the small ones goes: {gone}");
            let least = for_blobs(quota_for(small, 1000));
            assert_eq!(least, small.bytes - small.bytes / 100, "less than a tenth never goes");
        }
    }

    #[test]
    fn the_wait_is_the_one_of_the_app() {
        let housekeeping = include_str!("../../../../sampan-app/src/housekeeping.rs");
        let line =
            format!("const SETTINGS_WAIT: Duration = Duration::from_secs({});", SETTINGS_WAIT.as_secs());
        assert!(housekeeping.contains(&line), "{line}");
    }
}
