//! Whatever is done in whatever order, the totals are the disk's.

use proptest::prelude::*;
use sampan_oci::{Digest, Millis, Reference};
use sampan_store::{Selected, Selection};

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

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let cache = Cache::new();
    let mut store = cache.open();
    for step in steps {
        cache.clock.advance(1);
        let repository = |image: u8| name(&format!("image{image}"));
        let selection = match &step {
            Step::Clear { image, tag: number } => {
                let reference = number.map(|number| Reference::Tag(tag(&format!("v{number}"))));
                Some(Selection::Images(vec![Selected { image: repository(*image), reference }]))
            }
            Step::ClearUnused(age) => Some(Selection::UnusedSince(Millis(1_000_000 + age))),
            Step::ClearAll => Some(Selection::All),
            Step::PutImage { .. }
            | Step::PutIndex { .. }
            | Step::PutBlob(_)
            | Step::Quarantine(_)
            | Step::Touch { .. }
            | Step::Reopen => None,
        };
        match &step {
            Step::PutImage { image, tag, layers } => {
                image_of(layers).put_as(&store, &repository(*image), &format!("v{tag}")).await;
            }
            Step::PutIndex { image, tag, layers } => {
                let child = image_of(layers);
                child.put(&store, &repository(*image)).await;
                let index = Image::index(&[("amd64", &child)]);
                index.put_as(&store, &repository(*image), &format!("v{tag}")).await;
            }
            Step::PutBlob(seed) => store.put(&Digest::of(&layer(*seed)), layer(*seed)).await.unwrap(),
            Step::Quarantine(seed) => store.quarantine(&Digest::of(&layer(*seed))).await.unwrap(),
            Step::Touch { image, layers } => {
                store.touch(&repository(*image), &image_of(layers).digest()).await;
            }
            Step::Reopen => {
                drop(store);
                store = cache.open();
            }
            Step::Clear { .. } | Step::ClearUnused(_) | Step::ClearAll => {}
        }
        if let Some(selection) = selection {
            let staying = store.images().await.unwrap();
            let before = cache.du();
            let planned = store.plan_clear(&selection).await.unwrap();
            let cleared = store.clear(&selection).await.unwrap();
            prop_assert_eq!(&cleared, &planned, "the preview is the deed");
            let after = cache.du();
            prop_assert_eq!((before.0 - after.0, before.1 - after.1), (cleared.freed_bytes, cleared.blobs));
            let left = store.images().await.unwrap();
            prop_assert_eq!(left.len() + cleared.images.len(), staying.len(), "each entry goes or stays");
            for image in &left {
                let was = staying
                    .iter()
                    .find(|i| (&i.image, &i.tag, i.digest) == (&image.image, &image.tag, image.digest));
                prop_assert_eq!(was.map(|i| i.size_bytes), Some(image.size_bytes), "what stays is whole");
            }
        }
        let usage = store.usage().await.unwrap();
        prop_assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "after {:?}", step);
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
