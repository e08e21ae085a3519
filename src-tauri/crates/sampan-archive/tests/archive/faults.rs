//! Disks that are full or cannot be written, on either side.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sampan_archive::{ArchiveError, Imported, export};
use sampan_store::{Disk, Operation, Verdict, Witness};

use crate::support::{Archive, Cache, Parts};

const FIRST: &str = "docker.io/library/alpine:3.20";
const SECOND: &str = "ghcr.io/someone/app:1";

fn images() -> [(&'static str, Parts); 2] {
    let app = Parts::image("amd64", &[(1, 5000), (3, 70_000), (4, 0)]);
    [(FIRST, Parts::image("amd64", &[(1, 5000), (2, 10)])), (SECOND, app)]
}

fn archive(folder: &Path) -> PathBuf {
    let [first, second] = images();
    Archive::of(&[(first.0, &first.1), (second.0, &second.1)]).tar().write(folder)
}

/// Refuses operations of a kind, from the nth on; `u64::MAX`: none.
#[derive(Debug)]
struct Refusing {
    error: io::ErrorKind,
    matches: fn(&Operation<'_>) -> bool,
    left: AtomicU64,
    /// What was refused.
    refused: Mutex<u64>,
}

impl Refusing {
    fn new(error: io::ErrorKind, matches: fn(&Operation<'_>) -> bool) -> Arc<Self> {
        Arc::new(Self { error, matches, left: AtomicU64::new(u64::MAX), refused: Mutex::default() })
    }

    /// From now on, so many pass and no more.
    fn let_pass(&self, count: u64) {
        self.left.store(count, Ordering::SeqCst);
        *self.refused.lock().unwrap() = 0;
    }

    /// Returns whether it has refused anything.
    fn mend(&self) -> bool {
        self.left.store(u64::MAX, Ordering::SeqCst);
        *self.refused.lock().unwrap() > 0
    }
}

impl Witness for Refusing {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        if !(self.matches)(operation) {
            return Ok(Verdict::Go);
        }
        let mut refused = self.refused.lock().unwrap();
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            *refused += 1;
            return Err(self.error.into());
        }
        self.left.store(left.saturating_sub(u64::from(left < u64::MAX)), Ordering::SeqCst);
        Ok(Verdict::Go)
    }
}

fn changes(operation: &Operation<'_>) -> bool {
    operation.changes()
}

/// Imports two images, with the disk failing ever later. Returns how often it failed.
async fn import_on(witness: &Arc<Refusing>, tell: impl Fn(ArchiveError) -> Imported) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let source = archive(folder.path());
    let mut came_in = [false; 3];
    for passing in 0.. {
        let disk = Disk::watched(witness.clone());
        let cache = Cache::with(|options| options.disk = disk.clone());
        witness.let_pass(passing);
        let done = cache.import(&source).await;
        if !witness.mend() {
            assert_eq!(done.unwrap().images.len(), 2);
            assert!(came_in[0] && came_in[1], "none or one came in until then: {came_in:?}");
            return passing;
        }
        let report = match done {
            Err(error) => {
                let words = error.to_string();
                let imported = tell(error);
                assert_eq!(words.contains("came in before"), !imported.images.is_empty(), "{words}");
                imported
            }
            // What is refused may be something that the import does not depend on.
            Ok(report) => report,
        };
        let names: Vec<String> = report.images.iter().map(sampan_archive::ImportedEntry::name).collect();
        assert_eq!(cache.names().await, names, "what is told came in, and nothing else");
        came_in[names.len()] = true;
        cache.blobs();
        if witness.error == io::ErrorKind::StorageFull {
            cache.assert_tidy();
        }
        // What a read-only disk did not let go is for the next start.
        let cache = cache.again(|options| options.disk = disk);
        cache.assert_tidy();
        assert_eq!(cache.names().await, names, "after operation {passing}");
        cache.blobs();
        assert_eq!(cache.import(&source).await.unwrap().images.len(), 2, "room again, work again");
        let all = Cache::new();
        all.import(&source).await.unwrap();
        assert_eq!(cache.blobs(), all.blobs());
    }
    unreachable!("it ends by returning");
}

#[tokio::test]
async fn a_disk_that_gets_full_keeps_what_came_in_and_nothing_by_halves() {
    let witness =
        Refusing::new(io::ErrorKind::StorageFull, |operation| matches!(operation, Operation::Write { .. }));
    let full = |error: ArchiveError| {
        let ArchiveError::Full { imported, needed_bytes: None } = error else { panic!("{error:?}") };
        *imported
    };
    let failed = import_on(&witness, full).await;
    assert!(failed >= 7, "each blob that is not empty is written: {failed}");
}

#[tokio::test]
async fn a_disk_that_gets_read_only_keeps_what_came_in_and_nothing_by_halves() {
    let witness = Refusing::new(io::ErrorKind::ReadOnlyFilesystem, changes);
    let read_only = |error: ArchiveError| {
        let ArchiveError::ReadOnly { imported } = error else { panic!("{error:?}") };
        *imported
    };
    let failed = import_on(&witness, read_only).await;
    assert!(failed >= 20, "each blob is made, written, synced and renamed: {failed}");
}

#[tokio::test]
async fn what_the_disk_cannot_read_is_replaced_by_the_archives() {
    let cache = Cache::new();
    let [(name, parts), _] = images();
    cache.hold(name, &parts).await;
    let reads = Refusing::new(io::ErrorKind::Other, |operation| matches!(operation, Operation::Read { .. }));
    let cache = cache.again(|options| options.disk = Disk::watched(reads.clone()));
    reads.let_pass(0);
    let source = Archive::of(&[(name, &parts)]).tar().write(cache.folder.path());
    let report = cache.import(&source).await.unwrap();
    assert!(reads.mend());
    assert_eq!((report.new_blobs, report.held_blobs), (parts.everything().count() as u64, 0));
    assert_eq!(cache.blobs().len(), parts.everything().count());
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_refuses_an_import_and_is_exported() {
    let cache = Cache::new();
    let chosen = [cache.hold(FIRST, &images()[0].1).await];
    cache.store.flush().await.unwrap();
    let witness = Refusing::new(io::ErrorKind::ReadOnlyFilesystem, changes);
    witness.let_pass(0);
    let cache = cache.again(|options| options.disk = Disk::watched(witness));
    assert!(cache.store.is_read_only());
    let source = archive(cache.folder.path());
    let error = cache.import(&source).await.unwrap_err();
    assert!(matches!(&error, ArchiveError::ReadOnly { imported } if imported.images.is_empty()), "{error:?}");
    assert_eq!(error.to_string(), "the cache cannot be written");
    let target = cache.folder.path().join("out.tar");
    export(&cache.store, &chosen, &target, |_| {}).await.unwrap();
    assert_eq!(Cache::new().import(&target).await.unwrap().images.len(), 1);
}

/// A file system of 1 MiB, mounted for one test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this machine does not let us mount; the test says that it was skipped.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path);
        if cfg!(target_os = "linux") && mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        if cfg!(target_os = "linux") {
            sampan_testkit::cannot_run("mounting a small tmpfs needs root");
        }
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_target_that_gets_full_is_named_and_nothing_is_left_on_it() {
    let cache = Cache::new();
    let chosen = [
        cache.hold(FIRST, &images()[0].1).await,
        cache.hold(SECOND, &Parts::image("amd64", &[(5, 3_000_000)])).await,
    ];
    let Some(disk) = SmallDisk::mount(&cache.folder.path().join("stick")) else { return };
    std::fs::create_dir(disk.0.join("mine")).unwrap();
    for name in ["out.tar", "out", "mine"] {
        let target = disk.0.join(name);
        let error = export(&cache.store, &chosen, &target, |_| {}).await.unwrap_err();
        assert!(matches!(&error, ArchiveError::TargetFull(path) if *path == target), "{error:?}");
        assert!(error.to_string().contains(target.to_str().unwrap()), "{error}");
        let left: Vec<_> =
            std::fs::read_dir(&disk.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"], "nothing but what was there: {name}");
        assert_eq!(std::fs::read_dir(disk.0.join("mine")).unwrap().count(), 0);
    }
    // What does fit goes there afterwards.
    export(&cache.store, &chosen[..1], &disk.0.join("out.tar"), |_| {}).await.unwrap();
}
