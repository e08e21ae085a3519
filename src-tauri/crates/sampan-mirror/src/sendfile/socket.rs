//! The socket that sends files where stand-ins are due.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::{Conduit, HEAD_BYTES_MAX, Offload};
use crate::disk::unreadable;

/// After so many bytes without a pause the other connections have their turn, however fast this client takes them.
const TURN_BYTES: usize = 8 * 1024 * 1024;

/// A client's connection.
pub(crate) struct Socket {
    stream: TcpStream,
    conduit: Conduit,
    /// Other bytes written since the region that is due now was announced.
    before: usize,
    /// File bytes sent since the last pause.
    turn: usize,
    /// Whether it is in the middle of a file.
    sending: bool,
    /// Whether only full packets leave: a part of one waits for what follows, 200 ms at most (tcp(7), TCP_CORK).
    corked: bool,
    /// Whether more of the file follows what was sent.
    more: bool,
}

impl Socket {
    /// The connection, and the way by which its answers hand it files.
    pub(crate) fn new(stream: TcpStream, offload: Offload) -> (Self, Conduit) {
        let conduit = Conduit::new(offload);
        (
            Self {
                stream,
                conduit: conduit.clone(),
                before: 0,
                turn: 0,
                sending: false,
                corked: false,
                more: false,
            },
            conduit,
        )
    }

    /// Sends of the region that is due, which a stand-in of `len` bytes stands for.
    fn poll_send(&mut self, context: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let due = match self.conduit.regions().front() {
            Some(region) if region.left == len => {
                Some((region.file.clone(), region.offset, region.course.clone()))
            }
            Some(_) | None => None,
        };
        let Some((file, mut offset, course)) = due else { return Poll::Ready(Err(self.out_of_step())) };
        let Some(open) = file.as_file() else { return Poll::Ready(Err(self.out_of_step())) };
        self.begin();
        loop {
            if let Err(error) = ready!(self.stream.poll_write_ready(context)) {
                return Poll::Ready(Err(error));
            }
            let send = || Ok(rustix::fs::sendfile(&self.stream, open, Some(&mut offset), len)?);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Ok(0) => {
                    // What a client was promised is not there: it must not get to the end of its answer.
                    course.broke_off();
                    (self.conduit.offload.damaged)(&file);
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(count) => {
                    self.sent(count);
                    course.sent(count as u64);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.turn = 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !is_the_clients(&error) {
                        course.broke_off();
                    }
                    if unreadable(&error) {
                        (self.conduit.offload.damaged)(&file);
                    }
                    return Poll::Ready(Err(self.failed(error)));
                }
            }
        }
    }

    fn sent(&mut self, sent: usize) {
        self.turn += sent;
        let mut regions = self.conduit.regions();
        if let Some(region) = regions.front_mut() {
            region.offset += sent as u64;
            region.left -= sent;
            region.begun = true;
            self.more = region.more;
            if region.left == 0 {
                // The course outlives it, in the hands of whoever sent: nothing is told while this lock is held.
                regions.pop_front();
                self.before = 0;
            }
        }
    }

    /// A client that is alone is woken by each part of a packet that a piece of a file leaves at its end, which costs a
    /// third of the speed. With several the processors have enough to do, and holding parts back costs more than it saves.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.sending, true) {
            let others = self.conduit.offload.sending.fetch_add(1, Ordering::Relaxed);
            self.cork(others == 0);
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.sending) {
            self.conduit.offload.sending.fetch_sub(1, Ordering::Relaxed);
            self.cork(false);
        }
    }

    fn cork(&mut self, corked: bool) {
        // Packets of another size are no error.
        if self.corked != corked && rustix::net::sockopt::set_tcp_cork(&self.stream, corked).is_ok() {
            self.corked = corked;
        }
    }

    fn failed(&self, error: io::Error) -> io::Error {
        let code = error.raw_os_error().map(Errno::from_raw_os_error);
        if matches!(code, Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) {
            tracing::warn!(%error, "files cannot be sent from where the cache is; they are read from now on");
            self.conduit.offload.unfit.store(true, Ordering::Relaxed);
        }
        error
    }

    /// Ends the connection: what hyper hands on is not what was announced. That is no client's doing either.
    fn out_of_step(&self) -> io::Error {
        if let Some(due) = self.conduit.regions().front() {
            due.course.broke_off();
        }
        io::Error::other("what was to be written is not what was announced")
    }

    /// Whether `len` other bytes may be written now: not in the middle of a region, and before one only as many as a head
    /// has.
    fn in_step(&self, len: usize) -> bool {
        let regions = self.conduit.regions();
        regions.front().is_none_or(|due| !due.begun && self.before + len <= HEAD_BYTES_MAX)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a failed send is the client's doing, who hung up or is out of reach. All else is the file's: `sendfile` has one
/// error for both ends.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::PIPE
                | Errno::CONNRESET
                | Errno::CONNABORTED
                | Errno::TIMEDOUT
                | Errno::NOTCONN
                | Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::NETRESET
                | Errno::SHUTDOWN
        )
    )
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let empty = slices.iter().take_while(|slice| slice.is_empty()).count();
        let slices = &slices[empty..];
        let offload = &self.conduit.offload;
        let others =
            slices.iter().take_while(|slice| slice.is_empty() || !offload.is_stand_in(slice)).count();
        if others == 0 {
            let Some(stand_in) = slices.first() else { return Poll::Ready(Ok(0)) };
            return self.poll_send(context, stand_in.len());
        }
        let slices = &slices[..others];
        if !self.in_step(slices.iter().map(|slice| slice.len()).sum()) {
            return Poll::Ready(Err(self.out_of_step()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        if self.conduit.regions().is_empty() {
            // The rest of the file is read and written as other bytes, or this is another answer.
            self.more = false;
        } else {
            self.before += written;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has handed on all it had: what is announced still is what it lost.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.conduit.regions().is_empty() {
            return Poll::Ready(Err(self.out_of_step()));
        }
        if !self.more {
            self.end();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, Mutex};

    use sampan_oci::{Digest, Event, TransferId};
    use sampan_store::{BlobFile, Store, StoreOptions};
    use sampan_testkit::{TestClock, random_bytes};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::EventSink;
    use crate::body::Course;

    const LEN: usize = 200_000;

    /// Both ends of a connection, and a blob to send.
    struct Scene {
        socket: Socket,
        conduit: Conduit,
        client: TcpStream,
        file: BlobFile,
        bytes: Vec<u8>,
        path: std::path::PathBuf,
        damaged: Arc<AtomicUsize>,
        dir: tempfile::TempDir,
    }

    async fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("cache"), Arc::new(TestClock::new())));
        let (store, bytes) = (store.unwrap(), random_bytes(1, LEN));
        let digest = Digest::of(&bytes);
        store.put(&digest, bytes.clone()).await.unwrap();
        let file = store.open_blob(&digest).await.unwrap().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let damaged = Arc::new(AtomicUsize::new(0));
        let told = damaged.clone();
        let offload = Offload::new(move |_| _ = told.fetch_add(1, Ordering::SeqCst));
        let (socket, conduit) = Socket::new(listener.accept().await.unwrap().0, offload);
        let path = dir.path().join("cache/blobs/sha256").join(digest.hex());
        Scene { socket, conduit, client, file, bytes: bytes.to_vec(), path, damaged, dir }
    }

    /// An answer that nobody has an account of.
    fn announce(conduit: &Conduit, file: &BlobFile, offset: u64, len: usize) -> bytes::Bytes {
        conduit.announce(file, offset, len, false, &course(&Arc::default()))
    }

    /// An answer that writes down what it tells.
    fn course(told: &Arc<Mutex<Vec<Event>>>) -> Arc<Course> {
        let told = told.clone();
        let sink = EventSink::new(move |event| told.lock().unwrap().push(event.clone()));
        Arc::new(Course::new(TransferId(1), Arc::new(TestClock::new()), sink))
    }

    /// Writes as hyper does: until all is gone, or an error.
    async fn write_all(socket: &mut Socket, mut slices: Vec<bytes::Bytes>) -> io::Result<()> {
        while !slices.is_empty() {
            let borrowed: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let mut written = socket.write_vectored(&borrowed).await?;
            while written > 0 {
                let part = written.min(slices[0].len());
                written -= part;
                drop(slices[0].split_to(part));
                if slices[0].is_empty() {
                    slices.remove(0);
                }
            }
        }
        socket.flush().await
    }

    #[tokio::test]
    async fn a_stand_in_becomes_the_bytes_of_the_file_between_other_bytes() {
        let Scene { mut socket, conduit, mut client, file, bytes, .. } = scene().await;
        let reading = async {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            read
        };
        let writing = async {
            let stand_in = announce(&conduit, &file, 1000, 150_000);
            write_all(&mut socket, vec!["head".into(), stand_in]).await.unwrap();
            write_all(&mut socket, vec!["next".into()]).await.unwrap();
            socket.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(reading, writing);
        assert!(read == [b"head", &bytes[1000..151_000], b"next"].concat());
    }

    #[tokio::test]
    async fn what_does_not_fit_what_was_announced_ends_the_connection() {
        type Wrong = fn(&Conduit, &BlobFile) -> Vec<bytes::Bytes>;
        let cases: [(&str, Wrong); 7] = [
            ("a stand-in nobody announced", |conduit, _| vec![conduit.offload.blank.slice(..70_000)]),
            ("one that was cut", |conduit, file| vec![announce(conduit, file, 0, 70_000).slice(..69_999)]),
            ("one that lost its beginning", |conduit, file| {
                vec![announce(conduit, file, 0, 70_000).slice(1..)]
            }),
            ("one that was copied", |conduit, file| {
                vec![bytes::Bytes::copy_from_slice(&announce(conduit, file, 0, REGION))]
            }),
            ("one that was copied behind a head", |conduit, file| {
                let stand_in = announce(conduit, file, 0, REGION);
                vec![[b"HTTP/1.1 200 OK\r\n\r\n", &stand_in[..]].concat().into()]
            }),
            ("one that was forgotten", |conduit, file| {
                drop(announce(conduit, file, 0, 70_000));
                vec!["head".into()]
            }),
            ("two in the wrong order", |conduit, file| {
                let first = announce(conduit, file, 0, 70_000);
                vec![announce(conduit, file, 70_000, 80_000), first]
            }),
        ];
        for (what, wrong) in cases {
            let Scene { mut socket, conduit, mut client, file, .. } = scene().await;
            let slices = wrong(&conduit, &file);
            write_all(&mut socket, slices).await.expect_err(what);
            drop(socket);
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            assert!(read.is_empty() || read == b"head", "{what}: no zero was sent");
        }
    }
    const REGION: usize = super::super::REGION_BYTES_MIN;

    #[tokio::test]
    async fn other_bytes_in_the_middle_of_a_file_end_the_connection() {
        let Scene { mut socket, conduit, client, file, .. } = scene().await;
        let stand_in = announce(&conduit, &file, 0, 150_000);
        // As if the socket had taken a part only.
        socket.sent(1000);
        write_all(&mut socket, vec!["x".into(), stand_in.slice(1000..)]).await.unwrap_err();
        drop(client);
    }

    #[tokio::test]
    async fn full_packets_are_for_who_is_alone_and_end_with_the_file() {
        let Scene { mut socket, conduit, client, file, dir: _dir, .. } = scene().await;
        let Scene { socket: mut other, conduit: others, client: next, file: its, dir: _its_dir, .. } =
            scene().await;
        other.conduit.offload.sending = conduit.offload.sending.clone();
        let sending = conduit.offload.sending.clone();
        let corked = |socket: &Socket| rustix::net::sockopt::tcp_cork(&socket.stream).unwrap();
        let (first, last) = (REGION as u64, LEN - REGION);
        let stand_in = conduit.announce(&file, 0, REGION, true, &course(&Arc::default()));
        write_all(&mut socket, vec!["head".into(), stand_in]).await.unwrap();
        assert!(corked(&socket), "more of it follows");
        write_all(&mut other, vec![others.announce(&its, 0, REGION, true, &course(&Arc::default()))])
            .await
            .unwrap();
        assert!(!corked(&other), "two have enough to do");
        assert_eq!(sending.load(Ordering::Relaxed), 2);
        drop((other, next));
        assert_eq!(sending.load(Ordering::Relaxed), 1, "who left in the middle is not counted");
        write_all(&mut socket, vec!["read".into()]).await.unwrap();
        assert_eq!(
            (corked(&socket), sending.load(Ordering::Relaxed)),
            (false, 0),
            "the rest may have to be read"
        );
        write_all(&mut socket, vec![conduit.announce(&file, first, last, false, &course(&Arc::default()))])
            .await
            .unwrap();
        assert!(!corked(&socket), "nothing of it is held back");
        assert_eq!(sending.load(Ordering::Relaxed), 0);
        drop(client);
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_ends_the_connection_and_is_told() {
        let Scene { mut socket, conduit, mut client, file, path, damaged, dir: _dir, .. } = scene().await;
        let course = course(&Arc::default());
        let stand_in = conduit.announce(&file, 0, LEN, false, &course);
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100_000).unwrap();
        let reading = async {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            read.len()
        };
        let writing = async {
            let error = write_all(&mut socket, vec![stand_in]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            drop(socket);
        };
        assert_eq!(tokio::join!(reading, writing).0, 100_000, "and not a byte that is not the file's");
        assert_eq!(damaged.load(Ordering::SeqCst), 1);
        assert!(course.is_broken(), "and it was not the client who left");
    }

    #[tokio::test]
    async fn a_client_who_hangs_up_breaks_nothing_of_ours() {
        let Scene { mut socket, conduit, client, file, damaged, dir: _dir, .. } = scene().await;
        let course = course(&Arc::default());
        drop(client);
        for _ in 0..3 {
            let stand_in = conduit.announce(&file, 0, LEN, false, &course);
            if write_all(&mut socket, vec![stand_in]).await.is_err() {
                break;
            }
        }
        assert!(!conduit.regions().is_empty(), "it could not be sent");
        assert!(!course.is_broken());
        assert_eq!(damaged.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn an_error_of_a_send_is_the_clients_or_the_files() {
        for (errno, clients) in [
            (Errno::PIPE, true),
            (Errno::CONNRESET, true),
            (Errno::TIMEDOUT, true),
            (Errno::HOSTUNREACH, true),
            (Errno::IO, false),
            (Errno::STALE, false),
            (Errno::INVAL, false),
            (Errno::NOMEM, false),
        ] {
            assert_eq!(is_the_clients(&errno.into()), clients, "{errno:?}");
        }
        assert!(!is_the_clients(&io::ErrorKind::UnexpectedEof.into()));
    }
}
