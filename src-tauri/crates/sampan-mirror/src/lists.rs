//! Tag lists and referrers: passed on, and known from memory when the upstream cannot be asked.

use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Bypass, Digest, Failure, ImageName, Outcome, Reference, Tag};

use sampan_upstream::UpstreamError;

use crate::error::PullError;
use crate::manifests::{bypass, empty_index};
use crate::mirror::Inner;
use crate::private::Sought;

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
        self.admit(image, Sought::Lists).await?;
        let upstream = self.upstream_for(image).ok_or_else(unknown)?;
        let n = n.unwrap_or(PAGE);
        // Registries disagree on what a page of no tags is; that the repository is there, all of them tell with one.
        let asked = upstream.tags(&image.repository, Some(n.max(1)), last.map(Tag::as_str)).await;
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        let error = match asked {
            Ok(page) => {
                let outcome = Outcome::Bypass(Bypass::Uncacheable);
                // docker-registry 2.8 knows no pages and no order: it gives all there is, whatever was asked for. Then the
                // pages are ours to make. In the middle of an upstream's own pages its order is left alone.
                let is_whole = last.is_none() && !page.more;
                let ignores = page.tags.len() > n.max(1) || last.is_some_and(|last| page.tags.contains(last));
                let (tags, more) = if is_whole || ignores || n == 0 {
                    page_of(page.tags, n, last)
                } else {
                    (page.tags, page.more)
                };
                return Ok(TagList { tags, more, outcome });
            }
            Err(error) => error,
        };
        if error.failure() == Failure::NotFound {
            return Err(unknown());
        }
        let tags = self.store.tags(image).await?;
        if tags.is_empty() {
            return Err(PullError::upstream(image, error));
        }
        let (tags, more) = page_of(tags, n, last);
        let outcome = Outcome::Stale(error.stale());
        Ok(TagList { tags, more, outcome })
    }

    /// What refers to `subject`, of one type if `artifact_type` says so. Always an answer: a 404 here would send a client
    /// past the mirror to the Hub, and an error would fail its pull after the last layer (CLIENTS.md R-M10).
    pub(crate) async fn referrers(
        self: &Arc<Self>,
        image: &ImageName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Referrers {
        let list = self.all_referrers(image, subject).await;
        match artifact_type.filter(|wanted| !wanted.is_empty()) {
            Some(wanted) => Referrers { body: of_type(&list.body, wanted), filtered: true, ..list },
            None => list,
        }
    }

    /// The whole list. The upstream is never asked to filter it: only a whole list can answer later questions.
    async fn all_referrers(self: &Arc<Self>, image: &ImageName, subject: &Digest) -> Referrers {
        if self.admit(image, Sought::Lists).await.is_err() {
            let outcome = Outcome::Bypass(Bypass::Uncacheable);
            return Referrers { body: empty_index(), filtered: false, outcome };
        }
        let asked = match self.upstream_for(image) {
            // Sought after the last layer, by a client that gives a mirror 30 s: memory answers a dead link at once.
            Some(upstream) => {
                let asked = upstream.referrers(&image.repository, subject, None);
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
                if !list.more {
                    self.keep_referrers(image, subject, &list.body).await;
                }
                let outcome = Outcome::Bypass(Bypass::Uncacheable);
                Referrers { body: list.body, filtered: false, outcome }
            }
            Ok(None) => self.referrers_by_tag(image, subject).await.unwrap_or_else(none),
            // The upstream says no: then what it once showed is not ours to show.
            Err(error) if error.failure() == Failure::NotFound => none(),
            Err(error) => {
                tracing::info!(%image, %error, "referrers are answered from memory");
                let held = self.store.referrers(image, subject).await.ok().flatten();
                let outcome = Outcome::Stale(error.stale());
                let held = held.map(|body| Referrers { body, filtered: false, outcome });
                match held {
                    Some(held) => held,
                    None => self.referrers_held(image, subject, outcome).await.unwrap_or_else(none),
                }
            }
        }
    }

    /// Keeps a list for when the upstream cannot answer, if it is another one than is kept.
    async fn keep_referrers(&self, image: &ImageName, subject: &Digest, body: &Bytes) {
        let kept = self.store.referrers(image, subject).await;
        if self.paused() || kept.is_ok_and(|kept| kept.as_ref() == Some(body)) {
            return;
        }
        if let Err(error) = self.store.put_referrers(image, subject, body.clone()).await
            && bypass(&error).is_none()
        {
            tracing::warn!(%image, %error, "a referrers list could not be kept");
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
    async fn referrers_held(
        &self,
        image: &ImageName,
        subject: &Digest,
        outcome: Outcome,
    ) -> Option<Referrers> {
        let held = self.store.held_tag(image, &fallback_tag(subject)?).await.ok()??;
        let (body, _) = self.store.manifest(image, &held.digest).await.ok()??;
        Some(Referrers { body, filtered: false, outcome })
    }
}

/// At most `n` of these tags, in lexical order, after `last`; and whether there are more.
fn page_of(mut tags: Vec<Tag>, n: usize, last: Option<&Tag>) -> (Vec<Tag>, bool) {
    tags.sort();
    tags.dedup();
    tags.retain(|tag| last.is_none_or(|last| tag > last));
    // Without a last tag nobody could ask for the next page.
    let more = n > 0 && tags.len() > n;
    tags.truncate(n);
    (tags, more)
}

/// The entries of a list that are of this artifact type. What is not a list has none.
fn of_type(list: &[u8], wanted: &str) -> Bytes {
    let Ok(mut list) = serde_json::from_slice::<serde_json::Value>(list) else { return empty_index() };
    let Some(manifests) = list.get_mut("manifests").and_then(serde_json::Value::as_array_mut) else {
        return empty_index();
    };
    manifests.retain(|entry| entry.get("artifactType").is_some_and(|kind| kind == wanted));
    list.to_string().into()
}

/// The tag under which registries without the API keep the list: the algorithm, and at most 64 digits
/// (distribution-spec, "Referrers Tag Schema").
fn fallback_tag(subject: &Digest) -> Option<Tag> {
    format!("{}-{:.64}", subject.algorithm().as_str(), subject.hex()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_made_of_all_tags_without_leaving_one_out_or_going_round() {
        let all = || ["b", "a", "10", "2", "a"].map(|tag| tag.parse::<Tag>().unwrap()).to_vec();
        let (mut seen, mut last, mut more) = (Vec::new(), None, true);
        while more {
            let (tags, and_more) = page_of(all(), 2, last.as_ref());
            assert!(tags.len() <= 2);
            (last, more) = (tags.last().cloned(), and_more);
            seen.extend(tags);
        }
        assert_eq!(seen.iter().map(Tag::as_str).collect::<Vec<_>>(), ["10", "2", "a", "b"]);
        assert_eq!(page_of(all(), 0, None), (Vec::new(), false));
    }

    #[test]
    fn a_list_is_filtered_by_what_its_entries_say_they_are() {
        let list = br#"{"schemaVersion":2,"manifests":[{"artifactType":"x","size":1},{"size":2},{"artifactType":"y"}]}"#;
        let read =
            |bytes: Bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["manifests"].clone();
        assert_eq!(read(of_type(list, "x")), serde_json::json!([{"artifactType": "x", "size": 1}]));
        assert_eq!(read(of_type(list, "z")), serde_json::json!([]));
        assert_eq!(read(of_type(b"<html>", "x")), serde_json::json!([]));
    }

    #[test]
    fn the_fallback_tag_of_a_long_digest_is_cut_to_a_tag() {
        let hex = "ab".repeat(64);
        let sha512: Digest = format!("sha512:{hex}").parse().unwrap();
        assert_eq!(fallback_tag(&sha512).unwrap().as_str(), format!("sha512-{}", &hex[..64]));
        let sha256 = Digest::of(b"");
        assert_eq!(fallback_tag(&sha256).unwrap().as_str(), format!("sha256-{}", sha256.hex()));
    }
}
