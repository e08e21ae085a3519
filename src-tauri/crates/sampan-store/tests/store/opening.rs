//! Opening a cache: new, in use, crashed, damaged, foreign, from the future.

use std::fs;

use bytes::Bytes;
use sampan_oci::Digest;
use sampan_store::{OpenError, Selection};

use crate::setting::{Cache, Image, files_below, name, noise, tag};

#[tokio::test]
async fn a_new_cache_is_an_oci_layout() {
    let cache = Cache::new();
    let store = cache.open();
    let marker = fs::read_to_string(cache.dir.join("oci-layout")).unwrap();
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert!(cache.dir.join("blobs/sha256").is_dir());
    assert_eq!(store.dir(), cache.dir);
}

#[tokio::test]
async fn one_process_at_a_time_and_the_other_is_told_who() {
    let cache = Cache::new();
    let store = cache.open();
    let clone = store.clone();
    drop(store);
    match cache.try_open() {
        Err(OpenError::Locked { pid }) if cfg!(unix) => assert_eq!(pid, Some(std::process::id())),
        Err(OpenError::Locked { .. }) => {}
        other => panic!("the clone still holds it: {other:?}"),
    }
    drop(clone);
    cache.try_open().expect("the lock goes with the last clone");
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_what_is_foreign_is_not() {
    let cache = Cache::new();
    drop(cache.open());
    let cut = cache.dir.join("partial").join(format!("sha256-{}.0123456789abcdef", Digest::of(b"cut").hex()));
    let foreign = [cache.dir.join("partial/notes.txt"), cache.dir.join("partial/sha256-short.1")];
    fs::write(&cut, b"half").unwrap();
    for path in &foreign {
        fs::write(path, b"mine").unwrap();
    }
    drop(cache.open());
    assert!(!cut.exists());
    assert!(foreign.iter().all(|path| path.exists()), "the store removes only what it made");
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_made_anew_from_the_blobs() {
    type Damage = fn(&std::path::Path);
    let damages: [(&str, Damage); 6] = [
        ("missing", |db| fs::remove_file(db).unwrap()),
        ("empty", |db| fs::write(db, b"").unwrap()),
        ("no database", |db| fs::write(db, noise(9, 20_000)).unwrap()),
        ("truncated", |db| {
            let file = fs::File::options().write(true).open(db).unwrap();
            file.set_len(db.metadata().unwrap().len() / 2).unwrap();
        }),
        ("overwritten in the middle", |db| {
            let mut bytes = fs::read(db).unwrap();
            let middle = bytes.len() / 2;
            bytes[200..middle].fill(0xA5);
            fs::write(db, bytes).unwrap();
        }),
        ("another program's", |db| {
            fs::remove_file(db).unwrap();
            let other = rusqlite::Connection::open(db).unwrap();
            other.execute_batch("CREATE TABLE tag (x); PRAGMA user_version = 1").unwrap();
        }),
    ];
    for (what, damage) in damages {
        let cache = Cache::new();
        let store = cache.open();
        let image = Image::new("amd64", &[noise(1, 5000), noise(2, 7000)]);
        image.put_as(&store, &name("alpine"), "3.20").await;
        drop(store);
        damage(&cache.dir.join("sampan.db"));

        let store = cache.try_open().unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let usage = store.usage().await.unwrap();
        assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "{what}: every file counts");
        assert_eq!(usage.size_bytes, image.size(), "{what}");
        assert!(store.open_blob(&Digest::of(&image.blobs[1])).await.unwrap().is_some(), "{what}: blobs stay");
        assert_eq!(
            store.held_tag(&name("alpine"), &tag("3.20")).await.unwrap(),
            None,
            "{what}: tags are lost"
        );
        image.put_as(&store, &name("alpine"), "3.20").await;
        assert_eq!(store.images().await.unwrap().len(), 1, "{what}: and come back by use");
        drop(store);
        drop(cache.open());
    }
}

#[tokio::test]
async fn no_mutation_of_the_index_stops_a_start_or_makes_the_totals_wrong() {
    let cache = Cache::new();
    let store = cache.open();
    for seed in 0..8 {
        let image = Image::new("amd64", &[noise(seed, 300)]);
        image.put_as(&store, &name("alpine"), &format!("v{seed}")).await;
    }
    drop(store);
    let db = cache.dir.join("sampan.db");
    let whole = fs::read(&db).unwrap();
    for round in 0..120_usize {
        let mut bytes = whole.clone();
        let at = round.wrapping_mul(0x9e37_79b1) % bytes.len();
        // Without a seal, the version field is the one place where a flipped bit means "from the future".
        if (60..64).contains(&at) {
            continue;
        }
        if round % 3 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << (round % 8);
        }
        fs::write(&db, &bytes).unwrap();
        let store = cache.try_open().unwrap_or_else(|error| panic!("byte {at}: {error:?}"));
        let usage = store.usage().await.unwrap();
        assert_eq!((usage.size_bytes, usage.blobs), cache.du(), "byte {at}");
        store.images().await.unwrap_or_else(|error| panic!("byte {at}: {error:?}"));
    }
}

#[tokio::test]
async fn files_that_came_or_went_while_closed_are_counted_at_the_next_start() {
    let cache = Cache::new();
    let store = cache.open();
    let (gone, grown) = (Digest::of(b"gone"), Digest::of(b"grown"));
    store.put(&gone, Bytes::from_static(b"gone")).await.unwrap();
    store.put(&grown, Bytes::from_static(b"grown")).await.unwrap();
    drop(store);
    fs::remove_file(cache.blob_path(&gone)).unwrap();
    fs::write(cache.blob_path(&grown), b"grown too much").unwrap();
    let come = Digest::of(b"come");
    fs::write(cache.blob_path(&come), b"come").unwrap();
    fs::write(cache.dir.join("blobs/sha256/README"), b"not a digest").unwrap();
    let usage = cache.open().usage().await.unwrap();
    assert_eq!((usage.size_bytes, usage.blobs), (18, 2));
}

#[tokio::test]
async fn an_index_of_a_newer_sampan_is_left_as_it_is() {
    let cache = Cache::new();
    let store = cache.open();
    store.put(&Digest::of(b"x"), Bytes::from_static(b"x")).await.unwrap();
    drop(store);
    let db = cache.dir.join("sampan.db");
    let future = rusqlite::Connection::open(&db).unwrap();
    future.execute_batch("PRAGMA user_version = 99").unwrap();
    future.close().unwrap();
    // What a newer Sampan keeps there is not this one's to sweep.
    let cut = cache.dir.join("partial").join(format!("sha256-{}.0123456789abcdef", Digest::of(b"cut").hex()));
    fs::write(&cut, b"half").unwrap();
    let contents = || {
        let mut all = files_below(&cache.dir);
        all.retain(|path| path.file_name() != Some("lock".as_ref()));
        all.sort();
        all.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = contents();
    assert!(matches!(cache.try_open(), Err(OpenError::Future(99))));
    assert_eq!(contents(), before, "not a byte was written, not a file swept");
}

#[tokio::test]
async fn a_newer_version_that_is_only_in_the_log_is_seen() {
    let cache = Cache::new();
    drop(cache.open());
    let db = cache.dir.join("sampan.db");
    let future = rusqlite::Connection::open(&db).unwrap();
    future.execute_batch("PRAGMA user_version = 7").unwrap();
    // As after `kill -9`: the files are copied away while the log is not yet in the database.
    let saved: Vec<_> =
        ["sampan.db", "sampan.db-wal"].map(|f| (f, fs::read(cache.dir.join(f)).unwrap())).into();
    future.close().unwrap();
    for (file, bytes) in &saved {
        fs::write(cache.dir.join(file), bytes).unwrap();
    }
    assert!(!saved[1].1.is_empty(), "the version is in the log");
    assert!(matches!(cache.try_open(), Err(OpenError::Future(7))));
    assert_eq!(fs::read(&db).unwrap(), saved[0].1, "the database is untouched");
    assert_eq!(fs::read(cache.dir.join("sampan.db-wal")).unwrap(), saved[1].1, "and so is its log");
}

#[tokio::test]
async fn somebody_elses_folder_is_refused_and_left_alone() {
    let cache = Cache::new();
    fs::create_dir(&cache.dir).unwrap();
    fs::write(cache.dir.join("thesis.txt"), b"years of work").unwrap();
    assert!(matches!(cache.try_open(), Err(OpenError::NotOurs(_))), "a folder with other files is no cache");
    assert_eq!(files_below(&cache.dir), [cache.dir.join("thesis.txt")]);
    fs::remove_file(cache.dir.join("thesis.txt")).unwrap();
    fs::create_dir(cache.dir.join("lost+found")).unwrap();
    cache.try_open().expect("an empty volume is a fine cache");
}

#[cfg(unix)]
#[tokio::test]
async fn links_in_place_of_our_folders_are_refused() {
    use std::os::unix::fs::symlink;
    let cache = Cache::new();
    let elsewhere = cache.dir.with_file_name("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &cache.dir).unwrap();
    assert!(matches!(cache.try_open(), Err(OpenError::NotOurs(_))), "the cache folder itself");
    fs::remove_file(&cache.dir).unwrap();
    for folder in ["blobs/sha256", "blobs", "partial"] {
        drop(cache.open());
        let path = cache.dir.join(folder);
        fs::remove_dir_all(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(
            matches!(cache.try_open(), Err(OpenError::NotOurs(refused)) if refused.ends_with(folder)),
            "{folder}"
        );
        fs::remove_file(&path).unwrap();
    }
    let db = cache.dir.join("sampan.db");
    fs::rename(&db, elsewhere.join("sampan.db")).unwrap();
    symlink(elsewhere.join("sampan.db"), &db).unwrap();
    assert!(cache.try_open().is_err(), "the index");
    assert_eq!(files_below(&elsewhere), [elsewhere.join("sampan.db")], "nothing was written through a link");
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_everybody_may_write_to_is_refused_once_it_holds_something() {
    use std::os::unix::fs::PermissionsExt;
    let cache = Cache::new();
    drop(cache.open());
    fs::set_permissions(&cache.dir, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(cache.try_open(), Err(OpenError::NotOurs(_))), "anybody may have planted anything");
    fs::set_permissions(&cache.dir, fs::Permissions::from_mode(0o755)).unwrap();
    drop(cache.open());
    assert_eq!(
        cache.dir.metadata().unwrap().permissions().mode() & 0o777,
        0o700,
        "readable is closed, not refused"
    );
}

#[tokio::test]
async fn foreign_files_inside_the_cache_survive_clearing_everything() {
    let cache = Cache::new();
    let store = cache.open();
    Image::new("amd64", &[noise(1, 100)]).put_as(&store, &name("alpine"), "latest").await;
    let foreign =
        ["blobs/sha256/notes", "blobs/readme", "mine.txt", "partial/keep"].map(|f| cache.dir.join(f));
    for path in &foreign {
        fs::write(path, b"mine").unwrap();
    }
    store.clear(&Selection::All).await.unwrap();
    for path in &foreign {
        assert_eq!(fs::read(path).unwrap(), b"mine", "{}", path.display());
    }
    assert_eq!(cache.du().1, 2, "only the foreign files are left under blobs/");
}
