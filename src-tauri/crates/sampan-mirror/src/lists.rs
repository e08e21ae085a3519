//! Tag lists and referrers: passed on, and known from memory when the upstream cannot be asked.

use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Bypass, Digest, Failure, ImageName, Outcome, Reference, Tag};

use sampan_upstream::UpstreamError;

use crate::error::PullError;
use crate::manifests::empty_index;
use crate::mirror::Inner;

/// Tags without `n` are asked for in pages of this size, so that no answer grows without bound.
const PAGE: u32 = 1000;

/// A page of tags.
pub(crate) struct TagList {
    pub(crate) tags: Vec<Tag>,
    /// Whether there are more after the last one.
    pub(crate) more: bool,
    pub(crate) outcome: Outcome,
}

/// A referrers list: an index.
pub(crate) struct Referrers {
    pub(crate) body: Bytes,
    /// Whether `artifactType` was applied.
    pub(crate) filtered: bool,
    pub(crate) outcome: Outcome,
}

impl Inner {
    /// A page of at most `n` tags after `last`, in lexical order (distribution-spec, "Listing Tags").
    pub(crate) async fn tags(
        &self,
        image: &ImageName,
        n: Option<u32>,
        last: Option<&Tag>,
    ) -> Result<TagList, PullError> {
        let unknown = || PullError::NameUnknown { image: image.clone() };
        let upstream = self.upstream(&image.registry).ok_or_else(unknown)?;
        let error =
            match upstream.tags(&image.repository, Some(n.unwrap_or(PAGE)), last.map(Tag::as_str)).await {
                Ok(page) => {
                    let outcome = Outcome::Bypass(Bypass::Uncacheable);
                    return Ok(TagList { tags: page.tags, more: page.more, outcome });
                }
                Err(error) => error,
            };
        if error.failure() == Failure::NotFound {
            return Err(unknown());
        }
        let mut tags = self.store.tags(image).await?;
        if tags.is_empty() {
            return Err(PullError::upstream(image, error));
        }
        tags.sort();
        tags.retain(|tag| last.is_none_or(|last| tag > last));
        let n = usize::try_from(n.unwrap_or(PAGE)).unwrap_or(usize::MAX);
        let more = tags.len() > n;
        tags.truncate(n);
        Ok(TagList { tags, more: more && n > 0, outcome: Outcome::Stale })
    }

    /// What refers to `subject`. Always an answer: a 404 here would send a client past the mirror to the Hub, and an
    /// error would fail its pull after the last layer (CLIENTS.md R-M10).
    pub(crate) async fn referrers(
        self: &Arc<Self>,
        image: &ImageName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Referrers {
        let asked = match self.upstream(&image.registry) {
            // Asked after the last layer, by a client that gives a mirror 30 s: memory answers a dead link at once.
            Some(upstream) => {
                let asked = upstream.referrers(&image.repository, subject, artifact_type);
                let asked = tokio::time::timeout(self.revalidate_timeout, asked).await;
                asked.unwrap_or(Err(UpstreamError::Timeout))
            }
            None => Ok(None),
        };
        let none = || Referrers {
            body: empty_index(),
            filtered: false,
            outcome: Outcome::Bypass(Bypass::Uncacheable),
        };
        match asked {
            Ok(Some(list)) => {
                // Only a whole list can answer later questions.
                if artifact_type.is_none()
                    && !list.more
                    && let Err(error) = self.store.put_referrers(image, subject, list.body.clone()).await
                {
                    tracing::warn!(%image, %error, "a referrers list could not be kept");
                }
                let outcome = Outcome::Bypass(Bypass::Uncacheable);
                Referrers { body: list.body, filtered: list.filtered, outcome }
            }
            Ok(None) => self.referrers_by_tag(image, subject).await.unwrap_or_else(none),
            // The upstream says no: then what it once showed is not ours to show.
            Err(error) if error.failure() == Failure::NotFound => none(),
            Err(error) => {
                tracing::info!(%image, %error, "referrers are answered from memory");
                let held = self.store.referrers(image, subject).await.ok().flatten();
                let held = held.map(|body| Referrers { body, filtered: false, outcome: Outcome::Stale });
                match held {
                    Some(held) => held,
                    None => self.referrers_held(image, subject).await.unwrap_or_else(none),
                }
            }
        }
    }

    /// The list under the fallback tag, for registries without the API.
    async fn referrers_by_tag(self: &Arc<Self>, image: &ImageName, subject: &Digest) -> Option<Referrers> {
        let found = self.manifest(image, &Reference::Tag(fallback_tag(subject)?)).await.ok()?;
        self.store.touch(image, &found.manifest.digest, false).await;
        let is_list = found.manifest.is_index();
        is_list.then(|| Referrers { body: found.bytes, filtered: false, outcome: found.outcome })
    }

    /// The same, as far as it is held.
    async fn referrers_held(&self, image: &ImageName, subject: &Digest) -> Option<Referrers> {
        let held = self.store.held_tag(image, &fallback_tag(subject)?).await.ok()??;
        let (body, _) = self.store.manifest(image, &held.digest).await.ok()??;
        Some(Referrers { body, filtered: false, outcome: Outcome::Stale })
    }
}

/// The tag under which registries without the API keep the list (distribution-spec, "Referrers Tag Schema").
fn fallback_tag(subject: &Digest) -> Option<Tag> {
    format!("{}-{}", subject.algorithm().as_str(), subject.hex()).parse().ok()
}
