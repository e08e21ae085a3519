//! Fetching an image ahead of anybody who asks for it: by the same manifests, downloads and store as a pull.
//!
//! Nothing of it counts as a pull: no client was served. What came over the link is told as for any download, and what a
//! client is given of it later is a hit.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use sampan_oci::{
    Bypass, Descriptor, Digest, Failure, ImageName, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Outcome,
    Platform, Reference, Tag,
};
use sampan_store::{BlobFile, StoreError};

use crate::Mirror;
use crate::Refreshed;
use crate::download::{Download, Wanted};
use crate::error::PullError;
use crate::manifests::{Resolved, bypass};
use crate::mirror::Inner;
use crate::private::Sought;

/// How many blobs are fetched side by side: as many as Docker does.
const BLOBS_AT_ONCE: usize = 3;
/// How deep indexes may be in indexes.
const DEPTH_MAX: usize = 3;
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// For which platforms an image is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// All there are.
    All,
    /// The one that runs best on this.
    One(Platform),
}

impl Platforms {
    /// Which entries of an index these are, in its order: what runs, and its attestations, without which Docker from 29.1 on
    /// does not take it (CLIENTS.md 2). An entry that names no platform may be any.
    pub fn of<'i>(&self, index: &'i [Descriptor]) -> Vec<&'i Descriptor> {
        let offered = || index.iter().filter(|entry| entry.attests.is_none());
        let chosen: Vec<&Descriptor> = match self {
            Self::All => offered().collect(),
            Self::One(wanted) => {
                let ranked =
                    offered().filter_map(|entry| Some((wanted.rank(entry.platform.as_ref()?)?, entry)));
                match ranked.min_by_key(|(rank, _)| *rank) {
                    Some((_, best)) => vec![best],
                    None => offered().filter(|entry| entry.platform.is_none()).collect(),
                }
            }
        };
        let of: HashSet<Digest> = chosen.iter().map(|entry| entry.digest).collect();
        let attests = |entry: &&Descriptor| entry.attests.as_deref().is_some_and(|of_it| of.contains(of_it));
        let all = chosen.iter().copied().chain(index.iter().filter(attests));
        if chosen.is_empty() { Vec::new() } else { all.collect() }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefetchProgress {
    /// Bytes of all of it; `None` until every manifest is known.
    pub size_bytes: Option<u64>,
    /// Bytes of it that are on disk.
    pub held_bytes: u64,
    /// Bytes that came over the link for it so far.
    pub fetched_bytes: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefetched {
    /// What the reference names now.
    pub digest: Digest,
    /// What its tag named before, where that was known.
    pub before: Option<Digest>,
    /// At the end.
    pub progress: PrefetchProgress,
}

/// Why an image could not be fetched ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefetchFailure {
    /// The registry has none of that name, or wants a login.
    NotFound,
    /// This Sampan does not mirror its registry.
    NotMirrored,
    /// It is not there for the platform.
    NoPlatform,
    /// The registry cannot be asked now. What was fetched is kept.
    Unreachable,
    /// The registry's allowance is nearly used up; it is kept for pulls.
    RateLimited,
    /// The registry sent what cannot be right.
    Upstream,
    /// There is no room in the cache.
    Full,
    /// The cache cannot be written, or failed.
    Store,
    /// A person paused Sampan.
    Paused,
    /// Sampan is about to end.
    Stopping,
}

impl PrefetchFailure {
    /// Whether the same may well succeed later with nobody doing anything.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unreachable | Self::RateLimited | Self::Paused | Self::Stopping)
    }
}

/// [`PrefetchFailure`], with a sentence for people.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct PrefetchError {
    /// The closed reason.
    pub why: PrefetchFailure,
    /// What happened.
    pub text: String,
}

impl PrefetchError {
    fn new(why: PrefetchFailure, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }

    fn unkept(why: Bypass) -> Self {
        match why {
            Bypass::Full => Self::new(PrefetchFailure::Full, "there is no room in the cache"),
            Bypass::ReadOnly => Self::new(PrefetchFailure::Store, "the cache cannot be written to"),
            Bypass::Paused => PullError::Paused.into(),
            Bypass::Uncacheable => Self::new(PrefetchFailure::Upstream, "it cannot be kept"),
        }
    }
}

impl From<PullError> for PrefetchError {
    fn from(error: PullError) -> Self {
        if let PullError::Store(error) = &error
            && let Some(why) = bypass(error)
        {
            return Self::unkept(why);
        }
        let why = match error.failure() {
            Failure::NotFound | Failure::Forbidden => PrefetchFailure::NotFound,
            Failure::RateLimited => PrefetchFailure::RateLimited,
            Failure::Unreachable | Failure::Offline => PrefetchFailure::Unreachable,
            // A registry that answers 500 may be well again tomorrow.
            Failure::Upstream if is_transient(&error) => PrefetchFailure::Unreachable,
            Failure::Upstream | Failure::Mismatch | Failure::Invalid | Failure::ClientLeft => {
                PrefetchFailure::Upstream
            }
            Failure::Store => PrefetchFailure::Store,
            Failure::Stopping if matches!(error, PullError::Paused) => PrefetchFailure::Paused,
            Failure::Stopping => PrefetchFailure::Stopping,
        };
        Self::new(why, error.to_string())
    }
}

fn is_transient(error: &PullError) -> bool {
    if let PullError::Upstream { source, .. } = error { source.is_transient() } else { false }
}

impl From<StoreError> for PrefetchError {
    fn from(error: StoreError) -> Self {
        PullError::from(error).into()
    }
}

impl Mirror {
    /// Fetches what `reference` names in `image`, as far as it is not held, for `platforms`. A tag is asked about first.
    /// Rests whenever a client waits for a download of its own. `progress` is called some times a second.
    /// # Errors
    /// [`PrefetchError`]; what was fetched is kept, and the next call goes on from there.
    /// # Cancel safety
    /// Dropped, its downloads end unless a client waits for them; their bytes stay.
    pub async fn prefetch(
        &self,
        image: &ImageName,
        reference: &Reference,
        platforms: &Platforms,
        progress: impl Fn(PrefetchProgress) + Send,
    ) -> Result<Prefetched, PrefetchError> {
        let work = Work { mirror: &self.inner, image, known: Mutex::default() };
        let fetching = work.fetch(reference, platforms);
        tokio::pin!(fetching);
        let mut ticks = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                fetched = &mut fetching => {
                    progress(work.progress());
                    return fetched;
                }
                _ = ticks.tick() => progress(work.progress()),
            }
        }
    }
}

/// One image on its way.
struct Work<'m> {
    mirror: &'m Arc<Inner>,
    image: &'m ImageName,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    size: Option<u64>,
    held: u64,
    fetched: u64,
    /// Those under way, with how many of their bytes an earlier run left.
    running: HashMap<Digest, (Arc<Download>, u64)>,
}

impl Work<'_> {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> PrefetchProgress {
        let known = self.known();
        let (mut held, mut fetched) = (known.held, known.fetched);
        for (download, left) in known.running.values() {
            let bytes = download.held_bytes();
            held += bytes.max(*left);
            fetched += bytes.saturating_sub(*left);
        }
        PrefetchProgress { size_bytes: known.size, held_bytes: held, fetched_bytes: fetched }
    }

    async fn fetch(&self, reference: &Reference, platforms: &Platforms) -> Result<Prefetched, PrefetchError> {
        let before = match reference {
            Reference::Tag(tag) => self.mirror.store.held_tag(self.image, tag).await?.map(|held| held.digest),
            Reference::Digest(_) => None,
        };
        let top = match reference {
            Reference::Tag(tag) if before.is_some() => self.asked_anew(tag).await?,
            Reference::Tag(_) | Reference::Digest(_) => self.manifest(reference).await?,
        };
        let mut blobs = Vec::new();
        self.list(&top.manifest, platforms, &mut blobs).await?;
        let size = blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
        {
            let mut known = self.known();
            known.size = Some(known.held.saturating_add(size));
        }
        stream::iter(blobs).map(Ok).try_for_each_concurrent(BLOBS_AT_ONCE, |blob| self.blob(blob)).await?;
        Ok(Prefetched { digest: top.manifest.digest, before, progress: self.progress() })
    }

    /// What a tag that is held names now. A person wants to know, whatever the policy is for pulls.
    async fn asked_anew(&self, tag: &Tag) -> Result<Resolved, PrefetchError> {
        if self.is_low() {
            return Err(self.stale());
        }
        let sought = Sought::Manifest(&Reference::Tag(tag.clone()));
        self.mirror.admit(self.image, sought).await?;
        self.mirror.downloads.idle().await;
        match self.mirror.refresh(self.image, tag).await {
            Refreshed::Current(digest) => self.manifest(&Reference::Digest(digest)).await,
            Refreshed::Moved { to, .. } => {
                let moved = self.manifest(&Reference::Digest(to)).await?;
                self.known().fetched += moved.bytes.len() as u64;
                Ok(moved)
            }
            Refreshed::Frozen(_) | Refreshed::Never => self.manifest(&Reference::Tag(tag.clone())).await,
            Refreshed::Gone => {
                let (image, reference) = (self.image.clone(), Reference::Tag(tag.clone()));
                Err(PullError::ManifestUnknown { image, reference }.into())
            }
            Refreshed::Failed(why) => Err(PrefetchError::new(PrefetchFailure::Unreachable, why)),
        }
    }

    /// A manifest that is kept.
    async fn manifest(&self, reference: &Reference) -> Result<Resolved, PrefetchError> {
        if self.mirror.upstream_for(self.image).is_none() {
            let text = format!("{} is not among the registries that Sampan mirrors", self.image.registry);
            return Err(PrefetchError::new(PrefetchFailure::NotMirrored, text));
        }
        self.mirror.downloads.idle().await;
        let resolved = self.mirror.manifest(self.image, reference).await?;
        let mut known = self.known();
        known.held += resolved.bytes.len() as u64;
        match resolved.outcome {
            Outcome::Hit | Outcome::Revalidated => {}
            Outcome::Miss | Outcome::Joined => known.fetched += resolved.bytes.len() as u64,
            Outcome::Stale(_) => return Err(self.stale()),
            Outcome::Bypass(why) => return Err(PrefetchError::unkept(why)),
            Outcome::Failed(_) => return Err(PrefetchError::new(PrefetchFailure::Upstream, "it failed")),
        }
        drop(known);
        Ok(resolved)
    }

    /// Whether nearly nothing is left of the registry's allowance.
    fn is_low(&self) -> bool {
        self.mirror.spends_the_last(self.image)
    }

    /// Where a tag points now could not be found out: what is held of it may be yesterday's.
    fn stale(&self) -> PrefetchError {
        let registry = &self.image.registry;
        if self.is_low() {
            let text = format!("the allowance of {registry} is nearly used up, and is kept for pulls");
            return PrefetchError::new(PrefetchFailure::RateLimited, text);
        }
        let text = format!("{registry} cannot be asked where the tag points now");
        PrefetchError::new(PrefetchFailure::Unreachable, text)
    }

    /// Adds the blobs of a manifest to `blobs`; of an index, those of the platforms.
    async fn list(
        &self,
        manifest: &Manifest,
        platforms: &Platforms,
        blobs: &mut Vec<Descriptor>,
    ) -> Result<(), PrefetchError> {
        let mut open = vec![(Arc::new(manifest.clone()), 0)];
        // However often an index lists the same.
        let mut seen = HashSet::new();
        while let Some((manifest, depth)) = open.pop() {
            let index = match &manifest.kind {
                ManifestKind::Image { config, layers } => {
                    let parts = [config].into_iter().chain(layers).filter(|blob| !blob.is_foreign());
                    blobs.extend(parts.filter(|blob| seen.insert(blob.digest)).cloned());
                    continue;
                }
                ManifestKind::Index(index) => index,
            };
            let entries = platforms.of(index);
            if entries.is_empty() && !index.is_empty() {
                return Err(self.no_platform(index, platforms));
            }
            for entry in entries {
                if !seen.insert(entry.digest) {
                    continue;
                }
                // Artifacts may be in an index as they are, without a manifest.
                if entry.size > MANIFEST_BYTES_MAX as u64 || depth == DEPTH_MAX {
                    let text = format!("its index lists {}, which is no image", entry.digest);
                    return Err(PrefetchError::new(PrefetchFailure::Upstream, text));
                }
                let part = self.manifest(&Reference::Digest(entry.digest)).await?;
                self.mirror.store.touch(self.image, &entry.digest, false).await;
                open.push((part.manifest, depth + 1));
            }
        }
        Ok(())
    }

    fn no_platform(&self, index: &[Descriptor], platforms: &Platforms) -> PrefetchError {
        let wanted = match platforms {
            Platforms::All => "any platform".into(),
            Platforms::One(platform) => platform.to_string(),
        };
        let offered: Vec<String> = index
            .iter()
            .filter(|entry| entry.attests.is_none())
            .filter_map(|entry| entry.platform.as_ref().map(ToString::to_string))
            .take(12)
            .collect();
        let text = format!("{} is not there for {wanted}, only for {}", self.image, offered.join(", "));
        PrefetchError::new(PrefetchFailure::NoPlatform, text)
    }

    /// Fetches a blob, unless it is held.
    async fn blob(&self, blob: Descriptor) -> Result<(), PrefetchError> {
        let right = |file: &BlobFile| file.size() == blob.size;
        if self.mirror.store.open_blob(&blob.digest).await?.as_ref().is_some_and(right) {
            self.mirror.store.touch(self.image, &blob.digest, false).await;
            self.known().held += blob.size;
            return Ok(());
        }
        let unknown = || PullError::BlobUnknown { image: self.image.clone(), digest: blob.digest };
        let sources = self.mirror.sources_for(self.image).ok_or_else(unknown)?;
        self.mirror.downloads.idle().await;
        if self.mirror.paused() {
            return Err(PullError::Paused.into());
        }
        let left = self.mirror.store.left_of(&blob.digest);
        let wanted = Wanted { image: self.image.clone(), digest: blob.digest, size: Some(blob.size) };
        let download = self.mirror.downloads.ahead(wanted, &sources);
        self.known().running.insert(blob.digest, (download.download().clone(), left));
        let fetched = download.verified().await;
        let mut known = self.known();
        known.running.remove(&blob.digest);
        // What came stays, however it ended.
        let there = if fetched.is_ok() { blob.size } else { self.mirror.store.left_of(&blob.digest) };
        known.held += there;
        known.fetched += there.saturating_sub(left);
        Ok(fetched?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, platform: Option<&str>, attests: Option<&str>) -> Descriptor {
        Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            digest: Digest::of(name.as_bytes()),
            size: 1,
            platform: platform.map(|platform| platform.parse().unwrap()),
            attests: attests.map(|of| Box::new(Digest::of(of.as_bytes()))),
        }
    }

    fn chosen(platforms: &Platforms, index: &[Descriptor], names: &[&str]) {
        let got: Vec<_> = platforms.of(index).iter().map(|entry| entry.digest).collect();
        let wanted: Vec<_> = names.iter().map(|name| Digest::of(name.as_bytes())).collect();
        assert_eq!(got, wanted, "{platforms:?} of {names:?}");
    }

    #[test]
    fn a_platform_is_its_best_image_and_the_attestations_of_that() {
        let index = [
            entry("amd64", Some("linux/amd64"), None),
            entry("v6", Some("linux/arm/v6"), None),
            entry("v7", Some("linux/arm/v7"), None),
            entry("amd64-sbom", Some("unknown/unknown"), Some("amd64")),
            entry("v7-sbom", Some("unknown/unknown"), Some("v7")),
        ];
        let one = |text: &str| Platforms::One(text.parse().unwrap());
        chosen(&one("linux/amd64"), &index, &["amd64", "amd64-sbom"]);
        chosen(&one("linux/arm/v7"), &index, &["v7", "v7-sbom"]);
        chosen(&one("linux/arm/v6"), &index, &["v6"]);
        chosen(&one("linux/s390x"), &index, &[]);
        chosen(&Platforms::All, &index, &["amd64", "v6", "v7", "amd64-sbom", "v7-sbom"]);
    }

    #[test]
    fn an_entry_without_a_platform_may_be_any() {
        let index = [entry("a", None, None), entry("b", Some("linux/arm64"), None)];
        chosen(&Platforms::One("linux/amd64".parse().unwrap()), &index, &["a"]);
        chosen(&Platforms::One("linux/arm64".parse().unwrap()), &index, &["b"]);
    }
}
