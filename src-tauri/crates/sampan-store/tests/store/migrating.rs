//! SIGKILL in the middle of a migration: afterwards the index opens, is of today's version, and has everything
//! (SECURITY.md R76).
//!
//! The migration happens in a process of its own, which is this very test program with one test chosen.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sampan_oci::Digest;
use sampan_store::StoreOptions;

use crate::dice::Dice;
use crate::rebuild::{Closed, Known, known};
use crate::setting::{Cache, asked, noise};

const CHILD: &str = "migrating::a_child_opens_the_cache_it_is_told";
const FOLDER: &str = "SAMPAN_TORTURE_CACHE";
const OPENING: &str = "opening";
const OPEN: &str = "open";
/// Blobs beside those of the images, so that a migration takes a while.
const BLOBS: u64 = 2_000;
/// The files of an index.
const FILES: [&str; 3] = ["sampan.db", "sampan.db-wal", "sampan.db-shm"];
/// What takes an index of version 5 back to version 4, that to version 3, that to version 2, and that to version 1.
const TO_4: &str = "DROP TABLE private; PRAGMA user_version = 4;";
const TO_3: &str =
    "ALTER TABLE tag DROP COLUMN frozen; ALTER TABLE tag DROP COLUMN gone; PRAGMA user_version = 3;";
const TO_2: &str =
    "ALTER TABLE link DROP COLUMN aged; ALTER TABLE blob DROP COLUMN aged; PRAGMA user_version = 2;";
const TO_1: &str = "
    ALTER TABLE blob DROP COLUMN fetched; ALTER TABLE blob DROP COLUMN checked;
    ALTER TABLE link DROP COLUMN proven; ALTER TABLE link DROP COLUMN hits;
    ALTER TABLE tag DROP COLUMN confirmed;
    DROP TABLE pin; DROP TABLE damage; DROP TABLE note; PRAGMA user_version = 1;
";

/// A cache with an index of an older version.
struct Old {
    closed: Closed,
    version: i32,
    index: Vec<u8>,
    /// What is known of it once it was brought up to date undisturbed.
    known: Known,
}

impl Old {
    async fn new(version: i32) -> Self {
        let cache = Cache::quick();
        drop(cache.open());
        for seed in 0..BLOBS {
            let bytes = noise(10_000 + seed, 40);
            fs::write(cache.blob_path(&Digest::of(&bytes)), &bytes).unwrap();
        }
        let closed = Closed::within(cache).await;
        let path = closed.path("sampan.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(TO_4).unwrap();
        db.execute_batch(TO_3).unwrap();
        if version <= 2 {
            db.execute_batch(TO_2).unwrap();
        }
        if version == 1 {
            db.execute_batch(TO_1).unwrap();
        }
        db.execute_batch("VACUUM").unwrap();
        db.close().unwrap();
        fs::remove_file(closed.path("sampan.db.seal")).unwrap();
        // Nothing is to be had from elsewhere.
        fs::remove_file(closed.path("index.json")).unwrap();
        let index = fs::read(&path).unwrap();
        let store = closed.cache.open();
        let known = known(&store, &closed.images).await;
        drop(store);
        Self { closed, version, index, known }
    }

    fn put_back(&self) {
        for file in FILES.iter().chain(&["sampan.db.seal", "index.json"]) {
            let _ = fs::remove_file(self.closed.path(file));
        }
        fs::write(self.closed.path("sampan.db"), &self.index).unwrap();
    }

    /// Opens it in a process of its own. When this returns, that begins.
    fn begin(&self) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--include-ignored", "--nocapture"])
            .env(FOLDER, &self.closed.cache.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        assert!(reads(&mut said, OPENING), "it begins");
        (child, said)
    }

    /// How long opening it takes, and how many bytes are in its log then.
    fn takes(&self) -> (Duration, u64) {
        self.put_back();
        let (mut child, mut said) = self.begin();
        let begun = Instant::now();
        assert!(reads(&mut said, OPEN), "it opens");
        let (took, logged) = (begun.elapsed(), self.logged());
        child.wait().unwrap();
        (took, logged)
    }

    /// Bytes in the log.
    fn logged(&self) -> u64 {
        fs::metadata(self.closed.path(FILES[1])).map_or(0, |metadata| metadata.len())
    }

    /// Waits for the moment of a kill: when so much was written to the log, or some time has gone, most often a short one:
    /// the migration is the beginning.
    fn wait(&self, dice: &mut Dice, most: (Duration, u64)) {
        let time = u64::try_from(most.0.as_micros()).unwrap();
        let (begun, short) = (Instant::now(), if dice.chance(60) { time / 24 } else { time });
        if dice.chance(50) {
            let written = dice.next() % (most.1 + 1);
            while self.logged() < written && begun.elapsed() < most.0 {}
        } else {
            std::thread::sleep(Duration::from_micros(dice.next() % (short + 1)));
        }
    }

    /// The version that is on disk, looked at elsewhere.
    fn version_left(&self) -> i32 {
        let elsewhere = tempfile::tempdir().unwrap();
        for file in &FILES[..2] {
            let _ = fs::copy(self.closed.path(file), elsewhere.path().join(file));
        }
        let db = Connection::open(elsewhere.path().join("sampan.db")).unwrap();
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    async fn is_whole(&self, what: &str) {
        let store = self.closed.cache.try_open().unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(!self.closed.path("sampan.db.damaged").exists(), "{what}: a kill damages nothing");
        assert_eq!(known(&store, &self.closed.images).await, self.known, "{what}");
        let (bytes, blobs) = self.closed.cache.du();
        let usage = store.usage().await.unwrap();
        assert_eq!((usage.size_bytes, usage.blobs), (bytes, blobs), "{what}");
        drop(store);
        assert_eq!(self.version_left(), 5, "{what}");
    }
}

/// Reads lines until one is `wanted`; `false`: there are no more.
fn reads(said: &mut BufReader<std::process::ChildStdout>, wanted: &str) -> bool {
    let mut line = String::new();
    while said.read_line(&mut line).unwrap() > 0 {
        // The name of the test may stand before it.
        if line.trim_end().ends_with(wanted) {
            return true;
        }
        line.clear();
    }
    false
}

/// How often an index of each version was left.
async fn kills_in_a_migration_lose_nothing(count: u64, seed: u64) -> [u32; 6] {
    let mut left = [0; 6];
    for version in [1, 2, 3] {
        let old = Old::new(version).await;
        let most = old.takes().max(old.takes());
        for round in 0..count / 3 {
            let mut dice = Dice::new(seed.wrapping_add(round * 2));
            old.put_back();
            // Now and then the next start is killed as well.
            let kills = if dice.chance(30) { 2 } else { 1 };
            let what = format!("seed {seed}, version {}, round {round}, {kills} kills", old.version);
            for _ in 0..kills {
                let (mut child, _said) = old.begin();
                old.wait(&mut dice, most);
                child.kill().unwrap();
                child.wait().unwrap();
            }
            left[usize::try_from(old.version_left()).unwrap()] += 1;
            old.is_whole(&what).await;
        }
        eprintln!("version {version}: a migration and a start take {:?}, {} bytes of log", most.0, most.1);
    }
    eprintln!("{count} rounds of kills left an index of version 1, 2, 3, 4, 5: {:?} times", &left[1..]);
    left
}

#[tokio::test]
async fn after_a_kill_in_a_migration_everything_is_there() {
    kills_in_a_migration_lose_nothing(9, 1).await;
}

#[tokio::test]
#[ignore = "cargo xtask torture migrate"]
async fn after_100_kills_in_a_migration_everything_is_there() {
    let (count, seed) = (asked("SAMPAN_TORTURE_POINTS", 100), asked("SAMPAN_TORTURE_SEED", 1));
    let left = kills_in_a_migration_lose_nothing(count, seed).await;
    assert!(
        count < 100 || left[1] + left[2] + left[3] > 0 && left[5] > 0,
        "some came before its end, some after: {left:?}"
    );
}

#[test]
#[ignore = "what the tests above start"]
fn a_child_opens_the_cache_it_is_told() {
    #[expect(clippy::disallowed_methods, reason = "the process that starts this one says where")]
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let clock = Cache::new().clock;
    println!("{OPENING}");
    let store = sampan_store::Store::open(StoreOptions::new(PathBuf::from(dir), clock));
    println!("{OPEN}");
    drop(store.unwrap());
}
