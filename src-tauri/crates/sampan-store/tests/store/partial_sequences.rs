//! Whatever pieces come in whatever order, and however often it is cut short, a partial is what the model says.

use bytes::Bytes;
use proptest::prelude::*;
use sampan_oci::Digest;
use sampan_store::Partial;

use crate::setting::{Cache, noise};

#[derive(Clone, Debug)]
enum Step {
    /// One write, of pieces as (offset, length).
    Write(Vec<(usize, usize)>),
    Sync,
    /// Dropped and opened again.
    Reopen,
    /// The same, with the whole store in between.
    Restart,
}

fn steps(size: usize) -> impl Strategy<Value = Vec<Step>> {
    let piece = (0..=size, 0..=size / 3).prop_map(move |(at, len)| (at, len.min(size - at)));
    let step = prop_oneof![
        12 => proptest::collection::vec(piece, 0..5).prop_map(Step::Write),
        1 => Just(Step::Sync),
        3 => Just(Step::Reopen),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..25)
}

fn check(partial: &Partial, model: &[bool]) -> Result<(), TestCaseError> {
    for (at, held) in model.iter().enumerate() {
        prop_assert_eq!(partial.held().contains(at as u64), *held, "byte {}", at);
    }
    prop_assert_eq!(partial.held().len(), model.iter().filter(|held| **held).count() as u64);
    let prefix = model.iter().take_while(|held| **held).count();
    prop_assert_eq!(partial.hashed(), prefix as u64, "the prefix");
    Ok(())
}

/// The true bytes where they are missing, and wrong ones where they are held: these must make no difference.
fn tell(blob: &Bytes, model: &mut [bool], pieces: &[(usize, usize)]) -> Vec<(u64, Bytes)> {
    let piece = |&(at, len): &(usize, usize)| {
        let bytes =
            (at..at + len).map(|i| if std::mem::replace(&mut model[i], true) { !blob[i] } else { blob[i] });
        (at as u64, bytes.collect())
    };
    pieces.iter().map(piece).collect()
}

async fn run(size: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let cache = Cache::new();
    let (blob, bytes) = (noise(size as u64, size), size as u64);
    let digest = Digest::of(&blob);
    let mut model = vec![false; size];
    let mut store = cache.open();
    let mut partial = store.partial(&digest, bytes).await.unwrap();
    for step in steps {
        match step {
            Step::Write(pieces) => partial.write(tell(&blob, &mut model, &pieces)).await.unwrap(),
            Step::Sync => partial.sync().await.unwrap(),
            Step::Reopen => {
                drop(partial);
                partial = store.partial(&digest, bytes).await.unwrap();
            }
            Step::Restart => {
                drop(partial);
                drop(store);
                store = cache.open();
                partial = store.partial(&digest, bytes).await.unwrap();
            }
        }
        check(&partial, &model)?;
        prop_assert_eq!(store.usage().await.unwrap().partial_bytes, partial.held().len());
    }
    let missing: Vec<(usize, usize)> = partial
        .held()
        .gaps(0..bytes)
        .map(|gap| (usize::try_from(gap.start).unwrap(), usize::try_from(gap.end - gap.start).unwrap()))
        .collect();
    for gap in missing.iter().rev() {
        partial.write(tell(&blob, &mut model, &[*gap])).await.unwrap();
    }
    check(&partial, &model)?;
    partial.publish().await.unwrap();
    let published = store.open_blob(&digest).await.unwrap().unwrap();
    prop_assert_eq!(published.read_at(0, size + 1).await.unwrap(), blob);
    prop_assert_eq!(cache.partials(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_partial_holds_what_was_written_whatever_happens_in_between(
        (size, steps) in (1_usize..4000).prop_flat_map(|size| (Just(size), steps(size)))
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(size, steps))?;
    }
}
