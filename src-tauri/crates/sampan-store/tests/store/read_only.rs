//! A cache that cannot be written serves what it holds (SECURITY.md R70).

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::{
    Disk, OpenError, Operation, ScrubPace, ScrubProgress, Selected, Selection, Store, StoreError, Verdict,
    Verify, Witness,
};
use tokio::sync::Notify;

use crate::setting::{Cache, Image, files_below, name, noise, tag};

/// A disk that refuses whatever would change it.
#[derive(Debug)]
struct Refusing(io::ErrorKind);

impl Witness for Refusing {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        if operation.changes() { Err(self.0.into()) } else { Ok(Verdict::Go) }
    }
}

pub(crate) fn refusing(kind: io::ErrorKind) -> Disk {
    Disk::watched(Arc::new(Refusing(kind)))
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(dir).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn image() -> Image {
    Image::new("amd64", &[noise(1, 5000), noise(2, 700)])
}

/// Whether everything held is served, and every change refused.
async fn serves_and_refuses(store: &Store, image: &Image) {
    let (alpine, digest) = (name("alpine"), image.digest());
    assert!(store.is_read_only());
    assert_eq!(store.held_tag(&alpine, &tag("3.20")).await.unwrap().unwrap().digest, digest, "tags");
    assert_eq!(store.tags(&alpine).await.unwrap(), [tag("3.20")]);
    assert_eq!(store.manifest(&alpine, &digest).await.unwrap().unwrap().0, image.bytes, "manifests");
    let layer = store.open_blob(&Digest::of(&image.blobs[1])).await.unwrap().unwrap();
    assert_eq!(layer.read_at(0, 5000).await.unwrap(), image.blobs[1], "blobs");
    assert!(layer.verify().await.unwrap());
    let listed = store.images().await.unwrap();
    assert_eq!((listed.len(), listed[0].size_bytes), (1, image.size()), "the list");
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), (image.size(), 4), "the totals");
    assert_eq!(store.plan_clear(&Selection::All).await.unwrap().freed_bytes, image.size(), "a preview");

    let new = Digest::of(b"new");
    let read_only = |done: Result<(), StoreError>, what: &str| {
        assert!(matches!(done, Err(StoreError::ReadOnly)), "{what}: {done:?}");
    };
    read_only(store.stage(&new, 3).await.map(drop), "stage");
    read_only(store.partial(&new, 3).await.map(drop), "partial");
    read_only(store.put(&new, Bytes::from_static(b"new")).await, "put");
    read_only(store.put_manifest(&alpine, &image.manifest, image.bytes.clone()).await, "manifest");
    read_only(store.set_tag(&alpine, &tag("new"), &digest).await, "tag");
    read_only(store.add_link(&alpine, &new, None).await, "link");
    read_only(store.put_referrers(&alpine, &digest, Bytes::new()).await, "referrers");
    read_only(store.clear(&Selection::All).await.map(drop), "clear");
    let selected = vec![Selected { image: alpine.clone(), reference: None }];
    read_only(store.clear_later(&Selection::Images(selected)).await.map(drop), "clear later");
    read_only(store.quarantine(&Digest::of(&image.blobs[1])).await, "quarantine");
    let refused = store.open_blob(&Digest::of(&image.blobs[1])).await.unwrap().unwrap();
    assert!(!refused.verified(), "but what was found damaged does not pass for right");
    assert!(refused.verify().await.unwrap());
    read_only(store.quarantine_file(&refused).await, "quarantine of a file");
    let known = store.open_blob(&Digest::of(&image.blobs[1])).await.unwrap();
    assert!(known.is_none(), "what is damaged and cannot be removed is as if it were not there");
    store.touch(&alpine, &digest, false).await;
    store.flush().await.expect("uses are not noted, and nothing is to be written");
    assert_eq!(store.images().await.unwrap(), listed, "nothing changed");
}

#[tokio::test]
async fn a_cache_on_a_disk_that_refuses_every_change_is_served() {
    for kind in [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied] {
        let (cache, image) = (Cache::new(), image());
        let store = cache.open();
        image.put_as(&store, &name("alpine"), "3.20").await;
        let mut partial = store.partial(&Digest::of(b"left"), 5).await.unwrap();
        partial.write(vec![(0, Bytes::from_static(b"le"))]).await.unwrap();
        drop((partial, store));
        let cut =
            cache.dir.join("partial").join(format!("sha256-{}.0123456789abcdef", Digest::of(b"cut").hex()));
        std::fs::write(&cut, b"half").unwrap();
        let before = contents(&cache.dir);

        let store = cache.try_open_on(refusing(kind)).unwrap();
        serves_and_refuses(&store, &image).await;
        drop(store);
        assert_eq!(
            contents(&cache.dir),
            before,
            "{kind:?}: not a byte was written, not a file swept or made"
        );
        let store = cache.open();
        assert!(!store.is_read_only(), "writable again, all as before");
        assert_eq!(store.left_of(&Digest::of(b"left")), 2);
    }
}

/// A disk that refuses whatever would change it, until it is told otherwise.
#[derive(Debug, Default)]
struct Healing(AtomicBool);

impl Witness for Healing {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        if operation.changes() && !self.0.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(Verdict::Go)
    }
}

#[tokio::test]
async fn a_cache_that_can_be_written_again_is_written_without_a_restart() {
    let (cache, image) = (Cache::new(), image());
    let store = cache.open();
    image.put_as(&store, &name("alpine"), "3.20").await;
    drop(store);
    let disk = Arc::new(Healing::default());
    let store = cache.try_open_on(Disk::watched(disk.clone())).unwrap();
    let clone = store.clone();
    store.set_quota(Some(10_000_000));
    let layer = Digest::of(&image.blobs[1]);
    let before = store.open_blob(&layer).await.unwrap().unwrap();
    let refused = store.recover().await;
    assert!(matches!(refused, Err(OpenError::Io(_))), "{refused:?}");
    assert!(store.is_read_only(), "nothing has changed");

    disk.0.store(true, Ordering::SeqCst);
    store.recover().await.unwrap();
    assert!(!store.is_read_only() && !clone.is_read_only(), "for everybody who has it");
    let new = Digest::of(b"new");
    clone.put(&new, Bytes::from_static(b"new")).await.unwrap();
    store.set_tag(&name("alpine"), &tag("new"), &image.digest()).await.unwrap();
    assert_eq!(clone.tags(&name("alpine")).await.unwrap(), [tag("3.20"), tag("new")]);
    assert_eq!(store.usage().await.unwrap().quota_bytes, Some(10_000_000), "what was set stays");
    assert_eq!(before.read_at(0, 5000).await.unwrap(), image.blobs[1], "who was reading reads on");
    assert_eq!(cache.partials(), 0, "the probe is gone");
    let second = cache.try_open();
    assert!(matches!(second, Err(OpenError::Locked { pid: Some(_) })), "and it is locked: {second:?}");
    store.recover().await.expect("one that can be written is left as it is");
    drop((store, clone, before));
    let store = cache.open();
    assert!(store.open_blob(&new).await.unwrap().is_some(), "what was written is there");
    assert_eq!(store.tags(&name("alpine")).await.unwrap(), [tag("3.20"), tag("new")]);
}

/// A disk that refuses whatever would change it, until it is told otherwise; and then somebody sets what is to be hashed.
#[derive(Debug, Default)]
struct Setting {
    healing: Healing,
    store: OnceLock<Store>,
}

impl Witness for Setting {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Verdict> {
        if let Some(store) = self.store.get() {
            store.set_verify(Verify::Always);
        }
        self.healing.before(operation)
    }
}

#[tokio::test]
async fn what_is_set_while_a_cache_is_opened_again_is_in_force() {
    let (cache, image) = (Cache::new(), image());
    let store = cache.open();
    image.put_as(&store, &name("alpine"), "3.20").await;
    drop(store);
    let disk = Arc::new(Setting::default());
    let store = cache.try_open_on(Disk::watched(disk.clone())).unwrap();
    disk.healing.0.store(true, Ordering::SeqCst);
    disk.store.set(store.clone()).unwrap();
    store.recover().await.unwrap();
    let (alpine, digest) = (name("alpine"), image.digest());
    let manifest = || store.manifest(&alpine, &digest);
    assert!(manifest().await.unwrap().is_some());
    cache.flip_a_bit(&digest);
    assert!(manifest().await.unwrap().is_none(), "each read is hashed");
}

#[tokio::test(start_paused = true)]
async fn a_scrub_that_began_on_a_cache_that_could_only_be_read_takes_out_what_it_finds_after() {
    let (cache, image) = (Cache::new(), image());
    let store = cache.open();
    image.put_as(&store, &name("alpine"), "3.20").await;
    drop(store);
    for blob in &image.blobs {
        cache.flip_a_bit(&Digest::of(blob));
    }
    let disk = Arc::new(Healing::default());
    let store = cache.try_open_on(Disk::watched(disk.clone())).unwrap();
    let (found, first) = (AtomicU64::new(0), Notify::new());
    // The rest waits until it can be written.
    let busy = || found.load(Ordering::SeqCst) == 1 && store.is_read_only();
    let progress = |now: ScrubProgress| {
        found.store(now.damaged, Ordering::SeqCst);
        first.notify_one();
    };
    let scrub = store.scrub(ScrubPace::FULL, busy, progress, pending());
    let mending = async {
        while found.load(Ordering::SeqCst) == 0 {
            first.notified().await;
        }
        disk.0.store(true, Ordering::SeqCst);
        store.recover().await.unwrap();
    };
    let (report, ()) = tokio::join!(scrub, mending);
    assert_eq!(report.unwrap().damaged_blobs, 3);
    let left = image.blobs.iter().filter(|blob| cache.blob_path(&Digest::of(blob)).exists());
    assert_eq!(left.count(), 1, "what was found before it could be taken out is where it was");
    assert_eq!(store.health().await.unwrap().damaged, 2);
}

#[tokio::test]
async fn what_is_only_in_the_log_of_a_crashed_process_counts() {
    let (cache, image) = (Cache::new(), image());
    let store = cache.open();
    image.put_as(&store, &name("alpine"), "3.20").await;
    // As after `kill -9`: the log is not yet in the database.
    let saved =
        ["sampan.db", "sampan.db-wal"].map(|file| (file, std::fs::read(cache.dir.join(file)).unwrap()));
    drop(store);
    assert!(saved[1].1.len() > 10_000, "the rows are in the log");
    for (file, bytes) in &saved {
        std::fs::write(cache.dir.join(file), bytes).unwrap();
    }
    let before = contents(&cache.dir);
    let store = cache.try_open_on(refusing(io::ErrorKind::ReadOnlyFilesystem)).unwrap();
    serves_and_refuses(&store, &image).await;
    drop(store);
    assert_eq!(contents(&cache.dir), before, "the log is where it was");
}

#[tokio::test]
async fn a_lost_index_still_serves_the_blobs() {
    let (cache, image) = (Cache::new(), image());
    let store = cache.open();
    image.put_as(&store, &name("alpine"), "3.20").await;
    drop(store);
    std::fs::write(cache.dir.join("sampan.db"), noise(9, 20_000)).unwrap();
    let before = contents(&cache.dir);
    let store = cache.try_open_on(refusing(io::ErrorKind::ReadOnlyFilesystem)).unwrap();
    assert!(store.open_blob(&Digest::of(&image.blobs[1])).await.unwrap().is_some());
    assert_eq!(store.usage().await.unwrap().size_bytes, image.size(), "every file counts");
    drop(store);
    assert_eq!(contents(&cache.dir), before, "nothing is set aside");
}

#[tokio::test]
async fn what_never_was_a_cache_or_is_not_to_be_opened_is_refused_as_ever() {
    let refusing = || refusing(io::ErrorKind::ReadOnlyFilesystem);
    let cache = Cache::new();
    let missing = cache.try_open_on(refusing());
    assert!(matches!(missing, Err(OpenError::Io(_))), "{missing:?}");
    std::fs::create_dir(&cache.dir).unwrap();
    let empty = cache.try_open_on(refusing());
    assert!(matches!(empty, Err(OpenError::Io(_))), "{empty:?}");
    std::fs::write(cache.dir.join("thesis.txt"), b"years of work").unwrap();
    assert!(matches!(cache.try_open_on(refusing()), Err(OpenError::NotOurs(_))));

    let cache = Cache::new();
    let store = cache.open();
    let locked = cache.try_open_on(refusing());
    assert!(matches!(locked, Err(OpenError::Locked { .. })), "one process at a time: {locked:?}");
    drop(store);
    let first = cache.try_open_on(refusing()).unwrap();
    let second = cache.try_open_on(refusing());
    assert!(matches!(second, Err(OpenError::Locked { .. })), "reading is locked too: {second:?}");
    drop(first);
    let future = rusqlite::Connection::open(cache.dir.join("sampan.db")).unwrap();
    future.execute_batch("PRAGMA user_version = 99").unwrap();
    future.close().unwrap();
    assert!(matches!(cache.try_open_on(refusing()), Err(OpenError::Future(99))));
}

#[tokio::test]
async fn folders_that_an_older_cache_lacks_are_as_if_empty() {
    let (cache, image) = (Cache::new(), image());
    let store = cache.open();
    image.put_as(&store, &name("alpine"), "3.20").await;
    drop(store);
    for folder in ["blobs/sha512", "partial", "quarantine"] {
        std::fs::remove_dir(cache.dir.join(folder)).unwrap();
    }
    let store = cache.try_open_on(refusing(io::ErrorKind::ReadOnlyFilesystem)).unwrap();
    serves_and_refuses(&store, &image).await;
    assert!(!cache.dir.join("partial").exists());
}

#[cfg(target_os = "linux")]
mod mounted {
    use std::process::Command;

    use sampan_store::StoreOptions;
    use tempfile::TempDir;

    use super::*;
    use crate::setting::open_at;

    /// Where the child mounts its disk, below its working directory.
    const DISK: &str = "disk";

    fn mount(arguments: &[&str]) {
        let done = Command::new("mount").args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    #[tokio::test]
    #[ignore = "the child of the test below, in a mount namespace of its own"]
    async fn serves_from_a_disk_that_was_mounted_anew() {
        let (disk, clock) = (std::env::current_dir().unwrap().join(DISK), Cache::new().clock);
        std::fs::create_dir(&disk).unwrap();
        let path = disk.to_str().unwrap();
        mount(&["-t", "tmpfs", "tmpfs", path]);
        let dir = disk.join("cache");
        let store = open_at(&dir, &clock).unwrap();
        let image = image();
        image.put_as(&store, &name("alpine"), "3.20").await;
        drop(store);
        mount(&["-o", "remount,ro", path]);
        let store = Store::open(StoreOptions::new(dir.clone(), clock.clone())).unwrap();
        serves_and_refuses(&store, &image).await;
        store.recover().await.unwrap_err();
        mount(&["-o", "remount,rw", path]);
        store.recover().await.unwrap();
        assert!(!store.is_read_only(), "without a restart");
        store.put(&Digest::of(b"new"), Bytes::from_static(b"new")).await.unwrap();
    }

    #[test]
    fn a_cache_on_a_file_system_mounted_read_only_is_served() {
        let temporary = TempDir::new().unwrap();
        let namespace = |program: &Path| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private"]).arg(program).current_dir(temporary.path());
            command
        };
        if !rustix::process::geteuid().is_root()
            || !namespace(Path::new("true")).output().is_ok_and(|output| output.status.success())
        {
            sampan_testkit::cannot_run("a mount namespace of its own needs root");
            return;
        }
        let child = namespace(&std::env::current_exe().unwrap())
            .args([
                "--exact",
                "read_only::mounted::serves_from_a_disk_that_was_mounted_anew",
                "--ignored",
                "--nocapture",
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{said}\n{}", String::from_utf8_lossy(&child.stderr));
        assert!(said.contains("1 passed"), "{said}");
        assert_eq!(files_below(temporary.path()).len(), 0, "the mount went with its namespace");
    }
}
