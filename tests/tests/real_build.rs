//! A real BuildKit, the one inside dockerd, builds from an image that it gets through Sampan. It resolves and fetches by
//! code of its own (containerd's, with `ns=`), not by that of `docker pull`. It is asked over Docker's API, as
//! `docker build` does: the command itself needs a plugin for it that Debian does not have. The BuildKit of Docker 20.10 reads
//! the list of mirrors when dockerd starts, and no reload reaches it.

#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use sampan_app::api::DockerAction;
use sampan_tests::{Dockerd, DockerdOptions, Images, Sampan, SampanOptions, disk, turn};

const DOCKER: [&str; 6] = ["dockerd", "docker", "docker-registry", "skopeo", "unshare", "nsenter"];

/// A build by BuildKit of a Dockerfile alone; everything the engine says of it.
fn build(dockerd: &Dockerd, dockerfile: &str, tag: &str) -> String {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "Dockerfile", dockerfile.as_bytes())
        .expect("the test's own folder and socket can be used");
    let context = builder.into_inner().expect("the test's own folder and socket can be used");
    let mut stream = UnixStream::connect(dockerd.endpoint().trim_start_matches("unix://"))
        .expect("the test's own folder and socket can be used");
    // Version 2 is BuildKit, since 18.09.
    let head = format!(
        "POST /v1.41/build?version=2&t={tag} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        context.len()
    );
    stream.write_all(head.as_bytes()).expect("the test's own folder and socket can be used");
    stream.write_all(&context).expect("the test's own folder and socket can be used");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("the test's own folder and socket can be used");
    said
}

#[tokio::test]
async fn real_buildkit_builds_through_sampan_cold_and_again_without_the_upstream() {
    let Some(_turn) = turn(&DOCKER) else { return };
    let images = Images::prepare();
    let image = &images.small;
    let mut registry = images.registry();
    let mut dockerd =
        Dockerd::start(DockerdOptions { config: Some("{}\n".into()), ..DockerdOptions::default() });
    let options = SampanOptions { upstream: registry.url(), dockerd: Some(&dockerd), beside: false };
    let sampan = Sampan::start(&options);
    let plan = sampan.plan(DockerAction::Enable).await.expect("this Docker can be set up");
    let said = plan.notes.join(" ");
    assert!(said.contains("when Docker next starts"), "a reload does not reach this BuildKit: {said}");
    sampan.apply(&plan).await.expect("what was shown can be done");
    dockerd.stop();
    dockerd.start_again();
    while !dockerd.is_ready().expect("it starts") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    let dockerfile = format!("FROM {}\nLABEL built=by-buildkit\n", image.short_name());
    let said = build(&dockerd, &dockerfile, "built:cold");
    assert!(!said.contains("\"error\""), "{said}");
    assert!(said.contains("moby.buildkit.trace"), "it is BuildKit that builds: {said}");
    let label = ["inspect", "--format", "{{index .Config.Labels \"built\"}}"];
    assert_eq!(dockerd.must(&[&label[..], &["built:cold"]].concat()), "by-buildkit");
    let layers = dockerd.must(&["inspect", "--format", "{{len .RootFS.Layers}}", "built:cold"]);
    assert_eq!(layers, image.layers.len().to_string(), "on every layer of that image");
    assert!(registry.settled_bytes(image.blob_bytes()) >= image.blob_bytes(), "through Sampan, from there");
    let (sent, held) = (registry.sent_bytes(), disk::held(&sampan.cache_dir()));
    assert!(image.parts().all(|blob| held.contains_key(blob.hex())), "and it is kept: {held:?}");

    registry.stop();
    dockerd.must(&["rmi", "--force", "built:cold"]);
    dockerd.must(&["builder", "prune", "--all", "--force"]);
    let said = build(&dockerd, &dockerfile, "built:warm");
    assert!(!said.contains("\"error\""), "{said}");
    assert_eq!(
        dockerd.must(&[&label[..], &["built:warm"]].concat()),
        "by-buildkit",
        "with the upstream stopped"
    );
    assert_eq!(registry.sent_bytes(), sent, "not one byte more");
}
