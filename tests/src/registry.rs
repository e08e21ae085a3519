//! The upstream: Debian's docker-registry, which knows nothing of Sampan.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, finish};
use crate::{bins, free_port};

/// How long it may take to start, or to tell of an answer it has given.
const SOON: Duration = Duration::from_secs(15);

/// docker-registry on a port of loopback. Can be stopped and started again, on the same port with the same content.
pub struct Registry {
    port: u16,
    config: PathBuf,
    folder: tempfile::TempDir,
    process: Option<Process>,
    /// What was sent by runs that have ended.
    sent_before: u64,
}

impl Registry {
    /// Starts it with the content of `storage`, which tests share: it is only read.
    pub fn start(storage: &Path) -> Self {
        let folder = crate::scratch();
        let (port, config) = (free_port(), folder.path().join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: \"{}\"}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            storage.display()
        );
        std::fs::write(&config, text).expect("a temporary folder can be written to");
        let mut registry = Self { port, config, folder, process: None, sent_before: 0 };
        registry.resume();
        registry
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address: `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it: connections are refused from now on.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
            self.sent_before += sent(&process.lines());
        }
    }

    /// Starts it again, unless it runs.
    pub fn resume(&mut self) {
        if self.process.is_none() {
            let program = bins::installed("docker-registry").expect("the test asked for it");
            let mut command = Command::new(program);
            command.arg("serve").arg(&self.config);
            let mut process = Process::start("registry", self.folder.path(), &mut command);
            process.wait_for_line(SOON, |line| line.contains("listening on"));
            let port = self.port;
            process
                .wait_until("its port", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
            self.process = Some(process);
        }
    }

    /// Body bytes of manifests and blobs that its access log says it has sent since the test began.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_before + self.process.as_ref().map_or(0, |process| sent(&process.lines()))
    }

    /// Waits until it says that it has sent `wanted` bytes or more, and returns what it says: it writes its log after
    /// the client has had the last byte.
    pub fn settled_bytes(&self, wanted: u64) -> u64 {
        let end = Instant::now() + SOON;
        while self.sent_bytes() < wanted && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.sent_bytes()
    }

    /// Pushes the image `reference` of the OCI layout in `layout`, every platform of it, under the same name.
    pub fn push(&self, layout: &Path, reference: &str, name: &str) {
        let from = format!("oci:{}:{reference}", layout.display());
        let to = format!("docker://127.0.0.1:{}/{name}", self.port);
        let mut skopeo = Command::new(bins::installed("skopeo").expect("the test asked for it"));
        skopeo.args(["copy", "--quiet", "--all", "--insecure-policy", "--dest-tls-verify=false"]);
        let output = finish(skopeo.args([from, to]));
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Adds up the answers to GET requests (of a HEAD the log counts a body that never left).
fn sent(lines: &[String]) -> u64 {
    lines.iter().filter_map(|line| body_of(line)).sum()
}

/// The body bytes of a line of the access log, which is Apache's combined format:
/// `127.0.0.1 - - [20/Nov/2026:10:00:00 +0000] "GET /v2/x/blobs/sha256:… HTTP/1.1" 200 1234 "" "agent"`.
fn body_of(line: &str) -> Option<u64> {
    let (_, request) = line.split_once("\"GET ")?;
    let (target, rest) = request.split_once(" HTTP/1.1\" ")?;
    if !(target.contains("/manifests/") || target.contains("/blobs/")) {
        return None;
    }
    let mut numbers = rest.split(' ');
    let status = numbers.next()?;
    let bytes = numbers.next()?.parse().ok()?;
    // An error has a body too, which is none of an image.
    status.starts_with('2').then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::body_of;

    #[test]
    fn only_bodies_of_manifests_and_blobs_are_counted() {
        let line = |request: &str, rest: &str| {
            format!(
                "127.0.0.1 - - [20/Nov/2026:10:00:00 +0000] \"{request} HTTP/1.1\" {rest} \"\" \"docker/20\""
            )
        };
        let blob = "GET /v2/library/x/blobs/sha256:00";
        assert_eq!(body_of(&line(blob, "200 1234")), Some(1234), "a blob");
        assert_eq!(body_of(&line(blob, "206 34")), Some(34), "a part of one");
        assert_eq!(body_of(&line("GET /v2/library/x/manifests/1", "200 99")), Some(99), "a manifest");
        assert_eq!(body_of(&line("HEAD /v2/library/x/manifests/1", "200 99")), None, "a HEAD has no body");
        assert_eq!(body_of(&line("GET /v2/", "200 2")), None, "a ping is no part of an image");
        assert_eq!(body_of(&line("GET /v2/library/x/manifests/2", "404 99")), None, "nor is an error");
        assert_eq!(
            body_of("time=\"…\" level=info msg=\"GET /v2/x/blobs/\""),
            None,
            "other lines are not counted"
        );
    }
}
