//! Under a quota that stays, the cache never takes more than it, whatever is done in whatever order.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sampan_oci::{Digest, Reference};
use sampan_store::{ImportedImage, Partial, Store, StoreError, Usage};

use crate::setting::{Cache, Image, name, noise, tag};

/// How often something did not fit, and how often something made way for a step that only adds.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static EVICTED: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Debug)]
enum Step {
    PutImage(u8),
    Import(u8),
    PutBlob(u64),
    Pin(u8),
    Touch(u8),
    /// Opens one more download.
    Begin(u64),
    /// Writes some bytes of one of them.
    Write(usize, usize),
    /// Writes the rest, and publishes it.
    Finish(usize),
    /// Leaves it as it is.
    Leave(usize),
    Quarantine(u64),
    /// Measures what the index takes, and makes room, as housekeeping does.
    KeepHouse,
    Reopen,
}

fn steps() -> impl Strategy<Value = (u64, Vec<Step>)> {
    let step = prop_oneof![
        6 => (0_u8..8).prop_map(Step::PutImage),
        2 => (0_u8..8).prop_map(Step::Import),
        3 => (0_u64..12).prop_map(Step::PutBlob),
        1 => (0_u8..3).prop_map(Step::Pin),
        2 => (0_u8..8).prop_map(Step::Touch),
        4 => (8_u64..16).prop_map(Step::Begin),
        4 => (0_usize..6, 1_usize..60_000).prop_map(|(at, len)| Step::Write(at, len)),
        3 => (0_usize..6).prop_map(Step::Finish),
        1 => (0_usize..6).prop_map(Step::Leave),
        1 => (0_u64..12).prop_map(Step::Quarantine),
        2 => Just(Step::KeepHouse),
        1 => Just(Step::Reopen),
    ];
    (300_000_u64..1_000_000, proptest::collection::vec(step, 1..40))
}

fn blob(seed: u64) -> Bytes {
    noise(seed, 30_000 + usize::try_from(seed).unwrap() * 9000)
}

fn image_of(number: u8) -> Image {
    let number = u64::from(number);
    Image::new("amd64", &[blob(number), blob((number * 5 + 3) % 12), noise(100 + number, 700)])
}

/// Nothing but a lack of room may refuse anything.
fn fits<T>(done: Result<T, StoreError>) -> Result<Option<T>, TestCaseError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(StoreError::Full) => {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
        Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

/// The store, what is being downloaded, and the bytes of each.
struct Scene {
    cache: Cache,
    quota: u64,
    running: Vec<(Partial, Bytes)>,
}

impl Scene {
    async fn put_image(&self, store: &Store, number: u8) -> Result<(), TestCaseError> {
        let (image, name) = (image_of(number), name(&format!("image{number}")));
        let put = store.put_manifest(&name, &image.manifest, image.bytes.clone()).await;
        let Some(()) = fits(put)? else { return Ok(()) };
        fits(store.set_tag(&name, &tag("1"), &image.digest()).await)?;
        for bytes in &image.blobs {
            let Some(()) = fits(store.put(&Digest::of(bytes), bytes.clone()).await)? else { return Ok(()) };
        }
        Ok(())
    }

    async fn import(&self, store: &Store, number: u8) -> Result<(), TestCaseError> {
        let image = image_of(number);
        for bytes in image.blobs.iter().chain([&image.bytes]) {
            let stage = store.stage(&Digest::of(bytes), bytes.len() as u64).await;
            let Some(mut stage) = fits(stage)? else { return Ok(()) };
            stage.append(bytes.clone()).await.unwrap();
            stage.publish_imported().await.unwrap();
        }
        let import = ImportedImage {
            image: name(&format!("image{number}")),
            tag: Some(tag("1")),
            digest: image.digest(),
            manifests: vec![(image.manifest.clone(), image.bytes.len() as u64)],
            trusted: false,
        };
        // What of it has made way for the rest meanwhile is not there to be listed.
        let _ = store.import_image(import).await;
        Ok(())
    }

    async fn begin(&mut self, store: &Store, seed: u64) -> Result<(), TestCaseError> {
        let bytes = blob(seed);
        let digest = Digest::of(&bytes);
        if self.running.iter().any(|(_, other)| *other == bytes) {
            return Ok(());
        }
        let partial = fits(store.partial(&digest, bytes.len() as u64).await)?;
        self.running.extend(partial.map(|partial| (partial, bytes)));
        Ok(())
    }

    /// Takes a step, as far as it fits.
    async fn take(&mut self, store: &Store, step: &Step) -> Result<(), TestCaseError> {
        let count = self.running.len();
        match step {
            Step::PutImage(number) => return self.put_image(store, *number).await,
            Step::Import(number) => return self.import(store, *number).await,
            Step::PutBlob(seed) => {
                let bytes = blob(*seed);
                fits(store.put(&Digest::of(&bytes), bytes).await)?;
            }
            Step::Pin(number) => {
                store.pin(&name(&format!("image{number}")), &Reference::Tag(tag("1"))).await.unwrap();
            }
            Step::Touch(number) => {
                store.touch(&name(&format!("image{number}")), &image_of(*number).digest(), true).await;
            }
            Step::Begin(seed) => return self.begin(store, *seed).await,
            Step::Write(at, len) if count > 0 => {
                let (partial, bytes) = &mut self.running[at % count];
                let from = usize::try_from(partial.held().len()).unwrap();
                let to = (from + len).min(bytes.len());
                partial.write(vec![(from as u64, bytes.slice(from..to))]).await.unwrap();
            }
            Step::Finish(at) if count > 0 => {
                let (mut partial, bytes) = self.running.swap_remove(at % count);
                let from = usize::try_from(partial.held().len()).unwrap();
                // Room was set aside for all of it.
                partial.write(vec![(from as u64, bytes.slice(from..))]).await.unwrap();
                partial.publish().await.unwrap();
            }
            Step::Leave(at) if count > 0 => drop(self.running.swap_remove(at % count)),
            Step::Quarantine(seed) => store.quarantine(&Digest::of(&blob(*seed))).await.unwrap(),
            Step::Write(..) | Step::Finish(_) | Step::Leave(_) | Step::KeepHouse | Step::Reopen => {}
        }
        Ok(())
    }

    /// What running downloads have yet to write.
    fn in_flight(&self) -> u64 {
        self.running.iter().map(|(partial, bytes)| bytes.len() as u64 - partial.held().len()).sum()
    }

    /// What everything but the index takes, with what is on its way.
    fn all(&self, usage: &Usage) -> u64 {
        usage.size_bytes + usage.partial_bytes + usage.quarantine_bytes + self.in_flight()
    }

    fn agrees(&self, before: u64, usage: &Usage, own: u64, step: &Step) -> Result<(), TestCaseError> {
        prop_assert_eq!((usage.size_bytes, usage.blobs), self.cache.du(), "after {:?}", step);
        prop_assert_eq!(usage.partial_bytes, self.cache.du_partial(), "after {:?}", step);
        prop_assert_eq!(usage.own_bytes, self.cache.du_own(), "after {:?}", step);
        // Where the index has grown, what must stay may be more than what is left; it never becomes more.
        let (all, left) = (self.all(usage), self.quota.saturating_sub(own));
        prop_assert!(
            all <= left.max(before),
            "{all} of {left} bytes beside the index, {before} before {step:?}: {usage:?}"
        );
        Ok(())
    }
}

async fn run(room: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let cache = Cache::new();
    let mut store = cache.open();
    store.settle_layout().await.unwrap();
    // As housekeeping found the index last: what it has grown by since is in no limit yet.
    let mut own = store.usage().await.unwrap().own_bytes;
    let quota = own + room;
    store.set_quota(Some(quota));
    let mut scene = Scene { cache, quota, running: Vec::new() };
    for step in steps {
        scene.cache.clock.advance(1);
        let pinned = |store: &Store| {
            let store = store.clone();
            async move {
                let images = store.images().await.unwrap();
                let pinned = images.into_iter().filter(|entry| entry.pinned);
                pinned.map(|entry| (entry.image, entry.digest, entry.size_bytes)).collect::<Vec<_>>()
            }
        };
        let before = pinned(&store).await;
        let (was, all) = (store.usage().await.unwrap(), scene.all(&store.usage().await.unwrap()));
        if matches!(step, Step::Reopen) {
            scene.running.clear();
            drop(store);
            store = scene.cache.open_with_quota(quota);
        }
        scene.take(&store, &step).await?;
        if matches!(step, Step::KeepHouse | Step::Reopen) {
            store.settle_layout().await.unwrap();
            own = store.usage().await.unwrap().own_bytes;
            store.make_room().await.unwrap();
        }
        let usage = store.usage().await.unwrap();
        scene.agrees(all, &usage, own, &step)?;
        let adds = matches!(step, Step::PutBlob(_) | Step::Begin(_) | Step::PutImage(_));
        EVICTED.fetch_add(usize::from(adds && usage.blobs < was.blobs), Ordering::Relaxed);
        let after = pinned(&store).await;
        for (image, digest, size) in before {
            let found = after.iter().find(|(i, d, _)| (i, d) == (&image, &digest));
            let quarantined = matches!(step, Step::Quarantine(_));
            prop_assert!(
                found.is_some_and(|(_, _, now)| *now >= size || quarantined),
                "{image} was pinned and had {size} bytes, after {step:?}: {found:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn no_sequence_takes_more_than_the_quota_or_anything_pinned() {
    let config = ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    let sequence = |(room, steps)| {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(room, steps))
    };
    TestRunner::new(config).run(&steps(), sequence).unwrap();
    let (refused, evicted) = (REFUSED.load(Ordering::Relaxed), EVICTED.load(Ordering::Relaxed));
    assert!(refused > 0 && evicted > 0, "the quota was met: {refused} refused, {evicted} evicted");
}
