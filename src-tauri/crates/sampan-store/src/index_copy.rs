//! The index of a cache that cannot be written. SQLite has to write beside the index to read what only its log holds, so a
//! private copy of both is opened.

use std::fs::File;
use std::io::{self, Write};

use tempfile::TempDir;

use crate::disk::{Disk, DiskFile};
use crate::folder::{Entry, Folder};
use crate::index;

/// How much is copied at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A copy of the index in a folder of its own. Dropping it removes both.
#[derive(Debug)]
pub(crate) struct IndexCopy {
    pub(crate) folder: Folder,
    _temporary: TempDir,
}

impl IndexCopy {
    /// Copies the index in `root` with its log and its seal, as far as they are there.
    pub(crate) fn make(root: &Folder) -> io::Result<Self> {
        let temporary = TempDir::with_prefix("sampan-index-")?;
        for name in [index::FILE, index::LOG, index::SEAL] {
            match root.look(name)? {
                Entry::File(file) => copy(&file, &mut File::create_new(temporary.path().join(name))?)?,
                Entry::Missing => {}
                Entry::Foreign => return Err(io::Error::other("the index is not a regular file")),
            }
        }
        // SQLite refuses links in any component of its path, and on macOS that of temporary files has one.
        let path = temporary.path().canonicalize()?;
        Ok(Self { folder: Folder::open(&path, &Disk::real(), true)?, _temporary: temporary })
    }
}

fn copy(from: &DiskFile, to: &mut File) -> io::Result<()> {
    let (mut buffer, mut offset) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let filled = from.read_full_at(&mut buffer, offset)?;
        if filled == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..filled])?;
        offset += filled as u64;
    }
}
