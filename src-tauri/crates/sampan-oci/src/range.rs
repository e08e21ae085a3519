//! Byte ranges: what a client may ask, and what an upstream says it sends (RFC 9110, section 14).

use std::str::FromStr;

/// What a `Range` header asks of a body of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// The whole body: no header, another unit, several ranges, or a syntax that RFC 9110 says to ignore.
    Whole,
    /// Bytes `start..end` (end exclusive, `start < end <= size`): answer 206.
    Part {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// No byte of the range exists: answer 416 with `Content-Range: bytes */size`.
    Unsatisfiable,
}

impl RangeRequest {
    /// Reads a `Range` header against a body of `size` bytes. Several ranges are answered whole, which is legal
    /// (RFC 9110, 14.2) and what CLIENTS.md R-M4 asks for.
    pub fn parse(header: Option<&str>, size: u64) -> Self {
        let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Self::Whole };
        if spec.contains(',') {
            return Self::Whole;
        }
        let Some((first, last)) = spec.trim().split_once('-') else { return Self::Whole };
        match (number(first), number(last)) {
            (Some(Number::Value(first)), Some(last)) => {
                let last = match last {
                    Number::Value(last) if last < first => return Self::Whole,
                    Number::Value(last) => last,
                    Number::Empty => u64::MAX,
                };
                if first >= size {
                    return Self::Unsatisfiable;
                }
                Self::Part { start: first, end: last.saturating_add(1).min(size) }
            }
            (Some(Number::Empty), Some(Number::Value(suffix))) => {
                if suffix == 0 || size == 0 {
                    return Self::Unsatisfiable;
                }
                Self::Part { start: size.saturating_sub(suffix), end: size }
            }
            _ => Self::Whole,
        }
    }
}

enum Number {
    Empty,
    Value(u64),
}

/// Digits only (`u64::from_str` would take a `+`); a number too large for u64 means "beyond any body".
fn number(text: &str) -> Option<Number> {
    if text.is_empty() {
        return Some(Number::Empty);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Number::Value(text.parse().unwrap_or(u64::MAX)))
}

/// A `Content-Range: bytes first-last/total` header of a 206, in the only form a pull accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// The size of the whole body; `None` where the upstream wrote `*`.
    pub total: Option<u64>,
}

impl FromStr for ContentRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let value = |text: &str| match number(text) {
            Some(Number::Value(n)) if n < u64::MAX => Ok(n),
            Some(_) | None => Err(()),
        };
        let (range, total) = text.strip_prefix("bytes ").and_then(|r| r.split_once('/')).ok_or(())?;
        let (first, last) = range.split_once('-').ok_or(())?;
        let (start, end) = (value(first)?, value(last)? + 1);
        let total = if total == "*" { None } else { Some(value(total)?) };
        if start >= end || total.is_some_and(|total| end > total) {
            return Err(());
        }
        Ok(Self { start, end, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        use RangeRequest::{Part, Unsatisfiable, Whole};
        let cases: &[(Option<&str>, u64, RangeRequest)] = &[
            (None, 10, Whole),
            (Some("bytes=0-"), 10, Part { start: 0, end: 10 }),
            (Some("bytes=0-0"), 10, Part { start: 0, end: 1 }),
            (Some("bytes=3-5"), 10, Part { start: 3, end: 6 }),
            (Some("bytes=3-99"), 10, Part { start: 3, end: 10 }),
            (Some("bytes=-4"), 10, Part { start: 6, end: 10 }),
            (Some("bytes=-99"), 10, Part { start: 0, end: 10 }),
            (Some("bytes=9-"), 10, Part { start: 9, end: 10 }),
            (Some("bytes=10-"), 10, Unsatisfiable),
            (Some("bytes=-0"), 10, Unsatisfiable),
            (Some("bytes=0-"), 0, Unsatisfiable),
            (Some("bytes=-1"), 0, Unsatisfiable),
            (Some("bytes=18446744073709551615-"), 10, Unsatisfiable),
            (Some("bytes=0-99999999999999999999999999"), 10, Part { start: 0, end: 10 }),
            (Some("bytes=5-3"), 10, Whole),
            (Some("bytes=0-1,3-4"), 10, Whole),
            (Some("bytes=a-b"), 10, Whole),
            (Some("bytes=+1-2"), 10, Whole),
            (Some("bytes=-"), 10, Whole),
            (Some("bytes="), 10, Whole),
            (Some("items=0-1"), 10, Whole),
            (Some("0-1"), 10, Whole),
        ];
        for (header, size, expected) in cases {
            assert_eq!(RangeRequest::parse(*header, *size), *expected, "{header:?} of {size}");
        }
    }

    #[test]
    fn content_ranges_must_make_sense() {
        assert_eq!("bytes 3-5/10".parse(), Ok(ContentRange { start: 3, end: 6, total: Some(10) }));
        assert_eq!("bytes 3-5/*".parse(), Ok(ContentRange { start: 3, end: 6, total: None }));
        for bad in [
            "",
            "bytes */10",
            "bytes 5-3/10",
            "bytes 3-10/10",
            "3-5/10",
            "bytes 3-5",
            "bytes -5/10",
            "bytes 0-18446744073709551615/*",
        ] {
            assert!(bad.parse::<ContentRange>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_body(header in "bytes=[0-9+,-]{0,30}", size in any::<u64>()) {
            if let RangeRequest::Part { start, end } = RangeRequest::parse(Some(&header), size) {
                prop_assert!(start < end && end <= size);
            }
        }

        #[test]
        fn content_range_never_panics(text in "(bytes )?[0-9*/-]{0,50}") {
            if let Ok(range) = text.parse::<ContentRange>() {
                prop_assert!(range.start < range.end);
            }
        }
    }
}
