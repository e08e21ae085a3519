//! Index files of every wrong kind, in great number: made anew from the blobs, or refused; never a crash, never a loop of
//! them (SECURITY.md R74).

use std::fs;
use std::time::{Duration, Instant};

use sampan_oci::Digest;
use sampan_store::OpenError;

use crate::dice::Dice;
use crate::rebuild::{Closed, known};
use crate::setting::{Cache, asked, name, noise, tag};

const INDEX: &str = "sampan.db";
const LOG: &str = "sampan.db-wal";
const SEAL: &str = "sampan.db.seal";
const PAGE: usize = 4096;
/// Where the header has the version (<https://sqlite.org/fileformat.html>), and the newest that is known.
const VERSION_AT: usize = 60;
const VERSION: i32 = 3;
/// How long a start with a damaged index may take.
const START_MOST: Duration = Duration::from_secs(10);

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Truncated,
    FlippedBit,
    FlippedBits,
    Zeroed,
    Garbage,
    Swapped,
    Grown,
    Version,
    Future,
}

const KINDS: [Kind; 9] = [
    Kind::Truncated,
    Kind::FlippedBit,
    Kind::FlippedBits,
    Kind::Zeroed,
    Kind::Garbage,
    Kind::Swapped,
    Kind::Grown,
    Kind::Version,
    Kind::Future,
];

fn mutate(kind: Kind, bytes: &mut Vec<u8>, dice: &mut Dice) {
    let page = dice.under(bytes.len().div_ceil(PAGE)) * PAGE;
    let end = bytes.len().min(page + PAGE);
    match kind {
        Kind::Truncated => bytes.truncate(dice.under(bytes.len())),
        Kind::FlippedBit => flip(bytes, dice),
        Kind::FlippedBits => (0..2 + dice.under(60)).for_each(|_| flip(bytes, dice)),
        Kind::Zeroed => bytes[page..end].fill(0),
        Kind::Garbage => bytes[page..end].fill_with(|| dice.next().to_le_bytes()[0]),
        Kind::Swapped => {
            let other = dice.under(bytes.len() / PAGE) * PAGE;
            let most = (end - page).min(bytes.len() - other);
            for at in 0..most {
                bytes.swap(page + at, other + at);
            }
        }
        Kind::Grown => bytes.extend_from_within(page..end),
        Kind::Version => set_version(bytes, *dice.pick(&[0, -1, 1, 2, i32::MIN]).unwrap()),
        Kind::Future => {
            set_version(bytes, *dice.pick(&[VERSION + 1, VERSION + 2, 99, i32::MAX]).unwrap());
        }
    }
}

fn flip(bytes: &mut [u8], dice: &mut Dice) {
    let at = dice.under(bytes.len());
    bytes[at] ^= 1 << dice.under(8);
}

fn set_version(bytes: &mut [u8], version: i32) {
    bytes[VERSION_AT..VERSION_AT + 4].copy_from_slice(&version.to_be_bytes());
}

fn version_of(bytes: &[u8]) -> Option<i32> {
    let field = bytes.get(VERSION_AT..VERSION_AT + 4)?;
    bytes.starts_with(b"SQLite format 3\0").then(|| i32::from_be_bytes(field.try_into().unwrap()))
}

/// A closed cache, and its index as a crash leaves it: a part of it in the log, and no seal.
struct Setting {
    closed: Closed,
    crashed: [(&'static str, Vec<u8>); 2],
}

impl Setting {
    async fn new() -> Self {
        let closed = Closed::within(Cache::quick()).await;
        let store = closed.cache.open();
        store.set_tag(&name("alpine"), &tag("edge"), &closed.images[2].digest()).await.unwrap();
        let crashed = [INDEX, LOG].map(|file| (file, fs::read(closed.path(file)).unwrap()));
        assert!(!crashed[1].1.is_empty(), "the last change is in the log");
        drop(store);
        Self { closed, crashed }
    }

    /// Every blob is there and right, and the cache does what it is there for.
    async fn works(&self, what: &str) {
        let closed = &self.closed;
        for again in [false, true] {
            let store = closed.cache.try_open().unwrap_or_else(|error| panic!("{what}, {again}: {error:?}"));
            for image in &closed.images {
                for bytes in image.blobs.iter().chain([&image.bytes]) {
                    let blob = store.open_blob(&Digest::of(bytes)).await.unwrap();
                    let read = blob.expect(what).read_at(0, bytes.len()).await.unwrap();
                    assert_eq!(&read, bytes, "{what}: blobs stay");
                }
            }
            // A pull finds out again what the index does not know.
            let pulled = &closed.images[3];
            pulled.put_as(&store, &name("redis"), "7").await;
            let held = store.held_tag(&name("redis"), &tag("7")).await.unwrap().expect(what);
            assert_eq!(held.digest, pulled.digest(), "{what}");
            assert!(store.manifest(&name("redis"), &held.digest).await.unwrap().is_some(), "{what}");
            known(&store, &closed.images).await;
            store.flush().await.unwrap();
        }
    }
}

async fn mutated_indexes_are_made_anew_or_refused(count: u64, seed: u64) {
    let setting = Setting::new().await;
    let closed = &setting.closed;
    let (mut refused, mut anew, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..count {
        let mut dice = Dice::new(seed.wrapping_add(round));
        let kind = KINDS[usize::try_from(round % KINDS.len() as u64).unwrap()];
        closed.put_back();
        // As it was closed; the same without its seal; as a crash left it; the log of that.
        let way = round / KINDS.len() as u64 % 4;
        let (file, mut bytes) = match way {
            0 | 1 => (INDEX, closed.files[0].1.clone()),
            2 => (INDEX, setting.crashed[0].1.clone()),
            _ => (LOG, setting.crashed[1].1.clone()),
        };
        if way > 0 {
            fs::remove_file(closed.path(SEAL)).unwrap();
        }
        if way > 1 {
            for (file, bytes) in &setting.crashed {
                fs::write(closed.path(file), bytes).unwrap();
            }
        }
        mutate(kind, &mut bytes, &mut dice);
        fs::write(closed.path(file), &bytes).unwrap();
        let what = format!("seed {seed}, round {round}: {kind:?} {file}, way {way}");
        let begun = Instant::now();
        let opened = closed.cache.try_open();
        slowest = slowest.max(begun.elapsed());
        match opened {
            Err(OpenError::Future(version)) => {
                refused += 1;
                assert!(way > 0, "{what}: its seal tells that it is damage");
                let known = if file == INDEX { version_of(&bytes) } else { Some(version) };
                assert_eq!((known, version > VERSION), (Some(version), true), "{what}");
                assert_eq!(fs::read(closed.path(file)).unwrap(), bytes, "{what}: left as it is");
            }
            Err(error) => panic!("{what}: {error:?}"),
            Ok(store) => {
                if way == 0 {
                    assert_eq!(known(&store, &closed.images).await, closed.known, "{what}");
                }
                anew += u32::from(closed.path("sampan.db.damaged").exists());
                drop(store);
                setting.works(&what).await;
            }
        }
    }
    eprintln!("{count} mutated indexes: {anew} made anew, {refused} refused, the slowest start {slowest:?}");
    assert!(slowest <= START_MOST, "{slowest:?}");
    // Every kind on every way at least once.
    assert!(count < 4 * KINDS.len() as u64 || anew > 0 && refused > 0);
}

#[tokio::test]
async fn a_mutated_index_is_made_anew_or_refused() {
    mutated_indexes_are_made_anew_or_refused(72, 1).await;
}

#[tokio::test]
#[ignore = "cargo xtask torture index"]
async fn each_of_1_000_mutated_indexes_is_made_anew_or_refused() {
    let (count, seed) = (asked("SAMPAN_TORTURE_POINTS", 1000), asked("SAMPAN_TORTURE_SEED", 1));
    mutated_indexes_are_made_anew_or_refused(count, seed).await;
}

#[tokio::test]
async fn each_kind_of_mutation_changes_the_file() {
    let whole = [&b"SQLite format 3\0"[..], &noise(1, 40_000)].concat();
    for kind in KINDS {
        let changed = (0..20).filter(|seed| {
            let mut bytes = whole.clone();
            mutate(kind, &mut bytes, &mut Dice::new(*seed));
            bytes != whole
        });
        assert!(changed.count() > 10, "{kind:?}");
    }
}
