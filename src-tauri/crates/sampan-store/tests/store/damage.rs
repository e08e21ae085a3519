//! Damage on disk, of every kind and in great number: all of it is found, and nothing else is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::{Disk, Operation, ScrubPace, Store, Verdict, Witness};

use crate::setting::{Cache, Image, asked, name, noise};

/// The kinds of damage, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    FlippedBit,
    Truncated,
    Grown,
    ZeroedPage,
    Swapped,
    Link,
    Folder,
    Deleted,
}

const KINDS: [Kind; 8] = [
    Kind::FlippedBit,
    Kind::Truncated,
    Kind::Grown,
    Kind::ZeroedPage,
    Kind::Swapped,
    Kind::Link,
    Kind::Folder,
    Kind::Deleted,
];

/// A cache whose damaged blobs were found right by this very process, a moment before they were damaged.
struct Damaged {
    cache: Cache,
    store: Store,
    harmed: Vec<(Digest, Kind)>,
    sound: Vec<(Digest, Bytes)>,
    /// What links in the cache point to: files elsewhere, some with the right bytes.
    canaries: Vec<(std::path::PathBuf, Bytes)>,
}

impl Damaged {
    /// `count` damaged blobs, and a quarter as many sound ones.
    async fn new(count: u64) -> Self {
        // Every kind as often: the last of a swapped pair would have no partner.
        let count = count.next_multiple_of(16);
        let cache = Cache::new();
        drop(cache.open());
        let elsewhere = cache.dir.with_file_name("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let mut blobs = Vec::new();
        for seed in 0..count + count / 4 {
            let size = usize::try_from(seed * 7919 % 20_000).unwrap();
            let bytes: Bytes = [&seed.to_le_bytes()[..], &noise(seed + 1, size)].concat().into();
            let digest = Digest::of(&bytes);
            fs::write(cache.blob_path(&digest), &bytes).unwrap();
            blobs.push((digest, bytes));
        }
        let store = cache.open();
        let report = scrub(&store).await;
        assert_eq!((report.damaged_blobs, report.missing, report.foreign), (0, 0, 0));
        assert_eq!(report.blobs, blobs.len() as u64);

        let sound = blobs.split_off(usize::try_from(count).unwrap());
        let mut canaries = Vec::new();
        for (pair, (digest, bytes)) in blobs.iter().enumerate() {
            let (kind, path) = (KINDS[pair % 8], cache.blob_path(digest));
            let before = path.metadata().unwrap().modified().unwrap();
            match kind {
                Kind::Link => {
                    let canary = elsewhere.join(digest.hex());
                    let right = pair % 16 < 8;
                    let content = if right { bytes.clone() } else { Bytes::from_static(b"canary") };
                    fs::write(&canary, &content).unwrap();
                    fs::remove_file(&path).unwrap();
                    link(&canary, &path);
                    canaries.push((canary, content));
                }
                Kind::Swapped => {
                    // With the blob of the same kind eight places on; every second one does it for both.
                    let other = &blobs[pair / 16 * 16 + 4 + (pair / 8 + 1) % 2 * 8].0;
                    if pair % 16 < 8 {
                        let (other, aside) = (cache.blob_path(other), path.with_extension("aside"));
                        fs::rename(&path, &aside).unwrap();
                        fs::rename(&other, &path).unwrap();
                        fs::rename(&aside, &other).unwrap();
                    }
                }
                Kind::FlippedBit
                | Kind::Truncated
                | Kind::Grown
                | Kind::ZeroedPage
                | Kind::Folder
                | Kind::Deleted => {
                    harm(kind, &path, bytes, pair);
                }
            }
            // In half of them nothing about the file but its bytes and its change time tells.
            if pair / 8 % 2 == 0 && path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
            }
        }
        let harmed =
            blobs.into_iter().enumerate().map(|(place, (digest, _))| (digest, KINDS[place % 8])).collect();
        Self { cache, store, harmed, sound, canaries }
    }

    fn count(&self, counts: impl Fn(Kind) -> bool) -> u64 {
        self.harmed.iter().filter(|(_, kind)| counts(*kind)).count() as u64
    }

    async fn nothing_else_was_touched(&self) {
        for (digest, bytes) in &self.sound {
            let blob = self.store.open_blob(digest).await.unwrap().expect("a sound blob is held");
            assert!(blob.verified(), "and not hashed again");
            assert_eq!(blob.read_at(0, bytes.len()).await.unwrap(), bytes);
        }
        for (path, content) in &self.canaries {
            assert_eq!(&fs::read(path).unwrap(), content, "what a link points to is nobody's business");
        }
        // Folders are not the store's to remove, wherever they stand.
        let kept = fs::read_dir(self.cache.dir.join("quarantine")).unwrap();
        let kept = kept.filter(|entry| !entry.as_ref().unwrap().file_type().unwrap().is_dir()).count();
        assert!(kept <= 4_096, "{kept} damaged files are kept");
    }
}

fn harm(kind: Kind, path: &Path, bytes: &[u8], place: usize) {
    let mut wrong = bytes.to_vec();
    let middle = place % bytes.len();
    match kind {
        Kind::FlippedBit => wrong[middle] ^= 1 << (place % 7),
        Kind::Truncated => wrong.truncate(middle),
        Kind::Grown => wrong.extend_from_slice(&bytes[..=middle]),
        Kind::ZeroedPage => {
            let page = middle / 4096 * 4096;
            let end = wrong.len().min(page + 4096);
            wrong[page..end].fill(0);
        }
        Kind::Folder | Kind::Deleted => {
            fs::remove_file(path).unwrap();
            if kind == Kind::Folder {
                fs::create_dir(path).unwrap();
            }
            return;
        }
        Kind::Swapped | Kind::Link => return,
    }
    // In place: the file keeps its identity.
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(wrong.len() as u64).unwrap();
    drop(file);
    let mut file = fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, &wrong).unwrap();
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

#[cfg(windows)]
fn link(_: &Path, path: &Path) {
    fs::create_dir(path).unwrap();
}

async fn scrub(store: &Store) -> sampan_store::ScrubReport {
    store.scrub(ScrubPace::FULL, || false, |_| {}, std::future::pending()).await.unwrap()
}

async fn one_scrub_finds_all_of(count: u64) {
    let setting = Damaged::new(count).await;
    let report = scrub(&setting.store).await;
    let damaged = setting.count(|kind| kind != Kind::Deleted);
    assert_eq!(report.damaged_blobs, damaged, "100 %");
    assert_eq!(report.missing, setting.count(|kind| kind == Kind::Deleted));
    assert_eq!((report.foreign, report.unreadable, report.complete), (0, 0, true));
    assert_eq!(report.damaged.len() as u64, damaged.min(1_000), "the list is bounded, the count is not");
    for (digest, kind) in &setting.harmed {
        assert!(setting.store.open_blob(digest).await.unwrap().is_none(), "{kind:?}: {digest} is not served");
    }
    setting.nothing_else_was_touched().await;

    let health = setting.store.health().await.unwrap();
    assert_eq!((health.damaged, health.healed, health.waiting), (damaged, 0, damaged));
    assert!(health.checked_since.is_some() && health.quarantine_bytes > 0);
    assert_eq!(health.newest.len() as u64, damaged.min(100));
    let usage = setting.store.usage().await.unwrap();
    assert_eq!(usage.blobs, setting.sound.len() as u64, "the totals are those of what is left");
    assert_eq!(scrub(&setting.store).await.damaged_blobs, 0, "nothing is found twice");
}

async fn every_first_read_finds_its_damage_of(count: u64) {
    let setting = Damaged::new(count).await;
    for (digest, kind) in &setting.harmed {
        let found = setting.store.open_blob(digest).await.unwrap();
        match kind {
            Kind::Link | Kind::Folder | Kind::Deleted => assert!(found.is_none(), "{kind:?}"),
            Kind::FlippedBit | Kind::Truncated | Kind::Grown | Kind::ZeroedPage | Kind::Swapped => {
                let blob = found.unwrap();
                assert!(
                    cfg!(windows) || !blob.verified(),
                    "{kind:?}: another state of the file than was found right"
                );
                assert!(!blob.verify().await.unwrap(), "{kind:?}");
                setting.store.quarantine_file(&blob).await.unwrap();
            }
        }
        setting.store.quarantine(digest).await.unwrap();
    }
    setting.nothing_else_was_touched().await;
    let health = setting.store.health().await.unwrap();
    assert_eq!(health.damaged, setting.count(|kind| kind != Kind::Deleted));
}

#[tokio::test]
async fn one_scrub_finds_every_damaged_file() {
    one_scrub_finds_all_of(1_008).await;
}

#[tokio::test]
async fn the_first_read_finds_every_damaged_file() {
    every_first_read_finds_its_damage_of(1_008).await;
}

#[tokio::test]
#[ignore = "cargo xtask torture damage"]
async fn one_scrub_finds_every_one_of_10_000_damaged_files() {
    one_scrub_finds_all_of(asked("SAMPAN_TORTURE_POINTS", 10_000)).await;
}

#[tokio::test]
#[ignore = "cargo xtask torture damage"]
async fn the_first_read_finds_every_one_of_10_000_damaged_files() {
    every_first_read_finds_its_damage_of(asked("SAMPAN_TORTURE_POINTS", 10_000)).await;
}

#[tokio::test]
async fn damage_is_counted_and_healed_by_publishing_again() {
    let cache = Cache::new();
    let store = cache.open();
    let bytes = noise(1, 5000);
    let digest = Digest::of(&bytes);
    store.put(&digest, bytes.clone()).await.unwrap();
    cache.flip_a_bit(&digest);
    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    store.quarantine_file(&blob).await.unwrap();
    let health = store.health().await.unwrap();
    assert_eq!((health.damaged, health.healed, health.waiting, health.quarantine_bytes), (1, 0, 1, 5000));
    assert_eq!((health.newest[0].digest, health.newest[0].healed), (digest, None));
    let kept = cache.dir.join("quarantine").join(format!("sha256-{}.1", digest.hex()));
    assert_eq!(fs::metadata(&kept).unwrap().len(), 5000, "kept for whoever wants to know");

    cache.clock.advance(5);
    store.put(&digest, bytes).await.unwrap();
    let health = store.health().await.unwrap();
    assert_eq!((health.damaged, health.healed, health.waiting), (1, 1, 0));
    assert_eq!(health.newest[0].healed, Some(health.newest[0].found.plus(5)));
    drop(store);
    let store = cache.open();
    assert_eq!(store.health().await.unwrap(), health, "and remembered");
    assert_eq!(store.empty_quarantine().await.unwrap(), 5000);
    assert!(!kept.exists());
    assert_eq!(store.health().await.unwrap().quarantine_bytes, 0);
}

#[tokio::test]
async fn a_late_reader_of_a_damaged_file_does_not_throw_away_its_successor() {
    let cache = Cache::new();
    let store = cache.open();
    let bytes = noise(2, 5000);
    let digest = Digest::of(&bytes);
    store.put(&digest, bytes.clone()).await.unwrap();
    cache.flip_a_bit(&digest);
    let first = store.open_blob(&digest).await.unwrap().unwrap();
    let second = first.clone();
    store.quarantine_file(&first).await.unwrap();
    store.put(&digest, bytes).await.unwrap();
    store.quarantine_file(&second).await.unwrap();
    let held = store.open_blob(&digest).await.unwrap().expect("fetched again by the first reader");
    assert!(held.verify().await.unwrap());
    assert_eq!(store.health().await.unwrap().damaged, 1, "one damage, counted once");
}

#[tokio::test]
async fn the_counts_stay_right_when_old_rows_are_gone() {
    let cache = Cache::new();
    let store = cache.open();
    let bytes = Bytes::from_static(b"again and again");
    let digest = Digest::of(&bytes);
    for _ in 0..1_200 {
        fs::write(cache.blob_path(&digest), b"wrong").unwrap();
        store.quarantine(&digest).await.unwrap();
        store.put(&digest, bytes.clone()).await.unwrap();
    }
    let health = store.health().await.unwrap();
    assert_eq!((health.damaged, health.healed, health.waiting), (1_200, 1_200, 0));
    drop(store);
    let index = rusqlite::Connection::open(cache.dir.join("sampan.db")).unwrap();
    let rows: i64 = index.query_row("SELECT count(*) FROM damage", [], |row| row.get(0)).unwrap();
    assert!((1_000..1_100).contains(&rows), "{rows} rows");
}

#[cfg(unix)]
#[tokio::test]
async fn on_a_disk_that_cannot_be_written_damage_is_found_and_not_served_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let cache = Cache::new();
    let store = cache.open();
    let (bytes, right) = (noise(3, 5000), noise(4, 5000));
    let digest = Digest::of(&bytes);
    store.put(&digest, bytes).await.unwrap();
    store.put(&Digest::of(&right), right.clone()).await.unwrap();
    cache.flip_a_bit(&digest);
    let folder = cache.dir.join("blobs/sha256");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    // Permissions do not bind root; an immutable folder does, where the file system has it.
    let immutable = |flag: &str| {
        let done = std::process::Command::new("chattr").arg(flag).arg(&folder).output();
        done.is_ok_and(|output| output.status.success())
    };
    let root = fs::write(folder.join("probe"), b"").is_ok();
    if root {
        fs::remove_file(folder.join("probe")).unwrap();
        if !immutable("+i") {
            sampan_testkit::cannot_run("run by root, on a file system without immutable folders");
            return;
        }
    }
    let blob = store.open_blob(&digest).await.unwrap().unwrap();
    let (first, refused) = (blob.verify().await, store.quarantine_file(&blob).await);
    let second = store.open_blob(&digest).await.unwrap().is_some();
    let report = scrub(&store).await;
    let third = store.open_blob(&digest).await.unwrap().is_some();
    if root {
        assert!(immutable("-i"), "the temporary folder must be removable again");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!first.unwrap() && !second && !third, "not served, however often it is asked for");
    assert!(matches!(refused, Err(sampan_store::StoreError::ReadOnly)), "{refused:?}");
    assert_eq!((report.damaged, report.blobs), (vec![digest], 2), "it is reported");
    assert!(store.open_blob(&Digest::of(&right)).await.unwrap().unwrap().verified());
    store.quarantine(&digest).await.unwrap();
    assert_eq!(store.health().await.unwrap().damaged, 1, "counted once it can be taken out");
}

/// A disk on which a file is replaced right after it was read.
#[derive(Debug, Default)]
struct Replacing(Mutex<Option<(PathBuf, Bytes)>>);

impl Witness for Replacing {
    fn before(&self, _operation: &Operation<'_>) -> std::io::Result<Verdict> {
        Ok(Verdict::Go)
    }

    fn after(&self, operation: &Operation<'_>) {
        if matches!(operation, Operation::Read { .. })
            && let Some((path, bytes)) = self.0.lock().unwrap().take()
        {
            let new = path.with_extension("new");
            fs::write(&new, bytes).unwrap();
            fs::rename(new, path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_manifest_that_was_fetched_again_while_its_damaged_file_was_read_stays() {
    let (cache, alpine) = (Cache::new(), name("alpine"));
    let image = Image::new("amd64", &[noise(1, 100)]);
    let replacing = Arc::new(Replacing::default());
    let store = cache.try_open_on(Disk::watched(replacing.clone())).unwrap();
    image.put(&store, &alpine).await;
    cache.flip_a_bit(&image.digest());
    *replacing.0.lock().unwrap() = Some((cache.blob_path(&image.digest()), image.bytes.clone()));
    assert!(store.manifest(&alpine, &image.digest()).await.unwrap().is_none(), "what was read is damaged");
    let again = store.manifest(&alpine, &image.digest()).await.unwrap();
    assert_eq!(again.expect("the new file is not").0, image.bytes);
    assert_eq!(store.health().await.unwrap().damaged, 0);
}

#[tokio::test]
async fn with_always_a_manifest_that_was_read_a_moment_ago_is_hashed_again() {
    let cache = Cache::new();
    let store = cache.open();
    let image = Image::new("amd64", &[noise(1, 5000)]);
    image.put_as(&store, &name("alpine"), "3.20").await;
    let (alpine, digest) = (name("alpine"), image.digest());
    assert!(store.manifest(&alpine, &digest).await.unwrap().is_some());
    cache.flip_a_bit(&digest);
    assert!(store.manifest(&alpine, &digest).await.unwrap().is_some(), "it was right when it was read");
    store.set_verify(sampan_store::Verify::Always);
    assert!(store.manifest(&alpine, &digest).await.unwrap().is_none());
}
