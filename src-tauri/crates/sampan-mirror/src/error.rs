//! Why a pull failed, and what that becomes on the wire.

use std::sync::Arc;

use http::StatusCode;
use sampan_oci::{Digest, Failure, ImageName, OciCode, Reference};
use sampan_store::StoreError;
use sampan_upstream::UpstreamError;

use crate::private::Barred;

/// Why something asked for cannot be served. Cheap to clone: everybody who waited for the same download gets it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PullError {
    /// The upstream has no such manifest, or does not show it to someone without a login.
    #[error("{} is not at its registry, or needs a login that Sampan does not have", image.with(reference))]
    ManifestUnknown { image: ImageName, reference: Reference },
    /// The upstream has no such blob in that repository.
    #[error("{image} has no blob {digest}, or needs a login that Sampan does not have")]
    BlobUnknown { image: ImageName, digest: Digest },
    /// The upstream has no such repository, or does not show it to someone without a login.
    #[error("{image} is not at its registry, or needs a login that Sampan does not have")]
    NameUnknown { image: ImageName },
    /// It is private, and who asks may not have it: Docker then asks its registry with its own login.
    #[error("{image} is private: {why}")]
    Private { image: ImageName, why: Barred },
    /// The upstream failed otherwise.
    #[error("{registry}: {source}", registry = image.registry)]
    Upstream { image: ImageName, source: Arc<UpstreamError> },
    /// The upstream cannot say where a tag points, and what is held was confirmed too long ago.
    #[error(
        "{} was last confirmed longer ago than its freshness policy allows, and its registry cannot confirm it now",
        image.with(reference)
    )]
    TooOld { image: ImageName, reference: Reference },
    /// The cache failed.
    #[error("the cache failed: {0}")]
    Store(Arc<StoreError>),
    /// A person paused Sampan: what is under way goes on without being kept.
    #[error("Sampan is paused")]
    Paused,
    /// It was fetched ahead, and whoever wanted that does not any longer. No client ever sees it.
    #[error("nobody wants it any longer")]
    Unwanted,
    /// Sampan is about to end.
    #[error("Sampan is stopping")]
    Stopping,
}

impl PullError {
    pub(crate) fn upstream(image: &ImageName, error: UpstreamError) -> Self {
        Self::Upstream { image: image.clone(), source: Arc::new(error) }
    }

    /// What an upstream's failure to give a blob means: it may simply not have it.
    pub(crate) fn blob(image: &ImageName, digest: &Digest, error: UpstreamError) -> Self {
        if error.failure() == Failure::NotFound {
            Self::BlobUnknown { image: image.clone(), digest: *digest }
        } else {
            Self::upstream(image, error)
        }
    }

    /// The reason, for logs and numbers.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::ManifestUnknown { .. }
            | Self::BlobUnknown { .. }
            | Self::NameUnknown { .. }
            | Self::Private { .. } => Failure::NotFound,
            Self::Upstream { source, .. } => source.failure(),
            Self::TooOld { .. } => Failure::Unreachable,
            Self::Store(_) => Failure::Store,
            Self::Paused | Self::Unwanted | Self::Stopping => Failure::Stopping,
        }
    }

    /// The one place where a failed pull becomes HTTP (CLIENTS.md R-M9). Never 401 (Docker would send the person's
    /// password) and never 429 (containerd would ask again at once, five times).
    pub(crate) fn status_and_code(&self) -> (StatusCode, OciCode) {
        match (self, self.failure()) {
            (Self::BlobUnknown { .. }, _) => (StatusCode::NOT_FOUND, OciCode::BlobUnknown),
            (Self::NameUnknown { .. }, _) => (StatusCode::NOT_FOUND, OciCode::NameUnknown),
            (_, Failure::NotFound | Failure::Forbidden) => (StatusCode::NOT_FOUND, OciCode::ManifestUnknown),
            (
                _,
                Failure::Unreachable
                | Failure::RateLimited
                | Failure::Offline
                | Failure::Upstream
                | Failure::Stopping,
            ) => (StatusCode::SERVICE_UNAVAILABLE, OciCode::Unavailable),
            (_, Failure::Mismatch) => (StatusCode::BAD_GATEWAY, OciCode::Unknown),
            (_, Failure::Invalid) => (StatusCode::BAD_REQUEST, OciCode::Unknown),
            (_, Failure::Store | Failure::ClientLeft) => {
                (StatusCode::INTERNAL_SERVER_ERROR, OciCode::Unknown)
            }
        }
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
