//! The body of an answer: counted as it leaves, and told once when it ended, however it ended.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use sampan_oci::{Answered, Clock, Event, Failure, Outcome, TransferId};

use crate::EventSink;
use crate::error::PullError;

/// How often the progress of a body is told at most, in milliseconds.
const PROGRESS_EVERY_MILLIS: u64 = 200;

/// The bytes of an answer. An error ends the connection before `Content-Length` is reached: that, and nothing else,
/// tells a client that the bytes it has are not the whole truth.
pub(crate) type Bodystream = Pin<Box<dyn Stream<Item = Result<Bytes, PullError>> + Send>>;

/// Tells the end of an answer exactly once, also when the client hangs up or the handler is cancelled.
#[derive(Debug)]
pub(crate) struct Account {
    answered: Answered,
    expected_bytes: u64,
    failed: bool,
    course: Arc<Course>,
}

impl Account {
    pub(crate) fn open(answered: Answered, clock: Arc<dyn Clock>, sink: EventSink) -> Self {
        let course = Arc::new(Course::new(answered.id, clock, sink));
        Self { answered, expected_bytes: 0, failed: false, course }
    }

    pub(crate) fn answered(&mut self) -> &mut Answered {
        &mut self.answered
    }

    /// Where those who send the body tell how it goes. The end is told once all of them have let go of it.
    pub(crate) fn course(&self) -> Arc<Course> {
        self.course.clone()
    }

    /// Sets how many body bytes a complete answer has.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.expected_bytes = bytes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Nobody asks for it any more: what it owns is handed over.
        let answered = &mut self.answered;
        let (image, reference) = (answered.image.take(), answered.reference.take());
        let user_agent = std::mem::take(&mut answered.user_agent);
        let answered = Answered { image, reference, user_agent, ..answered.clone() };
        let _ = self.course.body.set(BodyEnd {
            answered,
            expected_bytes: self.expected_bytes,
            failed: self.failed,
        });
    }
}

/// One answer on its way: shared by its body and by the parts of files that the socket has still to send for it. The last
/// of them to go tells the end, so that what is told is what left, and not what was meant to.
#[derive(Debug)]
pub(crate) struct Course {
    id: TransferId,
    clock: Arc<dyn Clock>,
    sink: EventSink,
    began: Instant,
    /// Bytes that the body has yielded.
    yielded: AtomicU64,
    /// Those of them that the socket has still to send from a file.
    waiting: AtomicU64,
    /// When progress was told last, in milliseconds from the beginning.
    told: AtomicU64,
    /// The socket could not go on, and it was not the client's doing.
    broke: AtomicBool,
    /// Another outcome than was expected, learnt while the body flowed.
    late: OnceLock<Outcome>,
    body: OnceLock<BodyEnd>,
}

/// What the body knew when it was let go of.
#[derive(Debug)]
struct BodyEnd {
    answered: Answered,
    expected_bytes: u64,
    failed: bool,
}

impl Course {
    pub(crate) fn new(id: TransferId, clock: Arc<dyn Clock>, sink: EventSink) -> Self {
        let (yielded, waiting, told) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (broke, late, body) = (AtomicBool::new(false), OnceLock::new(), OnceLock::new());
        Self { id, clock, sink, began: Instant::now(), yielded, waiting, told, broke, late, body }
    }

    /// Another outcome than was expected. The first one told counts.
    pub(crate) fn turned_out(&self, outcome: Outcome) {
        let _ = self.late.set(outcome);
    }

    /// The next `bytes` that the body yields are sent by the socket: they count when they [are](Self::sent).
    pub(crate) fn wait_for(&self, bytes: u64) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The socket has sent so many of the bytes that it was [waited for](Self::wait_for) with.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "told by a socket that sends files"))]
    pub(crate) fn sent(&self, bytes: u64) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.tell_progress();
    }

    /// The socket cannot go on for a reason that is not the client's: the answer ends too early, and that is our failure.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "told by a socket that sends files"))]
    pub(crate) fn broke_off(&self) {
        self.broke.store(true, Ordering::Relaxed);
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn is_broken(&self) -> bool {
        self.broke.load(Ordering::Relaxed)
    }

    fn yielded(&self, bytes: u64) {
        self.yielded.fetch_add(bytes, Ordering::Relaxed);
        self.tell_progress();
    }

    /// Bytes handed to the client.
    fn served(&self) -> u64 {
        // What waits is noted before it is yielded: never more than what was sent.
        self.yielded.load(Ordering::Relaxed).saturating_sub(self.waiting.load(Ordering::Relaxed))
    }

    fn tell_progress(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.told.load(Ordering::Relaxed)) >= PROGRESS_EVERY_MILLIS {
            self.told.store(now, Ordering::Relaxed);
            let (id, at, sent) = (self.id, self.clock.now(), self.served());
            self.sink.tell(&Event::BlobProgress { id, at, sent });
        }
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        let Some(BodyEnd { mut answered, expected_bytes, failed }) = self.body.take() else { return };
        answered.served_bytes = self.served();
        if !failed {
            if let Some(outcome) = self.late.get() {
                answered.outcome = *outcome;
            }
            if self.broke.load(Ordering::Relaxed) {
                answered.outcome = Outcome::Failed(Failure::Store);
            } else if answered.served_bytes < expected_bytes {
                answered.outcome = Outcome::Failed(Failure::ClientLeft);
            }
        }
        if answered.status >= 400 {
            // The text of an error is nothing that a client asked for, and saves nobody anything.
            answered.served_bytes = 0;
        }
        answered.at = self.clock.now();
        answered.took_millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.sink.tell(&Event::Answered(answered));
    }
}

/// A streamed body with its account.
pub(crate) struct CountedBody {
    stream: Bodystream,
    account: Account,
}

impl CountedBody {
    /// `account` must expect exactly the bytes that `stream` yields.
    pub(crate) fn new(stream: Bodystream, account: Account) -> Self {
        Self { stream, account }
    }

    /// A body already in memory.
    pub(crate) fn whole(bytes: Bytes, mut account: Account) -> Self {
        account.expect(bytes.len() as u64);
        Self::new(Box::pin(futures_util::stream::once(async move { Ok(bytes) })), account)
    }
}

impl CountedBody {
    /// How many bytes it has still to yield.
    fn left(&self) -> u64 {
        self.account.expected_bytes - self.account.course.yielded.load(Ordering::Relaxed)
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
                self.account.course.yielded(bytes.len() as u64);
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
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use sampan_oci::RequestKind;
    use sampan_testkit::TestClock;

    use super::*;

    type Told = Arc<Mutex<Vec<Event>>>;

    /// An answer of `expected` bytes that began an hour ago, so that progress is due.
    fn open(expected: u64) -> (Account, Told) {
        let told = Told::default();
        let theirs = told.clone();
        let sink = EventSink::new(move |event| theirs.lock().unwrap().push(event.clone()));
        let answered = Answered {
            id: TransferId(7),
            at: sampan_oci::Millis(0),
            took_millis: 0,
            kind: RequestKind::Blob,
            head: false,
            image: None,
            reference: None,
            outcome: Outcome::Hit,
            status: 200,
            served_bytes: 0,
            user_agent: String::new(),
        };
        let mut account = Account::open(answered, Arc::new(TestClock::new()), sink);
        let began = Instant::now().checked_sub(Duration::from_hours(1)).unwrap();
        Arc::get_mut(&mut account.course).unwrap().began = began;
        account.expect(expected);
        (account, told)
    }

    fn progress(told: &Told) -> Vec<u64> {
        let told = told.lock().unwrap();
        told.iter()
            .filter_map(|e| if let Event::BlobProgress { sent, .. } = e { Some(*sent) } else { None })
            .collect()
    }

    fn ends(told: &Told) -> Vec<(Outcome, u64)> {
        let told = told.lock().unwrap();
        let end = |event: &Event| match event {
            Event::Answered(answered) => Some((answered.outcome, answered.served_bytes)),
            Event::Manifest { .. }
            | Event::BlobStarted { .. }
            | Event::BlobProgress { .. }
            | Event::Fetched { .. }
            | Event::Download { .. }
            | Event::Lied { .. } => None,
        };
        told.iter().filter_map(end).collect()
    }

    #[test]
    fn what_the_socket_has_still_to_send_is_neither_progress_nor_the_end() {
        const REGION: u64 = 2 * 1024 * 1024;
        let (account, told) = open(REGION);
        let course = account.course();
        course.wait_for(REGION);
        course.yielded(REGION);
        assert_eq!(progress(&told), [0], "announced, and not a byte sent");
        course.told.store(0, Ordering::Relaxed);
        course.sent(70_000);
        assert_eq!(progress(&told), [0, 70_000], "as fine as the socket's writes");
        course.sent(1000);
        assert_eq!(progress(&told).len(), 2, "and told a few times a second at most");
        drop(account);
        assert_eq!(ends(&told), [], "the body has ended, the answer has not");
        course.sent(REGION - 71_000);
        drop(course);
        assert_eq!(ends(&told), [(Outcome::Hit, REGION)]);
    }

    #[test]
    fn an_answer_that_broke_off_is_our_failure_and_one_nobody_wanted_is_not() {
        let failed = |why| (Outcome::Failed(why), 100);
        for (broke, end) in [(true, failed(Failure::Store)), (false, failed(Failure::ClientLeft))] {
            let (account, told) = open(1000);
            let course = account.course();
            course.wait_for(1000);
            course.yielded(1000);
            course.sent(100);
            if broke {
                course.broke_off();
            }
            drop((account, course));
            assert_eq!(ends(&told), [end]);
        }
    }
}
