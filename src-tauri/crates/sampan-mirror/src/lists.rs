//! Tag lists and referrers: passed on, and known from memory when the upstream cannot be asked.

use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Bypass, Digest, Failure, ImageName, Outcome, Reference, Tag};

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
        let error = match upstream.tags(&image.repository, n, last.map(Tag::as_str)).await {
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
            Some(upstream) => upstream.referrers(&image.repository, subject, artifact_type).await,
            None => Ok(None),
        };
        match asked {
            Ok(Some(list)) => {
                // Only the whole list can answer later questions.
                if artifact_type.is_none()
                    && let Err(error) = self.store.put_referrers(image, subject, list.body.clone()).await
                {
                    tracing::warn!(%image, %error, "a referrers list could not be kept");
                }
                let outcome = Outcome::Bypass(Bypass::Uncacheable);
                Referrers { body: list.body, filtered: list.filtered, outcome }
            }
            Ok(None) => self.referrers_by_tag(image, subject).await,
            Err(error) => {
                tracing::info!(%image, %error, "referrers are answered from memory");
                let held = self.store.referrers(image, subject).await.ok().flatten();
                match held {
                    Some(body) => Referrers { body, filtered: false, outcome: Outcome::Stale },
                    None => self.referrers_by_tag(image, subject).await,
                }
            }
        }
    }

    /// The list under the fallback tag, for registries without the API.
    async fn referrers_by_tag(self: &Arc<Self>, image: &ImageName, subject: &Digest) -> Referrers {
        let tag = format!("{}-{}", subject.algorithm().as_str(), subject.hex());
        let found = match tag.parse::<Tag>() {
            Ok(tag) => self.manifest(image, &Reference::Tag(tag)).await.ok(),
            Err(_) => None,
        };
        match found {
            Some(found) if found.manifest.is_index() => {
                Referrers { body: found.bytes, filtered: false, outcome: found.outcome }
            }
            Some(_) | None => Referrers {
                body: empty_index(),
                filtered: false,
                outcome: Outcome::Bypass(Bypass::Uncacheable),
            },
        }
    }
}
