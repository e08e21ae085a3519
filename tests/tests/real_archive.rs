//! Archives that go out are read by the programs people have, and theirs come in.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;

use sampan_archive::{ExportImage, Exported, ImportOptions, Imported};
use sampan_oci::Reference;
use sampan_store::{Store, StoreOptions};
use sampan_testkit::TestClock;
use sampan_tests::{Dockerd, DockerdOptions, Image, Images, bins, disk, finish, scratch, turn};

fn cache(folder: &Path, name: &str) -> Store {
    let options = StoreOptions::new(folder.join(name), Arc::new(TestClock::new()));
    Store::open(options).expect("a temporary folder can be a cache")
}

async fn import(store: &Store, source: &Path) -> Imported {
    let report = sampan_archive::import(store, source, ImportOptions::default(), |_| {}).await;
    let report = report.unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    assert_eq!((report.skipped.len(), report.ignored.len()), (0, 0), "{report:?}");
    assert_eq!(disk::wrong_blobs(store.dir()).0, [""; 0], "each blob is what its name says");
    report
}

async fn export(store: &Store, images: &[&Image], target: &Path) -> Exported {
    let chosen: Vec<ExportImage> = images
        .iter()
        .map(|image| ExportImage {
            image: image.full_name().parse().unwrap(),
            reference: Reference::Tag(image.tag.parse().unwrap()),
        })
        .collect();
    let report = sampan_archive::export(store, &chosen, target, |_| {}).await.unwrap();
    assert_eq!(report.images.len(), images.len(), "{report:?}");
    report
}

fn name(image: &Image) -> String {
    format!("{}:{}", image.full_name(), image.tag)
}

/// `skopeo copy`; whether it succeeded, and what it said.
fn skopeo(options: &[&str], from: &str, to: &str) -> (bool, String) {
    let mut skopeo = Program::new(bins::installed("skopeo").expect("the test asked for it"));
    skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
    let output = finish(skopeo.args(options).args([from, to]));
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn must_copy(options: &[&str], from: &str, to: &str) {
    let (done, words) = skopeo(options, from, to);
    assert!(done, "skopeo copy {from} {to}: {words}");
}

/// A cache that holds both images, every platform: by an archive that skopeo has written for each.
async fn filled(folder: &Path, images: &Images) -> Store {
    let (store, registry) = (cache(folder, "filled"), images.registry());
    for image in [&images.small, &images.big] {
        let archive = folder.join("of-skopeo.tar");
        let from = format!("docker://127.0.0.1:{}/{}:{}", registry.port(), image.repository, image.tag);
        must_copy(&["--all"], &from, &format!("oci-archive:{}:{}", archive.display(), name(image)));
        let report = import(&store, &archive).await;
        assert_eq!(report.images[0].name(), name(image), "by the name skopeo was told");
        assert_eq!(report.images[0].digest.to_string(), image.index.digest);
        std::fs::remove_file(archive).unwrap();
    }
    store
}

/// The digest that an OCI layout made by skopeo lists.
fn listed(layout: &Path) -> String {
    let index = std::fs::read(layout.join("index.json")).expect("skopeo has written it");
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn real_skopeo_reads_what_goes_out_and_writes_what_comes_in() {
    let Some(_turn) = turn(&["skopeo", "docker-registry"]) else { return };
    let (images, folder) = (Images::prepare(), scratch());
    let at = |name: &str| folder.path().join(name);
    let store = filled(folder.path(), &images).await;
    for (transport, target) in [("oci-archive", "out.tar"), ("oci", "out")] {
        let target = at(target);
        let report = export(&store, &[&images.small, &images.big], &target).await;
        assert_eq!(report.blobs, disk::held(store.dir()).len() as u64, "what both have is in it once");
        for image in [&images.small, &images.big] {
            let copy = at("copy");
            let from = format!("{transport}:{}:{}", target.display(), name(image));
            must_copy(&["--all"], &from, &format!("oci:{}:x", copy.display()));
            assert_eq!(listed(&copy), image.index.digest, "every platform, byte for byte");
            assert_eq!(disk::wrong_blobs(&copy).0, [""; 0]);
            std::fs::remove_dir_all(copy).unwrap();
        }
    }
    let from = format!("docker-archive:{}:{}", at("out.tar").display(), name(&images.big));
    must_copy(&[], &from, &format!("dir:{}", at("old").display()));
}

#[tokio::test]
async fn real_skopeo_takes_the_platform_that_is_there() {
    let Some(_turn) = turn(&["skopeo", "docker-registry"]) else { return };
    let (images, folder) = (Images::prepare(), scratch());
    let at = |name: &str| folder.path().join(name);
    let (image, all) = (&images.small, filled(folder.path(), &images).await);
    export(&all, &[image], &at("all")).await;
    // The other platform gets lost on the way.
    let blobs = at("all/blobs/sha256");
    let index = std::fs::read(blobs.join(image.index.hex())).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let other = index["manifests"][1]["digest"].as_str().unwrap().replace("sha256:", "");
    std::fs::remove_file(blobs.join(other)).unwrap();
    let partly = cache(folder.path(), "partly");
    assert_eq!(import(&partly, &at("all")).await.images[0].left_out.len(), 1);
    assert_eq!(export(&partly, &[image], &at("partly.tar")).await.images[0].left_out.len(), 1);
    let from = format!("oci-archive:{}:{}", at("partly.tar").display(), name(image));
    must_copy(&[], &from, &format!("oci:{}:x", at("copy").display()));
    assert_eq!(listed(&at("copy")), image.manifest.digest, "this machine's platform");
    let (done, words) = skopeo(&["--all"], &from, &format!("oci:{}:x", at("none").display()));
    assert!(!done && words.contains("no such file"), "whoever wants all is told: {words}");
}

#[tokio::test]
async fn real_podman_loads_what_goes_out_and_saves_what_comes_in() {
    let Some(_turn) = turn(&["podman", "skopeo", "docker-registry"]) else { return };
    let (images, folder) = (Images::prepare(), scratch());
    let at = |name: &str| folder.path().join(name);
    let store = filled(folder.path(), &images).await;
    let podman = |arguments: &[&str]| {
        let mut podman = Program::new(bins::installed("podman").unwrap());
        podman.env("HOME", folder.path()).args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        for (option, name) in [("--root", "podman"), ("--runroot", "podman-run"), ("--tmpdir", "podman-tmp")]
        {
            podman.arg(option).arg(at(name));
        }
        let output = finish(podman.args(arguments));
        assert!(output.status.success(), "podman: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    export(&store, &[&images.small], &at("one.tar")).await;
    let loaded = podman(&["load", "--input", &path("one.tar")]);
    assert!(loaded.contains(&name(&images.small)), "{loaded}");
    podman(&["save", "--format", "oci-archive", "--output", &path("saved.tar"), &name(&images.small)]);
    let report = import(&cache(folder.path(), "of-podman"), &at("saved.tar")).await;
    assert_eq!(report.images[0].name(), name(&images.small));
    // Several images in one OCI layout are more than this podman loads: it takes Docker's list.
    podman(&["rmi", "--all", "--force"]);
    export(&store, &[&images.small, &images.big], &at("two.tar")).await;
    let loaded = podman(&["load", "--input", &path("two.tar")]);
    assert!(loaded.contains(&name(&images.small)) && loaded.contains(&name(&images.big)), "{loaded}");
}

#[tokio::test]
async fn real_docker_of_before_oci_loads_what_goes_out() {
    let Some(_turn) = turn(&["dockerd", "docker", "docker-registry", "skopeo", "unshare"]) else { return };
    let (images, folder) = (Images::prepare(), scratch());
    let store = filled(folder.path(), &images).await;
    let target = folder.path().join("out.tar");
    export(&store, &[&images.small, &images.big], &target).await;
    let dockerd = Dockerd::start(DockerdOptions::default());
    dockerd.must(&["load", "--input", target.to_str().unwrap()]);
    for image in [&images.small, &images.big] {
        assert!(dockerd.holds(&image.short_name()), "{} was loaded by its name", image.short_name());
        let id = dockerd.must(&["images", "--quiet", "--no-trunc", &image.short_name()]);
        assert_eq!(id, image.config.digest, "and is the image it was");
    }
}
