//! Archives by somebody who wishes us ill, or whose disk does. In each case: no panic, nothing wrong in the cache, and
//! the report says why.

use std::path::Path;

use sampan_archive::{ArchiveError, Ending, IgnoredMember, Imported, Why};
use sampan_oci::{Digest, MediaType};
use serde_json::{Value, json};
use tar::EntryType;

use crate::support::{Archive, Cache, LAYER, Parts, Tar, describe, index_json, path_of};

const NAME: &str = "docker.io/library/alpine:3.20";

fn good() -> Parts {
    Parts::image("amd64", &[(1, 5000), (2, 600)])
}

fn other() -> Parts {
    Parts::image("amd64", &[(3, 700)])
}

fn blob(at: usize) -> (Digest, String) {
    let digest = Digest::of(&good().blobs[at]);
    (digest, path_of(&digest))
}

/// Imports it into a fresh cache, of which every blob is right afterwards.
async fn import(tar: &Tar) -> (Cache, Result<Imported, ArchiveError>) {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    let done = cache.import(&tar.write(folder.path())).await;
    cache.blobs();
    cache.assert_tidy();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is unpacked");
    (cache, done)
}

/// Imports an archive of which nothing can be used.
async fn refuse(tar: &Tar, words: &str) {
    let (cache, done) = import(tar).await;
    let error = done.unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
    assert!(cache.blobs().is_empty());
}

/// Imports an archive whose one image cannot be used.
async fn skip(archive: &Archive, why: Why) {
    let (cache, done) = import(&archive.tar()).await;
    let report = done.unwrap();
    assert_eq!(report.images, []);
    assert_eq!(report.skipped.iter().map(|skipped| skipped.why.clone()).collect::<Vec<_>>(), [why]);
    assert_eq!(cache.store.images().await.unwrap(), []);
}

/// Imports a good archive with one member more, which is left alone.
async fn ignore(add: impl FnOnce(&mut Tar), why: IgnoredMember) {
    let mut tar = Archive::of(&[(NAME, &good())]).tar();
    add(&mut tar);
    let (cache, done) = import(&tar).await;
    let report = done.unwrap();
    assert_eq!(report.ignored.iter().map(|ignored| ignored.why).collect::<Vec<_>>(), [why], "{report:?}");
    assert_eq!((report.images.len(), report.ignored_count), (1, 1));
    assert_eq!(cache.blobs().len(), good().everything().count());
}

/// Imports an archive in which something else has the place of a layer.
async fn without_layer(add: impl FnOnce(&mut Tar, &str), ignored: IgnoredMember, why: Why) {
    let mut archive = Archive::of(&[(NAME, &good())]);
    let (_, path) = blob(1);
    archive.remove(&path);
    let mut tar = archive.tar();
    add(&mut tar, &path);
    let (_, done) = import(&tar).await;
    let report = done.unwrap();
    assert_eq!(report.skipped[0].why, why);
    assert_eq!(report.ignored.iter().map(|ignored| ignored.why).collect::<Vec<_>>(), [ignored]);
}

#[tokio::test]
async fn names_that_lead_out_are_left_alone() {
    let outside = std::env::temp_dir().join("sampan-was-here");
    let absolute = outside.to_str().unwrap().to_owned();
    let (_, path) = blob(1);
    for name in [
        "../evil",
        "../../../../../../tmp/sampan-was-here",
        &absolute,
        "blobs/sha256/../../evil",
        "blobs/../blobs/sha256/x",
        &format!("/{path}"),
        &format!("././{path}"),
        &format!("blobs//{}", &path[6..]),
        "blobs/sha256/",
        "C:\\evil",
        "blobs\\sha256\\evil",
        "index.json\n",
        "Index.json",
        "blobs/sha256/e3b0\u{202e}c442",
        "",
    ] {
        if name.ends_with('/') {
            continue;
        }
        ignore(|tar| tar.file(name, b"evil"), IgnoredMember::Name).await;
    }
    assert!(!outside.exists());
}

#[tokio::test]
async fn links_and_devices_in_the_place_of_a_blob_are_left_alone() {
    let missing = || Why::Missing(blob(1).0);
    for kind in [EntryType::Symlink, EntryType::Link] {
        without_layer(|tar, path| tar.link(kind, path, "/etc/passwd"), IgnoredMember::NotAFile, missing())
            .await;
        let (_, other) = blob(2);
        without_layer(|tar, path| tar.link(kind, path, &other), IgnoredMember::NotAFile, missing()).await;
    }
    for kind in
        [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::Continuous, EntryType::new(b'Z')]
    {
        without_layer(|tar, path| tar.member(kind, path, b"", |_| {}), IgnoredMember::NotAFile, missing())
            .await;
    }
    without_layer(
        |tar, path| tar.member(EntryType::Directory, path, b"", |_| {}),
        IgnoredMember::NotAFile,
        missing(),
    )
    .await;
}

#[tokio::test]
async fn a_sparse_file_is_left_alone() {
    let sparse = |tar: &mut Tar, path: &str| tar.member(EntryType::GNUSparse, path, b"", |_| {});
    without_layer(sparse, IgnoredMember::Ambiguous, Why::Missing(blob(1).0)).await;
    let layer = good().blobs[1].clone();
    let pax = |tar: &mut Tar, path: &str| {
        tar.pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", path)]);
        tar.file(path, &layer);
    };
    without_layer(pax, IgnoredMember::Ambiguous, Why::Missing(blob(1).0)).await;
}

#[tokio::test]
async fn an_extended_header_cannot_smuggle() {
    let layer = good().blobs[1].clone();
    // Two names for one file.
    let twice = |tar: &mut Tar, path: &str| {
        tar.pax(&[("path", "harmless"), ("path", path)]);
        tar.file("x", &layer);
    };
    without_layer(twice, IgnoredMember::Ambiguous, Why::Missing(blob(1).0)).await;
    // A size that is none.
    let sized = |tar: &mut Tar, path: &str| {
        tar.pax(&[("size", "-1")]);
        tar.file(path, &layer);
    };
    without_layer(sized, IgnoredMember::Ambiguous, Why::Missing(blob(1).0)).await;
    // Larger than anything that is read for a name.
    let large = |tar: &mut Tar, path: &str| {
        tar.member(EntryType::XHeader, "pax", &vec![b'x'; 100_000], |_| {});
        tar.file(path, &layer);
    };
    without_layer(large, IgnoredMember::Ambiguous, Why::Missing(blob(1).0)).await;
}

#[tokio::test]
async fn an_extended_header_may_name_a_file_and_say_its_size() {
    let (_, path) = blob(1);
    let mut archive = Archive::of(&[(NAME, &good())]);
    archive.remove(&path);
    let mut tar = archive.tar();
    let layer = good().blobs[1].clone();
    tar.pax(&[("path", &path), ("size", &layer.len().to_string()), ("mtime", "1.5")]);
    tar.member(EntryType::Regular, "x", &layer, |header| header.set_size(0));
    let (_, done) = import(&tar).await;
    assert_eq!(done.unwrap().images.len(), 1);
}

#[tokio::test]
async fn a_second_file_of_one_name_is_left_alone() {
    let (_, path) = blob(1);
    ignore(|tar| tar.file(&path, b"wrong"), IgnoredMember::Twice).await;
    ignore(|tar| tar.file(&format!("./{path}"), b"wrong"), IgnoredMember::Twice).await;
}

#[tokio::test]
async fn a_blob_with_wrong_bytes_stays_out() {
    let (digest, path) = blob(1);
    let mut archive = Archive::of(&[(NAME, &good())]);
    let mut bytes = good().blobs[1].to_vec();
    bytes[2500] ^= 1;
    archive.set(&path, bytes);
    skip(&archive, Why::WrongBytes(digest)).await;
    archive.set(&path, good().blobs[1][..4999].to_vec());
    skip(&archive, Why::WrongSize(digest)).await;
    archive.set(&path, [&good().blobs[1][..], b"more"].concat());
    skip(&archive, Why::WrongSize(digest)).await;
    archive.remove(&path);
    skip(&archive, Why::Missing(digest)).await;
}

#[tokio::test]
async fn a_manifest_with_wrong_bytes_stays_out() {
    let mut archive = Archive::of(&[(NAME, &good())]);
    archive.set(&path_of(&good().digest()), other().root.to_vec());
    let why = if other().root.len() == good().root.len() {
        Why::WrongBytes(good().digest())
    } else {
        Why::WrongSize(good().digest())
    };
    skip(&archive, why).await;
}

#[tokio::test]
async fn sizes_that_lie_are_noticed() {
    let mut entry = good().entry(NAME);
    for size in [json!(0), json!(1), json!(5_000_000), json!(u64::MAX)] {
        entry["size"] = size.clone();
        let mut archive = Archive::of(&[(NAME, &good())]);
        archive.set("index.json", index_json(&[entry.clone()]));
        let (_, done) = import(&archive.tar()).await;
        let why = &done.unwrap().skipped[0].why;
        assert!(matches!(why, Why::WrongSize(_) | Why::InvalidManifest(_)), "{size}: {why}");
    }
    // A manifest that says of its layer what is not.
    let (config, layer) = (good().blobs[0].clone(), good().blobs[1].clone());
    for size in [json!(4999), json!(5001), json!(u64::MAX)] {
        let mut listed = describe(LAYER, &layer);
        listed["size"] = size;
        let root = json!({"schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(),
            "config": describe("application/vnd.oci.image.config.v1+json", &config), "layers": [listed]});
        let liar =
            Parts { root: root.to_string().into(), blobs: vec![config.clone(), layer.clone()], ..good() };
        skip(&Archive::of(&[(NAME, &liar)]), Why::WrongSize(Digest::of(&layer))).await;
    }
}

#[tokio::test]
async fn of_an_index_the_good_platforms_come_in() {
    let (amd, arm) = (good(), other());
    let index = Parts::index(&[("amd64", &amd), ("arm64", &arm)]);
    let mut archive = Archive::of(&[(NAME, &index)]);
    let layer = Digest::of(&arm.blobs[1]);
    archive.set(&path_of(&layer), vec![0; 700]);
    let (cache, done) = import(&archive.tar()).await;
    let report = done.unwrap();
    assert_eq!(report.images[0].left_out[0].why, Why::WrongBytes(layer));
    assert_eq!(
        report.images[0].size_bytes,
        (amd.everything().chain([&index.root])).map(|b| b.len() as u64).sum::<u64>()
    );
    assert_eq!(cache.store.images().await.unwrap()[0].platforms.len(), 1);
}

#[tokio::test]
async fn a_document_that_can_be_read_as_two_things_stays_out() {
    let parts = good();
    let manifest: Value = serde_json::from_slice(&parts.root).unwrap();
    let mut both = manifest.clone();
    both["manifests"] = json!([]);
    let mut typed = manifest.clone();
    typed["mediaType"] = json!(MediaType::OciIndex.as_str());
    let mut foreign = manifest.clone();
    foreign["mediaType"] = json!("text/html");
    for document in [both, typed, foreign, json!([]), json!({}), json!({"schemaVersion": 1, "fsLayers": []})]
    {
        let confused = Parts { root: document.to_string().into(), ..parts.clone() };
        skip(&Archive::of(&[(NAME, &confused)]), Why::InvalidManifest(confused.digest())).await;
    }
    // The list says another type than the document.
    for said in
        [MediaType::DockerManifest.as_str(), MediaType::OciIndex.as_str(), LAYER, "", "application/json"]
    {
        let mut entry = parts.entry(NAME);
        entry["mediaType"] = json!(said);
        let mut archive = Archive::of(&[(NAME, &parts)]);
        archive.set("index.json", index_json(&[entry]));
        skip(&archive, Why::InvalidManifest(parts.digest())).await;
    }
}

#[tokio::test]
async fn a_digest_in_another_spelling_is_none() {
    let parts = good();
    let digest = parts.digest().to_string();
    for spelt in [
        digest.to_uppercase(),
        format!("sha256:{}", digest[7..].to_uppercase()),
        digest.replace("sha256", "md5"),
        "sha256:../../index.json".into(),
        format!("{digest}\n"),
        String::new(),
    ] {
        let mut entry = parts.entry(NAME);
        entry["digest"] = json!(spelt);
        let mut archive = Archive::of(&[(NAME, &parts)]);
        archive.set("index.json", index_json(&[entry]));
        skip(&archive, Why::InvalidDigest).await;
    }
}

#[tokio::test]
async fn a_blob_named_in_upper_case_is_no_blob() {
    let layer = good().blobs[1].clone();
    let upper = format!("blobs/sha256/{}", blob(1).0.hex().to_uppercase());
    without_layer(|tar, _| tar.file(&upper, &layer), IgnoredMember::Name, Why::Missing(blob(1).0)).await;
}

#[tokio::test]
async fn an_index_that_lists_itself_ends() {
    // No index can hold its own digest: the nearest are a wrong one, and one that is listed by size only.
    let fake = Digest::of(b"itself");
    let root = json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(),
        "manifests": [{"mediaType": MediaType::OciIndex.as_str(), "digest": fake, "size": 200}]});
    let circle = Parts {
        root: root.to_string().into(),
        media_type: MediaType::OciIndex,
        manifests: vec![],
        blobs: vec![],
    };
    let mut archive = Archive::of(&[(NAME, &circle)]);
    let mut itself = circle.root.to_vec();
    itself.resize(200, b' ');
    archive.set(&path_of(&fake), itself[..200].to_vec());
    skip(&archive, Why::WrongBytes(fake)).await;
}

#[tokio::test]
async fn indexes_in_indexes_have_an_end() {
    let mut parts = good();
    for _ in 0..3 {
        parts = Parts::index(&[("amd64", &parts)]);
    }
    let (_, done) = import(&Archive::of(&[(NAME, &parts)]).tar()).await;
    assert_eq!(done.unwrap().images.len(), 1, "three are strange and good");
    for _ in 0..50 {
        parts = Parts::index(&[("amd64", &parts)]);
    }
    skip(&Archive::of(&[(NAME, &parts)]), Why::TooMany).await;
}

#[tokio::test]
async fn lists_without_end_are_refused() {
    let entry = good().entry(NAME);
    let mut archive = Archive::of(&[(NAME, &good())]);
    archive.set("index.json", index_json(&vec![entry; 5000]));
    refuse(&archive.tar(), "more than 4096 images").await;
    // In an index below, the parser of manifests has the limit.
    let descriptor = describe(MediaType::OciManifest.as_str(), b"x");
    let root = json!({"schemaVersion": 2, "manifests": vec![descriptor; 5000]});
    let many = Parts {
        root: root.to_string().into(),
        media_type: MediaType::OciIndex,
        manifests: vec![],
        blobs: vec![],
    };
    skip(&Archive::of(&[(NAME, &many)]), Why::InvalidManifest(many.digest())).await;
    // Many manifests, each of which is there.
    let images: Vec<Parts> = (0..600).map(|seed| Parts::image("amd64", &[(seed, 8)])).collect();
    let listed: Vec<(&str, &Parts)> = images.iter().map(|parts| ("amd64", parts)).collect();
    skip(&Archive::of(&[(NAME, &Parts::index(&listed))]), Why::TooMany).await;
}

#[tokio::test]
async fn one_list_of_manifests_named_a_thousand_times_costs_a_budget_not_a_thousandfold() {
    let layers: Vec<Value> = (0..4000).map(|_| describe(LAYER, b"x")).collect();
    let root = json!({"schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(),
        "config": describe("c/c", b"c"), "layers": layers});
    let heavy = Parts { root: root.to_string().into(), blobs: vec!["c".into(), "x".into()], ..good() };
    let names: Vec<String> = (0..1000).map(|at| format!("docker.io/library/x:{at}")).collect();
    let listed: Vec<(&str, &Parts)> = names.iter().map(|name| (name.as_str(), &heavy)).collect();
    let mut archive = Archive::of(&listed[..1]);
    archive.set("index.json", index_json(&listed.iter().map(|(n, p)| p.entry(n)).collect::<Vec<_>>()));
    let (_, done) = import(&archive.tar()).await;
    let report = done.unwrap();
    assert!(!report.images.is_empty() && report.images.len() < 100, "{}", report.images.len());
    assert!(report.skipped.iter().all(|skipped| skipped.why == Why::TooMany));
}

#[tokio::test]
async fn a_list_that_is_missing_broken_or_there_twice_is_refused() {
    let good = Archive::of(&[(NAME, &good())]);
    for (name, bytes, words) in [
        ("index.json", None, "missing"),
        ("oci-layout", None, "missing"),
        ("index.json", Some(b"<html>".to_vec()), "cannot be read"),
        ("index.json", Some(Vec::new()), "cannot be read"),
        ("index.json", Some("[".repeat(1_000_000).into_bytes()), "cannot be read"),
        ("index.json", Some(format!("{{\"a\":{}", "[".repeat(100_000)).into_bytes()), "cannot be read"),
        ("index.json", Some(br#"{"schemaVersion":1,"manifests":[]}"#.to_vec()), "another kind"),
        (
            "index.json",
            Some(br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#.to_vec()),
            "cannot be read",
        ),
        ("index.json", Some(vec![b' '; 4 * 1024 * 1024 + 1]), "4 MiB"),
        ("oci-layout", Some(br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec()), "version 1"),
        ("oci-layout", Some(b"1.0.0".to_vec()), "version 1"),
        ("oci-layout", Some(vec![b' '; 10_000]), "version 1"),
    ] {
        let mut archive = good.clone();
        match bytes {
            Some(bytes) => archive.set(name, bytes),
            None => archive.remove(name),
        }
        refuse(&archive.tar(), words).await;
    }
    let mut twice = good.tar();
    twice.file("./index.json", &index_json(&[]));
    refuse(&twice, "twice").await;
}

#[tokio::test]
async fn a_list_that_comes_last_is_found() {
    let mut archive = Archive::of(&[(NAME, &good())]);
    archive.0.rotate_left(2);
    let (_, done) = import(&archive.tar()).await;
    assert_eq!(done.unwrap().images.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_tar_says_what_it_is() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    let at = |bytes: &[u8]| {
        let path = folder.path().join("file.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (bytes, words) in [
        (&b"\x1f\x8b\x08\x00\x00\x00\x00"[..], "gunzip FILE"),
        (b"\x28\xb5\x2f\xfd\x00\x00", "unzstd FILE"),
        (b"PK\x03\x04\x00\x00", "unzip FILE"),
        (b"", "cut short"),
        (b"short", "cut short"),
        (&[b'x'; 4096], "no tar file"),
        (&[0; 4096], "missing"),
    ] {
        let error = cache.import(&at(bytes)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut docker = Tar::default();
    docker.file("manifest.json", b"[]");
    let error = cache.import(&docker.write(folder.path())).await.unwrap_err();
    assert!(matches!(error, ArchiveError::DockerArchive) && error.to_string().contains("skopeo copy"));
    assert!(matches!(cache.import(Path::new("/no/such")).await, Err(ArchiveError::Source { .. })));
}

#[tokio::test]
async fn of_a_cut_archive_whatever_is_whole_comes_in() {
    let (first, second) = (good(), other());
    let archive = Archive::of(&[(NAME, &first), ("docker.io/library/b:1", &second)]);
    let whole = archive.tar();
    let mut found = [false; 3];
    for length in (0..whole.0.len()).step_by(97) {
        let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
        let path = folder.path().join("cut.tar");
        std::fs::write(&path, &whole.0[..length]).unwrap();
        match cache.import(&path).await {
            Ok(report) => {
                let (came, stayed) = (report.images.len(), report.skipped.len());
                assert_eq!(came + stayed, 2);
                found[came] = true;
                assert_eq!(report.ending, Ending::CutShort, "{length}");
            }
            Err(error) => assert!(matches!(error, ArchiveError::NotALayout(_)), "{error}"),
        }
        cache.blobs();
    }
    assert_eq!(found, [true; 3], "none, one and both came in");
}

#[tokio::test]
async fn a_header_that_is_damaged_ends_the_archive() {
    let mut tar = Archive::of(&[(NAME, &good())]).tar();
    let at = tar.0.len();
    tar.0.extend([b'x'; 512]);
    let (_, done) = import(&tar).await;
    let report = done.unwrap();
    assert_eq!((report.ending, report.images.len()), (Ending::Damaged(at as u64), 1));
}

#[tokio::test]
async fn two_images_of_one_name_are_one_and_a_report() {
    let (cache, done) = import(&Archive::of(&[(NAME, &good()), (NAME, &other())]).tar()).await;
    let report = done.unwrap();
    assert_eq!(report.images[0].digest, good().digest(), "the first");
    assert_eq!(report.skipped[0].why, Why::NameTaken);
    assert_eq!(cache.names().await, [NAME]);
}

#[tokio::test]
async fn a_name_with_control_characters_is_no_name_and_is_shown_harmlessly() {
    for name in [
        "al\u{1b}[2Jpine:1",
        "docker.io/library/\u{202e}x:1",
        "a\nb:1",
        "<img src=x onerror=alert(1)>",
        "../../x:1",
    ] {
        let (_, done) = import(&Archive::of(&[(name, &good())]).tar()).await;
        let report = done.unwrap();
        assert_eq!(report.skipped[0].why, Why::NoName, "{name:?}");
        assert!(report.skipped[0].name.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
    }
}

#[tokio::test]
async fn blobs_that_nothing_refers_to_are_counted_and_not_read() {
    let mut archive = Archive::of(&[(NAME, &good())]);
    archive.set(&path_of(&Digest::of(b"a stranger")), b"a stranger".to_vec());
    archive.set(&path_of(&Digest::of(b"a liar")), b"something else".to_vec());
    let (cache, done) = import(&archive.tar()).await;
    assert_eq!(done.unwrap().unreferred_blobs, 2);
    assert_eq!(cache.blobs().len(), good().everything().count());
}

#[tokio::test]
async fn ten_thousand_strange_members_cost_a_hundred_lines() {
    let mut tar = Archive::of(&[(NAME, &good())]).tar();
    (0..10_000).for_each(|at| tar.file(&format!("x{at}"), b""));
    let (_, done) = import(&tar).await;
    let report = done.unwrap();
    assert_eq!((report.ignored_count, report.ignored.len(), report.images.len()), (10_000, 100, 1));
}

#[cfg(unix)]
#[tokio::test]
async fn nothing_in_a_folder_leads_out_of_it() {
    let (digest, path) = blob(1);
    let outside = tempfile::tempdir().unwrap();
    // The right bytes, but elsewhere: whoever made the folder may not choose what is read.
    std::fs::write(outside.path().join("layer"), &good().blobs[1]).unwrap();
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    Archive::of(&[(NAME, &good())]).write_folder(folder.path());
    std::fs::remove_file(folder.path().join(&path)).unwrap();
    std::os::unix::fs::symlink(outside.path().join("layer"), folder.path().join(&path)).unwrap();
    let report = cache.import(folder.path()).await.unwrap();
    assert_eq!(report.skipped[0].why, Why::Missing(digest));
    assert_eq!(report.ignored[0].why, IgnoredMember::NotAFile);

    // So with the folder of all blobs, and with the list.
    let moved = outside.path().join("blobs");
    std::fs::rename(folder.path().join("blobs"), &moved).unwrap();
    std::os::unix::fs::symlink(&moved, folder.path().join("blobs")).unwrap();
    let report = cache.import(folder.path()).await.unwrap();
    assert_eq!(report.skipped[0].why, Why::Missing(good().digest()));
    std::fs::rename(folder.path().join("index.json"), outside.path().join("list")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("list"), folder.path().join("index.json")).unwrap();
    assert!(matches!(cache.import(folder.path()).await, Err(ArchiveError::NotALayout(_))));
    assert!(cache.blobs().is_empty());
}
