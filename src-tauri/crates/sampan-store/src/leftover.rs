//! What an earlier run left in `partial/`: what can be gone on with stays, what cannot is removed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, SystemTime};

use sampan_oci::{Digest, Millis};

use crate::disk::DiskFile;
use crate::folder::Folder;
use crate::index;
use crate::layout::Layout;
use crate::ledger::{Found, Names};

/// How long a partial download is kept that nobody goes on with: 14 days.
pub(crate) const PARTIAL_AGE_MAX: Duration = Duration::from_hours(14 * 24);

/// A partial download that stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// What it is said to hold, in bytes.
    pub(crate) bytes: u64,
    /// How long ago it was last written to.
    pub(crate) age: Duration,
}

/// Removes the files of downloads that nothing can go on with; whatever is not named like a download's file stays.
/// Returns the partials that stay.
pub(crate) fn sweep(folder: &Folder, now: Millis) -> io::Result<HashMap<Digest, Left>> {
    let mut kept = HashMap::new();
    let mut pairs: HashSet<Digest> = HashSet::new();
    for (name, size) in folder.files()? {
        let Some((digest, kind)) = parse(&name) else { continue };
        if kind == Names::DATA || kind == Names::LEDGER {
            pairs.insert(digest);
        } else {
            folder.remove(&name)?;
            tracing::info!(%digest, size_bytes = size, "removed a download that was cut short");
        }
    }
    for digest in pairs {
        let names = Names::of(&digest);
        // A bad sector in one of them is no reason not to start.
        let left = what_is_left(folder, &names, now).unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "a download that was cut short cannot be read");
            None
        });
        if let Some(left) = left {
            tracing::info!(%digest, bytes = left.bytes, "a download that was cut short can go on");
            kept.insert(digest, left);
        } else {
            folder.remove(&names.ledger)?;
            folder.remove(&names.data)?;
            tracing::info!(%digest, "removed a download that was cut short and cannot go on");
        }
    }
    Ok(kept)
}

/// The moment to measure by: now, or, where the last write to any partial download or to the index is older, that one. A start
/// with a clock that is years ahead must not take for old what was written an hour ago (SECURITY.md R75); what is old by
/// then goes at a later start.
pub(crate) fn now(layout: &Layout, now: Millis) -> io::Result<Millis> {
    let mut last: Option<Millis> = None;
    let mut see = |folder: &Folder, name: &str| {
        // A file that cannot be asked tells nothing.
        let written = folder.open_file(name).ok().flatten().and_then(|file| modified(&file).ok());
        last = last.max(written);
    };
    for name in [index::FILE, index::LOG] {
        see(&layout.root, name);
    }
    for (name, _) in layout.partial.files()? {
        see(&layout.partial, &name);
    }
    Ok(last.map_or(now, |last| last.min(now)))
}

fn parse(name: &str) -> Option<(Digest, &str)> {
    let (digest, kind) = name.split_once('.')?;
    Some((digest.replacen('-', ":", 1).parse().ok()?, kind))
}

/// `None`: one of the two files is missing, or was not written to for too long, or the ledger claims nothing.
fn what_is_left(folder: &Folder, names: &Names, now: Millis) -> io::Result<Option<Left>> {
    let (Some(data), Some(ledger)) = (folder.open_file(&names.data)?, folder.open_file(&names.ledger)?)
    else {
        return Ok(None);
    };
    let age = Duration::from_millis(now.since(modified(&data)?.max(modified(&ledger)?)));
    let found = Found::read(&ledger)?.filter(|_| age <= PARTIAL_AGE_MAX);
    let room = data.metadata()?.len();
    let bytes = found.map(|found| found.claimed_bytes().min(room)).filter(|bytes| *bytes > 0);
    Ok(bytes.map(|bytes| Left { bytes, age }))
}

/// When the bytes or the ledger of a partial download were last written to. `None`: one of the two files is missing.
pub(crate) fn written(folder: &Folder, names: &Names) -> io::Result<Option<Millis>> {
    let files = folder.open_file(&names.data)?.zip(folder.open_file(&names.ledger)?);
    files.map(|(data, ledger)| Ok(modified(&data)?.max(modified(&ledger)?))).transpose()
}

fn modified(file: &DiskFile) -> io::Result<Millis> {
    let since = file.metadata()?.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}
