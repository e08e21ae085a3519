//! What of a blob was asked for, and whether an answer is that.

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use sampan_oci::{ContentRange, Digest};

use crate::body::Reader;
use crate::conversation::DIGEST_HEADER;
use crate::request::{content_length, header, whole};
use crate::{BlobBody, Limits, OTHER_SIZE, UpstreamError};

/// A part of a blob to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) start: u64,
    /// One past the last byte; `None`: to the end.
    pub(crate) end: Option<u64>,
    pub(crate) size: Option<u64>,
}

impl Part {
    /// The bytes `range` of a blob of `size` bytes.
    pub(crate) fn of(range: std::ops::Range<u64>, size: u64) -> Result<Self, UpstreamError> {
        if range.is_empty() || range.end > size {
            return Err(UpstreamError::Protocol("no such part was asked for"));
        }
        Ok(Self { start: range.start, end: Some(range.end), size: Some(size) })
    }

    /// The value of `Range`.
    pub(crate) fn header(self) -> String {
        match self.end {
            Some(end) => format!("bytes={}-{}", self.start, end - 1),
            None => format!("bytes={}-", self.start),
        }
    }

    /// Whether `told` is exactly what was asked for.
    fn is_answered_by(self, told: ContentRange) -> bool {
        let end_fits = match (self.end, told.total) {
            (Some(end), _) => told.end == end,
            (None, Some(total)) => told.end == total,
            (None, None) => false,
        };
        let size_fits = self.size.is_none() || told.total.is_none() || told.total == self.size;
        told.start == self.start && end_fits && size_fits
    }

    /// The body of `response`, if that is an honest 206 of exactly this part.
    /// # Errors
    /// [`UpstreamError::RangeRefused`] for a 200, [`UpstreamError::OtherPart`] for a 206 that contradicts the question,
    /// itself or the size known, or does not tell what it is a part of; [`UpstreamError::Protocol`] for another status.
    pub(crate) fn body(self, response: Response, limits: &Limits) -> Result<BlobBody, UpstreamError> {
        if response.status() == StatusCode::OK {
            return Err(UpstreamError::RangeRefused);
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(UpstreamError::Protocol("it sent neither a part nor the whole"));
        }
        let length = content_length(&response);
        let honest = content_range(&response).filter(|told| {
            self.is_answered_by(*told) && length.is_none_or(|length| length == told.end - told.start)
        });
        let told = honest.ok_or(UpstreamError::OtherPart)?;
        let digest = named_digest(&response);
        let reader = Reader::of_part(response, limits.clone(), told.end - told.start);
        Ok(BlobBody {
            size: told.total.or(self.size),
            offset: told.start,
            whole: false,
            digest,
            stream: reader.into_stream(),
        })
    }
}

/// The body of `response`, if that is the whole blob, of `size` bytes where that is known.
/// # Errors
/// [`UpstreamError::OtherPart`] for a part nobody asked for; [`UpstreamError::Protocol`] for another status, or a whole
/// of another size: no other question would bring a better one.
pub(crate) fn whole_body(
    response: Response,
    limits: &Limits,
    size: Option<u64>,
) -> Result<BlobBody, UpstreamError> {
    if response.status() == StatusCode::PARTIAL_CONTENT {
        return Err(UpstreamError::OtherPart);
    }
    let response = whole(response)?;
    let length = content_length(&response);
    if let (Some(size), Some(length)) = (size, length)
        && size != length
    {
        return Err(UpstreamError::Protocol(OTHER_SIZE));
    }
    let size = size.or(length);
    let digest = named_digest(&response);
    let reader = Reader::new(response, limits.clone(), size);
    Ok(BlobBody { size, offset: 0, whole: true, digest, stream: reader.into_stream() })
}

/// What the answer says that it is a part of.
fn named_digest(response: &Response) -> Option<Digest> {
    response.headers().get(DIGEST_HEADER)?.to_str().ok()?.parse().ok()
}

/// What `Content-Range` tells.
pub(crate) fn content_range(response: &Response) -> Option<ContentRange> {
    header(response, &CONTENT_RANGE).and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_answered_by_itself_alone() {
        let closed = Part { start: 5, end: Some(10), size: Some(20) };
        let open = Part { start: 5, end: None, size: None };
        for (told, is_closed, is_open) in [
            ("bytes 5-9/20", true, false),
            ("bytes 5-9/*", true, false),
            ("bytes 5-9/21", false, false),
            ("bytes 5-9/10", false, true),
            ("bytes 4-9/20", false, false),
            ("bytes 5-8/20", false, false),
            ("bytes 5-10/20", false, false),
            ("bytes 5-19/20", false, true),
        ] {
            let told_range: ContentRange = told.parse().unwrap();
            assert_eq!(closed.is_answered_by(told_range), is_closed, "5..10 of 20 by {told}");
            assert_eq!(open.is_answered_by(told_range), is_open, "5.. by {told}");
        }
    }
}
