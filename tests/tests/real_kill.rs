//! Sampan is killed at any moment, and nothing that it had given is lost or wrong (SECURITY.md 5.3, R61, R69).

#![cfg(target_os = "linux")]

use sampan_tests::{Torture, kill, turn};

/// Kills in the ordinary run; `cargo xtask torture kill` asks for more.
const POINTS: u32 = 50;
/// Calls that are the last in the ordinary run; `cargo xtask torture points` tries each of them.
const CALLS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_kills_at_any_moment_leave_nothing_wrong_and_lose_nothing_that_was_given() {
    let Some(_turn) = turn(&[]) else { return };
    let asked = Torture::asked(POINTS);
    let figures = kill::kills(asked).await;
    eprintln!("{figures}");
    assert_eq!(figures.kills.iter().sum::<u32>(), asked.points);
    // A few kills may meet none of it.
    if asked.points < POINTS {
        return;
    }
    assert!(figures.promises > u64::from(asked.points), "the kills met work: {figures}");
    assert!(figures.resumed > 0, "and downloads that could be gone on with: {figures}");
    assert!(figures.evictions > 0, "and a cache that was full: {figures}");
    for done in ["pinned", "stayed", "imported", "undone"] {
        assert!(figures.done.get(done).is_some_and(|times| *times > 0), "{done}: {figures}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn real_calls_that_change_the_disk_can_be_the_last() {
    let Some(_turn) = turn(&["strace"]) else { return };
    let figures = kill::points(1, Torture::asked(1).seed, Some(CALLS)).await;
    eprintln!("{figures}");
    assert_eq!(figures.points, CALLS);
    assert!(figures.names > 20, "the workload is a whole one: {figures}");
    assert!(figures.kills > 0, "{figures}");
    assert!(figures.exact > 0, "some came right before the call: {figures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "cargo xtask torture points"]
async fn real_every_call_that_changes_the_disk_can_be_the_last() {
    let Some(_turn) = turn(&["strace"]) else { return };
    let asked = Torture::asked(3);
    let figures = kill::points(asked.points, asked.seed, None).await;
    eprintln!("{figures}");
    assert!(figures.kills > figures.passed, "most points were met: {figures}");
    assert!(figures.exact * 3 >= figures.kills * 2, "and the kills came right before the call: {figures}");
}
