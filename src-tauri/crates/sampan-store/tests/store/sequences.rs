//! Whatever is done in whatever order, the totals are the disk's.

use proptest::prelude::*;
use sampan_oci::{Digest, ImageName, Millis, Reference, Tag};
use sampan_store::{ImageEntry, ImportedImage, Selected, Selection, Store, Undo};

use crate::setting::{Cache, Image, name, noise, tag};

#[derive(Clone, Debug)]
enum Step {
    PutImage { image: u8, tag: u8, layers: Vec<u64> },
    PutIndex { image: u8, tag: u8, layers: Vec<u64> },
    PutBlob(u64),
    Quarantine(u64),
    Touch { image: u8, layers: Vec<u64> },
    Clear { image: u8, tag: Option<u8> },
    ClearUnused(i64),
    ClearAll,
    ClearLater { image: u8, tag: Option<u8> },
    UndoLast,
    Wait(i64),
    Pin { image: u8, tag: u8 },
    Unpin { image: u8, tag: u8 },
    Quota(u64),
    Import { image: u8, tag: u8, layers: Vec<u64> },
    CutShort(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let layers = || proptest::collection::vec(0_u64..5, 0..4);
    let step = prop_oneof![
        6 => (0_u8..3, 0_u8..3, layers()).prop_map(|(image, tag, layers)| Step::PutImage { image, tag, layers }),
        2 => (0_u8..3, 0_u8..3, layers()).prop_map(|(image, tag, layers)| Step::PutIndex { image, tag, layers }),
        2 => (0_u64..8).prop_map(Step::PutBlob),
        1 => (0_u64..8).prop_map(Step::Quarantine),
        2 => (0_u8..3, layers()).prop_map(|(image, layers)| Step::Touch { image, layers }),
        4 => (0_u8..3, proptest::option::of(0_u8..3)).prop_map(|(image, tag)| Step::Clear { image, tag }),
        1 => (0_i64..20).prop_map(Step::ClearUnused),
        1 => Just(Step::ClearAll),
        2 => (0_u8..3, proptest::option::of(0_u8..3)).prop_map(|(image, tag)| Step::ClearLater { image, tag }),
        1 => Just(Step::UndoLast),
        1 => (0_i64..12_000).prop_map(Step::Wait),
        2 => (0_u8..3, 0_u8..3).prop_map(|(image, tag)| Step::Pin { image, tag }),
        1 => (0_u8..3, 0_u8..3).prop_map(|(image, tag)| Step::Unpin { image, tag }),
        2 => (300_u64..3000).prop_map(Step::Quota),
        2 => (0_u8..3, 0_u8..3, layers()).prop_map(|(image, tag, layers)| Step::Import { image, tag, layers }),
        1 => (8_u64..11).prop_map(Step::CutShort),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

fn layer(seed: u64) -> bytes::Bytes {
    noise(seed, 100 + usize::try_from(seed).unwrap() * 37)
}

fn image_of(layers: &[u64]) -> Image {
    Image::new("amd64", &layers.iter().map(|seed| layer(*seed)).collect::<Vec<_>>())
}

/// By what entries are told apart.
fn key(entry: &ImageEntry) -> (ImageName, Option<Tag>, Digest) {
    (entry.image.clone(), entry.tag.clone(), entry.digest)
}

fn keys(images: &[ImageEntry]) -> Vec<(ImageName, Option<Tag>, Digest)> {
    images.iter().map(key).collect()
}

/// Sets a quota, makes room, and checks what stayed.
async fn shrink(store: &Store, quota: u64) -> Result<(), TestCaseError> {
    let before = store.images().await.unwrap();
    store.set_quota(Some(quota));
    store.make_room().await.unwrap();
    let after = store.images().await.unwrap();
    for entry in &after {
        let was = before.iter().find(|e| key(e) == key(entry));
        prop_assert_eq!(was.map(|e| e.size_bytes), Some(entry.size_bytes), "what stays is whole");
    }
    let pinned = |images: &[ImageEntry]| images.iter().filter(|entry| entry.pinned).count();
    prop_assert_eq!(pinned(&before), pinned(&after), "pins survive");
    let usage = store.usage().await.unwrap();
    let used = usage.size_bytes + usage.partial_bytes;
    prop_assert!(
        used <= quota || used == usage.pinned_bytes,
        "{} of {} used, {} pinned",
        used,
        quota,
        usage.pinned_bytes
    );
    // What follows is put without limit: the quota's refusals have tests of their own.
    store.set_quota(None);
    Ok(())
}

async fn import(store: &Store, name: &ImageName, label: &str, image: &Image) {
    for bytes in image.blobs.iter().chain([&image.bytes]) {
        let mut stage = store.stage(&Digest::of(bytes), bytes.len() as u64).await.unwrap();
        stage.append(bytes.clone()).await.unwrap();
        stage.publish_imported().await.unwrap();
    }
    let import = ImportedImage {
        image: name.clone(),
        tag: Some(tag(label)),
        digest: image.digest(),
        manifests: vec![(image.manifest.clone(), image.bytes.len() as u64)],
        trusted: false,
    };
    store.import_image(import).await.unwrap();
}

fn select(image: ImageName, number: Option<u8>) -> Selection {
    let reference = number.map(|number| Reference::Tag(tag(&format!("v{number}"))));
    Selection::Images(vec![Selected { image, reference }])
}

fn repository(image: u8) -> ImageName {
    name(&format!("image{image}"))
}

/// Takes any step but clearing for good and opening again.
async fn take(
    cache: &Cache,
    store: &Store,
    step: &Step,
    undo: &mut Option<Undo>,
) -> Result<(), TestCaseError> {
    match step {
        Step::PutImage { image, tag, layers } => {
            image_of(layers).put_as(store, &repository(*image), &format!("v{tag}")).await;
        }
        Step::PutIndex { image, tag, layers } => {
            let child = image_of(layers);
            child.put(store, &repository(*image)).await;
            let index = Image::index(&[("amd64", &child)]);
            index.put_as(store, &repository(*image), &format!("v{tag}")).await;
        }
        Step::PutBlob(seed) => store.put(&Digest::of(&layer(*seed)), layer(*seed)).await.unwrap(),
        Step::Quarantine(seed) => store.quarantine(&Digest::of(&layer(*seed))).await.unwrap(),
        Step::Touch { image, layers } => {
            store.touch(&repository(*image), &image_of(layers).digest(), true).await;
        }
        Step::ClearLater { image, tag } => {
            let cleared = store.clear_later(&select(repository(*image), *tag)).await.unwrap();
            let left = store.images().await.unwrap();
            prop_assert!(!left.iter().any(|entry| keys(&cleared.0.images).contains(&key(entry))));
            *undo = cleared.1.or(*undo);
        }
        Step::UndoLast => {
            if let Some(undo) = undo.take() {
                let (before, back) = (store.images().await.unwrap().len(), store.undo_clear(&undo));
                let now = store.images().await.unwrap().len();
                // Without its row hidden, an entry may be one that is no longer there: a tag that moved on.
                prop_assert!(now >= before && now <= before + usize::from(back));
            }
        }
        Step::Wait(millis) => {
            cache.clock.advance(*millis);
            store.settle_clears().await.unwrap();
        }
        Step::Pin { image, tag: number } => {
            let reference = Reference::Tag(tag(&format!("v{number}")));
            store.pin(&repository(*image), &reference).await.unwrap();
        }
        Step::Unpin { image, tag: number } => {
            let reference = Reference::Tag(tag(&format!("v{number}")));
            store.unpin(&repository(*image), &reference).await.unwrap();
        }
        Step::Quota(bytes) => shrink(store, *bytes).await?,
        Step::Import { image, tag, layers } => {
            import(store, &repository(*image), &format!("v{tag}"), &image_of(layers)).await;
        }
        Step::CutShort(seed) => {
            let mut partial =
                store.partial(&Digest::of(&layer(*seed)), layer(*seed).len() as u64).await.unwrap();
            partial.write(vec![(0, layer(*seed).slice(..50))]).await.unwrap();
        }
        Step::Clear { .. } | Step::ClearUnused(_) | Step::ClearAll | Step::Reopen => {}
    }
    Ok(())
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let cache = Cache::new();
    let mut store = cache.open();
    let mut undo = None;
    for step in steps {
        cache.clock.advance(1);
        let selection = match &step {
            Step::Clear { image, tag: number } => Some(select(repository(*image), *number)),
            Step::ClearUnused(age) => Some(Selection::UnusedSince(Millis(1_000_000 + age))),
            Step::ClearAll => Some(Selection::All),
            Step::PutImage { .. }
            | Step::PutIndex { .. }
            | Step::PutBlob(_)
            | Step::Quarantine(_)
            | Step::Touch { .. }
            | Step::ClearLater { .. }
            | Step::UndoLast
            | Step::Wait(_)
            | Step::Pin { .. }
            | Step::Unpin { .. }
            | Step::Quota(_)
            | Step::Import { .. }
            | Step::CutShort(_)
            | Step::Reopen => None,
        };
        if matches!(step, Step::Reopen) {
            drop(store);
            undo = None;
            store = cache.open();
        }
        take(&cache, &store, &step, &mut undo).await?;
        if let Some(selection) = selection {
            let staying = store.images().await.unwrap();
            let before = (cache.du().0, cache.du().1, cache.du_partial());
            let planned = store.plan_clear(&selection).await.unwrap();
            let cleared = store.clear(&selection).await.unwrap();
            prop_assert_eq!(&cleared, &planned, "the preview is the deed");
            let after = (cache.du().0, cache.du().1, cache.du_partial());
            let freed = before.0 + before.2 - after.0 - after.2;
            prop_assert_eq!((freed, before.1 - after.1), (cleared.freed_bytes, cleared.blobs));
            prop_assert!(cleared.refetch_bytes <= cleared.freed_bytes);
            let left = store.images().await.unwrap();
            let gone = keys(&cleared.images);
            let listed = keys(&staying);
            let hidden = gone.iter().filter(|key| !listed.contains(key)).count();
            prop_assert_eq!(left.len() + gone.len(), staying.len() + hidden, "each entry goes or stays");
            for image in &left {
                let was = staying
                    .iter()
                    .find(|i| (&i.image, &i.tag, i.digest) == (&image.image, &image.tag, image.digest));
                prop_assert_eq!(was.map(|i| i.size_bytes), Some(image.size_bytes), "what stays is whole");
            }
        }
        let usage = store.usage().await.unwrap();
        prop_assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "after {:?}", step);
        prop_assert_eq!(usage.partial_bytes, cache.du_partial(), "after {:?}", step);
        prop_assert_eq!(usage.own_bytes, cache.du_own(), "after {:?}", step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_totals_are_the_disks_after_any_sequence(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps))?;
    }
}
