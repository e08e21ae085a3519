//! One measurement each: speed and processor time of a blob, of manifests; memory with many downloads at once.

use std::{
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::bed::Server;
use crate::{
    bench::{
        image::MANIFEST_TYPE,
        link::report::megabytes,
        process::{cpu_ticks, forget_peak_rss, peak_rss_bytes, pss_bytes, rss_bytes},
        wire::Connection,
    },
    shell,
};

/// Between two looks at a server's memory.
const GLANCE: Duration = Duration::from_millis(100);
/// What every download leaves until all have got so far: so all are open at once.
const LAST_BYTES: u64 = 1 << 20;

/// Downloads of a blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob {
    /// Of all connections together, by the clock on the wall.
    pub(super) gigabytes_per_second: f64,
    /// The server's processor time.
    pub(super) cpu_per_gigabyte: f64,
}

/// Each connection downloads the whole blob so many times; every byte is counted.
///
/// # Errors
/// An answer that is none, or not as long as the blob.
#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
pub(super) fn blob(
    server: &Server,
    path: &str,
    size: u64,
    connections: usize,
    rounds: usize,
) -> Result<Blob> {
    let mut open = (0..connections).map(|_| Connection::open(server.port)).collect::<Result<Vec<_>>>()?;
    let cpu = cpu_seconds(server);
    let begun = Instant::now();
    thread::scope(|scope| {
        let readers: Vec<_> = open
            .iter_mut()
            .map(|connection| {
                scope.spawn(move || (0..rounds).try_for_each(|_| whole(connection.get(path, |_| ())?, size)))
            })
            .collect();
        readers.into_iter().try_for_each(joined)
    })
    .with_context(|| format!("{}, {connections} connections", server.name))?;
    let time = begun.elapsed().as_secs_f64();
    let gigabytes = (size * (connections * rounds) as u64) as f64 / 1e9;
    Ok(Blob {
        gigabytes_per_second: gigabytes / time,
        cpu_per_gigabyte: (cpu_seconds(server) - cpu) / gigabytes,
    })
}

/// Requests for a manifest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manifests {
    pub(super) per_second: f64,
    /// The server's processor time for one.
    pub(super) cpu_milliseconds: f64,
}

/// As many requests as 32 connections can make in five seconds.
///
/// # Errors
/// Any answer but a good one.
pub(super) fn manifests(server: &Server, path: &str) -> Result<Manifests> {
    let cpu = cpu_seconds(server);
    let text = shell::output(
        Command::new("wrk")
            // A slow answer is a slow answer, not an error.
            .args(["-t2", "-c32", "-d5s", "--timeout", "30s"])
            .args(["-H", &format!("Accept: {MANIFEST_TYPE}")])
            .arg(format!("http://127.0.0.1:{}{path}", server.port)),
    );
    let spent = cpu_seconds(server) - cpu;
    let said = text.as_deref().and_then(Said::parse).context("wrk has failed")?;
    if said.trouble {
        bail!("{}: some answers were none, or errors:\n{}", server.name, text.unwrap_or_default());
    }
    Ok(Manifests { per_second: said.per_second, cpu_milliseconds: spent * 1e3 / said.requests })
}

/// What wrk says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    requests: f64,
    per_second: f64,
    /// It saw a status outside 2xx and 3xx, or a socket broke.
    trouble: bool,
}

impl Said {
    fn parse(text: &str) -> Option<Self> {
        let requests = text.lines().find_map(|line| line.split_once(" requests in "))?.0;
        let per_second = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
        Some(Self {
            requests: requests.trim().parse().ok().filter(|requests| *requests > 0.0)?,
            per_second: per_second.trim().parse().ok()?,
            trouble: text.contains("Non-2xx or 3xx responses:") || text.contains("Socket errors:"),
        })
    }
}

/// Memory of a server and its children, in megabytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) rss_before: f64,
    /// The kernel's own record of it (VmHWM), begun anew before the downloads.
    pub(super) rss_peak: f64,
    /// By looking now and then.
    pub(super) pss_peak: f64,
}

/// All connections download the whole blob at the same time: none begins before all are connected, and none takes the
/// last megabyte before all have come so far.
///
/// # Errors
/// As [`blob`]; or the kernel does not keep peaks.
pub(super) fn memory(server: &Server, path: &str, size: u64, downloads: usize) -> Result<Memory> {
    let pids = &server.pids;
    pids.iter().try_for_each(|&pid| forget_peak_rss(pid))?;
    let rss_before = sum(pids, rss_bytes);
    let (gate, done) = (Barrier::new(downloads), AtomicUsize::new(0));
    let mut sampled = (rss_before, 0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..downloads)
            .map(|_| {
                let (gate, done) = (&gate, &done);
                scope.spawn(move || {
                    let result = together(server.port, path, size, gate);
                    done.fetch_add(1, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < downloads {
            sampled = (sampled.0.max(sum(pids, rss_bytes)), sampled.1.max(pss_bytes(pids)));
            thread::sleep(GLANCE);
        }
        readers.into_iter().try_for_each(joined)
    })
    .with_context(|| format!("{}, {downloads} downloads at once", server.name))?;
    Ok(Memory {
        rss_before: megabytes(rss_before),
        rss_peak: megabytes(sum(pids, peak_rss_bytes).max(sampled.0)),
        pss_peak: megabytes(sampled.1),
    })
}

/// One of many downloads. Also a failed one comes to both gates: nobody waits for it in vain.
fn together(port: u16, path: &str, size: u64, gate: &Barrier) -> Result<()> {
    let connection = Connection::open(port);
    gate.wait();
    let nearly = connection.and_then(|mut connection| {
        whole(connection.ask(path)?, size)?;
        connection.take(size.saturating_sub(LAST_BYTES), |_| ())?;
        Ok(connection)
    });
    gate.wait();
    nearly?.take(LAST_BYTES, |_| ())
}

fn whole(got: u64, size: u64) -> Result<()> {
    if got == size { Ok(()) } else { bail!("{got} bytes instead of {size}") }
}

fn joined(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a client panicked"))?
}

fn sum(pids: &[u32], bytes: impl Fn(u32) -> Option<u64>) -> u64 {
    pids.iter().filter_map(|&pid| bytes(pid)).sum()
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn cpu_seconds(server: &Server) -> f64 {
    cpu_ticks(&server.pids) as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 5s test @ http://127.0.0.1:1/x\n  2 threads and 32 connections\n  141234 requests in 5.00s, 51.26MB read\nRequests/sec:  28246.80\nTransfer/sec:     10.25MB\n";

    #[test]
    fn what_wrk_says_is_read_and_its_complaints_are_heard() {
        let good = Said::parse(GOOD).unwrap();
        assert_eq!(good, Said { requests: 141_234.0, per_second: 28_246.8, trouble: false });
        let errors = format!("{GOOD}  Non-2xx or 3xx responses: 3\n");
        assert!(Said::parse(&errors).unwrap().trouble);
        let broken = format!("{GOOD}  Socket errors: connect 0, read 1, write 0, timeout 0\n");
        assert!(Said::parse(&broken).unwrap().trouble);
        assert_eq!(Said::parse("unable to connect"), None);
    }
}
