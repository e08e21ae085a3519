//! The daemon as a process of this machine: which one it is and how it was started. Linux only; elsewhere engines
//! run in virtual machines.

use std::path::{Path, PathBuf};

/// What matters of a daemon's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `--config-file`.
    pub config_file: Option<PathBuf>,
    /// Every `--registry-mirror`.
    pub mirrors: Vec<String>,
    /// Every `--host`, `-H`.
    pub hosts: Vec<String>,
}

impl Flags {
    /// Reads `--flag value` and `--flag=value` (spf13/pflag).
    pub(crate) fn parse(arguments: &[String]) -> Self {
        let mut flags = Self::default();
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument, None),
            };
            match name {
                "--config-file" => flags.config_file = value.or_else(|| rest.next()).map(PathBuf::from),
                "--registry-mirror" => flags.mirrors.extend(value.or_else(|| rest.next()).map(str::to_owned)),
                "--host" | "-H" => flags.hosts.extend(value.or_else(|| rest.next()).map(str::to_owned)),
                // pflag also takes a short flag and its value as one word.
                _ => flags.hosts.extend(argument.strip_prefix("-H").map(str::to_owned)),
            }
        }
        flags
    }
}

/// A daemon found behind a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// Its process id.
    pub pid: u32,
    /// Its command line.
    pub flags: Flags,
    /// The whole command line.
    pub arguments: Vec<String>,
    /// The systemd unit that runs it.
    pub unit: Option<String>,
    /// The user it runs as.
    pub uid: Option<u32>,
    /// How it was found, one line of evidence.
    pub because: String,
}

/// The systemd service in the text of `/proc/<pid>/cgroup`.
pub(crate) fn unit_of(cgroup: &str) -> Option<String> {
    cgroup.lines().find_map(|line| {
        let unit = line.rsplit('/').find(|part| part.ends_with(".service"))?;
        unit.contains("docker").then(|| unit.to_owned())
    })
}

/// The dockerd that listens on `socket`.
///
/// # Errors
/// A line of evidence that says who listens instead.
#[cfg(target_os = "linux")]
pub(crate) async fn daemon(socket: &Path) -> Result<Daemon, String> {
    let shown = socket.display();
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| format!("{shown}: {e}"))?;
    let peer = stream.peer_cred().ok().and_then(|c| c.pid()).and_then(|pid| u32::try_from(pid).ok());
    let peer =
        peer.filter(|pid| *pid > 0).ok_or(format!("{shown} is served by a process of another system"))?;
    if is_dockerd(peer) {
        return Ok(described(peer, format!("{shown} is served by dockerd, process {peer}")));
    }
    // Under socket activation the listener is systemd's, made before dockerd starts.
    if peer == 1 {
        let pid = ["/run/docker.pid", "/var/run/docker.pid"]
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
            .find(|pid| is_dockerd(*pid));
        if let Some(pid) = pid {
            let because = format!("{shown} is opened by systemd for dockerd, process {pid} by docker.pid");
            return Ok(described(pid, because));
        }
    }
    let name = std::fs::read_to_string(format!("/proc/{peer}/comm")).unwrap_or_default();
    Err(format!("{shown} is served by {} (process {peer}), not by a dockerd of this system", name.trim()))
}

/// Elsewhere the daemon is never a process of this machine.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unused_async, reason = "the same signature as on Linux")]
pub(crate) async fn daemon(socket: &Path) -> Result<Daemon, String> {
    Err(format!("{} leads into a virtual machine", socket.display()))
}

#[cfg(target_os = "linux")]
fn is_dockerd(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "dockerd")
}

/// Whether the process `pid` is a dockerd that has not ended.
#[cfg(target_os = "linux")]
pub(crate) fn is_running(pid: Option<u32>) -> bool {
    // A process that ended and was not waited for has a name and no arguments.
    let arguments = |pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pid.is_some_and(|pid| is_dockerd(pid) && !arguments(pid).is_empty())
}

/// When the process `pid` began, in the kernel's own count: with its number it names a process, also where numbers are
/// used again.
#[cfg(target_os = "linux")]
pub(crate) fn began(pid: Option<u32>) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid?)).ok()?;
    // proc(5): the 22nd field; the second one is a name in brackets that may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Elsewhere the daemon is never a process of this machine.
#[cfg(not(target_os = "linux"))]
pub(crate) fn began(_pid: Option<u32>) -> Option<u64> {
    None
}

/// Elsewhere the daemon is never a process of this machine.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_running(_pid: Option<u32>) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn described(pid: u32, because: String) -> Daemon {
    use std::os::unix::fs::MetadataExt as _;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let arguments: Vec<String> = std::fs::read(proc.join("cmdline"))
        .unwrap_or_default()
        .split(|b| *b == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let unit = std::fs::read_to_string(proc.join("cgroup")).ok().and_then(|text| unit_of(&text));
    let uid = std::fs::metadata(&proc).ok().map(|metadata| metadata.uid());
    Daemon { pid, flags: Flags::parse(&arguments), arguments, unit, uid, because }
}

/// The sockets on which the dockerds of this machine listen, by their command lines, each with a line of evidence. A
/// socket of another file system, such as that of a dockerd in a container, cannot be reached by that name and is left out.
#[cfg(target_os = "linux")]
pub(crate) fn sockets() -> Vec<(PathBuf, String)> {
    use std::os::unix::fs::MetadataExt as _;
    let same_file = |one: &Path, other: &Path| {
        let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        id(one).is_some() && id(one) == id(other)
    };
    let mut found = Vec::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| is_dockerd(*pid))
    {
        let daemon = described(pid, format!("dockerd, process {pid}, runs on this machine"));
        for host in &daemon.flags.hosts {
            let Some(socket) = crate::context::socket_of(host) else { continue };
            let inside = PathBuf::from(format!("/proc/{pid}/root{}", socket.display()));
            if same_file(&socket, &inside) {
                found.push((socket, daemon.because.clone()));
            }
        }
    }
    found
}

/// Elsewhere the daemon is never a process of this machine.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sockets() -> Vec<(PathBuf, String)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        Flags::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn both_spellings_of_a_flag_are_understood() {
        let spaced = flags("/usr/bin/dockerd --config-file /a/daemon.json --registry-mirror http://a -D");
        let joined = flags("/usr/bin/dockerd --config-file=/a/daemon.json --registry-mirror=http://a -D");
        assert_eq!(spaced, joined, "pflag takes both");
        assert_eq!(spaced.config_file, Some(PathBuf::from("/a/daemon.json")), "the file the daemon reads");
        assert_eq!(spaced.mirrors, ["http://a"], "a mirror that would collide with the file's");
    }

    #[test]
    fn repeated_mirrors_are_all_kept_and_other_flags_are_ignored() {
        let found =
            flags("dockerd -H fd:// --registry-mirror=http://a --registry-mirror=http://b --containerd=/x");
        assert_eq!(found.mirrors, ["http://a", "http://b"], "each is one mirror");
        assert_eq!(found.config_file, None, "the default file applies");
        assert_eq!(
            flags("dockerd --config-file").config_file,
            None,
            "a flag without its value names no file"
        );
    }

    #[test]
    fn the_sockets_a_daemon_listens_on_are_known_in_every_spelling() {
        let found =
            flags("dockerd -H unix:///a -Hunix:///b --host unix:///c --host=tcp://127.0.0.1:1 -H=fd://");
        assert_eq!(found.hosts, ["unix:///a", "unix:///b", "unix:///c", "tcp://127.0.0.1:1", "fd://"]);
        assert!(flags("dockerd").hosts.is_empty(), "the usual socket");
    }

    #[test]
    fn the_unit_is_read_from_both_cgroup_versions() {
        assert_eq!(
            unit_of("0::/system.slice/docker.service\n").as_deref(),
            Some("docker.service"),
            "version 2"
        );
        let v1 = "12:cpuset:/\n1:name=systemd:/system.slice/snap.docker.dockerd.service\n";
        assert_eq!(unit_of(v1).as_deref(), Some("snap.docker.dockerd.service"), "version 1");
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-1.scope\n"), None, "started by hand");
        assert_eq!(unit_of("0::/system.slice/ssh.service\n"), None, "started from another service");
    }
}
