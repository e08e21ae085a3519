//! What the cache keeps beside images: its index, `index.json`, the ledgers of downloads. It counts against the quota as
//! well, and makes way for nobody.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::layout::Layout;
use crate::ledger::Names;

/// What the files in the cache folder begin with that are not below another folder.
const NAMES: [&str; 4] = ["sampan.db", "index.json", "oci-layout", "lock"];

/// The index's log, and how long SQLite lets it become before it begins anew, in bytes: 1,000 pages with their heads.
const LOG: &str = "sampan.db-wal";
pub(crate) const LOG_MAX: u32 = 4 * 1024 * 1024;

/// The bytes of these files when they were last measured.
#[derive(Debug, Default)]
pub(crate) struct Own(AtomicU64);

impl Own {
    /// What was last [measured](Self::measure); 0 before that.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Measures again. Where the disk does not tell, it stays at what it was. Lists two small folders.
    pub(crate) fn measure(&self, layout: &Layout) {
        match size(layout) {
            Ok(bytes) => self.0.store(bytes, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "the index and the ledgers cannot be measured"),
        }
    }
}

/// How long the index's log is, in bytes. Looks at one file.
pub(crate) fn log(layout: &Layout) -> u64 {
    layout.root.size_of(LOG).ok().flatten().unwrap_or(0)
}

/// The bytes of these files now.
pub(crate) fn size(layout: &Layout) -> io::Result<u64> {
    let ours = |name: &str| NAMES.iter().any(|begin| name.starts_with(begin));
    let ledger = |name: &str| name.rsplit_once('.').is_some_and(|(_, kind)| kind == Names::LEDGER);
    let root = layout.root.files()?.into_iter().filter(|(name, _)| ours(name));
    let ledgers = layout.partial.files()?.into_iter().filter(|(name, _)| ledger(name));
    Ok(root.chain(ledgers).map(|(_, size)| size).sum())
}
