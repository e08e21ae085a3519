//! Speeds as people write them. Pure.

use bytesize::ByteSize;
use sampan_app::api::{SPEED_LIMIT_MAX, SPEED_LIMIT_MIN, SpeedLimit};

const EXAMPLE: &str = "write a speed such as 2MB/s, 500 kB/s, 1.5 MiB/s or 16 Mbit/s, or off";

/// Reads a limit: a speed in bytes (`2MB/s`, `500 KB`, `1.5 MiB/s`, `800k`, `250000`) or in bits (`16 Mbit/s`), or `off`.
/// # Errors
/// A sentence for the person who wrote it, also for a speed beyond the bounds.
pub(crate) fn parse_limit(text: &str) -> Result<SpeedLimit, String> {
    let text = text.trim();
    if ["off", "none", "unlimited"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Ok(SpeedLimit::Off);
    }
    let speed = parse_speed(text)?;
    if speed < SPEED_LIMIT_MIN {
        return Err(format!("the lowest limit is 10 kB/s; {EXAMPLE}"));
    }
    if speed > SPEED_LIMIT_MAX {
        return Err(format!("the highest limit is 1 TB/s; {EXAMPLE}"));
    }
    Ok(SpeedLimit::BytesPerSecond(speed))
}

/// A speed as `status` and `limit` show it.
pub(crate) fn speed(bytes_per_second: u64) -> String {
    format!("{}/s", ByteSize::b(bytes_per_second).display().si())
}

/// Bytes per second.
fn parse_speed(text: &str) -> Result<u64, String> {
    let per_second = text.strip_suffix("/s").or_else(|| text.strip_suffix("ps")).unwrap_or(text).trim_end();
    let is_unit = |c: char| c.is_ascii_alphabetic();
    let unit = per_second.trim_start_matches(|c: char| !is_unit(c));
    let amount = per_second.strip_suffix(unit).unwrap_or(per_second);
    if let Some(prefix) = unit.strip_suffix("bits").or_else(|| unit.strip_suffix("bit")) {
        // The same prefixes, of something eight times smaller.
        return bytes(&format!("{amount}{prefix}")).map(|bits| bits / 8);
    }
    if unit.len() > 1 && unit.ends_with('b') {
        return Err(format!("{unit:?} may mean bits or bytes; {EXAMPLE}"));
    }
    bytes(per_second)
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(|_| EXAMPLE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_read_as_people_write_it() {
        let table = [
            ("2MB/s", 2_000_000),
            ("2 MB/s", 2_000_000),
            (" 2MBps ", 2_000_000),
            ("500 KB", 500_000),
            ("500 kB/s", 500_000),
            ("1.5 MiB/s", 1_572_864),
            ("16 Mbit/s", 2_000_000),
            ("16mbit", 2_000_000),
            ("100 Mbits/s", 12_500_000),
            ("800kbit/s", 100_000),
            ("800k", 800_000),
            ("5M", 5_000_000),
            ("250000", 250_000),
            ("10kB/s", SPEED_LIMIT_MIN),
            ("1TB/s", SPEED_LIMIT_MAX),
        ];
        for (written, limit) in table {
            assert_eq!(parse_limit(written), Ok(SpeedLimit::BytesPerSecond(limit)), "{written:?}");
        }
        for off in ["off", "OFF", "none", "unlimited"] {
            assert_eq!(parse_limit(off), Ok(SpeedLimit::Off), "{off:?}");
        }
    }

    #[test]
    fn what_could_mean_two_speeds_or_none_is_refused_with_an_example() {
        let table = [
            ("16 Mb/s", "bits or bytes"),
            ("500kb", "bits or bytes"),
            ("2", "lowest limit is 10 kB/s"),
            ("9999", "lowest limit is 10 kB/s"),
            ("0", "lowest limit is 10 kB/s"),
            ("2 TB/s", "highest limit is 1 TB/s"),
            ("-2MB/s", "2MB/s"),
            ("fast", "2MB/s"),
            ("", "2MB/s"),
            ("/s", "2MB/s"),
            ("bit", "2MB/s"),
            ("2 MB/h", "2MB/s"),
            ("NaN", "2MB/s"),
            ("infMB", "2MB/s"),
        ];
        for (written, advice) in table {
            let refused = parse_limit(written).expect_err(written);
            assert!(refused.contains(advice), "{written:?} should advise {advice:?}: {refused}");
        }
    }

    #[test]
    fn a_speed_is_shown_in_the_units_it_may_be_written_in() {
        assert_eq!(speed(2_000_000), "2.0 MB/s");
        assert_eq!(parse_limit(&speed(250_000)), Ok(SpeedLimit::BytesPerSecond(250_000)));
    }
}
