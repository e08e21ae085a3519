//! The control socket, server side: how the window, the command line and tests reach a running Sampan.
//!
//! On Unix it is `sampan.sock` in the state folder, on Windows a named pipe named after that folder. Only the person who
//! runs Sampan may connect. The protocol is JSON lines: one [`Command`] a line in, one [`Reply`] a line out;
//! [`Command::Watch`] answers with a snapshot after each change until the client leaves. Never reachable by a network.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, Code, Command, Reply, Snapshot};

#[cfg(unix)]
pub(crate) use unix::{ControlSocket, Peer, connect};
#[cfg(windows)]
pub(crate) use windows::{ControlSocket, Peer, connect};

/// The most programs connected at once; one more is told so and sent away.
const CONNECTIONS_MAX: usize = 64;
/// The longest command line in bytes, its newline included; after a longer one the connection is closed, since what
/// follows could be anything.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// How long commands under way may take once Sampan ends.
const DRAIN: Duration = Duration::from_secs(5);

/// What answers the commands.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Carries out one command. [`Command::Watch`] never arrives here.
    fn call(&self, command: Command) -> BoxFuture<'_, Reply>;
    /// The state now and each later one. A slow reader of the channel finds the newest and never a queue.
    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>>;
}

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another Sampan uses the state folder.
    #[error(
        "another Sampan already runs with the state folder {}. Use that one, end it first, or give this one a folder \
         of its own by --state-dir.", state_dir.display()
    )]
    AlreadyRunning {
        /// The folder.
        state_dir: PathBuf,
    },
    /// The socket's path is longer than the system allows.
    #[error(
        "the path of the control socket, {}, has {} bytes and this system allows {max}. Give a shorter --state-dir.",
        path.display(), path.as_os_str().len()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// The most bytes a path may have.
        max: usize,
    },
    /// The state folder is not one for Sampan alone.
    #[error("the state folder {} {why}. Give a folder of its own by --state-dir.", state_dir.display())]
    NotPrivate {
        /// The folder.
        state_dir: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk or the system refused.
    #[error("cannot open the control socket in {}: {source}", state_dir.display())]
    Io {
        /// The folder.
        state_dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SocketError {
    fn io(state_dir: &Path) -> impl Fn(std::io::Error) -> Self + Copy + '_ {
        move |source| Self::Io { state_dir: state_dir.to_owned(), source }
    }
}

impl ControlSocket {
    /// Answers commands until `shutdown`; then lets those under way end, for a few seconds, and removes the socket.
    pub(crate) async fn serve(mut self, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.accept() => match accepted {
                    Ok(peer) => {
                        let full = connections.len() >= CONNECTIONS_MAX;
                        connections.spawn(connection(peer, full, Arc::clone(&handler), shutdown.clone()));
                    }
                    Err(error) => {
                        // Out of file descriptors, mostly: a pause lets some come free, where a loop would burn a core.
                        tracing::warn!(%error, "the control socket cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        let drained = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(left = connections.len(), "commands were cut off at the end");
        }
    }
}

/// One connection, from its first line to its end. Errors end it: there is nobody left to tell.
async fn connection(peer: Peer, full: bool, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
    let (reading, mut writing) = tokio::io::split(peer);
    if full {
        let message = format!("{CONNECTIONS_MAX} programs are connected to Sampan already");
        let reply = refused(message, "End one of them, then try again.");
        // A connection too many must not stay by not reading its refusal.
        let _ = tokio::time::timeout(Duration::from_secs(1), send(&mut writing, &reply)).await;
        return;
    }
    let ended = converse(BufReader::new(reading), writing, &*handler, &shutdown).await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a control connection ended");
    }
}

async fn converse(
    mut reading: BufReader<impl AsyncRead + Unpin>,
    mut writing: impl AsyncWrite + Unpin,
    handler: &dyn Handler,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reading).take(COMMAND_BYTES_MAX as u64);
        let read = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            read = limited.read_until(b'\n', &mut line) => read?,
        };
        if read == 0 {
            return Ok(());
        }
        if read == COMMAND_BYTES_MAX && !line.ends_with(b"\n") {
            let message = format!("a command is at most {COMMAND_BYTES_MAX} bytes long");
            return send(&mut writing, &refused(message, "Send one command a line.")).await;
        }
        match serde_json::from_slice(&line) {
            Ok(Command::Watch) => return stream(reading, writing, handler.snapshots(), shutdown).await,
            // Never cut off by the client's leaving: a command that changes things ends what it began.
            Ok(command) => send(&mut writing, &handler.call(command).await).await?,
            Err(error) => {
                let message = format!("this is not a command: {error}");
                let advice = "Send one JSON object a line, such as {\"call\":\"snapshot\"}.";
                send(&mut writing, &refused(message, advice)).await?;
            }
        }
    }
}

/// Sends the newest snapshot after each change. What changes while the client is slow to read is skipped, not kept.
async fn stream(
    mut reading: impl AsyncRead + Unpin,
    mut writing: impl AsyncWrite + Unpin,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let mut ignored = [0; 64];
    loop {
        let newest = Arc::clone(&snapshots.borrow_and_update());
        let reply = Reply::Snapshot(Box::new(Snapshot::clone(&newest)));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            sent = send(&mut writing, &reply) => sent?,
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                changed = snapshots.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                read = reading.read(&mut ignored) => if read? == 0 {
                    return Ok(());
                },
            }
        }
    }
}

async fn send(writing: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    writing.write_all(&line).await?;
    writing.flush().await
}

fn refused(message: String, next_step: &str) -> Reply {
    Reply::Error(ApiError { code: Code::InvalidRequest, message, next_step: Some(next_step.into()) })
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
