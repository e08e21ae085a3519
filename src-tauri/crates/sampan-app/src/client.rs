//! The control socket, client side: how another process asks a running Sampan.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::api::{Command, Reply, Snapshot};
use crate::socket::{self, Peer};

/// The longest reply in bytes: far above a full cache's list of images.
const REPLY_BYTES_MAX: u64 = 64 << 20;

/// A connection to a running Sampan. Commands are answered one after the other.
pub struct Client {
    peer: BufReader<Peer>,
    line: Vec<u8>,
}

/// Why a running Sampan cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No Sampan uses the state folder.
    #[error(
        "Sampan is not running (state folder {}). Start it by `sampan serve` or open the app; if it runs with another \
         folder, name that by --state-dir.", state_dir.display()
    )]
    NotRunning {
        /// The folder that was asked for.
        state_dir: PathBuf,
    },
    /// Sampan runs as another user.
    #[error("the Sampan with the state folder {} belongs to another user. Ask it as that user.", state_dir.display())]
    NotPermitted {
        /// The folder that was asked for.
        state_dir: PathBuf,
    },
    /// The connection ended before the answer.
    #[error("Sampan ended while it was asked. See whether it still runs, by `sampan status`.")]
    Lost,
    /// The system refused.
    #[error("cannot ask Sampan: {0}")]
    Io(#[source] io::Error),
    /// The answer is not one this version understands.
    #[error(
        "the running Sampan answers in a way this one does not understand: {0}. End it and start this version."
    )]
    Protocol(String),
}

impl Client {
    /// Connects to the Sampan that uses `state_dir`.
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::NotPermitted`], [`ClientError::Io`].
    pub async fn connect(state_dir: &Path) -> Result<Self, ClientError> {
        let peer = socket::connect(state_dir).await.map_err(|error| {
            let state_dir = state_dir.to_owned();
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
                ClientError::NotRunning { state_dir }
            } else if error.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NotPermitted { state_dir }
            } else {
                ClientError::Io(error)
            }
        })?;
        Ok(Self { peer: BufReader::new(peer), line: Vec::new() })
    }

    /// Asks, and waits for the answer as long as it takes. [`Reply::Error`] is an answer.
    /// # Errors
    /// [`ClientError`] if no answer came; the client is of no further use.
    /// # Cancel safety
    /// None: after dropping the future the next answer would be to the wrong question. Drop the client too.
    pub async fn call(&mut self, command: Command) -> Result<Reply, ClientError> {
        self.send(&command).await?;
        self.receive().await?.ok_or(ClientError::Lost)
    }

    /// Follows the state: the first snapshot comes at once, then the newest after each change.
    /// # Errors
    /// [`ClientError`] if Sampan cannot be asked.
    pub async fn watch(mut self) -> Result<SnapshotStream, ClientError> {
        self.send(&Command::Watch).await?;
        Ok(SnapshotStream { client: self })
    }

    async fn send(&mut self, command: &Command) -> Result<(), ClientError> {
        let mut line =
            serde_json::to_vec(command).map_err(|error| ClientError::Protocol(error.to_string()))?;
        line.push(b'\n');
        let sent = async {
            self.peer.write_all(&line).await?;
            self.peer.flush().await
        };
        sent.await.map_err(lost_or)
    }

    /// The next reply; `None` if the other side ended between replies.
    async fn receive(&mut self) -> Result<Option<Reply>, ClientError> {
        // What was read before a future was dropped is still in `line`: reading goes on where it stopped.
        let left = REPLY_BYTES_MAX.saturating_sub(self.line.len() as u64);
        (&mut self.peer).take(left).read_until(b'\n', &mut self.line).await.map_err(lost_or)?;
        if !self.line.ends_with(b"\n") {
            return if self.line.is_empty() {
                Ok(None)
            } else if self.line.len() as u64 >= REPLY_BYTES_MAX {
                Err(ClientError::Protocol("the answer is too long".into()))
            } else {
                Err(ClientError::Lost)
            };
        }
        let reply =
            serde_json::from_slice(&self.line).map_err(|error| ClientError::Protocol(error.to_string()));
        self.line.clear();
        reply.map(Some)
    }
}

/// The state of a running Sampan, as it changes.
pub struct SnapshotStream {
    client: Client,
}

impl SnapshotStream {
    /// The next snapshot; `None` once Sampan has ended or cannot be understood.
    /// # Cancel safety
    /// Dropping the future loses nothing: call again.
    pub async fn next(&mut self) -> Option<Snapshot> {
        match self.client.receive().await {
            Ok(Some(Reply::Snapshot(snapshot))) => Some(*snapshot),
            Ok(None) => None,
            Ok(Some(other)) => {
                tracing::warn!(?other, "not a snapshot");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "the snapshots ended");
                None
            }
        }
    }
}

fn lost_or(error: io::Error) -> ClientError {
    let lost = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
    if lost.contains(&error.kind()) { ClientError::Lost } else { ClientError::Io(error) }
}
