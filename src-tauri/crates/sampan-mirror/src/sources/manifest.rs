//! Manifests from several upstreams: which one is meant, the trusted one says; its bytes come from any, because they hash to
//! the digest or are refused. A registry that counts manifests counts only those asked of itself.

use std::sync::Arc;
use std::time::Duration;

use sampan_oci::{Digest, ImageName, Lie, Reference};
use sampan_upstream::{FetchedManifest, UpstreamError};
use tokio::time::Instant;

use super::{Source, Sources};
use crate::error::PullError;
use crate::manifests::get_patiently;
use crate::mirror::Inner;

/// How long a mirror is waited for: the one that is trusted still has to have its turn while a client waits.
const MIRROR_WITHIN: Duration = Duration::from_secs(3);
/// What a manifest weighs where upstreams are compared.
const MANIFEST_BYTES: u64 = 8 * 1024;

impl Inner {
    /// Fetches a manifest. A tag is asked of the trusted upstream alone, and so is whether the repository has a digest that no
    /// manifest of it names (SECURITY.md R84).
    pub(crate) async fn get_manifest(
        &self,
        sources: &Sources,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Result<FetchedManifest, UpstreamError>, PullError> {
        let Some(trusted) = sources.trusted().cloned() else { return Err(PullError::Stopping) };
        if sources.is_alone() {
            return Ok(get_patiently(&trusted.upstream, image, reference).await);
        }
        let named = match reference {
            Reference::Digest(digest) if self.store.link(image, digest).await?.is_some() => Ok(Some(*digest)),
            Reference::Digest(digest) => {
                let there = trusted.upstream.head_manifest(&image.repository, reference).await;
                there.map(|_| Some(*digest))
            }
            Reference::Tag(_) => trusted.upstream.head_manifest(&image.repository, reference).await,
        };
        Ok(match named {
            Ok(Some(digest)) => from_any(sources, &trusted, image, digest).await,
            Ok(None) => get_patiently(&trusted.upstream, image, reference).await,
            Err(error) => Err(error),
        })
    }
}

/// The manifest of that digest, from whoever has it.
async fn from_any(
    sources: &Sources,
    trusted: &Arc<Source>,
    image: &ImageName,
    digest: Digest,
) -> Result<FetchedManifest, UpstreamError> {
    let reference = Reference::Digest(digest);
    for source in sources.for_bytes(image, &digest, Some(MANIFEST_BYTES)) {
        let asked = Instant::now();
        if Arc::ptr_eq(&source, trusted) || !source.weather(|weather| weather.may_ask(asked)) {
            continue;
        }
        let get = source.upstream.get_manifest(&image.repository, &reference);
        let got = tokio::time::timeout(MIRROR_WITHIN, get).await.unwrap_or(Err(UpstreamError::Timeout));
        let now = Instant::now();
        let error = match got {
            Ok(fetched) => {
                source.weather(|weather| weather.answered(now - asked, now));
                source.has(image);
                return Ok(fetched);
            }
            Err(error) => error,
        };
        tracing::debug!(upstream = %source.upstream.url(), %image, %digest, %error, "a mirror did not bring a manifest");
        match error {
            UpstreamError::Mismatch { .. } => sources.lied(&source, Lie::Bytes, image, &digest),
            UpstreamError::NotFound | UpstreamError::Denied => source.lacks(image, &digest),
            UpstreamError::Unreachable(_) | UpstreamError::Timeout => {
                source.weather(|weather| weather.silent(now));
            }
            UpstreamError::Resting | UpstreamError::Login(_) => {}
            // Nobody may be asked.
            UpstreamError::Offline => return Err(error),
            // Too large, or of two minds about its kind: that may be the mirror's own doing.
            UpstreamError::InvalidManifest(_)
            | UpstreamError::RateLimited { .. }
            | UpstreamError::Busy { .. }
            | UpstreamError::Status(_)
            | UpstreamError::Truncated { .. }
            | UpstreamError::RangeRefused
            | UpstreamError::OtherPart
            | UpstreamError::Changed
            | UpstreamError::Protocol(_) => source.weather(|weather| weather.failed(now)),
        }
    }
    get_patiently(&trusted.upstream, image, &reference).await
}
