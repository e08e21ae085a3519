use super::*;
use crate::api::QuietHours;

#[test]
fn what_waits_knows_why_and_a_person_in_a_hurry_waits_for_a_pause_only() {
    let noon: Zoned = "2026-11-21T12:00[UTC]".parse().unwrap();
    let night: Zoned = "2026-11-21T23:00[UTC]".parse().unwrap();
    let free = Settings::default();
    let quiet = Settings { quiet_hours: Some(QuietHours { from: 22 * 60, to: 360 }), ..Settings::default() };
    let metered = Settings { metered: Metered::On, ..quiet.clone() };
    let offline = Settings { offline: true, ..Settings::default() };
    let job = job("a".into(), "all".into(), Millis(0));
    let hurry = PrefetchJob { now: true, ..job.clone() };
    let table = [
        (&job, false, false, &free, &noon, None),
        (&job, true, false, &free, &noon, Some(PrefetchWait::Paused)),
        (&job, true, true, &free, &noon, Some(PrefetchWait::SampanPaused)),
        (&job, false, false, &quiet, &noon, Some(PrefetchWait::QuietHours)),
        (&job, false, false, &quiet, &night, None),
        (&job, false, false, &metered, &night, Some(PrefetchWait::Metered)),
        (&hurry, false, false, &metered, &noon, None),
        (&hurry, false, false, &offline, &noon, Some(PrefetchWait::Offline)),
        (&hurry, true, false, &metered, &noon, Some(PrefetchWait::Paused)),
    ];
    for (job, paused, sampan, settings, now, why) in table {
        assert_eq!(waits(job, paused, sampan, settings, now), why, "{now} {why:?}");
    }
}

#[test]
fn platforms_are_shown_as_they_are_meant() {
    let own = Platform::of_this_machine().to_string();
    for (written, shown) in
        [(None, own.as_str()), (Some(""), &own), (Some("all"), "all"), (Some("linux/x86_64"), "linux/amd64")]
    {
        assert_eq!(platform_text(written).unwrap(), shown);
        assert!(platforms(shown).is_ok());
    }
    assert!(platform_text(Some("amd64")).is_err());
}
