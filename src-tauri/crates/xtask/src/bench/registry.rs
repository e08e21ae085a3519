//! docker-registry, as the upstream that stands for Docker Hub and as the mirror to compare with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::bench::process::{Running, answers};

/// A running docker-registry. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Running,
    log: PathBuf,
}

impl Registry {
    /// Serves `<folder>/<name>` on a loopback port; a pull-through proxy if given an upstream's origin
    /// (`http://127.0.0.1:5000`).
    pub(crate) fn start(folder: &Path, name: &str, port: u16, upstream: Option<&str>) -> Result<Self> {
        let (storage, config, log) =
            (folder.join(name), folder.join(format!("{name}.yml")), folder.join(format!("{name}.log")));
        fs::create_dir_all(&storage)?;
        let proxy =
            upstream.map(|origin| format!("proxy: {{remoteurl: \"{origin}\"}}\n")).unwrap_or_default();
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: \"{}\"}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{proxy}",
            storage.display()
        );
        fs::write(&config, text)?;
        let mut process = Running::start(Command::new("docker-registry").arg("serve").arg(&config), &log)?;
        process.ready("docker-registry", &log, Duration::from_secs(20), || answers(port))?;
        Ok(Self { process, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Body bytes of blobs sent so far, by the access log, which has a line when a response has ended.
    pub(crate) fn blob_bytes(&self) -> u64 {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter_map(blob_bytes).sum()
    }
}

/// The size in a line such as `::1 - - [date] "GET /v2/a/b/blobs/sha256:... HTTP/1.1" 200 123 "" "agent"`.
fn blob_bytes(line: &str) -> Option<u64> {
    let (_, request) = line.split_once("\"GET /v2/")?;
    let (path, rest) = request.split_once("\" ")?;
    path.contains("/blobs/").then_some(())?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bodies_of_blobs_are_counted() {
        let line = |method: &str, what: &str| {
            format!(
                "127.0.0.1 - - [20/Nov/2026:10:00:00 +0000] \"{method} /v2/library/x/{what} HTTP/1.1\" 200 1234 \"\" \"agent/1.0\""
            )
        };
        assert_eq!(blob_bytes(&line("GET", "blobs/sha256:ab")), Some(1234));
        assert_eq!(blob_bytes(&line("HEAD", "blobs/sha256:ab")), None, "a HEAD has no body");
        assert_eq!(blob_bytes(&line("GET", "manifests/latest")), None);
        assert_eq!(blob_bytes("time=\"...\" level=info msg=\"listening\""), None);
    }
}
