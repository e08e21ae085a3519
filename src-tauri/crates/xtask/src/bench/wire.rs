//! A client that costs little, and the same for every server: one kept connection, one fixed buffer, nothing kept of what
//! comes but its count.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Range,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::bench::image::MANIFEST_TYPE;

/// Big enough for few calls, small enough for the processor's own cache.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;
/// Without a byte for so long, a measurement has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection to a server on loopback, kept from request to request.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    port: u16,
    buffer: Vec<u8>,
    /// What of the buffer came with the head and is the body's.
    ahead: Range<usize>,
    /// Bytes of the body not taken yet.
    left: u64,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, port, buffer: vec![0; BUFFER_BYTES], ahead: 0..0, left: 0 })
    }

    /// Asks and reads the head; the body's length in bytes. The answer before must have been taken whole.
    ///
    /// # Errors
    /// Anything but 200 with a length.
    pub(crate) fn ask(&mut self, path: &str) -> Result<u64> {
        if self.left > 0 {
            bail!("{} bytes of the last answer were not read", self.left);
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAccept: {MANIFEST_TYPE}, */*\r\n\r\n",
            self.port
        );
        self.stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(self.buffer.get_mut(filled..).unwrap_or_default())?;
            if read == 0 {
                bail!("{path}: the connection ended before the answer");
            }
            filled += read;
            let Some(head) = Head::parse(self.buffer.get(..filled).unwrap_or_default()) else { continue };
            if head.status != 200 {
                bail!("{path}: answered {}", head.status);
            }
            self.ahead = head.bytes..filled;
            self.left = head.length.with_context(|| format!("{path}: an answer without a length"))?;
            return Ok(self.left);
        }
    }

    /// Takes so many bytes of the body, or all that are left if those are fewer.
    ///
    /// # Errors
    /// The body ends too soon.
    pub(crate) fn take(&mut self, most: u64, mut sink: impl FnMut(&[u8])) -> Result<()> {
        let mut wanted = most.min(self.left);
        while wanted > 0 {
            let room = usize::try_from(wanted).unwrap_or(usize::MAX);
            let piece = if self.ahead.is_empty() {
                let room = room.min(self.buffer.len());
                0..self.stream.read(self.buffer.get_mut(..room).unwrap_or_default())?
            } else {
                let piece = self.ahead.start..self.ahead.end.min(self.ahead.start.saturating_add(room));
                self.ahead.start = piece.end;
                piece
            };
            let bytes = self.buffer.get(piece).unwrap_or_default();
            if bytes.is_empty() {
                bail!("an answer ended {} bytes too soon", self.left);
            }
            sink(bytes);
            wanted -= bytes.len() as u64;
            self.left -= bytes.len() as u64;
        }
        Ok(())
    }

    /// Asks and takes all of it; how many bytes.
    ///
    /// # Errors
    /// As [`ask`](Self::ask) and [`take`](Self::take).
    pub(crate) fn get(&mut self, path: &str, sink: impl FnMut(&[u8])) -> Result<u64> {
        let length = self.ask(path)?;
        self.take(length, sink)?;
        Ok(length)
    }
}

/// Gets one thing by a connection of its own.
///
/// # Errors
/// As [`Connection::get`].
pub(crate) fn get(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Connection::open(port)?.get(path, |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: Option<u64>,
    /// The head itself, its empty line included.
    bytes: usize,
}

impl Head {
    /// `None`: it is not whole yet.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(bytes.get(..end)?);
        let mut lines = text.lines();
        // What is no status at all is none that anybody wants.
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
        let length = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok());
        Some(Self { status, length, bytes: end + 4 })
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn a_head_is_parsed_when_it_is_whole() {
        let text = b"HTTP/1.1 206 Partial Content\r\nCONTENT-LENGTH: 7\r\nETag: x\r\n\r\nbody";
        let end = text.len() - 4;
        assert_eq!(Head::parse(text), Some(Head { status: 206, length: Some(7), bytes: end }));
        assert_eq!(Head::parse(&text[..end - 1]), None);
        assert_eq!(
            Head::parse(b"nonsense\r\n\r\n"),
            Some(Head { status: 0, length: None, bytes: 12 }),
            "no status that anybody wants"
        );
    }

    #[test]
    fn a_body_is_taken_in_parts_and_one_cut_short_is_an_error() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef").unwrap();
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc").unwrap();
        });
        let mut connection = Connection::open(port).unwrap();
        assert_eq!(connection.ask("/").unwrap(), 6);
        let mut got = Vec::new();
        connection.take(2, |piece| got.extend_from_slice(piece)).unwrap();
        assert_eq!(got, b"ab");
        assert!(connection.ask("/").is_err(), "the answer before is not read to its end");
        connection.take(100, |piece| got.extend_from_slice(piece)).unwrap();
        assert_eq!(got, b"abcdef");
        assert!(connection.get("/", |_| ()).is_err(), "three bytes are missing");
        server.join().unwrap();
    }
}
