//! A connection whose other end must take something now and then (SECURITY.md R50).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Ends a write that has waited for `limit` without a byte being taken. While bytes are taken it costs a look at the
/// clock: the timer is not set again each time, but once it went off.
pub(crate) struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// Since when nothing was taken.
    stuck: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, stuck: None, timer: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let ends = *self.stuck.get_or_insert_with(Instant::now) + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(ends)));
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= ends {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // It was set for a wait that ended well.
            timer.as_mut().reset(ends);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_the_limit_is_given_up() {
        let (server, _client) = tokio::io::duplex(10);
        let began = Instant::now();
        let error = Impatient::new(server, LIMIT).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_little_but_takes_it_in_time_gets_all_of_it_and_may_rest_between_answers() {
        let (server, mut client) = tokio::io::duplex(10);
        let mut server = Impatient::new(server, LIMIT);
        let taking = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(59)).await;
                client.read_exact(&mut [0; 10]).await.unwrap();
            }
            client
        };
        let (written, mut client) = tokio::join!(server.write_all(&[0; 200]), taking);
        written.unwrap();
        tokio::time::sleep(LIMIT * 10).await;
        let began = Instant::now();
        let (error, ()) = tokio::join!(server.write_all(&[0; 100]), async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            client.read_exact(&mut [0; 10]).await.unwrap();
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 90, "counted from the last byte taken");
    }
}
