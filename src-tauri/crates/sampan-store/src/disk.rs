//! The seam under every file operation of the store but SQLite's: the real disk, or one whose operations a test sees
//! beforehand and may refuse.

use std::fmt::Debug;
use std::fs::{File, Metadata};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::verified::FileId;

/// The disk a cache is on. Cheap to clone. A real one costs each operation one branch.
#[derive(Clone, Debug, Default)]
pub struct Disk(Option<Arc<Watch>>);

#[derive(Debug)]
struct Watch {
    witness: Arc<dyn Witness>,
    opened: AtomicU64,
}

impl Disk {
    /// The machine's disk, as it is.
    pub fn real() -> Self {
        Self(None)
    }

    /// The machine's disk, each of whose operations `witness` is asked about first.
    pub fn watched(witness: Arc<dyn Witness>) -> Self {
        Self(Some(Arc::new(Watch { witness, opened: AtomicU64::new(1) })))
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    /// The number of what is opened next.
    pub(crate) fn next_handle(&self) -> u64 {
        self.0.as_ref().map_or(0, |watch| watch.opened.fetch_add(1, Ordering::Relaxed))
    }

    /// What the witness says: up to how many bytes may be read or written.
    fn ask(&self, operation: &Operation<'_>) -> io::Result<usize> {
        match self.0.as_ref().map(|watch| watch.witness.before(operation)).transpose()? {
            None | Some(Verdict::Go) => Ok(usize::MAX),
            Some(Verdict::Short(most)) => Ok(most),
        }
    }

    fn done(&self, operation: &Operation<'_>) {
        if let Some(watch) = &self.0 {
            watch.witness.after(operation);
        }
    }

    /// Does what is done whole or not at all. One that a signal interrupted is done again.
    pub(crate) fn perform<T>(
        &self,
        operation: &Operation<'_>,
        mut act: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match self.ask(operation).and_then(|_| act()) {
                Ok(done) => {
                    self.done(operation);
                    return Ok(done);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sees every operation of a [watched](Disk::watched) disk, from any thread.
pub trait Witness: Debug + Send + Sync {
    /// Called before the operation is done.
    /// # Errors
    /// What the operation is to fail with: then it is not done. One of [`io::ErrorKind::Interrupted`] is asked about again,
    /// as after a signal; saying so for ever is a loop without end.
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict>;

    /// Called after the operation succeeded, and only then. A read or write tells how much of it was done: when that is
    /// less than was asked for, the rest is the next operation.
    fn after(&self, _operation: &Operation<'_>) {}
}

/// What is to become of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Go,
    /// A read or write is done for so many bytes at most; none read looks like the end of the file. Anything else is done.
    Short(usize),
}

/// One operation. Paths are relative to the cache folder, with `/` between their parts; the folder itself is `""`.
/// Handles number what was opened, from 1, and are never used twice; offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Opens a file or folder that exists, for reading.
    Open {
        /// What is opened.
        path: &'a str,
        /// The number it will have.
        handle: u64,
    },
    /// Opens a file for reading and writing, and makes it if it is missing. One that exists keeps its bytes.
    Create {
        /// What is opened.
        path: &'a str,
        /// The number it will have.
        handle: u64,
        /// Whether it fails if there is one of that name.
        exclusive: bool,
    },
    /// Reads from a file.
    Read {
        /// The file's number.
        handle: u64,
        /// Where.
        offset: u64,
        /// How many bytes.
        len: usize,
    },
    /// Writes to a file.
    Write {
        /// The file's number.
        handle: u64,
        /// Where.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// Cuts or lengthens a file.
    SetLen {
        /// The file's number.
        handle: u64,
        /// The size it will have.
        len: u64,
    },
    /// Makes what was written to a file survive a power cut.
    SyncFile {
        /// The file's number.
        handle: u64,
        /// Whether its times may be lost.
        data_only: bool,
    },
    /// Makes a folder's entries survive a power cut.
    SyncFolder {
        /// The folder.
        path: &'a str,
    },
    /// Moves an entry, replacing what has the new name.
    Rename {
        /// The name it has.
        from: &'a str,
        /// The name it will have.
        to: &'a str,
    },
    /// Removes an entry that is no folder.
    Remove {
        /// The entry.
        path: &'a str,
    },
    /// Reads a folder's entries, with what each of them is.
    List {
        /// The folder.
        path: &'a str,
    },
    /// Makes a folder that only its owner can enter, or makes one so that exists.
    MakeFolder {
        /// The folder.
        path: &'a str,
    },
    /// Asks what an open file or folder is: its size, its times.
    Metadata {
        /// Its number.
        handle: u64,
    },
}

impl Operation<'_> {
    /// Whether it changes what is on the disk: one that cannot be written refuses these.
    pub fn changes(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Write { .. }
            | Self::SetLen { .. }
            | Self::Rename { .. }
            | Self::Remove { .. }
            | Self::MakeFolder { .. } => true,
            Self::Open { .. }
            | Self::Read { .. }
            | Self::SyncFile { .. }
            | Self::SyncFolder { .. }
            | Self::List { .. }
            | Self::Metadata { .. } => false,
        }
    }
}

/// An open file of a cache.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    handle: u64,
    disk: Disk,
}

impl DiskFile {
    /// Takes a file that was opened as number `handle` of the disk.
    pub(crate) fn new(file: File, handle: u64, disk: &Disk) -> Self {
        Self { file, handle, disk: disk.clone() }
    }

    /// The file itself; `None` on a watched disk, so that nothing is done behind the witness's back.
    pub(crate) fn as_file(&self) -> Option<&File> {
        (!self.disk.is_watched()).then_some(&self.file)
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    pub(crate) fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let operation = |len| Operation::Read { handle: self.handle, offset, len };
        let most = self.disk.ask(&operation(buffer.len()))?.min(buffer.len());
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer[..most], offset)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&self.file, &mut buffer[..most], offset)?;
        self.disk.done(&operation(read));
        Ok(read)
    }

    /// The file's bytes from its beginning, `bytes_max` of them at most.
    pub(crate) fn read_up_to(&self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(bytes_max)];
        let filled = self.read_full_at(&mut bytes, 0)?;
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_at(&bytes[written..], offset + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let handle = self.handle;
        let most = self.disk.ask(&Operation::Write { handle, offset, bytes })?.min(bytes.len());
        #[cfg(unix)]
        let written = std::os::unix::fs::FileExt::write_at(&self.file, &bytes[..most], offset)?;
        #[cfg(windows)]
        let written = std::os::windows::fs::FileExt::seek_write(&self.file, &bytes[..most], offset)?;
        self.disk.done(&Operation::Write { handle, offset, bytes: &bytes[..written] });
        Ok(written)
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        let operation = Operation::SetLen { handle: self.handle, len };
        self.disk.perform(&operation, || self.file.set_len(len))
    }

    /// Makes the file survive a power cut. On macOS the standard library's sync is `F_FULLFSYNC`, for both of these.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        let operation = Operation::SyncFile { handle: self.handle, data_only: false };
        self.disk.perform(&operation, || self.file.sync_all())
    }

    /// Makes the file's bytes and size survive a power cut.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        let operation = Operation::SyncFile { handle: self.handle, data_only: true };
        self.disk.perform(&operation, || self.file.sync_data())
    }

    /// Tells the file from others, and from its own past.
    pub(crate) fn id(&self) -> io::Result<FileId> {
        let metadata = self.metadata()?;
        FileId::of(&self.file, &metadata)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.disk.perform(&Operation::Metadata { handle: self.handle }, || self.file.metadata())
    }

    /// Locks the file for this process alone, until it is dropped. Nothing of that is on the disk.
    pub(crate) fn try_lock(&self) -> Result<(), std::fs::TryLockError> {
        self.file.try_lock()
    }
}
