//! A dockerd of our own: data, socket, settings and hosts file of its own, nothing shared with the machine's Docker.
//! Written for the classic image store (Docker up to 28), where the mirror is a flag of dockerd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{
    bench::process::{Running, tail},
    shell,
};

/// A running dockerd. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Dockerd {
    process: Running,
    folder: PathBuf,
    socket: String,
}

impl Dockerd {
    /// Starts it with everything it has in `folder`. `mirror_port`: the loopback port of the mirror it asks for Docker
    /// Hub's images; `plain`: networks (CIDR) whose registries it may ask without TLS.
    pub(crate) fn start(folder: &Path, mirror_port: Option<u16>, plain: &[&str]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let socket = format!("unix://{}/docker.sock", folder.display());
        // Before dockerd asks its mirror it resolves docker.io, for its rules about insecure registries. Where no DNS
        // answers that alone takes ten seconds, so it gets a hosts file, seen by itself alone. Nothing listens behind
        // the name: a pull that does not come through the mirror fails instead of being counted.
        let hosts = folder.join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost docker.io registry-1.docker.io auth.docker.io\n")?;
        // Not the settings of the machine's own Docker.
        let settings = folder.join("daemon.json");
        fs::write(&settings, "{}")?;
        let log = folder.join("dockerd.log");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(r#"mount --bind "$0" /etc/hosts && exec dockerd "$@""#)
            .arg(&hosts)
            .args(["--host", &socket, "--config-file"])
            .arg(&settings)
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
        if let Some(port) = mirror_port {
            command.arg(format!("--registry-mirror=http://127.0.0.1:{port}"));
        }
        for network in plain {
            command.args(["--insecure-registry", network]);
        }
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")] {
            command.arg(flag).arg(folder.join(name));
        }
        let mut process = Running::start(&mut command, &log)?;
        process.ready("dockerd", &log, Duration::from_mins(1), || {
            shell::output(Command::new("docker").args(["--host", &socket, "version"])).is_some()
        })?;
        Ok(Self { process, folder: folder.to_path_buf(), socket })
    }

    /// The client, speaking to this daemon.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.socket, "--config"]).arg(&self.folder);
        command
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.is_alive()
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        tail(&self.folder.join("dockerd.log"))
    }
}
