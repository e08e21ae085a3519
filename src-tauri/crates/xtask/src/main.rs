//! `cargo xtask`: the two commands of README.md, `run` and `test`, and what goes with them.
//! Owns how this repository is built, started, checked and measured. Never part of what is shipped, never
//! changes the system without saying what and why, and asking. Start reading at [`Task`].
#![expect(clippy::print_stdout, reason = "tables of results are what `cargo xtask bench` is for")]

mod environment;
mod helper;
mod node;
mod packages;
mod run;
mod shell;
mod stamp;
mod system;
mod test;
mod tools;
mod torture;

#[cfg(target_os = "linux")]
mod bench;

use std::process::ExitCode;

use clap::Parser;

use crate::environment::Environment;

/// Builds, starts, checks and measures Sampan.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Installs what is missing, builds, and starts the tray app (or the headless mirror, without a display).
    Run(run::Options),
    /// Installs what the tests need and runs everything CI runs.
    Test(test::Options),
    /// Looks for known vulnerabilities in the dependencies (fetches the RustSec database).
    Audit,
    /// Breaks things at random moments, and looks at what is left (Linux).
    Torture(torture::Options),
    /// Measures; prints a table.
    #[command(subcommand)]
    Bench(Bench),
}

/// What can be measured.
#[derive(clap::Subcommand)]
enum Bench {
    /// `docker pull` through Sampan and through docker-registry in turns, cold and warm (root, Linux).
    Pull {
        /// How many times each is measured.
        #[arg(long, default_value_t = 5)]
        reps: usize,
    },
    /// Memory and CPU of the idle app, before and after its window was open (Linux).
    Idle {
        /// Seconds over which CPU time is counted.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Hits at the speed of the machine: Sampan beside docker-registry and nginx, everything warm (Linux).
    #[cfg(target_os = "linux")]
    Hits(bench::hits::Options),
    /// A big cache: start-up, eviction under load, and making the index anew (Linux).
    #[cfg(target_os = "linux")]
    Cache(bench::cache::Options),
    /// Sampan beside docker, docker-registry and aria2c over a simulated slow, lossy link (root, Linux).
    #[cfg(target_os = "linux")]
    Link(Box<bench::link::Options>),
}

fn main() -> ExitCode {
    let environment = Environment::read();
    let result = match Task::parse() {
        Task::Run(options) => run::run(&environment, &options),
        Task::Test(options) => test::run(&environment, &options),
        Task::Audit => test::audit(&environment),
        Task::Torture(options) => torture::run(&environment, &options),
        Task::Bench(what) => bench(&environment, &what),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Headline first, then what led to it: a backtrace through xtask helps nobody.
            eprintln!("\nerror: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  {}", cause.to_string().replace('\n', "\n  "));
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn bench(environment: &Environment, what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Pull { reps } => bench::pull::run(environment, *reps),
        Bench::Idle { seconds } => bench::idle::run(environment, std::time::Duration::from_secs(*seconds)),
        Bench::Hits(options) => bench::hits::run(environment, options),
        Bench::Cache(options) => bench::cache::run(environment, options),
        Bench::Link(options) => bench::link::run(environment, options),
    }
}

#[cfg(not(target_os = "linux"))]
fn bench(_environment: &Environment, _what: &Bench) -> anyhow::Result<()> {
    anyhow::bail!("the benchmarks read /proc and start a dockerd: they run on Linux only")
}
