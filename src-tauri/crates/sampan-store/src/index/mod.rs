//! The index: what the blobs are. Only an index: lost or damaged, it is made again from the files (SECURITY.md R71, R74).

mod age;
mod change;
pub(crate) mod damage;
mod lookup;
pub(crate) mod private;
pub(crate) mod readable;
mod report;
pub(crate) mod restore;
mod schema;
mod seal;
#[cfg(test)]
mod timing;
mod touched;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig};
use sampan_oci::{Digest, ImageName, Millis, Tag};

pub(crate) use change::{Change, Word};
pub(crate) use lookup::{held_tag, link, media_type, pinned_bytes, referrers, tags};
pub(crate) use report::{catalog, parts};

use crate::error::{OpenError, StoreError};
use crate::folder::Folder;
use crate::hot::Hot;
use crate::layout::Layout;
use crate::own::LOG_MAX;
use crate::rebuild::Found;
use age::Age;
pub(crate) use seal::SEAL;
use seal::Seal;
use touched::Touched;

pub(crate) const FILE: &str = "sampan.db";
/// What SQLite appends changes to first.
pub(crate) const LOG: &str = "sampan.db-wal";
/// Where a damaged index is kept for diagnosis: one, the last.
const SET_ASIDE: &str = "sampan.db.damaged";

/// The open index: one connection that writes, one for the quick questions of requests, one for long lists.
#[derive(Debug)]
pub(crate) struct Index {
    writer: Mutex<Connection>,
    lookups: Mutex<Connection>,
    reports: Mutex<Connection>,
    size_bytes: AtomicI64,
    blobs: AtomicI64,
    /// What was asked a moment ago.
    pub(crate) hot: Hot,
    touched: Mutex<Touched>,
    /// Whether what is held has changed since `index.json` told it.
    layout_stale: AtomicBool,
    /// Whether the file is as its seal says; changed with the writer at hand only.
    sealed: AtomicBool,
    root: Folder,
    age: Age,
    /// What changes have come to lead to, or to use, since an eviction began to be decided; `None`: none is under way.
    named: Mutex<Option<HashSet<Digest>>>,
    /// How many changes wait for their turn.
    waiting: AtomicU32,
    /// The cache cannot be written, and this is a copy of its index: changes would be lost.
    read_only: bool,
}

/// Refuses an index of a newer Sampan, before anything in the folder is changed (SECURITY.md R76).
pub(crate) fn refuse_future(root: &Folder) -> Result<(), OpenError> {
    // The header first: merely opening an index makes files beside it. Offset 60: https://sqlite.org/fileformat.html
    if let Some(file) = root.open_file(FILE)? {
        let mut header = [0; 64];
        if file.read_full_at(&mut header, 0)? == header.len() && header.starts_with(b"SQLite format 3\0") {
            let version = i32::from_be_bytes([header[60], header[61], header[62], header[63]]);
            if version > schema::VERSION {
                // Whoever wrote that version would have sealed it: it is damage, made anew as any other.
                return match seal::look(root)? {
                    Seal::Broken => Ok(()),
                    Seal::Whole | Seal::Missing => Err(OpenError::Future(version)),
                };
            }
        }
    }
    // A crash may have left the newer version in the log only.
    if root.size_of(LOG)?.is_some() {
        let version = connect(root).and_then(|connection| {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            schema::version(&connection)
        });
        if let Ok(version) = version
            && version > schema::VERSION
        {
            return Err(OpenError::Future(version));
        }
    }
    Ok(())
}

impl Index {
    /// Opens the index, or makes it anew if it is missing or damaged, and squares it with the files under `blobs/`.
    pub(crate) fn open(layout: &Layout, now: Millis) -> Result<Self, OpenError> {
        let root = layout.index_folder();
        let seal = seal::look(root)?;
        if seal == Seal::Broken {
            // Before the seal goes: without it, a crash in between could leave what passes for a newer Sampan's.
            set_aside(root, "it changed while it was closed")?;
            root.sync()?;
        }
        // Before anything is changed: a crash in between is no damage.
        seal::remove(root)?;
        let writer = match seal {
            Seal::Broken => make_anew(root)?,
            seal @ (Seal::Whole | Seal::Missing) => match open_sound(root, seal == Seal::Whole) {
                Ok(Some(connection)) => connection,
                Ok(None) => replace_damaged(root, "it is not consistent")?,
                Err(error) if is_damage(&error) => replace_damaged(root, &error.to_string())?,
                Err(error) => return Err(error.into()),
            },
        };
        let age = Age::read(&writer, now)?;
        let mut index = Self {
            writer: Mutex::new(writer),
            lookups: Mutex::new(connect(root)?),
            reports: Mutex::new(connect(root)?),
            size_bytes: AtomicI64::new(0),
            blobs: AtomicI64::new(0),
            hot: Hot::default(),
            touched: Mutex::new(Touched::since(now)),
            layout_stale: AtomicBool::new(true),
            sealed: AtomicBool::new(false),
            root: root.again()?,
            age,
            named: Mutex::default(),
            waiting: AtomicU32::new(0),
            read_only: false,
        };
        let files = layout.blobs()?;
        let lost = !files.is_empty() && restore::is_blank(&lock(&index.reports))?;
        // All or nothing: what a crash leaves of this is blank again.
        let squared = index.change(|change| {
            let unknown = change.square_with(&files, now)?;
            age::keep(change, now)?;
            // Where the index is not lost, a power cut has undone a removal, or has taken the index's last changes.
            let found = if lost { Found::read(layout, &files) } else { Found::among(layout, &unknown) };
            found.record(change, now)
        });
        squared.map_err(|error| match error {
            StoreError::Index(error) => OpenError::Index(error),
            StoreError::Io(error) => OpenError::Io(error),
            StoreError::Full => OpenError::Io(std::io::ErrorKind::StorageFull.into()),
            StoreError::ReadOnly => OpenError::Io(std::io::ErrorKind::ReadOnlyFilesystem.into()),
            StoreError::Mismatch { .. }
            | StoreError::Size { .. }
            | StoreError::Dead
            | StoreError::Stopped => OpenError::Io(std::io::Error::other(error)),
        })?;
        index.read_only = layout.is_read_only();
        Ok(index)
    }

    /// Runs `work` in one transaction, alone among all changes. Blocks. What `work` did to files it has to undo itself
    /// when this fails.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = self.commit(work);
        // Also after a failure: files may be gone that the rows still name. And not before the commit: an answer from the
        // time before it would pass for a new one.
        self.hot.forget(done.as_ref().ok().map(|(_, about)| about));
        self.set_stale();
        Ok(done?.0)
    }

    /// A [`change`](Self::change) of nothing that an answer, or `index.json`, tells.
    pub(crate) fn change_quietly<T>(
        &self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        Ok(self.commit(work)?.0)
    }

    /// Runs `work` in one transaction. Returns what it returned, and the digests that it changed an answer about.
    fn commit<T>(
        &self,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, HashSet<Digest>), StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let mut writer = lock(&self.writer);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        if self.sealed.load(Ordering::Acquire) {
            seal::remove(&self.root)?;
            self.sealed.store(false, Ordering::Release);
        }
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change = Change::new(transaction, self.age.now());
        let done = work(&mut change)?;
        let change::Done { size_bytes, blobs, named, mut about } = change.commit()?;
        self.size_bytes.fetch_add(size_bytes, Ordering::AcqRel);
        self.blobs.fetch_add(blobs, Ordering::AcqRel);
        about.extend(&named);
        if let Some(all) = &mut *lock(&self.named) {
            all.extend(named);
        }
        Ok((done, about))
    }

    /// How old what is used now counts as, in milliseconds of time this cache has seen pass.
    pub(crate) fn age(&self) -> i64 {
        self.age.now()
    }

    /// Writes that count down, at most once in an hour; with `always`, now.
    pub(crate) fn keep_age(&self, always: bool, now: Millis) -> Result<(), StoreError> {
        if self.read_only || !(always || self.age.is_due()) {
            return Ok(());
        }
        self.change_quietly(|change| Ok(age::keep(change, now)?))
    }

    /// Brings every change into the index's file, and seals it. Blocks.
    pub(crate) fn seal(&self) -> Result<(), StoreError> {
        let writer = lock(&self.writer);
        if self.sealed.load(Ordering::Acquire) {
            return Ok(());
        }
        let busy: bool = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if !busy {
            // Also where it fails: it may be in its place all the same, and has to go before the next change.
            self.sealed.store(true, Ordering::Release);
            seal::put(&self.root)?;
        }
        Ok(())
    }

    /// Makes every change so far survive a power cut, which a change by itself does not. Blocks.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        // What a long question keeps from the file is synced in the log.
        Ok(lock(&self.writer).query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    /// Whether what is held has changed since the last time this was asked.
    pub(crate) fn take_stale(&self) -> bool {
        self.layout_stale.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn set_stale(&self) {
        self.layout_stale.store(true, Ordering::Release);
    }

    /// Whether a change waits for its turn: whoever makes many of them lets it pass.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Gathers what changes come to lead to from now on, until the answer is dropped. One at a time.
    pub(crate) fn watch(&self) -> Watch<'_> {
        *lock(&self.named) = Some(HashSet::new());
        Watch(self)
    }

    /// Asks a quick question. Blocks.
    pub(crate) fn look_up<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        Ok(question(&lock(&self.lookups))?)
    }

    /// Asks a long question, without holding up the quick ones. Blocks.
    pub(crate) fn report<T>(
        &self,
        question: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        Ok(question(&mut lock(&self.reports))?)
    }

    /// The sum of the sizes of all blobs in bytes, and how many they are.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let read = |number: &AtomicI64| u64::try_from(number.load(Ordering::Acquire)).unwrap_or(0);
        (read(&self.size_bytes), read(&self.blobs))
    }

    /// Notes a use in memory; with `served`, that it was answered from what is held. `true`: enough has gathered to
    /// [`write_touched`](Self::write_touched).
    pub(crate) fn touch(&self, image: &ImageName, digest: Digest, served: bool, now: Millis) -> bool {
        !self.read_only && lock(&self.touched).touch(image, digest, served, now)
    }

    /// Notes in memory that a tag was confirmed; `true` as for [`touch`](Self::touch).
    pub(crate) fn touch_tag(&self, image: &ImageName, tag: &Tag, now: Millis) -> bool {
        !self.read_only && lock(&self.touched).touch_tag(image, tag, now)
    }

    /// When a tag was confirmed, where that is not written yet.
    pub(crate) fn confirmed(&self, image: &ImageName, tag: &Tag) -> Option<Millis> {
        lock(&self.touched).confirmed(image, tag)
    }

    /// Writes the uses noted so far. Blocks. A failure loses them: they only order what is cleared first.
    pub(crate) fn write_touched(&self) -> Result<(), StoreError> {
        if lock(&self.touched).is_empty() {
            return Ok(());
        }
        self.change_quietly(|change| {
            // Taken when nobody else changes anything: whoever is about to remove what was used sees it here or there.
            let (uses, tags) = lock(&self.touched).take();
            for (image, uses) in &uses {
                for (digest, (used, hits)) in uses {
                    change.record_use(image, digest, *used, *hits)?;
                }
            }
            for (image, tags) in &tags {
                for (tag, checked) in tags {
                    change.touch_tag(image, tag, *checked)?;
                }
            }
            Ok(())
        })
    }
}

/// Sees what changes come to lead to, and what is used.
#[derive(Debug)]
pub(crate) struct Watch<'a>(&'a Index);

impl Watch<'_> {
    /// All of it so far. Asked from within a change, it is complete.
    pub(crate) fn named(&self) -> HashSet<Digest> {
        let mut named = lock(&self.0.named).clone().unwrap_or_default();
        lock(&self.0.touched).add_used(&mut named);
        named
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        *lock(&self.0.named) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere rolled its transaction back: the connection is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(root: &Folder) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(root.path().join(FILE), flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// `None`: the file is damaged in a way SQLite only notices when it looks. One that is `known_good` is not looked at: in a
/// large cache that takes most of the start.
fn open_sound(root: &Folder, known_good: bool) -> rusqlite::Result<Option<Connection>> {
    let mut connection = connect(root)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // On macOS a plain sync does not reach the medium. Elsewhere it is the same.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_MAX)?;
    if schema::version(&connection)? < 0 {
        return Ok(None);
    }
    schema::migrate(&mut connection)?;
    if known_good {
        return Ok(Some(connection));
    }
    if !schema::check(&connection)? {
        return Ok(None);
    }
    Ok(Some(connection))
}

/// Whether making the index anew cures the error: the file is at fault, not the disk, the memory or the permissions.
fn is_damage(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

fn replace_damaged(root: &Folder, why: &str) -> Result<Connection, OpenError> {
    set_aside(root, why)?;
    make_anew(root)
}

fn set_aside(root: &Folder, why: &str) -> Result<(), OpenError> {
    tracing::warn!(why, kept_as = SET_ASIDE, "the index is damaged: made anew from the blobs");
    root.rename(FILE, root, SET_ASIDE)?;
    for companion in ["-wal", "-shm"] {
        // Left in place, the old log would be replayed into the new file.
        root.remove(&format!("{FILE}{companion}"))?;
    }
    Ok(())
}

fn make_anew(root: &Folder) -> Result<Connection, OpenError> {
    open_sound(root, false)?
        .ok_or_else(|| OpenError::Io(std::io::Error::other("a new index is damaged at once")))
}
