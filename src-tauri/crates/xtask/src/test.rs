//! `cargo xtask test`: what CI runs, in the order that finds mistakes soonest, up to the first failure.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{environment::Environment, node, packages, shell, system, tools};

/// What `test` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Installs missing system packages without asking.
    #[arg(long)]
    yes: bool,
    /// Runs one part only (and what it needs).
    #[arg(long, value_enum)]
    only: Option<Suite>,
    /// Arguments for the test runner, after `--`, such as a filter.
    #[arg(last = true)]
    runner: Vec<String>,
}

/// The parts, in the order they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// rustfmt
    Fmt,
    /// The page: types, unit tests, build
    Ui,
    /// Lints, warnings denied
    Clippy,
    /// Licences, bans and sources of the dependencies
    Deny,
    /// Programs and tests compile
    Build,
    /// rustdoc, warnings denied, and the examples in it
    Doc,
    /// All Rust tests, end-to-end included
    Nextest,
}

const ALL: [Suite; 7] =
    [Suite::Fmt, Suite::Ui, Suite::Clippy, Suite::Deny, Suite::Build, Suite::Doc, Suite::Nextest];

/// The crates whose documentation others build on. The desktop app and the tests are leaves.
const DOCUMENTED: [&str; 9] = [
    "sampan-oci",
    "sampan-store",
    "sampan-archive",
    "sampan-upstream",
    "sampan-mirror",
    "sampan-stats",
    "sampan-docker",
    "sampan-app",
    "sampan-testkit",
];

/// Runs the suites.
///
/// # Errors
/// The first that failed; its headline says which.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    let mut times = Vec::new();
    if options.only.is_none() {
        // Asked at the start, not after twenty minutes of building.
        require_all(environment, options)?;
    }
    for suite in chosen(options.only) {
        if suite == Suite::Nextest && times.len() > 1 {
            // The runner's own summary is the last thing on the screen, so the times come before it.
            summary(&times);
        }
        headline(title(suite));
        let begun = Instant::now();
        step(environment, options, suite)
            .with_context(|| format!("FAILED: {} (after {})", title(suite), shell::spent(begun.elapsed())))?;
        times.push((suite, begun.elapsed()));
        if suite != Suite::Nextest {
            eprintln!("  ok after {}", shell::spent(begun.elapsed()));
        }
    }
    Ok(())
}

/// Advisories need a database from the network, so they are a command of their own.
///
/// # Errors
/// A dependency has a known defect, or the database cannot be had.
pub(crate) fn audit(environment: &Environment) -> Result<()> {
    deny(environment, &["advisories"])
}

fn chosen(only: Option<Suite>) -> Vec<Suite> {
    match only {
        None => ALL.to_vec(),
        // The end-to-end tests start the programs.
        Some(Suite::Nextest) => vec![Suite::Build, Suite::Nextest],
        Some(suite) => vec![suite],
    }
}

fn title(suite: Suite) -> &'static str {
    match suite {
        Suite::Fmt => "formatting",
        Suite::Ui => "the page: types, unit tests, build",
        Suite::Clippy => "clippy",
        Suite::Deny => "licences, bans, sources",
        Suite::Build => "build",
        Suite::Doc => "documentation and its examples",
        Suite::Nextest => "tests",
    }
}

fn headline(text: &str) {
    eprintln!("\n==> {text}");
}

fn summary(times: &[(Suite, Duration)]) {
    eprintln!();
    for (suite, time) in times {
        eprintln!("  {:<38} {:>12}", title(*suite), shell::spent(*time));
    }
    eprintln!("  {:<38} {:>12}", "so far", shell::spent(times.iter().map(|(_, time)| *time).sum()));
}

fn step(environment: &Environment, options: &Options, suite: Suite) -> Result<()> {
    match suite {
        Suite::Fmt => shell::run(&mut shell::cargo(environment, ["fmt", "--all", "--check"])),
        Suite::Ui => {
            node::install(environment)?;
            node::script(environment, "check")?;
            node::script(environment, "test")?;
            node::build(environment)
        }
        Suite::Clippy => {
            prepare(environment, options)?;
            let words = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
            shell::run(&mut shell::cargo(environment, words))
        }
        Suite::Deny => deny(environment, &["bans", "licenses", "sources"]),
        Suite::Build => {
            prepare(environment, options)?;
            // Programs and tests in one go: asked for apart, they would be built with different sets of features,
            // and every dependency twice.
            shell::run(&mut shell::cargo(environment, ["build", "--locked", "--workspace", "--all-targets"]))
        }
        Suite::Doc => {
            prepare(environment, options)?;
            let mut doc = shell::cargo(environment, ["doc", "--locked", "--no-deps"]);
            for name in DOCUMENTED {
                doc.args(["--package", name]);
            }
            shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
            shell::run(&mut shell::cargo(
                environment,
                ["test", "--locked", "--workspace", "--doc", "--quiet"],
            ))
        }
        Suite::Nextest => tests(environment, options),
    }
}

/// What compiling the desktop app takes: system libraries, and the page that is embedded in it.
fn prepare(environment: &Environment, options: &Options) -> Result<()> {
    use packages::{DESKTOP_BUILD, ENGINE};
    system::require(environment, &[ENGINE, DESKTOP_BUILD], options.yes)?;
    node::build(environment)
}

fn require_all(environment: &Environment, options: &Options) -> Result<()> {
    use packages::{DESKTOP_BUILD, DESKTOP_RUN, ENGINE, TESTS};
    system::require(environment, &[ENGINE, DESKTOP_BUILD, DESKTOP_RUN, TESTS], options.yes)
}

fn tests(environment: &Environment, options: &Options) -> Result<()> {
    require_all(environment, options)?;
    if !environment.root {
        eprintln!(
            "  NOT run here: tests that start a container engine need root (`sudo -E cargo xtask test` runs them)."
        );
    }
    match tools::NEXTEST.obtain(environment) {
        Ok(nextest) => {
            let words = ["nextest", "run", "--locked", "--workspace"];
            shell::run(shell::tool(environment, &nextest).args(words).args(&options.runner))
        }
        Err(error) => {
            eprintln!("  {error:#}\n  going on with cargo test: slower, and without limits on time");
            let words = ["test", "--locked", "--workspace", "--lib", "--bins", "--tests"];
            shell::run(shell::cargo(environment, words).args(&options.runner))
        }
    }
}

fn deny(environment: &Environment, checks: &[&str]) -> Result<()> {
    let program = tools::DENY.obtain(environment)?;
    // Duplicate versions are worth a look now and then, not on every run: as warnings they stay in the configuration.
    let words = ["--locked", "--log-level", "error", "--config", ".deny.toml", "check"];
    shell::run(shell::tool(environment, &program).args(words).args(checks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_come_last_so_that_the_output_ends_with_their_summary() {
        assert_eq!(ALL.last(), Some(&Suite::Nextest));
        assert_eq!(chosen(Some(Suite::Nextest)).last(), Some(&Suite::Nextest));
    }

    #[test]
    fn one_suite_alone_is_that_suite() {
        assert_eq!(chosen(Some(Suite::Fmt)), [Suite::Fmt]);
        assert_eq!(chosen(None), ALL);
    }
}
