//! The control socket on Unix: `sampan.sock`, mode 0600, in the state folder.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::SocketError;

/// One connected program, at either end.
pub(crate) type Peer = UnixStream;

/// Connections waiting to be accepted; the system refuses more.
const BACKLOG: u32 = 64;
/// The most bytes a socket's path may have, its closing NUL left out.
const PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The open socket of this Sampan. While it lives no other Sampan uses the state folder; dropping it removes the socket.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Held, never read: the lock ends with the process, however that ends.
    _lock: File,
}

impl ControlSocket {
    /// Makes the state folder (0700), claims it and opens the socket (0600), replacing one whose process has died.
    /// Needs a running Tokio.
    /// # Errors
    /// [`SocketError`]; [`SocketError::AlreadyRunning`] if another Sampan uses the folder.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, SocketError> {
        let failed = SocketError::io(state_dir);
        let path = socket_path(state_dir)?;
        make_private(state_dir)?;
        let lock = claim(state_dir)?;
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(failed(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "sampan.sock is there and is not a socket",
                )));
            }
            // The lock says nobody serves it. A look all the same: what answers must not be pushed aside.
            Ok(_) if std::os::unix::net::UnixStream::connect(&path).is_ok() => {
                return Err(SocketError::AlreadyRunning { state_dir: state_dir.to_owned() });
            }
            Ok(_) => std::fs::remove_file(&path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = listen(&path).map_err(failed)?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// The next program that connects.
    pub(super) async fn accept(&mut self) -> io::Result<Peer> {
        self.listener.accept().await.map(|(peer, _)| peer)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A socket left behind is harmless: the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Connects to the Sampan that uses `state_dir`.
pub(crate) async fn connect(state_dir: &Path) -> io::Result<Peer> {
    let path = socket_path(state_dir).map_err(io::Error::other)?;
    UnixStream::connect(path).await
}

fn socket_path(state_dir: &Path) -> Result<PathBuf, SocketError> {
    let path = state_dir.join("sampan.sock");
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(SocketError::PathTooLong { path, max: PATH_BYTES_MAX });
    }
    Ok(path)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // On Linux the socket's file takes the mode the socket has when it is bound, so it is never open to others, not
    // even for a moment. Elsewhere this fails or does nothing, and the folder's 0700 covers that moment.
    let _ = rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600));
    socket.bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

/// Takes the state folder for this process, until its end.
fn claim(state_dir: &Path) -> Result<File, SocketError> {
    let failed = SocketError::io(state_dir);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(state_dir.join("sampan.lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SocketError::AlreadyRunning { state_dir: state_dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Makes the folder for its owner alone. One that is there is made so only while it is empty: a person may have named a
/// folder that others live in too, and closing `/var/lib` to everyone would be worse than refusing it.
fn make_private(state_dir: &Path) -> Result<(), SocketError> {
    let failed = SocketError::io(state_dir);
    let refused = |why| SocketError::NotPrivate { state_dir: state_dir.to_owned(), why };
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(failed)?;
    let found = std::fs::metadata(state_dir).map_err(failed)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("belongs to another user"));
    }
    let open_to_others = found.mode() & 0o077;
    if open_to_others == 0 {
        return Ok(());
    }
    let empty = std::fs::read_dir(state_dir).map_err(failed)?.next().is_none();
    if empty {
        std::fs::set_permissions(state_dir, Permissions::from_mode(0o700)).map_err(failed)
    } else if open_to_others & 0o022 != 0 {
        Err(refused("can be written to by other users"))
    } else {
        Ok(())
    }
}
