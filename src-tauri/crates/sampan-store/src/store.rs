//! The store's interface: everything other crates can ask of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sampan_oci::{Clock, Digest, ImageName, MANIFEST_BYTES_MAX, Manifest, MediaType, Millis, Platform, Tag};

use crate::backend::{Identity, Keep, Opened};
use crate::blob::BlobFile;
use crate::claim::Claim;
use crate::disk::Disk;
use crate::error::{OpenError, StoreError, blocking};
use crate::index::{self, Change, Index, Word};
use crate::layout::Layout;
use crate::leftover;
use crate::own::Own;
use crate::partial::Partial;
use crate::quarantine::Quarantine;
use crate::quota::Stuck;
use crate::reopen::Current;
use crate::room::Running;
use crate::session::Partials;
use crate::settle::Settled;
use crate::stage::Stage;
use crate::undo::Waiting;
use crate::verified::{Verified, Verify};

/// How to open a [`Store`].
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The cache folder; made if it is missing.
    pub dir: PathBuf,
    /// Tells the time written into the index.
    pub clock: Arc<dyn Clock>,
    /// Downloads are refused ([`StoreError::Full`]) when the disk would have fewer bytes left than this.
    pub free_space_floor_bytes: u64,
    /// The most bytes the cache may take ([`Store::set_quota`]); `None`: whatever the disk has.
    pub quota: Option<u64>,
    /// When blobs are hashed before they are served.
    pub verify: Verify,
    /// What its file operations go through.
    pub disk: Disk,
    /// Where published blobs are kept.
    pub backend: Keep,
}

impl StoreOptions {
    /// A cache in `dir`, in files of the machine's disk, that may fill it.
    pub fn new(dir: PathBuf, clock: Arc<dyn Clock>) -> Self {
        let (disk, backend, verify) = (Disk::real(), Keep::Files, Verify::default());
        Self { dir, clock, free_space_floor_bytes: 0, quota: None, verify, disk, backend }
    }
}

/// An open cache. Cheap to clone; the cache is released when the last clone, the last [`Stage`] and the last
/// [`Partial`] are dropped.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Current);

/// What a tag points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldTag {
    /// The digest of its manifest, which is held, or which a person froze the tag at.
    pub digest: Digest,
    /// When an upstream last confirmed it.
    pub checked: Millis,
    /// Whether a person wants it to stay there: its upstream is not asked.
    pub frozen: bool,
}

/// The proof that a repository shows a digest to everybody (SECURITY.md R84).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The size in bytes, where a manifest or upstream told it.
    pub size: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) free_space_floor_bytes: u64,
    pub(crate) quota: Arc<Mutex<Option<u64>>>,
    /// Held by whoever makes room.
    pub(crate) making_room: Mutex<()>,
    /// How many wait for room, or make it for a download that waits.
    pub(crate) in_need: AtomicU32,
    pub(crate) stuck: Stuck,
    /// What was cleared and may be wanted back.
    pub(crate) waiting: Waiting,
    pub(crate) verified: Arc<Verified>,
    pub(crate) quarantine: Quarantine,
    pub(crate) settled: Settled,
    pub(crate) own: Own,
    pub(crate) running: Arc<Running>,
    pub(crate) partials: Partials,
    /// Platforms read from image configurations; at most one for each image held.
    pub(crate) platforms: Mutex<HashMap<Digest, Option<Platform>>>,
    pub(crate) index: Index,
    /// Last, so that the lock outlives the index's files.
    pub(crate) layout: Layout,
}

/// A blob that was read whole.
#[derive(Debug)]
pub(crate) enum Small {
    Right(Bytes),
    /// Wrong bytes, or too many, in this file.
    Damaged(Identity),
    Missing,
}

impl Store {
    /// Locks the cache, removes what cannot be gone on with in `partial/` (staged bytes, and partial downloads that are
    /// damaged or were not written to for 14 days), opens the index and squares it with the files. Blocks.
    /// An index that is lost or damaged is made anew from the blobs, and tags, proofs and pins from `index.json` as it was
    /// last [settled](Self::settle_layout).
    /// A cache that cannot be written is opened [read-only](Self::is_read_only), if it was one before.
    /// # Errors
    /// [`OpenError`]; a folder that is not ours, in use, or of a newer Sampan is left as it was.
    pub fn open(options: StoreOptions) -> Result<Self, OpenError> {
        let open = |claim| {
            let (quota, verified) = (Arc::new(Mutex::new(options.quota)), Arc::<Verified>::default());
            verified.set(options.verify);
            Inner::open(claim, options.clone(), quota, verified)
        };
        let refused = match Claim::take(&options.dir, &options.disk).and_then(open) {
            Ok(inner) => return Ok(Self(Current::new(inner, options))),
            Err(error) if error.forbids_writing() => error,
            Err(error) => return Err(error),
        };
        let Some(claim) = Claim::take_read_only(&options.dir, &options.disk)? else { return Err(refused) };
        let inner = open(claim)?;
        tracing::warn!(error = %refused, "the cache cannot be written: what it holds is served, and nothing is kept");
        Ok(Self(Current::new(inner, options)))
    }

    /// Whether the cache could not be written when it was opened (SECURITY.md R70), nor since ([`recover`](Self::recover)).
    /// What it holds is served; whatever would change it is [`StoreError::ReadOnly`], and uses are not noted.
    pub fn is_read_only(&self) -> bool {
        self.0.layout.is_read_only()
    }

    /// The cache folder, as it was given.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        run_on(&self.0, work).await
    }

    async fn change(
        &self,
        work: impl FnOnce(&mut Change<'_>, Millis) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        self.run(|inner| inner.index.change(|change| work(change, inner.clock.now()))).await
    }

    /// Opens a published blob for reading. `None`: not held. Its bytes were right when it was published; whether they
    /// still are: [`BlobFile::verified`].
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        let digest = *digest;
        self.run(move |inner| inner.open_or_take_out(digest)).await
    }

    /// How many bytes of this blob an earlier [`partial`](Self::partial) left, by its ledger. Costs no look at the disk.
    pub fn left_of(&self, digest: &Digest) -> u64 {
        self.0.partials.bytes_of(digest)
    }

    /// Begins a download of `size` bytes that ends with the process, if not before. Where room is lacking, other things
    /// make way as for [`partial`](Self::partial).
    /// # Errors
    /// [`StoreError::Full`] if the disk would have less left than the floor, or the cache take more than its quota; [`StoreError::ReadOnly`].
    pub async fn stage(&self, digest: &Digest, size: u64) -> Result<Stage, StoreError> {
        let digest = *digest;
        self.run(move |inner| Stage::begin(inner, digest, size)).await
    }

    /// Opens the partial download of a blob of `size` bytes. What an earlier one left, in this process or before it, is
    /// held already as far as its ledger vouches for it: every claimed byte is read again and compared with its
    /// checksum. Otherwise, or if that one was of another size, it begins empty. Waits for one that was dropped in the
    /// middle of a write, and for an opening that was given up half-way. Where room is lacking, images
    /// that are not pinned and partials that nobody has open make way, the one not used or written to for the longest
    /// first; images that lead to what is being downloaded do not. Where that would not be enough, nothing makes way.
    /// # Errors
    /// [`StoreError::Full`] if the disk would have less left than the floor with the missing bytes written, or the cache
    /// take more than its quota, whoever made way (what is held stays); [`StoreError::ReadOnly`]; [`StoreError::Io`], with
    /// [`std::io::ErrorKind::ResourceBusy`] if this process has it open.
    pub async fn partial(&self, digest: &Digest, size: u64) -> Result<Partial, StoreError> {
        let digest = *digest;
        let partial = self.run(move |inner| Partial::open(inner, digest, size)).await?;
        // Not before: what was opened for a caller who left must not look as if somebody had it.
        partial.opened();
        Ok(partial)
    }

    /// Stages and publishes bytes that are in memory.
    /// # Errors
    /// [`StoreError::Mismatch`] if they are not what `digest` names, and what [`stage`](Self::stage),
    /// [`Stage::append`] and [`Stage::publish`] say.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), StoreError> {
        self.put_with(digest, bytes, |_| Ok(())).await
    }

    async fn put_with<F>(&self, digest: &Digest, bytes: Bytes, record: F) -> Result<(), StoreError>
    where
        F: FnOnce(&mut Change<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        let mut stage = self.stage(digest, bytes.len() as u64).await?;
        stage.append(bytes).await?;
        stage.publish_with(record).await
    }

    /// What a tag points at, if its manifest is held.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn held_tag(&self, image: &ImageName, tag: &Tag) -> Result<Option<HeldTag>, StoreError> {
        // One opening of the cache for all of the question: what another tells is of no generation of this one.
        let inner = &*self.0;
        if let Some(held) = inner.index.hot.tag(image, tag) {
            return Ok(Some(held));
        }
        let generation = inner.index.hot.generation();
        let (image, tag) = (image.clone(), tag.clone());
        run_on(inner, move |inner| {
            // Before the row is read: what is written meanwhile is in the row.
            let confirmed = inner.index.confirmed(&image, &tag);
            let Some(mut held) = inner.index.look_up(|c| index::held_tag(c, &image, &tag))? else {
                return Ok(None);
            };
            held.checked = confirmed.map_or(held.checked, |at| held.checked.max(at));
            inner.index.hot.keep_tag(generation, &image, &tag, held);
            Ok(Some(held))
        })
        .await
    }

    /// Points a tag at a digest, confirmed now. That it once pointed there stays in its history.
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Index`].
    pub async fn set_tag(&self, image: &ImageName, tag: &Tag, digest: &Digest) -> Result<(), StoreError> {
        let (image, tag, digest) = (image.clone(), tag.clone(), *digest);
        self.change(move |change, now| change.set_tag(&image, &tag, &digest, now)).await
    }

    /// Notes that an upstream confirmed the tag now; written as [uses](Self::touch) are. A tag that is not known stays
    /// unknown.
    #[expect(clippy::unused_async, reason = "a store elsewhere than on this disk will have to wait here")]
    pub async fn touch_tag(&self, image: &ImageName, tag: &Tag) {
        let inner = &*self.0;
        let now = inner.clock.now();
        let due = inner.index.touch_tag(image, tag, now);
        inner.index.hot.confirm(image, tag, now);
        write_touched_if(due, inner);
    }

    /// A manifest's bytes and media type, if it is held and linked to the image. The bytes are hashed whenever they are
    /// read, and then kept in memory until the index changes about it, at most a day; damaged ones are removed, and the answer is
    /// `None`.
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Index`].
    pub async fn manifest(
        &self,
        image: &ImageName,
        digest: &Digest,
    ) -> Result<Option<(Bytes, MediaType)>, StoreError> {
        let inner = &*self.0;
        if inner.verified.verify() != Verify::Always
            && let Some(kept) = inner.index.hot.manifest(image, digest)
        {
            return Ok(Some(kept));
        }
        let generation = inner.index.hot.generation();
        let (image, digest) = (image.clone(), *digest);
        run_on(inner, move |inner| {
            let Some(media_type) = inner.index.look_up(|c| index::media_type(c, &image, &digest))? else {
                return Ok(None);
            };
            let damaged = match inner.small_blob(&digest)? {
                Small::Right(bytes) => {
                    inner.index.hot.keep_manifest(generation, &image, &digest, &bytes, media_type);
                    return Ok(Some((bytes, media_type)));
                }
                Small::Damaged(damaged) => Some(damaged),
                Small::Missing => None,
            };
            // Damaged bytes are not served, whether or not a read-only disk lets them be removed. And what was fetched
            // again since they were read is another file.
            if let Err(error) = inner.quarantine_file(&digest, damaged.as_ref()) {
                tracing::warn!(%digest, %error, "a damaged manifest could not be removed");
            }
            Ok(None)
        })
        .await
    }

    /// Publishes a manifest, and records in the same transaction what it is, what it lists, and that the image shows all of
    /// that. `bytes` must be the very bytes `manifest` was read from.
    /// # Errors
    /// As [`put`](Self::put); nothing of it is then kept.
    pub async fn put_manifest(
        &self,
        image: &ImageName,
        manifest: &Manifest,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let (image, manifest, size) = (image.clone(), manifest.clone(), bytes.len() as u64);
        let clock = Arc::clone(&self.0.clock);
        self.put_with(&manifest.digest.clone(), bytes, move |change| {
            change.record_manifest(&image, &manifest, size, Word::Proof, clock.now())
        })
        .await
    }

    /// The proof that the image shows this digest, if there is one.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn link(&self, image: &ImageName, digest: &Digest) -> Result<Option<Link>, StoreError> {
        let inner = &*self.0;
        if let Some(link) = inner.index.hot.link(image, digest) {
            return Ok(Some(link));
        }
        let generation = inner.index.hot.generation();
        let (image, digest) = (image.clone(), *digest);
        run_on(inner, move |inner| {
            let link = inner.index.look_up(|c| index::link(c, &image, &digest))?;
            if let Some(link) = link {
                inner.index.hot.keep_link(generation, &image, &digest, link);
            }
            Ok(link)
        })
        .await
    }

    /// Records such a proof. `size` in bytes, where the upstream told it; one that is known already stays known.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn add_link(
        &self,
        image: &ImageName,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<(), StoreError> {
        let (image, digest) = (image.clone(), *digest);
        self.change(move |change, now| change.add_link(&image, &digest, size, now)).await
    }

    /// Notes that the image's manifest or blob was used now; with `served`, that a client which asked for this manifest was
    /// answered from what is held. Costs no disk access: uses are written together, within about
    /// a minute of use, and before anything is listed or cleared.
    #[expect(clippy::unused_async, reason = "a store elsewhere than on this disk will have to wait here")]
    pub async fn touch(&self, image: &ImageName, digest: &Digest, served: bool) {
        let inner = &*self.0;
        let due = inner.index.touch(image, *digest, served, inner.clock.now());
        write_touched_if(due, inner);
    }

    /// Writes the uses noted so far, removes what [`clear_later`](Self::clear_later) hid, and leaves the folder so that the
    /// next start can tell damage done to the index in between; for shutdown.
    /// # Errors
    /// As [`set_tag`](Self::set_tag) and [`clear`](Self::clear).
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.run(|inner| {
            let written = inner.index.write_touched().and_then(|()| inner.settle_all());
            inner.keep_age(true);
            inner.settle_for_good();
            written
        })
        .await
    }

    /// The image's tags whose manifests are held, in byte order.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn tags(&self, image: &ImageName) -> Result<Vec<Tag>, StoreError> {
        let image = image.clone();
        self.run(move |inner| inner.index.look_up(|c| index::tags(c, &image))).await
    }

    /// The body kept by [`put_referrers`](Self::put_referrers).
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn referrers(&self, image: &ImageName, subject: &Digest) -> Result<Option<Bytes>, StoreError> {
        let (image, subject) = (image.clone(), *subject);
        self.run(move |inner| inner.index.look_up(|c| index::referrers(c, &image, &subject))).await
    }

    /// Keeps an upstream's list of what refers to `subject`, for when the upstream cannot answer.
    /// # Errors
    /// As [`set_tag`](Self::set_tag).
    pub async fn put_referrers(
        &self,
        image: &ImageName,
        subject: &Digest,
        body: Bytes,
    ) -> Result<(), StoreError> {
        let (image, subject) = (image.clone(), *subject);
        self.change(move |change, _| change.put_referrers(&image, &subject, &body)).await
    }
}

async fn run_on<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let inner = Arc::clone(inner);
    blocking(move || work(&inner)).await
}

fn write_touched_if(due: bool, inner: &Arc<Inner>) {
    if due {
        let inner = Arc::clone(inner);
        drop(tokio::task::spawn_blocking(move || inner.write_touched()));
    }
}

impl Inner {
    /// Opens what was claimed. `quota` and `verified` are what is in force and known already.
    pub(crate) fn open(
        claim: Claim,
        options: StoreOptions,
        quota: Arc<Mutex<Option<u64>>>,
        verified: Arc<Verified>,
    ) -> Result<Self, OpenError> {
        let StoreOptions { dir, clock, free_space_floor_bytes, quota: _, verify: _, disk: _, backend } =
            options;
        index::refuse_future(claim.index_folder())?;
        let layout = Layout::prepare(claim, backend)?;
        let idle = if layout.is_read_only() {
            HashMap::new()
        } else {
            leftover::sweep(&layout.partial, leftover::now(&layout, clock.now())?)?
        };
        let quarantine = Quarantine::open(&layout.root);
        let index = Index::open(&layout, clock.now())?;
        Ok(Self {
            dir,
            clock,
            free_space_floor_bytes,
            quota,
            making_room: Mutex::default(),
            in_need: AtomicU32::new(0),
            stuck: Stuck::default(),
            waiting: Waiting::default(),
            verified,
            quarantine,
            settled: Settled::default(),
            own: Own::default(),
            running: Arc::default(),
            partials: Partials::new(idle),
            platforms: Mutex::default(),
            index,
            layout,
        })
    }

    pub(crate) fn refuse_if_read_only(&self) -> Result<(), StoreError> {
        if self.layout.is_read_only() { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    fn open_blob(&self, digest: Digest) -> Result<Option<BlobFile>, StoreError> {
        // A file that may not be read is damage of the disk's kind, not "read-only".
        let file = self.layout.open_blob(&digest).map_err(StoreError::Io)?;
        let open = |file| BlobFile::new(file, digest, None, Arc::clone(&self.verified));
        file.map(open).transpose().map_err(StoreError::Io)
    }

    /// As [`open_blob`](Self::open_blob), and takes out what stands in the blob's place without being one. Not within a
    /// change of the index, which this makes.
    fn open_or_take_out(&self, digest: Digest) -> Result<Option<BlobFile>, StoreError> {
        let found = self.open_blob(digest)?;
        let foreign = || {
            matches!(self.layout.backend().open(&digest), Ok(Opened::Foreign)) && !self.layout.is_read_only()
        };
        if found.is_none()
            && foreign()
            && let Err(error) = self.quarantine(&digest)
        {
            tracing::warn!(%digest, %error, "what is in the place of a blob is none, and cannot be taken out");
        }
        // One that is known to be damaged and cannot be removed is as if it were not there: it is passed through.
        Ok(found.filter(|blob| {
            let state = blob.file().state();
            state.is_ok_and(|state| !self.verified.is_damaged(&digest, &state.identity))
        }))
    }

    /// A blob of a manifest's size, hashed.
    pub(crate) fn small_blob(&self, digest: &Digest) -> Result<Small, StoreError> {
        let Some(blob) = self.open_blob(*digest)? else { return Ok(Small::Missing) };
        let damaged = || Ok(Small::Damaged(blob.file().state().map_err(StoreError::Io)?.identity));
        let Some(size) = usize::try_from(blob.size()).ok().filter(|size| *size <= MANIFEST_BYTES_MAX) else {
            return damaged();
        };
        let mut bytes = vec![0; size];
        let filled = blob.file().read_full_at(&mut bytes, 0).map_err(StoreError::Io)?;
        if filled == size && digest.names(&bytes) { Ok(Small::Right(bytes.into())) } else { damaged() }
    }

    /// Removes a file that was published and could not be recorded.
    pub(crate) fn take_back(&self, digest: &Digest) {
        let done = self.index.change(|change| self.remove_blob(change, digest));
        if let Err(error) = done {
            tracing::error!(%digest, %error, "a blob that could not be recorded could not be removed; the next start counts it");
        }
    }
}
