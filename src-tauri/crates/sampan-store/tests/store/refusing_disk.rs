//! Disks that are full or cannot be written.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::{Store, StoreError, StoreOptions};

use crate::setting::{Cache, files_below, name, noise, open_at, tag};

/// A file system of 2 MiB, mounted for one test.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None`: this machine does not let us mount; the test says that it was skipped.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(path);
        if cfg!(target_os = "linux") && mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { path: path.to_owned() });
        }
        if cfg!(target_os = "linux") {
            sampan_testkit::cannot_run("mounting a small tmpfs needs root");
        }
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).output();
    }
}

/// Fills the disk to the last byte.
fn fill(dir: &Path) -> PathBuf {
    use std::io::Write;
    let path = dir.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    path
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_nothing_and_recovers() {
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let store = open_at(&disk.path, &cache.clock).unwrap();
    let bytes = noise(1, 1024 * 1024);
    let digest = Digest::of(&bytes);
    let too_large = store.stage(&digest, 64 * 1024 * 1024).await.unwrap_err();
    assert!(matches!(too_large, StoreError::Full), "refused before the first byte");

    let mut stage = store.stage(&digest, bytes.len() as u64).await.unwrap();
    stage.append(bytes.slice(..4096)).await.unwrap();
    let filler = fill(&disk.path);
    let error = stage.append(bytes.slice(4096..)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "the disk's own refusal, at once: {error:?}");
    assert!(matches!(stage.publish().await, Err(StoreError::Dead)));
    assert_eq!((cache.du(), cache.partials()), ((0, 0), 0), "nothing is left of it");
    drop(fill(&disk.path));

    // An empty blob needs no room for its bytes: here it is the index that has none for the row.
    let mut refused = store.put(&Digest::of(b""), Bytes::new()).await;
    for round in 0..2000 {
        if refused.is_err() {
            break;
        }
        refused = store.set_tag(&name("alpine"), &tag(&format!("t{round}")), &digest).await;
    }
    assert!(matches!(refused, Err(StoreError::Full)), "the index is on the same disk: {refused:?}");
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "what was refused is not counted");

    std::fs::remove_file(filler).unwrap();
    store.put(&digest, bytes).await.expect("room again, work again");
    assert_eq!(store.usage().await.unwrap().size_bytes, 1024 * 1024);
}

#[tokio::test]
async fn the_room_to_be_kept_free_is_kept_free() {
    let cache = Cache::new();
    let clock = Arc::clone(&cache.clock);
    let options =
        StoreOptions { free_space_floor_bytes: u64::MAX / 2, ..StoreOptions::new(cache.dir.clone(), clock) };
    let store = Store::open(options).unwrap();
    assert!(
        store.usage().await.unwrap().free_bytes.is_some_and(|free| free > 0),
        "the system says what is free"
    );
    assert!(matches!(store.stage(&Digest::of(b"x"), 1).await, Err(StoreError::Full)));
    assert_eq!(cache.partials(), 0, "refused before a file was made");
}

#[cfg(unix)]
#[tokio::test]
async fn without_permission_to_write_hits_are_still_read() {
    use std::os::unix::fs::PermissionsExt;
    let cache = Cache::new();
    let store = cache.open();
    store.put(&Digest::of(b"held"), Bytes::from_static(b"held")).await.unwrap();
    let partial = cache.dir.join("partial");
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o500)).unwrap();
    // Permissions do not bind root; an immutable folder does, where the file system has it.
    let probe = partial.join("probe");
    let immutable = |flag: &str| {
        Command::new("chattr").arg(flag).arg(&partial).output().is_ok_and(|output| output.status.success())
    };
    let root = std::fs::write(&probe, b"").is_ok();
    if root {
        std::fs::remove_file(&probe).unwrap();
        if !immutable("+i") {
            sampan_testkit::cannot_run("run by root, on a file system without immutable folders");
            return;
        }
    }
    let refused = store.stage(&Digest::of(b"new"), 3).await;
    if root {
        assert!(immutable("-i"), "the temporary folder must be removable again");
    }
    assert!(matches!(refused, Err(StoreError::ReadOnly)), "{refused:?}");
    let blob = store.open_blob(&Digest::of(b"held")).await.unwrap().unwrap();
    assert_eq!(&blob.read_at(0, 4).await.unwrap()[..], b"held");
    assert_eq!(files_below(&partial).len(), 0);
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_a_partial_and_keeps_what_it_holds() {
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let store = open_at(&disk.path, &cache.clock).unwrap();
    let bytes = noise(2, 1024 * 1024);
    let digest = Digest::of(&bytes);
    let mut partial = store.partial(&digest, bytes.len() as u64).await.unwrap();
    partial.write(vec![(500_000, bytes.slice(500_000..600_000))]).await.unwrap();
    partial.write(vec![(0, bytes.slice(..4096))]).await.unwrap();
    let filler = fill(&disk.path);
    let error = partial.write(vec![(4096, bytes.slice(4096..500_000))]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert!(matches!(partial.write(Vec::new()).await, Err(StoreError::Dead)));
    drop(partial);
    assert!(matches!(store.partial(&digest, bytes.len() as u64).await, Err(StoreError::Full)));
    drop(store);

    std::fs::remove_file(filler).unwrap();
    let store = open_at(&disk.path, &cache.clock).unwrap();
    let mut partial = store.partial(&digest, bytes.len() as u64).await.expect("room again, work again");
    assert_eq!((partial.held().len(), partial.hashed()), (104_096, 4096), "no byte of it is fetched again");
    partial.write(vec![(0, bytes)]).await.unwrap();
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn a_partial_needs_room_for_what_it_lacks_only() {
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let store = open_at(&disk.path, &cache.clock).unwrap();
    let bytes = noise(3, 1_400_000);
    let digest = Digest::of(&bytes);
    let mut partial = store.partial(&digest, 1_400_000).await.unwrap();
    partial.write(vec![(0, bytes.slice(..1_300_000))]).await.unwrap();
    drop(partial);
    assert!(
        store.usage().await.unwrap().free_bytes.unwrap() < 1_400_000,
        "there is no room for all of it again"
    );
    let mut partial = store.partial(&digest, 1_400_000).await.expect("100 kB are missing");
    partial.write(vec![(1_300_000, bytes.slice(1_300_000..))]).await.unwrap();
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn a_leftover_of_another_size_takes_no_room_from_its_successor() {
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let store = open_at(&disk.path, &cache.clock).unwrap();
    let digest = Digest::of(b"announced twice");
    let mut partial = store.partial(&digest, 1_300_000).await.unwrap();
    partial.write(vec![(0, noise(4, 1_200_000))]).await.unwrap();
    drop(partial);
    assert!(store.usage().await.unwrap().free_bytes.unwrap() < 1_250_000, "there is no room for both");
    let partial = store.partial(&digest, 1_250_000).await.expect("the old one goes first");
    assert!(partial.held().is_empty());
}

#[tokio::test]
async fn idle_partials_make_way_for_a_download_oldest_first_and_only_where_that_helps() {
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let store = open_at(&disk.path, &cache.clock).unwrap();
    // Made in another order than that of their age.
    let idle = [("new", 3), ("old", 1), ("middle", 2)].map(|(what, day)| (Digest::of(what.as_bytes()), day));
    for (digest, day) in idle {
        let mut partial = store.partial(&digest, 400_000).await.unwrap();
        partial.write(vec![(0, noise(5, 400_000))]).await.unwrap();
        drop(partial);
        for kind in ["data", "ledger"] {
            let file = std::fs::File::options().write(true).open(cache.partial_path(&digest, kind)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(day * 86_400)).unwrap();
        }
    }
    let [new, old, middle] = idle.map(|(digest, _)| cache.partial_path(&digest, "data"));
    let mut open = store.partial(&Digest::of(b"open"), 100_000).await.unwrap();
    open.write(vec![(0, noise(6, 100_000))]).await.unwrap();
    let free = store.usage().await.unwrap().free_bytes.unwrap();

    let refused = store.partial(&Digest::of(b"huge"), free + 1_250_000).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert!(old.exists() && middle.exists() && new.exists(), "not even all of them would have been enough");

    let partial = store.partial(&Digest::of(b"large"), free + 300_000).await.unwrap();
    assert!(!old.exists() && middle.exists() && new.exists(), "one is enough");
    drop(partial);
    let stage = store.stage(&Digest::of(b"staged"), free + 1_000_000).await.unwrap();
    assert!(!middle.exists() && !new.exists(), "for staged bytes too");
    drop(stage);
    assert!(cache.partial_path(&Digest::of(b"open"), "data").exists(), "what is open never goes");
    assert_eq!(store.usage().await.unwrap().partial_bytes, 100_000);
    let again = store.partial(&idle[0].0, 400_000).await.unwrap();
    assert!(again.held().is_empty(), "what made way begins again");
}

#[tokio::test]
async fn a_reader_that_holds_up_the_disk_costs_no_second_image() {
    const SIZE: usize = 300_000;
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let options = || StoreOptions::new(disk.path.clone(), cache.clock.clone());
    let store = Store::open(options()).unwrap();
    for seed in 1..=3 {
        cache.clock.advance(1000);
        store.put(&Digest::of(&noise(seed, SIZE)), noise(seed, SIZE)).await.unwrap();
    }
    let free = store.usage().await.unwrap().free_bytes.unwrap();
    drop(store);
    // As much again is set aside for the index's log; the index itself may grow a little meanwhile.
    let floor = (free - 100_000) / 2;
    let store = Store::open(StoreOptions { free_space_floor_bytes: floor, ..options() }).unwrap();
    let reader = store.open_blob(&Digest::of(&noise(1, SIZE))).await.unwrap().unwrap();
    let first = store.stage(&Digest::of(b"first"), 150_000).await.expect("the oldest makes way");
    assert_eq!(store.usage().await.unwrap().blobs, 2);
    drop(first);
    let second = store.stage(&Digest::of(b"second"), 150_000).await.unwrap();
    assert_eq!(store.usage().await.unwrap().blobs, 2, "its room counts, though somebody still reads it");
    assert_eq!(reader.read_at(0, SIZE).await.unwrap(), noise(1, SIZE));
    drop(second);
}

#[tokio::test]
async fn a_cache_on_a_full_disk_is_served() {
    let cache = Cache::new();
    let Some(disk) = SmallDisk::mount(&cache.dir) else { return };
    let store = open_at(&disk.path, &cache.clock).unwrap();
    let held = Digest::of(b"held");
    store.put(&held, Bytes::from_static(b"held")).await.unwrap();
    store.flush().await.unwrap();
    drop(store);
    let filler = fill(&disk.path);
    let store = open_at(&disk.path, &cache.clock).expect("hits need no room");
    assert!(store.is_read_only());
    assert!(store.open_blob(&held).await.unwrap().is_some());
    let full = store.recover().await.unwrap_err();
    assert!(store.is_read_only(), "{full}");
    std::fs::remove_file(filler).unwrap();
    store.recover().await.expect("space was deleted");
    assert!(!store.is_read_only(), "without a restart");
    store.put(&Digest::of(b"new"), Bytes::from_static(b"new")).await.unwrap();
}
