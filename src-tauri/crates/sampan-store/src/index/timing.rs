//! What opening a large cache costs, part by part. By hand:
//! `cargo test --release -p sampan-store what_opening_100_000_blobs_costs -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_oci::{Clock, Digest, Millis};
use tempfile::TempDir;

use super::{Index, connect, open_sound, refuse_future, report, schema};
use crate::claim::Claim;
use crate::disk::Disk;
use crate::layout::Layout;
use crate::{Keep, Store, StoreOptions};

const BLOBS: u32 = 100_000;
/// SECURITY.md R71 allows more; this is what is wanted.
const OPENING_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(0)
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    eprintln!("{what:<24} {:>7.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    done
}

#[test]
#[ignore = "makes 100,000 files, and tells times"]
fn what_opening_100_000_blobs_costs() {
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path().join("cache");
    let open = || Store::open(StoreOptions::new(dir.clone(), Arc::new(Stopped))).unwrap();
    drop(open());
    timed("making the files", || {
        for number in 0..BLOBS {
            let bytes = number.to_le_bytes();
            std::fs::write(dir.join("blobs/sha256").join(Digest::of(&bytes).hex()), bytes).unwrap();
        }
    });
    drop(timed("first opening", open));
    // One image in ten blobs: a manifest that lists nine, all linked to it.
    let rows = rusqlite::Connection::open(dir.join("sampan.db")).unwrap();
    rows.execute_batch(
        "INSERT INTO image (id, registry, repository) VALUES (1, 'docker.io', 'library/alpine');
         INSERT INTO link (image, digest, size, created, last_used) SELECT 1, digest, size, 0, 0 FROM blob;
         INSERT INTO manifest (digest, media_type)
             SELECT digest, 'application/vnd.oci.image.manifest.v1+json' FROM blob LIMIT 10000;
         WITH RECURSIVE place (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM place WHERE number < 8)
         INSERT INTO descriptor (manifest, place, digest, size, configuration)
             SELECT digest, number, digest, 4, number = 0 FROM manifest, place;",
    )
    .unwrap();
    drop(rows);
    let began = Instant::now();
    drop(timed("second opening", open));
    let taken = began.elapsed();

    let claim = timed("  claim", || Claim::take(&dir, &Disk::real()).unwrap());
    timed("  refuse_future", || refuse_future(claim.index_folder()).unwrap());
    let layout = timed("  prepare", || Layout::prepare(claim, Keep::Files).unwrap());
    let connection = timed("  open_sound", || open_sound(layout.index_folder(), false).unwrap().unwrap());
    timed("    check", || assert!(schema::check(&connection).unwrap()));
    timed("    catalog", || report::catalog(&connection).unwrap());
    drop(connection);
    drop(timed("  connect", || connect(layout.index_folder()).unwrap()));
    let files = timed("  listing", || layout.blobs().unwrap());
    assert_eq!(files.len(), BLOBS as usize);
    let index = Index::open(&layout, Millis(0)).unwrap();
    timed("  square_with", || index.change(|change| change.square_with(&files, Millis(0))).unwrap());
    assert!(taken <= OPENING_MAX || cfg!(debug_assertions), "{taken:?}");
}
