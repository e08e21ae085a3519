//! One connection's work: a request, and its body as it comes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use sampan_oci::Digest;
use sampan_upstream::{BlobBody, BlobSource, UpstreamError};
use tokio::time::Instant;

use super::throttle::Throttle;

/// What to ask for.
#[derive(Debug)]
pub(super) enum Ask {
    /// Nothing: this answer came already, after so long.
    Nothing { body: BlobBody, after: Duration },
    /// The first question about a blob; the whole is an answer too.
    Begin { len: u64, size: u64 },
    /// Exactly these bytes.
    Part { range: Range<u64>, size: u64 },
    /// Everything, in one stream.
    Whole { size: Option<u64> },
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Happened {
    /// The answer's head came.
    Opened(Opened),
    /// The next bytes.
    Bytes(Bytes),
    /// The body ended as promised. Only now is the connection free for another request.
    Ended,
    /// No answer, or a body that broke off. Nothing comes after it.
    Broke(UpstreamError),
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Opened {
    /// How long it took.
    pub(super) after: Duration,
    /// Where its body begins.
    pub(super) offset: u64,
    pub(super) whole: bool,
    /// What it tells of the blob: its size, and its digest.
    pub(super) size: Option<u64>,
    pub(super) digest: Option<Digest>,
}

enum State {
    Ask(Ask),
    Body(BlobBody),
    Over,
}

/// Asks, and yields what happens. Dropping it closes the connection unless its body has ended.
pub(super) fn run(source: BlobSource, ask: Ask, throttle: Arc<Throttle>) -> BoxStream<'static, Happened> {
    stream::unfold((State::Ask(ask), 0), move |(state, owed)| {
        let (source, throttle) = (source.clone(), throttle.clone());
        async move {
            // The bytes before are paid for now: whoever polls again has taken them already.
            if owed > 0 {
                throttle.pass(owed).await;
            }
            match state {
                State::Ask(ask) => Some(match open(&source, ask).await {
                    Ok((body, after)) => {
                        let (offset, whole) = (body.offset, body.whole);
                        let opened = Opened { after, offset, whole, size: body.size, digest: body.digest };
                        (Happened::Opened(opened), (State::Body(body), 0))
                    }
                    Err(error) => (Happened::Broke(error), (State::Over, 0)),
                }),
                State::Body(mut body) => Some(match body.stream.next().await {
                    Some(Ok(bytes)) => {
                        let owed = bytes.len() as u64;
                        (Happened::Bytes(bytes), (State::Body(body), owed))
                    }
                    Some(Err(error)) => (Happened::Broke(error), (State::Over, 0)),
                    None => (Happened::Ended, (State::Over, 0)),
                }),
                State::Over => None,
            }
        }
    })
    .boxed()
}

async fn open(source: &BlobSource, ask: Ask) -> Result<(BlobBody, Duration), UpstreamError> {
    let asked = Instant::now();
    let body = match ask {
        Ask::Nothing { body, after } => return Ok((body, after)),
        Ask::Begin { len, size } => source.begin(Some(len), Some(size)).await,
        Ask::Part { range, size } => source.part(range, size).await,
        Ask::Whole { size } => source.begin(None, size).await,
    };
    Ok((body?, asked.elapsed()))
}
