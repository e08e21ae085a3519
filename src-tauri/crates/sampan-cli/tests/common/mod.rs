//! A place to run the real program in.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

/// A place with a cache and a state folder of its own, and an upstream that nobody serves.
pub struct Place {
    pub dir: TempDir,
}

/// `sampan serve`, ready; killed when the test ends.
pub struct Serving {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
    pub ready: String,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub fn sampan(&self) -> Command {
        let mut command = bare();
        command.env("SAMPAN_STATE_DIR", self.path("state")).env("SAMPAN_CACHE_DIR", self.path("cache"));
        command.env("SAMPAN_UPSTREAM", "docker.io=http://127.0.0.1:9").env("SAMPAN_LISTEN", "127.0.0.1:0");
        command.env("HOME", self.dir.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.sampan().args(arguments).output().unwrap()
    }

    pub fn serve(&self, arguments: &[&str]) -> Serving {
        let mut child = self.sampan().arg("serve").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        out.read_line(&mut ready).unwrap();
        assert!(ready.starts_with("Sampan serves "), "the ready line: {ready:?}");
        Serving { child, out, ready }
    }
}

impl Serving {
    pub fn address(&self) -> String {
        self.ready.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program without the environment of whoever runs the tests.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
    for name in
        ["CONFIG", "LISTEN", "CACHE_DIR", "STATE_DIR", "UPSTREAM", "CONNECTIONS", "OUTAGE_WAIT", "LOG"]
    {
        command.env_remove(format!("SAMPAN_{name}"));
    }
    command.env_remove("RUST_LOG");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
