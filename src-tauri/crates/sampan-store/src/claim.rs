//! Taking a cache folder: whose it is, and its lock.

use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Operation};
use crate::error::OpenError;
use crate::folder::Folder;
use crate::index_copy::IndexCopy;

const LOCK: &str = "lock";
pub(crate) const MARKER: &str = "oci-layout";
/// What file systems and file managers put into an empty folder by themselves.
const BYSTANDERS: [&str; 2] = ["lost+found", ".DS_Store"];
/// No process's number is as long.
const PID_BYTES_MAX: usize = 20;

/// A cache folder that is ours and locked, before anything in it was read or changed.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) root: Folder,
    /// The index, of a cache that cannot be written.
    pub(crate) index_copy: Option<IndexCopy>,
    pub(crate) lock: Arc<Lock>,
}

/// The file that keeps other processes out.
#[derive(Debug)]
pub(crate) struct Lock {
    file: DiskFile,
    /// Whether it does. A cache that cannot be written is used without, where the system locks only what can be.
    obtained: bool,
}

impl Claim {
    /// Takes the folder at `path`, making it (0700) if it is missing.
    pub(crate) fn take(path: &Path, disk: &Disk) -> Result<Self, OpenError> {
        Self::take_for_writing(path, disk, None)
    }

    /// Takes for writing what this process has [taken read-only](Self::take_read_only), with that `lock`. It is never let go
    /// of in between, so that no other process comes first. Where it was never obtained, others may have come first.
    pub(crate) fn take_again(path: &Path, disk: &Disk, lock: &Arc<Lock>) -> Result<Self, OpenError> {
        Self::take_for_writing(path, disk, Some(lock))
    }

    fn take_for_writing(path: &Path, disk: &Disk, held: Option<&Arc<Lock>>) -> Result<Self, OpenError> {
        make_folder(path, disk)?;
        let root = open_root(path, disk, true)?;
        let names = root.names()?;
        let empty = names.iter().all(|name| BYSTANDERS.iter().any(|bystander| name == bystander));
        let ours = empty || names.iter().any(|name| name == LOCK);
        if !ours || !root.make_private(empty)? {
            return Err(OpenError::NotOurs(root.path().to_owned()));
        }
        let lock = root.open_for_writing(LOCK, false)?;
        if empty {
            // It is what says that the folder is ours: a power cut must not take it and leave what is made after it.
            root.sync()?;
        }
        let lock = match (lock.try_lock(), held) {
            (Ok(()), _) => {
                sign(&lock)?;
                Arc::new(Lock { file: lock, obtained: true })
            }
            // Ours from before: whoever could only read the folder did not sign.
            (Err(TryLockError::WouldBlock), Some(held))
                if held.obtained && is_same_file(&held.file, &lock)? =>
            {
                // Windows lets nobody write what is locked by another handle: there it stays unsigned.
                if cfg!(unix) {
                    sign(&lock)?;
                }
                Arc::clone(held)
            }
            (Err(TryLockError::WouldBlock), _) => return Err(locked(&lock)),
            (Err(TryLockError::Error(error)), _) => return Err(error.into()),
        };
        Ok(Self { root, index_copy: None, lock })
    }

    /// Takes a folder that cannot be written, without changing anything; `None`: it never was a cache.
    pub(crate) fn take_read_only(path: &Path, disk: &Disk) -> Result<Option<Self>, OpenError> {
        let root = match open_root(path, disk, false) {
            Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let (Some(lock), Some(_)) = (root.open_file(LOCK)?, root.open_file(MARKER)?) else { return Ok(None) };
        if !root.make_private(false)? {
            return Err(OpenError::NotOurs(root.path().to_owned()));
        }
        let obtained = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return Err(locked(&lock)),
            // Some systems lock only what can be written. Whoever could write this cache would not have it read-only.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "a cache that cannot be written cannot be locked: used without");
                false
            }
        };
        let index_copy = Some(IndexCopy::make(&root)?);
        Ok(Some(Self { root, index_copy, lock: Arc::new(Lock { file: lock, obtained }) }))
    }

    /// The folder the index is in.
    pub(crate) fn index_folder(&self) -> &Folder {
        self.index_copy.as_ref().map_or(&self.root, |copy| &copy.folder)
    }
}

/// Writes into the lock who has it.
fn sign(lock: &DiskFile) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}

fn is_same_file(one: &DiskFile, other: &DiskFile) -> io::Result<bool> {
    Ok(one.id()?.is_same_file(&other.id()?))
}

fn make_folder(path: &Path, disk: &Disk) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    disk.perform(&Operation::MakeFolder { path: "" }, || builder.create(path))
}

fn open_root(path: &Path, disk: &Disk, writable: bool) -> Result<Folder, OpenError> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(OpenError::NotOurs(path.to_owned()));
    }
    // SQLite refuses links in any component of its path, and on macOS `/tmp` and `/var` are links.
    #[cfg(unix)]
    let path = &fs::canonicalize(path)?;
    Folder::open(path, disk, writable).map_err(|error| {
        let theirs = matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied);
        if theirs { OpenError::NotOurs(PathBuf::from(path)) } else { OpenError::Io(error) }
    })
}

/// One process per cache (SECURITY.md R69). The system releases the lock when its holder ends, however it ends.
fn locked(lock: &DiskFile) -> OpenError {
    // Windows lets nobody else read a locked file: then the holder stays unnamed.
    let text = lock.read_up_to(PID_BYTES_MAX).unwrap_or_default();
    OpenError::Locked { pid: String::from_utf8_lossy(&text).trim().parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_for_ours_only_where_it_was_obtained() {
        let temporary = tempfile::tempdir().unwrap();
        let (path, disk) = (temporary.path().join("cache"), Disk::real());
        let claim = Claim::take(&path, &disk).unwrap();
        Claim::take_again(&path, &disk, &claim.lock).expect("ours is ours");

        // As a disk has it that locks only what can be written: this one reads without, and another process writes by now.
        let file = claim.root.open_file(LOCK).unwrap().unwrap();
        let without = Arc::new(Lock { file, obtained: false });
        let refused = Claim::take_again(&path, &disk, &without).map(drop);
        assert!(matches!(refused, Err(OpenError::Locked { .. })), "{refused:?}");
        drop(claim);
        Claim::take_again(&path, &disk, &without).expect("the other has left");
    }
}
