//! What Sampan changed, written down before it is changed, so that the next start can finish or take back.
//!
//! One small file, `<state>/docker.json`, replaced whole. It holds hashes and paths, never the content of a
//! configuration file: that is in the backups, with the original's owner and mode.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sampan_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::context::same_endpoint;
use crate::engine::Engine;
use crate::environment::Environment;
use crate::files;
use crate::plan::Part;

/// What a process holds while it changes something.
const LOCK: &str = "lock";

/// The journal file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Which format it is. One that is higher than [`Journal::VERSION`] is a newer Sampan's, and left alone.
    #[serde(default = "first")]
    pub version: u32,
    /// Changes that were begun and not ended: a crash, or a power cut.
    #[serde(default)]
    pub pending: Vec<Change>,
    /// Changes that are in place.
    #[serde(default)]
    pub installed: Vec<Change>,
    /// What nobody needs any more; named here until it is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub litter: Vec<Litter>,
    /// Changes in the privileged helper's journal that were taken back without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Change>,
}

/// The format of journals from before they named it.
fn first() -> u32 {
    Journal::VERSION
}

impl Default for Journal {
    fn default() -> Self {
        let (pending, installed) = (Vec::new(), Vec::new());
        Self { version: Self::VERSION, pending, installed, litter: Vec::new(), settled: Vec::new() }
    }
}

/// Why the content of a journal is not used.
enum Unreadable {
    /// A newer Sampan wrote it.
    Newer,
    /// Nobody wrote it like this.
    Damaged,
}

/// What a settled change of one file leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Litter {
    /// The file.
    pub target: PathBuf,
    /// The engine it belongs to.
    pub endpoint: String,
    /// Its backups.
    pub backups: Vec<PathBuf>,
    /// Folders that were made for it, outermost first.
    pub folders: Vec<PathBuf>,
}

impl Litter {
    /// None yet.
    pub(crate) fn of(change: &Change) -> Self {
        let (target, endpoint) = (change.target.clone(), change.endpoint.clone());
        Self { target, endpoint, backups: Vec::new(), folders: Vec::new() }
    }

    /// Removes it: of what is named only backups of the file and folders above it.
    fn remove(&self) {
        for backup in self.backups.iter().filter(|path| files::is_backup_of(path, &self.target)) {
            let _ = std::fs::remove_file(backup);
        }
        let above = |folder: &&PathBuf| self.target.parent().is_some_and(|parent| parent.starts_with(folder));
        // One that is not empty has become somebody else's.
        for folder in self.folders.iter().filter(above).rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// One file's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file that was edited (a symbolic link's target).
    pub target: PathBuf,
    /// Which file of the engine's configuration it is.
    pub part: Part,
    /// The engine it belongs to: `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// The port of Sampan's that it names.
    pub port: u16,
    /// The hash of its bytes before; `None`: it did not exist.
    pub before: Option<Digest>,
    /// The hash of the bytes it has until the engine has let go, where those are not the final ones.
    #[serde(default)]
    pub interim: Option<Digest>,
    /// The hash of the bytes it has while it is taken back, where those are not the ones from before.
    #[serde(default)]
    pub going_back: Option<Digest>,
    /// The hash of its bytes after; `None`: it was removed.
    pub after: Option<Digest>,
    /// Where the bytes before are.
    pub backup: Option<PathBuf>,
    /// Folders that were made for it, outermost first.
    pub made_folders: Vec<PathBuf>,
    /// Whether it takes Sampan out, as a person wanted: cut short, it is finished.
    #[serde(default)]
    pub leaving: bool,
}

/// A change that is in place, with the bytes from before it where they are still held.
#[derive(Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The change.
    pub change: Change,
    /// The exact bytes before; `None`: no longer held, or there was no file.
    pub original: Option<Vec<u8>>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("change", &self.change).finish_non_exhaustive()
    }
}

impl Change {
    /// Whether Sampan found these bytes in the file, or wrote them.
    pub(crate) fn knows(&self, bytes: &[u8]) -> bool {
        let known = [self.before, self.interim, self.going_back, self.after];
        known.into_iter().flatten().any(|digest| digest.names(bytes))
    }
}

impl Remembered {
    /// What undoing restores while the file has the content `now`: the exact bytes before (`Some(None)`: no file).
    /// `None`: the file was changed since, or the bytes are no longer held.
    pub fn exact_undo(&self, now: &[u8]) -> Option<Option<&[u8]>> {
        let untouched = self.change.after.is_some_and(|after| after.names(now));
        match (untouched, self.change.before, &self.original) {
            (true, None, _) => Some(None),
            (true, Some(_), Some(original)) => Some(Some(original)),
            (true, Some(_), None) | (false, _, _) => None,
        }
    }
}

impl Journal {
    const FILE: &'static str = "docker.json";
    const VERSION: u32 = 1;
    /// How many damaged ones are kept.
    const DAMAGED_MAX: u32 = 99;
    /// How the name begins under which it is written.
    const TEMP_MARK: &'static str = ".docker-";
    /// How the name begins under which dockerd is shown a configuration that is not in place yet.
    pub(crate) const TRIAL_MARK: &'static str = ".docker-trial-";

    /// Reads the journal of `state_dir`, which belongs to `uid`; empty where there is none or it is damaged (every
    /// use checks hashes, so a lost journal costs only the exactness of an undo). A damaged one is kept: see
    /// [`Journal::set_aside`].
    ///
    /// # Errors
    /// One English sentence, where it is no regular file, others could have written it, or a newer Sampan did: what it
    /// says is then not done, and nothing is written over it.
    pub(crate) fn load(state_dir: &Path, uid: u32) -> Result<Self, String> {
        let path = state_dir.join(Self::FILE);
        if std::fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(Self::default());
        }
        let untrusted = |why| format!("Sampan's record of its changes is not used: {why}");
        files::owned(&path, uid).map_err(untrusted)?;
        let bytes = files::read(&path).map_err(untrusted)?;
        match bytes.as_deref().map(Self::parse) {
            Some(Ok(journal)) => Ok(journal),
            None | Some(Err(Unreadable::Damaged)) => Ok(Self::default()),
            Some(Err(Unreadable::Newer)) => Err(format!(
                "A newer Sampan wrote {}, its record of its changes: update this one, or make the change with the newer \
                 one. Nothing is changed until then.",
                path.display()
            )),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| Unreadable::Damaged)?;
        if !value.is_object() {
            return Err(Unreadable::Damaged);
        }
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version.is_some_and(|version| version > Self::VERSION.into()) {
            return Err(Unreadable::Newer);
        }
        serde_json::from_value(value).map_err(|_| Unreadable::Damaged)
    }

    /// Keeps a damaged journal under another name, `docker.json.damaged-<n>`; returns that name where there was one. To be
    /// called by whoever holds the folder.
    ///
    /// # Errors
    /// What the file system says, or that a newer Sampan's is in the way: nothing may be written over either.
    pub(crate) fn set_aside(state_dir: &Path) -> io::Result<Option<PathBuf>> {
        let path = state_dir.join(Self::FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match Self::parse(&bytes) {
            Ok(_) => Ok(None),
            Err(Unreadable::Newer) => Err(io::Error::other("it is a newer Sampan's")),
            Err(Unreadable::Damaged) => {
                let names =
                    (1..=Self::DAMAGED_MAX).map(|n| state_dir.join(format!("{}.damaged-{n}", Self::FILE)));
                let free = names.into_iter().find(|name| std::fs::symlink_metadata(name).is_err());
                let kept = free.ok_or_else(|| io::Error::other("too many damaged ones are kept already"))?;
                std::fs::rename(&path, &kept)?;
                files::sync_folder_of(&path)?;
                Ok(Some(kept))
            }
        }
    }

    /// Names the folders that were made for files which are gone again.
    pub(crate) fn litter_of(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.before.is_none()) {
            let folders = change.made_folders.clone();
            self.litter.push(Litter { folders, ..Litter::of(change) });
        }
    }

    /// Saves it, and only then removes what it names as litter of `endpoint` where `known` says that the file may be
    /// that engine's. A run that ends in between leaves it to the next one.
    ///
    /// # Errors
    /// What the file system says of the first save; nothing is removed then.
    pub(crate) fn save_and_tidy(
        &mut self,
        state_dir: &Path,
        endpoint: &str,
        known: impl Fn(&Path) -> bool,
    ) -> io::Result<()> {
        self.litter.retain(|litter| !litter.backups.is_empty() || !litter.folders.is_empty());
        self.save(state_dir)?;
        let (these, others) = std::mem::take(&mut self.litter)
            .into_iter()
            .partition(|litter| same_endpoint(&litter.endpoint, endpoint));
        self.litter = others;
        let these: Vec<Litter> = these;
        // Twice: a folder that two of them share is empty only after the second is gone.
        for _ in 0..2 {
            these.iter().filter(|litter| known(&litter.target)).for_each(Litter::remove);
        }
        if !these.is_empty() {
            // At worst the next start looks for what is gone.
            let _ = self.save(state_dir);
        }
        Ok(())
    }

    /// Takes out what was begun on `endpoint`; other engines' changes stay.
    pub(crate) fn take_pending(&mut self, endpoint: &str) -> Vec<Change> {
        let (these, others) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| same_endpoint(&change.endpoint, endpoint));
        self.pending = others;
        these
    }

    /// What was begun on `endpoint` and not ended.
    pub(crate) fn pending_on(&self, endpoint: &str) -> impl Iterator<Item = &Change> {
        self.pending.iter().filter(move |change| same_endpoint(&change.endpoint, endpoint))
    }

    /// Writes it, whole and on disk. A damaged one in its place is kept.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn save(&self, state_dir: &Path) -> io::Result<()> {
        use std::io::Write as _;
        std::fs::create_dir_all(state_dir)?;
        Self::set_aside(state_dir)?;
        let mut temp = tempfile::Builder::new().prefix(Self::TEMP_MARK).tempfile_in(state_dir)?;
        temp.write_all(&serde_json::to_vec_pretty(self)?)?;
        // The helper's journal is read by the person's own Sampan, which shows what undoing will do.
        files::allow(temp.path(), 0o644)?;
        temp.as_file().sync_all()?;
        let path = state_dir.join(Self::FILE);
        temp.persist(&path).map_err(|error| error.error)?;
        files::sync_folder_of(&path)
    }

    /// Removes what a killed run left of writing it, or of asking dockerd, in a folder that was found to be Sampan's
    /// alone.
    pub(crate) fn sweep(state_dir: &Path) {
        let left = [Self::TEMP_MARK, Self::TRIAL_MARK].map(|mark| files::temporary(state_dir, mark));
        for temp in left.into_iter().flatten() {
            // It is in nobody's way.
            let _ = std::fs::remove_file(temp);
        }
    }

    /// The changes in place with their original bytes.
    pub(crate) fn remembered(&self) -> Vec<Remembered> {
        let original = |change: &Change| {
            let bytes = files::read(change.backup.as_deref()?).ok().flatten()?;
            change.before.is_some_and(|before| before.names(&bytes)).then_some(bytes)
        };
        self.installed.iter().map(|c| Remembered { original: original(c), change: c.clone() }).collect()
    }

    /// Takes out what is remembered of `targets`; says whether anything was.
    pub(crate) fn forget(&mut self, targets: &[&Path]) -> bool {
        let before = self.installed.len();
        self.installed.retain(|change| !targets.contains(&change.target.as_path()));
        self.installed.len() != before
    }

    /// The backup an undo of `target` still needs.
    pub(crate) fn backup_of(&self, target: &Path) -> Option<&Path> {
        self.installed.iter().find(|change| change.target == target)?.backup.as_deref()
    }
}

/// Whether an earlier run of this user's Sampan began a change of `engine` and did not end it, or that cannot be known.
pub fn interrupted(env: &Environment, engine: &Engine) -> bool {
    Journal::load(&env.state_dir, env.uid)
        .map_or(true, |journal| journal.pending_on(&engine.endpoint).next().is_some())
}

/// The files of changes that the privileged helper began on `engine` and did not end; none while a helper is at work, and
/// none for the helper itself, which settles them.
pub(crate) fn cut_short(env: &Environment, engine: &Engine) -> Vec<PathBuf> {
    if env.system_state_dir == env.state_dir {
        return Vec::new();
    }
    let Ok(helpers) = Journal::load(&env.system_state_dir, 0) else { return Vec::new() };
    let pending = helpers.pending_on(&engine.endpoint);
    let files: Vec<PathBuf> = pending.map(|change| change.target.clone()).collect();
    if files.is_empty() || is_held(&env.system_state_dir) { Vec::new() } else { files }
}

/// Whether a process holds that folder now. Only looked at: whoever wants it is not kept from it for longer than that.
fn is_held(state_dir: &Path) -> bool {
    let Ok(lock) = File::open(state_dir.join(LOCK)) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The changes that are in place, as this user's Sampan and the privileged helper wrote them down. Asks no engine.
pub fn installed(env: &Environment) -> Vec<Change> {
    let journals = journals(env);
    journals.into_iter().filter_map(Result::ok).flat_map(|journal| journal.installed).collect()
}

/// This user's journal, then the helper's where that is another one.
pub(crate) fn journals(env: &Environment) -> Vec<Result<Journal, String>> {
    let mut journals = vec![Journal::load(&env.state_dir, env.uid)];
    if env.system_state_dir != env.state_dir {
        journals.push(Journal::load(&env.system_state_dir, 0));
    }
    journals
}

/// Forgets what was taken back, in whichever journal it stands: the one that carried the change out has done so, and
/// what the other one still says would look like somebody else's change.
pub(crate) fn forget(env: &Environment, targets: &[&Path]) {
    for (folder, uid) in [(&env.state_dir, env.uid), (&env.system_state_dir, 0)] {
        // Only root can write down anything in the helper's folder, and it must not do so while the helper does.
        let others = folder != &env.state_dir;
        if others && env.uid != 0 {
            forget_here(env, targets);
            continue;
        }
        if others && !folder.exists() {
            continue;
        }
        let alone = others.then(|| hold(folder, uid)).transpose();
        if alone.is_err() {
            continue;
        }
        if let Ok(mut journal) = Journal::load(folder, uid)
            && journal.forget(targets)
        {
            // What cannot be forgotten is shown as a difference, which a person can dismiss.
            let _ = journal.save(folder);
        }
    }
}

/// Notes on the user's side that what the helper's journal says of `targets` is no longer so.
fn forget_here(env: &Environment, targets: &[&Path]) {
    let Ok(helpers) = Journal::load(&env.system_state_dir, 0) else { return };
    let Ok(mut own) = Journal::load(&env.state_dir, env.uid) else { return };
    let known = own.settled.clone();
    let gone = helpers.installed.into_iter().filter(|change| targets.contains(&change.target.as_path()));
    own.settled.extend(gone.filter(|change| !known.contains(change)));
    if own.settled != known {
        // As above.
        let _ = own.save(&env.state_dir);
    }
}

/// Holds `state_dir` for this process alone, as long as the returned file is open; makes the folder if need be.
///
/// # Errors
/// One English sentence: somebody else holds it, or others than `uid` can write there.
pub fn hold(state_dir: &Path, uid: u32) -> Result<File, String> {
    let path = state_dir.join(LOCK);
    let cannot = |error: io::Error| format!("{} cannot be used: {error}.", path.display());
    std::fs::create_dir_all(state_dir).map_err(cannot)?;
    files::owned(&path, uid)?;
    if std::fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!("{} is not a regular file.", path.display()));
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err("Another change of Docker's configuration is under way: try again when it has ended.".into())
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}
