//! Attestations: fetched after a pull, so that the same pull is complete without the upstream.
//!
//! Docker from 29.1 on asks for the attestation of what it pulls, and the pull fails without it (CLIENTS.md 2). An older
//! Docker never asks, so what it pulled would not be enough for its own next version. What is fetched: the attestations of
//! those manifests of an index that somebody pulled, never those of the other platforms.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_oci::{
    Descriptor, Digest, ImageName, MANIFEST_BYTES_MAX, Manifest, ManifestKind, Outcome, Reference,
};
use tokio_util::sync::CancellationToken;

use crate::download::Wanted;
use crate::error::PullError;
use crate::manifests::Resolved;
use crate::mirror::Inner;

/// The largest blob of an attestation that is fetched unasked: package lists of large images have some MB.
const BLOB_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most blobs of one attestation.
const BLOBS_MAX: usize = 32;
/// The most attestations that wait; more are not fetched.
const WAITING_MAX: usize = 256;
/// The most manifests of indexes that are remembered; beyond it all are forgotten, until their index is asked for again.
const KNOWN_MAX: usize = 4096;
/// How long no blob may have been under way before anything is fetched unasked: the pull's own come first.
const QUIET: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Which attestations there are, and which are fetched next.
#[derive(Debug)]
pub(crate) struct Attestations {
    wanted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By what they attest.
    known: HashMap<(ImageName, Digest), Vec<Descriptor>>,
    waiting: VecDeque<(ImageName, Descriptor)>,
    /// Whether a task takes from `waiting`.
    busy: bool,
}

impl Default for Attestations {
    fn default() -> Self {
        Self { wanted: AtomicBool::new(true), state: Mutex::default() }
    }
}

impl Attestations {
    /// Whether anything is fetched that nobody asked for.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers which manifests of an index have attestations.
    fn learn(&mut self, image: &ImageName, index: &[Descriptor]) {
        let attesting = index.iter().filter(|entry| entry.size <= MANIFEST_BYTES_MAX as u64);
        for (of, entry) in attesting.filter_map(|entry| entry.attests.as_deref().map(|of| (*of, entry))) {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            let entries = self.known.entry((image.clone(), of)).or_default();
            if !entries.contains(entry) {
                entries.push(entry.clone());
            }
        }
    }

    /// Puts the attestations of a manifest that is being pulled in the queue. Whether a task has to be started for it.
    fn pulled(&mut self, image: &ImageName, manifest: &Digest) -> bool {
        // Remembered no longer: the next pull asks for the index again.
        let Some(entries) = self.known.remove(&(image.clone(), *manifest)) else { return false };
        let room = WAITING_MAX.saturating_sub(self.waiting.len());
        self.waiting.extend(entries.into_iter().take(room).map(|entry| (image.clone(), entry)));
        !std::mem::replace(&mut self.busy, true)
    }

    /// The next one; `None` ends the task.
    fn next(&mut self) -> Option<(ImageName, Descriptor)> {
        let next = self.waiting.pop_front();
        self.busy = next.is_some();
        next
    }
}

impl Inner {
    /// Looks at a manifest that a client was answered with: an index tells which attestations there are, an image which of
    /// them are needed.
    pub(crate) fn attest(self: &Arc<Self>, image: &ImageName, resolved: &Resolved) {
        let kept =
            matches!(resolved.outcome, Outcome::Hit | Outcome::Revalidated | Outcome::Miss | Outcome::Joined);
        if !kept || !self.fetches_unasked() {
            return;
        }
        let start = match &resolved.manifest.kind {
            ManifestKind::Index(entries) => {
                if entries.iter().any(|entry| entry.attests.is_some()) {
                    self.attestations.state().learn(image, entries);
                }
                false
            }
            ManifestKind::Image { .. } => self.attestations.state().pulled(image, &resolved.manifest.digest),
        };
        if start {
            let this = self.clone();
            self.tasks.spawn("attestations", |token| async move { this.fetch_attestations(token).await });
        }
    }

    fn fetches_unasked(&self) -> bool {
        self.attestations.wanted.load(Ordering::Relaxed) && !self.paused()
    }

    /// Fetches what waits, one after the other.
    async fn fetch_attestations(self: Arc<Self>, token: CancellationToken) {
        loop {
            // Bound first: the lock is not held while anything is fetched.
            let next = self.attestations.state().next();
            let Some((image, entry)) = next else { return };
            let fetched = async { self.quiet().await && self.fetch_attestation(&image, &entry).await };
            tokio::select! {
                _ = fetched => {}
                () = token.cancelled() => return,
            }
        }
    }

    /// Waits until no blob has been under way for a while. `false`: nothing is fetched unasked any more.
    async fn quiet(&self) -> bool {
        let mut quiet_for = Duration::ZERO;
        while quiet_for < QUIET {
            tokio::time::sleep(LOOK_EVERY).await;
            quiet_for = if self.downloads.is_idle() { quiet_for + LOOK_EVERY } else { Duration::ZERO };
            if !self.fetches_unasked() {
                return false;
            }
        }
        true
    }

    /// Fetches an attestation and what it lists, as far as it is not held. Whether all of it is held now.
    async fn fetch_attestation(self: &Arc<Self>, image: &ImageName, entry: &Descriptor) -> bool {
        let resolved = match self.manifest(image, &Reference::Digest(entry.digest)).await {
            Ok(resolved) => resolved,
            Err(error) => {
                tracing::info!(%image, digest = %entry.digest, %error, "an attestation could not be fetched");
                return false;
            }
        };
        if resolved.manifest.is_index() || matches!(resolved.outcome, Outcome::Bypass(_)) {
            return false;
        }
        for blob in blobs(&resolved.manifest) {
            if let Err(error) = self.fetch_unasked(image, blob).await {
                tracing::info!(%image, digest = %blob.digest, %error, "a blob of an attestation could not be fetched");
                return false;
            }
        }
        tracing::debug!(%image, digest = %entry.digest, "an attestation is held");
        true
    }

    /// Downloads a blob that no client asks for, unless it is held.
    async fn fetch_unasked(self: &Arc<Self>, image: &ImageName, blob: &Descriptor) -> Result<(), PullError> {
        if self.store.open_blob(&blob.digest).await?.is_some_and(|file| file.size() == blob.size) {
            return Ok(());
        }
        if !self.downloads.is_idle() && !self.quiet().await || !self.fetches_unasked() {
            return Err(PullError::Paused);
        }
        let Some(sources) = self.sources_for(image) else { return Err(PullError::Stopping) };
        let wanted = Wanted { image: image.clone(), digest: blob.digest, size: Some(blob.size) };
        self.downloads.ahead(wanted, &sources).verified().await
    }
}

/// What of an attestation is fetched: all of it within bounds, and nothing that is elsewhere.
fn blobs(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    manifest.descriptors().filter(|blob| blob.size <= BLOB_BYTES_MAX && !blob.is_foreign()).take(BLOBS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attestation(of: &Digest, size: u64) -> Descriptor {
        let digest = Digest::of(format!("of {of}").as_bytes());
        Descriptor { media_type: "x".into(), digest, size, platform: None, attests: Some(Box::new(*of)) }
    }

    #[test]
    fn only_the_attestations_of_what_is_pulled_are_fetched_and_each_once() {
        let image: ImageName = "docker.io/library/alpine".parse().unwrap();
        let other: ImageName = "ghcr.io/library/alpine".parse().unwrap();
        let (arm, amd, large) = (Digest::of(b"arm"), Digest::of(b"amd"), Digest::of(b"large"));
        let too_large = MANIFEST_BYTES_MAX as u64 + 1;
        let index = [attestation(&arm, 1), attestation(&amd, 1), attestation(&large, too_large)];
        let mut state = State::default();
        state.learn(&image, &index);
        state.learn(&image, &index);
        assert!(!state.pulled(&other, &arm), "another repository's");
        assert!(!state.pulled(&image, &large), "too large for a manifest");
        assert!(state.pulled(&image, &arm), "the first one needs a task");
        assert!(!state.pulled(&image, &arm));
        assert_eq!(state.next(), Some((image, index[0].clone())));
        assert_eq!(state.next(), None);
        assert!(!state.busy);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let image: ImageName = "docker.io/library/alpine".parse().unwrap();
        let mut state = State::default();
        for n in 0..KNOWN_MAX + 10 {
            state.learn(&image, &[attestation(&Digest::of(&n.to_be_bytes()), 1)]);
            assert!(state.known.len() <= KNOWN_MAX);
        }
        let of = Digest::of(b"x");
        for n in 0..WAITING_MAX + 10 {
            let image: ImageName = format!("docker.io/a/a{n}").parse().unwrap();
            state.learn(&image, &[attestation(&of, 1)]);
            state.pulled(&image, &of);
        }
        assert_eq!(state.waiting.len(), WAITING_MAX);
    }
}
