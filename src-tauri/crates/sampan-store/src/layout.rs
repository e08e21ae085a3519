//! The cache folder: whose it is, its lock, and its sub-folders.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use sampan_oci::{Algorithm, Digest};

use crate::error::OpenError;
use crate::folder::Folder;

const LOCK: &str = "lock";
const MARKER: &str = "oci-layout";
/// image-spec, image-layout.md, "oci-layout file".
const MARKER_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// What file systems and file managers put into an empty folder by themselves.
const BYSTANDERS: [&str; 2] = ["lost+found", ".DS_Store"];

/// The folders of an open cache. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: Folder,
    sha256: Folder,
    sha512: Folder,
    pub(crate) partial: Folder,
    _lock: File,
}

/// A cache folder that is ours and locked, before anything in it was read or changed.
#[derive(Debug)]
pub(crate) struct Claim {
    root: Folder,
    lock: File,
}

impl Claim {
    /// Takes the folder at `path`, making it (0700) if it is missing.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        make_folder(path)?;
        if fs::symlink_metadata(path)?.is_symlink() {
            return Err(OpenError::NotOurs(path.to_owned()));
        }
        // SQLite refuses links in any component of its path, and on macOS `/tmp` and `/var` are links.
        #[cfg(unix)]
        let path = &fs::canonicalize(path)?;
        let root = Folder::open(path).map_err(|_| OpenError::NotOurs(path.clone()))?;
        check_owner(&root)?;
        let lock = lock(&root)?;
        Ok(Self { root, lock })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Folder {
        &self.root
    }

    /// Makes what is missing: from here on the folder is changed.
    pub(crate) fn prepare(self) -> Result<Layout, OpenError> {
        let Self { root, lock } = self;
        let child = |parent: &Folder, name: &str| {
            parent.child(name).map_err(|error| {
                // A link or a file of that name is nothing this crate ever makes.
                let path = parent.path().join(name);
                let foreign = fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_dir());
                if foreign { OpenError::NotOurs(path) } else { OpenError::Io(error) }
            })
        };
        let blobs = child(&root, "blobs")?;
        let sha256 = child(&blobs, Algorithm::Sha256.as_str())?;
        let sha512 = child(&blobs, Algorithm::Sha512.as_str())?;
        let partial = child(&root, "partial")?;
        let layout = Layout { root, sha256, sha512, partial, _lock: lock };
        layout.mark()?;
        Ok(layout)
    }
}

impl Layout {
    /// The folder that holds the blob.
    pub(crate) fn folder_of(&self, digest: &Digest) -> &Folder {
        match digest.algorithm() {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    /// Opens a published blob; `None` if there is no regular file of that name.
    pub(crate) fn open_blob(&self, digest: &Digest) -> io::Result<Option<File>> {
        self.folder_of(digest).open_file(&digest.hex())
    }

    /// The size of a published blob's file in bytes.
    pub(crate) fn blob_size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        self.folder_of(digest).size_of(&digest.hex())
    }

    /// Removes a published blob's file; `false` if there was none.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> io::Result<bool> {
        self.folder_of(digest).remove(&digest.hex())
    }

    /// Every regular file under `blobs/` whose name is a digest, with its size in bytes.
    pub(crate) fn blobs(&self) -> io::Result<Vec<(Digest, u64)>> {
        Ok(self.blob_entries()?.into_iter().filter_map(|(digest, size)| Some((digest, size?))).collect())
    }

    /// Everything under `blobs/` whose name is a digest, with its size in bytes; no size: it is no regular file.
    pub(crate) fn blob_entries(&self) -> io::Result<Vec<(Digest, Option<u64>)>> {
        let mut blobs = Vec::new();
        for (algorithm, folder) in [(Algorithm::Sha256, &self.sha256), (Algorithm::Sha512, &self.sha512)] {
            let found = folder.entries()?;
            blobs.extend(found.into_iter().filter_map(|(name, size)| {
                let digest = format!("{}:{name}", algorithm.as_str()).parse().ok()?;
                Some((digest, size))
            }));
        }
        Ok(blobs)
    }

    /// A new file for a download's bytes, and its name under `partial/`.
    pub(crate) fn new_partial(&self, digest: &Digest) -> io::Result<(String, File)> {
        // Randomly keyed by the standard library; `O_EXCL` turns a name that is taken into an error.
        let random = RandomState::new().build_hasher().finish();
        let name = format!("{}-{}.{random:016x}", digest.algorithm().as_str(), digest.hex());
        let file = self.partial.open_for_writing(&name, true)?;
        Ok((name, file))
    }

    fn mark(&self) -> io::Result<()> {
        if let Some(mut marker) = self.root.open_file(MARKER)? {
            let mut text = String::new();
            marker.read_to_string(&mut text)?;
            if text.contains("imageLayoutVersion") {
                return Ok(());
            }
        }
        // Renamed into place: a crash leaves no half marker.
        let name = format!("{MARKER}.new");
        let mut file = self.root.open_for_writing(&name, false)?;
        file.set_len(0)?;
        file.write_all(MARKER_TEXT.as_bytes())?;
        file.sync_all()?;
        self.root.rename(&name, &self.root, MARKER)?;
        self.root.sync()
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if fs::symlink_metadata(path).is_ok() { Ok(()) } else { builder.create(path) }
}

/// Refuses a folder in which somebody else may have put things, or that holds somebody's other files.
fn check_owner(root: &Folder) -> Result<(), OpenError> {
    let path = root.path();
    let not_ours = || OpenError::NotOurs(path.to_owned());
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name());
    }
    let empty = names.iter().all(|name| BYSTANDERS.iter().any(|bystander| name == bystander));
    if !empty && !names.iter().any(|name| name == LOCK) {
        return Err(not_ours());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let metadata = fs::symlink_metadata(path)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || (!empty && metadata.mode() & 0o002 != 0) {
            return Err(not_ours());
        }
        if metadata.mode() & 0o777 != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// One process per cache (SECURITY.md R69). The system releases the lock when its holder ends, however it ends.
fn lock(root: &Folder) -> Result<File, OpenError> {
    let mut file = root.open_for_writing(LOCK, false)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Windows lets nobody else read a locked file: then the holder stays unnamed.
            let read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut text));
            Err(OpenError::Locked { pid: read.ok().and_then(|_| text.trim().parse().ok()) })
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}
