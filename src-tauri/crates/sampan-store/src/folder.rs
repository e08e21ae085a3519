//! A folder held open, whose entries are reached through it and never through a symbolic link (SECURITY.md R66, R67).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, Operation};

/// An open folder. Names given to its methods are single path components made by this crate.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Where it is in the cache; for whoever watches the disk.
    place: String,
    disk: Disk,
    number: u64,
    writable: bool,
    /// `None`: a cache that cannot be written lacks it. Then it is as if empty.
    #[cfg(unix)]
    handle: Option<rustix::fd::OwnedFd>,
}

/// What has a name in a folder.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A regular file, opened for reading.
    File(DiskFile),
    /// A link, a folder, a pipe, …: nothing the store makes where it looks for files.
    Foreign,
    Missing,
}

impl Folder {
    /// Opens the cache folder, which must not itself be a link. One that is not `writable` refuses every change of what is
    /// below it ([`io::ErrorKind::ReadOnlyFilesystem`]).
    pub(crate) fn open(path: &Path, disk: &Disk, writable: bool) -> io::Result<Self> {
        let number = disk.next_handle();
        let operation = Operation::Open { path: "", handle: number };
        let opened = disk.perform(&operation, || open_folder(path))?;
        Ok(Self::new(path.to_owned(), String::new(), disk, number, writable, Some(opened)))
    }

    /// Where the folder is; for messages, for SQLite and for listing.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its entries can be changed.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The folder `name` in this one, made (0700) if it is missing. Fails if `name` is a link or a file.
    pub(crate) fn child(&self, name: &str) -> io::Result<Self> {
        let place = if self.place.is_empty() { name.to_owned() } else { format!("{}/{name}", self.place) };
        if self.writable {
            let made = self.disk.perform(&Operation::MakeFolder { path: &place }, || self.make_folder(name));
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let number = self.disk.next_handle();
        let operation = Operation::Open { path: &place, handle: number };
        let opened = match self.disk.perform(&operation, || self.open_folder(name)) {
            Ok(opened) => Some(opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.writable => None,
            Err(error) => return Err(error),
        };
        Ok(Self::new(self.path.join(name), place, &self.disk, number, self.writable, opened))
    }

    /// What has this name; a regular file is opened for reading.
    pub(crate) fn look(&self, name: &str) -> io::Result<Entry> {
        let handle = self.disk.next_handle();
        let operation = Operation::Open { path: &self.place_of(name), handle };
        let file = match self.disk.perform(&operation, || self.open_any(name)) {
            Ok(Some(file)) => DiskFile::new(file, handle, &self.disk),
            Ok(None) => return Ok(Entry::Foreign),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entry::Missing),
            Err(error) => return Err(error),
        };
        Ok(if file.metadata()?.is_file() { Entry::File(file) } else { Entry::Foreign })
    }

    /// Opens an entry for reading. `None`: it is missing, or it is something else than a regular file, which in a
    /// store is damage.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<Option<DiskFile>> {
        match self.look(name)? {
            Entry::File(file) => Ok(Some(file)),
            Entry::Missing => Ok(None),
            Entry::Foreign => {
                let folder = self.path.display();
                tracing::warn!(%folder, name, "an entry of the cache is not a regular file: ignored");
                Ok(None)
            }
        }
    }

    /// Whether `name` is a folder, and no link to one.
    pub(crate) fn holds_folder(&self, name: &str) -> io::Result<bool> {
        let operation = Operation::Open { path: &self.place_of(name), handle: self.disk.next_handle() };
        match self.disk.perform(&operation, || self.open_folder(name)) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens `name` for reading and writing with mode 0600: `new` must not exist yet, otherwise it is made if missing.
    pub(crate) fn open_for_writing(&self, name: &str, new: bool) -> io::Result<DiskFile> {
        self.refuse_if_read_only()?;
        let handle = self.disk.next_handle();
        let operation = Operation::Create { path: &self.place_of(name), handle, exclusive: new };
        let file = self.disk.perform(&operation, || self.create(name, new))?;
        Ok(DiskFile::new(file, handle, &self.disk))
    }

    /// The size in bytes of a regular file; `None` if there is none of that name.
    pub(crate) fn size_of(&self, name: &str) -> io::Result<Option<u64>> {
        match self.look(name)? {
            Entry::File(file) => Ok(Some(file.metadata()?.len())),
            Entry::Foreign | Entry::Missing => Ok(None),
        }
    }

    /// Regular files of this folder as (name, size in bytes). Names that are not UTF-8 are not ours, and left out.
    pub(crate) fn files(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.entries()?.into_iter().filter_map(|(name, size)| Some((name, size?))).collect())
    }

    /// Everything in this folder, as (name, size in bytes); no size: it is something else than a regular file.
    pub(crate) fn entries(&self) -> io::Result<Vec<(String, Option<u64>)>> {
        self.list(|entry, entries| {
            if let Ok(name) = entry.file_name().into_string() {
                // This `metadata` does not follow links. A file may vanish between the listing and the look at it.
                match entry.metadata() {
                    Ok(metadata) => entries.push((name, metadata.is_file().then_some(metadata.len()))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// The same folder, opened once more.
    pub(crate) fn again(&self) -> io::Result<Self> {
        let number = self.disk.next_handle();
        let operation = Operation::Open { path: &self.place, handle: number };
        let opened = self.disk.perform(&operation, || self.open_folder("."))?;
        Ok(Self::new(self.path.clone(), self.place.clone(), &self.disk, number, self.writable, Some(opened)))
    }

    /// The names of all entries, whatever they are.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        self.list(|entry, names| {
            names.push(entry.file_name());
            Ok(())
        })
    }

    fn list<T>(
        &self,
        mut take: impl FnMut(&std::fs::DirEntry, &mut Vec<T>) -> io::Result<()>,
    ) -> io::Result<Vec<T>> {
        self.disk.perform(&Operation::List { path: &self.place }, || {
            let mut taken = Vec::new();
            let entries = match std::fs::read_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.writable => return Ok(taken),
                entries => entries?,
            };
            for entry in entries {
                take(&entry?, &mut taken)?;
            }
            Ok(taken)
        })
    }

    /// Moves an entry, replacing what has the new name.
    pub(crate) fn rename(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        self.refuse_if_read_only()?;
        let operation = Operation::Rename { from: &self.place_of(name), to: &to.place_of(new_name) };
        self.disk.perform(&operation, || self.rename_to(name, to, new_name))
    }

    /// Removes an entry that is no folder; `false` if it was not there. A link is removed, never its target.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        self.refuse_if_read_only()?;
        let operation = Operation::Remove { path: &self.place_of(name) };
        match self.disk.perform(&operation, || self.unlink(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the folder's entries survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.perform(&Operation::SyncFolder { path: &self.place }, || self.sync_entries())
    }

    fn refuse_if_read_only(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    /// Where `name` is in the cache. Nobody reads it on a disk that is not watched: there it costs nothing.
    fn place_of(&self, name: &str) -> String {
        if !self.disk.is_watched() {
            String::new()
        } else if self.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.place)
        }
    }
}

#[cfg(unix)]
const FOLDER: rustix::fs::OFlags =
    rustix::fs::OFlags::DIRECTORY.union(rustix::fs::OFlags::NOFOLLOW).union(rustix::fs::OFlags::CLOEXEC);

#[cfg(unix)]
fn open_folder(path: &Path) -> io::Result<rustix::fd::OwnedFd> {
    Ok(rustix::fs::open(path, FOLDER, rustix::fs::Mode::empty())?)
}

#[cfg(unix)]
impl Folder {
    fn new(
        path: PathBuf,
        place: String,
        disk: &Disk,
        number: u64,
        writable: bool,
        handle: Option<rustix::fd::OwnedFd>,
    ) -> Self {
        Self { path, place, disk: disk.clone(), number, writable, handle }
    }

    fn handle(&self) -> io::Result<&rustix::fd::OwnedFd> {
        self.handle.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes the folder one that only its owner can enter, where it can be changed. `false`: it is another user's, or
    /// anybody may have put things into it, and it is not `fresh`.
    pub(crate) fn make_private(&self, fresh: bool) -> io::Result<bool> {
        let metadata = Operation::Metadata { handle: self.number };
        let stat = self.disk.perform(&metadata, || Ok(rustix::fs::fstat(self.handle()?)?))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || (!fresh && stat.st_mode & 0o002 != 0) {
            return Ok(false);
        }
        if stat.st_mode & 0o777 != 0o700 && self.writable {
            let change = Operation::MakeFolder { path: &self.place };
            self.disk.perform(&change, || Ok(rustix::fs::fchmod(self.handle()?, rustix::fs::Mode::RWXU)?))?;
        }
        Ok(true)
    }

    fn make_folder(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self.handle()?, name, rustix::fs::Mode::RWXU)?)
    }

    fn open_folder(&self, name: &str) -> io::Result<rustix::fd::OwnedFd> {
        match rustix::fs::openat(self.handle()?, name, FOLDER, rustix::fs::Mode::empty()) {
            // Some systems say so of a link.
            Err(rustix::io::Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
            opened => Ok(opened?),
        }
    }

    /// `None`: the entry is a link, or nothing that can be opened.
    fn open_any(&self, name: &str) -> io::Result<Option<File>> {
        use rustix::fs::OFlags;
        // Opening a FIFO would wait for its other end for ever without `NONBLOCK`.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match rustix::fs::openat(self.handle()?, name, flags, rustix::fs::Mode::empty()) {
            Ok(handle) => Ok(Some(handle.into())),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn create(&self, name: &str, new: bool) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        let exclusive = if new { OFlags::EXCL } else { OFlags::empty() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | exclusive;
        Ok(rustix::fs::openat(self.handle()?, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn rename_to(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(self.handle()?, name, to.handle()?, new_name)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.handle()?, name, rustix::fs::AtFlags::empty())?)
    }

    fn sync_entries(&self) -> io::Result<()> {
        sync(self.handle()?)
    }
}

#[cfg(all(unix, not(target_vendor = "apple")))]
fn sync(folder: &rustix::fd::OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(folder)?)
}

/// `fsync` there ends with the drive, which may keep the bytes in its memory: only `F_FULLFSYNC` reaches the medium, as the
/// standard library does it for files. No test has run this: it is compiled on macOS only.
#[cfg(target_vendor = "apple")]
fn sync(folder: &rustix::fd::OwnedFd) -> io::Result<()> {
    full_or_plain(rustix::fs::fcntl_fullfsync(folder), || rustix::fs::fsync(folder))
}

/// A file system that does not know the full sync (SMB, some of FUSE) has to do with the plain one. Any other error is
/// final.
#[cfg(any(target_vendor = "apple", all(test, unix)))]
fn full_or_plain(
    full: rustix::io::Result<()>,
    plain: impl FnOnce() -> rustix::io::Result<()>,
) -> io::Result<()> {
    use rustix::io::Errno;
    match full {
        Err(error) if [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::INVAL, Errno::NOTTY].contains(&error) => {
            Ok(plain()?)
        }
        done => Ok(done?),
    }
}

#[cfg(windows)]
fn open_folder(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

#[cfg(windows)]
impl Folder {
    fn new(
        path: PathBuf,
        place: String,
        disk: &Disk,
        number: u64,
        writable: bool,
        _opened: Option<()>,
    ) -> Self {
        Self { path, place, disk: disk.clone(), number, writable }
    }

    /// A folder of a user's profile is that user's alone.
    pub(crate) fn make_private(&self, _fresh: bool) -> io::Result<bool> {
        self.disk.perform(&Operation::Metadata { handle: self.number }, || Ok(true))
    }

    fn make_folder(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir(self.path.join(name))
    }

    fn open_folder(&self, name: &str) -> io::Result<()> {
        open_folder(&self.path.join(name))
    }

    fn open_any(&self, name: &str) -> io::Result<Option<File>> {
        use std::os::windows::fs::OpenOptionsExt;
        // FILE_FLAG_OPEN_REPARSE_POINT: a link is opened as itself, and is then no regular file.
        // FILE_FLAG_BACKUP_SEMANTICS: so is a folder, which could not be opened otherwise.
        File::options().read(true).custom_flags(0x0220_0000).open(self.path.join(name)).map(Some)
    }

    fn create(&self, name: &str, new: bool) -> io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).truncate(false);
        if new {
            options.create_new(true)
        } else {
            options.create(true)
        };
        options.open(self.path.join(name))
    }

    fn rename_to(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
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
    fn sync_entries(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_a_file_system_that_knows_no_full_sync_gets_the_plain_one() {
        let plain = |full, plain| full_or_plain(full, || plain).map_err(|error| error.raw_os_error());
        let code = |errno: Errno| Some(errno.raw_os_error());
        assert_eq!(plain(Ok(()), Err(Errno::IO)), Ok(()), "not asked for");
        assert_eq!(plain(Err(Errno::NOTSUP), Ok(())), Ok(()));
        assert_eq!(plain(Err(Errno::NOTTY), Err(Errno::IO)), Err(code(Errno::IO)));
        assert_eq!(plain(Err(Errno::IO), Ok(())), Err(code(Errno::IO)), "a failed sync is never tried again");
    }
}
