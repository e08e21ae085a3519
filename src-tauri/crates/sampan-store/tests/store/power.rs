//! Power cuts: whatever the disk had not been told to keep is gone, torn or kept, and the next start is right all the same
//! (SECURITY.md R62).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sampan_oci::{Digest, RangeSet};
use sampan_store::{Disk, Store};

use crate::cut_disk::{IndexLeft, Left, Recorder};
use crate::dice::Dice;
use crate::life::{Life, Owed, blobs_of};
use crate::setting::{Cache, asked, files_below, noise};

/// Cuts per workload; each workload is another.
const CUTS: u64 = 20;
const STEPS: usize = 20;
const SET_ASIDE: &str = "sampan.db.damaged";

/// Puts what is left on a disk into a new cache folder.
fn restore(left: &Left, index: &[(&'static str, Arc<[u8]>)]) -> Cache {
    let cache = Cache::quick();
    std::fs::create_dir_all(&cache.dir).unwrap();
    for folder in &left.folders {
        std::fs::create_dir_all(cache.dir.join(folder)).unwrap();
    }
    for (path, bytes) in &left.files {
        std::fs::write(cache.dir.join(path), bytes).unwrap();
    }
    for (path, bytes) in index {
        std::fs::write(cache.dir.join(path), bytes).unwrap();
    }
    cache
}

impl Life {
    /// Cuts the power at a moment the seed decides, and looks at the next start.
    async fn cut(&self, seed: u64) {
        let mut dice = Dice::new(seed);
        let at = dice.under(self.disk.len() + 1);
        let left = self.disk.cut(at, &mut dice);
        let which = match dice.under(10) {
            0 | 1 => IndexLeft::Lost,
            2 => IndexLeft::Older,
            3 => IndexLeft::Newer,
            _ => IndexLeft::Synced,
        };
        let index = self.disk.index_after(at, which, &mut dice);
        let cache = restore(&left, &index);
        let sealed = left.files.contains_key("sampan.db.seal");
        eprintln!("seed {seed}: behind operation {at}, index {which:?}, sealed: {sealed}");
        let store = cache.open();
        let rebuilt = cache.dir.join(SET_ASIDE).exists();
        assert!(!rebuilt || which != IndexLeft::Synced, "a seal says that it is damaged, and it is not");
        let owed = self.owed(at);
        look_at_files(&cache, &store, &owed).await;
        self.look_at_images(&store).await;
        if rebuilt || matches!(which, IndexLeft::Lost | IndexLeft::Synced) {
            look_at_tags(&store, &owed).await;
        }
        self.look_at_partials(&cache, &store, &owed).await;
        self.look_at_another_start(cache, store, &mut dice).await;
    }

    async fn look_at_images(&self, store: &Store) {
        for entry in store.images().await.unwrap() {
            if let Some(tag) = entry.tag {
                let told = ((entry.image.clone(), tag), entry.digest);
                assert!(self.told.contains(&told), "the tag never pointed there: {told:?}");
            }
            // Of what only an import says nothing is served before its upstream was heard.
            if !entry.unconfirmed {
                let listed = store.manifest(&entry.image, &entry.digest).await.unwrap();
                assert!(listed.is_some(), "what is listed is there: {} {}", entry.image, entry.digest);
            }
        }
    }

    async fn look_at_partials(&self, cache: &Cache, store: &Store, owed: &Owed) {
        let files = files_below(&cache.dir.join("partial"));
        let of_pair =
            |path: &PathBuf| matches!(path.extension().and_then(|e| e.to_str()), Some("data" | "ledger"));
        assert!(files.iter().all(of_pair), "what cannot go on is swept: {files:?}");
        let usage = store.usage().await.unwrap();
        assert!(usage.partial_bytes <= cache.du_partial(), "no more is counted than there is");
        for (digest, bytes) in &self.contents {
            let synced = owed.synced.get(digest);
            if synced.is_none() && !cache.partial_path(digest, "data").exists() {
                continue;
            }
            let partial = store.partial(digest, bytes.len() as u64).await.unwrap();
            for range in partial.held().iter() {
                let (start, end) =
                    (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
                let read = partial.reader().read_at(range.start, end - start).await.unwrap();
                assert_eq!(read, bytes.slice(start..end), "{digest} {range:?}: held and wrong");
            }
            for range in synced.into_iter().flat_map(RangeSet::iter) {
                assert!(partial.held().covers(&range), "{digest} {range:?} was synced and is lost");
            }
        }
    }

    /// Everything can be had again, and stays.
    async fn look_at_another_start(&self, cache: Cache, store: Store, dice: &mut Dice) {
        let mut contents: Vec<_> = self.contents.keys().copied().collect();
        contents.sort_unstable_by_key(ToString::to_string);
        for _ in 0..3 {
            let Some(digest) = dice.pick(&contents) else { return };
            store.put(digest, self.contents[digest].clone()).await.unwrap();
            assert!(store.open_blob(digest).await.unwrap().unwrap().verify().await.unwrap());
        }
        let before = (store.images().await.unwrap(), store.usage().await.unwrap().size_bytes);
        store.flush().await.unwrap();
        drop(store);
        let rebuilt = cache.dir.join(SET_ASIDE).metadata().and_then(|metadata| metadata.modified()).ok();
        let store = cache.open();
        assert_eq!((store.images().await.unwrap(), store.usage().await.unwrap().size_bytes), before);
        let again = cache.dir.join(SET_ASIDE).metadata().and_then(|metadata| metadata.modified()).ok();
        assert_eq!(again, rebuilt, "what was flushed is sealed");
    }
}

async fn look_at_files(cache: &Cache, store: &Store, owed: &Owed) {
    let held: HashSet<Digest> = blobs_of(cache).collect();
    for digest in &held {
        let bytes = std::fs::read(cache.blob_path(digest)).unwrap();
        assert!(digest.names(&bytes), "{digest} is under its name and is not it");
    }
    for digest in &owed.held {
        assert!(held.contains(digest), "{digest} was acknowledged and is lost");
        assert!(store.open_blob(digest).await.unwrap().is_some());
    }
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "every file counts, once");
    let kept = files_below(&cache.dir.join("quarantine"));
    let kept: u64 = kept.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(usage.quarantine_bytes, kept, "and so does what was set aside");
}

async fn look_at_tags(store: &Store, owed: &Owed) {
    let images = store.images().await.unwrap();
    for ((image, tag), (to, pinned)) in &owed.settled {
        let entry = images.iter().find(|entry| entry.image == *image && entry.tag.as_ref() == Some(tag));
        let entry = entry.unwrap_or_else(|| panic!("{image}:{tag} was settled and is lost"));
        assert!(
            to.contains(&entry.digest),
            "{image}:{tag} was settled and points elsewhere: {}",
            entry.digest
        );
        assert!(entry.pinned || !pinned, "{image}:{tag} was pinned");
    }
}

/// Lives the workloads from the one of number `first` on, and cuts the power of each.
fn cut(first: u64, cuts: u64) {
    let (next, end) = (AtomicU64::new(first), first + cuts.div_ceil(CUTS));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        loop {
            let workload = next.fetch_add(1, Ordering::Relaxed);
            if workload >= end {
                break;
            }
            runtime.block_on(async {
                let mut life = Life::begin(workload);
                for _ in 0..STEPS {
                    life.step().await;
                }
                for cut in 0..CUTS {
                    life.cut(workload * CUTS + cut).await;
                }
            });
        }
    };
    std::thread::scope(|scope| {
        let workers = [0; 2].map(|_| scope.spawn(work));
        for worker in workers {
            worker.join().expect("every cut is survived; the seed is that of the last line of its thread");
        }
    });
}

#[tokio::test]
async fn a_power_cut_during_the_first_start_leaves_a_folder_that_is_ours() {
    let life = Life::begin(1);
    for seed in 0..20 * life.disk.len() as u64 {
        let mut dice = Dice::new(seed);
        let at = dice.under(life.disk.len() + 1);
        let cache = restore(&life.disk.cut(at, &mut dice), &[]);
        let store = cache.try_open().unwrap_or_else(|error| panic!("behind operation {at}: {error}"));
        assert!(store.images().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_a_failed_sync_may_have_lost_is_not_acknowledged() {
    for syncs in 0.. {
        let cache = Cache::quick();
        let disk = Recorder::failing(cache.dir.clone(), syncs);
        let Ok(store) = cache.try_open_on(Disk::watched(disk.clone())) else { continue };
        let mut held = Vec::new();
        let blobs: Vec<Bytes> = (0..4).map(|seed| noise(seed, 3000)).collect();
        for bytes in &blobs[..2] {
            if store.put(&Digest::of(bytes), bytes.clone()).await.is_ok() {
                held.push(Digest::of(bytes));
            }
        }
        let mut synced = Vec::new();
        for bytes in &blobs[2..] {
            let digest = Digest::of(bytes);
            for _ in 0..2 {
                let mut partial = store.partial(&digest, 3000).await.unwrap();
                partial.write(vec![(0, bytes.slice(..1500))]).await.unwrap();
                if partial.sync().await.is_ok() && partial.sync().await.is_ok() {
                    synced.push(digest);
                    break;
                }
            }
        }
        let mut partial = store.partial(&Digest::of(&blobs[2]), 3000).await.unwrap();
        partial.write(vec![(0, blobs[2].clone())]).await.unwrap();
        if partial.publish().await.is_ok() {
            held.push(Digest::of(&blobs[2]));
        }
        for seed in 0..20 {
            let after = restore(&disk.cut(disk.len(), &mut Dice::new(seed)), &[]);
            let (store, what) = (after.open(), format!("after {syncs} syncs, seed {seed}"));
            let files: HashSet<Digest> = blobs_of(&after).collect();
            for digest in &files {
                let bytes = std::fs::read(after.blob_path(digest)).unwrap();
                assert!(digest.names(&bytes), "{what}: {digest} is under its name and is not it");
            }
            assert!(held.iter().all(|digest| files.contains(digest)), "{what}: acknowledged and lost");
            for digest in synced.iter().filter(|digest| !files.contains(digest)) {
                // A publishing that failed takes its download with it.
                let taken = *digest == Digest::of(&blobs[2]);
                let held = store.partial(digest, 3000).await.unwrap().held().len();
                assert!(taken || held >= 1500, "{what}: synced and lost");
            }
        }
        if !disk.has_failed() {
            assert!(syncs > 12, "all of that is more than {syncs} syncs");
            break;
        }
    }
}

#[test]
fn after_500_power_cuts_everything_acknowledged_is_there_and_nothing_else_is_believed() {
    cut(0, 500);
}

#[test]
#[ignore = "some minutes: cargo xtask torture power"]
fn after_10_000_power_cuts_everything_acknowledged_is_there_and_nothing_else_is_believed() {
    let first = asked("SAMPAN_TORTURE_SEED", 1000);
    cut(first % (u64::MAX / (2 * CUTS)), asked("SAMPAN_TORTURE_POINTS", 10_000));
}
