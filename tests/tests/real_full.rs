//! A full disk stops caching, and nothing else (SECURITY.md R65).

#![cfg(target_os = "linux")]

use sampan_tests::full::{FullFigures, RECOVERS_WITHIN, pulls};
use sampan_tests::{Torture, turn};

/// Megabytes in the ordinary run; `cargo xtask torture full` asks for more.
const SHORT: u32 = 400;
const PROGRAMS: [&str; 2] = ["unshare", "mount"];

fn holds(figures: &FullFigures, megabytes: u32) {
    eprintln!("{figures}");
    assert!(figures.bytes >= u64::from(megabytes) * 1_000_000);
    assert!(figures.evictions > 0, "the working set is larger than the disk");
    assert!(figures.recovered <= RECOVERS_WITHIN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_pulls_through_a_full_disk_are_all_right() {
    let Some(_turn) = turn(&PROGRAMS) else { return };
    holds(&pulls(u64::from(SHORT), Torture::asked(1).seed).await, SHORT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "cargo xtask torture full"]
async fn real_10_gb_of_pulls_through_a_disk_of_64_mb_are_all_right() {
    let Some(_turn) = turn(&PROGRAMS) else { return };
    let asked = Torture::asked(10_000);
    // With fewer it never fills up.
    let megabytes = asked.points.max(SHORT);
    holds(&pulls(u64::from(megabytes), asked.seed).await, megabytes);
}
