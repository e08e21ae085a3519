//! What the hub counts, and how the near side reads it: over a Unix socket, which no network namespace hides and no
//! simulated link slows.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Counted since the hub began, but for the peak, which is that since the last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Requests of any kind.
    pub(crate) requests: u64,
    /// Bytes of blobs handed to the sockets: at most 128 KiB per connection of them have not left the machine.
    pub(crate) body_bytes: u64,
    /// Everything else handed over: heads, manifests, errors.
    pub(crate) other_bytes: u64,
    /// Connections accepted.
    pub(crate) connections: u64,
    /// The most blobs being sent at one moment.
    pub(crate) streams_peak: u64,
    /// The sum over all blobs sent of the time that took, in microseconds.
    pub(crate) stream_micros: u64,
    /// The time in which at least one blob was being sent, in microseconds.
    pub(crate) busy_micros: u64,
    /// TCP segments sent in the hub's namespace, and those of them sent again (Tcp: OutSegs, RetransSegs).
    pub(crate) segments: u64,
    pub(crate) segments_again: u64,
}

impl Counters {
    /// What was counted between an earlier reading and this one. The peak is this one's.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            body_bytes: self.body_bytes - earlier.body_bytes,
            other_bytes: self.other_bytes - earlier.other_bytes,
            connections: self.connections - earlier.connections,
            streams_peak: self.streams_peak,
            stream_micros: self.stream_micros - earlier.stream_micros,
            busy_micros: self.busy_micros - earlier.busy_micros,
            segments: self.segments - earlier.segments,
            segments_again: self.segments_again - earlier.segments_again,
        }
    }

    pub(crate) fn to_json(self) -> Value {
        json!({
            "requests": self.requests,
            "body_bytes": self.body_bytes,
            "other_bytes": self.other_bytes,
            "connections": self.connections,
            "streams_peak": self.streams_peak,
            "stream_micros": self.stream_micros,
            "busy_micros": self.busy_micros,
            "segments": self.segments,
            "segments_again": self.segments_again,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            requests: number("requests")?,
            body_bytes: number("body_bytes")?,
            other_bytes: number("other_bytes")?,
            connections: number("connections")?,
            streams_peak: number("streams_peak")?,
            stream_micros: number("stream_micros")?,
            busy_micros: number("busy_micros")?,
            segments: number("segments")?,
            segments_again: number("segments_again")?,
        })
    }
}

/// Asks a running hub; its peak begins anew.
///
/// # Errors
/// It does not answer.
pub(crate) fn read(socket: &Path) -> Result<Counters> {
    let mut text = String::new();
    UnixStream::connect(socket)?.read_to_string(&mut text)?;
    Counters::from_json(&serde_json::from_str(&text)?).context("the hub's counters are not complete")
}

/// Where the hub counts.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<Book>);

#[derive(Debug)]
struct Book {
    counters: Counters,
    streams: u64,
    changed: Instant,
}

impl Book {
    /// Brings the times up to now; before every change of the number of streams and every reading.
    fn settle(&mut self) {
        let micros = u64::try_from(self.changed.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.changed = Instant::now();
        self.counters.stream_micros += micros * self.streams;
        self.counters.busy_micros += if self.streams > 0 { micros } else { 0 };
    }
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Book { counters: Counters::default(), streams: 0, changed: Instant::now() }))
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).counters);
    }

    /// A blob begins to be sent; it ends when the result is dropped.
    pub(crate) fn stream(&self) -> Stream<'_> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.settle();
        book.streams += 1;
        book.counters.streams_peak = book.counters.streams_peak.max(book.streams);
        Stream(self)
    }

    fn reading(&self) -> Counters {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.settle();
        let read = book.counters;
        book.counters.streams_peak = book.streams;
        read
    }
}

/// A blob being sent.
#[derive(Debug)]
pub(crate) struct Stream<'t>(&'t Tally);

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let mut book = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.settle();
        book.streams -= 1;
    }
}

/// Answers every connection to the socket with a reading, for ever.
pub(crate) fn answer(listener: &UnixListener, tally: &Arc<Tally>) {
    for stream in listener.incoming() {
        let mut counters = tally.reading();
        (counters.segments, counters.segments_again) =
            segments(&fs::read_to_string("/proc/self/net/snmp").unwrap_or_default()).unwrap_or_default();
        // Whoever asked has gone: nothing is lost but the reading.
        let _ = stream.and_then(|mut stream| stream.write_all(counters.to_json().to_string().as_bytes()));
    }
}

/// OutSegs and RetransSegs of proc's `net/snmp`, which names its columns.
fn segments(snmp: &str) -> Option<(u64, u64)> {
    let mut rows = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next()?, rows.next()?);
    let value = |wanted: &str| {
        let (_, value) = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == wanted)?;
        value.parse::<u64>().ok()
    };
    Some((value("OutSegs")?, value("RetransSegs")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_snmp_are_found_by_name() {
        let text =
            "Ip: Forwarding\nIp: 2\nTcp: RtoMin OutSegs RetransSegs\nTcp: 200 1000 17\nUdp: A\nUdp: 1\n";
        assert_eq!(segments(text), Some((1000, 17)));
        assert_eq!(segments("nothing"), None);
    }

    #[test]
    fn a_reading_survives_the_socket() {
        let counters = Counters { requests: 1, body_bytes: 2, segments_again: 3, ..Counters::default() };
        assert_eq!(Counters::from_json(&counters.to_json()), Some(counters));
    }

    #[test]
    fn the_peak_begins_anew_with_every_reading() {
        let tally = Tally::new();
        let first = tally.stream();
        drop(tally.stream());
        assert_eq!(tally.reading().streams_peak, 2);
        assert_eq!(tally.reading().streams_peak, 1, "one is still being sent");
        drop(first);
        tally.reading();
        assert_eq!(tally.reading().streams_peak, 0);
    }
}
