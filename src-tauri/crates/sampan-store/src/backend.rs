//! Where published blobs are kept, behind one trait: in files by default, in memory for tests.
//!
//! The trait asks nothing that an object store could not do: no rename, no append, an object is put whole or not at all.
//! Downloads that run and the index stay on this machine's disk. The methods block: they are called on threads that may
//! wait, under the index's writer lock where clearing must not see half of a change, which an `async` one could not be.

mod files;
mod memory;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::sync::Arc;

use sampan_oci::Digest;

use crate::disk::DiskFile;
use crate::folder::Folder;
use crate::verified::FileId;

pub(crate) use files::Files;
pub use memory::Memory;

/// Where a store keeps the blobs that are published.
#[derive(Clone, Debug, Default)]
pub enum Keep {
    /// In files under `blobs/` of the cache folder, as an OCI image layout.
    #[default]
    Files,
    /// In memory, for tests: gone with the last clone of this.
    Memory(Memory),
}

/// Keeps published blobs by their digests. What was put is whole, never changes, and survives a power cut as far as the
/// backend's kind does; whether its bytes are the ones its digest names is its caller's to prove.
pub(crate) trait Backend: Debug + Send + Sync {
    /// What is in each digest's place, with its size in bytes; no size: it is no object.
    fn list(&self) -> io::Result<Vec<(Digest, Option<u64>)>>;

    /// An object's size in bytes; `None` if there is none.
    fn size(&self, digest: &Digest) -> io::Result<Option<u64>>;

    /// Opens an object. It stays readable as it is when it is replaced or removed.
    fn open(&self, digest: &Digest) -> io::Result<Opened>;

    /// Puts what is staged in the digest's place, all at once; what is no object there makes way, whatever the condition.
    /// After an error the object is there whole or not at all. Tells the object's identity too, where it was put and that is
    /// known: what was hashed on its way in need not be hashed again.
    fn put(
        &self,
        digest: &Digest,
        staged: &mut Staged<'_>,
        condition: Condition,
    ) -> io::Result<(Put, Option<Identity>)>;

    /// Removes what is in the digest's place; `false` if nothing was. Removing it when it is no object removes nothing
    /// else: neither what a link leads to, nor what is in a folder.
    fn remove(&self, digest: &Digest) -> io::Result<bool>;

    /// Removes what is in the digest's place, and leaves it in `to`, a folder of this machine's disk, under `name`, if it
    /// was kept on that disk.
    fn move_out(&self, digest: &Digest, to: &Folder, name: &str) -> io::Result<()>;
}

/// An object, open for reading.
pub(crate) trait Object: Debug + Send + Sync {
    /// Fills `buffer` from `offset`; fewer bytes only at the end of the object.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// What it is now.
    fn state(&self) -> io::Result<State>;

    /// The file it is, if it is one of this machine and may be used directly.
    fn as_file(&self) -> Option<&File>;
}

/// What an object is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) identity: Identity,
}

/// Tells an object from others, and from what was in its place before. The same as long as the object is unchanged, another
/// after it was replaced. Nothing else is to be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A file's.
    File(FileId),
    /// What a backend says that has no files and whose objects never change: each put has a number of its own. An object store
    /// would take it from its `ETag`.
    Number(u128),
}

impl Identity {
    /// Whether both are one object, whatever was done to it in between.
    pub(crate) fn is_same_object(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.is_same_file(other),
            (Self::Number(_) | Self::File(_), _) => self == other,
        }
    }
}

impl Object for DiskFile {
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_full_at(buffer, offset)
    }

    fn state(&self) -> io::Result<State> {
        let id = self.id()?;
        Ok(State { size: id.size(), identity: Identity::File(id) })
    }

    fn as_file(&self) -> Option<&File> {
        self.as_file()
    }
}

/// What is in a digest's place.
#[derive(Debug)]
pub(crate) enum Opened {
    Object(Arc<dyn Object>),
    Missing,
    /// Something that is no object, and was not put there by a store: damage. It is not followed, not waited for, and
    /// makes way for a [put](Backend::put).
    Foreign,
}

/// When to put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Only where no object is. Nothing publishes so yet: a store that others share needs it, where what is there was proven by
    /// whoever put it.
    Absent,
    /// Also in an object's place: being there is not being good (SECURITY.md R7).
    Replace,
}

/// What putting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Replaced,
    /// Nothing: there is an object, and the condition was [`Condition::Absent`].
    Held,
}

/// A file in `partial/` that is whole, proven and synced.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    folder: &'a Folder,
    /// `None` once it is no longer there.
    name: &'a mut Option<String>,
    file: &'a DiskFile,
}

impl<'a> Staged<'a> {
    /// `name`: the file's in `folder`; `None` afterwards, if it left that.
    pub(crate) fn new(folder: &'a Folder, name: &'a mut Option<String>, file: &'a DiskFile) -> Self {
        Self { folder, name, file }
    }

    /// Whether it left `partial/`.
    pub(crate) fn is_moved(&self) -> bool {
        self.name.is_none()
    }

    /// The file, for backends that read it.
    fn file(&self) -> &DiskFile {
        self.file
    }

    /// Moves it to where it is a published object, replacing what has that name.
    fn move_to(&mut self, folder: &Folder, name: &str) -> io::Result<()> {
        let staged = self.name.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.folder.rename(staged, folder, name)?;
        *self.name = None;
        Ok(())
    }
}
