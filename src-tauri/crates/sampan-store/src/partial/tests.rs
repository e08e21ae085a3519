//! Disks that refuse in the middle, which no real one does on demand: a socket in place of the file can neither be written
//! at an offset nor synced.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sampan_oci::{Clock, Millis};
use tempfile::TempDir;

use super::*;
use crate::moment::Moment;
use crate::{Disk, Store, StoreOptions};

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Millis {
        Millis(0)
    }
}

/// A partial of "whole" that holds "who".
async fn begun() -> (TempDir, Store, Partial) {
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path().join("cache");
    let store = Store::open(StoreOptions::new(dir, Arc::new(Stopped))).unwrap();
    let mut partial = store.partial(&Digest::of(b"whole"), 5).await.unwrap();
    partial.write(vec![(0, Bytes::from_static(b"who"))]).await.unwrap();
    (temporary, store, partial)
}

/// Puts something behind the partial that refuses.
fn break_off(partial: &mut Partial) {
    let socket = File::from(OwnedFd::from(UnixStream::pair().unwrap().0));
    partial.file = Arc::new(DiskFile::new(socket, 0, &Disk::real()));
}

fn files(store: &Store) -> usize {
    std::fs::read_dir(store.dir().join("partial")).unwrap().count()
}

fn rest() -> Vec<(u64, Bytes)> {
    vec![(3, Bytes::from_static(b"le"))]
}

#[tokio::test]
async fn a_partial_that_nobody_has_goes_after_14_days_and_one_that_somebody_has_stays() {
    let (_temporary, store, partial) = begun().await;
    let begun = Moment::now();
    let removed = |days: u64| store.0.remove_old_partials(begun + Duration::from_hours(24 * days)).partials;
    assert_eq!((removed(15), files(&store)), (0, 2), "it is open");
    drop(partial);
    assert_eq!((removed(14), files(&store)), (0, 2), "since a moment after that");
    assert_eq!((removed(15), files(&store)), (1, 0));
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let (_temporary, store, mut partial) = begun().await;
    partial.sync().await.unwrap();
    break_off(&mut partial);
    assert!(matches!(partial.sync().await, Err(StoreError::Io(_))));
    assert_eq!(files(&store), 0, "what the kernel dropped must not be believed");
    assert!(matches!(partial.sync().await, Err(StoreError::Dead)), "a second one might say that all is well");
    drop(partial);
    assert!(store.partial(&Digest::of(b"whole"), 5).await.unwrap().held().is_empty());
    assert_eq!(store.usage().await.unwrap().partial_bytes, 0);
}

#[tokio::test]
async fn a_failed_sync_before_publishing_is_final_too() {
    let (_temporary, store, mut partial) = begun().await;
    partial.write(rest()).await.unwrap();
    break_off(&mut partial);
    assert!(matches!(partial.publish().await, Err(StoreError::Io(_))));
    assert_eq!(files(&store), 0);
    assert!(store.open_blob(&Digest::of(b"whole")).await.unwrap().is_none());
}

#[tokio::test]
async fn after_a_refused_write_the_partial_is_dead_and_what_was_held_stays() {
    let (_temporary, store, mut partial) = begun().await;
    let ledger = store.dir().join("partial").join(&partial.session.names.ledger);
    let before = std::fs::read(&ledger).unwrap();
    break_off(&mut partial);
    assert!(matches!(partial.write(rest()).await, Err(StoreError::Io(_))));
    assert_eq!(partial.held().len(), 3);
    assert_eq!(
        std::fs::read(&ledger).unwrap(),
        before,
        "the bytes come first: nothing is claimed of what was refused"
    );
    assert!(matches!(partial.write(Vec::new()).await, Err(StoreError::Dead)));
    assert!(matches!(partial.publish().await, Err(StoreError::Dead)));
    let mut partial = store.partial(&Digest::of(b"whole"), 5).await.unwrap();
    assert_eq!((partial.held().len(), partial.hashed()), (3, 3));
    partial.write(rest()).await.unwrap();
    partial.publish().await.unwrap();
}

#[tokio::test]
async fn what_the_index_cannot_record_leaves_neither_a_blob_nor_a_ledger() {
    let (_temporary, store, mut partial) = begun().await;
    partial.write(rest()).await.unwrap();
    let other = rusqlite::Connection::open(store.dir().join("sampan.db")).unwrap();
    other.execute_batch("ALTER TABLE blob RENAME TO lost").unwrap();
    let error = partial.publish().await.unwrap_err();
    assert!(matches!(error, StoreError::Index(_)), "{error:?}");
    other.execute_batch("ALTER TABLE lost RENAME TO blob").unwrap();
    assert_eq!(files(&store), 0, "the ledger has no data any more");
    let mut again = store.partial(&Digest::of(b"whole"), 5).await.unwrap();
    assert!(again.held().is_empty());
    again.write(vec![(0, Bytes::from_static(b"whole"))]).await.unwrap();
    again.publish().await.unwrap();
}
