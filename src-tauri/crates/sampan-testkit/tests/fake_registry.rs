//! The fake registry seen from a bare socket: its lies are told exactly as ordered, and its counts are true.

use std::io::ErrorKind;
use std::time::Duration;

use sampan_oci::{Digest, Manifest, MediaType};
use sampan_testkit::{
    FakeHub, FakeRegistry, Fault, ImageSpec, IndexSpec, Kind, RateLimit, TokenRule, random_bytes,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, pause, resume};

/// Sends one request and reads to the connection's end: head, body, and how it ended.
async fn request(
    fake: &FakeRegistry,
    line: &str,
    headers: &str,
) -> std::io::Result<(String, Vec<u8>, Option<ErrorKind>)> {
    let mut stream = TcpStream::connect(fake.address()).await?;
    stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    let mut end = None;
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                end = Some(error.kind());
                break;
            }
        }
        if whole(&bytes) {
            break;
        }
    }
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let body = bytes.split_off(at);
    Ok((String::from_utf8_lossy(&bytes).into_owned(), body, end))
}

/// Whether a kept-alive answer is complete.
fn whole(bytes: &[u8]) -> bool {
    let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..at]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| bytes.len() >= at + 4 + length)
}

#[tokio::test]
async fn images_are_the_same_in_every_run() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("library/alpine:3.20");
    let again = FakeRegistry::start().await.publish("library/alpine:3.20");
    assert_eq!(image, again);
    assert_ne!(image.digest, fake.publish("library/alpine:3.21").digest, "another name, other content");
    let manifest = Manifest::parse(&image.bytes, None, None).unwrap();
    assert_eq!(manifest.digest, image.digest);
    let listed: Vec<_> = manifest.descriptors().map(|d| (d.digest, d.size)).collect();
    let held: Vec<_> = image.blobs().map(|blob| (blob.digest, blob.size())).collect();
    assert_eq!(listed, held);
}

#[tokio::test]
async fn indexes_list_their_images_and_an_attestation() {
    let fake = FakeRegistry::start().await;
    let (amd64, arm64) =
        (ImageSpec::new(1, &[100]).docker(), ImageSpec::new(2, &[200]).docker().architecture("arm64"));
    let image =
        fake.publish_index("a/b:1", &IndexSpec::new().image(amd64).image(arm64).attestation().docker());
    let manifest = Manifest::parse(&image.bytes, None, None).unwrap();
    assert_eq!(manifest.media_type, MediaType::DockerList);
    let platforms: Vec<_> =
        manifest.descriptors().map(|d| d.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64", "unknown/unknown"]);
    for (entry, held) in manifest.descriptors().zip(&image.manifests) {
        assert_eq!((entry.digest, entry.size), (held.digest, held.bytes.len() as u64));
        Manifest::parse(&held.bytes, Some(&entry.media_type), Some(&entry.digest)).unwrap();
    }
}

#[tokio::test]
async fn blobs_and_ranges_are_served_and_counted() {
    let fake = FakeRegistry::start().await;
    let image = fake.publish("a/b:1");
    let layer = &image.layers()[1];
    let path = format!("/v2/a/b/blobs/{}", layer.digest);
    let (head, body, _) = request(&fake, &format!("GET {path}"), "").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, layer.bytes);
    let (head, body, _) = request(&fake, &format!("GET {path}"), "Range: bytes=10-19\r\n").await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 206") && head.contains("content-range: bytes 10-19/40000\r\n"),
        "{head}"
    );
    assert_eq!(body, layer.bytes[10..20]);
    assert_eq!(fake.fetches_of(&layer.digest), 2);
    assert_eq!((fake.requests(Kind::Blob), fake.requests_by("HEAD", Kind::Blob)), (2, 0));
    assert_eq!(fake.requests_to("GET", &path), 2);
    assert_eq!(fake.body_bytes(Kind::Blob), layer.size() + 10);
    assert_eq!(fake.pulled_bytes(), layer.size() + 10);
    let (_, body, _) = request(&fake, "GET /v2/other/blobs/sha256:x", "").await.unwrap();
    assert!(String::from_utf8(body).unwrap().contains("BLOB_UNKNOWN"));
}

#[tokio::test]
async fn a_cut_is_fin_and_a_reset_is_rst() {
    let fake = FakeRegistry::start().await;
    let digest = fake.publish_blob("a/b", sampan_testkit::random_bytes(1, 100_000));
    let line = format!("GET /v2/a/b/blobs/{digest}");
    fake.fails_next(1, Kind::Blob, Fault::CutAfter(50_000));
    let (head, body, end) = request(&fake, &line, "").await.unwrap();
    assert!(head.contains("content-length: 100000\r\n"), "the promise stays: {head}");
    assert_eq!((body.len(), end), (50_000, None));
    fake.fails_next(1, Kind::Blob, Fault::ResetAfter(50_000));
    let (_, _, end) = request(&fake, &line, "").await.unwrap();
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    let (_, body, _) = request(&fake, &line, "").await.unwrap();
    assert_eq!(body.len(), 100_000, "faults for one request are over after it");
}

#[tokio::test]
async fn a_refusing_registry_comes_back_at_the_same_port() {
    let fake = FakeRegistry::start().await;
    let mut open = TcpStream::connect(fake.address()).await.unwrap();
    fake.fails_with(Fault::RefuseConnection);
    let refused = TcpStream::connect(fake.address()).await.map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "at once, not after a while");
    let ended = open.read(&mut [0; 1]).await;
    assert!(!matches!(ended, Ok(1..)), "open connections die");
    fake.heals();
    let (head, _, _) = request(&fake, "GET /v2/", "").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn what_stalls_goes_on_after_healing() {
    let fake = FakeRegistry::start().await;
    let digest = fake.publish_blob("a/b", sampan_testkit::random_bytes(1, 1000));
    fake.fails_on(Kind::Blob, Fault::StallAfter(300));
    let line = format!("GET /v2/a/b/blobs/{digest}");
    let heal = async {
        fake.sent(Kind::Blob, 300).await;
        assert_eq!(fake.body_bytes(Kind::Blob), 300, "not one byte more");
        fake.heals();
    };
    let (answer, ()) = tokio::join!(request(&fake, &line, ""), heal);
    assert_eq!(answer.unwrap().1.len(), 1000);
}

#[tokio::test]
async fn a_corrupt_byte_is_one_byte() {
    let fake = FakeRegistry::start().await;
    let bytes = sampan_testkit::random_bytes(1, 1000);
    let digest = fake.publish_blob("a/b", bytes.clone());
    fake.fails_with(Fault::CorruptByte(500));
    let (_, body, _) = request(&fake, &format!("GET /v2/a/b/blobs/{digest}"), "").await.unwrap();
    let different: Vec<usize> = (0..1000).filter(|&at| body[at] != bytes[at]).collect();
    assert_eq!(different, [500]);
    let part = async |range: &str| {
        let header = format!("Range: {range}\r\n");
        request(&fake, &format!("GET /v2/a/b/blobs/{digest}"), &header).await.unwrap().1
    };
    assert_eq!(part("bytes=500-509").await[..], [&[bytes[500] ^ 1], &bytes[501..510]].concat());
    assert_eq!(
        part("bytes=0-499").await[..],
        bytes[..500],
        "the same byte of the whole, whatever part is asked for"
    );
}

#[tokio::test]
async fn a_token_is_asked_for_and_taken_for_its_repository() {
    let fake = FakeRegistry::start().await;
    fake.publish("a/b:1");
    fake.publish("a/c:1");
    fake.fails_with(Fault::RequireToken(TokenRule::default()));
    let (head, _, _) = request(&fake, "GET /v2/a/b/manifests/1", "").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 401") && head.contains("scope=\"repository:a/b:pull\""), "{head}");
    let (_, body, _) = request(&fake, "GET /token?service=fake&scope=repository:a/b:pull", "").await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let header = format!("Authorization: Bearer {}\r\n", body["token"].as_str().unwrap());
    let (head, _, _) = request(&fake, "GET /v2/a/b/manifests/1", &header).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (head, _, _) = request(&fake, "GET /v2/a/c/manifests/1", &header).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 401"), "a token opens one repository: {head}");
}

#[tokio::test]
async fn a_drip_takes_its_time() {
    let fake = FakeRegistry::start().await;
    let digest = fake.publish_blob("a/b", sampan_testkit::random_bytes(1, 5));
    fake.fails_with(Fault::Drip { every: Duration::from_hours(1) });
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let (_, body, _) = request(&fake, &format!("GET /v2/a/b/blobs/{digest}"), "").await.unwrap();
    assert_eq!((Digest::of(&body), began.elapsed().as_secs()), (digest, 5 * 3600));
}

/// A registry with one blob of `size` bytes, and the line that gets it.
async fn with_blob(size: usize) -> (FakeRegistry, Digest, String) {
    let fake = FakeRegistry::start().await;
    let digest = fake.publish_blob("a/b", random_bytes(1, size));
    (fake, digest, format!("GET /v2/a/b/blobs/{digest}"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn a_blob_has_one_strong_tag_until_it_lies() {
    let (fake, digest, line) = with_blob(100).await;
    let honest = format!(r#""{digest}""#);
    for _ in 0..2 {
        let (head, ..) = request(&fake, &line, "").await.unwrap();
        assert_eq!(header(&head, "etag"), Some(&*honest));
    }
    fake.fails_with(Fault::ChangedEtag);
    let (first, ..) = request(&fake, &line, "").await.unwrap();
    let (second, ..) = request(&fake, &line, "").await.unwrap();
    let tags = [header(&first, "etag").unwrap(), header(&second, "etag").unwrap(), &honest];
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2], "{tags:?}");
}

#[tokio::test]
async fn a_total_may_be_left_out() {
    let (fake, _, line) = with_blob(100).await;
    fake.fails_with(Fault::NoTotal);
    let (head, body, _) = request(&fake, &line, "range: bytes=10-19\r\n").await.unwrap();
    assert_eq!((header(&head, "content-range"), body.len()), (Some("bytes 10-19/*"), 10));
}

#[tokio::test]
async fn parts_may_be_wrapped_chunks_cut_and_heads_a_soup() {
    let (fake, _, line) = with_blob(100).await;
    fake.fails_with(Fault::Multipart);
    let (head, body, _) = request(&fake, &line, "range: bytes=10-19\r\n").await.unwrap();
    assert!(header(&head, "content-range").is_none() && head.contains("multipart/byteranges; boundary=part"));
    assert!(body.starts_with(b"--part\r\nContent-Range: bytes 10-19/100\r\n"));
    fake.heals();
    fake.fails_with(Fault::TruncatedChunked);
    let (head, body, _) = request(&fake, &line, "").await.unwrap();
    assert_eq!(
        (header(&head, "transfer-encoding"), header(&head, "content-length")),
        (Some("chunked"), None)
    );
    assert!(body.starts_with(b"64\r\n") && !body.ends_with(b"0\r\n\r\n"), "no last chunk");
    fake.heals();
    fake.fails_with(Fault::ManyHeaders(300));
    let (head, ..) = request(&fake, &line, "").await.unwrap();
    assert!(head.lines().count() > 300);
}

#[tokio::test]
async fn a_signed_address_serves_so_often_and_the_next_one_again() {
    let (fake, _, line) = with_blob(100).await;
    fake.fails_on(Kind::Blob, Fault::RedirectTo(fake.url()));
    fake.fails_on(Kind::Cdn, Fault::ExpiresAfter(2));
    for _ in 0..2 {
        let (head, ..) = request(&fake, &line, "").await.unwrap();
        let location = header(&head, "location").unwrap().strip_prefix(&fake.url()).unwrap().to_owned();
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let (head, ..) = request(&fake, &format!("GET {location}"), "").await.unwrap();
            statuses.push(head[9..12].to_owned());
        }
        assert_eq!(statuses, ["200", "200", "403"], "{location}");
    }
}

#[tokio::test]
async fn too_many_answers_at_once_are_refused_until_one_is_done() {
    for (retry_after, told) in [(Some(7), Some("7")), (None, None)] {
        let fault = Fault::TooManyConnections { max: 2, retry_after };
        let (fake, _, line) = with_blob(100_000).await;
        fake.fails_with(fault.clone());
        fake.fails_next(2, Kind::Blob, Fault::StallAfter(50_000));
        let refused = async {
            fake.saw(Kind::Blob, 2).await;
            let (head, ..) = request(&fake, &line, "").await.unwrap();
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            assert_eq!(header(&head, "retry-after"), told);
            fake.heals();
            fake.fails_with(fault);
        };
        let (first, second, ()) = tokio::join!(request(&fake, &line, ""), request(&fake, &line, ""), refused);
        assert_eq!((first.unwrap().1.len(), second.unwrap().1.len()), (100_000, 100_000));
        let (head, ..) = request(&fake, &line, "").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "both are done: {head}");
    }
}

#[tokio::test]
async fn a_rate_is_each_connections_own_and_a_link_is_shared() {
    for (fault, seconds) in [
        (Fault::Rate { bytes_per_second: 10_000 }, 10.0),
        (Fault::RateTotal { bytes_per_second: 10_000 }, 20.0),
    ] {
        let (fake, _, line) = with_blob(100_000).await;
        fake.fails_with(fault.clone());
        pause();
        let began = Instant::now();
        let (first, second) = tokio::join!(request(&fake, &line, ""), request(&fake, &line, ""));
        assert_eq!((first.unwrap().1.len(), second.unwrap().1.len()), (100_000, 100_000));
        let took = began.elapsed().as_secs_f64();
        assert!((took - seconds).abs() < seconds / 20.0, "{fault:?}: {took} s");
        resume();
    }
}

#[tokio::test]
async fn connections_and_the_bytes_of_blobs_are_counted() {
    let (fake, digest, line) = with_blob(1000).await;
    request(&fake, &line, "range: bytes=10-19\r\n").await.unwrap();
    request(&fake, &line, "").await.unwrap();
    fake.fails_next(1, Kind::Blob, Fault::Status(500));
    request(&fake, &line, "").await.unwrap();
    assert_eq!(fake.ranges_of(&digest), [10..20, 0..1000], "an error carries none of them");
    assert_eq!(fake.connections(), 3);

    fake.forget();
    fake.fails_with(Fault::StallAfter(10));
    let healed = async {
        fake.saw(Kind::Blob, 3).await;
        assert_eq!((fake.connections(), fake.peak_connections()), (3, 3));
        fake.heals();
    };
    let _ =
        tokio::join!(request(&fake, &line, ""), request(&fake, &line, ""), request(&fake, &line, ""), healed);
    assert_eq!(fake.ranges_of(&digest), [0..1000, 0..1000, 0..1000]);
}

#[tokio::test]
async fn a_hub_counts_manifests_for_each_address_and_not_their_heads() {
    let hub = FakeHub::start(RateLimit { retry_after: Some(9), ..RateLimit::of(2) }).await;
    let image = hub.publish("library/alpine:3.20");
    let (_, token, _) =
        request(&hub.auth, "GET /token?service=fake&scope=repository%3Alibrary%2Falpine%3Apull", "")
            .await
            .unwrap();
    let token = serde_json::from_slice::<serde_json::Value>(&token).unwrap()["token"].clone();
    let shown = format!("authorization: Bearer {}\r\n", token.as_str().unwrap());
    let manifest = "/v2/library/alpine/manifests/3.20";
    // Only the head: a HEAD's answer tells a length and has no body.
    let ask = async |line: &str, headers: &str| {
        let mut stream = TcpStream::connect(hub.registry.address()).await.unwrap();
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };

    let refused = ask(&format!("GET {manifest}"), "").await;
    assert!(refused.contains(" 401 ") && refused.contains(&hub.auth.url()), "{refused}");
    assert!(!refused.contains("ratelimit"), "who is refused is not counted");
    for (method, status, left) in
        [("HEAD", 200, 2), ("GET", 200, 1), ("HEAD", 200, 1), ("GET", 200, 0), ("GET", 429, 0)]
    {
        let head = ask(&format!("{method} {manifest}"), &shown).await;
        assert!(head.contains(&format!(" {status} ")), "{head}");
        assert!(head.contains(&format!("ratelimit-remaining: {left};w=21600")), "{head}");
        assert!(head.contains("docker-ratelimit-source: 127.0.0.1"), "{head}");
        assert_eq!(head.contains("retry-after: 9"), status == 429, "{head}");
    }
    assert_eq!(hub.spent(), 2);
    hub.registry.refills();
    assert_eq!(hub.spent(), 0);
    let blob = image.layers()[0].digest;
    let led = ask(&format!("GET /v2/library/alpine/blobs/{blob}"), &shown).await;
    assert!(led.contains(&format!("location: {}/cdn/{blob}", hub.cdn.url())), "{led}");
}
