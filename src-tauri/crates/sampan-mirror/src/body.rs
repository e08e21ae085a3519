//! The body of an answer: counted as it leaves, and told once when it ended, however it ended.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use sampan_oci::{Answered, Clock, Event, Failure, Outcome};

use crate::EventSink;
use crate::error::PullError;

/// How often the progress of a body is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The bytes of an answer. An error ends the connection before `Content-Length` is reached: that, and nothing else,
/// tells a client that the bytes it has are not the whole truth.
pub(crate) type Bodystream = Pin<Box<dyn Stream<Item = Result<Bytes, PullError>> + Send>>;

/// Tells the end of an answer exactly once, also when the client hangs up or the handler is cancelled.
#[derive(Debug)]
pub(crate) struct Account {
    answered: Answered,
    expected_bytes: u64,
    began: Instant,
    clock: Arc<dyn Clock>,
    sink: EventSink,
    failed: bool,
    /// Another outcome than was expected, learnt while the body flowed.
    late: Arc<OnceLock<Outcome>>,
}

impl Account {
    pub(crate) fn open(answered: Answered, clock: Arc<dyn Clock>, sink: EventSink) -> Self {
        let late = Arc::default();
        Self { answered, expected_bytes: 0, began: Instant::now(), clock, sink, failed: false, late }
    }

    pub(crate) fn answered(&mut self) -> &mut Answered {
        &mut self.answered
    }

    /// Where a body tells an outcome that it learns only on its way.
    pub(crate) fn late(&self) -> Arc<OnceLock<Outcome>> {
        self.late.clone()
    }

    /// Sets how many body bytes a complete answer has.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.expected_bytes = bytes;
    }

    fn progress(&self) {
        let (id, at, sent) = (self.answered.id, self.clock.now(), self.answered.served_bytes);
        self.sink.tell(&Event::BlobProgress { id, at, sent });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(outcome) = self.late.get().filter(|_| !self.failed) {
            self.answered.outcome = *outcome;
        }
        if !self.failed && self.answered.served_bytes < self.expected_bytes {
            self.answered.outcome = Outcome::Failed(Failure::ClientLeft);
        }
        if self.answered.status >= 400 {
            // The text of an error is nothing that a client asked for, and saves nobody anything.
            self.answered.served_bytes = 0;
        }
        self.answered.at = self.clock.now();
        self.answered.took_millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Nobody asks for it any more: what it owns is handed over.
        let answered = &mut self.answered;
        let (image, reference) = (answered.image.take(), answered.reference.take());
        let user_agent = std::mem::take(&mut answered.user_agent);
        self.sink.tell(&Event::Answered(Answered { image, reference, user_agent, ..answered.clone() }));
    }
}

/// A streamed body with its account.
pub(crate) struct CountedBody {
    stream: Bodystream,
    account: Account,
    told: Instant,
}

impl CountedBody {
    /// `account` must expect exactly the bytes that `stream` yields.
    pub(crate) fn new(stream: Bodystream, account: Account) -> Self {
        Self { stream, account, told: Instant::now() }
    }

    /// A body already in memory.
    pub(crate) fn whole(bytes: Bytes, mut account: Account) -> Self {
        account.expect(bytes.len() as u64);
        Self::new(Box::pin(futures_util::stream::once(async move { Ok(bytes) })), account)
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = PullError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PullError>>> {
        match self.stream.as_mut().poll_next(context) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.account.answered.served_bytes += bytes.len() as u64;
                if self.told.elapsed() >= PROGRESS_EVERY {
                    self.told = Instant::now();
                    self.account.progress();
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.account.failed = true;
                self.account.answered.outcome = Outcome::Failed(error.failure());
                tracing::warn!(%error, "an answer broke off");
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.account.answered.served_bytes == self.account.expected_bytes
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.account.expected_bytes - self.account.answered.served_bytes)
    }
}
