//! A big cache: how soon Sampan is ready with it, how soon much of it is gone when the quota is lowered and what hits
//! suffer meanwhile, and how long it takes without its index. The cache is filled in memory, where nothing waits for a
//! disk, and measured on the disk that holds the build. Start reading at [`run`], then [`make`],
//! [`start`] and [`evict`].

mod evict;
mod load;
mod make;
mod sampan;
mod start;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use clap::Args;

use self::{
    evict::Eviction,
    load::Pace,
    sampan::{Held, Sampan},
    start::Starts,
};
use crate::{
    bench::{
        goal::{Goal, Goals},
        link::report::{figure, megabytes, table},
        mirror::{self, Kind, Mirror},
    },
    environment::Environment,
    packages::{CACHE, ENGINE},
    shell, system,
};

/// How big, and how much of it goes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How many blobs the cache holds, manifests and configurations among them; the goals are for 100,000.
    #[arg(long, default_value_t = 100_000)]
    blobs: usize,
    /// How many go, at each of two evictions. Sampan goes down to nine tenths of its quota: less than a tenth never goes.
    #[arg(long, default_value_t = 10_000)]
    evict: usize,
    /// How many times each start is measured.
    #[arg(long, default_value_t = 3)]
    reps: usize,
    /// The `sampan` to measure. Default: built from here, release.
    #[arg(long)]
    sampan: Option<PathBuf>,
}

/// Measures and prints.
///
/// # Errors
/// A program is missing, the cache cannot be made, or a hit was none. A missed goal is no error.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    if options.reps == 0 || options.blobs < 1000 || options.evict >= options.blobs / 3 {
        bail!("at least 1000 blobs, of which at most a third go, measured at least once");
    }
    system::require(environment, &[ENGINE, CACHE], false)?;
    let program = mirror::sampan(environment, options.sampan.as_deref())?;
    // Not the system's folder for temporary files: that is often memory.
    let folder = tempfile::Builder::new().prefix("bench-cache.").tempdir_in(&environment.target)?;
    let folder = folder.path().join("sampan");
    let begun = Instant::now();
    let contents = make::fill(environment, &program, options.blobs, &folder)?;
    eprintln!("  made in {}", shell::spent(begun.elapsed()));

    let kind = Kind::Sampan { program: program.clone(), arguments: Vec::new() };
    // Nobody is behind it any more: what is not a hit is an error.
    let mut sampan =
        Sampan { mirror: Mirror::new(kind, folder.clone(), make::NOBODY.to_owned())?, program, folder };
    let starts = start::starts(&mut sampan, options.reps, &contents)?;
    sampan.mirror.start_timed()?;
    let held = sampan.held()?;
    let mut evictions = Vec::new();
    if sampan.knows_quota() {
        for pace in [Pace::Steady, Pace::FlatOut] {
            evictions.push((pace, evict::evict(&sampan, &contents, options.evict, pace)?));
        }
    } else {
        eprintln!("This sampan has no `cache --quota`: eviction is not measured.");
    }
    report(held, &starts, &evictions);
    Ok(())
}

fn report(held: Held, starts: &[Starts], evictions: &[(Pace, Eviction)]) {
    println!(
        "A cache of {} blobs, {:.0} MB, on disk; median (least to most)\n",
        held.blobs,
        megabytes(held.bytes)
    );
    let rows: Vec<_> = starts
        .iter()
        .map(|starts| vec![starts.found.to_owned(), figure(starts.seconds.iter().copied(), 2)])
        .collect();
    table(&["start with", "ready after, s"], &rows);
    let mut rows = Vec::new();
    for (pace, eviction) in evictions {
        rows.push(eviction.quiet.row(format!("{}, quiet", pace.name())));
        rows.push(eviction.meanwhile.row(format!("{}, evicting", pace.name())));
    }
    if !rows.is_empty() {
        println!("\n8 clients: 7 ask for small blobs, 1 for one of 64 MiB");
        table(&["hits", "small/s", "p50, ms", "p99, ms", "64 MiB/s", "p50, ms", "p99, ms"], &rows);
    }
    println!();
    let mut goals = Goals::default();
    for starts in starts {
        if let Some(goal) = starts.goal {
            goals.judge(&format!("start with {}, s:", starts.found), starts.seconds.iter().copied(), goal);
        }
    }
    for wanted in [Pace::Steady, Pace::FlatOut] {
        let eviction = evictions.iter().find(|(pace, _)| *pace == wanted).map(|(_, eviction)| eviction);
        let went = eviction.map_or_else(String::new, |eviction| {
            format!(" {} blobs, {:.0} MB", eviction.blobs, megabytes(eviction.bytes))
        });
        let name = wanted.name();
        let mut judge = |what: &str, value: &dyn Fn(&Eviction) -> f64, goal| {
            goals.judge(&format!("{name}: {what}"), eviction.map(value).into_iter(), goal);
        };
        judge(&format!("evicting{went}, s:"), &|eviction| eviction.time.as_secs_f64(), Goal::AtMost(5.0));
        match wanted {
            // The rate is given: what is slower shows in the time each hit takes.
            Pace::Steady => {
                judge(
                    "p50 of small hits, evicting / quiet",
                    &|e| e.meanwhile.small.p50 / e.quiet.small.p50,
                    Goal::AtMost(1.1),
                );
                judge(
                    "p50 of 64 MiB hits, evicting / quiet",
                    &|e| e.meanwhile.big.p50 / e.quiet.big.p50,
                    Goal::AtMost(1.1),
                );
            }
            Pace::FlatOut => {
                judge(
                    "small hits/s, evicting / quiet",
                    &|e| e.meanwhile.small.per_second / e.quiet.small.per_second,
                    Goal::AtLeast(0.9),
                );
                judge(
                    "64 MiB hits/s, evicting / quiet",
                    &|e| e.meanwhile.big.per_second / e.quiet.big.per_second,
                    Goal::AtLeast(0.9),
                );
            }
        }
    }
    goals.end();
}
