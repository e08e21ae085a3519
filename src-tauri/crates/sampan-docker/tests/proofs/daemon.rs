//! A real dockerd in a temporary folder, ended by its process id.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sampan_docker::Version;

use crate::place::{has, is_root};

/// Ends when dropped.
pub(crate) struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// Starts one that reads a file with that content; `None`, with the reason printed, where that cannot be, or where
    /// it is too new to be set up by `daemon.json` alone.
    pub(crate) fn start(config: &str) -> Option<Self> {
        if !is_root() || !has("dockerd") {
            return None;
        }
        let said = Command::new("dockerd").arg("--version").output().unwrap().stdout;
        let version = String::from_utf8_lossy(&said).split_whitespace().nth(2).and_then(Version::parse);
        if version.is_none_or(|version| version >= Version(28, 0, 0)) {
            eprintln!("skipped: this dockerd is not set up by daemon.json alone: {version:?}");
            return None;
        }
        // A socket's path holds at most 107 bytes, so not under a deep folder for temporary files.
        let dir = tempfile::Builder::new().prefix("sd").tempdir_in("/tmp").unwrap();
        std::fs::write(dir.path().join("daemon.json"), config).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(dir.path().join("daemon.json"));
        let child = serve(&mut command, dir.path(), &dir.path().join("s"));
        Some(Self { child, dir })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.path().join("s").display())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("daemon.json")
    }

    pub(crate) fn content(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Starts `command`, a dockerd that keeps everything in `folder` and listens at `socket`, and waits until it answers.
pub(crate) fn serve(command: &mut Command, folder: &Path, socket: &Path) -> Child {
    for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        command.arg(flag).arg(folder.join(name));
    }
    let mut child = command
        .arg("-H")
        .arg(format!("unix://{}", socket.display()))
        .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip-forward=false"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = channel();
    let stderr = child.stderr.take().unwrap();
    // Read to its end, so that dockerd never waits for its own log.
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut seen = Vec::new();
    while let Ok(line) = lines.recv_timeout(Duration::from_mins(1)) {
        if line.contains("API listen on") {
            return child;
        }
        seen.push(line);
    }
    end(&mut child);
    panic!("dockerd did not start:\n{}", seen.join("\n"));
}

/// SIGTERM, so that it ends its own containerd too.
pub(crate) fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
    let _ = child.wait();
}
