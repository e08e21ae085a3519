//! The control socket on Windows: a named pipe whose name is made of the state folder's path.
//!
//! A pipe's default access list lets its owner and administrators write; others may at most open it for reading, and a
//! client that cannot write can ask nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sampan_oci::Digest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeServer, ServerOptions};

use super::SocketError;

/// One connected program, at either end.
pub(crate) type Peer = Box<dyn Stream>;

/// What a pipe's two ends have in common.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// `ERROR_PIPE_BUSY`: every instance of the pipe has a client; the server makes another at once.
const PIPE_BUSY: i32 = 231;
/// How often a busy pipe is tried, 20 ms apart.
const BUSY_TRIES: u32 = 100;

/// The open pipe of this Sampan; while it lives no other Sampan uses the state folder.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    name: PathBuf,
    next: NamedPipeServer,
}

impl ControlSocket {
    /// Makes the state folder, claims it and opens the pipe. Needs a running Tokio.
    /// # Errors
    /// [`SocketError`]; [`SocketError::AlreadyRunning`] if another Sampan uses the folder.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, SocketError> {
        let failed = SocketError::io(state_dir);
        // A profile's folders are closed to other users already.
        std::fs::create_dir_all(state_dir).map_err(failed)?;
        let name = pipe_name(state_dir);
        let next = ServerOptions::new().first_pipe_instance(true).reject_remote_clients(true).create(&name);
        let next = next.map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                SocketError::AlreadyRunning { state_dir: state_dir.to_owned() }
            } else {
                failed(error)
            }
        })?;
        Ok(Self { name, next })
    }

    /// The next program that connects.
    pub(super) async fn accept(&mut self) -> io::Result<Peer> {
        self.next.connect().await?;
        // The next instance must be there before this one is handed out, or a client would find no pipe at all.
        let next = ServerOptions::new().reject_remote_clients(true).create(&self.name)?;
        Ok(Box::new(std::mem::replace(&mut self.next, next)))
    }
}

/// Connects to the Sampan that uses `state_dir`.
pub(crate) async fn connect(state_dir: &Path) -> io::Result<Peer> {
    let name = pipe_name(state_dir);
    let mut tries = 0;
    loop {
        match ClientOptions::new().open(&name) {
            Ok(peer) => return Ok(Box::new(peer)),
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) && tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn pipe_name(state_dir: &Path) -> PathBuf {
    // Windows does not tell letters of different case apart in paths, so neither may the pipe's name.
    let folder = state_dir.to_string_lossy().to_lowercase();
    let hash = Digest::of(folder.as_bytes()).hex();
    PathBuf::from(format!(r"\\.\pipe\sampan-{}", &hash[..32]))
}
