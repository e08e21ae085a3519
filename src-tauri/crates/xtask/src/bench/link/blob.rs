//! One big blob: aria2c with sixteen range requests from the hub itself, and curl through a cold Sampan, in turns.
//! Sampan is asked for the blob alone, so it does not know the size beforehand, as aria2c does not.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    Peer,
    bed::{Bed, Traffic},
    images::Stored,
    report::{Measured, Times, Took, figure, megabytes, ratio, table},
};
use crate::bench::process::tail;

/// Who fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Aria2c,
    Sampan,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Aria2c => "aria2c x16",
            Self::Sampan => "sampan",
        }
    }
}

struct Fetch {
    by: By,
    took: Took,
    /// Until bytes were in the client's file.
    first: Option<Duration>,
    traffic: Traffic,
}

/// Measures and prints.
pub(crate) fn run(bed: &Bed, image: &Stored, reps: usize, give_up: Duration) -> Result<Measured> {
    let (digest, size) = &image.biggest;
    let path = format!("/v2/library/{}/blobs/{digest}", image.name);
    let mut sampan = bed.mirror(Peer::Sampan)?;
    let (mut fetches, mut failed) = (Vec::new(), Vec::new());
    for rep in 0..reps {
        let order = if rep % 2 == 0 { [By::Aria2c, By::Sampan] } else { [By::Sampan, By::Aria2c] };
        for by in order {
            let folder = bed.folder().join("blob");
            fs::create_dir_all(&folder)?;
            let mut command = match by {
                By::Aria2c => aria2c(&folder, &format!("{}{path}", Bed::origin())),
                By::Sampan => {
                    sampan.empty()?;
                    curl(&folder, &format!("http://127.0.0.1:{}{path}", sampan.port()))
                }
            };
            let mark = bed.mark()?;
            let log = folder.join("log");
            let (took, first) = fetch(&mut command, &folder, &log, give_up)?;
            // aria2c keeps what it receives in memory for a while: its file says nothing about the first byte.
            let first = first.filter(|_| by == By::Sampan);
            let traffic = bed.since(&mark)?;
            sampan.stop();
            let took = check(took, &folder, digest);
            eprintln!(
                "  {:>2}/{reps} {:<12} {:8.2} s  {}",
                rep + 1,
                by.name(),
                took.seconds(),
                took.outcome()
            );
            if let Took::Failed(_) = took {
                failed.push(format!("{}: {}", by.name(), tail(&log)));
            }
            fs::remove_dir_all(&folder)?;
            fetches.push(Fetch { by, took, first, traffic });
        }
    }
    Ok(report(&fetches, *size, reps, failed))
}

fn report(fetches: &[Fetch], size: u64, reps: usize, failed: Vec<String>) -> Measured {
    println!("one blob of {:.1} MB, {reps} times each in turns; median (least to most)", megabytes(size));
    let of = |by: By| fetches.iter().filter(move |fetch| fetch.by == by);
    let times = |by: By| Times::of(of(by).map(|fetch| fetch.took));
    let rows: Vec<_> = [By::Aria2c, By::Sampan]
        .into_iter()
        .map(|by| {
            let rate = of(by).map(|fetch| megabytes(fetch.traffic.arrived.min(size)) / fetch.took.seconds());
            vec![
                by.name().to_owned(),
                times(by).text(),
                figure(of(by).filter_map(|fetch| Some(fetch.first?.as_secs_f64())), 2),
                figure(rate, 2),
                figure(of(by).map(|fetch| fetch.traffic.arrived_by(size)), 3),
                figure(
                    of(by).map(|fetch| {
                        f64::from(u32::try_from(fetch.traffic.hub.streams_peak).unwrap_or(u32::MAX))
                    }),
                    0,
                ),
                figure(of(by).map(|fetch| fetch.traffic.streams_mean()), 1),
                figure(of(by).map(|fetch| fetch.traffic.again_percent()), 1),
            ]
        })
        .collect();
    table(
        &["", "seconds", "first byte, s", "MB/s", "arrived / blob", "streams most", "mean", "sent again, %"],
        &rows,
    );
    let ratio = ratio("aria2c x16", times(By::Aria2c), "sampan", times(By::Sampan));
    let runs: Vec<_> = fetches
        .iter()
        .map(|fetch| {
            json!({
                "by": fetch.by.name(),
                "seconds": fetch.took.seconds(),
                "first_byte_seconds": fetch.first.map(|first| first.as_secs_f64()),
                "outcome": fetch.took.outcome(),
                "traffic": fetch.traffic.to_json(size),
            })
        })
        .collect();
    Measured {
        json: json!({ "blob_bytes": size, "fetches": runs, "ratios": { "aria2c / sampan": ratio } }),
        failed,
    }
}

fn aria2c(folder: &Path, url: &str) -> Command {
    let mut command = Command::new("aria2c");
    command.args(["--no-conf", "--file-allocation=none", "--console-log-level=warn", "--summary-interval=0"]);
    command.args(["-x16", "-s16", "-k1M", "-o", "blob", "-d"]).arg(folder).arg(url);
    command
}

fn curl(folder: &Path, url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--disable", "--silent", "--show-error", "--fail", "-o"]).arg(folder.join("blob")).arg(url);
    command
}

fn fetch(
    command: &mut Command,
    folder: &Path,
    log: &Path,
    give_up: Duration,
) -> Result<(Took, Option<Duration>)> {
    let file = folder.join("blob");
    let output = fs::File::create(log)?;
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
    let mut first = None;
    loop {
        let ended = child.try_wait()?;
        let time = begun.elapsed();
        if first.is_none() && fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
            first = Some(time);
        }
        match ended {
            Some(status) if status.success() => return Ok((Took::All(time), first)),
            Some(_) => return Ok((Took::Failed(time), first)),
            None if time > give_up => {
                child.kill()?;
                child.wait()?;
                return Ok((Took::GivenUp(time), first));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A download that is not the blob has failed, whatever the client said.
fn check(took: Took, folder: &Path, digest: &str) -> Took {
    let right = || -> std::io::Result<bool> {
        let mut hash = Sha256::new();
        let mut file = fs::File::open(folder.join("blob"))?;
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(format!("sha256:{}", hex::encode(hash.finalize())) == digest);
            }
            hash.update(piece.get(..read).unwrap_or_default());
        }
    };
    match took {
        Took::All(time) if !right().unwrap_or(false) => Took::Failed(time),
        Took::All(_) | Took::GivenUp(_) | Took::Failed(_) => took,
    }
}
