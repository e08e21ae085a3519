//! Damaged blobs: moved out of the way, counted, and kept for a while for whoever wants to know what happened to them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sampan_oci::{Digest, Millis};

use crate::backend::{Backend, Identity, Opened};
use crate::blob::BlobFile;
use crate::error::StoreError;
use crate::folder::Folder;
use crate::index::{self, Change};
use crate::store::{Inner, Store};
use crate::verified::Verify;

const FOLDER: &str = "quarantine";
/// What is kept of damaged files, in bytes; the oldest go first, and one larger than this is not kept at all.
const QUARANTINE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How many damaged files are kept.
const QUARANTINE_FILES_MAX: usize = 4_096;

/// The cache's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How many damaged files were found since the index exists.
    pub damaged: u64,
    /// How many of them were fetched again since.
    pub healed: u64,
    /// How many blobs are missing because of it: they are fetched again when somebody asks for them.
    pub waiting: u64,
    /// Bytes that damaged files still take.
    pub quarantine_bytes: u64,
    /// Every blob was compared with its digest at this time or later, by a scrub or when it came in; `None`: nothing is
    /// held, or something never was.
    pub checked_since: Option<Millis>,
    /// The damages found last, newest first, at most 100.
    pub newest: Vec<Damage>,
}

/// One damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The blob it was to be.
    pub digest: Digest,
    /// When it was found.
    pub found: Millis,
    /// The damaged file's size in bytes; 0 for what was no regular file.
    pub size_bytes: u64,
    /// When the blob was published again; `None`: not yet.
    pub healed: Option<Millis>,
}

/// The folder of damaged files. Each is named `<algorithm>-<hex>.<n>`, where `n` grows by one with every file.
#[derive(Debug)]
pub(crate) struct Quarantine {
    /// `None`: it could not be made; damaged files are then removed at once.
    folder: Option<Folder>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By age, oldest first: number, name and size in bytes.
    files: VecDeque<(u64, String, u64)>,
    bytes: u64,
}

impl Quarantine {
    /// Opens the folder, making it if it is missing. Blocks.
    pub(crate) fn open(root: &Folder) -> Self {
        let opened = root.child(FOLDER).and_then(|folder| Ok((Kept::read(&folder)?, folder)));
        match opened {
            Ok((kept, folder)) => Self { folder: Some(folder), kept: Mutex::new(kept) },
            Err(error) => {
                tracing::warn!(%error, "damaged blobs cannot be kept: they will be removed");
                Self { folder: None, kept: Mutex::default() }
            }
        }
    }

    /// Bytes of the files in it.
    pub(crate) fn bytes(&self) -> u64 {
        self.kept().bytes
    }

    /// Takes whatever has the blob's name out of `from`, and returns its size in bytes; a link is taken, never its target.
    /// `None`: there is nothing. Called by one at a time.
    fn take(&self, from: &dyn Backend, digest: &Digest) -> io::Result<Option<u64>> {
        let size = match from.open(digest)? {
            Opened::Object(object) => object.state()?.size,
            Opened::Foreign => 0,
            Opened::Missing => return Ok(None),
        };
        let kept_as = match &self.folder {
            Some(folder) if size <= QUARANTINE_BYTES_MAX => self.keep(folder, from, digest, size),
            Some(_) | None => None,
        };
        if kept_as.is_none() {
            from.remove(digest)?;
        }
        tracing::warn!(%digest, size_bytes = size, kept_as, "a damaged blob was taken out; it is fetched again when asked for");
        Ok(Some(size))
    }

    fn keep(&self, folder: &Folder, from: &dyn Backend, digest: &Digest, size: u64) -> Option<String> {
        let mut kept = self.kept();
        while kept.bytes.saturating_add(size) > QUARANTINE_BYTES_MAX
            || kept.files.len() >= QUARANTINE_FILES_MAX
        {
            kept.remove_oldest(folder)?;
        }
        let number = kept.files.back().map_or(1, |(last, ..)| last.saturating_add(1));
        let name = format!("{}-{}.{number}", digest.algorithm().as_str(), digest.hex());
        if let Err(error) = from.move_out(digest, folder, &name) {
            tracing::warn!(%digest, %error, "a damaged blob cannot be kept: it is removed");
            return None;
        }
        kept.bytes += size;
        kept.files.push_back((number, name.clone(), size));
        Some(name)
    }

    /// Removes everything the store put there; returns how many bytes that freed.
    pub(crate) fn empty(&self) -> u64 {
        let mut kept = self.kept();
        let before = kept.bytes;
        if let Some(folder) = &self.folder {
            while kept.remove_oldest(folder).is_some() {}
        }
        before - kept.bytes
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn read(folder: &Folder) -> io::Result<Self> {
        let mut files: Vec<(u64, String, u64)> = folder
            .entries()?
            .into_iter()
            .filter_map(|(name, size)| Some((number_of(&name)?, name, size.unwrap_or(0))))
            .collect();
        files.sort_unstable();
        let bytes = files.iter().map(|(_, _, size)| size).sum();
        Ok(Self { files: files.into(), bytes })
    }

    /// Removes the oldest that can be removed; `None`: there is none. What cannot be (a folder that stood in a blob's place)
    /// is left to the person, and still counts.
    fn remove_oldest(&mut self, folder: &Folder) -> Option<()> {
        if !folder.is_writable() {
            return None;
        }
        let removed = |(_, name, _): &(u64, String, u64)| {
            let done = folder.remove(name);
            if let Err(error) = &done {
                tracing::warn!(name, %error, "an entry of the quarantine cannot be removed");
            }
            done.is_ok()
        };
        let place = self.files.iter().position(removed)?;
        let (.., size) = self.files.remove(place)?;
        self.bytes -= size;
        Some(())
    }
}

fn number_of(name: &str) -> Option<u64> {
    let (digest, number) = name.split_once('.')?;
    digest.replacen('-', ":", 1).parse::<Digest>().ok()?;
    number.parse().ok()
}

impl Inner {
    /// Takes out what stands in a blob's place. `false`: nothing does.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<bool, StoreError> {
        // Also where it cannot be taken out: it is hashed whenever it is read from now on.
        self.verified.remove(digest);
        self.index.change(|change| self.take_out(change, digest))
    }

    /// Takes out a file that was found damaged, unless the blob's name stands for another file by now. `None`: what was
    /// found was no file.
    pub(crate) fn quarantine_file(
        &self,
        digest: &Digest,
        damaged: Option<&Identity>,
    ) -> Result<bool, StoreError> {
        self.verified.remove(digest);
        self.index.change(|change| {
            if let Some(file) = self.layout.open_blob(digest)?
                && !damaged
                    .is_some_and(|damaged| file.state().is_ok_and(|s| s.identity.is_same_object(damaged)))
            {
                return Ok(false);
            }
            self.take_out(change, digest)
        })
    }

    fn take_out(&self, change: &mut Change<'_>, digest: &Digest) -> Result<bool, StoreError> {
        let taken = self.quarantine.take(self.layout.backend(), digest)?;
        if let Some(size) = taken {
            index::damage::record(change, digest, size, self.clock.now())?;
        }
        change.forget_blob(digest)?;
        Ok(taken.is_some())
    }
}

impl Store {
    /// Takes a blob out whose file was found damaged: it is not served again. Proofs and tags stay, so that it can be
    /// fetched again. The file goes to `quarantine/`, where at most 1 GiB is kept. One that is not held is `Ok`.
    /// Where the damaged file is open, [`quarantine_file`](Self::quarantine_file) is better.
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Io`], [`StoreError::Index`].
    pub async fn quarantine(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = *digest;
        self.run(move |inner| inner.quarantine(&digest).map(drop)).await
    }

    /// As [`quarantine`](Self::quarantine), for the very file that was found damaged. If the blob was published again
    /// since, the new file stays: of many readers of one damaged file, the last must not throw away what the first has
    /// fetched again.
    /// # Errors
    /// As [`quarantine`](Self::quarantine).
    pub async fn quarantine_file(&self, damaged: &BlobFile) -> Result<(), StoreError> {
        let damaged = damaged.clone();
        self.run(move |inner| {
            let id = damaged.file().state().map_err(StoreError::Io)?.identity;
            let taken = inner.quarantine_file(&damaged.digest(), Some(&id)).map(drop);
            taken.inspect_err(|_| inner.verified.keep_damaged(damaged.digest(), id))
        })
        .await
    }

    /// Removes the damaged files that are kept; returns how many bytes that freed.
    /// # Errors
    /// [`StoreError::Stopped`].
    pub async fn empty_quarantine(&self) -> Result<u64, StoreError> {
        self.run(|inner| Ok(inner.quarantine.empty())).await
    }

    /// What is known of damage in the cache.
    /// # Errors
    /// [`StoreError::Index`].
    pub async fn health(&self) -> Result<Health, StoreError> {
        self.run(|inner| {
            let found = inner.index.report(|connection| index::damage::damages(connection))?;
            Ok(Health {
                damaged: found.found,
                healed: found.healed,
                waiting: found.waiting,
                quarantine_bytes: inner.quarantine.bytes(),
                // A check from the future tells that the clock was set back, and nothing else.
                checked_since: found.checked_since.filter(|at| *at <= inner.clock.now()),
                newest: found.newest,
            })
        })
        .await
    }

    /// When blobs are hashed before they are served, from the next opening of one on.
    pub fn set_verify(&self, verify: Verify) {
        self.0.verified.set(verify);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Files;
    use crate::disk::Disk;
    use std::fs;

    #[test]
    fn the_quarantine_keeps_the_newest_up_to_its_limits_and_only_what_the_store_made() {
        let temporary = tempfile::TempDir::new().unwrap();
        let root = Folder::open(temporary.path(), &Disk::real(), true).unwrap();
        let child = |name: &str| root.child(name).unwrap();
        let from = Files::new(child("from"), child("sha512"), child("quarantine"));
        let quarantine = Quarantine::open(&root);
        let path = temporary.path().join("from");
        let put = |number: u32, size: u64| {
            let digest = Digest::of(&number.to_le_bytes());
            // Sparse: none of these bytes are on the disk.
            fs::File::create(path.join(digest.hex())).unwrap().set_len(size).unwrap();
            quarantine.take(&from, &digest).unwrap();
        };
        let half = QUARANTINE_BYTES_MAX / 2;
        fs::write(temporary.path().join("quarantine/notes.txt"), b"mine").unwrap();
        put(1, half);
        put(2, half);
        assert_eq!(quarantine.bytes(), QUARANTINE_BYTES_MAX);
        put(3, 1);
        assert_eq!(quarantine.bytes(), half + 1, "the oldest went");
        put(4, QUARANTINE_BYTES_MAX + 1);
        assert_eq!(quarantine.bytes(), half + 1, "what is larger than the limit pushes nothing out");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "and is gone");

        let again = Quarantine::open(&root);
        assert_eq!(again.bytes(), half + 1, "counted at the next start");
        let names: Vec<u64> = again.kept().files.iter().map(|(number, ..)| *number).collect();
        assert_eq!(names, [2, 3]);
        let refusing = Quarantine::open(&Folder::open(temporary.path(), &Disk::real(), false).unwrap());
        assert_eq!(refusing.empty(), 0, "what cannot be removed frees nothing");
        assert_eq!(refusing.bytes(), half + 1, "and is counted on");
        assert_eq!(again.empty(), half + 1);
        assert_eq!(fs::read(temporary.path().join("quarantine/notes.txt")).unwrap(), b"mine");
    }
}
