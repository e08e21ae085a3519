//! Blobs: from disk, from the one download, or passed through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_oci::{Bypass, Failure, Outcome, Source};
use sampan_store::BlobFile;
use sampan_upstream::{Upstream, UpstreamError};

use crate::disk::{DiskReader, sound};
use crate::download::{Download, Follower, Wanted};
use crate::error::PullError;
use crate::manifests::bypass;
use crate::mirror::Inner;
use crate::passthrough::Passthrough;

/// How long a client waits for headers while the upstream is slow and the size is known from the manifest. Docker with
/// the containerd store gives a mirror 30 s (CLIENTS.md 2).
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// The same where only the upstream can tell the size.
const SIZE_WITHIN: Duration = Duration::from_secs(25);

/// A blob that can be served: its size is known, its bytes are there or on their way.
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) outcome: Outcome,
    pub(crate) source: Source,
    from: From,
    wanted: Wanted,
    upstream: Upstream,
}

enum From {
    Disk(BlobFile),
    Download(Arc<Download>),
    Through(Box<Passthrough>),
}

impl Inner {
    /// Finds a blob for a client that wants it whole, or a part of it.
    pub(crate) async fn blob(self: &Arc<Self>, mut wanted: Wanted, whole: bool) -> Result<Found, PullError> {
        let unknown = || PullError::BlobUnknown { image: wanted.image.clone(), digest: wanted.digest };
        let upstream = self.upstream(&wanted.image.registry).ok_or_else(unknown)?.clone();
        let link = self.store.link(&wanted.image, &wanted.digest).await?;
        if let Some(file) = self.store.open_blob(&wanted.digest).await? {
            let size = file.size();
            if link.is_none() {
                self.prove(&wanted, &upstream).await?;
            }
            let right_size = link.as_ref().and_then(|link| link.size).is_none_or(|known| known == size);
            if !right_size {
                self.store.quarantine(&wanted.digest).await?;
            } else if sound(&self.store, &wanted.digest, &file, whole).await? {
                self.store.touch(&wanted.image, &wanted.digest).await;
                let (outcome, source, from) = (Outcome::Hit, Source::Disk, From::Disk(file));
                return Ok(Found { size, outcome, source, from, wanted, upstream });
            }
        }
        wanted.size = link.and_then(|link| link.size);
        if self.paused() {
            return self.through(wanted, upstream, Bypass::Paused).await;
        }
        let (download, joined) = self.downloads.join_or_start(wanted.clone(), &upstream);
        match opened(&download, &wanted).await {
            Ok(size) => {
                let (outcome, source) = if joined {
                    (Outcome::Joined, Source::Joined)
                } else {
                    (Outcome::Miss, Source::Upstream)
                };
                Ok(Found { size, outcome, source, from: From::Download(download), wanted, upstream })
            }
            Err(error) => match not_kept(&error) {
                Some(why) => self.through(wanted, upstream, why).await,
                None => Err(error),
            },
        }
    }

    /// The size of a blob for a HEAD request; nothing is downloaded for it.
    pub(crate) async fn blob_size(&self, wanted: &Wanted) -> Result<(u64, Outcome), PullError> {
        let unknown = || PullError::BlobUnknown { image: wanted.image.clone(), digest: wanted.digest };
        let upstream = self.upstream(&wanted.image.registry).ok_or_else(unknown)?;
        let link = self.store.link(&wanted.image, &wanted.digest).await?;
        if let (Some(_), Some(file)) = (&link, self.store.open_blob(&wanted.digest).await?) {
            return Ok((file.size(), Outcome::Hit));
        }
        let told = self.prove(wanted, upstream).await?;
        let size = told.or(link.and_then(|link| link.size)).ok_or_else(unknown)?;
        Ok((size, Outcome::Bypass(Bypass::Uncacheable)))
    }

    /// Proves by the upstream's word that this repository may be served this blob (SECURITY.md R84).
    async fn prove(&self, wanted: &Wanted, upstream: &Upstream) -> Result<Option<u64>, PullError> {
        let size = upstream.head_blob(&wanted.image.repository, &wanted.digest).await.map_err(|error| {
            if error.failure() == Failure::NotFound {
                PullError::BlobUnknown { image: wanted.image.clone(), digest: wanted.digest }
            } else {
                PullError::upstream(&wanted.image, error)
            }
        })?;
        if let Err(error) = self.store.add_link(&wanted.image, &wanted.digest, size).await {
            tracing::warn!(%error, "a link could not be kept");
        }
        Ok(size)
    }

    async fn through(
        self: &Arc<Self>,
        wanted: Wanted,
        upstream: Upstream,
        why: Bypass,
    ) -> Result<Found, PullError> {
        let (clock, sink) = (self.clock.clone(), self.sink.clone());
        let passing = Passthrough::open(upstream.clone(), wanted.clone(), None, clock, sink).await?;
        let (size, outcome, source) = (passing.size(), Outcome::Bypass(why), Source::Upstream);
        Ok(Found { size, outcome, source, from: From::Through(Box::new(passing)), wanted, upstream })
    }
}

/// Waits for a download's first word. A slow upstream is waited for inside the body, where no client has a limit.
async fn opened(download: &Download, wanted: &Wanted) -> Result<u64, PullError> {
    match (
        tokio::time::timeout(
            if wanted.size.is_some() { HEADERS_WITHIN } else { SIZE_WITHIN },
            download.opened(),
        )
        .await,
        wanted.size,
    ) {
        (Ok(opened), _) => opened,
        (Err(_), Some(size)) => Ok(size),
        (Err(_), None) => Err(PullError::upstream(&wanted.image, UpstreamError::Timeout)),
    }
}

/// Why the cache could not take a download, where that is the reason for its failure.
fn not_kept(error: &PullError) -> Option<Bypass> {
    match error {
        PullError::Store(error) => bypass(error),
        PullError::ManifestUnknown { .. }
        | PullError::BlobUnknown { .. }
        | PullError::NameUnknown { .. }
        | PullError::Upstream { .. }
        | PullError::Stopping => None,
    }
}

impl Found {
    /// The bytes `start..end`.
    pub(crate) fn read(self, mirror: &Arc<Inner>, start: u64, end: u64) -> Reader {
        let Self { from, wanted, upstream, .. } = self;
        match from {
            From::Disk(file) => {
                Reader::Disk(DiskReader::new(mirror.store.clone(), wanted.digest, file, start, end))
            }
            From::Download(download) => Reader::Follow {
                follower: download.follow(start, end),
                download,
                end,
                mirror: mirror.clone(),
                wanted,
                upstream,
            },
            From::Through(mut passing) => {
                passing.limit(start, end);
                Reader::Through(passing)
            }
        }
    }
}

/// A blob's bytes on their way to one client.
pub(crate) enum Reader {
    Disk(DiskReader),
    Follow {
        follower: Follower,
        download: Arc<Download>,
        end: u64,
        mirror: Arc<Inner>,
        wanted: Wanted,
        upstream: Upstream,
    },
    Through(Box<Passthrough>),
}

impl Reader {
    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        match self {
            Self::Disk(reader) => return reader.next().await,
            Self::Through(passing) => return passing.next().await,
            Self::Follow { follower, download, end, mirror, wanted, upstream } => {
                let error = match follower.next().await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => error,
                };
                if not_kept(&error).is_none() {
                    return Err(error);
                }
                // The disk filled up in the middle: this client goes on without it.
                let at = follower.position();
                let remains = download.remains().map(|(file, _)| (file, at));
                let (clock, sink) = (mirror.clock.clone(), mirror.sink.clone());
                let mut passing =
                    Passthrough::open(upstream.clone(), wanted.clone(), remains, clock, sink).await?;
                passing.limit(at, *end);
                *self = Self::Through(Box::new(passing));
            }
        }
        match self {
            Self::Through(passing) => passing.next().await,
            Self::Disk(_) | Self::Follow { .. } => Ok(None),
        }
    }
}
