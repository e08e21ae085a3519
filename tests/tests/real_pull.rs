//! Real clients pull a real image through Sampan from a real registry, and what Sampan says of it is held against what
//! the registry says and what lies on the disk.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command as Program;
use std::time::{Duration, Instant};

use sampan_app::api::{
    ClearReport, DiffKind, DockerAction, Image as Held, LayerSource, Pull, PullState, Snapshot, Totals,
};
use sampan_oci::Digest;
use sampan_tests::{
    Dockerd, DockerdOptions, Image, Images, Process, Relay, Sampan, SampanOptions, bins, disk, finish, turn,
};

/// What a test with Docker takes.
const DOCKER: [&str; 6] = ["dockerd", "docker", "docker-registry", "skopeo", "unshare", "nsenter"];

fn dockerd(config: &str) -> Dockerd {
    Dockerd::start(DockerdOptions { config: Some(config.into()), ..DockerdOptions::default() })
}

fn in_front_of(upstream: &str) -> SampanOptions<'_> {
    SampanOptions { upstream: upstream.into(), ..SampanOptions::default() }
}

/// The blobs of a cache folder are what they are named, every one.
fn assert_sound(cache: &Path) -> usize {
    let (wrong, count) = disk::wrong_blobs(cache);
    assert!(wrong.is_empty(), "these files under blobs/ are not what their names say: {wrong:?}");
    count
}

/// The cache holds an image, the whole image, and nothing else.
fn assert_holds_exactly(sampan: &Sampan, image: &Image) {
    let held: BTreeSet<String> = disk::held(&sampan.cache_dir()).into_keys().collect();
    let wanted: BTreeSet<String> = image.everything().map(|blob| blob.hex().to_owned()).collect();
    assert_eq!(held, wanted, "the other platform's manifest and layers were never asked for");
    assert_sound(&sampan.cache_dir());
}

/// A pull's record says: everything arrived, from there.
fn assert_record(pull: &Pull, image: &Image, source: LayerSource, fetched: u64, client: &str) {
    assert_eq!(
        (pull.image.as_str(), pull.reference.as_str()),
        (image.full_name().as_str(), "1"),
        "{pull:#?}"
    );
    assert_eq!(pull.state, PullState::Complete, "{pull:#?}");
    assert_eq!(pull.size_bytes, Some(image.blob_bytes()), "configuration and layers");
    assert_eq!(pull.done_bytes, image.blob_bytes(), "all of it arrived");
    assert_eq!(pull.fetched_bytes, fetched, "what crossed the link for this pull, manifests included");
    assert_eq!(pull.client, client, "by its User-Agent");
    let layers: Vec<_> =
        pull.layers.iter().map(|l| (l.digest.as_str(), l.size_bytes, l.done_bytes)).collect();
    let parts: Vec<_> = image.parts().map(|part| (part.digest.as_str(), part.size, part.size)).collect();
    assert_eq!(layers, parts, "configuration first, then the layers in their order");
    assert!(pull.layers.iter().all(|layer| layer.source == source), "all from {source:?}: {pull:#?}");
}

/// `skopeo copy` through Sampan into a folder; whether it succeeded.
fn copy(sampan: &Sampan, image: &Image, folder: &Path) -> bool {
    let mut skopeo = Program::new(bins::installed("skopeo").expect("the test asked for it"));
    skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
    skopeo.arg(format!("docker://{}/{}:{}", sampan.address(), image.repository, image.tag));
    let output = finish(skopeo.arg(format!("dir:{}", folder.display())));
    if !output.status.success() {
        eprintln!("skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// What `skopeo copy` wrote is the image, byte for byte.
fn assert_copied(image: &Image, folder: &Path) {
    for part in image.parts() {
        let bytes = std::fs::read(folder.join(part.hex())).expect("skopeo writes each part under its digest");
        assert_eq!(Digest::of(&bytes).to_string(), part.digest, "what arrived is what was asked for");
    }
}

#[tokio::test]
async fn real_docker_pulls_cold_and_again_without_the_upstream_and_all_numbers_agree() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let images = Images::prepare();
    let image = &images.big;
    assert!(image.layers.len() >= 6 && image.blob_bytes() >= 100_000_000, "an image worth the name");
    let mut registry = images.registry();
    let mut dockerd = dockerd("{\n  \"debug\": false\n}\n");
    let options = SampanOptions { upstream: registry.url(), dockerd: Some(&dockerd), beside: false };
    let sampan = Sampan::start(&options);

    // Sampan itself points Docker at itself, after the change was shown.
    let plan = sampan.plan(DockerAction::Enable).await.unwrap();
    let [file] = &plan.files[..] else { panic!("one file changes: {plan:#?}") };
    assert_eq!(Path::new(&file.path), dockerd.config_path(), "the file this dockerd was started with");
    let shown: Vec<_> = file.diff.iter().map(|line| (line.kind, line.text.as_str())).collect();
    let ours = format!("  \"registry-mirrors\": [\"http://{}\"]", sampan.address());
    let expected = [
        (DiffKind::Same, "{"),
        (DiffKind::Removed, "  \"debug\": false"),
        (DiffKind::Added, "  \"debug\": false,"),
        (DiffKind::Added, ours.as_str()),
        (DiffKind::Same, "}"),
    ];
    assert_eq!(shown, expected, "every line that changes, and those around it");
    let applied = sampan.apply(&plan).await.unwrap();
    assert!(applied.proof.as_ref().is_some_and(|proof| proof.arrived), "{applied:#?}");
    assert_eq!(dockerd.mirrors(), [sampan.mirror_url()], "dockerd itself says so");
    assert_eq!(registry.sent_bytes(), 0, "the proof is an image of Sampan's own");
    let before = sampan.snapshot().await;
    assert_eq!(before.today, Totals::default(), "and is not counted: nobody pulled anything yet");

    let cold = dockerd.pull(&image.short_name());
    assert_eq!(registry.settled_bytes(image.total_bytes()), image.total_bytes(), "exactly 1.0 x the image");
    assert_holds_exactly(&sampan, image);
    let after_cold = sampan.idle().await;
    dockerd.forget(&image.short_name());

    registry.stop();
    let warm = dockerd.pull(&image.short_name());
    assert!(dockerd.holds(&image.short_name()), "pulled with the upstream stopped");
    let after_warm = sampan.idle().await;
    assert_eq!(registry.sent_bytes(), image.total_bytes(), "not one byte more");

    // What was served is what dockerd asked for. Its content store may have kept either manifest of the cold pull,
    // each for itself: what it kept, it does not ask for again.
    let cold_served = after_cold.today.served_bytes - before.today.served_bytes;
    let warm_served = after_warm.today.served_bytes - after_cold.today.served_bytes;
    assert_eq!(cold_served, image.total_bytes(), "the cold pull");
    let asked_again = [0, image.index.size, image.manifest.size, image.manifest_bytes()];
    assert!(
        asked_again.map(|manifests| image.blob_bytes() + manifests).contains(&warm_served),
        "the warm pull: every layer again, each manifest only if dockerd let go of it: {warm_served}"
    );

    // The record of each pull.
    let history = sampan.history().await;
    let [second, first] = &history[..] else { panic!("two pulls: {history:#?}") };
    assert_record(first, image, LayerSource::Upstream, image.total_bytes(), "docker");
    assert_record(second, image, LayerSource::Disk, 0, "docker");
    assert!(!first.stale, "the registry answered for the tag");
    assert!(second.stale, "the tag could not be asked about, and the record says so");

    // Window, command line and disk say the same as the registry.
    let snapshot = sampan.snapshot().await;
    let savings = sampan.savings().await;
    let today = snapshot.today;
    assert_eq!(today.fetched_bytes, registry.sent_bytes(), "fetched is what the registry sent");
    assert_eq!(
        today.saved_bytes,
        i64::try_from(today.served_bytes).unwrap() - i64::try_from(today.fetched_bytes).unwrap(),
        "saved is what did not cross the link"
    );
    assert_eq!(today.failures, 0, "nothing failed: {today:#?}");
    assert_eq!(savings.total, today, "the page Savings and the page Now");
    assert_eq!(savings.days.last().unwrap().totals, today, "and the day's column");
    let [row] = &savings.images[..] else { panic!("one image was pulled: {savings:#?}") };
    assert_eq!((&row.image, row.totals), (&image.full_name(), today), "and the image's row");
    assert_eq!(today.served_bytes, cold_served + warm_served);
    let status: Snapshot = sampan.cli_json(&["status"]);
    assert_eq!((status.today, &status.cache.dir), (today, &snapshot.cache.dir), "`sampan status`");
    let listed: Vec<Held> = sampan.cli_json(&["images"]);
    let [held] = &listed[..] else { panic!("one image: {listed:#?}") };
    assert_eq!((&held.image, held.tag.as_deref()), (&image.full_name(), Some("1")));
    assert_eq!(held.digest, image.index.digest);
    assert_eq!(held.platforms.len(), 1, "only this machine's: {held:#?}");
    let sizes =
        [held.size_bytes, held.own_bytes, status.cache.size_bytes, disk::held_bytes(&sampan.cache_dir())];
    assert_eq!(sizes, [registry.sent_bytes(); 4], "what is held is what was fetched, once");
    assert_eq!(status.cache.blobs, image.everything().count() as u64);
    let hub = snapshot.mirror.upstreams.iter().find(|upstream| upstream.registry == "docker.io");
    assert_eq!(hub.and_then(|hub| hub.reachable), Some(false), "and the outage shows");
    assert!(dockerd.runs(), "the same dockerd all along");
    eprintln!(
        "cold {cold:.2?}, warm {warm:.2?}; upstream {} bytes = image {} bytes; served cold {cold_served}, warm \
         {warm_served}; today {today:?}",
        registry.sent_bytes(),
        image.total_bytes()
    );
}

#[tokio::test]
async fn real_skopeo_copies_cold_and_again_without_the_upstream() {
    let Some(_turn) = turn(&["skopeo", "docker-registry"]) else { return };
    let images = Images::prepare();
    let image = &images.big;
    let mut registry = images.registry();
    let url = registry.url();
    let sampan = Sampan::start(&in_front_of(&url));
    let (cold, warm) = (sampan.folder().join("cold"), sampan.folder().join("warm"));

    assert!(copy(&sampan, image, &cold));
    assert_copied(image, &cold);
    assert_eq!(registry.settled_bytes(image.total_bytes()), image.total_bytes(), "exactly 1.0 x the image");
    assert_holds_exactly(&sampan, image);
    sampan.idle().await;
    registry.stop();
    assert!(copy(&sampan, image, &warm), "with the upstream stopped");
    assert_copied(image, &warm);
    assert_eq!(registry.sent_bytes(), image.total_bytes(), "not one byte more");

    let snapshot = sampan.idle().await;
    let history = sampan.history().await;
    let [second, first] = &history[..] else { panic!("two pulls: {history:#?}") };
    assert_record(first, image, LayerSource::Upstream, image.total_bytes(), "skopeo");
    assert_record(second, image, LayerSource::Disk, 0, "skopeo");
    assert!(second.stale && !first.stale, "only the second could not ask about its tag");
    assert_eq!(snapshot.today.fetched_bytes, image.total_bytes());
    assert_eq!(
        snapshot.today.served_bytes,
        2 * image.total_bytes(),
        "skopeo keeps nothing, and asks for all"
    );
    assert_eq!(snapshot.today.saved_bytes, i64::try_from(image.total_bytes()).unwrap(), "one of two");
}

#[tokio::test]
async fn real_podman_pulls_cold_and_again_without_the_upstream() {
    let Some(_turn) = turn(&["podman", "skopeo", "docker-registry"]) else { return };
    let images = Images::prepare();
    let image = &images.big;
    let mut registry = images.registry();
    let url = registry.url();
    let sampan = Sampan::start(&in_front_of(&url));
    let config = sampan.folder().join("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        sampan.address()
    );
    std::fs::write(&config, text).unwrap();
    let podman = |arguments: &[&str]| {
        let mut podman = Program::new(bins::installed("podman").unwrap());
        podman.env("CONTAINERS_REGISTRIES_CONF", &config).env("HOME", sampan.folder());
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        podman.arg("--root").arg(sampan.folder().join("podman"));
        podman.arg("--runroot").arg(sampan.folder().join("podman-run"));
        podman.arg("--tmpdir").arg(sampan.folder().join("podman-tmp"));
        let output = finish(podman.args(arguments));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {}: {words}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let name = format!("{}:{}", image.full_name(), image.tag);

    podman(&["pull", "--quiet", &name]);
    assert_eq!(registry.settled_bytes(image.total_bytes()), image.total_bytes(), "exactly 1.0 x the image");
    assert_holds_exactly(&sampan, image);
    podman(&["rmi", "--force", &name]);
    assert_eq!(podman(&["images", "--quiet"]), "", "podman has nothing left");
    sampan.idle().await;
    registry.stop();
    podman(&["pull", "--quiet", &name]);
    assert_ne!(podman(&["images", "--quiet"]), "", "pulled with the upstream stopped");
    assert_eq!(registry.sent_bytes(), image.total_bytes(), "not one byte more");

    let snapshot = sampan.idle().await;
    let history = sampan.history().await;
    let [second, first] = &history[..] else { panic!("two pulls: {history:#?}") };
    // podman 4 names its library only, which it has in common with buildah; others name themselves.
    let client = first.client.as_str();
    assert!(["containers", "podman"].contains(&client), "{client:?}");
    assert_record(first, image, LayerSource::Upstream, image.total_bytes(), client);
    assert_record(second, image, LayerSource::Disk, 0, client);
    assert!(second.stale && !first.stale, "only the second could not ask about its tag");
    assert_eq!(snapshot.today.fetched_bytes, image.total_bytes());
}

#[tokio::test]
async fn real_docker_goes_to_its_next_mirror_at_once_when_sampan_is_dead() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let images = Images::prepare();
    let image = &images.small;
    // Docker Hub cannot be reached from here: a second mirror stands for whatever Docker asks after Sampan.
    let (registry, next) = (images.registry(), images.registry());
    let dockerd = dockerd(&format!("{{\"registry-mirrors\": [\"{}\"]}}\n", next.url()));
    let options = SampanOptions { upstream: registry.url(), dockerd: Some(&dockerd), beside: false };
    let mut sampan = Sampan::start(&options);
    let pull = || {
        let took = dockerd.pull(&image.short_name());
        dockerd.forget(&image.short_name());
        took
    };
    let fastest = || (0..3).map(|_| pull()).min().unwrap();

    let alone = fastest();
    sampan.set_up(DockerAction::Enable).await;
    assert_eq!(
        dockerd.mirrors(),
        [sampan.mirror_url(), format!("{}/", next.url())],
        "Sampan first, the other next"
    );
    let sent_by_next = next.sent_bytes();
    pull();
    assert_eq!(next.sent_bytes(), sent_by_next, "while Sampan lives the other is not asked");
    assert!(registry.settled_bytes(image.blob_bytes()) >= image.blob_bytes(), "Sampan is");
    let sent_to_sampan = registry.sent_bytes();

    sampan.kill();
    let with_dead_first = fastest();
    let every_layer_thrice = sent_by_next + 3 * image.blob_bytes();
    assert!(next.settled_bytes(every_layer_thrice) >= every_layer_thrice, "the pulls went to the next one");
    assert_eq!(registry.sent_bytes(), sent_to_sampan, "and none went anywhere else");
    let more = with_dead_first.saturating_sub(alone);
    assert!(more <= Duration::from_secs(1), "a dead Sampan costs {more:?}");
    eprintln!("next mirror alone {alone:.2?}, behind a dead Sampan {with_dead_first:.2?}");
}

#[tokio::test]
async fn real_docker_pulls_again_after_sampan_was_killed_in_the_middle_of_a_pull() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let images = Images::prepare();
    let image = &images.big;
    let registry = images.registry();
    // The full speed of loopback has no middle. Each connection has this speed for itself.
    let link = Relay::to(registry.port(), 1_500_000);
    let dockerd = dockerd("{}\n");
    let options = SampanOptions { upstream: link.url(), dockerd: Some(&dockerd), beside: false };
    let mut sampan = Sampan::start(&options);
    sampan.set_up(DockerAction::Enable).await;

    let folder = sampan_tests::scratch();
    let begun = Instant::now();
    let mut pull =
        Process::start("pull", folder.path(), &mut dockerd.command(&["pull", &image.short_name()]));
    let middle = |snapshot: &Snapshot| snapshot.pulls.iter().any(|pull| pull.done_bytes > 30_000_000);
    let seen = sampan.watch_for("the middle of the pull", Duration::from_mins(1), middle).await;
    sampan.kill();
    assert!(
        pull.has_ended().is_none(),
        "it was in the middle, {:?} after its beginning: {seen:#?}",
        begun.elapsed()
    );
    let held = disk::held(&sampan.cache_dir());
    let count = assert_sound(&sampan.cache_dir());
    assert!(count < image.everything().count(), "not everything was there yet: {count} blobs");
    // As a person would: Ctrl-C, and once more.
    pull.stop();

    sampan.restart();
    let snapshot = sampan.snapshot().await;
    let half_done = snapshot.cache.partial_bytes;
    assert!(half_done > 0, "what was half done is there to go on with");
    assert_eq!(snapshot.cache.blobs, held.len() as u64, "what was whole is still there");
    link.set_speed(u64::MAX);
    dockerd.pull(&image.short_name());
    assert!(dockerd.holds(&image.short_name()), "the next pull succeeds");
    assert_holds_exactly(&sampan, image);

    sampan.idle().await;
    let history = sampan.history().await;
    let [second, first] = &history[..] else { panic!("two pulls: {history:#?}") };
    assert_eq!(first.state, PullState::Interrupted, "the record of the killed one is not lost: {first:#?}");
    assert_eq!((second.state, second.done_bytes), (PullState::Complete, image.blob_bytes()), "{second:#?}");
    for layer in &second.layers {
        let hex = layer.digest.trim_start_matches("sha256:");
        let wanted = if held.contains_key(hex) { LayerSource::Disk } else { LayerSource::Upstream };
        assert_eq!(layer.source, wanted, "what was held at the kill is not fetched again: {}", layer.digest);
    }
    let missing: u64 = image.everything().filter(|b| !held.contains_key(b.hex())).map(|blob| blob.size).sum();
    assert_eq!(second.fetched_bytes, missing - half_done, "and only what was missing is, once");
    assert_eq!(sampan.snapshot().await.cache.partial_bytes, 0, "nothing half done is left lying about");
    eprintln!(
        "killed with {} and {half_done} of {} bytes held, {count} blobs whole; the next pull fetched {}",
        held.values().sum::<u64>(),
        image.total_bytes(),
        second.fetched_bytes
    );
}

#[tokio::test]
async fn real_clearing_frees_what_its_dry_run_said_and_nothing_that_others_use() {
    let Some(_turn) = turn(&["skopeo", "docker-registry", "du"]) else { return };
    let images = Images::prepare();
    let (big, small) = (&images.big, &images.small);
    let mut registry = images.registry();
    let url = registry.url();
    let sampan = Sampan::start(&in_front_of(&url));
    let cache = sampan.cache_dir();
    let copy = |image: &Image| copy(&sampan, image, sampan_tests::scratch().path());
    assert!(copy(big) && copy(small), "both are pulled");
    registry.stop();
    let shared = &big.layers[0];
    assert_eq!(*shared, small.layers[0], "one layer is in both");
    let both = big.total_bytes() + small.total_bytes() - shared.size;
    assert_eq!((disk::held_bytes(&cache), disk::du_bytes(&cache)), (both, both), "it is held once");

    let listed: Vec<Held> = sampan.cli_json(&["images"]);
    let own: Vec<_> = listed.iter().map(|held| (held.size_bytes, held.own_bytes)).collect();
    let expected = [big, small].map(|image| (image.total_bytes(), image.total_bytes() - shared.size));
    assert_eq!(own, expected, "each row says what the image takes, and what deleting it frees");

    let before = disk::held(&cache);
    let name = big.short_name();
    let would: ClearReport = sampan.cli_json(&["clear", &name, "--dry-run"]);
    assert_eq!(disk::held(&cache), before, "looking removes nothing");
    let refused = sampan.cli(&["clear", &name]);
    assert_eq!(refused.status.code(), Some(2), "without a person to ask it does not clear");
    assert_eq!(disk::held(&cache), before, "and removes nothing");
    let did: ClearReport = sampan.cli_json(&["clear", &name, "--now", "--yes"]);
    assert_eq!(did, would, "it does what it said");
    assert_eq!(did.freed_bytes, big.total_bytes() - shared.size, "everything but the shared layer");
    assert_eq!(did.blobs, big.everything().count() as u64 - 1, "everything but the shared layer");
    assert_eq!(disk::du_bytes(&cache), both - did.freed_bytes, "du agrees");
    assert_holds_exactly(&sampan, small);
    assert_eq!(sampan.snapshot().await.cache.size_bytes, small.total_bytes(), "the window agrees");
    assert!(copy(small), "the other image is still whole, with the upstream stopped");
    assert!(!copy(big), "what was cleared is gone");

    let totals = sampan.snapshot().await.today;
    let would: ClearReport = sampan.cli_json(&["clear", "--all", "--dry-run"]);
    let did: ClearReport = sampan.cli_json(&["clear", "--all", "--yes"]);
    assert_eq!(did, would, "it does what it said");
    assert_eq!(did.freed_bytes, small.total_bytes());
    assert_eq!(disk::held(&cache).len(), 0, "nothing is left");
    assert_eq!(sampan.snapshot().await.today, totals, "clearing the cache keeps what was saved");
}

#[tokio::test]
async fn real_blobs_damaged_on_disk_are_never_served_and_fetched_again() {
    let Some(_turn) = turn(&["skopeo", "docker-registry"]) else { return };
    let images = Images::prepare();
    let image = &images.small;
    let mut registry = images.registry();
    let url = registry.url();
    let mut sampan = Sampan::start(&in_front_of(&url));
    let folder = sampan_tests::scratch();
    let into = |name: &str| folder.path().join(name);
    assert!(copy(&sampan, image, &into("first")));
    sampan.stop();
    // What a failing disk does while nobody looks.
    let layer = &image.layers[1];
    let file = sampan.cache_dir().join("blobs/sha256").join(layer.hex());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(disk::wrong_blobs(&sampan.cache_dir()).0, [layer.hex()], "one bit is wrong");

    registry.stop();
    sampan.restart();
    assert!(!copy(&sampan, image, &into("offline")), "no image is better than a wrong one");
    let served = std::fs::read(into("offline").join(layer.hex())).unwrap_or_default();
    assert!(served.is_empty(), "not one of its bytes was served: {}", served.len());
    registry.resume();
    assert!(copy(&sampan, image, &into("again")), "with the upstream back it is fetched again");
    assert_copied(image, &into("again"));
    let twice = image.total_bytes() + layer.size;
    assert_eq!(registry.settled_bytes(twice), twice, "that layer, and nothing else");
    assert_holds_exactly(&sampan, image);
}
