//! TLS as upstreams break it, with OpenSSL's own server: connections that end without saying so, another certificate in the
//! middle of a session, and HTTP/2 where only HTTP/1.1 is spoken (SECURITY.md 5.2, EU-38 to EU-40).
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test: a step that fails is a failed test")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use sampan_oci::{Digest, RepositoryName};
use sampan_testkit::{FakeRegistry, Fault, Kind, cannot_run};
use sampan_upstream::{Upstream, UpstreamConfig, UpstreamError};

const SIZE: usize = 40_000_000;
const KEY: [&str; 6] = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days"];

/// The certificates a client trusts are read from where a variable of its environment says, and that of a running process
/// is not changed: the test runs itself again with another one.
#[test]
fn what_openssl_serves_is_believed_only_with_the_right_certificate_and_to_its_end() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        cannot_run("openssl is not installed");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["right", "other"] {
        let make = |more: &[&str], file: &str| {
            let made = Command::new("openssl")
                .args(KEY)
                .args(["2", "-keyout", &format!("{file}.key"), "-out", &format!("{file}.pem")])
                .args(more)
                .current_dir(&folder)
                .stderr(Stdio::null())
                .status();
            assert!(made.unwrap().success(), "{file}");
        };
        let (root, root_key) = (format!("root-{name}.pem"), format!("root-{name}.key"));
        make(&["-subj", "/CN=root"], &format!("root-{name}"));
        let leaf =
            ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
        make(&[&["-subj", "/CN=localhost", "-CA", &root, "-CAkey", &root_key][..], &leaf].concat(), name);
    }
    let inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inner", "--ignored", "--nocapture"])
        .env("SSL_CERT_FILE", folder.join("root-right.pem"))
        .current_dir(&folder)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let told = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && told.contains("1 passed"), "{told}");
}

/// OpenSSL's server, which sends files with their heads in them.
struct Server(Child);

impl Server {
    async fn start(port: u16, certificate: &str, more: &[&str]) -> Self {
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-HTTP", "-accept", &format!("127.0.0.1:{port}")])
            .args(["-cert", &format!("{certificate}.pem"), "-key", &format!("{certificate}.key")])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child);
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("openssl does not listen");
    }

    /// Its connections end, and nothing of TLS says that they do.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn fetch(upstream: &Upstream, digest: &Digest, server: Option<Server>) -> Result<usize, UpstreamError> {
    let repository: RepositoryName = "library/alpine".parse().unwrap();
    let mut body = upstream.get_blob(&repository, digest, 0).await?;
    let (mut got, mut server) = (0, server);
    while let Some(piece) = body.stream.next().await {
        got += piece?.len();
        if got > 1_000_000
            && let Some(server) = server.take()
        {
            server.kill();
        }
    }
    Ok(got)
}

#[tokio::test]
#[ignore = "run by the test above, with its own certificates"]
async fn inner() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // OpenSSL finds no file with a colon in its name, and digests have one: a registry leads there.
    let registry = FakeRegistry::start().await;
    let url = format!("http://localhost:{}", registry.address().port()).parse().unwrap();
    let config = UpstreamConfig { registry: "docker.io".parse().unwrap(), url };
    let upstream = Upstream::new(config, sampan_upstream::client().unwrap());
    let body = vec![7; SIZE];
    let answer = |head: &str| [head.as_bytes(), b"\r\nConnection: close\r\n\r\n", &body].concat();
    std::fs::write("told", answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}"))).unwrap();
    std::fs::write("untold", answer("HTTP/1.1 200 OK")).unwrap();
    let to = |file: &str| {
        registry.heals();
        registry.fails_on(Kind::Blob, Fault::Location(format!("https://localhost:{port}/{file}")));
    };
    let told = Digest::of(&body);

    to("told");
    let server = Server::start(port, "right", &[]).await;
    assert_eq!(fetch(&upstream, &told, None).await.unwrap(), SIZE);
    // EU-39: with a length and without one, a connection that is just gone is no end of a body.
    let cut = fetch(&upstream, &told, Some(server)).await.unwrap_err();
    assert!(cut.is_transient(), "{cut:?}");
    let server = Server::start(port, "right", &[]).await;
    to("untold");
    let cut = fetch(&upstream, &told, Some(server)).await.unwrap_err();
    assert!(cut.is_transient(), "{cut:?}");

    to("told");
    // EU-40: who comes back with another certificate is not the one who was there before.
    let server = Server::start(port, "other", &[]).await;
    let refused = fetch(&upstream, &told, None).await.unwrap_err();
    assert!(matches!(refused, UpstreamError::Unreachable(_)), "{refused:?}");
    server.kill();
    let server = Server::start(port, "right", &[]).await;
    assert_eq!(fetch(&upstream, &told, None).await.unwrap(), SIZE, "and the right one is believed again");
    server.kill();

    // EU-38: HTTP/2 is never spoken, so its frames cannot end anything.
    let server = Server::start(port, "right", &["-alpn", "h2"]).await;
    match tokio::time::timeout(Duration::from_secs(25), fetch(&upstream, &told, None)).await.unwrap() {
        Ok(got) => assert_eq!(got, SIZE),
        Err(error) => assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}"),
    }
    server.kill();
}
