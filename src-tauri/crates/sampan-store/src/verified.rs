//! Which blobs' files were found right, when that was, and when a file is another one than it was.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sampan_oci::Digest;

use crate::backend::Identity;
use crate::moment::Moment;

/// Published blobs whose hashing is remembered. Beyond it the half that was hashed first is forgotten, which costs
/// hashing again.
const VERIFIED_MAX: usize = 65_536;

/// Damaged files that stay where they are and are remembered; beyond it all are forgotten, which costs finding them again.
const DAMAGED_MAX: usize = 1024;

/// How long a file that was found right counts as right. By a clock that only goes forward: no step of the wall clock
/// makes a check older or younger (SECURITY.md R75).
const CHECK_AGE_MAX: Duration = Duration::from_hours(24);

/// When a blob's file is hashed before it is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// On its first read since start, and again when the last check is older than a day.
    #[default]
    Daily,
    /// On every read.
    Always,
}

/// Which files were hashed whole and found right since this process started.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    verify: Verify,
    files: HashMap<Digest, Check>,
    /// Files that were found damaged, and that the disk did not let be taken out.
    damaged: HashMap<Digest, Identity>,
    /// Counts the checks, so that the older half can be told where the clock is too coarse.
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Check {
    id: Identity,
    at: Moment,
    turn: u64,
}

impl Verified {
    /// Whether this very file was found right lately enough.
    pub(crate) fn contains(&self, digest: &Digest, id: &Identity) -> bool {
        self.contains_at(digest, id, Moment::now())
    }

    fn contains_at(&self, digest: &Digest, id: &Identity, now: Moment) -> bool {
        let memory = self.memory();
        let known = memory.files.get(digest).filter(|check| check.id == *id);
        known.is_some_and(|check| now.since(check.at) < CHECK_AGE_MAX)
    }

    /// Remembers that this file was found right now.
    pub(crate) fn insert(&self, digest: Digest, id: Identity) {
        self.insert_at(digest, id, Moment::now());
    }

    fn insert_at(&self, digest: Digest, id: Identity, at: Moment) {
        let mut memory = self.memory();
        if memory.verify == Verify::Always {
            return;
        }
        if memory.files.len() >= VERIFIED_MAX && !memory.files.contains_key(&digest) {
            memory.forget_older_half();
        }
        memory.turn += 1;
        let turn = memory.turn;
        memory.files.insert(digest, Check { id, at, turn });
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        self.memory().files.remove(digest);
    }

    /// Remembers a damaged file that could not be taken out: it is not to be served, whoever asks.
    pub(crate) fn keep_damaged(&self, digest: Digest, id: Identity) {
        let mut memory = self.memory();
        if memory.damaged.len() >= DAMAGED_MAX {
            memory.damaged.clear();
        }
        memory.damaged.insert(digest, id);
    }

    /// Whether it is known that this very file is damaged.
    pub(crate) fn is_damaged(&self, digest: &Digest, id: &Identity) -> bool {
        self.memory().damaged.get(digest) == Some(id)
    }

    /// What was [set](Self::set).
    pub(crate) fn verify(&self) -> Verify {
        self.memory().verify
    }

    /// Takes effect with the next opening of a blob.
    pub(crate) fn set(&self, verify: Verify) {
        let mut memory = self.memory();
        memory.verify = verify;
        if verify == Verify::Always {
            memory.files.clear();
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn forget_older_half(&mut self) {
        let mut turns: Vec<u64> = self.files.values().map(|check| check.turn).collect();
        let middle = turns.len() / 2;
        let (_, median, _) = turns.select_nth_unstable(middle);
        self.files.retain(|_, check| check.turn >= *median);
    }
}

/// Tells a file from its replacements and from its own past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    size: u64,
    identity: [u64; 2],
    modified: [i64; 2],
    /// Unlike the time of the last write, this one cannot be set back. Renaming a file changes it too.
    changed: [i64; 2],
}

impl FileId {
    /// `metadata` must be the file's.
    #[cfg(unix)]
    #[expect(clippy::unnecessary_wraps, reason = "the other system's form of it can fail")]
    pub(crate) fn of(_file: &File, metadata: &Metadata) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        Ok(Self {
            size: metadata.len(),
            identity: [metadata.dev(), metadata.ino()],
            modified: [metadata.mtime(), metadata.mtime_nsec()],
            changed: [metadata.ctime(), metadata.ctime_nsec()],
        })
    }

    /// `metadata` must be the file's. What the standard library tells of a file there does not tell it from the one that
    /// had its name a moment ago: that hands its time of creation on to whoever takes the name within 15 s. There is no time
    /// of change that cannot be set: damage by a program that sets the time of the last write back, and keeps the size, is
    /// found by the next check and not before.
    #[cfg(windows)]
    pub(crate) fn of(file: &File, metadata: &Metadata) -> io::Result<Self> {
        use std::os::windows::fs::MetadataExt;
        let written = i64::try_from(metadata.last_write_time()).unwrap_or(i64::MAX);
        // By the number of the volume and that of the file on it.
        let handle = same_file::Handle::from_file(file.try_clone()?)?;
        let identity = [number_of(&handle), metadata.creation_time()];
        Ok(Self { size: metadata.len(), identity, modified: [written, 0], changed: [0, 0] })
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether both are one file, whatever was done to it in between.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// One number for what can be compared but not looked into: the same for equal ones, in this process.
#[cfg(any(windows, test))]
fn number_of(comparable: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    comparable.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_have_one_number_and_others_another() {
        assert_eq!(number_of(&(1_u64, 2_u64)), number_of(&(1_u64, 2_u64)));
        assert_ne!(number_of(&(1_u64, 2_u64)), number_of(&(1_u64, 3_u64)));
        assert_ne!(number_of(&(1_u64, 2_u64)), number_of(&(2_u64, 2_u64)));
    }

    #[test]
    fn a_file_is_the_same_by_whatever_name_and_handle_and_its_successor_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let id = |path: &std::path::Path| {
            let file = File::open(path).unwrap();
            FileId::of(&file, &file.metadata().unwrap()).unwrap()
        };
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::write(&one, b"bytes").unwrap();
        let before = id(&one);
        assert_eq!(before, id(&one));
        // Both there, so that no number of a file is used again.
        std::fs::write(&other, b"bytes").unwrap();
        assert!(!before.is_same_file(&id(&other)));
        std::fs::rename(&other, &one).unwrap();
        assert!(!before.is_same_file(&id(&one)), "in the place of the first within a moment");
    }

    fn file(size: u64) -> FileId {
        FileId { size, identity: [1, 2], modified: [3, 4], changed: [5, 6] }
    }

    fn id(size: u64) -> Identity {
        Identity::File(file(size))
    }

    fn digest(number: usize) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn a_check_counts_for_a_day_and_for_one_state_of_one_file() {
        let (verified, began) = (Verified::default(), Moment::now());
        verified.insert_at(digest(1), id(7), began);
        let almost = began + Duration::from_secs(24 * 3600 - 1);
        assert!(verified.contains_at(&digest(1), &id(7), almost));
        assert!(!verified.contains_at(&digest(1), &id(7), began + CHECK_AGE_MAX), "a day old");
        assert!(!verified.contains_at(&digest(2), &id(7), began));
        let others = [
            FileId { size: 8, ..file(7) },
            FileId { identity: [1, 3], ..file(7) },
            FileId { modified: [3, 5], ..file(7) },
            FileId { changed: [5, 7], ..file(7) },
        ];
        for other in others.map(Identity::File).into_iter().chain([Identity::Number(7)]) {
            assert!(!verified.contains_at(&digest(1), &other, began), "{other:?}");
        }
        verified.insert_at(digest(1), id(7), almost);
        assert!(verified.contains_at(&digest(1), &id(7), began + CHECK_AGE_MAX), "checked again since");
        verified.remove(&digest(1));
        assert!(!verified.contains_at(&digest(1), &id(7), almost));
    }

    #[test]
    fn with_always_nothing_is_remembered() {
        let verified = Verified::default();
        verified.insert(digest(1), id(1));
        verified.set(Verify::Always);
        assert!(!verified.contains(&digest(1), &id(1)), "also what was remembered before");
        verified.insert(digest(1), id(1));
        verified.set(Verify::Daily);
        assert!(!verified.contains(&digest(1), &id(1)), "a check made meanwhile was for that read only");
        verified.insert(digest(1), id(1));
        assert!(verified.contains(&digest(1), &id(1)));
    }

    #[test]
    fn the_memory_is_bounded_and_the_newer_half_stays() {
        let verified = Verified::default();
        for number in 0..VERIFIED_MAX {
            verified.insert(digest(number), id(1));
        }
        verified.insert(digest(0), id(1));
        assert_eq!(verified.memory().files.len(), VERIFIED_MAX, "a blob known already needs no room");
        verified.insert(digest(VERIFIED_MAX), id(1));
        assert_eq!(verified.memory().files.len(), VERIFIED_MAX / 2 + 1);
        assert!(verified.contains(&digest(0), &id(1)), "checked again a moment ago");
        assert!(!verified.contains(&digest(1), &id(1)));
        assert!(verified.contains(&digest(VERIFIED_MAX - 1), &id(1)));
        assert!(verified.contains(&digest(VERIFIED_MAX), &id(1)));
    }
}
