//! What a client gets when the request is bad or the upstream lies: an error it can fall back from, never wrong bytes.
#![allow(missing_docs, reason = "tests are named as sentences")]

mod common;

use common::{TestMirror, body};
use sampan_oci::Digest;
use sampan_testkit::{FakeRegistry, Fault, ImageSpec, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MANIFEST: &str = "/v2/library/alpine/manifests/3.20";

#[tokio::test]
async fn bad_requests_get_the_specs_error_and_touch_nothing() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    let name = |code: &str| code.to_owned();
    for (path, status, code) in [
        ("/v2/Library/alpine/manifests/3.20", 400, name("NAME_INVALID")),
        ("/v2/library/alpine/manifests/.bad", 400, name("MANIFEST_INVALID")),
        ("/v2/library/alpine/manifests/sha256:totallywrong", 400, name("DIGEST_INVALID")),
        ("/v2/library/alpine/blobs/sha256:totallywrong", 400, name("DIGEST_INVALID")),
        ("/v2/evil.test/x/manifests/1", 404, name("NAME_UNKNOWN")),
        ("/v2/library/alpine/manifests/1?ns=169.254.169.254", 404, name("NAME_UNKNOWN")),
        ("/v2/_catalog", 404, name("UNSUPPORTED")),
        ("/metrics", 404, name("UNSUPPORTED")),
        ("/v2/library/alpine/tags/list?n=-1", 400, name("UNSUPPORTED")),
    ] {
        let answer = mirror.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/json", "{path}");
        let json: serde_json::Value = serde_json::from_slice(&body(answer).await.unwrap()).unwrap();
        assert_eq!(json["errors"][0]["code"], code, "{path}");
        assert!(json["errors"][0]["message"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
    }
    assert_eq!(upstream.log().len(), 0, "no such request reaches the upstream");
    assert_eq!(mirror.published(), 0);
}

#[tokio::test]
async fn only_get_and_head_exist() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer =
            mirror.client.request(method.clone(), format!("{}{MANIFEST}", mirror.url)).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.headers()["allow"], "GET, HEAD");
    }
    let posted = mirror.client.get(format!("{}{MANIFEST}", mirror.url)).body("x").send().await.unwrap();
    assert_eq!(posted.status(), 400, "a GET with a body is how requests are smuggled");
    assert_eq!(upstream.log().len(), 0);
}

#[tokio::test]
async fn a_web_page_cannot_use_the_mirror() {
    let upstream = FakeRegistry::start().await;
    upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    for (header, value) in
        [("Origin", "http://evil.test"), ("Sec-Fetch-Site", "cross-site"), ("Host", "evil.test:80")]
    {
        let request = mirror.client.get(format!("{}{MANIFEST}", mirror.url)).header(header, value);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{header}: {value}");
        assert!(!answer.headers().keys().any(|name| name.as_str().starts_with("access-control")));
    }
    assert_eq!(upstream.log().len(), 0);
}

#[tokio::test]
async fn an_upstream_that_cannot_or_will_not_answer_is_told_in_a_status_engines_fall_back_from() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(3, &[5_000_000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    let cold = "/v2/library/alpine/manifests/cold".to_owned();
    let blob = format!("/v2/library/alpine/blobs/{}", image.layers()[0].digest);
    for (fault, status) in [
        (Fault::RefuseConnection, 503),
        (Fault::Status(401), 404),
        (Fault::Status(403), 404),
        (Fault::Status(404), 404),
        (Fault::Status(500), 503),
        (Fault::Status(503), 503),
        (Fault::RedirectLoop, 502),
        // The last: nobody is asked for a minute after it.
        (Fault::TooManyRequests { retry_after: Some(60) }, 503),
    ] {
        upstream.fails_with(fault.clone());
        for path in [&cold, &blob] {
            let answer = mirror.get(path).await;
            assert_eq!(answer.status(), status, "{fault:?} at {path}");
            assert!(!answer.headers().contains_key("www-authenticate"), "{fault:?} at {path}");
        }
        upstream.heals();
    }
    assert_eq!(mirror.published(), 1, "only the one good manifest is kept");
}

#[tokio::test]
async fn a_lying_upstream_is_never_believed_about_a_blob() {
    let upstream = FakeRegistry::start().await;
    // One is verified whole before its first byte, the other streams with its tail held back.
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(4, &[50_000, 5_000_000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    for layer in image.layers() {
        for fault in [
            Fault::CorruptByte(0),
            Fault::CorruptByte(layer.size() - 1),
            Fault::ShortBody,
            Fault::LongBody,
            Fault::EndlessBody,
            Fault::Html,
            Fault::ContentEncoding,
        ] {
            upstream.fails_on(Kind::Blob, fault.clone());
            let answer = mirror.get(&format!("/v2/library/alpine/blobs/{}", layer.digest)).await;
            let refused = answer.status().as_u16() >= 500;
            let cut = body(answer).await.is_none();
            assert!(refused || cut, "{fault:?} of {} bytes was served as if it were right", layer.size());
            assert!(!mirror.file(&layer.digest).exists(), "{fault:?} left something behind");
            upstream.heals();
        }
        let healed = mirror.get(&format!("/v2/library/alpine/blobs/{}", layer.digest)).await;
        assert_eq!(body(healed).await.unwrap(), layer.bytes, "once the upstream is honest, all is well");
    }
}

#[tokio::test]
async fn a_part_of_a_wrong_blob_is_never_completed_either() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(8, &[6_000_000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    let path = format!("/v2/library/alpine/blobs/{}", image.layers()[0].digest);
    upstream.fails_on(Kind::Blob, Fault::CorruptByte(100));
    for paused in [false, true] {
        mirror.mirror.set_paused(paused);
        for range in ["bytes=0-1048575", "bytes=50-150", "bytes=0-0"] {
            let part = mirror.range(&path, range).await;
            assert_eq!(
                body(part).await,
                None,
                "{range}, paused: {paused}: nobody knew yet that it was right"
            );
        }
    }
    mirror.mirror.set_paused(false);
    upstream.heals();
    let part = mirror.range(&path, "bytes=50-150").await;
    assert_eq!(body(part).await.unwrap(), image.layers()[0].bytes[50..=150]);
}

#[tokio::test]
async fn an_upstream_that_says_nothing_about_a_cold_tag_costs_less_than_a_clients_patience() {
    let upstream = FakeRegistry::start().await;
    upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    upstream.fails_with(Fault::StallBeforeHeaders);
    let began = std::time::Instant::now();
    assert_eq!(mirror.get(MANIFEST).await.status(), 503);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(25),
        "containerd gives a mirror 30 s: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_wrong_size_in_one_manifest_does_not_cost_other_images_their_blob() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let layer = &image.layers()[0];
    let mirror = TestMirror::in_front_of(&upstream).await;
    let good = format!("/v2/library/alpine/blobs/{}", layer.digest);
    body(mirror.get(MANIFEST).await).await.unwrap();
    body(mirror.get(&good).await).await.unwrap();
    let config = image.config();
    let lying = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{}","size":{}}},"layers":[{{"mediaType":"y","digest":"{}","size":7}}]}}"#,
        config.digest,
        config.size(),
        layer.digest
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    upstream.publish_manifest("library/lying", "1", lying, media_type);
    assert_eq!(mirror.get("/v2/library/lying/manifests/1").await.status(), 200);
    let asked = mirror.get(&format!("/v2/library/lying/blobs/{}", layer.digest)).await;
    assert!(body(asked).await.unwrap() == layer.bytes, "the bytes are right, the manifest is not");
    assert!(mirror.file(&layer.digest).exists());
    assert_eq!(common::asked(&upstream, &layer.digest, layer.size()), Some(1));
}

#[tokio::test]
async fn a_dead_link_costs_no_client_its_patience() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let options =
        common::Options { revalidate_timeout: std::time::Duration::from_millis(200), ..Default::default() };
    let mirror = TestMirror::with(&upstream, options).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    upstream.fails_with(Fault::StallBeforeHeaders);
    let began = std::time::Instant::now();
    assert_eq!(mirror.get(MANIFEST).await.status(), 200);
    let referrers = mirror.get(&format!("/v2/library/alpine/referrers/{}", image.digest)).await;
    assert_eq!(
        referrers.status(),
        200,
        "containerd asks after the last layer; its pull hangs on this answer"
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_lying_upstream_is_never_believed_about_a_manifest() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish("library/alpine:3.20");
    let mirror = TestMirror::in_front_of(&upstream).await;
    let by_digest = format!("/v2/library/alpine/manifests/{}", image.digest);
    for (path, fault) in [
        (MANIFEST, Fault::WrongDigestHeader),
        (MANIFEST, Fault::Html),
        (MANIFEST, Fault::EndlessBody),
        (MANIFEST, Fault::ContentEncoding),
        (&by_digest, Fault::CorruptByte(5)),
        (&by_digest, Fault::Html),
        (&by_digest, Fault::ShortBody),
    ] {
        upstream.fails_with(fault.clone());
        let answer = mirror.get(path).await;
        assert_eq!(answer.status(), 502, "{fault:?} at {path}");
        assert_eq!(mirror.published(), 0, "{fault:?} left something behind");
        upstream.heals();
    }
    let both = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{0}","size":1}},"layers":[],"manifests":[]}}"#,
        Digest::of(b"x")
    );
    upstream.publish_manifest("library/alpine", "both", both, "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(mirror.get("/v2/library/alpine/manifests/both").await.status(), 502, "readable as two things");
}

#[tokio::test]
async fn a_broken_answer_ends_with_fin_and_without_its_last_bytes() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(5, &[5_000_000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    upstream.fails_on(Kind::Blob, Fault::CorruptByte(100));
    let address = mirror.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /v2/library/alpine/blobs/{} HTTP/1.1\r\nHost: {address}\r\n\r\n",
        image.layers()[0].digest
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received).await;
    assert!(ended.is_ok(), "containerd resumes after FIN and gives up after RST: {ended:?}");
    let head = received.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let missing = 5_000_000 - (received.len() - head);
    assert!(missing >= 64 * 1024, "{missing} bytes were held back");
}

#[tokio::test]
async fn heads_that_never_end_and_heads_too_large_are_closed() {
    let upstream = FakeRegistry::start().await;
    let mirror = TestMirror::in_front_of(&upstream).await;
    let address = mirror.url.strip_prefix("http://").unwrap();
    let long = format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\n{}\r\n", "X: y\r\n".repeat(100));
    for head in [long, many] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // The other side may close before everything is written: that is the point.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        assert!(
            !received.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&received[..received.len().min(60)])
        );
    }
}

#[tokio::test]
async fn nothing_is_left_running_after_a_stop() {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(6, &[5_000_000]));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get(MANIFEST).await).await.unwrap();
    upstream.fails_on(Kind::Blob, Fault::StallAfter(1_000_000));
    let mut answer = mirror.get(&format!("/v2/library/alpine/blobs/{}", image.layers()[0].digest)).await;
    answer.chunk().await.unwrap();
    assert_eq!(mirror.stop().await, 0, "every task ends");
    let rest = async {
        while answer.chunk().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    assert!(rest.await.is_err(), "the client hears that it did not get everything");
}
