//! Blobs that are held, on their way to clients of all kinds: the right bytes, or an answer that ends too early.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests are named as sentences; a failed unwrap fails the test"
)]

mod common;

use std::time::Duration;

use common::{TestMirror, body};
use futures_util::future::join_all;
use sampan_oci::{Answered, Failure, Outcome};
use sampan_testkit::{FakeRegistry, Image, ImageSpec, Layer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn blob(layer: &Layer) -> String {
    format!("/v2/library/alpine/blobs/{}", layer.digest)
}

/// A mirror that holds an image with layers of these sizes.
async fn holding(sizes: &[usize]) -> (FakeRegistry, Image, TestMirror) {
    let upstream = FakeRegistry::start().await;
    let image = upstream.publish_image("library/alpine:3.20", &ImageSpec::new(7, sizes));
    let mirror = TestMirror::in_front_of(&upstream).await;
    body(mirror.get("/v2/library/alpine/manifests/3.20").await).await.unwrap();
    for layer in image.blobs() {
        body(mirror.get(&blob(layer)).await).await.unwrap();
    }
    for layer in image.blobs() {
        // Published, not only downloaded.
        while mirror.get(&blob(layer)).await.headers()["x-sampan"] != "hit" {}
    }
    (upstream, image, mirror)
}

/// A client that reads for itself.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn of(mirror: &TestMirror) -> Self {
        let stream = TcpStream::connect(mirror.url.trim_start_matches("http://")).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    async fn ask(&mut self, method: &str, path: &str, range: Option<&str>) {
        let host = self.stream.peer_addr().unwrap();
        let range = range.map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{range}\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// The head, and how many bytes it promises.
    async fn head(&mut self) -> (String, usize) {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap().to_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                let length = length.parse().unwrap();
                return (head, length);
            }
            assert!(self.more().await > 0, "the connection ended before a head");
        }
    }

    async fn more(&mut self) -> usize {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0)
    }

    /// The next `len` bytes, or as many as come.
    async fn take(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len && self.more().await > 0 {}
        let len = len.min(self.read.len());
        self.read.drain(..len).collect()
    }
}

#[tokio::test]
async fn every_size_and_every_part_arrives_as_it_is() {
    const KIB: usize = 1024;
    let sizes = [
        1,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        128 * KIB - 1,
        128 * KIB,
        128 * KIB + 1,
        2048 * KIB,
        2112 * KIB - 1,
        2112 * KIB,
        2112 * KIB + 1,
        5_000_001,
        9_000_000,
    ];
    let (_upstream, image, mirror) = holding(&sizes).await;
    for layer in image.blobs() {
        let size = layer.bytes.len();
        let whole = mirror.get(&blob(layer)).await;
        assert_eq!(whole.headers()["x-sampan"], "hit");
        assert!(body(whole).await.unwrap() == layer.bytes, "{size} bytes");
        for (start, end) in
            [(0, 1), (0, size), (size / 2, size), (1, size), (size / 3, size / 3 + 70_000), (size - 1, size)]
        {
            let end = end.min(size);
            if start >= end {
                continue;
            }
            let part = mirror.range(&blob(layer), &format!("bytes={start}-{}", end - 1)).await;
            assert!(body(part).await.unwrap() == layer.bytes[start..end], "{start}..{end} of {size} bytes");
        }
    }
}

#[tokio::test]
async fn one_connection_carries_answers_of_every_kind_one_after_another() {
    let (_upstream, image, mirror) = holding(&[3_000_000, 40_000]).await;
    let large = image.blobs().find(|layer| layer.bytes.len() == 3_000_000).unwrap();
    let small = image.blobs().find(|layer| layer.bytes.len() == 40_000).unwrap();
    let manifest = format!("/v2/library/alpine/manifests/{}", image.digest);
    let mut client = Client::of(&mirror).await;
    for round in 0..3 {
        let steps: [(&str, &str, Option<&str>, &[u8]); 7] = [
            ("GET", &manifest, None, &image.bytes),
            ("GET", &blob(large), None, &large.bytes),
            ("GET", &blob(large), Some("bytes=100000-2999998"), &large.bytes[100_000..2_999_999]),
            ("HEAD", &blob(large), None, &[]),
            ("GET", &blob(small), None, &small.bytes),
            ("GET", &blob(large), Some("bytes=2900000-"), &large.bytes[2_900_000..]),
            ("GET", &manifest, None, &image.bytes),
        ];
        for (method, path, range, expected) in steps {
            client.ask(method, path, range).await;
            let (head, length) = client.head().await;
            assert!(head.starts_with("http/1.1 20"), "{head}");
            let length = if method == "HEAD" { 0 } else { length };
            assert!(client.take(length).await == expected, "round {round}: {method} {path} {range:?}");
        }
    }
    // Asked for all at once, they come one after another.
    for _ in 0..4 {
        client.ask("GET", &blob(large), None).await;
        client.ask("GET", &blob(small), None).await;
        client.ask("GET", &manifest, None).await;
    }
    for _ in 0..4 {
        for expected in [&large.bytes, &small.bytes, &image.bytes] {
            let (_, length) = client.head().await;
            assert!(client.take(length).await == *expected);
        }
    }
}

#[tokio::test]
async fn clients_that_take_little_at_a_time_all_get_the_right_bytes() {
    let (_upstream, image, mirror) = holding(&[6_000_000]).await;
    let layer = image.blobs().max_by_key(|layer| layer.bytes.len()).unwrap();
    let slow = |piece: usize| {
        let mirror = &mirror;
        async move {
            let mut client = Client::of(mirror).await;
            client.ask("GET", &blob(layer), None).await;
            let (_, length) = client.head().await;
            let mut read = Vec::with_capacity(length);
            while read.len() < length {
                let wanted = piece.min(length - read.len());
                let part = client.take(wanted).await;
                assert_eq!(part.len(), wanted);
                read.extend(part);
                tokio::task::yield_now().await;
            }
            assert!(read == layer.bytes, "in pieces of {piece}");
        }
    };
    join_all([1_000, 65_536, 100_003, 1_000_000, 4_000, 50_000].map(slow)).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_told_as_such_and_harms_nobody() {
    let (_upstream, image, mirror) = holding(&[24_000_000]).await;
    let layer = image.blobs().max_by_key(|layer| layer.bytes.len()).unwrap();
    let mut client = Client::of(&mirror).await;
    client.ask("GET", &blob(layer), None).await;
    client.take(100_000).await;
    drop(client);
    let left = |answered: &Answered| {
        answered.outcome == Outcome::Failed(Failure::ClientLeft) && answered.served_bytes >= 100_000
    };
    let told = mirror.answered(left).await;
    assert!(told.served_bytes < 24_000_000, "{}", told.served_bytes);
    assert!(body(mirror.get(&blob(layer)).await).await.unwrap() == layer.bytes);
}

#[tokio::test]
async fn a_file_cut_short_while_it_is_sent_breaks_the_answer_off_and_is_fetched_again() {
    let (_upstream, image, mirror) = holding(&[24_000_000]).await;
    let layer = image.blobs().max_by_key(|layer| layer.bytes.len()).unwrap();
    let mut client = Client::of(&mirror).await;
    client.ask("GET", &blob(layer), None).await;
    let (_, length) = client.head().await;
    let mut read = client.take(1000).await;
    let file = mirror.file(&layer.digest);
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(20_000_000).unwrap();
    read.extend(client.take(length - 1000).await);
    assert!(read.len() <= 20_000_000, "the answer ends before what it promised: {}", read.len());
    assert!(read == layer.bytes[..read.len()], "and what came is the blob's");
    // Answers of before, which nobody read to their end, may be told meanwhile.
    let told = mirror.answered(|answered| answered.outcome == Outcome::Failed(Failure::Store)).await;
    assert_eq!(told.served_bytes, read.len() as u64, "the client did not leave, and it is told to the byte");
    while file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(body(mirror.get(&blob(layer)).await).await.unwrap() == layer.bytes, "fetched again");
}

#[tokio::test]
async fn a_file_cut_below_what_is_on_its_way_is_our_failure_and_not_the_client_who_left() {
    let (_upstream, image, mirror) = holding(&[24_000_000]).await;
    let layer = image.blobs().max_by_key(|layer| layer.bytes.len()).unwrap();
    let mut client = Client::of(&mirror).await;
    client.ask("GET", &blob(layer), None).await;
    let (_, length) = client.head().await;
    let mut read = client.take(2 << 20).await;
    // The part that is being sent lies behind that: it is the socket that finds it gone.
    let file = mirror.file(&layer.digest);
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    read.extend(client.take(length).await);
    assert!(read.len() < length && read == layer.bytes[..read.len()]);
    let told = mirror.answered(|answered| answered.outcome == Outcome::Failed(Failure::Store)).await;
    assert_eq!(told.served_bytes, read.len() as u64, "and it is told to the byte");
    while file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hit_writes_nothing_to_the_index() {
    let (_upstream, image, mirror) = holding(&[300_000]).await;
    let written = || {
        ["sampan.db", "sampan.db-wal"].map(|name| {
            let file = std::fs::metadata(mirror.dir.path().join("cache").join(name));
            file.ok().map(|file| (file.len(), file.modified().unwrap()))
        })
    };
    let before = written();
    for _ in 0..20 {
        mirror.clock.advance(Duration::from_secs(1));
        let tag = mirror.get("/v2/library/alpine/manifests/3.20").await;
        assert_eq!(tag.headers()["x-sampan"], "revalidated");
        let digest = mirror.get(&format!("/v2/library/alpine/manifests/{}", image.digest)).await;
        assert_eq!(digest.headers()["x-sampan"], "hit");
        for layer in image.blobs() {
            assert_eq!(mirror.get(&blob(layer)).await.headers()["x-sampan"], "hit");
        }
    }
    assert_eq!(written(), before);
    mirror.store.flush().await.unwrap();
    assert_ne!(written(), before, "the uses were kept for later");
}
