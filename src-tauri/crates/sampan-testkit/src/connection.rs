//! One client's connection: reads requests, writes answers exactly as badly as the faults say.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::{Answer, End, Length, at};
use crate::record::Kind;
use crate::registry::Shared;
use crate::wire::{head, read_request};

/// Bodies go out in pieces, so that counts and cuts are fine-grained.
const PIECE: usize = 16 * 1024;

/// How late timers may be without slowing a pace down.
const LATE: Duration = Duration::from_millis(5);

/// Serves one connection until either side is done with it. Errors of the client's side end it silently.
pub(crate) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    cut.mark_unchanged();
    let _open = Open::new(&shared);
    tokio::select! {
        _ = cut.changed() => {}
        _ = answer_all(&mut stream, &shared) => {}
    }
}

/// Counts a connection for as long as it is open.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.opened();
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

/// Counts an answer for as long as it is on its way.
struct Flight<'a>(&'a Shared, Kind);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.landed(self.1);
    }
}

async fn answer_all(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let source = stream.peer_addr()?.ip();
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer).await? {
        let (kind, is_head) = (request.kind, request.method == "HEAD");
        // Subscribed before the faults are read: healing right after that must still be seen.
        let heals = shared.heals.subscribe();
        let Some(answer) = shared.answer(request, source) else { return Ok(()) };
        let flight = (!answer.is_too_many).then(|| Flight(shared, kind));
        let mut writer = Writer { stream, shared, kind, flight, due: Instant::now() };
        if !writer.write(is_head, answer, heals).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes one answer.
struct Writer<'a> {
    stream: &'a mut TcpStream,
    shared: &'a Shared,
    kind: Kind,
    flight: Option<Flight<'a>>,
    /// When the next piece of a body at a fixed rate may leave.
    due: Instant,
}

impl Writer<'_> {
    /// Whether the connection can carry another answer.
    async fn write(
        &mut self,
        is_head: bool,
        mut answer: Answer,
        mut heals: watch::Receiver<()>,
    ) -> io::Result<bool> {
        if answer.stalls_before_headers {
            // An error means that the registry is gone, and this connection with it.
            let _ = heals.changed().await;
        }
        while answer.floods {
            self.stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n").await?;
            // A thousand a second: it is patience that is tried here, not the processor.
            let pause = tokio::time::timeout(Duration::from_millis(1), heals.changed());
            answer.floods = pause.await.is_err();
        }
        let size = answer.body.len();
        match answer.length {
            Length::Told => answer.headers.push(("content-length".into(), size.to_string())),
            Length::Twice => {
                answer.headers.push(("content-length".into(), size.to_string()));
                answer.headers.push(("content-length".into(), (size + 1).to_string()));
            }
            Length::Untold | Length::Endless => {
                answer.headers.push(("connection".into(), "close".into()));
            }
        }
        self.stream.write_all(&head(answer.status, &answer.headers)).await?;
        if is_head {
            return Ok(answer.length == Length::Told);
        }
        self.due = Instant::now();
        match answer.end {
            End::Whole => self.body(&answer, 0..size).await?,
            End::Stall(after) => {
                let after = at(after).min(size);
                self.body(&answer, 0..after).await?;
                let _ = heals.changed().await;
                self.body(&answer, after..size).await?;
            }
            End::Fin(after) => {
                self.body(&answer, 0..at(after).min(size)).await?;
                self.stream.shutdown().await?;
                return Ok(false);
            }
            End::Reset(after) => {
                self.body(&answer, 0..at(after).min(size)).await?;
                // The client must have taken the bytes before the reset throws the rest away; closing with SO_LINGER 0
                // sends RST instead of FIN.
                self.stream.set_zero_linger()?;
                return Ok(false);
            }
        }
        if answer.length == Length::Endless {
            // An honest beginning is no help against a client that reads for ever.
            let filler = Bytes::from(vec![b' '; PIECE]);
            loop {
                self.piece(&filler).await?;
            }
        }
        if answer.length == Length::Told {
            return Ok(true);
        }
        self.stream.shutdown().await?;
        Ok(false)
    }

    async fn body(&mut self, answer: &Answer, range: Range<usize>) -> io::Result<()> {
        let is_last = range.end == answer.body.len() && answer.length != Length::Endless;
        let mut rest = answer.body.slice(range);
        while !rest.is_empty() {
            let size = piece_bytes(answer).min(rest.len());
            self.pace(answer, size).await;
            if is_last && size == rest.len() {
                // Who has the last byte may ask again before this task runs again.
                self.flight = None;
            }
            self.piece(&rest.split_to(size)).await?;
        }
        Ok(())
    }

    /// Waits until a piece of `size` bytes may leave.
    async fn pace(&mut self, answer: &Answer, size: usize) {
        if let Some(every) = answer.drip {
            sleep(every).await;
        }
        if let Some(rate) = answer.rate {
            self.due = late(self.due) + duration_of(size, rate);
            sleep_until(self.due).await;
        }
        if let Some(rate) = answer.link {
            sleep_until(self.shared.carried(size, rate)).await;
        }
    }

    async fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.shared.wrote(self.kind, bytes.len());
        Ok(())
    }
}

/// How many bytes leave at once: at a fixed rate no more than a twentieth of a second carries.
fn piece_bytes(answer: &Answer) -> usize {
    if answer.drip.is_some() {
        return 1;
    }
    let rates = [answer.rate, answer.link].into_iter().flatten();
    rates.map(|rate| at(rate / 20).max(1)).fold(PIECE, usize::min)
}

/// When a pace goes on that stood still: at once, without making up for more than the timer's own lateness.
pub(crate) fn late(due: Instant) -> Instant {
    let now = Instant::now();
    now.checked_sub(LATE).map_or(due, |earliest| due.max(earliest))
}

/// How long `bytes` take at a rate; a rate of 0 counts as 1.
pub(crate) fn duration_of(bytes: usize, bytes_per_second: u64) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
