//! The Engine API, as far as it is asked: who are you, which mirrors do you list.

use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};

use crate::context::{Reach, reach};

/// An engine that takes longer to say who it is counts as not answering.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Connects and agrees on an API version (20.10 speaks up to 1.41, 29 no longer speaks below 1.40).
pub(crate) async fn connect(endpoint: &str, timeout: Duration) -> Result<Docker, String> {
    let docker = match reach(endpoint) {
        Reach::Unix(path) => unix(&path.to_string_lossy(), timeout)?,
        Reach::Pipe(pipe) => pipe_to(&pipe, timeout)?,
        Reach::Remote => return Err(format!("{endpoint} is not on this machine")),
    };
    let agreed = tokio::time::timeout(ANSWER, docker.negotiate_version()).await;
    agreed.map_err(|_| format!("{endpoint} does not answer"))?.map_err(|error| format!("{endpoint}: {error}"))
}

#[cfg(unix)]
fn unix(path: &str, timeout: Duration) -> Result<Docker, String> {
    Docker::connect_with_unix(path, timeout.as_secs(), API_DEFAULT_VERSION).map_err(|e| e.to_string())
}

#[cfg(not(unix))]
fn unix(path: &str, _timeout: Duration) -> Result<Docker, String> {
    Err(format!("{path}: Unix sockets are not used for Docker on this system"))
}

#[cfg(windows)]
fn pipe_to(pipe: &str, timeout: Duration) -> Result<Docker, String> {
    Docker::connect_with_named_pipe(pipe, timeout.as_secs(), API_DEFAULT_VERSION).map_err(|e| e.to_string())
}

#[cfg(not(windows))]
fn pipe_to(pipe: &str, _timeout: Duration) -> Result<Docker, String> {
    Err(format!("{pipe}: named pipes exist on Windows only"))
}

/// The mirrors the engine lists now.
pub(crate) async fn mirrors(endpoint: &str) -> Result<Vec<String>, String> {
    let docker = connect(endpoint, ANSWER).await?;
    let info = tokio::time::timeout(ANSWER, docker.info())
        .await
        .map_err(|_| format!("{endpoint} does not answer"))?;
    let info = info.map_err(|error| format!("{endpoint}: {error}"))?;
    Ok(info.registry_config.and_then(|config| config.mirrors).unwrap_or_default())
}
