//! Blobs in memory, for tests.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sampan_oci::Digest;

use super::{Backend, Condition, Identity, Object, Opened, Put, Staged, State};
use crate::folder::Folder;

/// Blobs in memory. Its clones share them, so that a cache can be opened again with what it held, and a test can look.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    blobs: HashMap<Digest, Arc<Kept>>,
    /// How many were ever put.
    puts: u128,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    identity: Identity,
}

impl Memory {
    /// The sum of the sizes of all blobs in bytes, and how many they are.
    pub fn totals(&self) -> (u64, u64) {
        let blobs = &self.all().blobs;
        (blobs.values().map(|kept| kept.bytes.len() as u64).sum(), blobs.len() as u64)
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn list(&self) -> io::Result<Vec<(Digest, Option<u64>)>> {
        Ok(self.all().blobs.iter().map(|(digest, kept)| (*digest, Some(kept.bytes.len() as u64))).collect())
    }

    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        Ok(self.all().blobs.get(digest).map(|kept| kept.bytes.len() as u64))
    }

    fn open(&self, digest: &Digest) -> io::Result<Opened> {
        Ok(match self.all().blobs.get(digest).cloned() {
            Some(kept) => Opened::Object(kept),
            None => Opened::Missing,
        })
    }

    fn put(
        &self,
        digest: &Digest,
        staged: &mut Staged<'_>,
        condition: Condition,
    ) -> io::Result<(Put, Option<Identity>)> {
        let bytes = staged.file().read_up_to(usize::MAX)?.into();
        let mut all = self.all();
        if condition == Condition::Absent && all.blobs.contains_key(digest) {
            return Ok((Put::Held, None));
        }
        all.puts += 1;
        let identity = Identity::Number(all.puts);
        let replaced = all.blobs.insert(*digest, Arc::new(Kept { bytes, identity }));
        Ok((if replaced.is_some() { Put::Replaced } else { Put::Created }, Some(identity)))
    }

    fn remove(&self, digest: &Digest) -> io::Result<bool> {
        Ok(self.all().blobs.remove(digest).is_some())
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
