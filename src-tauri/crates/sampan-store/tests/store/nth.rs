//! Every single operation on the disk fails once, in every way it can: nothing wrong is kept, nothing panics, and the next
//! start goes on (SECURITY.md R63, R64).

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use rustix::io::Errno;
use sampan_oci::{Digest, Reference};
use sampan_store::{ImportedImage, Selected, Selection, Store, StoreError};

use crate::faults::{FailNth, Fault, Times};
use crate::life::blobs_of;
use crate::setting::{Cache, Image, name, noise, tag};

/// What was acknowledged: blobs that have to be there from then on.
type Acknowledged = HashSet<Digest>;

/// No thread of the store may have panicked.
fn told<T>(done: Result<T, StoreError>) -> Option<T> {
    assert!(!matches!(done, Err(StoreError::Stopped)), "something panicked");
    done.ok()
}

/// The image that stays.
static IMAGE: LazyLock<Image> = LazyLock::new(|| Image::new("amd64", &[noise(1, 3000), noise(2, 20_000)]));

/// One that goes. It shares a layer with the other.
static OTHER: LazyLock<Image> = LazyLock::new(|| Image::new("arm64", &[noise(1, 3000), noise(5, 500)]));

/// Everything a store does, once. Goes on after each failure, as the mirror does.
async fn live(cache: &Cache, store: &Store, acknowledged: &mut Acknowledged) {
    let (image, alpine) = (&*IMAGE, name("alpine"));
    if told(store.put_manifest(&alpine, &image.manifest, image.bytes.clone()).await).is_some() {
        acknowledged.insert(image.digest());
    }
    told(store.set_tag(&alpine, &tag("3"), &image.digest()).await);
    told(store.pin(&alpine, &Reference::Tag(tag("3"))).await);
    for blob in &image.blobs {
        if download(store, blob).await.is_some() {
            acknowledged.insert(Digest::of(blob));
        }
    }
    let cut = noise(3, 9000);
    if let Some(mut partial) = told(store.partial(&Digest::of(&cut), 9000).await) {
        told(partial.write(vec![(4000, cut.slice(4000..6000))]).await);
    }
    if let Some(mut stage) = told(store.stage(&Digest::of(b"abc"), 3).await) {
        told(stage.append(Bytes::from_static(b"ab")).await);
    }
    told(store.settle_layout().await);
    told(store.manifest(&alpine, &image.digest()).await);
    if let Some(Some(file)) = told(store.open_blob(&Digest::of(&image.blobs[1])).await) {
        // Found damaged or not to be read, it would be fetched again: it is right.
        assert_ne!(told(file.verify().await), Some(false), "a failing disk is no damage");
        if let Ok(bytes) = file.read_at(100, 500).await {
            assert!(image.blobs[1][100..600].starts_with(&bytes));
        }
    }
    acknowledged.remove(&Digest::of(&image.blobs[2]));
    told(store.quarantine(&Digest::of(&image.blobs[2])).await);
    import(store).await;
    remove(cache, store, acknowledged).await;
    told(store.images().await);
    told(store.flush().await);
}

async fn download(store: &Store, blob: &Bytes) -> Option<()> {
    let mut partial = told(store.partial(&Digest::of(blob), blob.len() as u64).await)?;
    let middle = blob.len() / 2;
    told(partial.write(vec![(middle as u64, blob.slice(middle..))]).await)?;
    told(partial.sync().await)?;
    told(partial.write(vec![(0, blob.slice(..middle))]).await)?;
    told(partial.publish().await)
}

async fn import(store: &Store) {
    let image = &*OTHER;
    for bytes in image.blobs.iter().chain([&image.bytes]) {
        if let Some(mut stage) = told(store.stage(&Digest::of(bytes), bytes.len() as u64).await)
            && told(stage.append(bytes.clone()).await).is_some()
        {
            told(stage.publish_imported().await);
        }
    }
    let import = ImportedImage {
        image: name("other"),
        tag: Some(tag("1")),
        digest: image.digest(),
        manifests: vec![(image.manifest.clone(), image.bytes.len() as u64)],
        trusted: false,
    };
    told(store.import_image(import).await);
}

/// Clears what was imported, and lets everything go that is not pinned.
async fn remove(cache: &Cache, store: &Store, acknowledged: &mut Acknowledged) {
    // Known as what is pinned only if that could be recorded.
    let images = told(store.images().await).unwrap_or_default();
    let pinned = images.iter().any(|entry| entry.pinned && entry.digest == IMAGE.digest());
    if !pinned {
        acknowledged.clear();
    }
    let selected = Selected { image: name("other"), reference: None };
    told(store.clear_later(&Selection::Images(vec![selected])).await);
    cache.clock.advance(11_000);
    told(store.settle_clears().await);
    for seed in [6, 7] {
        told(store.put(&Digest::of(&noise(seed, 800)), noise(seed, 800)).await);
    }
    store.set_quota(Some(24_000));
    told(store.make_room().await);
    if let Some(mut partial) = told(store.partial(&Digest::of(b"wants room"), 20_000).await) {
        told(partial.write(vec![(0, noise(8, 100))]).await);
        told(partial.discard().await);
    }
    store.set_quota(None);
}

/// A cache that was used before: everything was done once, and a download and a staged file were left by a crash.
async fn used() -> Cache {
    let cache = Cache::quick();
    live(&cache, &cache.open(), &mut Acknowledged::new()).await;
    let left = format!("sha256-{}.0123456789abcdef", Digest::of(b"left").hex());
    std::fs::write(cache.dir.join("partial").join(left), b"le").unwrap();
    cache
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

/// Does everything, on a copy of `before` or from nothing, with one operation failing; says whether its turn came.
async fn run(before: Option<&Cache>, turn: u64, fault: Fault, times: Times) -> bool {
    let cache = Cache::quick();
    if let Some(before) = before {
        copy(&before.dir, &cache.dir);
    }
    let failing = FailNth::new(|_| true);
    failing.arm(turn, fault, times);
    let what = format!("operation {turn} (from nothing: {}), {fault:?}, {times:?}", before.is_none());
    let mut acknowledged = Acknowledged::new();
    // A start that fails changes nothing that the next one needs.
    if let Ok(store) = cache.try_open_on(failing.disk()) {
        live(&cache, &store, &mut acknowledged).await;
        let usage = store.usage().await.unwrap();
        if times == Times::Once && !store.is_read_only() {
            assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "{what}: counted while it runs");
        }
    }
    let came = failing.disarm();

    let store = cache.try_open().unwrap_or_else(|error| panic!("{what}: the next start: {error}"));
    assert!(!cache.dir.join("sampan.db.damaged").exists(), "{what}: the index was thrown away");
    let held: HashSet<Digest> = blobs_of(&cache).collect();
    for digest in &held {
        assert!(digest.names(&std::fs::read(cache.blob_path(digest)).unwrap()), "{what}: {digest} is wrong");
    }
    assert!(
        acknowledged.is_subset(&held),
        "{what}: acknowledged and lost: {:?}",
        acknowledged.difference(&held)
    );
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "{what}");
    // All of it takes as long as everything before.
    if turn.is_multiple_of(8) {
        let mut again = Acknowledged::new();
        live(&cache, &store, &mut again).await;
        let stays = [IMAGE.digest(), Digest::of(&IMAGE.blobs[0]), Digest::of(&IMAGE.blobs[1])];
        assert_eq!(again, stays.into(), "{what}: afterwards everything works");
    } else {
        IMAGE.put_as(&store, &name("alpine"), "again").await;
        assert!(store.manifest(&name("alpine"), &IMAGE.digest()).await.unwrap().is_some(), "{what}");
    }
    came
}

fn every_turn(fault: impl Into<Fault>, times: Times) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let fault = fault.into();
    let used = runtime.block_on(used());
    for before in [None, Some(&used)] {
        let mut turn = 1;
        // What all fails from some moment on differs little from what fails from the next one on.
        let step = if times == Times::Once { 1 } else { 4 };
        while runtime.block_on(run(before, turn, fault, times)) {
            turn += step;
        }
        assert!(turn > 250, "all of that is more than {turn} operations");
    }
}

macro_rules! each_way {
    ($($test:ident: $fault:expr, $times:ident;)*) => {
        $(#[test] fn $test() { every_turn($fault, Times::$times); })*
    };
}

each_way! {
    no_space_once: Errno::NOSPC, Once;
    an_input_output_error_once: Errno::IO, Once;
    over_quota_once: Errno::DQUOT, Once;
    a_read_only_disk_once: Errno::ROFS, Once;
    a_missing_permission_once: Errno::ACCESS, Once;
    too_many_open_files_once: Errno::MFILE, Once;
    an_interruption_once: Errno::INTR, Once;
    half_of_a_read_or_write_once: Fault::Short, Once;
    no_space_from_then_on: Errno::NOSPC, ForEver;
    a_dead_disk_from_then_on: Errno::IO, ForEver;
    a_read_only_disk_from_then_on: Errno::ROFS, ForEver;
    no_permission_from_then_on: Errno::ACCESS, ForEver;
}
