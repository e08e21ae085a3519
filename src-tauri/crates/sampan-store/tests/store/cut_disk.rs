//! A disk that loses its power: remembers every operation, and knows what may be left after a cut behind any of them.
//!
//! The rules are those a careful program may count on, and no kinder (SECURITY.md R62): bytes are there once their file was
//! synced; before that each write may be whole, torn at 512 bytes, or lost, whatever happened to its neighbours. A name is
//! there (or gone) once its folder was synced; before that each change of names may have happened or not, in any
//! combination. A rename happens at once or not at all. Making a folder counts as durable: the store does it once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sampan_store::{Operation, Verdict, Witness};

use crate::dice::Dice;

const SECTOR_BYTES: usize = 512;
const INDEX: &str = "sampan.db";
const INDEX_LOG: &str = "sampan.db-wal";

/// One operation that changes what is on disk.
#[derive(Clone, Debug)]
enum Done {
    Open {
        path: String,
        handle: u64,
    },
    Create {
        path: String,
        handle: u64,
    },
    Write {
        handle: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        handle: u64,
        len: u64,
    },
    SyncFile {
        handle: u64,
    },
    /// One that reported an error: what was to be kept may be lost, also if the next one reports success.
    FailedSync {
        handle: u64,
    },
    SyncFolder {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    MakeFolder {
        path: String,
    },
}

/// The index's files, which SQLite writes and syncs by itself: as they were when the log was this long.
#[derive(Clone, Debug)]
struct Snapshot {
    at: usize,
    index: Arc<[u8]>,
    log: Arc<[u8]>,
}

/// Which index is there after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexLeft {
    /// What SQLite promises: nothing older than what it synced last.
    Synced,
    /// One that is older than that, as from a backup.
    Older,
    /// One of a later moment than that of the cut.
    Newer,
    /// None.
    Lost,
}

/// What is left after a cut.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) folders: BTreeSet<String>,
}

/// Writes down what is done to the disk.
#[derive(Debug)]
pub(crate) struct Recorder {
    dir: PathBuf,
    log: Mutex<Log>,
    /// How many more syncs succeed before one fails; negative: it has.
    syncs_left: AtomicI64,
}

#[derive(Debug, Default)]
struct Log {
    done: Vec<Done>,
    snapshots: Vec<Snapshot>,
    /// What the index's files looked like from outside when they were last read.
    seen: [Option<(u64, SystemTime)>; 2],
    /// Where the index was synced: how long the log was, and which snapshot it is.
    synced: Vec<(usize, usize)>,
}

impl Recorder {
    /// Records a cache in this folder.
    pub(crate) fn new(dir: PathBuf) -> Arc<Self> {
        Self::failing(dir, i64::MAX)
    }

    /// The same, where the sync after the first `syncs` ones fails, that of a file or of a folder.
    pub(crate) fn failing(dir: PathBuf, syncs: i64) -> Arc<Self> {
        Arc::new(Self { dir, log: Mutex::default(), syncs_left: syncs.into() })
    }

    /// Whether one has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.syncs_left.load(Ordering::SeqCst) < 0
    }

    /// How many operations were done so far.
    pub(crate) fn len(&self) -> usize {
        self.log.lock().unwrap().done.len()
    }

    /// Looks whether the index has changed.
    pub(crate) fn see_index(&self) {
        self.log.lock().unwrap().see_index(&self.dir, false);
    }

    /// Says that the index as it is now survives a power cut.
    pub(crate) fn index_is_synced(&self) {
        self.log.lock().unwrap().index_is_synced(&self.dir);
    }

    /// What may be left when the power fails behind the first `at` operations: without the index.
    pub(crate) fn cut(&self, at: usize, dice: &mut Dice) -> Left {
        let mut disk = CutDisk::default();
        for done in &self.log.lock().unwrap().done[..at] {
            disk.apply(done);
        }
        disk.cut(dice)
    }

    /// The index's files then, by their names.
    pub(crate) fn index_after(
        &self,
        at: usize,
        left: IndexLeft,
        dice: &mut Dice,
    ) -> Vec<(&'static str, Arc<[u8]>)> {
        let log = self.log.lock().unwrap();
        let done = log.snapshots.iter().filter(|snapshot| snapshot.at <= at).count();
        let synced = log.synced.iter().rfind(|(since, _)| *since <= at).map_or(0, |(_, snapshot)| *snapshot);
        if done == 0 {
            return Vec::new();
        }
        let (from, to) = match left {
            IndexLeft::Synced => (synced, done),
            IndexLeft::Older => (0, synced.max(1).min(done)),
            IndexLeft::Newer => (done, log.snapshots.len()),
            IndexLeft::Lost => (0, 0),
        };
        if from >= to {
            return Vec::new();
        }
        let chosen = match dice.under(3) {
            0 => from,
            1 => to - 1,
            _ => from + dice.under(to - from),
        };
        let Snapshot { index, log, .. } = &log.snapshots[chosen];
        let files = [(INDEX, index.clone()), (INDEX_LOG, log.clone())];
        files.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect()
    }
}

impl Log {
    /// Between two operations of the store SQLite does nothing: what is read is what it wrote.
    fn see_index(&mut self, dir: &Path, again: bool) {
        let paths = [INDEX, INDEX_LOG].map(|name| dir.join(name));
        let seen = paths.each_ref().map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.len(), metadata.modified().ok()?))
        });
        if seen[0].is_none() || (!again && seen == self.seen) {
            return;
        }
        self.seen = seen;
        let [index, log] = paths.map(|path| std::fs::read(path).unwrap_or_default().into());
        self.snapshots.push(Snapshot { at: self.done.len(), index, log });
    }

    /// Of what SQLite says it synced, only the file itself counts here, and not its log: everything has to be in it.
    fn index_is_synced(&mut self, dir: &Path) {
        self.see_index(dir, true);
        let whole = Snapshot { log: Arc::default(), ..self.snapshots[self.snapshots.len() - 1].clone() };
        self.snapshots.push(whole);
        self.synced.push((self.done.len(), self.snapshots.len() - 1));
    }
}

impl Witness for Recorder {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        self.see_index();
        let is_sync = matches!(operation, Operation::SyncFile { .. } | Operation::SyncFolder { .. });
        if !is_sync || self.syncs_left.fetch_sub(1, Ordering::SeqCst) != 0 {
            return Ok(Verdict::Go);
        }
        if let Operation::SyncFile { handle, .. } = *operation {
            self.log.lock().unwrap().done.push(Done::FailedSync { handle });
        }
        Err(rustix::io::Errno::IO.into())
    }

    fn after(&self, operation: &Operation<'_>) {
        let mut log = self.log.lock().unwrap();
        let done = match *operation {
            Operation::Open { path, handle } => Done::Open { path: path.to_owned(), handle },
            Operation::Create { path, handle, .. } => {
                if path == "sampan.db.seal.new" {
                    // SQLite has brought everything into the file by now, and synced it.
                    log.index_is_synced(&self.dir);
                }
                Done::Create { path: path.to_owned(), handle }
            }
            Operation::Write { handle, offset, bytes } => {
                Done::Write { handle, offset, bytes: bytes.to_vec() }
            }
            Operation::SetLen { handle, len } => Done::SetLen { handle, len },
            Operation::SyncFile { handle, .. } => Done::SyncFile { handle },
            Operation::SyncFolder { path } => Done::SyncFolder { path: path.to_owned() },
            Operation::Rename { from, to } => Done::Rename { from: from.to_owned(), to: to.to_owned() },
            Operation::Remove { path } => Done::Remove { path: path.to_owned() },
            Operation::MakeFolder { path } => Done::MakeFolder { path: path.to_owned() },
            Operation::Read { .. } | Operation::List { .. } | Operation::Metadata { .. } => return,
        };
        log.done.push(done);
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A file's bytes: those that are certain, and what was done since.
#[derive(Debug, Default)]
struct Node {
    synced: Vec<u8>,
    pending: Vec<Change>,
    /// How many of the pending changes no sync makes certain any more.
    doomed: usize,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug)]
enum Renaming {
    Add { path: String, node: usize },
    Rename { from: String, to: String, node: usize },
    Remove { path: String, node: usize },
}

#[derive(Debug, Default)]
struct CutDisk {
    nodes: Vec<Node>,
    /// What programs see now.
    live: BTreeMap<String, usize>,
    /// What is certain.
    synced: BTreeMap<String, usize>,
    pending: Vec<Renaming>,
    handles: HashMap<u64, usize>,
    folders: BTreeSet<String>,
}

impl CutDisk {
    fn apply(&mut self, done: &Done) {
        match done {
            Done::Open { path, handle } => {
                if let Some(node) = self.live.get(path) {
                    self.handles.insert(*handle, *node);
                }
            }
            Done::Create { path, handle } => {
                let node = self.live.get(path).copied().unwrap_or_else(|| {
                    self.nodes.push(Node::default());
                    let node = self.nodes.len() - 1;
                    self.live.insert(path.clone(), node);
                    self.pending.push(Renaming::Add { path: path.clone(), node });
                    node
                });
                self.handles.insert(*handle, node);
            }
            Done::Write { handle, offset, bytes } => {
                let change =
                    Change::Write { offset: usize::try_from(*offset).unwrap(), bytes: bytes.clone() };
                self.change(*handle, change);
            }
            Done::SetLen { handle, len } => {
                self.change(*handle, Change::SetLen(usize::try_from(*len).unwrap()));
            }
            Done::SyncFile { handle } => {
                if let Some(node) = self.handles.get(handle) {
                    let node = &mut self.nodes[*node];
                    for change in node.pending.drain(node.doomed..) {
                        change.apply(&mut node.synced);
                    }
                }
            }
            Done::FailedSync { handle } => {
                if let Some(node) = self.handles.get(handle) {
                    let node = &mut self.nodes[*node];
                    node.doomed = node.pending.len();
                }
            }
            Done::SyncFolder { path } => {
                let within = |entry: &Renaming| entry.paths().any(|named| folder_of(named) == path);
                let (now, later): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.pending).into_iter().partition(within);
                self.pending = later;
                for entry in now {
                    entry.apply(&mut self.synced);
                    // What is certain to have left a name never comes back under it.
                    if let Renaming::Rename { from, node, .. } = &entry {
                        self.pending.retain(|before| !before.gives(from, *node));
                    }
                }
            }
            Done::Rename { from, to } => {
                if let Some(node) = self.live.remove(from) {
                    self.live.insert(to.clone(), node);
                    self.pending.push(Renaming::Rename { from: from.clone(), to: to.clone(), node });
                }
            }
            Done::MakeFolder { path } => drop(self.folders.insert(path.clone())),
            Done::Remove { path } => {
                if let Some(node) = self.live.remove(path) {
                    self.pending.push(Renaming::Remove { path: path.clone(), node });
                }
            }
        }
    }

    fn change(&mut self, handle: u64, change: Change) {
        if let Some(node) = self.handles.get(&handle) {
            self.nodes[*node].pending.push(change);
        }
    }

    fn cut(self, dice: &mut Dice) -> Left {
        // Everything lost, everything kept (as after kill -9), and all between.
        let kept = [0, 30, 70, 100][dice.under(4)];
        let mut names = self.synced;
        for entry in &self.pending {
            if dice.chance(kept) {
                entry.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for (path, node) in names {
            let Node { synced, pending, .. } = &self.nodes[node];
            let mut bytes = synced.clone();
            for change in pending {
                if dice.chance(kept) {
                    change.apply(&mut bytes);
                } else if dice.chance(50) {
                    change.tear(&mut bytes, dice);
                }
            }
            files.insert(path, bytes);
        }
        Left { files, folders: self.folders }
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => file.resize(*len, 0),
        }
    }

    /// Some sectors of it arrive, or none: the file may have grown all the same.
    fn tear(&self, file: &mut Vec<u8>, dice: &mut Dice) {
        let Self::Write { offset, bytes } = self else { return };
        let end = offset + bytes.len();
        if file.len() < end && dice.chance(50) {
            file.resize(end, 0);
        }
        let mut at = *offset;
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            if next <= file.len() && dice.chance(50) {
                file[at..next].copy_from_slice(&bytes[at - offset..next - offset]);
            }
            at = next;
        }
    }
}

impl Renaming {
    fn paths(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Self::Add { path, .. } | Self::Remove { path, .. } => (path, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second).map(String::as_str)
    }

    /// Whether it gives this name to this file.
    fn gives(&self, name: &str, file: usize) -> bool {
        match self {
            Self::Add { path, node } | Self::Rename { to: path, node, .. } => path == name && *node == file,
            Self::Remove { .. } => false,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add { path, node } => drop(names.insert(path.clone(), *node)),
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
            Self::Remove { path, node } => {
                if names.get(path) == Some(node) {
                    names.remove(path);
                }
            }
        }
    }
}

mod tests {
    use super::*;

    fn done(recorder: &Recorder, steps: &[Done]) {
        recorder.log.lock().unwrap().done.extend_from_slice(steps);
    }

    fn states(recorder: &Recorder) -> Vec<BTreeMap<String, Vec<u8>>> {
        (0..400).map(|seed| recorder.cut(recorder.len(), &mut Dice::new(seed)).files).collect()
    }

    #[test]
    fn what_was_not_synced_may_be_gone_torn_or_zeros_and_what_was_synced_is_there() {
        let (recorder, path) = (Recorder::new(PathBuf::new()), String::from("a/new"));
        let write = |at: u64, byte: u8| Done::Write { handle: 1, offset: at, bytes: vec![byte; 1024] };
        done(&recorder, &[Done::Create { path: path.clone(), handle: 1 }, write(0, 1), write(1024, 2)]);
        let seen = states(&recorder);
        let is = |wanted: fn(Option<&Vec<u8>>) -> bool| seen.iter().any(|files| wanted(files.get(&path)));
        assert!(is(|file| file.is_none()), "the name may be lost");
        assert!(is(|file| file.is_some_and(Vec::is_empty)), "the name without the bytes");
        assert!(is(|file| file.is_some_and(|b| b.len() == 2048 && b[0] == 0 && b[2047] == 2)), "zeros first");
        assert!(is(|file| file.is_some_and(|b| b.len() == 2048 && b[511] != b[512])), "torn in the middle");
        assert!(is(|file| file.is_some_and(|b| b.len() == 2048 && b[0] == 1 && b[2047] == 2)), "all of it");

        done(&recorder, &[Done::SyncFile { handle: 1 }]);
        assert!(states(&recorder).iter().any(BTreeMap::is_empty), "a synced file's name is not synced");
        done(&recorder, &[Done::SyncFolder { path: String::from("a") }]);
        let whole = [vec![1; 1024], vec![2; 1024]].concat();
        assert!(states(&recorder).iter().all(|files| files[&path] == whole), "now everything is certain");
    }

    #[test]
    fn a_rename_that_was_not_synced_happened_or_not_and_never_by_half() {
        let recorder = Recorder::new(PathBuf::new());
        let (from, to) = (String::from("partial/x"), String::from("blobs/x"));
        let sync = |folder: &str| Done::SyncFolder { path: String::from(folder) };
        done(&recorder, &[Done::Create { path: from.clone(), handle: 1 }, sync("partial")]);
        done(&recorder, &[Done::Rename { from: from.clone(), to: to.clone() }]);
        let seen = states(&recorder);
        assert!(
            seen.iter().any(|files| files.contains_key(&from))
                && seen.iter().any(|files| files.contains_key(&to))
        );
        assert!(seen.iter().all(|files| files.len() == 1), "never under both names, never under none");
        done(&recorder, &[sync("blobs")]);
        assert!(states(&recorder).iter().all(|files| files.contains_key(&to)));
    }

    #[test]
    fn a_synced_rename_takes_the_old_name_with_it_whether_or_not_that_was_synced() {
        let recorder = Recorder::new(PathBuf::new());
        let (from, to) = (String::from("partial/x"), String::from("blobs/x"));
        done(&recorder, &[Done::Create { path: from.clone(), handle: 1 }]);
        done(&recorder, &[Done::Rename { from: from.clone(), to: to.clone() }]);
        done(&recorder, &[Done::SyncFolder { path: "blobs".into() }]);
        assert!(states(&recorder).iter().all(|files| files.keys().eq([&to])));
    }
}
