//! Has the engine pull an image, so that its request can be seen arriving at the mirror.

use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptions};
use futures_util::TryStreamExt as _;

use crate::client;
use crate::engine::Engine;

/// A tiny image from a mirror on this machine arrives in a second; a missing one may first be looked for upstream.
const PULL: Duration = Duration::from_mins(1);

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The engine could not be asked.
    #[error("the engine could not be asked: {0}")]
    Engine(String),
    /// The engine could not pull the image; its own words.
    #[error("the engine could not pull the image: {0}")]
    Pull(String),
    /// The pull did not end in a minute.
    #[error("the pull did not end within a minute")]
    Timeout,
}

/// Has `engine` pull `image` (with a tag or a digest) and removes it afterwards if it was not there before.
///
/// # Errors
/// [`ProbeError`]; an image that was pulled only in part leaves nothing a person would see.
pub async fn pull_probe(engine: &Engine, image: &str) -> Result<(), ProbeError> {
    let docker = client::connect(&engine.endpoint, PULL).await.map_err(ProbeError::Engine)?;
    let was_there = docker.inspect_image(image).await.is_ok();
    let options = CreateImageOptionsBuilder::default().from_image(image).build();
    // Some failures come as a status, others inside a stream that began with 200: `create_image` makes both errors.
    let pull = docker.create_image(Some(options), None, None).try_for_each(|_| async { Ok(()) });
    tokio::time::timeout(PULL, pull).await.map_err(|_| ProbeError::Timeout)?.map_err(|error| {
        if let Error::DockerStreamError { error: words }
        | Error::DockerResponseServerError { message: words, .. } = error
        {
            ProbeError::Pull(words)
        } else {
            ProbeError::Engine(error.to_string())
        }
    })?;
    if !was_there {
        let removed = docker.remove_image(image, None::<RemoveImageOptions>, None).await;
        removed.map_err(|error| ProbeError::Engine(format!("the probe image stays: {error}")))?;
    }
    Ok(())
}
