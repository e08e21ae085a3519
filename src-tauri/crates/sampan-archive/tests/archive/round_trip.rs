//! Out of one cache and into another.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use sampan_archive::{ArchiveError, ArchiveName, ExportImage, ImportOptions, Progress, Why, export, import};
use sampan_oci::{Algorithm, Digest, Hasher, ImageName, Manifest, MediaType, Reference};
use serde_json::{Value, json};

use crate::support::{Archive, CONFIG, Cache, LAYER, Parts};

const ALPINE: &str = "docker.io/library/alpine:3.20";
const APP: &str = "ghcr.io/someone/app:1";

fn alpine() -> Parts {
    Parts::image("amd64", &[(1, 3_000_000), (2, 10)])
}

fn app() -> Parts {
    Parts::image("amd64", &[(1, 3_000_000), (3, 70_000), (4, 0)])
}

/// The names and bytes of a tar file's members, by a reader that is not ours.
fn members(tar: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let mut members = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let (header, directory) = (entry.header(), name.ends_with('/'));
        assert_eq!(header.mode().unwrap(), if directory { 0o755 } else { 0o644 }, "{name}");
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        if !directory {
            assert!(members.insert(name.clone(), bytes).is_none(), "{name} is in it once");
        }
    }
    members
}

#[tokio::test]
async fn images_come_in_as_they_went_out_by_tar_and_by_folder() {
    let from = Cache::new();
    let chosen = [from.hold(ALPINE, &alpine()).await, from.hold(APP, &app()).await];
    for target in ["out.tar", "out"] {
        let target = from.folder.path().join(target);
        let mut told = Progress::default();
        let report = export(&from.store, &chosen, &target, |progress| told = progress.clone()).await.unwrap();
        assert_eq!(report.images.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), [ALPINE, APP]);
        assert_eq!(report.skipped, []);
        assert_eq!(report.blobs, from.blobs().len() as u64, "the shared layer is counted once");
        assert_eq!(told.done_bytes, report.size_bytes, "all of it is told");
        assert_eq!(told.total_bytes, report.size_bytes);

        let to = Cache::new();
        let report = to.import(&target).await.unwrap();
        assert_eq!((report.skipped.len(), report.ignored_count, report.unreferred_blobs), (0, 0, 0));
        assert_eq!(report.images[0].name(), ALPINE);
        assert_eq!(report.images[0].digest, alpine().digest());
        assert_eq!((report.new_bytes, report.held_blobs), (told.total_bytes, 0));
        assert_eq!(to.blobs(), from.blobs(), "the same blobs, byte for byte");
        let digests = |cache: &Cache| {
            let store = cache.store.clone();
            async move {
                let entries = store.images().await.unwrap();
                entries
                    .into_iter()
                    .map(|e| (e.image, e.tag, e.digest, e.platforms, e.size_bytes))
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(digests(&to).await, digests(&from).await, "the same images");
        to.assert_tidy();

        let again = to.import(&target).await.unwrap();
        assert_eq!((again.new_blobs, again.new_bytes), (0, 0), "what is held is not written again");
        assert_eq!(again.images.len(), 2);
    }
}

#[tokio::test]
async fn two_exports_of_the_same_images_are_the_same_file() {
    let cache = Cache::new();
    let chosen = [cache.hold(ALPINE, &alpine()).await, cache.hold(APP, &app()).await];
    let (one, two) = (cache.folder.path().join("1.tar"), cache.folder.path().join("2.TAR"));
    export(&cache.store, &chosen, &one, |_| {}).await.unwrap();
    // Asked for twice, it goes once.
    let twice = [chosen.to_vec(), chosen.to_vec()].concat();
    export(&cache.store, &twice, &two, |_| {}).await.unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let members = members(&one);
    assert_eq!(members.len(), cache.blobs().len() + 3, "each blob once, and three documents");
    let list: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    assert_eq!(list[0]["RepoTags"][0], ALPINE);
    assert!(members.contains_key(list[0]["Layers"][0].as_str().unwrap()), "Docker's list names blobs");
    let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], ALPINE);
    assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], ALPINE);
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "amd64");
}

#[tokio::test]
async fn platforms_that_are_not_held_are_left_out_and_named() {
    let (amd, arm, s390) = (alpine(), app(), Parts::image("s390x", &[(9, 100)]));
    let attestation = Parts::image("unknown", &[(8, 10)]);
    let index =
        Parts::index(&[("arm64", &arm), ("amd64", &amd), ("s390x", &s390), ("unknown", &attestation)]);
    let cache = Cache::new();
    let mut held = index.clone();
    // One platform's manifest was never fetched; of another a layer is missing.
    held.manifests.retain(|bytes| *bytes != s390.root);
    held.blobs.retain(|bytes| !s390.blobs.contains(bytes) && *bytes != arm.blobs[2]);
    let chosen = [cache.hold(ALPINE, &held).await];
    let target = cache.folder.path().join("out.tar");
    let report = export(&cache.store, &chosen, &target, |_| {}).await.unwrap();
    let left: Vec<String> = report.images[0]
        .left_out
        .iter()
        .map(|left| format!("{} {}", left.platform.clone().unwrap(), left.why))
        .collect();
    let missing = |bytes: &[u8]| format!("{} is missing", Digest::of(bytes));
    assert_eq!(
        left,
        [format!("linux/arm64 {}", missing(&arm.blobs[2])), format!("linux/s390x {}", missing(&s390.root))]
    );
    let members = members(&target);
    let has = |bytes: &[u8]| members.contains_key(&crate::support::path_of(&Digest::of(bytes)));
    assert!(has(&index.root) && has(&amd.root) && has(&attestation.root));
    assert!(!has(&arm.root) && !has(&arm.blobs[0]) && !has(&s390.root), "nothing of what is not whole");

    let to = Cache::new();
    let report = to.import(&target).await.unwrap();
    assert_eq!(report.images[0].digest, index.digest());
    assert_eq!(report.images[0].left_out.len(), 2, "the index still lists them");
}

#[tokio::test]
async fn an_image_without_a_whole_platform_is_skipped_and_the_others_go() {
    let cache = Cache::new();
    let mut partly = app();
    let lost = partly.blobs.pop().unwrap();
    let unknown = ExportImage {
        image: "docker.io/library/none".parse().unwrap(),
        reference: Reference::Tag("1".parse().unwrap()),
    };
    let chosen = [cache.hold(APP, &partly).await, unknown, cache.hold(ALPINE, &alpine()).await];
    let target = cache.folder.path().join("out");
    let report = export(&cache.store, &chosen, &target, |_| {}).await.unwrap();
    assert_eq!(report.images.len(), 1);
    let why: Vec<_> =
        report.skipped.iter().map(|skipped| (skipped.name.as_str(), skipped.why.clone())).collect();
    assert_eq!(why, [(APP, Why::Missing(Digest::of(&lost))), ("docker.io/library/none:1", Why::NotHeld)]);
    let none = export(&cache.store, &chosen[..2], &cache.folder.path().join("none.tar"), |_| {}).await;
    assert!(matches!(none, Err(ArchiveError::NothingToExport(skipped)) if skipped.len() == 2));
    assert!(!cache.folder.path().join("none.tar").exists());
}

#[tokio::test]
async fn a_damaged_blob_is_found_on_its_way_out_and_leaves_nothing_behind() {
    for target in ["out.tar", "out"] {
        let cache = Cache::new();
        let chosen = [cache.hold(APP, &app()).await, cache.hold(ALPINE, &alpine()).await];
        // A layer that only the first image has: the one both share is written before it is found.
        let damaged = Digest::of(&app().blobs[2]);
        let mut bytes = app().blobs[2].to_vec();
        bytes[35_000] ^= 1;
        std::fs::write(cache.blob_path(&damaged), bytes).unwrap();
        let target = cache.folder.path().join(target);
        let report = export(&cache.store, &chosen, &target, |_| {}).await.unwrap();
        assert_eq!(report.skipped[0].why, Why::WrongBytes(damaged));
        assert_eq!(report.images[0].name, ALPINE);
        assert!(!cache.blob_path(&damaged).exists(), "it is served no more");
        let to = Cache::new();
        let back = to.import(&target).await.unwrap();
        assert_eq!((back.images.len(), back.unreferred_blobs, back.skipped.len()), (1, 0, 0));
        assert_eq!(to.blobs().len(), alpine().everything().count());
    }
}

#[tokio::test]
async fn of_a_damaged_platform_the_index_goes_without_it() {
    let cache = Cache::new();
    let (amd, arm) = (alpine(), Parts::image("arm64", &[(5, 4000)]));
    let chosen = [cache.hold(ALPINE, &Parts::index(&[("amd64", &amd), ("arm64", &arm)])).await];
    let damaged = Digest::of(&arm.blobs[1]);
    std::fs::write(cache.blob_path(&damaged), vec![0; 4000]).unwrap();
    let target = cache.folder.path().join("out.tar");
    let report = export(&cache.store, &chosen, &target, |_| {}).await.unwrap();
    assert_eq!(report.images[0].left_out[0].why, Why::WrongBytes(damaged));
    assert_eq!(members(&target).len(), 2 + 3 + amd.blobs.len());
}

#[tokio::test]
async fn nothing_of_the_persons_is_replaced_and_what_to_do_is_said() {
    let cache = Cache::new();
    let chosen = [cache.hold(ALPINE, &alpine()).await];
    let at = |name: &str| cache.folder.path().join(name);
    std::fs::write(at("there.tar"), b"mine").unwrap();
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full/mine"), b"mine").unwrap();
    std::fs::create_dir(at("empty")).unwrap();
    for name in ["there.tar", "full"] {
        let refused = export(&cache.store, &chosen, &at(name), |_| {}).await;
        assert!(matches!(refused, Err(ArchiveError::TargetExists(_))), "{name}: {refused:?}");
    }
    assert_eq!(std::fs::read(at("there.tar")).unwrap(), b"mine");
    export(&cache.store, &chosen, &at("empty"), |_| {}).await.unwrap();
    let again = export(&cache.store, &chosen, &at("empty"), |_| {}).await.unwrap_err();
    assert!(matches!(again, ArchiveError::TargetIsLayout(_)) && again.to_string().contains("choose another"));
    let nowhere = export(&cache.store, &chosen, &at("no/such/out.tar"), |_| {}).await;
    assert!(matches!(nowhere, Err(ArchiveError::Target { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn a_cancelled_export_leaves_nothing_under_the_targets_name() {
    let cache = Cache::new();
    let chosen = [cache.hold(ALPINE, &alpine()).await];
    std::fs::create_dir(cache.folder.path().join("mine")).unwrap();
    for name in ["out.tar", "out", "mine"] {
        let target = cache.folder.path().join(name);
        let (told, heard) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        {
            let running = export(&cache.store, &chosen, &target, |_| {
                let _ = told.take().map(|told| told.send(()));
            });
            tokio::select! {
                biased;
                _ = heard => {}
                done = running => panic!("it was to be cut off: {done:?}"),
            }
        }
        let gone = || match std::fs::read_dir(&target) {
            Ok(mut folder) => name == "mine" && folder.next().is_none(),
            Err(_) => std::fs::read_dir(cache.folder.path()).unwrap().count() == 2,
        };
        // The write that ran is let end first, on its own thread.
        while !gone() {
            tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_export_by_digest_comes_in_without_a_tag() {
    let (from, to) = (Cache::new(), Cache::new());
    let mut chosen = from.hold(ALPINE, &alpine()).await;
    chosen.reference = Reference::Digest(alpine().digest());
    let target = from.folder.path().join("out.tar");
    let report = export(&from.store, &[chosen], &target, |_| {}).await.unwrap();
    assert_eq!(report.images[0].name, format!("docker.io/library/alpine@{}", alpine().digest()));
    let report = to.import(&target).await.unwrap();
    assert_eq!((report.images[0].tag.clone(), report.images[0].digest), (None, alpine().digest()));
}

#[tokio::test]
async fn a_damaged_blob_of_the_cache_is_healed_by_the_archive() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    cache.hold(ALPINE, &alpine()).await;
    let digest = Digest::of(&alpine().blobs[1]);
    std::fs::write(cache.blob_path(&digest), vec![7; 3_000_000]).unwrap();
    let archive = Archive::of(&[(ALPINE, &alpine())]).tar().write(folder.path());
    let report = cache.import(&archive).await.unwrap();
    assert_eq!((report.new_blobs, report.images.len()), (1, 1));
    assert_eq!(cache.blobs().len(), alpine().everything().count(), "all of them right");
}

#[tokio::test]
async fn what_the_archive_lacks_may_be_in_the_cache() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    cache.hold(ALPINE, &alpine()).await;
    let mut archive = Archive::of(&[(APP, &app())]);
    archive.remove(&crate::support::path_of(&Digest::of(&app().blobs[1])));
    let report = cache.import(&archive.tar().write(folder.path())).await.unwrap();
    assert_eq!((report.images.len(), report.held_blobs), (1, 1));
}

#[tokio::test]
async fn a_damaged_manifest_that_the_archive_lacks_is_set_aside() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    cache.hold(ALPINE, &alpine()).await;
    let mut wrong = alpine().root.to_vec();
    wrong[5] ^= 1;
    std::fs::write(cache.blob_path(&alpine().digest()), wrong).unwrap();
    let mut archive = Archive::of(&[(ALPINE, &alpine())]);
    archive.remove(&crate::support::path_of(&alpine().digest()));
    let report = cache.import(&archive.tar().write(folder.path())).await.unwrap();
    assert_eq!(report.skipped[0].why, Why::WrongBytes(alpine().digest()));
    assert!(!cache.blob_path(&alpine().digest()).exists(), "it is served no more");
    assert_eq!(cache.store.health().await.unwrap().damaged, 1);
}

#[tokio::test]
async fn an_image_in_dockers_own_format_keeps_it() {
    let (from, to) = (Cache::new(), Cache::new());
    let docker =
        Parts::of(MediaType::DockerManifest, r#"{"os":"linux","architecture":"arm64"}"#.into(), vec![]);
    let chosen = [from.hold(ALPINE, &docker).await];
    let target = from.folder.path().join("out.tar");
    export(&from.store, &chosen, &target, |_| {}).await.unwrap();
    to.trust(&target).await.unwrap();
    let kept = to.store.manifest(&chosen[0].image, &docker.digest()).await.unwrap().unwrap();
    assert_eq!(kept, (docker.root.clone(), MediaType::DockerManifest));
}

#[tokio::test]
async fn an_image_named_by_sha_512_keeps_its_names() {
    let sha512 = |bytes: &[u8]| {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(bytes);
        hasher.finish()
    };
    let (config, layer) =
        (Bytes::from_static(br#"{"os":"linux","architecture":"amd64"}"#), alpine().blobs[1].clone());
    let listed =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": sha512(bytes), "size": bytes.len()});
    let root = json!({"schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(),
        "config": listed(CONFIG, &config), "layers": [listed(LAYER, &layer)]});
    let root = Bytes::from(root.to_string());
    let from = Cache::new();
    let image: ImageName = "docker.io/library/alpine".parse().unwrap();
    for bytes in [&config, &layer] {
        from.store.put(&sha512(bytes), bytes.clone()).await.unwrap();
    }
    let manifest = Manifest::parse(&root, None, Some(&sha512(&root))).unwrap();
    from.store.put_manifest(&image, &manifest, root.clone()).await.unwrap();
    let chosen = [ExportImage { image: image.clone(), reference: Reference::Digest(sha512(&root)) }];
    for target in ["out.tar", "out"] {
        let target = from.folder.path().join(target);
        assert_eq!(export(&from.store, &chosen, &target, |_| {}).await.unwrap().blobs, 3);
        let to = Cache::new();
        let report = to.trust(&target).await.unwrap();
        assert_eq!((report.images[0].digest, report.new_blobs), (sha512(&root), 3));
        assert!(to.blobs().keys().all(|name| name.starts_with("sha512:")));
        assert_eq!(to.blobs(), from.blobs());
        assert_eq!(to.store.manifest(&image, &sha512(&root)).await.unwrap().unwrap().0, root);
    }
    // Wrong bytes are found as well as with the shorter one.
    let lost = from.folder.path().join("out").join(crate::support::path_of(&sha512(&layer)));
    let mut wrong = layer.to_vec();
    wrong[7] ^= 1;
    std::fs::write(lost, wrong).unwrap();
    let report = Cache::new().import(&from.folder.path().join("out")).await.unwrap();
    assert_eq!(report.skipped[0].why, Why::WrongBytes(sha512(&layer)));
}

#[tokio::test]
async fn a_name_can_be_given_to_the_image_of_an_archive_of_one() {
    let (cache, folder) = (Cache::new(), tempfile::tempdir().unwrap());
    let archive = Archive::of(&[("3.20", &alpine())]).tar().write(folder.path());
    let report = cache.import(&archive).await.unwrap();
    assert_eq!(report.skipped[0].why, Why::NoName, "a lone word may be a tag, and names nothing");
    assert_eq!(cache.blobs().len(), 0);
    let name = ArchiveName {
        image: "docker.io/library/alpine".parse().unwrap(),
        tag: Some("3.20".parse().unwrap()),
    };
    let options = ImportOptions { name: Some(name), ..ImportOptions::default() };
    import(&cache.store, &archive, options.clone(), |_| {}).await.unwrap();
    assert_eq!(cache.names().await, [ALPINE]);
    let two = Archive::of(&[("1", &alpine()), ("2", &app())]).tar().write(folder.path());
    let refused = import(&cache.store, &two, options, |_| {}).await;
    assert!(matches!(refused, Err(ArchiveError::NameForMany(2))), "{refused:?}");
}
