//! The index lost or damaged: what is in the folder is found out again.

use std::fs;
use std::path::Path;

use sampan_oci::{Digest, ImageName, Millis, Reference};
use sampan_store::{Disk, ImageEntry, Link, OpenError, Store};

use crate::read_only::refusing;
use crate::setting::{Cache, Image, name, noise, tag};

type Damage = fn(&Path);

const FILES: [&str; 3] = ["sampan.db", "sampan.db.seal", "index.json"];

/// What must be the same after the index was made anew.
#[derive(Debug, PartialEq)]
pub(crate) struct Known {
    images: Vec<ImageEntry>,
    tags: Vec<(ImageName, String, Option<Digest>)>,
    links: Vec<(ImageName, Digest, Option<Link>)>,
    manifests: Vec<bool>,
}

/// A cache that was closed in order, and what was in it.
pub(crate) struct Closed {
    pub(crate) cache: Cache,
    pub(crate) known: Known,
    /// The files beside the blobs, as they were then.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    pub(crate) images: Vec<Image>,
}

impl Closed {
    async fn new() -> Self {
        Self::within(Cache::new()).await
    }

    pub(crate) async fn within(cache: Cache) -> Self {
        let store = cache.open();
        let shared = noise(1, 5000);
        let amd = Image::new("amd64", &[shared.clone(), noise(2, 300)]);
        let arm = Image::new("arm64", &[shared.clone(), noise(3, 400)]);
        let index = Image::index(&[("amd64", &amd), ("arm64", &arm)]);
        let other = Image::new("amd64", &[shared, noise(4, 500)]);
        let loose = Image::new("riscv64", &[noise(5, 600)]);
        amd.put(&store, &name("alpine")).await;
        arm.put(&store, &name("alpine")).await;
        index.put_as(&store, &name("alpine"), "3.20").await;
        cache.clock.advance(10);
        store.set_tag(&name("alpine"), &tag("latest"), &index.digest()).await.unwrap();
        other.put_as(&store, &name("redis"), "7").await;
        loose.put(&store, &name("redis")).await;
        store.set_tag(&name("redis"), &tag("gone"), &Digest::of(b"not held")).await.unwrap();
        store.flush().await.unwrap();
        drop(store);
        // Pins and imports, whoever makes them.
        let db = rusqlite::Connection::open(cache.dir.join("sampan.db")).unwrap();
        let shown = loose.blobs.iter().map(|blob| Digest::of(blob)).chain([loose.digest()]);
        let shown: Vec<String> = shown.map(|digest| format!("'{digest}'")).collect();
        db.execute_batch(&format!(
            "INSERT INTO pin SELECT id, '7', 1 FROM image WHERE repository = 'library/redis';
             INSERT INTO pin SELECT id, '{}', 1 FROM image WHERE repository = 'library/redis';
             UPDATE tag SET confirmed = 0 WHERE tag = '7';
             UPDATE link SET proven = 0 WHERE image = (SELECT id FROM image WHERE repository = 'library/redis')
                 AND digest NOT IN ({});",
            loose.digest(),
            shown.join(","),
        ))
        .unwrap();
        db.close().unwrap();
        // It was changed behind the seal, which is what the seal is there to tell.
        fs::remove_file(cache.dir.join("sampan.db.seal")).unwrap();
        let images = vec![amd, arm, index, other, loose];
        let store = cache.open();
        let known = known(&store, &images).await;
        assert_eq!(known.images.len(), 4, "three tags and a loose one");
        store.flush().await.unwrap();
        drop(store);
        let files = FILES.map(|file| (file, fs::read(cache.dir.join(file)).unwrap())).into();
        Self { cache, known, files, images }
    }

    /// Puts everything but the blobs back as it was when it was closed.
    pub(crate) fn put_back(&self) {
        for file in ["sampan.db-wal", "sampan.db-shm", "sampan.db.damaged"] {
            let _ = fs::remove_file(self.cache.dir.join(file));
        }
        for (file, bytes) in &self.files {
            fs::write(self.cache.dir.join(file), bytes).unwrap();
        }
    }

    pub(crate) fn path(&self, file: &str) -> std::path::PathBuf {
        self.cache.dir.join(file)
    }
}

pub(crate) async fn known(store: &Store, images: &[Image]) -> Known {
    let mut shown = store.images().await.unwrap();
    for entry in &mut shown {
        entry.last_used = Millis(0);
    }
    let names = [name("alpine"), name("redis")];
    let (mut tags, mut links, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
    for image in &names {
        for text in ["3.20", "latest", "7", "gone"] {
            let held = store.held_tag(image, &tag(text)).await.unwrap();
            tags.push((image.clone(), text.to_owned(), held.map(|held| held.digest)));
        }
        for made in images {
            manifests.push(store.manifest(image, &made.digest()).await.unwrap().is_some());
            let blobs = made.blobs.iter().map(|blob| Digest::of(blob)).chain([made.digest()]);
            for digest in blobs {
                links.push((image.clone(), digest, store.link(image, &digest).await.unwrap()));
            }
        }
    }
    Known { images: shown, tags, links, manifests }
}

#[tokio::test]
async fn a_lost_index_is_found_out_again_from_the_folder() {
    let closed = Closed::new().await;
    let damages: [(&str, Damage); 6] = [
        ("removed", |db| fs::remove_file(db).unwrap()),
        ("emptied", |db| fs::write(db, b"").unwrap()),
        ("cut in the middle", |db| {
            fs::File::options().write(true).open(db).unwrap().set_len(10_000).unwrap();
        }),
        ("cut by a page", |db| {
            let length = db.metadata().unwrap().len();
            fs::File::options().write(true).open(db).unwrap().set_len(length - 4096).unwrap();
        }),
        ("no database", |db| fs::write(db, noise(9, 20_000)).unwrap()),
        ("zeroed from the second page on", |db| {
            let mut bytes = fs::read(db).unwrap();
            bytes[4096..].fill(0);
            fs::write(db, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        closed.put_back();
        damage(&closed.path("sampan.db"));
        let store = closed.cache.try_open().unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(known(&store, &closed.images).await, closed.known, "{what}");
        let held = store.held_tag(&name("alpine"), &tag("3.20")).await.unwrap().unwrap();
        assert_eq!(
            held.checked,
            Millis(0),
            "{what}: when it was confirmed is not known, so it is asked for again"
        );
        store.flush().await.unwrap();
        drop(store);
        assert_eq!(
            fs::read(closed.path("index.json")).unwrap(),
            closed.files[2].1,
            "{what}: nothing was lost"
        );
        let db = rusqlite::Connection::open(closed.path("sampan.db")).unwrap();
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM pin"), 2, "{what}: pins come back");
        assert_eq!(
            count("SELECT count(*) FROM tag WHERE confirmed = 0"),
            1,
            "{what}: imported is not confirmed"
        );
        let unproven =
            "SELECT count(*) FROM link JOIN tag USING (image, digest) WHERE tag = '7' AND proven = 0";
        assert_eq!(count(unproven), 1, "{what}: and proves nothing");
        let of_it_alone = count("SELECT count(*) FROM link WHERE proven = 0");
        assert_eq!(of_it_alone, 4, "{what}: nor does what it lists");
    }
}

#[tokio::test]
async fn any_wrong_byte_in_a_closed_index_is_noticed() {
    let closed = Closed::new().await;
    let whole = &closed.files[0].1;
    for round in 0..200_usize {
        closed.put_back();
        let at = round.wrapping_mul(0x9e37_79b1) % whole.len();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        fs::write(closed.path("sampan.db"), &bytes).unwrap();
        let store = closed.cache.try_open().unwrap_or_else(|error| panic!("byte {at}: {error:?}"));
        assert_eq!(known(&store, &closed.images).await, closed.known, "byte {at}");
    }
}

#[tokio::test]
async fn a_bit_that_makes_a_closed_index_look_newer_is_damage_also_where_it_can_only_be_read() {
    let closed = Closed::new().await;
    for (at, bit) in (60..64).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        closed.put_back();
        let mut bytes = closed.files[0].1.clone();
        bytes[at] ^= 1 << bit;
        fs::write(closed.path("sampan.db"), &bytes).unwrap();
        for disk in [refusing(std::io::ErrorKind::ReadOnlyFilesystem), Disk::real()] {
            let what = format!("byte {at}, bit {bit}, {disk:?}");
            let store = closed.cache.try_open_on(disk).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            assert_eq!(known(&store, &closed.images).await, closed.known, "{what}");
        }
    }
}

#[tokio::test]
async fn an_index_from_the_future_is_refused_with_or_without_a_seal() {
    let closed = Closed::new().await;
    for sealed in [true, false] {
        closed.put_back();
        let db = rusqlite::Connection::open(closed.path("sampan.db")).unwrap();
        db.execute_batch("PRAGMA user_version = 99").unwrap();
        db.close().unwrap();
        let before = fs::read(closed.path("sampan.db")).unwrap();
        if sealed {
            let seal = format!("{} {:08x}\n", before.len(), crc32fast::hash(&before));
            fs::write(closed.path("sampan.db.seal"), seal).unwrap();
        } else {
            fs::remove_file(closed.path("sampan.db.seal")).unwrap();
        }
        assert!(matches!(closed.cache.try_open(), Err(OpenError::Future(99))));
        assert_eq!(fs::read(closed.path("sampan.db")).unwrap(), before);
    }
}

#[tokio::test]
async fn a_damaged_index_json_costs_tags_and_never_a_start() {
    let closed = Closed::new().await;
    let whole = &closed.files[2].1;
    let mut told = 0;
    for round in 0..200_usize {
        closed.put_back();
        fs::remove_file(closed.path("sampan.db")).unwrap();
        let at = round.wrapping_mul(0x9e37_79b1) % whole.len();
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&whole[at..]),
            2 => bytes[at] ^= 1 << (round % 7),
            _ => bytes[at] = b'a' + u8::try_from(round % 26).unwrap(),
        }
        fs::write(closed.path("index.json"), &bytes).unwrap();
        let store = closed.cache.try_open().unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        let found = known(&store, &closed.images).await;
        if found.images.is_empty() {
            let lost = closed.images.iter().map(Image::digest).collect::<Vec<_>>();
            for digest in lost {
                assert!(store.open_blob(&digest).await.unwrap().is_some(), "round {round}: blobs stay");
            }
        } else {
            assert_eq!(found, closed.known, "round {round}: all or nothing, and nothing wrong");
            told += 1;
        }
    }
    assert!(told < 10, "{told} of 200 mutations changed nothing");
}

#[tokio::test]
async fn without_index_json_manifests_come_back_and_tags_by_use() {
    let closed = Closed::new().await;
    fs::remove_file(closed.path("sampan.db")).unwrap();
    fs::remove_file(closed.path("index.json")).unwrap();
    let store = closed.cache.open();
    assert!(store.images().await.unwrap().is_empty());
    let index = &closed.images[2];
    store.set_tag(&name("alpine"), &tag("3.20"), &index.digest()).await.unwrap();
    let entry = &store.images().await.unwrap()[0];
    assert_eq!(entry.platforms.len(), 2, "what the index lists is known without fetching it again");
    assert_eq!(
        store.manifest(&name("alpine"), &index.digest()).await.unwrap(),
        None,
        "held bytes are no proof that a repository shows them (R84)"
    );
}

#[tokio::test]
async fn what_is_not_held_any_more_does_not_come_back() {
    let closed = Closed::new().await;
    fs::remove_file(closed.path("sampan.db")).unwrap();
    let (index, other) = (closed.images[2].digest(), closed.images[3].digest());
    fs::remove_file(closed.cache.blob_path(&index)).unwrap();
    closed.cache.flip_a_bit(&other);
    let store = closed.cache.open();
    assert_eq!(store.held_tag(&name("alpine"), &tag("3.20")).await.unwrap(), None);
    assert_eq!(store.held_tag(&name("redis"), &tag("7")).await.unwrap(), None, "a damaged manifest is none");
    assert_eq!(store.images().await.unwrap().len(), 1, "the loose one");
}

#[tokio::test]
async fn index_json_is_settled_when_something_changed_and_not_at_every_call() {
    let cache = Cache::new();
    let store = cache.open();
    let path = cache.dir.join("index.json");
    let image = Image::new("amd64", &[noise(1, 100)]);
    image.put_as(&store, &name("alpine"), "3.20").await;
    assert!(!path.exists(), "never on the way of a pull");
    store.settle_layout().await.unwrap();
    let first = fs::read_to_string(&path).unwrap();
    assert!(first.contains(r#""org.opencontainers.image.ref.name":"docker.io/library/alpine:3.20""#));
    store.set_tag(&name("alpine"), &tag("latest"), &image.digest()).await.unwrap();
    store.settle_layout().await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), first, "not twice in 30 s");
    store.flush().await.unwrap();
    let second = fs::read_to_string(&path).unwrap();
    assert!(second.contains("alpine:latest"), "at the end it is told at once");
    let written = path.metadata().unwrap().modified().unwrap();
    store.touch(&name("alpine"), &image.digest(), false).await;
    store.flush().await.unwrap();
    assert_eq!(path.metadata().unwrap().modified().unwrap(), written, "a use changes nothing of it");
    drop(store);
    // A change after the seal takes the seal away: what a crash leaves then is believed.
    let store = cache.open();
    store.flush().await.unwrap();
    assert!(cache.dir.join("sampan.db.seal").exists());
    store.set_tag(&name("alpine"), &tag("edge"), &image.digest()).await.unwrap();
    assert!(!cache.dir.join("sampan.db.seal").exists());
    drop(store);
    let store = cache.open();
    assert!(store.held_tag(&name("alpine"), &tag("edge")).await.unwrap().is_some());
}

#[tokio::test]
#[ignore = "30,000 files: run by its name, to read its figures"]
async fn a_large_cache_is_found_out_again_in_bounded_time() {
    let cache = Cache::new();
    drop(cache.open());
    let mut tags = Vec::new();
    for number in 0..3_000_u64 {
        let layers: Vec<_> = (0..8).map(|layer| noise(number * 8 + layer + 1, 100)).collect();
        let image = Image::new(&format!("arch{number}"), &layers);
        fs::write(cache.blob_path(&image.digest()), &image.bytes).unwrap();
        for blob in &image.blobs {
            fs::write(cache.blob_path(&Digest::of(blob)), blob).unwrap();
        }
        tags.push(image.digest());
    }
    let store = cache.open();
    for (number, digest) in tags.iter().enumerate() {
        store.set_tag(&name("large"), &tag(&format!("v{number}")), digest).await.unwrap();
    }
    let began = std::time::Instant::now();
    store.flush().await.unwrap();
    println!(
        "flush: {:?}, index.json {}",
        began.elapsed(),
        fs::metadata(cache.dir.join("index.json")).unwrap().len()
    );
    drop(store);
    let began = std::time::Instant::now();
    drop(cache.open());
    println!("start, sealed: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    drop(cache.open());
    println!(
        "start, not sealed: {:?}, {}",
        began.elapsed(),
        fs::metadata(cache.dir.join("sampan.db")).unwrap().len()
    );
    fs::remove_file(cache.dir.join("sampan.db")).unwrap();
    let began = std::time::Instant::now();
    let store = cache.open();
    println!("start without an index: {:?}", began.elapsed());
    assert!(began.elapsed() < std::time::Duration::from_mins(1));
    let began = std::time::Instant::now();
    assert_eq!(store.images().await.unwrap().len(), 3_000);
    println!("images: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let full = sampan_store::ScrubPace::FULL;
    let report = store.scrub(full, || false, |_| {}, std::future::pending()).await.unwrap();
    println!("scrub: {:?}, {} blobs", began.elapsed(), report.blobs);
}

/// Loses the index of a cache, which is made anew.
async fn lose_the_index(cache: &Cache, store: Store) -> Store {
    store.flush().await.unwrap();
    drop(store);
    fs::remove_file(cache.dir.join("sampan.db")).unwrap();
    cache.open()
}

#[tokio::test]
async fn what_an_index_lists_proves_nothing_of_the_parts_of_what_is_listed() {
    let cache = Cache::new();
    let store = cache.open();
    let (private, public) = (name("private"), name("public"));
    let amd = Image::new("amd64", &[noise(1, 300)]);
    let arm = Image::new("arm64", &[noise(2, 300)]);
    let index = Image::index(&[("amd64", &amd), ("arm64", &arm)]);
    let [of_amd, of_arm] = [&amd, &arm].map(|image| Digest::of(&image.blobs[1]));
    amd.put(&store, &private).await;
    arm.put(&store, &public).await;
    // Lists the other image's manifest, and never showed what that one is made of.
    index.put_as(&store, &public, "latest").await;
    let store = lose_the_index(&cache, store).await;
    for (image, digest, shown) in [
        (&public, index.digest(), true),
        (&public, amd.digest(), true),
        (&public, arm.digest(), true),
        (&public, of_amd, false),
        (&public, of_arm, true),
        (&private, amd.digest(), true),
        (&private, of_amd, true),
        (&private, of_arm, false),
    ] {
        let link = store.link(image, &digest).await.unwrap();
        assert_eq!(link.is_some(), shown, "{image} {digest}");
    }
    let listed = store.images().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1].platforms.len(), 2, "it is made of both all the same");
}

#[tokio::test]
async fn every_pin_on_what_is_held_comes_back() {
    let cache = Cache::new();
    let store = cache.open();
    let alpine = name("alpine");
    let amd = Image::new("amd64", &[noise(1, 300)]);
    let index = Image::index(&[("amd64", &amd)]);
    amd.put(&store, &alpine).await;
    index.put_as(&store, &alpine, "latest").await;
    // With a tag, and below an index.
    let pins = [Reference::Digest(index.digest()), Reference::Digest(amd.digest())];
    for pin in &pins {
        assert!(store.pin(&alpine, pin).await.unwrap());
    }
    let before = store.images().await.unwrap();
    let store = lose_the_index(&cache, store).await;
    let after = store.images().await.unwrap();
    assert_eq!(after, before, "and nothing else");
    for pin in &pins {
        assert!(store.unpin(&alpine, pin).await.unwrap(), "{pin}");
    }
}
