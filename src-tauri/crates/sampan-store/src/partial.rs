//! A download that outlives the process: written anywhere, gone on with later, published when it is whole.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sampan_oci::{Digest, Hasher, RangeSet};

use crate::blob::{self, BlobFile};
use crate::disk::DiskFile;
use crate::error::{StoreError, blocking};
use crate::ledger::{self, Claim, Found, Ledger};
use crate::publish::{self, Origin};
use crate::session::Session;
use crate::store::Inner;

/// How many bytes one write reads again at most, to hash them. A hole at the beginning that is filled last must not keep
/// its writer waiting for gigabytes behind it.
const REREAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The bytes of one download, as far as they are there. Dropping it keeps them, for the next [`Store::partial`]; only one
/// that holds nothing leaves nothing.
///
/// Cancel safety of all its methods: what was begun is done to its end and is consistent, but this `Partial` does not
/// learn of it and is dead ([`StoreError::Dead`]). The same holds after an error of the disk. Opening it again goes on.
///
/// [`Store::partial`]: crate::Store::partial
#[derive(Debug)]
pub struct Partial {
    session: Arc<Session>,
    file: Arc<DiskFile>,
    blob: BlobFile,
    held: RangeSet,
    hashed: u64,
    /// `None`: an operation failed or was given up half-way, and what is on disk is not known here.
    work: Option<Work>,
}

/// What one operation after the other works with.
#[derive(Debug)]
struct Work {
    ledger: Ledger,
    /// Knows the first `hashed` bytes.
    hasher: Hasher,
    hashed: u64,
}

impl Partial {
    /// Opens or makes the files, and reads again what the ledger claims. Blocks. Whoever wants them next waits until this
    /// one is [taken over](Self::opened) or dropped.
    pub(crate) fn open(store: &Arc<Inner>, digest: Digest, size: u64) -> Result<Self, StoreError> {
        store.refuse_if_read_only()?;
        let session = Session::begin(store, digest)?;
        let (folder, names) = (session.folder(), &session.names);
        let data = folder.open_file(&names.data)?;
        // One that the disk cannot read vouches for nothing.
        let found = folder.open_file(&names.ledger)?.and_then(|ledger| Found::read(&ledger).ok().flatten());
        let left = data.zip(found).filter(|(_, found)| found.size == size);
        let Some((_, found)) = left else {
            // First, so that what is of no use takes no room from what is to come.
            folder.remove(&names.ledger)?;
            folder.remove(&names.data)?;
            session.reserve(size, 0)?;
            let file = Arc::new(folder.open_for_writing(&names.data, true)?);
            let ledger = Ledger::begin(folder, names, size)?;
            let blob = BlobFile::new(file.clone(), digest, Some(size), Arc::clone(&store.verified))?;
            let work = Work { ledger, hasher: digest.hasher(), hashed: 0 };
            return Ok(Self { session, file, blob, held: RangeSet::new(), hashed: 0, work: Some(work) });
        };
        let file = Arc::new(folder.open_for_writing(&names.data, false)?);
        let blob = BlobFile::new(file.clone(), digest, Some(size), Arc::clone(&store.verified))?;
        let (whole, claimed) = (found.whole, found.claims.len());
        let checked = Checked::check(&file, &digest, found.claims);
        session.reserve(size, checked.held.len())?;
        if file.metadata()?.len() > size {
            file.set_len(size)?;
        }
        let Checked { claims, held, hasher, hashed } = checked;
        let ledger = if whole && claims.len() == claimed {
            Ledger::resume(folder, names, size, claims)?
        } else {
            Ledger::replace(folder, names, size, claims)?
        };
        tracing::debug!(%digest, size_bytes = size, held_bytes = held.len(), "a download goes on");
        let work = Work { ledger, hasher, hashed };
        Ok(Self { session, file, blob, held, hashed, work: Some(work) })
    }

    /// Says that its caller has it.
    pub(crate) fn opened(&self) {
        self.session.opened();
    }

    /// The same file for reading. What of it is not [held](Self::held) reads as zeros or as nothing.
    pub fn reader(&self) -> BlobFile {
        self.blob.clone()
    }

    /// The blob's size in bytes, as it was announced.
    pub fn size(&self) -> u64 {
        self.blob.size()
    }

    /// The bytes that are on disk and in the ledger, as far as this `Partial` knows.
    pub fn held(&self) -> &RangeSet {
        &self.held
    }

    /// How many bytes from the beginning have gone through the digest's hasher. It may lag behind what is held, also
    /// when everything is: [`write`](Self::write) and [`publish`](Self::publish) catch up.
    pub fn hashed(&self) -> u64 {
        self.hashed
    }

    /// Writes pieces, each at its offset, and hashes on as far as the bytes held now reach from the beginning without a
    /// gap, but reads no more than 16 MiB again for that. Bytes that are held already are skipped, never overwritten; of
    /// pieces that overlap the first one counts.
    /// # Errors
    /// [`StoreError::Size`] if a piece ends beyond the blob: then nothing is written, and this `Partial` goes on.
    /// [`StoreError::Full`], [`StoreError::ReadOnly`] and [`StoreError::Io`] from the disk; [`StoreError::Dead`].
    pub async fn write(&mut self, pieces: Vec<(u64, Bytes)>) -> Result<(), StoreError> {
        let (expected, ends) = (self.size(), pieces.iter().map(|(at, bytes)| end_of(*at, bytes)));
        if let Some(actual) = ends.max().filter(|end| *end > expected) {
            return Err(StoreError::Size { expected, actual });
        }
        let mut work = self.take_work()?;
        let (pieces, added) = self.missing(pieces);
        let until = self.reach(&added);
        if !pieces.is_empty() || self.hashed < until {
            let (file, session, size) = (Arc::clone(&self.file), Arc::clone(&self.session), expected);
            let done = blocking(move || work.write(&file, size, &session, &pieces, until).map(|()| work));
            work = done.await?;
        }
        for range in added.iter() {
            self.held.insert(range);
        }
        self.hashed = work.hashed;
        self.work = Some(work);
        Ok(())
    }

    /// Makes what is held now survive a power cut; without it a power cut costs what the system had not written yet. The
    /// future is independent of this `Partial`: bytes may be written while a slow disk syncs. It must have ended before
    /// [`publish`](Self::publish), which might not hear of an error that this one was told.
    /// # Errors
    /// What the disk said. A failed sync is final (SECURITY.md R64): both files are gone, and this `Partial` is dead.
    pub fn sync(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let ledger = self.work().map(|work| work.ledger.file());
        let (file, session) = (Arc::clone(&self.file), Arc::clone(&self.session));
        async move {
            let ledger = ledger.ok_or(StoreError::Dead)?;
            blocking(move || sync(&file, &ledger, &session).inspect_err(|_| session.reject())).await
        }
    }

    /// Makes the bytes readable under their digest, as [`Stage::publish`](crate::Stage::publish) does. What is not
    /// [hashed](Self::hashed) yet is read again before that.
    /// # Errors
    /// [`StoreError::Mismatch`] and errors of the sync: both files are gone. [`StoreError::Size`] if bytes are missing,
    /// and what the disk or the index said before the rename: they stay, and can be opened again. In each case nothing
    /// new is under `blobs/`.
    /// # Cancel safety
    /// Dropping the future leaves the blob whole or absent.
    pub async fn publish(self) -> Result<(), StoreError> {
        self.session.leave();
        blocking(move || self.publish_blocking()).await
    }

    fn publish_blocking(mut self) -> Result<(), StoreError> {
        let mut work = self.take_work()?;
        let (expected, actual) = (self.size(), self.held.len());
        if actual != expected {
            return Err(StoreError::Size { expected, actual });
        }
        work.hash(&self.file, &BTreeMap::new(), expected, u64::MAX)?;
        let Work { ledger, hasher, .. } = work;
        drop(ledger);
        publish::prove(&self.file, &self.blob.digest(), hasher).inspect_err(|_| self.session.reject())?;
        let mut name = Some(self.session.names.data.clone());
        let (store, file, blob) = (&self.session.store, &self.file, &self.blob);
        let done = publish::enter(store, file, blob, &mut name, Origin::Link, |_| Ok(()));
        if name.is_none() {
            self.session.reject();
        }
        done
    }

    /// Removes both files; open readers go on.
    /// # Errors
    /// What the disk said.
    pub async fn discard(self) -> Result<(), StoreError> {
        self.session.leave();
        blocking(move || self.session.remove()).await
    }

    /// `None` once an operation failed or was given up half-way.
    fn work(&self) -> Option<&Work> {
        self.work.as_ref().filter(|_| !self.session.is_gone())
    }

    fn take_work(&mut self) -> Result<Work, StoreError> {
        self.work.take().filter(|_| !self.session.is_gone()).ok_or(StoreError::Dead)
    }

    /// What of the pieces is not held, as disjoint pieces by their offsets, and the bytes they add.
    fn missing(&self, pieces: Vec<(u64, Bytes)>) -> (BTreeMap<u64, Bytes>, RangeSet) {
        let (mut missing, mut added) = (BTreeMap::new(), RangeSet::new());
        for (at, bytes) in pieces {
            let range = at..end_of(at, &bytes);
            for outer in self.held.gaps(range.clone()) {
                for gap in added.gaps(outer) {
                    // Inside the piece, so that it fits.
                    let index = |offset: u64| usize::try_from(offset - at).unwrap_or(usize::MAX);
                    missing.insert(gap.start, bytes.slice(index(gap.start)..index(gap.end)));
                }
            }
            added.insert(range);
        }
        (missing, added)
    }

    /// How far the bytes held, with those added, reach from what is hashed.
    fn reach(&self, added: &RangeSet) -> u64 {
        let mut reach = self.hashed;
        loop {
            let next = added.end_of_run(self.held.end_of_run(reach));
            if next == reach {
                return reach;
            }
            reach = next;
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.session.leave();
    }
}

fn end_of(at: u64, bytes: &Bytes) -> u64 {
    at.saturating_add(bytes.len() as u64)
}

impl Work {
    /// Writes, then claims, then hashes towards `until`.
    fn write(
        &mut self,
        file: &DiskFile,
        size: u64,
        session: &Session,
        pieces: &BTreeMap<u64, Bytes>,
        until: u64,
    ) -> io::Result<()> {
        let bytes_max = ledger::claim_bytes_max(size);
        let (mut claims, mut written) = (Vec::new(), 0);
        for (at, bytes) in pieces {
            file.write_all_at(bytes, *at)?;
            let mut start = *at;
            for part in bytes.chunks(usize::try_from(bytes_max).unwrap_or(usize::MAX)) {
                ledger::add(&mut claims, Claim::of(start, part), bytes_max);
                start += part.len() as u64;
            }
            written += bytes.len() as u64;
        }
        self.ledger.append(session.folder(), &session.names, &claims)?;
        session.wrote(written);
        self.hash(file, pieces, until, REREAD_BYTES_MAX)
    }

    /// Hashes up to `until`, from `pieces` where one is next, else from the file; ends earlier once `reread_max` bytes
    /// were read.
    fn hash(
        &mut self,
        file: &DiskFile,
        pieces: &BTreeMap<u64, Bytes>,
        until: u64,
        mut reread_max: u64,
    ) -> io::Result<()> {
        while self.hashed < until {
            if let Some(bytes) = pieces.get(&self.hashed) {
                self.hasher.update(bytes);
                self.hashed += bytes.len() as u64;
                continue;
            }
            let next = pieces.range(self.hashed..until).next().map_or(until, |(at, _)| *at);
            let read = (next - self.hashed).min(reread_max);
            if read == 0 {
                break;
            }
            let range = self.hashed..self.hashed + read;
            blob::read_range(file, range, |bytes| self.hasher.update(bytes))?;
            self.hashed += read;
            reread_max -= read;
        }
        Ok(())
    }
}

/// The bytes before the claims, although a claim whose bytes are lost is found out; then the names of both files.
fn sync(file: &DiskFile, ledger: &DiskFile, session: &Session) -> io::Result<()> {
    file.sync_data()?;
    ledger.sync_data()?;
    session.folder().sync()
}

/// What of a ledger's claims is true.
#[derive(Debug)]
struct Checked {
    claims: Vec<Claim>,
    held: RangeSet,
    hasher: Hasher,
    hashed: u64,
}

impl Checked {
    /// Reads every claimed byte once. What the disk cannot read is as little held as what it has wrong.
    fn check(file: &DiskFile, digest: &Digest, mut claims: Vec<Claim>) -> Self {
        claims.sort_unstable_by_key(|claim| claim.start);
        let (mut held, mut hashed) = (RangeSet::new(), 0);
        let mut prefix = digest.hasher();
        claims.retain(|claim| {
            let mut crc = crc32fast::Hasher::new();
            let mut ahead = (claim.start == hashed).then(|| prefix.clone());
            let read = blob::read_range(file, claim.start..claim.end, |bytes| {
                crc.update(bytes);
                if let Some(ahead) = &mut ahead {
                    ahead.update(bytes);
                }
            });
            let good = read.is_ok() && crc.finalize() == claim.crc;
            if good {
                held.insert(claim.start..claim.end);
                if let Some(ahead) = ahead {
                    (prefix, hashed) = (ahead, claim.end);
                }
            } else {
                tracing::warn!(%digest, start = claim.start, end = claim.end, "a partial download lost bytes");
            }
            good
        });
        Self { claims, held, hasher: prefix, hashed }
    }
}

#[cfg(all(test, unix))]
mod tests;
