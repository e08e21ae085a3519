//! Blobs in memory, for tests.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sampan_oci::Digest;

use super::{Backend, Condition, Object, Opened, Put, Staged, State};
use crate::folder::Folder;
use crate::verified::FileId;

/// Blobs in memory. Its clones share them, so that a cache can be opened again with what it held, and a test can look.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<HashMap<Digest, Arc<Kept>>>>);

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    identity: FileId,
}

impl Memory {
    /// The sum of the sizes of all blobs in bytes, and how many they are.
    pub fn totals(&self) -> (u64, u64) {
        let blobs = self.blobs();
        (blobs.values().map(|kept| kept.bytes.len() as u64).sum(), blobs.len() as u64)
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn list(&self) -> io::Result<Vec<(Digest, Option<u64>)>> {
        Ok(self.blobs().iter().map(|(digest, kept)| (*digest, Some(kept.bytes.len() as u64))).collect())
    }

    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Ok(self.blobs().get(digest).map(|kept| kept.bytes.len() as u64))
    }

    fn open(&self, digest: &Digest) -> io::Result<Opened> {
        Ok(match self.blobs().get(digest).cloned() {
            Some(kept) => Opened::Object(kept),
            None => Opened::Missing,
        })
    }

    fn put(&self, digest: &Digest, staged: &mut Staged<'_>, condition: Condition) -> io::Result<Put> {
        let state = staged.file().state()?;
        let bytes = staged.file().read_up_to(usize::MAX)?.into();
        let mut blobs = self.blobs();
        if condition == Condition::Absent && blobs.contains_key(digest) {
            return Ok(Put::Held);
        }
        let replaced = blobs.insert(*digest, Arc::new(Kept { bytes, identity: state.identity }));
        Ok(if replaced.is_some() { Put::Replaced } else { Put::Created })
    }

    fn remove(&self, digest: &Digest) -> io::Result<bool> {
        Ok(self.blobs().remove(digest).is_some())
    }

    fn move_out(&self, digest: &Digest, _to: &Folder, _name: &str) -> io::Result<()> {
        self.remove(digest).map(drop)
    }
}

impl Object for Kept {
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest =
            usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..)).unwrap_or_default();
        let filled = rest.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&rest[..filled]);
        Ok(filled)
    }

    fn state(&self) -> io::Result<State> {
        Ok(State { size: self.bytes.len() as u64, identity: self.identity })
    }

    fn as_file(&self) -> Option<&File> {
        None
    }
}
