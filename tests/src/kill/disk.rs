//! What lies on the disk, looked at without Sampan: the files, and what their names and ledgers say of them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sampan_oci::Digest;

use super::ledger::Said;
use super::world::World;
use super::{Broken, broken};

/// Files and folders that Sampan makes in its cache folder.
const OURS: [&str; 13] = [
    "blobs",
    "partial",
    "quarantine",
    "lock",
    "oci-layout",
    "oci-layout.new",
    "sampan.db",
    "sampan.db-wal",
    "sampan.db-shm",
    "sampan.db.seal",
    "sampan.db.seal.new",
    "index.json",
    "index.json.new",
];

/// Whether Sampan has been started since the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Killed,
    Started,
}

/// Published files that were hashed, and what tells that they are still those: who, how large, when written and changed.
/// A kill cannot write without leaving a trace there.
#[derive(Debug, Default)]
pub(super) struct Hashed(HashMap<PathBuf, [i64; 6]>);

impl Hashed {
    /// Hashes everything anew.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// The size of the file, where its bytes are what the digest names.
    fn size(&mut self, path: &Path, digest: &Digest) -> Result<Option<u64>, Broken> {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata,
            other => return broken("the cache can be read", format!("{}: {other:?}", path.display())),
        };
        let id = [
            i64::try_from(metadata.ino()).unwrap_or(0),
            i64::try_from(metadata.len()).unwrap_or(0),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ];
        if self.0.get(path) != Some(&id) {
            if !digest.names(&read(path)?) {
                return Ok(None);
            }
            self.0.insert(path.to_owned(), id);
        }
        Ok(Some(metadata.len()))
    }
}

/// What a cache folder holds.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Every published file's size in bytes.
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// What of each partial download is claimed; it has both files.
    pub(super) partials: BTreeMap<Digest, u64>,
    /// Bytes of files that a start sweeps away.
    pub(super) unfinished_bytes: u64,
}

impl Tree {
    /// The sum of the sizes of all published files.
    pub(super) fn blob_bytes(&self) -> u64 {
        self.blobs.values().sum()
    }

    /// The sum of all claims.
    pub(super) fn partial_bytes(&self) -> u64 {
        self.partials.values().sum()
    }
}

/// Reads the whole folder: every published file is what its name says, every claim is true, nothing else is there.
pub(super) fn look(cache: &Path, world: &World, hashed: &mut Hashed, when: When) -> Result<Tree, Broken> {
    let mut tree = Tree::default();
    for (name, _) in files(cache)? {
        if !OURS.contains(&name.as_str()) || (when == When::Started && name == "oci-layout.new") {
            // A damaged index that was set aside is one of these: no kill may damage it.
            return broken("only what Sampan makes is in its folder", name);
        }
    }
    if let Some((name, _)) = files(&cache.join("quarantine"))?.first() {
        return broken("no kill damages a blob", format!("quarantine/{name}"));
    }
    for algorithm in ["sha256", "sha512"] {
        let folder = cache.join("blobs").join(algorithm);
        for (name, path) in files(&folder)? {
            let shown = format!("blobs/{algorithm}/{name}");
            let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else {
                return broken("files under blobs/ are named like digests", shown);
            };
            let Some(size) = hashed.size(&path, &digest)? else {
                return broken("a published file is what its name says", shown);
            };
            tree.blobs.insert(digest, size);
        }
    }
    partials(&cache.join("partial"), world, when, &mut tree)?;
    Ok(tree)
}

fn partials(folder: &Path, world: &World, when: When, tree: &mut Tree) -> Result<(), Broken> {
    let found: BTreeMap<_, _> = files(folder)?.into_iter().collect();
    for (name, path) in &found {
        let shown = || format!("partial/{name}");
        let parsed = name
            .split_once('.')
            .and_then(|(stem, kind)| Some((stem, stem.replacen('-', ":", 1).parse::<Digest>().ok()?, kind)));
        let Some((stem, digest, kind)) = parsed else {
            return broken("files under partial/ are named like those of downloads", shown());
        };
        let other = |kind: &str| found.get(&format!("{stem}.{kind}"));
        match kind {
            "ledger" => {
                let said = match Said::read(&read(path)?) {
                    Ok(said) => said,
                    Err(why) => {
                        return broken("a ledger is whole but for its end", format!("{}: {why}", shown()));
                    }
                };
                let data = other("data").map(|data| read(data)).transpose()?;
                if when == When::Started
                    && (data.is_none() || said.as_ref().is_none_or(|said| said.bytes() == 0))
                {
                    return broken("what cannot be gone on with is swept at start", shown());
                }
                let (Some(said), Some(data)) = (said, data) else { continue };
                if let Some(lie) =
                    said.lie(&data).or_else(|| differs(&said, &data, world.content.get(&digest)?))
                {
                    return broken("every claim of a ledger is true", format!("{}: {lie}", shown()));
                }
                if said.bytes() > 0 {
                    tree.partials.insert(digest, said.bytes());
                }
            }
            "data" => {
                if when == When::Started && other("ledger").is_none() {
                    return broken("what cannot be gone on with is swept at start", shown());
                }
            }
            _ => {
                let staged =
                    kind == "ledger-new" || (kind.len() == 16 && kind.bytes().all(|b| b.is_ascii_hexdigit()));
                if !staged || when == When::Started {
                    return broken("nothing unfinished of an earlier run is left after a start", shown());
                }
                tree.unfinished_bytes += std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            }
        }
    }
    Ok(())
}

/// Where what is claimed is not what the blob has there, in words. A checksum of wrong bytes is true of them.
fn differs(said: &Said, data: &[u8], blob: &[u8]) -> Option<String> {
    if said.size != blob.len() as u64 {
        return Some(format!("it is of {} bytes, the blob of {}", said.size, blob.len()));
    }
    said.claims.iter().find_map(|&(start, end, _)| {
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        (data.get(range.clone()) != blob.get(range))
            .then(|| format!("{start}..{end} are not the blob's bytes"))
    })
}

fn files(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Broken> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return broken("the cache can be read", format!("{}: {error}", folder.display())),
    };
    let entry = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("a folder nobody writes to can be read");
        (entry.file_name().to_string_lossy().into_owned(), entry.path())
    };
    Ok(entries.map(entry).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, Broken> {
    std::fs::read(path)
        .or_else(|error| broken("the cache can be read", format!("{}: {error}", path.display())))
}
