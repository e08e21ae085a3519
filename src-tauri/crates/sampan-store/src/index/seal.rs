//! The seal: what the index's file was when its last user closed it. SQLite's own checks see broken pages, but not one
//! wrong letter in a tag; the seal sees every byte that changed while nobody ran.
//!
//! It is a file beside the index, `<size in bytes> <CRC-32 in hex>`. It stands only while the index is not changed: it is
//! removed before the first change. So after a crash there is none, and the index is taken as it is.
//!
//! A later version of the index that is sealed otherwise needs a seal of another name: one of this name that does not fit is
//! taken for damage, whatever version the index says it has.

use std::io;

use super::FILE;
use crate::blob;
use crate::folder::Folder;

pub(crate) const SEAL: &str = "sampan.db.seal";
/// No seal is as long.
const SEAL_BYTES_MAX: usize = 64;

/// What a look at the seal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    /// The index is what it was when it was closed.
    Whole,
    /// It is not.
    Broken,
    /// There is none: the index was not closed, or there is no index.
    Missing,
}

/// Compares the index with its seal.
pub(super) fn look(root: &Folder) -> io::Result<Seal> {
    let Some(seal) = root.open_file(SEAL)? else { return Ok(Seal::Missing) };
    // Changes that are still in the log are not under any seal; and what is lost cannot be compared.
    if root.size_of(&format!("{FILE}-wal"))?.is_some_and(|size| size > 0) {
        return Ok(Seal::Missing);
    }
    let Some(expected) = text_of(root)? else { return Ok(Seal::Missing) };
    // One that cannot be read says nothing of the index. One with other bytes may itself be what is damaged: that cannot be
    // told from here.
    Ok(match seal.read_up_to(SEAL_BYTES_MAX) {
        Ok(found) if found == expected.as_bytes() => Seal::Whole,
        Ok(_) => Seal::Broken,
        Err(_) => Seal::Missing,
    })
}

/// Seals the index, which must be whole in its file and not change until [`remove`].
pub(super) fn put(root: &Folder) -> io::Result<()> {
    let Some(text) = text_of(root)? else { return Ok(()) };
    let name = format!("{SEAL}.new");
    let file = root.open_for_writing(&name, false)?;
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_all()?;
    root.rename(&name, root, SEAL)?;
    root.sync()
}

/// Removes the seal, and makes sure that it does not come back with a power cut: also one that an earlier call removed
/// without that.
pub(super) fn remove(root: &Folder) -> io::Result<()> {
    root.remove(SEAL)?;
    root.sync()
}

/// `None`: there is no index.
fn text_of(root: &Folder) -> io::Result<Option<String>> {
    // Closing this drops the locks that SQLite holds on the same file. They would keep other processes out; the
    // cache's own lock does that.
    let Some(file) = root.open_file(FILE)? else { return Ok(None) };
    let size = file.metadata()?.len();
    let mut hasher = crc32fast::Hasher::new();
    blob::read_range(&file, 0..size, |bytes| hasher.update(bytes))?;
    Ok(Some(format!("{size} {:08x}\n", hasher.finalize())))
}
