//! The listener: bounded in connections, in heads and in patience.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::handler::{self, Served};
use crate::mirror::Inner;

/// The most connections at once (SECURITY.md 3).
const CONNECTIONS_MAX: usize = 512;
/// How long a request's head may take to arrive, on a fresh connection and on one kept alive.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// The most header lines, and the most bytes of a head.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take nothing of its answer before it is sent away (SECURITY.md R50).
const STALL_AT_MOST: Duration = Duration::from_mins(1);
/// How long running answers may go on after a stop was asked for.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// The pause after an accept failed (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop` is cancelled. Each connection is a task of the mirror's [`Tasks`](crate::Tasks).
pub(crate) async fn serve(mirror: Arc<Inner>, listener: TcpListener, stop: CancellationToken) {
    let listen = match listener.local_addr() {
        Ok(listen) => listen,
        Err(error) => {
            tracing::error!(%error, "the listener has no address");
            return;
        }
    };
    let router = handler::router(Served { mirror: mirror.clone(), listen });
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        mirror.tasks.spawn("connection", |_| async move {
            connection(router, stream, stop).await;
            drop(slot);
        });
    }
    // Closed before the drain: who comes now is refused and falls back at once, instead of waiting to be cut off.
    drop(listener);
    // A full set of slots means that every connection has ended.
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(DRAIN_WITHIN, slots.acquire_many(all)).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn connection(router: axum::Router, stream: TcpStream, stop: CancellationToken) {
    // Small answers must not wait for more bytes to share a packet with.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(handler::body))
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL_AT_MOST));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_WITHIN, connection).await {
                Ok(ended) => ended,
                // Dropping the connection closes it with FIN before Content-Length: the client asks again, elsewhere.
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
