//! A blob's open file: read at any place by any number of readers.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sampan_oci::{Digest, Hasher};

use crate::backend::{Identity, Object};
use crate::error::{StoreError, blocking};
use crate::verified::Verified;

/// How much is hashed at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A blob's file, open for reading. Cheap to clone. Stays readable when the blob is published, replaced or removed.
#[derive(Clone, Debug)]
pub struct BlobFile(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    object: Arc<dyn Object>,
    digest: Digest,
    size: u64,
    /// What a published blob's file was when it was opened.
    opened: Option<Identity>,
    verified: AtomicBool,
    verified_files: Arc<Verified>,
}

impl BlobFile {
    /// Takes what is to hold the bytes `digest` names. `size`: what is promised, else the file's own.
    pub(crate) fn new(
        object: Arc<dyn Object>,
        digest: Digest,
        size: Option<u64>,
        verified_files: Arc<Verified>,
    ) -> io::Result<Self> {
        let state = object.state()?;
        let verified = AtomicBool::new(verified_files.contains(&digest, &state.identity));
        let opened = size.is_none().then_some(state.identity);
        let size = size.unwrap_or(state.size);
        Ok(Self(Arc::new(Shared { object, digest, size, opened, verified, verified_files })))
    }

    pub(crate) fn file(&self) -> &dyn Object {
        &*self.0.object
    }

    /// The open file, for whoever can hand its bytes on without reading them; `None`: the bytes are not in a file of this
    /// machine, or a test watches the disk.
    pub fn as_file(&self) -> Option<&File> {
        self.0.object.as_file()
    }

    /// The blob's size in bytes: the file's when it was opened, or what a running download was announced to have.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// The digest under which it was opened. Whether the bytes are the ones it names: [`verified`](Self::verified).
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Reads up to `len` bytes from `offset`. Short only at the end of what the file holds now.
    /// # Errors
    /// The disk's.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let shared = Arc::clone(&self.0);
        let read = move || {
            let rest = usize::try_from(shared.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut buffer = vec![0; len.min(rest)];
            let filled = shared.object.read_full_at(&mut buffer, offset)?;
            buffer.truncate(filled);
            Ok(Bytes::from(buffer))
        };
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }

    /// Whether both are one published file, whatever was written into it since; `false` where that cannot be told.
    pub fn is_same_file_as(&self, other: &Self) -> bool {
        let files = self.0.opened.as_ref().zip(other.0.opened.as_ref());
        files.is_some_and(|(this, other)| this.is_same_object(other))
    }

    /// Whether all of it was hashed, and found right, since this process started.
    pub fn verified(&self) -> bool {
        self.0.verified.load(Ordering::Acquire)
    }

    /// As [`verified`](Self::verified), also where somebody else has hashed this very file since it was opened here.
    pub fn verified_meanwhile(&self) -> bool {
        let known = |opened| self.0.verified_files.contains(&self.0.digest, opened);
        if !self.verified() && self.0.opened.as_ref().is_some_and(known) {
            self.0.verified.store(true, Ordering::Release);
        }
        self.verified()
    }

    /// Remembers that all of it was hashed, since it was opened, and found right; the file is not hashed again while it stays
    /// as it was then.
    pub fn mark_verified(&self) {
        // A published file that was changed while it was read has another identity by now, and stays unverified. One that
        // is being published gets its last identity by that.
        let state = self.0.opened.map_or_else(|| self.0.object.state().map(|state| state.identity), Ok);
        self.mark_published(state.ok());
    }

    /// Remembers that what was put in its place, with this identity, was hashed and found right.
    pub(crate) fn mark_published(&self, identity: Option<Identity>) {
        if let Some(identity) = identity {
            self.0.verified_files.insert(self.0.digest, identity);
            self.0.verified.store(true, Ordering::Release);
        }
    }

    /// Hashes the whole file, whatever was remembered of it, and remembers the result. `false`: it is damaged.
    /// # Errors
    /// [`StoreError::Io`] if it could not be read: nothing is then known of it.
    pub async fn verify(&self) -> Result<bool, StoreError> {
        let blob = self.clone();
        blocking(move || blob.verify_blocking()).await
    }

    fn verify_blocking(&self) -> Result<bool, StoreError> {
        let shared = &self.0;
        let before = shared.object.state().map_err(StoreError::Io)?.identity;
        let (digest, size) = hash(&*shared.object, shared.digest.hasher()).map_err(StoreError::Io)?;
        let good = digest == shared.digest && size == shared.size;
        if good {
            // What was changed while it was read has another identity now, and stays unverified.
            shared.verified_files.insert(shared.digest, before);
        } else {
            shared.verified_files.remove(&shared.digest);
        }
        shared.verified.store(good, Ordering::Release);
        Ok(good)
    }
}

fn hash(object: &dyn Object, mut hasher: Hasher) -> io::Result<(Digest, u64)> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let filled = object.read_full_at(&mut buffer, size)?;
        if filled == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(&buffer[..filled]);
        size += filled as u64;
    }
}

/// Hands the bytes of a range to `each`, in order and in pieces. An error: the object ends before the range does.
pub(crate) fn read_range(
    object: &dyn Object,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut offset = range.start;
    let length = |rest: u64| usize::try_from(rest).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
    let mut buffer = vec![0; length(range.end.saturating_sub(offset))];
    while offset < range.end {
        let wanted = length(range.end - offset);
        if object.read_full_at(&mut buffer[..wanted], offset)? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        each(&buffer[..wanted]);
        offset += wanted as u64;
    }
    Ok(())
}
