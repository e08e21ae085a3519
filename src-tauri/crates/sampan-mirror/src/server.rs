//! The listener: bounded in connections, in heads and in patience.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::disk;
use crate::handler::{self, Served};
use crate::mirror::Inner;
use crate::sendfile::Offload;
use crate::stall::Impatient;

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
    let served = Served { mirror: mirror.clone(), listen };
    let offload = offload(&mirror);
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
        let (served, offload, stop) = (served.clone(), offload.clone(), stop.clone());
        mirror.tasks.spawn("connection", |_| async move {
            connection(served, offload, stream, stop).await;
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

/// Whoever finds a file too short on its way out has the blob taken out of the cache.
fn offload(mirror: &Arc<Inner>) -> Offload {
    let (store, tasks) = (mirror.store.clone(), mirror.tasks.clone());
    Offload::new(move |file| {
        let (store, file) = (store.clone(), file.clone());
        tracing::warn!(digest = %file.digest(), "a blob's file cannot be sent to its end; an answer is broken off");
        tasks.spawn("damaged", |_| async move { disk::give_up(&store, &file).await });
    })
}

async fn connection(served: Served, offload: Offload, stream: TcpStream, stop: CancellationToken) {
    // Small answers must not wait for more bytes to share a packet with.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let (stream, conduit) = {
        let (socket, conduit) = crate::sendfile::Socket::new(stream, offload);
        (socket, Some(conduit))
    };
    #[cfg(not(target_os = "linux"))]
    let conduit = {
        drop(offload);
        None::<crate::sendfile::Conduit>
    };
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (served, conduit) = (served.clone(), conduit.clone());
        async move { Ok::<_, Infallible>(handler::handle(&served, conduit.as_ref(), request).await) }
    });
    let stream = Impatient::new(stream, STALL_AT_MOST);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // Frames are handed on as they are: a copy of a stand-in stands for nothing.
        .writev(true)
        .serve_connection(TokioIo::new(stream), service);
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
