//! What can be wrong with the cache itself: its room, damage in it, its index.

use std::path::Path;

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sampan_oci::Millis;

use super::{bad, good, warning};
use crate::api::{Cache, Check, Health, NotKeeping};
use crate::convert::DAY_MILLIS;

/// A check longer ago than this is worth a word: the slow scrub needs a week.
const SCRUB_OLD_DAYS: i64 = 14;
/// Where the store keeps an index it had to make anew.
const SET_ASIDE: &str = "sampan.db.damaged";

/// `health`: `None` if it cannot be read.
pub(super) fn checks(cache: &Cache, health: Option<Health>, now: Millis) -> Vec<Check> {
    let mut checks = vec![room(cache)];
    match health {
        Some(health) => checks.extend([damage(health), scrubbed(health, now)]),
        None => checks.push(bad(
            "damage",
            "the cache's own record of damage cannot be read".into(),
            "Look at the log; `sampan scrub` reads the whole cache again.",
        )),
    }
    checks
}

fn room(cache: &Cache) -> Check {
    let used = cache.used_bytes();
    let taken = match cache.quota_bytes {
        Some(quota) => format!("{} of a quota of {}", size(used), size(quota)),
        None => format!("{}, and there is no quota", size(used)),
    };
    match cache.not_keeping {
        Some(NotKeeping::QuotaFull) => warning(
            "quota",
            format!(
                "{taken}; {} of it are pinned, {} the index, and what is asked for does not fit",
                size(cache.pinned_bytes),
                size(cache.own_bytes)
            ),
            "Raise it by `sampan cache --quota SIZE`, or unpin images by `sampan unpin IMAGE`.",
        ),
        Some(NotKeeping::DiskFull) => bad(
            "quota",
            format!(
                "{taken}; too little room is left on the disk, of which Sampan leaves {} alone: nothing new is kept",
                size(cache.floor_bytes)
            ),
            "Free some space on that disk, or clear images by `sampan clear`.",
        ),
        Some(NotKeeping::ReadOnly) => bad(
            "quota",
            format!("{taken}; the folder cannot be written to, and nothing new is kept"),
            "Correct its rights, or mount its disk for writing; images in it are still served.",
        ),
        Some(NotKeeping::Paused) | None => good("quota", taken),
    }
}

fn damage(health: Health) -> Check {
    match health {
        Health { damaged: 0, .. } => good("damage", "none was ever found".into()),
        Health { damaged, healed, waiting: 0, .. } => {
            good("damage", format!("{damaged} blobs were damaged, {healed} of them were fetched again"))
        }
        Health { damaged, waiting, .. } => warning(
            "damage",
            format!("{damaged} blobs were damaged, {waiting} of them are not fetched again yet"),
            "The next pull that needs them fetches them. If it happens again, check the disk (smartctl, dmesg).",
        ),
    }
}

fn scrubbed(health: Health, now: Millis) -> Check {
    let advice = "Run `sampan scrub`; it reads the whole cache once and compares it with its digests.";
    let Some(since) = health.checked_since else {
        // A new cache holds nothing, one of an older Sampan has had no time for it.
        return good("scrub", "not every byte was checked yet; that happens slowly by itself".into());
    };
    let at = time(since);
    if now.0.saturating_sub(since) > SCRUB_OLD_DAYS * DAY_MILLIS {
        return warning("scrub", format!("some of the cache was last checked {at}"), advice);
    }
    good("scrub", format!("every byte was checked {at} or later"))
}

/// A cache that is on another machine, by the name of its file system.
pub(super) fn network(kind: Option<&str>) -> Option<Check> {
    let detail = format!("it is on {}, where locks and renames are not dependable", kind?);
    let next_step =
        "Choose a folder on a disk of this machine by --cache-dir; two Sampans must never share this one.";
    Some(warning("cache folder", detail, next_step))
}

/// An index that was damaged, and was made anew from the blobs.
pub(super) fn set_aside(cache_dir: &Path) -> Option<Check> {
    let found = std::fs::metadata(cache_dir.join(SET_ASIDE)).ok()?;
    let changed = found.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
    let at = changed.map(|at| format!(", last written {}", time(at.as_millisecond()))).unwrap_or_default();
    Some(warning(
        "index",
        format!("a damaged index lies in {SET_ASIDE}{at}; a new one was made from the images in the cache"),
        "Images pulled since are known again. If all is well, delete that file; if it happens again, check the disk.",
    ))
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(
        |_| "at an unknown time".into(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CheckStatus::{self, Bad, Good, Warning};

    fn statuses(cache: &Cache, health: Option<Health>) -> Vec<CheckStatus> {
        checks(cache, health, Millis(100 * DAY_MILLIS)).into_iter().map(|check| check.status).collect()
    }

    #[test]
    fn each_state_of_the_cache_has_a_verdict_and_trouble_a_next_step() {
        let sound = Health { checked_since: Some(99 * DAY_MILLIS), ..Health::default() };
        let healed = Health { damaged: 2, healed: 2, ..sound };
        let waiting = Health { damaged: 2, healed: 1, waiting: 1, ..sound };
        let old = Health { checked_since: Some(80 * DAY_MILLIS), ..sound };
        let table = [
            (None, Some(sound), [Good, Good, Good].to_vec()),
            (Some(NotKeeping::Paused), Some(Health::default()), [Good, Good, Good].to_vec()),
            (Some(NotKeeping::QuotaFull), Some(healed), [Warning, Good, Good].to_vec()),
            (Some(NotKeeping::DiskFull), Some(waiting), [Bad, Warning, Good].to_vec()),
            (Some(NotKeeping::ReadOnly), Some(old), [Bad, Good, Warning].to_vec()),
            (None, None, [Good, Bad].to_vec()),
        ];
        for (not_keeping, health, expected) in table {
            let cache = Cache { not_keeping, quota_bytes: Some(5), ..Cache::default() };
            assert_eq!(statuses(&cache, health), expected, "{not_keeping:?} {health:?}");
            for check in checks(&cache, health, Millis(100 * DAY_MILLIS)) {
                assert_eq!(check.next_step.is_some(), check.status != Good, "{check:?}");
            }
        }
    }

    #[test]
    fn a_cache_on_another_machine_is_warned_of() {
        assert_eq!(network(None), None);
        let check = network(Some("NFS")).unwrap();
        assert_eq!(check.status, Warning);
        assert!(check.detail.contains("NFS") && check.next_step.is_some(), "{check:?}");
    }

    #[test]
    fn an_index_that_was_set_aside_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(set_aside(dir.path()), None);
        std::fs::write(dir.path().join(SET_ASIDE), "broken").unwrap();
        assert_eq!(set_aside(dir.path()).map(|check| check.status), Some(Warning));
    }
}
