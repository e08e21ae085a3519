//! Fetching ahead with real programs: docker-registry behind a slow link, Sampan killed in the middle, its own command
//! line, and skopeo and dockerd that pull when the registry is gone.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use sampan_app::api::{OfflineImage, OfflinePart, OfflineProblem, PrefetchJobState};
use sampan_tests::{
    Dockerd, DockerdOptions, Images, Relay, Sampan, SampanOptions, bins, finish, scratch, turn,
};

const SLOW: u64 = 1_500_000;
const FAST: u64 = 500_000_000;

/// Pulls by skopeo, as any client of a registry would.
fn skopeo(sampan: &Sampan, name: &str, to: &Path) -> Output {
    let mut skopeo = Command::new(bins::installed("skopeo").expect("the test asked for it"));
    skopeo.args(["copy", "--src-tls-verify=false", "--insecure-policy"]);
    skopeo.arg(format!("docker://{}/{name}", sampan.address())).arg(format!("dir:{}", to.display()));
    finish(&mut skopeo)
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn real_prefetch_goes_on_after_a_kill_and_what_verifies_offline_is_pulled_without_the_registry() {
    let Some(_turn) = turn(&["docker-registry", "skopeo", "dockerd"]) else { return };
    let images = Images::prepare();
    let (image, mut registry) = (&images.big, images.registry());
    let link = Relay::to(registry.port(), SLOW);
    let mut sampan = Sampan::start(&SampanOptions { upstream: link.url(), ..SampanOptions::default() });
    let folder = scratch();
    let compose = folder.path().join("compose.yaml");
    let text = format!("services:\n  app:\n    image: ${{IMAGE:-{}}}\n", image.short_name());
    std::fs::write(&compose, text).expect("a temporary folder can be written to");
    let compose = compose.display().to_string();
    let added = sampan.cli(&["pull", "--file", &compose, "--background"]);
    assert!(added.status.success(), "{}", words(&added));

    // Killed three times on the way; each run begins with what the last one left.
    for part in 1..=3 {
        let enough = image.blob_bytes() * part / 5;
        sampan
            .watch_for("some of it", Duration::from_mins(2), |snapshot| {
                snapshot.prefetch.jobs.iter().any(|job| job.held_bytes > enough)
            })
            .await;
        sampan.kill();
        sampan.restart();
    }
    link.set_speed(FAST);
    let ended = |snapshot: &sampan_app::api::Snapshot| {
        snapshot.prefetch.jobs.iter().all(|job| job.state == PrefetchJobState::Done)
    };
    sampan.watch_for("its end", Duration::from_mins(2), ended).await;
    // What the relay and the sockets held when the kills came is lost, and counted by the registry as sent; what was
    // written was synced at most three seconds before.
    let sent = registry.settled_bytes(image.total_bytes());
    let lost = sent.saturating_sub(image.total_bytes());
    assert!(lost < image.total_bytes() / 2, "{lost} bytes of {} came twice", image.total_bytes());
    eprintln!("the image has {} bytes, the registry sent {sent}, after three kills", image.total_bytes());

    let before = registry.sent_bytes();
    let again = sampan.cli(&["pull", &image.short_name()]);
    assert!(again.status.success() && words(&again).contains("1 image is in the cache"), "{}", words(&again));
    assert_eq!(registry.sent_bytes(), before, "nothing of it is fetched again");

    registry.stop();
    let verified: Vec<OfflineImage> = sampan.cli_json(&["verify-offline", "--file", &compose]);
    assert!(verified[0].holds && verified[0].hashed_bytes == image.total_bytes(), "{verified:#?}");
    let name = format!("{}:{}", image.repository, image.tag);
    let pulled = skopeo(&sampan, &name, &folder.path().join("pulled"));
    assert!(pulled.status.success(), "{}", words(&pulled));
    let config = format!("{{\"registry-mirrors\": [\"{}\"]}}\n", sampan.mirror_url());
    let dockerd = Dockerd::start(DockerdOptions { config: Some(config), ..DockerdOptions::default() });
    dockerd.pull(&image.short_name());
    assert!(dockerd.holds(&image.short_name()));

    // Without one of its layers neither holds.
    let layer = &image.layers[3];
    std::fs::remove_file(sampan.cache_dir().join("blobs/sha256").join(layer.hex())).expect("it is there");
    let refused = sampan.cli(&["verify-offline", &image.short_name(), "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    let found: Vec<OfflineImage> = serde_json::from_slice(&refused.stdout).expect("one JSON document");
    let bad: Vec<_> = found[0].checks.iter().filter(|check| check.problem.is_some()).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!((bad[0].what, bad[0].problem), (OfflinePart::Layer, Some(OfflineProblem::Missing)));
    assert_eq!(bad[0].name, layer.digest);
    let text = words(&sampan.cli(&["verify-offline", &image.short_name()]));
    assert!(text.contains('✗') && text.contains("sampan pull docker.io/"), "{text}");
    // A registry that sent something a moment ago is waited for, long; one that this run never heard of is not.
    sampan.stop();
    sampan.restart();
    let failed = skopeo(&sampan, &name, &folder.path().join("failed"));
    assert!(!failed.status.success(), "{}", words(&failed));
    registry.resume();
    let mended = sampan.cli(&["pull", &image.short_name()]);
    assert!(mended.status.success(), "{}", words(&mended));
    let held = sampan.cli(&["verify-offline", &image.short_name()]);
    assert!(held.status.success(), "{}", words(&held));
}
