//! Many registries behind one mirror, and never any other: whatever a request calls a registry, nobody is asked but those
//! that were configured (SECURITY.md R10, R27).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use common::{Options, TestMirror, body};
use sampan_testkit::{FakeRegistry, ImageSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A mirror of docker.io, ghcr.io and one registry of this machine.
async fn three() -> ([FakeRegistry; 3], TestMirror) {
    let [hub, ghcr, local] =
        [FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await];
    let also = vec![("ghcr.io", ghcr.url()), ("localhost:5000", local.url())];
    let mirror = TestMirror::with(&hub, Options { also, ..Options::default() }).await;
    ([hub, ghcr, local], mirror)
}

/// The status of a GET for exactly this target; 0 where the connection is just closed. Clients tidy up targets: this does not.
async fn status(mirror: &TestMirror, target: &str) -> u16 {
    let address = mirror.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer);
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn the_same_name_at_another_registry_is_another_image() {
    let (registries, mirror) = three().await;
    let images: Vec<_> = (1..)
        .zip(&registries)
        .map(|(seed, registry)| registry.publish_image("team/app:1", &ImageSpec::new(seed, &[1000])))
        .collect();
    for (path, which, name) in [
        ("/v2/team/app/manifests/1", 0, "docker.io"),
        ("/v2/team/app/manifests/1?ns=docker.io", 0, "docker.io"),
        ("/v2/team/app/manifests/1?ns=registry-1.docker.io", 0, "docker.io"),
        ("/v2/docker.io/team/app/manifests/1", 0, "docker.io"),
        ("/docker.io/v2/team/app/manifests/1", 0, "docker.io"),
        ("/v2/team/app/manifests/1?ns=ghcr.io", 1, "ghcr.io"),
        ("/v2/ghcr.io/team/app/manifests/1", 1, "ghcr.io"),
        ("/ghcr.io/v2/team/app/manifests/1", 1, "ghcr.io"),
        ("/v2/ghcr.io/team/app/manifests/1?ns=ghcr.io", 1, "ghcr.io"),
        ("/v2/team/app/manifests/1?ns=localhost:5000", 2, "localhost:5000"),
        ("/v2/team/app/manifests/1?ns=localhost%3A5000", 2, "localhost:5000"),
        ("/v2/localhost:5000/team/app/manifests/1", 2, "localhost:5000"),
        ("/localhost:5000/v2/team/app/manifests/1", 2, "localhost:5000"),
    ] {
        for registry in &registries {
            registry.forget();
        }
        let answer = mirror.get(path).await;
        assert_eq!(answer.headers()["oci-namespace"], name, "{path}");
        assert_eq!(body(answer).await.unwrap(), images[which].bytes, "{path}");
        for (nth, registry) in registries.iter().enumerate() {
            assert_eq!(!registry.log().is_empty(), nth == which, "{path}: who was asked");
        }
    }
    // A layer that one registry shows is not shown under another one's name.
    let layer = images[1].layers()[0].digest;
    assert_eq!(mirror.get(&format!("/v2/team/app/blobs/{layer}?ns=ghcr.io")).await.status(), 200);
    assert_eq!(mirror.get(&format!("/v2/team/app/blobs/{layer}")).await.status(), 404);
    for disagreeing in [
        "/v2/ghcr.io/team/app/manifests/1?ns=docker.io",
        "/ghcr.io/v2/team/app/manifests/1?ns=docker.io",
        "/v2/localhost:5000/team/app/manifests/1?ns=ghcr.io",
        "/v2/team/app/manifests/1?ns=docker.io&ns=docker.io",
    ] {
        assert_eq!(mirror.get(disagreeing).await.status(), 400, "{disagreeing}");
    }
}

#[tokio::test]
async fn whatever_a_request_calls_a_registry_nobody_else_is_asked() {
    let (registries, mirror) = three().await;
    let long = format!("{}.test", "a".repeat(300));
    let hostile = [
        "127.0.0.1",
        "127.0.0.1:80",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0.0.0.0",
        "[::1]",
        "[::1]:80",
        "[::ffff:7f00:1]",
        "::1",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1:5000",
        "localhost",
        "localhost:5001",
        "localhost:05000",
        "localhost:5000:5000",
        "localhost.",
        "host.docker.internal",
        "metadata.google.internal",
        "evil.test",
        "evil.test:443",
        "ghcr.io.",
        "ghcr.io..",
        ".ghcr.io",
        "ghcr..io",
        "ghcr.io:443",
        "ghcr.io:80",
        "ghcr.io:",
        "ghcr.io:0",
        "ghcr.io:99999",
        "ghcr.io.evil.test",
        "evil-ghcr.io",
        "GHCR.IO",
        "Ghcr.io",
        "docker.io.",
        "docker.io:443",
        "DOCKER.IO",
        "xn--ghcr-qoa.io",
        "gh\u{441}r.io",
        "ghcr.io@evil.test",
        "evil.test@ghcr.io",
        "me:secret@ghcr.io",
        "ghcr.io#evil.test",
        "ghcr.io%23",
        "ghcr.io%00",
        "ghcr.io%0a",
        "ghcr.io%20",
        "%67hcr.io",
        "ghcr.io%2f..",
        "ghcr.io\\",
        "ghcr.io\\..",
        "ghcr.io/..",
        "ghcr.io/../evil.test",
        "..",
        "../ghcr.io",
        "%2e%2e",
        ".",
        "-ghcr.io",
        "_dmarc.ghcr.io",
        "http://ghcr.io",
        "https://evil.test",
        "//evil.test",
        "file:///etc/passwd",
        "ghcr.io,docker.io",
        "*",
        "*.io",
        long.as_str(),
    ];
    for name in hostile {
        let mut targets = vec![format!("/{name}/v2/team/app/manifests/1"), format!("/{name}/v2/")];
        // Encoding a query is a matter of form, and a fragment no part of it: what it says counts, and that is ghcr.io.
        // Everywhere else nothing is decoded at all.
        if name != "%67hcr.io" && !name.contains('#') {
            targets.push(format!("/v2/team/app/manifests/1?ns={name}"));
            targets.push(format!("/v2/team/app/tags/list?n=1&ns={name}"));
        }
        // Without a dot or a port it is the beginning of a repository of Docker Hub.
        if name.contains(['.', ':', '%', '\\']) || name == "localhost" {
            targets.push(format!("/v2/{name}/team/app/manifests/1"));
        }
        for target in targets {
            let status = status(&mirror, &target).await;
            // `/<anything>/v2/` is the question whether this is a registry, and is answered without asking anybody.
            let pinged = target.ends_with("/v2/") && status == 200;
            assert!((400..500).contains(&status) || status == 0 || pinged, "{target}: {status}");
            for registry in &registries {
                assert!(registry.log().is_empty(), "{target}: {:?}", registry.log());
            }
        }
    }
    for absolute in ["http://ghcr.io/v2/team/app/manifests/1", "https://evil.test/v2/", "evil.test:443"] {
        assert!((400..500).contains(&status(&mirror, absolute).await), "{absolute}");
    }
    for registry in &registries {
        assert!(registry.log().is_empty(), "{:?}", registry.log());
    }
    assert_eq!(mirror.published(), 0);
}
