//! One registry behind us: what it can be asked.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Url;
use sampan_oci::{Digest, Manifest, Reference, RegistryName, RepositoryName};

use crate::allowance::Ask;
use crate::conversation::Conversation;
use crate::login::LoginOptions;
use crate::part::Part;
use crate::{Allowance, BlobBody, BlobSource, Client, Health, Limits, Referrers, TagsPage, UpstreamError};

/// Which registry an upstream is, and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The registry whose images it has.
    pub registry: RegistryName,
    /// Its origin: `https://registry-1.docker.io`. Plain `http` only where a person configured it so.
    pub url: Url,
}

/// A registry behind us. Cheap to clone; clones share tokens and health.
///
/// One that did not answer three questions in a row is left alone: manifests, tags, referrers and heads of blobs fail as
/// [`UpstreamError::Resting`] at once, until a [`probe`](Self::probe), or a download under way, has an answer.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<Conversation>);

/// A manifest, verified and read.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Its bytes, exactly as received.
    pub bytes: Bytes,
    /// What they say; its digest is that of the bytes.
    pub manifest: Manifest,
}

impl Upstream {
    /// An upstream under the limits that ship. Nothing is sent yet.
    pub fn new(config: UpstreamConfig, client: Client) -> Self {
        Self::with_limits(config, client, Limits::default())
    }

    /// An upstream under other limits.
    pub fn with_limits(config: UpstreamConfig, client: Client, limits: Limits) -> Self {
        client.trust(&config.url);
        Self(Arc::new(Conversation::new(config, client, limits)))
    }

    /// The same upstream, asked with a login: what that opens is private (SECURITY R85). The two share no token.
    #[must_use]
    pub fn with_login(&self, options: LoginOptions) -> Self {
        Self(Arc::new(self.0.with_login(options)))
    }

    /// Takes the permission to use the login back: whatever is asked from now on fails, also by those who have this
    /// upstream already.
    pub fn withdraw_login(&self) {
        if let Some(desk) = self.0.login() {
            desk.withdraw();
        }
    }

    /// Lets a login that failed a moment ago be tried at once: a person changed something.
    pub async fn try_login_again(&self) {
        if let Some(desk) = self.0.login() {
            desk.try_again().await;
        }
    }

    /// The registry whose images it has.
    pub fn registry(&self) -> &RegistryName {
        &self.0.config().registry
    }

    /// Its origin.
    pub fn url(&self) -> &Url {
        &self.0.config().url
    }

    /// Whether it answered the last request. Broken bodies do not count: their heads were answers.
    pub fn health(&self) -> Health {
        self.0.health()
    }

    /// What it lets us have, and what we spent of it; `None`: it told no numbers, and need not be left alone.
    pub fn allowance(&self) -> Option<Allowance> {
        self.0.allowance()
    }

    /// The manifests fetched within one window, oldest first: how long ago, and for which repository.
    pub fn spent(&self) -> Vec<(std::time::Duration, RepositoryName)> {
        self.0.spent()
    }

    /// Takes back what an earlier run spent: how long ago, and for which repository.
    pub fn recall(&self, spent: impl IntoIterator<Item = (std::time::Duration, RepositoryName)>) {
        self.0.recall(spent);
    }

    /// Whether so few pulls are left ([`is_low`](crate::is_low)) that they are kept for what is not held.
    pub fn is_low(&self) -> bool {
        self.0.is_low()
    }

    /// Asks which digest a reference names now; free of Docker Hub's quota. `None`: it has the manifest, but does not
    /// say the digest.
    /// # Errors
    /// [`UpstreamError`]; [`UpstreamError::Mismatch`] if it claims another digest than the one asked for;
    /// [`UpstreamError::RateLimited`] without asking while it wants to be left alone, and near the limit where it seems to
    /// count this question too.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Digest>, UpstreamError> {
        let ticket = self.0.begin(Ask::Head)?;
        self.0.asked(self.0.head_manifest(ticket, repository, reference)).await
    }

    /// Fetches a manifest of at most 4 MiB and hashes it before anything is read from it. By digest the bytes must
    /// hash to it; by tag they must hash to what `Docker-Content-Digest` claims, if it is sent.
    /// # Errors
    /// [`UpstreamError`]: nothing of it may be stored or served. [`UpstreamError::RateLimited`] without asking while it
    /// wants to be left alone.
    pub async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        let ticket = self.0.begin(Ask::Get)?;
        self.0.asked(self.0.get_manifest(ticket, repository, reference)).await
    }

    /// Asks whether the repository has a blob, and how many bytes long it is, where the upstream says so.
    /// # Errors
    /// [`UpstreamError::NotFound`] if it has none.
    pub async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, UpstreamError> {
        self.0.asked(self.0.head_blob(repository, digest)).await
    }

    /// Opens a blob from byte `from` to its end. Returns with the answer's head; the bytes follow in the stream.
    /// Where the size is known, [`get_blob_part`](Self::get_blob_part) asks the question more registries understand.
    /// # Errors
    /// [`UpstreamError::RangeRefused`] if the blob can only be had from its first byte.
    pub async fn get_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: u64,
    ) -> Result<BlobBody, UpstreamError> {
        let part = (from > 0).then_some(Part { start: from, end: None, size: None });
        self.0.opened(self.0.get_blob(repository, digest, part).await)
    }

    /// Opens the bytes `range` (end exclusive) of a blob of `size` bytes, as a closed range: some registries answer
    /// 416 to open ones (SECURITY R35). Only an honest 206 is accepted.
    /// # Errors
    /// [`UpstreamError::RangeRefused`] if the blob can only be had whole; [`UpstreamError::OtherPart`] when the upstream
    /// sends another part, or tells another size; [`UpstreamError::Protocol`] for an empty range.
    pub async fn get_blob_part(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: std::ops::Range<u64>,
        size: u64,
    ) -> Result<BlobBody, UpstreamError> {
        let part = Part::of(range, size)?;
        self.0.opened(self.0.get_blob(repository, digest, Some(part)).await)
    }

    /// A blob that is going to be asked for in many requests. Nothing is sent yet.
    pub fn blob_source(&self, repository: &RepositoryName, digest: &Digest) -> BlobSource {
        BlobSource::new(self.0.clone(), repository.clone(), *digest)
    }

    /// Lists tags, at most `n` (never more than 1000), after `last`.
    /// # Errors
    /// [`UpstreamError`].
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        n: Option<u32>,
        last: Option<&str>,
    ) -> Result<TagsPage, UpstreamError> {
        self.0.asked(self.0.tags(repository, n, last)).await
    }

    /// Lists what refers to a manifest. `None`: this upstream does not know referrers.
    /// # Errors
    /// [`UpstreamError`].
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Referrers>, UpstreamError> {
        self.0.asked(self.0.referrers(repository, digest, artifact_type)).await
    }

    /// Takes the turn to [`probe`](Self::probe) an upstream that is left alone, if it is time; at most one has it.
    pub fn take_probe(&self) -> bool {
        self.0.client().admit().is_ok() && self.0.pulse().take_probe()
    }

    /// Asks whether it answers again; any answer ends its rest. To be called by who [took the turn](Self::take_probe).
    pub async fn probe(&self) {
        let answer = self.0.ping().await;
        self.0.pulse().probed(&answer);
    }

    /// Goes offline, or online again, together with all upstreams that share its [`Client`]: offline, no request goes
    /// out, and those under way, with their bodies, end as [`UpstreamError::Offline`].
    pub fn set_offline(&self, offline: bool) {
        self.0.client().set_offline(offline);
    }

    /// Asks whether it is there. A 401 is an answer.
    /// # Errors
    /// [`UpstreamError`].
    pub async fn ping(&self) -> Result<(), UpstreamError> {
        self.0.noted(self.0.ping().await)
    }
}
