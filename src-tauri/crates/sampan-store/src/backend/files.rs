//! Blobs in files: `blobs/<algorithm>/<hex>`, as in an OCI image layout (image-spec, image-layout.md, "Blobs").

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use sampan_oci::{Algorithm, Digest};

use super::{Backend, Condition, Identity, Object, Opened, Put, Staged};
use crate::folder::{Entry, Folder};

/// Keeps blobs in files. One process has them alone: the cache's lock says so.
#[derive(Debug)]
pub(crate) struct Files {
    sha256: Folder,
    sha512: Folder,
    /// Takes the folders found in blobs' places.
    quarantine: Folder,
    /// Held from looking what is in a place to putting something there.
    places: Mutex<()>,
}

impl Files {
    /// Takes the folders of the algorithms.
    pub(crate) fn new(sha256: Folder, sha512: Folder, quarantine: Folder) -> Self {
        Self { sha256, sha512, quarantine, places: Mutex::new(()) }
    }

    fn folder_of(&self, digest: &Digest) -> &Folder {
        match digest.algorithm() {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    /// Moves a folder found in a blob's place to `quarantine/`, with all that is in it: it is not ours to remove. `false`:
    /// it is no folder.
    fn move_aside(&self, folder: &Folder, name: &str) -> io::Result<bool> {
        if !folder.holds_folder(name)? {
            return Ok(false);
        }
        let taken = self.quarantine.names()?;
        let free = (1..=taken.len() + 1)
            .map(|number| format!("foreign-{number}"))
            .find(|free| !taken.iter().any(|name| name == free.as_str()));
        let free = free.ok_or(io::ErrorKind::AlreadyExists)?;
        folder.rename(name, &self.quarantine, &free)?;
        tracing::warn!(name, moved_to = free, "a folder was in the place of a blob");
        Ok(true)
    }
}

impl Backend for Files {
    fn list(&self) -> io::Result<Vec<(Digest, Option<u64>)>> {
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

    fn size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        self.folder_of(digest).size_of(&digest.hex())
    }

    fn open(&self, digest: &Digest) -> io::Result<Opened> {
        Ok(match self.folder_of(digest).look(&digest.hex())? {
            Entry::File(file) => Opened::Object(Arc::new(file)),
            Entry::Missing => Opened::Missing,
            Entry::Foreign => Opened::Foreign,
        })
    }

    fn put(
        &self,
        digest: &Digest,
        staged: &mut Staged<'_>,
        condition: Condition,
    ) -> io::Result<(Put, Option<Identity>)> {
        let (folder, name) = (self.folder_of(digest), digest.hex());
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let put = match (folder.look(&name)?, condition) {
            (Entry::File(_), Condition::Absent) => return Ok((Put::Held, None)),
            (Entry::File(_), Condition::Replace) => Put::Replaced,
            (Entry::Foreign, Condition::Absent | Condition::Replace) => {
                // A rename replaces anything but a folder, and a link itself, not what it leads to.
                self.move_aside(folder, &name)?;
                Put::Created
            }
            (Entry::Missing, Condition::Absent | Condition::Replace) => Put::Created,
        };
        staged.move_to(folder, &name)?;
        drop(places);
        folder.sync()?;
        // After the rename, which changes it.
        let identity = Object::state(staged.file()).ok().map(|state| state.identity);
        Ok((put, identity))
    }

    fn remove(&self, digest: &Digest) -> io::Result<bool> {
        let (folder, name) = (self.folder_of(digest), digest.hex());
        match folder.remove(&name) {
            // Systems disagree about the error of removing a folder like a file.
            Err(error) => {
                let _places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
                if self.move_aside(folder, &name)? { Ok(true) } else { Err(error) }
            }
            removed => removed,
        }
    }

    fn move_out(&self, digest: &Digest, to: &Folder, name: &str) -> io::Result<()> {
        self.folder_of(digest).rename(&digest.hex(), to, name)
    }
}
