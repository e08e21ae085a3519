//! Bodies as streams that say when they end too early, too late, or never.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use reqwest::Response;
use sampan_oci::Digest;
use tokio::time::{Instant, timeout};

use crate::UpstreamError;
use crate::limits::Limits;

/// The bytes of a body. Ends after the last promised byte, or in one error. Dropping it closes the connection.
pub type BodyStream = BoxStream<'static, Result<Bytes, UpstreamError>>;

/// A blob on its way. Its bytes are not verified: whoever takes them hashes them.
pub struct BlobBody {
    /// The whole blob's size in bytes, where the upstream said so. Only a claim.
    pub size: Option<u64>,
    /// The position of the first byte of `stream` in the blob.
    pub offset: u64,
    /// Whether the answer was the whole blob; otherwise it is a part, and another one can be asked for.
    pub whole: bool,
    /// What `Docker-Content-Digest` names, where that can be read. Only a claim: the bytes may be the right ones all the same.
    pub digest: Option<Digest>,
    /// The bytes from `offset` on. Shorter than promised: ends in [`UpstreamError::Truncated`] or
    /// [`UpstreamError::Unreachable`]; longer: in [`UpstreamError::OtherPart`] for a part, in
    /// [`UpstreamError::Protocol`] for the whole; stalled or far too slow: in [`UpstreamError::Timeout`].
    pub stream: BodyStream,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody")
            .field("size", &self.size)
            .field("offset", &self.offset)
            .field("whole", &self.whole)
            .finish_non_exhaustive()
    }
}

/// Reads a body piece by piece under the limits.
pub(crate) struct Reader {
    response: Response,
    limits: Limits,
    got: u64,
    expected: Option<u64>,
    is_part: bool,
    pace: Pace,
}

impl Reader {
    /// A reader of `expected` bytes, where a length was promised.
    pub(crate) fn new(response: Response, limits: Limits, expected: Option<u64>) -> Self {
        Self { response, limits, got: 0, expected, is_part: false, pace: Pace::default() }
    }

    /// A reader of a part of `length` bytes.
    pub(crate) fn of_part(response: Response, limits: Limits, length: u64) -> Self {
        Self { is_part: true, ..Self::new(response, limits, Some(length)) }
    }

    /// The next piece; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let asked = Instant::now();
        let piece = timeout(self.limits.idle, self.response.chunk())
            .await
            .map_err(|_| UpstreamError::Timeout)?
            .map_err(|error| UpstreamError::of_body(&error, self.got, self.expected))?;
        let Some(piece) = piece else {
            return match self.expected {
                Some(expected) if self.got < expected => {
                    Err(UpstreamError::Truncated { got: self.got, expected })
                }
                Some(_) | None => Ok(None),
            };
        };
        self.got += piece.len() as u64;
        if self.expected.is_some_and(|expected| self.got > expected) {
            return Err(if self.is_part {
                UpstreamError::OtherPart
            } else {
                UpstreamError::Protocol("it sent more than it promised")
            });
        }
        if self.pace.is_too_slow(asked.elapsed(), piece.len() as u64, &self.limits) {
            return Err(UpstreamError::Timeout);
        }
        Ok(Some(piece))
    }

    pub(crate) fn into_stream(self) -> BodyStream {
        stream::try_unfold(
            self,
            |mut reader| async move { Ok(reader.next().await?.map(|piece| (piece, reader))) },
        )
        .boxed()
    }
}

/// Averages the rate of a body over windows of waiting. Time in which nobody asked for bytes does not count: a slow
/// client is no fault of the upstream.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn is_too_slow(&mut self, waited: Duration, bytes: u64, limits: &Limits) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < limits.rate_window {
            return false;
        }
        let too_slow = self.bytes < limits.rate_bytes_min;
        *self = Self::default();
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        headers: Duration::from_secs(1),
        idle: Duration::from_secs(1),
        rate_window: Duration::from_mins(2),
        rate_bytes_min: 1000,
    };

    #[test]
    fn a_drip_is_too_slow_after_one_window() {
        let mut pace = Pace::default();
        let drips = std::iter::repeat_n((Duration::from_secs(10), 1), 12);
        let verdicts: Vec<bool> =
            drips.map(|(waited, bytes)| pace.is_too_slow(waited, bytes, &LIMITS)).collect();
        assert_eq!(verdicts.iter().position(|&slow| slow), Some(11), "after 120 s, not before");
    }

    #[test]
    fn one_burst_in_a_window_is_enough() {
        let mut pace = Pace::default();
        assert!(!pace.is_too_slow(Duration::from_mins(1), 1000, &LIMITS));
        assert!(!pace.is_too_slow(Duration::from_mins(1), 0, &LIMITS));
        assert!(pace.is_too_slow(Duration::from_mins(2), 999, &LIMITS), "each window counts alone");
    }
}
