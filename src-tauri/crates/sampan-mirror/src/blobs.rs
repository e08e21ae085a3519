//! Blobs: from disk, from the one download, or passed through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use sampan_oci::{Bypass, Outcome, RangeRequest, Source};
use sampan_store::BlobFile;
use sampan_upstream::{Upstream, UpstreamError};

use crate::body::Course;
use crate::disk::{self, Check, DiskReader, HASHED_WITHIN, Soundness, sound};
use crate::download::{Download, Follower, Wanted};
use crate::error::PullError;
use crate::manifests::bypass;
use crate::mirror::Inner;
use crate::passthrough::{Passthrough, Remains};
use crate::private::Sought;
use crate::sendfile::Conduit;
use crate::sources::Sources;

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
    Disk(BlobFile, Option<Check>),
    Download(Arc<Download>),
    Through(Box<Passthrough>),
}

impl Inner {
    /// Finds a blob for a client that asks for `range` of it.
    pub(crate) async fn blob(
        self: &Arc<Self>,
        mut wanted: Wanted,
        range: Option<&str>,
    ) -> Result<Found, PullError> {
        let began = Instant::now();
        let unknown = || PullError::BlobUnknown { image: wanted.image.clone(), digest: wanted.digest };
        self.admit(&wanted.image, Sought::Blob).await?;
        let sources = self.sources_for(&wanted.image).ok_or_else(unknown)?;
        let upstream = sources.trusted().ok_or_else(unknown)?.upstream.clone();
        let link = self.store.link(&wanted.image, &wanted.digest).await?;
        let size = link.and_then(|link| link.size);
        let held = self.store.open_blob(&wanted.digest).await?;
        let mut proven = link.is_some();
        // Bytes that are here, or on their way for somebody else, are no proof of a right to them (SECURITY.md R84).
        if !proven && (held.is_some() || self.downloads.is_running(&wanted.digest)) {
            self.prove_in_time(&wanted, &upstream).await?;
            proven = true;
        }
        if let Some(file) = held
            && let Some(check) = self.sound(&file, size, range).await?
        {
            self.store.touch(&wanted.image, &wanted.digest, false).await;
            let (size, outcome, source) = (file.size(), Outcome::Hit, Source::Disk);
            let from = From::Disk(file, check);
            return Ok(Found { size, outcome, source, from, wanted, upstream });
        }
        wanted.size = size;
        if self.will_not_come(&wanted, &sources, proven) {
            let why = if self.offline() { UpstreamError::Offline } else { UpstreamError::Resting };
            return Err(PullError::upstream(&wanted.image, why));
        }
        if self.paused() {
            return self.through(wanted, upstream, Bypass::Paused, began).await;
        }
        let (download, joined) = self.downloads.join_or_start(wanted.clone(), &sources, proven);
        let (mut outcome, mut source) = (Outcome::Miss, Source::Upstream);
        if joined {
            (outcome, source) = (Outcome::Joined, Source::Joined);
            if !proven {
                // Somebody else began it a moment ago.
                self.prove_in_time(&wanted, &upstream).await?;
            }
        }
        let mut opened = opened(&download, &wanted, &upstream, began).await;
        if let Ok(0) = opened {
            // An empty answer is complete as soon as its head is sent: it is checked before.
            opened = download.verified().await.map(|()| 0);
        }
        match opened {
            Ok(size) => {
                wanted.size = Some(size);
                Ok(Found { size, outcome, source, from: From::Download(download), wanted, upstream })
            }
            Err(error) => match not_kept(&error) {
                Some(why) => self.through(wanted, upstream, why, began).await,
                // The other repository does not have it (any more); this one may.
                None if joined && matches!(error, PullError::BlobUnknown { .. }) => {
                    self.through(wanted, upstream, Bypass::Uncacheable, began).await
                }
                None => Err(error),
            },
        }
    }

    /// Whether nobody will bring this blob soon: Sampan is offline, or its upstream is left alone and nothing says that
    /// this outage is about to end. A download that goes on is followed all the same: it waits for better times.
    fn will_not_come(&self, wanted: &Wanted, sources: &Sources, proven: bool) -> bool {
        if self.downloads.is_running(&wanted.digest) {
            return false;
        }
        let is_hopeful = || sources.is_hopeful() || self.store.left_of(&wanted.digest) > 0;
        self.offline() || (sources.all_rest(proven) && !is_hopeful())
    }

    /// Whether a blob on disk may be served, and what has to be waited for before the end of the answer; `None`: it may not.
    /// One of another size than the manifest says is looked at byte by byte: it may be the manifest that is wrong, and then
    /// other images need the blob. No head goes out before that is known, however long it takes: it would promise what is
    /// left of a file that was cut, or refuse a range past its end.
    async fn sound(
        self: &Arc<Self>,
        file: &BlobFile,
        size: Option<u64>,
        range: Option<&str>,
    ) -> Result<Option<Option<Check>>, PullError> {
        let size_is_right = size.is_none_or(|known| known == file.size());
        let size = size.unwrap_or(file.size());
        let (whole, past_the_end) = match RangeRequest::parse(range, size) {
            RangeRequest::Whole => (true, false),
            RangeRequest::Part { start, end } => (start == 0 && end == size, false),
            RangeRequest::Unsatisfiable => (false, true),
        };
        let within = (size_is_right && !past_the_end).then_some(HASHED_WITHIN);
        let check = || self.clone().check(file.clone()).boxed();
        Ok(match sound(file, whole && size_is_right, check, within).await? {
            Soundness::Sound => Some(None),
            Soundness::Awaited(check) => Some(Some(check)),
            Soundness::Damaged => None,
        })
    }

    /// Hashes a blob on disk, once for all who ask for parts of it meanwhile. Damage is acted on even if all of them leave.
    async fn check(self: Arc<Self>, file: BlobFile) -> Result<bool, PullError> {
        let (store, theirs) = (self.store.clone(), file.clone());
        let work = async move { disk::check(&store, &theirs).await.map(|sound| (sound, theirs)) };
        let checked = self.checking.run(&self.tasks, file.digest(), work).await;
        let (checked, joined) = checked.ok_or(PullError::Stopping)?;
        let (sound, looked_at) = checked?;
        if !joined || (!sound && looked_at.is_same_file_as(&file)) {
            return Ok(sound);
        }
        // Somebody else's look was at the file that had this name then, and says nothing of a check at every read.
        if file.verified_meanwhile() { Ok(true) } else { disk::check(&self.store, &file).await }
    }

    /// The size of a blob for a HEAD request; nothing is downloaded for it.
    pub(crate) async fn blob_size(&self, wanted: &Wanted) -> Result<(u64, Outcome), PullError> {
        let unknown = || PullError::BlobUnknown { image: wanted.image.clone(), digest: wanted.digest };
        self.admit(&wanted.image, Sought::Blob).await?;
        let upstream = self.upstream_for(&wanted.image).ok_or_else(unknown)?;
        let link = self.store.link(&wanted.image, &wanted.digest).await?;
        if let (Some(_), Some(file)) = (&link, self.store.open_blob(&wanted.digest).await?) {
            // A file of another size is damaged, or the manifest is wrong: a GET finds out.
            return Ok((link.and_then(|link| link.size).unwrap_or(file.size()), Outcome::Hit));
        }
        let known = link.and_then(|link| link.size);
        let told = self.prove(wanted, &upstream, known).await?;
        let size = known.or(told).ok_or_else(unknown)?;
        Ok((size, Outcome::Bypass(Bypass::Uncacheable)))
    }

    /// [`prove`](Self::prove), while a client waits for headers.
    async fn prove_in_time(&self, wanted: &Wanted, upstream: &Upstream) -> Result<(), PullError> {
        let proof = tokio::time::timeout(HEADERS_WITHIN, self.prove(wanted, upstream, None)).await;
        proof.unwrap_or_else(|_| Err(PullError::upstream(&wanted.image, UpstreamError::Timeout))).map(drop)
    }

    /// Proves by the upstream's word that this repository may be served this blob (SECURITY.md R84). Returns the size it
    /// tells; a size that is `known` from a manifest is worth more and stays.
    async fn prove(
        &self,
        wanted: &Wanted,
        upstream: &Upstream,
        known: Option<u64>,
    ) -> Result<Option<u64>, PullError> {
        let size = upstream
            .head_blob(&wanted.image.repository, &wanted.digest)
            .await
            .map_err(|error| PullError::blob(&wanted.image, &wanted.digest, error))?;
        // Some registries and CDNs answer HEAD with a length of 0: that says nothing.
        let size = size.filter(|size| *size > 0);
        if let Err(error) = self.store.add_link(&wanted.image, &wanted.digest, known.or(size)).await
            && bypass(&error).is_none()
        {
            tracing::warn!(%error, "a link could not be kept");
        }
        Ok(size)
    }

    async fn through(
        self: &Arc<Self>,
        wanted: Wanted,
        upstream: Upstream,
        why: Bypass,
        began: Instant,
    ) -> Result<Found, PullError> {
        let patience = if wanted.size.is_some() { HEADERS_WITHIN } else { SIZE_WITHIN };
        let patience = patience.saturating_sub(began.elapsed());
        let open = self.passage.open(upstream.clone(), wanted.clone());
        let passing = match (tokio::time::timeout(patience, open).await, wanted.size) {
            (Ok(passing), _) => passing?,
            // As for a download: it is waited for inside the body.
            (Err(_), Some(size)) if size > 0 && upstream.health().reachable == Some(true) => {
                self.passage.later(upstream.clone(), wanted.clone(), size, None)
            }
            (Err(_), _) => return Err(PullError::upstream(&wanted.image, UpstreamError::Timeout)),
        };
        let (size, outcome, source) = (passing.size(), Outcome::Bypass(why), Source::Upstream);
        Ok(Found { size, outcome, source, from: From::Through(Box::new(passing)), wanted, upstream })
    }
}

/// Waits for a download's first word. A slow upstream is waited for inside the body, where no client has a limit; but only
/// one that is there: a promise that is not kept fails a pull which an error would have moved to the next host
/// (CLIENTS.md R-M8).
async fn opened(
    download: &Download,
    wanted: &Wanted,
    upstream: &Upstream,
    began: Instant,
) -> Result<u64, PullError> {
    let patience = if wanted.size.is_some() { HEADERS_WITHIN } else { SIZE_WITHIN };
    let patience = patience.saturating_sub(began.elapsed());
    match (tokio::time::timeout(patience, download.opened()).await, wanted.size) {
        (Ok(opened), _) => opened,
        (Err(_), Some(size))
            if size > 0 && (download.is_hopeful() || upstream.health().reachable == Some(true)) =>
        {
            download.promise();
            Ok(size)
        }
        (Err(_), _) => Err(PullError::upstream(&wanted.image, UpstreamError::Timeout)),
    }
}

/// Why the cache could not take a download, where that is the reason for its failure.
fn not_kept(error: &PullError) -> Option<Bypass> {
    match error {
        PullError::Store(error) => bypass(error),
        PullError::Paused => Some(Bypass::Paused),
        PullError::ManifestUnknown { .. }
        | PullError::BlobUnknown { .. }
        | PullError::NameUnknown { .. }
        | PullError::Private { .. }
        | PullError::Upstream { .. }
        | PullError::TooOld { .. }
        | PullError::Unwanted
        | PullError::Stopping => None,
    }
}

impl Found {
    /// The bytes `start..end`.
    /// `course` is told another outcome than [`outcome`](Self::outcome) if it changes on the way, and what is sent from a
    /// file. `conduit`: the way of files to the client's connection, if it has one.
    pub(crate) fn read(
        self,
        mirror: &Arc<Inner>,
        start: u64,
        end: u64,
        course: Arc<Course>,
        conduit: Option<&Conduit>,
    ) -> Reader {
        let Self { from, wanted, upstream, size, .. } = self;
        match from {
            From::Disk(file, check) => {
                let (store, conduit) = (mirror.store.clone(), conduit.cloned().map(|way| (way, course)));
                Reader::Disk(DiskReader::new(store, file, check, start, end, conduit))
            }
            From::Download(download) => Reader::Follow {
                follower: download.follow(start, end, size),
                download,
                start,
                end,
                mirror: mirror.clone(),
                wanted,
                upstream,
                course,
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
        start: u64,
        end: u64,
        mirror: Arc<Inner>,
        wanted: Wanted,
        upstream: Upstream,
        /// Told when the blob turns out not to be kept.
        course: Arc<Course>,
    },
    Through(Box<Passthrough>),
}

impl Reader {
    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        match self {
            Self::Disk(reader) => return reader.next().await,
            Self::Through(passing) => return passing.next().await,
            Self::Follow { follower, download, start, end, mirror, wanted, upstream, course } => {
                let error = match follower.next().await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => error,
                };
                let Some(why) = not_kept(&error) else { return Err(error) };
                course.turned_out(Outcome::Bypass(why));
                // The disk filled up in the middle, or a person paused: this client goes on without the cache.
                let at = follower.position();
                // What the client was sent is part of what is written: nothing else may be hashed in its place.
                let remains = download.remains().map(|(file, held)| Remains { file, held });
                if remains.is_none() && at > *start {
                    return Err(error);
                }
                let passage = &mirror.passage;
                let Some(size) = wanted.size else { return Err(error) };
                let mut passing = passage.later(upstream.clone(), wanted.clone(), size, remains);
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
