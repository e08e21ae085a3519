//! A folder held open, whose entries are reached through it and never through a symbolic link (SECURITY.md R66, R67).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An open folder. Names given to its methods are single path components made by this crate.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    #[cfg(unix)]
    handle: rustix::fd::OwnedFd,
}

/// What a name in a folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file of this size in bytes.
    File { size: u64 },
    /// A link, a folder, a pipe: in a store, damage.
    Other,
}

impl Folder {
    /// Where the folder is; for messages, for SQLite and for listing.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens an entry for reading. `None`: it is missing, or it is something else than a regular file, which in a
    /// store is damage.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        let file = match self.open_any(name) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(self.not_a_file(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.is_file() { Ok(Some(file)) } else { Ok(self.not_a_file(name)) }
    }

    fn not_a_file(&self, name: &str) -> Option<File> {
        tracing::warn!(folder = %self.path.display(), name, "an entry of the cache is not a regular file: ignored");
        None
    }

    /// The size in bytes of a regular file; `None` if there is none of that name.
    pub(crate) fn size_of(&self, name: &str) -> io::Result<Option<u64>> {
        self.open_file(name)?.map(|file| Ok(file.metadata()?.len())).transpose()
    }

    /// Regular files of this folder as (name, size in bytes). Names that are not UTF-8 are not ours, and left out.
    pub(crate) fn files(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.entries()?.into_iter().filter_map(|(name, size)| Some((name, size?))).collect())
    }

    /// Everything in this folder, as (name, size in bytes); no size: it is something else than a regular file.
    pub(crate) fn entries(&self) -> io::Result<Vec<(String, Option<u64>)>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                // This `metadata` does not follow links. A file may vanish between the listing and the look at it.
                match entry.metadata() {
                    Ok(metadata) => entries.push((name, metadata.is_file().then_some(metadata.len()))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(entries)
    }

    /// What has this name; a link is not followed. `None`: nothing.
    pub(crate) fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        match std::fs::symlink_metadata(self.path.join(name)) {
            Ok(metadata) if metadata.is_file() => Ok(Some(Entry::File { size: metadata.len() })),
            Ok(_) => Ok(Some(Entry::Other)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same folder, opened once more.
    pub(crate) fn again(&self) -> io::Result<Self> {
        self.child(".")
    }

    /// Removes an entry; `false` if it was not there. A link is removed, never its target.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match self.unlink(name) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(unix)]
impl Folder {
    /// Opens a folder that is not itself a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let handle = rustix::fs::open(path, Self::FOLDER, rustix::fs::Mode::empty())?;
        Ok(Self { path: path.to_owned(), handle })
    }

    const FOLDER: rustix::fs::OFlags =
        rustix::fs::OFlags::DIRECTORY.union(rustix::fs::OFlags::NOFOLLOW).union(rustix::fs::OFlags::CLOEXEC);

    /// Opens the folder `name` in this one, making it (0700) if it is missing. Fails if `name` is a link or a file.
    pub(crate) fn child(&self, name: &str) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.handle, name, rustix::fs::Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let handle = rustix::fs::openat(&self.handle, name, Self::FOLDER, rustix::fs::Mode::empty())?;
        Ok(Self { path: self.path.join(name), handle })
    }

    /// `None`: the entry is a link.
    fn open_any(&self, name: &str) -> io::Result<Option<File>> {
        use rustix::fs::OFlags;
        // Opening a FIFO would wait for its other end for ever without `NONBLOCK`.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match rustix::fs::openat(&self.handle, name, flags, rustix::fs::Mode::empty()) {
            Ok(handle) => Ok(Some(handle.into())),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens `name` for reading and writing with mode 0600: `new` must not exist yet, otherwise it is made if missing.
    pub(crate) fn open_for_writing(&self, name: &str, new: bool) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        let exclusive = if new { OFlags::EXCL } else { OFlags::empty() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | exclusive;
        Ok(rustix::fs::openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Moves an entry, replacing what has the new name.
    pub(crate) fn rename(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.handle, name, &to.handle, new_name)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name, rustix::fs::AtFlags::empty())?)
    }

    /// Makes the folder's entries survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.handle)?)
    }
}

#[cfg(windows)]
impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if std::fs::symlink_metadata(path)?.is_dir() {
            Ok(Self { path: path.to_owned() })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    pub(crate) fn child(&self, name: &str) -> io::Result<Self> {
        let path = self.path.join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Self::open(&path)
    }

    fn open_any(&self, name: &str) -> io::Result<Option<File>> {
        use std::os::windows::fs::OpenOptionsExt;
        // FILE_FLAG_OPEN_REPARSE_POINT: a link is opened as itself, and is then no regular file.
        File::options().read(true).custom_flags(0x0020_0000).open(self.path.join(name)).map(Some)
    }

    pub(crate) fn open_for_writing(&self, name: &str, new: bool) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).truncate(false);
        if new {
            options.create_new(true)
        } else {
            options.create(true)
        };
        options.open(self.path.join(name))
    }

    pub(crate) fn rename(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        let (from, to) = (self.path.join(name), to.path.join(new_name));
        // Virus scanners hold new files open for a moment: one refused rename is not a verdict.
        for _ in 0..5 {
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                done => return done,
            }
        }
        std::fs::rename(&from, &to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    /// NTFS journals renames by itself; a folder cannot be synced.
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the other systems' form of it can fail"
    )]
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
