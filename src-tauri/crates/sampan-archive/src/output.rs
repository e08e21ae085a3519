//! A layout that is being written: a tar file under a temporary name, or a folder. What is not finished is removed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sampan_oci::Digest;

use crate::document::{INDEX, LAYOUT, blob_name};
use crate::error::ArchiveError;
use crate::tarball;

/// What file managers and file systems put into an empty folder by themselves.
const BYSTANDERS: [&str; 3] = ["lost+found", ".DS_Store", "System Volume Information"];

/// Where an export goes. Everything here blocks. Dropping it before [`finish`](Self::finish) removes what was written.
#[derive(Debug)]
pub(crate) enum Output {
    Tar(TarFile),
    Folder(Folder),
}

/// A place to go back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

#[derive(Debug)]
pub(crate) struct TarFile {
    file: File,
    at: u64,
    /// The size of the file that is being written.
    size: u64,
    temporary: PathBuf,
    target: PathBuf,
    folders: HashSet<String>,
    done: bool,
}

#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    open: Option<File>,
    /// Files, in the order they were made.
    files: Vec<PathBuf>,
    /// Folders, outer ones first; with the root if that was made here.
    folders: Vec<PathBuf>,
    done: bool,
}

impl Output {
    /// Begins, and takes nothing that is there already: a `.tar` that does not exist, or an empty or new folder.
    pub(crate) fn begin(target: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| told(target, source);
        let there = match fs::symlink_metadata(target) {
            // A link to a folder is as good as the folder.
            Ok(_) => Some(fs::metadata(target).map_err(failed)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let Some(metadata) = there else {
            let is_tar = target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"));
            return if is_tar {
                TarFile::begin(target).map(Self::Tar).map_err(failed)
            } else {
                fs::create_dir(target).map_err(failed)?;
                let mut folder = Folder::at(target);
                folder.folders.push(target.to_owned());
                Ok(Self::Folder(folder))
            };
        };
        if !metadata.is_dir() {
            return Err(ArchiveError::TargetExists(target.to_owned()));
        }
        if fs::symlink_metadata(target.join(LAYOUT)).is_ok() {
            return Err(ArchiveError::TargetIsLayout(target.to_owned()));
        }
        for entry in fs::read_dir(target).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if !BYSTANDERS.iter().any(|bystander| name == *bystander) {
                return Err(ArchiveError::TargetExists(target.to_owned()));
            }
        }
        Ok(Self::Folder(Folder::at(target)))
    }

    /// Where the writing is: between two files.
    pub(crate) fn mark(&self) -> Mark {
        Mark(match self {
            Self::Tar(tar) => tar.at,
            Self::Folder(folder) => folder.files.len() as u64,
        })
    }

    /// Removes what was written since.
    pub(crate) fn rewind(&mut self, mark: Mark) -> io::Result<()> {
        match self {
            Self::Tar(tar) => {
                tar.at = mark.0;
                tar.folders.clear();
                tar.file.set_len(mark.0)?;
                tar.file.seek(SeekFrom::Start(mark.0)).map(drop)
            }
            Self::Folder(folder) => {
                folder.open = None;
                let kept = usize::try_from(mark.0).unwrap_or(usize::MAX).min(folder.files.len());
                folder.files.drain(kept..).try_for_each(fs::remove_file)
            }
        }
    }

    /// Begins a blob of `size` bytes.
    pub(crate) fn begin_blob(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        self.begin_file(&blob_name(digest), size)
    }

    fn begin_file(&mut self, name: &str, size: u64) -> io::Result<()> {
        match self {
            Self::Tar(tar) => tar.begin_file(name, size),
            Self::Folder(folder) => folder.begin_file(name),
        }
    }

    /// Writes the next bytes of the file that was begun.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tar(tar) => tar.write(bytes),
            Self::Folder(folder) => match &mut folder.open {
                Some(file) => file.write_all(bytes),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    /// Ends the file that was begun; all its bytes are written.
    pub(crate) fn end_file(&mut self) -> io::Result<()> {
        match self {
            Self::Tar(tar) => tar.write(&vec![0; tarball::padding(tar.size)]),
            Self::Folder(folder) => folder.open.take().map_or(Ok(()), |file| file.sync_all()),
        }
    }

    /// Writes a document at the top of the layout.
    pub(crate) fn document(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.begin_file(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.end_file()
    }

    /// Writes `index.json`, and makes everything survive a power cut; a tar file gets its name only then.
    pub(crate) fn finish(mut self, index: &[u8]) -> io::Result<()> {
        self.document(INDEX, index)?;
        match &mut self {
            Self::Tar(tar) => tar.finish(),
            Self::Folder(folder) => folder.finish(),
        }
    }
}

/// What a failed write into the target means.
pub(crate) fn told(target: &Path, source: io::Error) -> ArchiveError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let path = target.to_owned();
    if matches!(source.kind(), StorageFull | QuotaExceeded) {
        ArchiveError::TargetFull(path)
    } else if source.kind() == FileTooLarge {
        ArchiveError::TargetTooLarge(path)
    } else {
        ArchiveError::Target { path, source }
    }
}

/// Makes a folder's entries survive a power cut, where the system has a way.
fn sync_folder(path: &Path) -> io::Result<()> {
    // Windows opens no folders as files, and some file systems of USB sticks refuse to sync one.
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if cfg!(unix) && error.kind() != io::ErrorKind::InvalidInput => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl TarFile {
    fn begin(target: &Path) -> io::Result<Self> {
        // Randomly keyed by the standard library; `create_new` turns a name that is taken into an error.
        let random = RandomState::new().build_hasher().finish();
        let mut name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{random:016x}.part"));
        let temporary = target.with_file_name(name);
        let file = File::options().read(true).write(true).create_new(true).open(&temporary)?;
        let target = target.to_owned();
        Ok(Self { file, at: 0, size: 0, temporary, target, folders: HashSet::new(), done: false })
    }

    fn begin_file(&mut self, name: &str, size: u64) -> io::Result<()> {
        for (slash, _) in name.match_indices('/') {
            let folder = &name[..=slash];
            if self.folders.insert(folder.to_owned()) {
                self.write(&tarball::header(folder, 0, true)?)?;
            }
        }
        self.size = size;
        self.write(&tarball::header(name, size, false)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.write(&tarball::END)?;
        self.file.sync_all()?;
        // A rename replaces what is there, and what came there meanwhile is the person's.
        if fs::symlink_metadata(&self.target).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.temporary, &self.target)?;
        self.done = true;
        sync_folder(self.target.parent().filter(|parent| *parent != "").unwrap_or(Path::new(".")))
    }
}

impl Drop for TarFile {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = fs::remove_file(&self.temporary)
        {
            tracing::warn!(%error, "a given-up export could not be removed");
        }
    }
}

impl Folder {
    fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), open: None, files: Vec::new(), folders: Vec::new(), done: false }
    }

    fn begin_file(&mut self, name: &str) -> io::Result<()> {
        for (slash, _) in name.match_indices('/') {
            let folder = self.root.join(&name[..slash]);
            if !self.folders.contains(&folder) {
                fs::create_dir(&folder)?;
                self.folders.push(folder);
            }
        }
        let path = self.root.join(name);
        self.open = Some(File::options().write(true).create_new(true).open(&path)?);
        self.files.push(path);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.done = true;
        self.folders.iter().try_for_each(|folder| sync_folder(folder))?;
        sync_folder(&self.root)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.open = None;
        // Only what was made here goes; a folder in which somebody else put something stays.
        let files = self.files.iter().map(fs::remove_file);
        let folders = self.folders.iter().rev().map(fs::remove_dir);
        if let Some(error) = files.chain(folders).find_map(Result::err) {
            tracing::warn!(%error, "a given-up export could not be removed");
        }
    }
}
