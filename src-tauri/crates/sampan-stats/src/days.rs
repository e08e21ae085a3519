//! Local days: the only place where a moment becomes a date.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use sampan_oci::Millis;

/// The local day of a moment. Moments no calendar knows fall on its first or last day.
pub(crate) fn day_of(at: Millis, zone: &TimeZone) -> Date {
    let timestamp =
        Timestamp::from_millisecond(at.0).unwrap_or(if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX });
    zone.to_datetime(timestamp).date()
}

/// The last `count` days, `today` included, oldest first.
pub(crate) fn last_days(today: Date, count: u32) -> Vec<Date> {
    (0..i64::from(count)).rev().filter_map(|back| today.checked_sub(back.days()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    fn at(text: &str) -> Millis {
        Millis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn a_day_begins_at_midnight_where_the_person_is() {
        let hanoi = TimeZone::get("Asia/Ho_Chi_Minh").unwrap();
        assert_eq!(day_of(at("2026-11-20T16:59:59.999Z"), &hanoi), date(2026, 11, 20), "23:59 there");
        assert_eq!(day_of(at("2026-11-20T17:00:00Z"), &hanoi), date(2026, 11, 21), "midnight there");
        assert_eq!(day_of(at("2026-11-20T17:00:00Z"), &TimeZone::UTC), date(2026, 11, 20));
    }

    #[test]
    fn days_are_counted_on_the_calendar_through_summer_time() {
        let days = last_days(date(2026, 3, 30), 3);
        assert_eq!(days, [date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 30)]);
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(day_of(at("2026-03-29T22:00:00Z"), &berlin), date(2026, 3, 30), "a day of 23 hours");
    }

    #[test]
    fn no_moment_is_without_a_day() {
        for moment in [i64::MIN, -1, 0, 1, i64::MAX] {
            let _ = day_of(Millis(moment), &TimeZone::UTC);
        }
        assert_eq!(last_days(Date::MIN, 5), [Date::MIN], "the calendar begins somewhere");
    }
}
