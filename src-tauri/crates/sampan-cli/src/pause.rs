//! Lengths of a pause as people write them. Pure.

use jiff::SignedDuration;

/// Reads how long a pause shall last, in whole seconds: `15m`, `1h`, `90s`, `1h 30m`.
/// # Errors
/// A sentence for the person who wrote it, also for a time that is no pause at all.
pub(crate) fn parse_time(text: &str) -> Result<u32, String> {
    let seconds = text.trim().parse::<SignedDuration>().ok().map(|time| time.as_secs());
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0).ok_or_else(|| {
        "write a time of 1s or more, such as 15m or 1h; without one it lasts until `sampan resume`".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let table = [
            ("15m", 900),
            ("1h", 3_600),
            (" 90s ", 90),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("48h", 172_800),
        ];
        for (written, seconds) in table {
            assert_eq!(parse_time(written), Ok(seconds), "{written:?}");
        }
    }

    #[test]
    fn what_is_no_time_or_no_pause_is_refused_with_an_example() {
        for written in ["", "15", "long", "0s", "500ms", "-5m", "99999999999h", "2000000h"] {
            assert!(parse_time(written).is_err_and(|why| why.contains("15m")), "{written:?}");
        }
    }
}
