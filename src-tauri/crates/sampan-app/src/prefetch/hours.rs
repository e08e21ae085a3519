//! When images may be fetched ahead, and when those that are kept fresh are asked for again. Pure.

use jiff::civil::Time;
use jiff::{ToSpan as _, Zoned};
use sampan_oci::Millis;

use crate::api::QuietHours;

/// The night of somebody who named no quiet hours.
const NIGHT: QuietHours = QuietHours { from: 60, to: 5 * 60 };
const DAY_MINUTES: u16 = 24 * 60;

/// Whether `now` is one of the quiet hours.
pub(super) fn is_open(hours: QuietHours, now: &Zoned) -> bool {
    let time = now.time();
    let minute = u16::try_from(i32::from(time.hour()) * 60 + i32::from(time.minute())).unwrap_or(0);
    if hours.from <= hours.to {
        (hours.from..hours.to).contains(&minute)
    } else {
        minute >= hours.from || minute < hours.to
    }
}

/// When the quiet hours begin next, after `now`.
pub(super) fn opens(hours: QuietHours, now: &Zoned) -> Millis {
    let hour = i8::try_from(hours.from / 60).unwrap_or(0);
    let minute = i8::try_from(hours.from % 60).unwrap_or(0);
    let from = Time::new(hour, minute, 0, 0).unwrap_or(Time::midnight());
    // A time that a change of clocks leaves out is taken an hour later.
    let at = |days: i32| {
        let date = now.date().checked_add(days.days()).ok()?;
        date.to_datetime(from).to_zoned(now.time_zone().clone()).ok()
    };
    let next = [at(0), at(1), at(2)].into_iter().flatten().find(|at| at > now);
    next.map_or(Millis(i64::MAX), |at| Millis(at.timestamp().as_millisecond()))
}

/// When something kept fresh is asked for next: in the next night, in its first three quarters, so that there is time to
/// fetch it. `jitter`: 0 to 1023, so that not everybody asks at once.
pub(super) fn next_night(hours: Option<QuietHours>, now: &Zoned, jitter: u64) -> Millis {
    let night = hours.filter(|hours| hours.from != hours.to).unwrap_or(NIGHT);
    let minutes = (night.to + DAY_MINUTES - night.from) % DAY_MINUTES;
    let within = i64::from(minutes) * 60_000 * 3 / 4;
    let jitter = i64::try_from(jitter % 1024).unwrap_or(0);
    opens(night, now).plus(within * jitter / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    fn hours(text: &str) -> QuietHours {
        text.parse().unwrap()
    }

    fn shown(at: Millis, zone: &Zoned) -> String {
        let at = jiff::Timestamp::from_millisecond(at.0).unwrap().to_zoned(zone.time_zone().clone());
        at.strftime("%d %H:%M").to_string()
    }

    #[test]
    fn hours_are_open_between_their_ends_across_midnight_too() {
        let table = [
            ("22:00-06:00", "2026-11-21T21:59", false, "21 22:00"),
            ("22:00-06:00", "2026-11-21T22:00", true, "22 22:00"),
            ("22:00-06:00", "2026-11-22T05:59", true, "22 22:00"),
            ("22:00-06:00", "2026-11-22T06:00", false, "22 22:00"),
            ("1:30-5", "2026-11-22T01:29", false, "22 01:30"),
            ("1:30-5", "2026-11-22T01:30", true, "23 01:30"),
            ("1:30-5", "2026-11-22T05:00", false, "23 01:30"),
            ("3:00-3:00", "2026-11-22T03:00", false, "23 03:00"),
            // The clocks go from 2:00 to 3:00 on that day.
            ("2:30-5", "2026-03-29T01:00", false, "29 03:30"),
        ];
        for (quiet, now, open, opens_at) in table {
            let now = at(now);
            assert_eq!(is_open(hours(quiet), &now), open, "{quiet} {now}");
            assert_eq!(shown(opens(hours(quiet), &now), &now), opens_at, "{quiet} {now}");
        }
    }

    #[test]
    fn what_is_kept_fresh_is_asked_for_in_the_next_night_and_not_at_its_end() {
        let now = at("2026-11-21T12:00");
        let next = |hours, jitter| shown(next_night(hours, &now, jitter), &now);
        assert_eq!(next(None, 0), "22 01:00");
        assert_eq!(next(None, 1023), "22 03:59");
        assert_eq!(next(Some(hours("22-6")), 0), "21 22:00");
        assert_eq!(next(Some(hours("22-6")), 1023), "22 03:59");
        assert_eq!(next(Some(hours("22-6")), 512), "22 01:00");
        let night = at("2026-11-22T01:30");
        assert_eq!(shown(next_night(None, &night, 0), &night), "23 01:00", "once a night");
    }

    #[test]
    fn hours_are_read_as_people_write_them() {
        for (written, meant) in
            [("22:00-06:00", "22:00-06:00"), ("22-6", "22:00-06:00"), (" 1:30 - 5:05 ", "01:30-05:05")]
        {
            assert_eq!(hours(written).to_string(), meant);
        }
        for wrong in ["", "22", "24-6", "22:60-6", "22:00-", "a-b", "22:000-6", "-1-5", "+1-5"] {
            assert!(wrong.parse::<QuietHours>().is_err(), "{wrong:?}");
        }
    }
}
