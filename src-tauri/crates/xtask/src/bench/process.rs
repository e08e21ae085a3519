//! Programs started for a measurement, ended by their own process id; and what /proc says about them.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
pub(crate) use rustix::process::Signal;

/// How long a program may take to end after SIGTERM. dockerd is the slow one.
const GRACE: Duration = Duration::from_secs(20);

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts it with both outputs appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child })
    }

    /// Starts it, and waits for the first line it writes to standard output; how long that took, from before the start.
    /// Standard error is appended to `log`.
    ///
    /// # Errors
    /// It ends without a line.
    pub(crate) fn start_until_line(command: &mut Command, log: &Path) -> Result<(Self, Duration)> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        let begun = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let mut running = Self { child };
        let mut line = String::new();
        if let Some(output) = running.child.stdout.as_mut() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let took = begun.elapsed();
        if line.is_empty() {
            bail!("{} has ended:\n{}", command.get_program().to_string_lossy(), tail(log));
        }
        Ok((running, took))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it is ready; an error, with the end of its log, when it ends first or takes too long.
    pub(crate) fn ready(
        &mut self,
        what: &str,
        log: &Path,
        limit: Duration,
        mut done: impl FnMut() -> bool,
    ) -> Result<()> {
        let mut ended = false;
        let waited = wait_until(limit, || {
            ended = !self.is_alive();
            ended || done()
        });
        if ended || waited.is_err() {
            bail!("{what} {}:\n{}", if ended { "has ended" } else { "does not answer" }, tail(log));
        }
        Ok(())
    }

    /// SIGKILL: no goodbye. Waits for the end.
    pub(crate) fn kill(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then after a grace period SIGKILL; waits for the end.
    pub(crate) fn stop(&mut self) {
        if !self.is_alive() {
            return;
        }
        signal(self.pid(), Signal::TERM);
        if wait_until(GRACE, || !self.is_alive()).is_err() {
            self.kill();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal to a process known to be ours. One that has ended just now is no error: whoever waits for it will see.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Asks again and again; an error when the time is over.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > limit {
            bail!("nothing after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether a registry answers `GET /v2/` with 200 on this loopback port.
pub(crate) fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(
            format!("GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// The last lines of a log, for the error about its program.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
}

/// A process and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    {
        if let Some(stat) = Stat::of(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Whether this process exists (and is not merely waiting to be collected).
pub(crate) fn exists(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.state != 'Z')
}

/// Proportional set size of these processes together, in bytes: shared pages counted once among those who share them.
pub(crate) fn pss_bytes(pids: &[u32]) -> u64 {
    let kilobytes = |pid: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))?
            .trim()
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    };
    pids.iter().filter_map(kilobytes).sum::<u64>() * 1024
}

/// The most memory this process ever had resident (VmHWM), in bytes.
pub(crate) fn peak_rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The memory this process has resident now (VmRSS), in bytes.
pub(crate) fn rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// Has [`peak_rss_bytes`] begin anew from what is resident now (proc(5), clear_refs).
pub(crate) fn forget_peak_rss(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the kernel does not forget peaks of memory")
}

fn status_bytes(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// CPU time these processes have used, user and system, in clock ticks (100 a second on every Linux there is: USER_HZ).
pub(crate) fn cpu_ticks(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|&pid| Stat::of(pid)).map(|stat| stat.ticks).sum()
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc(5): the name, in parentheses, may itself hold spaces and parentheses; all after the last one is regular.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.rsplit_once(") ")?.1.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_full_of_parentheses_is_read_past() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 130 20 5 5 20 0 1 0 100 1 1";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', parent: 7, ticks: 150 }));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn a_start_lasts_until_the_first_line() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        let (mut child, took) = Running::start_until_line(
            command.args(["-c", "sleep 0.2; echo ready; exec sleep 60"]),
            log.path(),
        )
        .unwrap();
        assert!(took >= Duration::from_millis(200), "the line comes late: {took:?}");
        assert!(child.is_alive(), "it goes on after its line");
        assert!(Running::start_until_line(&mut Command::new("true"), log.path()).is_err(), "no line");
    }

    #[test]
    fn a_child_belongs_to_the_tree_until_it_is_stopped() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = Running::start(Command::new("sleep").arg("60"), log.path()).unwrap();
        let pid = child.pid();
        assert!(tree(std::process::id()).contains(&pid), "started by us");
        assert!(exists(pid));
        assert!(pss_bytes(&[pid]) > 0, "a process takes memory");
        assert!(peak_rss_bytes(pid) > Some(0), "and took some before");
        assert!(rss_bytes(pid) <= peak_rss_bytes(pid), "a peak is the most there was");
        child.stop();
        assert!(!exists(pid), "ended and collected");
    }
}
