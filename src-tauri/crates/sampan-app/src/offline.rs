//! Whether an image can be pulled with the network off: everything a pull asks for is looked for and hashed, point by
//! point. Nothing here asks a registry.

use std::collections::HashSet;

use sampan_mirror::Platforms;
use sampan_oci::{Descriptor, Digest, ImageName, Manifest, ManifestKind, Reference};
use sampan_store::StoreError;

use crate::api::{ApiError, OfflineCheck, OfflineImage, OfflinePart, OfflineProblem};
use crate::app::{Inner, invalid};
use crate::{convert, image_name, prefetch};

/// How deep indexes may be in indexes.
const DEPTH_MAX: usize = 3;

/// The checklist while it is made.
struct Looking<'a> {
    inner: &'a Inner,
    image: ImageName,
    platforms: Platforms,
    checks: Vec<OfflineCheck>,
    hashed: u64,
}

impl Inner {
    /// Looks at one image, for one platform or all.
    pub(crate) async fn verify_offline(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<OfflineImage, ApiError> {
        let (name, platform) = prefetch::wanted(name, platform)?;
        let (image, reference) = image_name::parse(&name).map_err(invalid)?;
        let platforms = prefetch::platforms(&platform)?;
        let mut looking = Looking { inner: self, image, platforms, checks: Vec::new(), hashed: 0 };
        looking.look(&reference).await.map_err(|error| convert::store_failed(&error))?;
        let Looking { checks, hashed, .. } = looking;
        let holds = checks.iter().all(|check| check.problem.is_none());
        if !holds {
            // What was set aside is gone from the list.
            self.list_changed();
        }
        Ok(OfflineImage { name, platform, holds, hashed_bytes: hashed, checks })
    }
}

impl Looking<'_> {
    fn check(
        &mut self,
        what: OfflinePart,
        name: impl Into<String>,
        size_bytes: Option<u64>,
        problem: Option<OfflineProblem>,
    ) {
        self.checks.push(OfflineCheck { what, name: name.into(), size_bytes, problem });
    }

    async fn look(&mut self, reference: &Reference) -> Result<(), StoreError> {
        let registry = self.image.registry.clone();
        let mirrored = self.inner.mirror.upstreams().any(|upstream| *upstream.registry() == registry);
        let problem = (!mirrored).then_some(OfflineProblem::NotMirrored);
        self.check(OfflinePart::Registry, registry.to_string(), None, problem);
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let held = self.inner.store.held_tag(&self.image, tag).await?;
                let problem = held.is_none().then_some(OfflineProblem::Missing);
                self.check(OfflinePart::Tag, tag.to_string(), None, problem);
                let Some(held) = held else { return Ok(()) };
                held.digest
            }
        };
        let mut open = vec![(digest, OfflinePart::Manifest, 0)];
        // However often an index lists the same.
        let mut seen = HashSet::new();
        while let Some((digest, part, depth)) = open.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let Some(manifest) = self.manifest(&digest, part).await? else { continue };
            match &manifest.kind {
                ManifestKind::Image { config, layers } => self.parts(part, config, layers).await?,
                ManifestKind::Index(index) if depth < DEPTH_MAX => {
                    let chosen: Vec<Descriptor> = self.platforms.of(index).into_iter().cloned().collect();
                    self.platform(index, &chosen);
                    for entry in chosen.iter().rev() {
                        let attests = entry.attests.is_some();
                        let part = if attests { OfflinePart::Attestation } else { OfflinePart::Manifest };
                        open.push((entry.digest, part, depth + 1));
                    }
                }
                ManifestKind::Index(_) => {
                    self.check(OfflinePart::Index, digest.to_string(), None, Some(OfflineProblem::Missing));
                }
            }
        }
        Ok(())
    }

    fn platform(&mut self, index: &[Descriptor], chosen: &[Descriptor]) {
        let name = match &self.platforms {
            Platforms::All => "all".into(),
            Platforms::One(platform) => platform.to_string(),
        };
        let missing = chosen.is_empty() && !index.is_empty();
        self.check(OfflinePart::Platform, name, None, missing.then_some(OfflineProblem::Missing));
    }

    /// A manifest, read from the disk and hashed.
    async fn manifest(&mut self, digest: &Digest, part: OfflinePart) -> Result<Option<Manifest>, StoreError> {
        let problem = self.blob(digest, None).await?;
        let mut manifest = None;
        if problem.is_none()
            && let Some((bytes, media_type)) = self.inner.store.manifest(&self.image, digest).await?
        {
            manifest = Manifest::parse(&bytes, Some(media_type.as_str()), Some(digest)).ok();
        }
        let is_index = manifest.as_ref().is_some_and(Manifest::is_index);
        let what = if is_index && part == OfflinePart::Manifest { OfflinePart::Index } else { part };
        let problem = problem.or_else(|| manifest.is_none().then_some(OfflineProblem::Missing));
        self.check(what, digest.to_string(), None, problem);
        Ok(manifest)
    }

    async fn parts(
        &mut self,
        part: OfflinePart,
        config: &Descriptor,
        layers: &[Descriptor],
    ) -> Result<(), StoreError> {
        let attests = part == OfflinePart::Attestation;
        let kind = |other| if attests { OfflinePart::Attestation } else { other };
        let all = [(kind(OfflinePart::Config), config)];
        let layers = layers.iter().map(|layer| (kind(OfflinePart::Layer), layer));
        for (what, blob) in all.into_iter().chain(layers) {
            // Clients get those from elsewhere, or not at all.
            if blob.is_foreign() {
                continue;
            }
            let problem = self.blob(&blob.digest, Some(blob.size)).await?;
            self.check(what, blob.digest.to_string(), Some(blob.size), problem);
        }
        Ok(())
    }

    /// What is wrong with a blob, all of it read. Damage is set aside, so that the next fetch mends it.
    async fn blob(
        &mut self,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<OfflineProblem>, StoreError> {
        let store = &self.inner.store;
        let Some(file) = store.open_blob(digest).await? else { return Ok(Some(OfflineProblem::Missing)) };
        match file.verify().await {
            Ok(true) if size.is_none_or(|size| size == file.size()) => {}
            Ok(_) => {
                if let Err(error) = store.quarantine_file(&file).await {
                    tracing::warn!(%digest, %error, "a damaged blob could not be set aside");
                }
                return Ok(Some(OfflineProblem::Damaged));
            }
            Err(StoreError::Io(error)) => {
                tracing::warn!(%digest, %error, "a blob cannot be read");
                return Ok(Some(OfflineProblem::Unreadable));
            }
            Err(error) => return Err(error),
        }
        self.hashed += file.size();
        let proven = store.link(&self.image, digest).await?.is_some();
        Ok((!proven).then_some(OfflineProblem::Unproven))
    }
}
