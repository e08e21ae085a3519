//! Starting: everything that can be refused is refused before anything runs.

use std::net::SocketAddr;
use std::path::Path;

use sampan_store::OpenError;
use tokio::net::TcpListener;

use crate::{ConfigError, SocketError, port};

/// Why Sampan did not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is in use.
    #[error(
        "the address {listen} is taken by {}. End it, or choose another address with --listen 127.0.0.1:PORT (Docker \
         must then be set up again).",
        holder.as_deref().unwrap_or("another program")
    )]
    PortTaken {
        /// The address.
        listen: SocketAddr,
        /// Who has it, where the system says: `docker-registry (pid 812)`.
        holder: Option<String>,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {listen}: {source}. Choose another address with --listen ADDR:PORT.")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The cache folder cannot be used.
    #[error("cannot use the cache folder {}: {source}. Give a folder of its own by --cache-dir.", folder.display())]
    Cache {
        /// The folder.
        folder: std::path::PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The statistics cannot be kept.
    #[error(
        "cannot keep statistics: {0}. Check the rights of the state folder, or give another by --state-dir."
    )]
    Stats(#[from] sampan_stats::StatsError),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The HTTP client cannot be made: no certificate store, for example.
    #[error("cannot speak to registries: {0}. Install the system's certificates (Debian: ca-certificates).")]
    Upstream(#[from] sampan_upstream::UpstreamError),
    /// A folder cannot be made.
    #[error("cannot make the folder {}: {source}. Check its rights, or give another.", folder.display())]
    Folder {
        /// The folder.
        folder: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Takes the mirror's port, exclusively; says who has it otherwise.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(StartError::PortTaken { listen: address, holder: port::holder(address) })
        }
        Err(source) => Err(StartError::Listen { listen: address, source }),
    }
}

/// Makes a folder for the person alone, parents included.
pub(crate) fn make_private(folder: &Path) -> Result<(), StartError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| StartError::Folder { folder: folder.to_owned(), source })
}
