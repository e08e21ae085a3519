//! Manifests: from the cache, confirmed, fetched, or stale.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_oci::{Bypass, Digest, Failure, ImageName, Manifest, MediaType, Outcome, Reference, Stale, Tag};
use sampan_store::StoreError;
use sampan_upstream::{FetchedManifest, Upstream, UpstreamError};

use crate::age::Checked;
use crate::error::PullError;
use crate::freshness::Policy;
use crate::mirror::Inner;
use crate::plan::{self, Plan, Verdict, plan, stale, verdict};
use crate::private::Sought;

/// How long a client waits for a manifest that has to be fetched. containerd gives a mirror 30 s for its head, and the
/// question where a tag points may have taken its time before (CLIENTS.md 2).
pub(crate) const MANIFEST_WITHIN: Duration = Duration::from_secs(15);

/// How long a client is kept waiting for a registry that wants to be left alone for a moment (CLIENTS.md R-M9).
const REST_WITHIN: Duration = Duration::from_secs(5);

/// A manifest to answer with.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) bytes: Bytes,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) outcome: Outcome,
}

/// A held tag that is asked about.
struct Asked<'a> {
    image: &'a ImageName,
    tag: &'a Tag,
    /// How long ago it was confirmed.
    age: Duration,
    policy: Policy,
}

impl Inner {
    /// The manifest that `reference` names in `image`.
    pub(crate) async fn manifest(
        self: &Arc<Self>,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Resolved, PullError> {
        self.admit(image, Sought::Manifest(reference)).await?;
        let now = self.ages.now(&*self.clock);
        let known = match reference {
            Reference::Tag(tag) => self.store.held_tag(image, tag).await?.map(|held| {
                let checked = self.ages.checked(image, tag, held.checked);
                plan::Held { digest: held.digest, checked, frozen: held.frozen }
            }),
            Reference::Digest(digest) => {
                let checked = Checked { wall: now.wall, lived: None };
                Some(plan::Held { digest: *digest, checked, frozen: false })
            }
        };
        // What the index names may have been cleared or damaged: then it is not held after all.
        let found = match known {
            Some(known) => self.held(image, &known.digest).await?,
            None => None,
        };
        let policy = self.policy(image);
        let resolved = match (plan(reference, known.filter(|_| found.is_some()), now, policy), found, known) {
            (Plan::Hit(_), Some(found), _) => Ok(found),
            (Plan::Unasked(_), Some(found), _) => {
                self.counts.unasked();
                Ok(found)
            }
            (Plan::Revalidate(_), Some(found), Some(known)) => match reference {
                Reference::Tag(tag) => {
                    let asked = Asked { image, tag, age: known.checked.age(now), policy };
                    self.revalidated(asked, found).await
                }
                Reference::Digest(_) => Ok(found),
            },
            // It is damaged, and still what the tag means.
            (_, _, Some(known)) if known.frozen => {
                self.fetched(image, &Reference::Digest(known.digest)).await
            }
            (Plan::Hit(_) | Plan::Unasked(_) | Plan::Revalidate(_) | Plan::Miss, _, _) => {
                self.fetched(image, reference).await
            }
        };
        match resolved {
            // Clients take a missing fallback tag for "no referrers", but an unreachable one fails their whole pull
            // after every layer has arrived (CLIENTS.md R-M10).
            Err(PullError::Upstream { .. }) if is_referrers_tag(reference) => {
                Err(PullError::ManifestUnknown { image: image.clone(), reference: reference.clone() })
            }
            other => other,
        }
    }

    async fn held(&self, image: &ImageName, digest: &Digest) -> Result<Option<Resolved>, PullError> {
        let Some((bytes, media_type)) = self.store.manifest(image, digest).await? else { return Ok(None) };
        let Some(manifest) = self.parsed.manifest(digest, media_type, &bytes) else { return Ok(None) };
        Ok(Some(Resolved { bytes, manifest, outcome: Outcome::Hit }))
    }

    async fn revalidated(self: &Arc<Self>, asked: Asked<'_>, held: Resolved) -> Result<Resolved, PullError> {
        let Asked { image, tag, age, policy } = asked;
        let (digest, reference) = (held.manifest.digest, Reference::Tag(tag.clone()));
        let word = self.ask_where(image, tag).await;
        let held_back = stale(Stale::RateLimit, age, policy);
        let verdict = match verdict(digest, word, age, policy) {
            // What is left of the registry's allowance is kept for what is not held.
            Verdict::Moved if held_back != Verdict::TooOld && self.is_low(image) => held_back,
            Verdict::Moved => match self.fetched(image, &reference).await {
                Err(PullError::Upstream { source, .. }) => stale(source.stale(), age, policy),
                other => return other,
            },
            verdict @ (Verdict::Current
            | Verdict::Stale(_)
            | Verdict::TooOld
            | Verdict::Gone
            | Verdict::Denied) => verdict,
        };
        match verdict {
            Verdict::Current => {
                self.confirm(image, tag).await;
                Ok(Resolved { outcome: Outcome::Revalidated, ..held })
            }
            Verdict::Stale(why) => {
                self.counts.stale(why);
                let why_word = why.as_str();
                tracing::warn!(%image, %reference, why = why_word, "serving what is held: the upstream cannot answer");
                Ok(Resolved { outcome: Outcome::Stale(why), ..held })
            }
            Verdict::TooOld => Err(PullError::TooOld { image: image.clone(), reference }),
            Verdict::Gone => {
                self.forget_tag(image, tag, &digest).await;
                Err(PullError::ManifestUnknown { image: image.clone(), reference })
            }
            Verdict::Denied | Verdict::Moved => {
                Err(PullError::ManifestUnknown { image: image.clone(), reference })
            }
        }
    }

    /// Whether nearly nothing is left of the allowance of the image's registry.
    fn is_low(&self, image: &ImageName) -> bool {
        self.spends_the_last(image)
    }

    pub(crate) async fn fetched(
        self: &Arc<Self>,
        image: &ImageName,
        reference: &Reference,
    ) -> Result<Resolved, PullError> {
        let this = self.clone();
        let (theirs, wanted) = (image.clone(), reference.clone());
        let fetch = Box::pin(async move { this.fetch_manifest(&theirs, &wanted).await });
        let flight = self.fetching.run(&self.tasks, (image.clone(), reference.clone()), fetch);
        // The flight goes on when it is waited for no longer: the next one who asks finds it, or what it brought.
        match tokio::time::timeout(MANIFEST_WITHIN, flight).await {
            Ok(Some((Ok(found), true))) if found.outcome == Outcome::Miss => {
                Ok(Resolved { outcome: Outcome::Joined, ..found })
            }
            Ok(Some((found, _))) => found,
            Ok(None) => Err(PullError::Stopping),
            Err(_) => Err(PullError::upstream(image, UpstreamError::Timeout)),
        }
    }

    async fn fetch_manifest(&self, image: &ImageName, reference: &Reference) -> Result<Resolved, PullError> {
        let unknown = || PullError::ManifestUnknown { image: image.clone(), reference: reference.clone() };
        let sources = self.sources_for(image).ok_or_else(unknown)?;
        // The flight before may have landed between this client's look at the cache and now.
        if let Reference::Digest(digest) = reference
            && let Some(held) = self.held(image, digest).await?
        {
            return Ok(held);
        }
        let fetched = Box::pin(self.get_manifest(&sources, image, reference)).await?.map_err(|error| {
            self.note_refusal(image, &error);
            if error.failure() == Failure::NotFound { unknown() } else { PullError::upstream(image, error) }
        })?;
        let manifest = Arc::new(fetched.manifest);
        self.tell_fetched(image, manifest.digest, fetched.bytes.len() as u64);
        let outcome = match self.keep(image, reference, &manifest, fetched.bytes.clone()).await {
            Ok(()) => Outcome::Miss,
            Err(why) => Outcome::Bypass(why),
        };
        Ok(Resolved { bytes: fetched.bytes, manifest, outcome })
    }

    /// Stores a manifest and where its tag points. A cache that cannot take it is no reason to fail the pull.
    async fn keep(
        &self,
        image: &ImageName,
        reference: &Reference,
        manifest: &Manifest,
        bytes: Bytes,
    ) -> Result<(), Bypass> {
        if self.paused() {
            return Err(Bypass::Paused);
        }
        let why = |error: StoreError| {
            let why = bypass(&error);
            // A full or read-only disk is told by the app, once a minute and not per request (SECURITY.md R70).
            if why.is_none() {
                tracing::warn!(%image, %error, "a manifest could not be kept");
            }
            why.unwrap_or(Bypass::Full)
        };
        self.store.put_manifest(image, manifest, bytes).await.map_err(why)?;
        if let Reference::Tag(tag) = reference {
            self.store.set_tag(image, tag, &manifest.digest).await.map_err(why)?;
            self.ages.confirmed(image, tag, &*self.clock);
        }
        Ok(())
    }
}

/// Fetches a manifest; a 429 that asks for a moment only is waited out, because engines do not: they ask again at once.
pub(crate) async fn get_patiently(
    upstream: &Upstream,
    image: &ImageName,
    reference: &Reference,
) -> Result<FetchedManifest, UpstreamError> {
    let until = tokio::time::Instant::now() + REST_WITHIN;
    loop {
        match upstream.get_manifest(&image.repository, reference).await {
            Err(UpstreamError::RateLimited { retry_after: Some(wait) })
                if tokio::time::Instant::now() + wait < until =>
            {
                tokio::time::sleep(wait).await;
            }
            answer => return answer,
        }
    }
}

/// The reason why a store error lets a body pass without being kept; `None` where the error is of another kind.
pub(crate) fn bypass(error: &StoreError) -> Option<Bypass> {
    match error {
        StoreError::Full => Some(Bypass::Full),
        StoreError::ReadOnly => Some(Bypass::ReadOnly),
        StoreError::Mismatch { .. }
        | StoreError::Size { .. }
        | StoreError::Dead
        | StoreError::Stopped
        | StoreError::Io(_)
        | StoreError::Index(_) => None,
    }
}

/// Whether this is the tag under which registries without the referrers API list them (distribution-spec, "Referrers
/// Tag Schema"): the algorithm, `-` and 64 hex digits.
fn is_referrers_tag(reference: &Reference) -> bool {
    let Reference::Tag(tag) = reference else { return false };
    let hex = tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-"));
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The empty referrers list: an index without manifests (distribution-spec, "Listing Referrers").
pub(crate) fn empty_index() -> Bytes {
    let media_type = MediaType::OciIndex;
    format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[]}}"#).into()
}
