//! How fast a hit is: one big blob, a manifest by tag and by digest, and memory with many downloads at once; from Sampan,
//! from docker-registry (pull-through proxy) and from nginx with sendfile, in turns, all warm, all on loopback. The ratios
//! count: the clients run on the same processors. Start reading at [`run`], then [`bed::Bed`] and [`measure`].

mod bed;
mod measure;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use self::bed::{Bed, NGINX, REGISTRY, SAMPAN};
use crate::{
    bench::{
        goal::{Goal, Goals, quotients},
        link::report::{figure, table},
        mirror, wire,
    },
    environment::Environment,
    packages::{ENGINE, HITS},
    system,
};

/// What to measure, how often.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How many times each is measured.
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// The `sampan` to measure. Default: built from here, release.
    #[arg(long)]
    sampan: Option<PathBuf>,
    /// The size of the blob; the goals are for 1024.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Downloads at once while memory is watched; the goal is for 32.
    #[arg(long, default_value_t = 32)]
    downloads: usize,
}

/// Connections that fetch the blob, and how often each does: one connection alone is done too soon for a clock that
/// ticks a hundred times a second.
const BLOB: [(usize, usize); 2] = [(1, 4), (8, 1)];
/// By what a manifest is asked for.
const BY: [&str; 2] = ["digest", "tag"];

/// Measures and prints.
///
/// # Errors
/// A program is missing, an answer was wrong or short, or something was fetched again. A missed goal is no error.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    if options.reps == 0 || options.mebibytes == 0 || options.downloads == 0 {
        bail!("that measures nothing");
    }
    system::require(environment, &[ENGINE, HITS], false)?;
    let sampan = mirror::sampan(environment, options.sampan.as_deref())?;
    let folder = tempfile::Builder::new().prefix("sampan-hits.").tempdir()?;
    let bed = Bed::make(environment, folder.path(), sampan, options.mebibytes)?;
    let mut sheet = Sheet::default();
    for rep in 0..options.reps {
        eprintln!("  {:>2}/{}", rep + 1, options.reps);
        turn(&bed, rep, options.downloads, &mut sheet)?;
    }
    bed.check()?;
    println!(
        "One blob of {} MiB and its manifest, {} times each in turns, all warm, on loopback, clients on the same \
         processors; median (least to most)",
        options.mebibytes, options.reps
    );
    println!(
        "Clients: for blobs this program's own ({} KiB at a time, checked by length; by digest before and after), for \
         manifests wrk -t2 -c32\n",
        wire::BUFFER_BYTES / 1024
    );
    sheet.print();
    println!();
    judge(&sheet);
    Ok(())
}

/// Everything once, by every server. Whoever comes first meets the colder processor: they take turns at it.
fn turn(bed: &Bed, rep: usize, downloads: usize, sheet: &mut Sheet) -> Result<()> {
    let mut order = [0, 1, 2];
    order.rotate_left(rep % 3);
    let servers: Vec<_> = order.iter().filter_map(|&index| bed.servers.get(index)).collect();
    for (connections, rounds) in BLOB {
        for server in &servers {
            let blob = measure::blob(server, &bed.paths.blob, bed.size, connections, rounds)?;
            sheet.add(format!("blob x{connections}, GB/s"), 2, server.name, blob.gigabytes_per_second);
            sheet.add(format!("blob x{connections}, CPU s/GB"), 3, server.name, blob.cpu_per_gigabyte);
        }
    }
    for (by, path) in BY.into_iter().zip([&bed.paths.by_digest, &bed.paths.by_tag]) {
        for server in &servers {
            let manifests = measure::manifests(server, path)?;
            sheet.add(format!("manifest by {by}, per s"), 0, server.name, manifests.per_second);
            sheet.add(format!("manifest by {by}, CPU ms"), 4, server.name, manifests.cpu_milliseconds);
        }
    }
    for server in &servers {
        let memory = measure::memory(server, &bed.paths.blob, bed.size, downloads)?;
        sheet.add("RSS before, MB".to_owned(), 1, server.name, memory.rss_before);
        sheet.add(format!("RSS peak, {downloads} downloads, MB"), 1, server.name, memory.rss_peak);
        sheet.add(format!("PSS peak, {downloads} downloads, MB"), 1, server.name, memory.pss_peak);
    }
    Ok(())
}

fn judge(sheet: &Sheet) {
    let mut goals = Goals::default();
    let mut ratio = |what: &str, other: &str, goal| {
        let name = format!("{what}: sampan / {other}");
        goals.judge(&name, quotients(sheet.of(what, SAMPAN), sheet.of(what, other)), goal);
    };
    for (connections, _) in BLOB {
        let cpu = format!("blob x{connections}, CPU s/GB");
        ratio(&cpu, REGISTRY, Goal::AtMost(0.25));
        ratio(&cpu, NGINX, Goal::AtMost(1.5));
        let speed = format!("blob x{connections}, GB/s");
        ratio(&speed, REGISTRY, Goal::AtLeast(1.5));
        ratio(&speed, NGINX, Goal::AtLeast(0.8));
    }
    for by in BY {
        let rate = format!("manifest by {by}, per s");
        ratio(&rate, REGISTRY, Goal::AtLeast(20.0));
        ratio(&rate, NGINX, Goal::AtLeast(0.5));
    }
    for row in sheet.rows.iter().filter(|row| row.what.starts_with("RSS peak")) {
        let values = sheet.of(&row.what, SAMPAN).iter().copied();
        goals.judge(&format!("{}: sampan", row.what), values, Goal::AtMost(80.0));
    }
    goals.end();
}

/// All figures, by what they are of and by server, in the order they came in.
#[derive(Debug, Default)]
struct Sheet {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    digits: usize,
    values: Vec<(&'static str, Vec<f64>)>,
}

impl Sheet {
    fn add(&mut self, what: String, digits: usize, server: &'static str, value: f64) {
        eprintln!("        {what:<32} {server:<16} {value:.digits$}");
        let index = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            let values = [NGINX, REGISTRY, SAMPAN].map(|name| (name, Vec::new())).to_vec();
            self.rows.push(Row { what, digits, values });
            self.rows.len() - 1
        });
        let row = self.rows.get_mut(index);
        let cell = row.and_then(|row| row.values.iter_mut().find(|(name, _)| *name == server));
        if let Some((_, values)) = cell {
            values.push(value);
        }
    }

    /// What one server was measured at, turn by turn.
    fn of(&self, what: &str, server: &str) -> &[f64] {
        let row = self.rows.iter().find(|row| row.what == what);
        let cell = row.and_then(|row| row.values.iter().find(|(name, _)| *name == server));
        cell.map(|(_, values)| values.as_slice()).unwrap_or_default()
    }

    fn print(&self) {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let cells = row.values.iter().map(|(_, values)| figure(values.iter().copied(), row.digits));
                std::iter::once(row.what.clone()).chain(cells).collect()
            })
            .collect();
        table(&["", NGINX, REGISTRY, SAMPAN], &rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_keeps_turns_apart_by_server() {
        let mut sheet = Sheet::default();
        sheet.add("a".to_owned(), 1, SAMPAN, 1.0);
        sheet.add("a".to_owned(), 1, NGINX, 2.0);
        sheet.add("a".to_owned(), 1, SAMPAN, 3.0);
        assert_eq!(sheet.of("a", SAMPAN), [1.0, 3.0]);
        assert_eq!(sheet.of("a", NGINX), [2.0]);
        assert_eq!(sheet.of("a", REGISTRY), [0.0; 0], "not measured");
        assert_eq!(sheet.of("b", SAMPAN), [0.0; 0]);
    }
}
