//! Which upstream sent wrong bytes: what each brought is remembered, and compared with the right ones once they are there.

use std::ops::Range;
use std::sync::Arc;

use sampan_oci::{Digest, Hasher};
use sampan_store::BlobFile;

use super::Source;

/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;

/// What one connection brought and was written.
#[derive(Clone, Debug)]
pub(crate) struct Brought {
    pub(crate) by: Arc<Source>,
    /// In the order they came.
    pub(crate) ranges: Vec<Range<u64>>,
    /// Of those bytes, as they came.
    pub(crate) digest: Digest,
}

/// The bytes of one connection while they come.
#[derive(Debug)]
pub(crate) struct Receipt {
    ranges: Vec<Range<u64>>,
    hasher: Hasher,
}

impl Receipt {
    /// Nothing yet, of the blob `digest`.
    pub(crate) fn new(digest: &Digest) -> Self {
        Self { ranges: Vec::new(), hasher: digest.hasher() }
    }

    /// These bytes are about to be written at `at`.
    pub(crate) fn add(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        self.hasher.update(bytes);
        match self.ranges.last_mut() {
            Some(last) if last.end == at => last.end = end,
            Some(_) | None => self.ranges.push(at..end),
        }
    }

    /// Everything came; `None`: nothing did.
    pub(crate) fn close(self, by: &Arc<Source>) -> Option<Brought> {
        let Self { ranges, hasher } = self;
        (!ranges.is_empty()).then(|| Brought { by: by.clone(), ranges, digest: hasher.finish() })
    }
}

/// A blob that turned out wrong: its file, and who brought which of its bytes. The rest was on disk before.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) file: BlobFile,
    pub(crate) brought: Vec<Brought>,
}

impl Evidence {
    /// Who alone brought every byte, in one stream: then the bytes themselves say that it is its fault, and nothing has to
    /// be compared.
    pub(crate) fn only_one(&self, digest: &Digest, size: u64) -> Option<&Arc<Source>> {
        let [brought] = self.brought.as_slice() else { return None };
        let [range] = brought.ranges.as_slice() else { return None };
        (*range == (0..size) && brought.digest != *digest).then_some(&brought.by)
    }

    /// Who brought bytes that are not those of `right`, the same blob, verified. Where what is read back is not what came,
    /// it was the disk, and nobody is named for it.
    pub(crate) async fn liars(&self, right: &BlobFile) -> Vec<Arc<Source>> {
        let mut liars: Vec<Arc<Source>> = Vec::new();
        for brought in &self.brought {
            let named = liars.iter().any(|liar| Arc::ptr_eq(liar, &brought.by));
            if !named && self.differs(brought, right).await == Some(true) {
                liars.push(brought.by.clone());
            }
        }
        liars
    }

    /// `None`: it cannot be told.
    async fn differs(&self, brought: &Brought, right: &BlobFile) -> Option<bool> {
        let (mut hasher, mut differs) = (brought.digest.hasher(), false);
        for range in &brought.ranges {
            let mut at = range.start;
            while at < range.end {
                let length = usize::try_from(range.end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
                let then = self.file.read_at(at, length).await.ok()?;
                let now = right.read_at(at, then.len()).await.ok()?;
                if then.is_empty() || now.len() != then.len() {
                    return None;
                }
                differs |= then != now;
                hasher.update(&then);
                at += then.len() as u64;
            }
        }
        (hasher.finish() == brought.digest).then_some(differs)
    }
}
