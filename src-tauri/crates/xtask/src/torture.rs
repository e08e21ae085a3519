//! `cargo xtask torture`: the tests that break things at random moments, for longer than the ordinary run has time.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use anyhow::Result;

use crate::{environment::Environment, shell};

/// What these tests read, in one place each (`sampan_tests::Torture`).
const POINTS: &str = "SAMPAN_TORTURE_POINTS";
const SEED: &str = "SAMPAN_TORTURE_SEED";

/// What `torture` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What is done to Sampan.
    #[arg(value_enum)]
    suite: Suite,
    /// How often [default: as often as SECURITY.md asks]
    #[arg(long, visible_aliases = ["seeds", "files"])]
    points: Option<u32>,
    /// Makes the choices of an earlier run again; its number is in that run's first line [default: a new one]
    #[arg(long)]
    seed: Option<u64>,
    /// Tortures the program as it is shipped: slower to build, quicker to run.
    #[arg(long)]
    release: bool,
}

/// What can be done to Sampan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// SIGKILL at any moment, of the real program under load
    Kill,
    /// Power cuts of a simulated disk that forgets and tears what was not synced
    Power,
    /// Damaged files, all of which the first read and a scrub have to find
    Damage,
}

/// The test behind a suite.
struct Test {
    package: &'static str,
    /// The test's file, or the folder whose `main.rs` it is.
    target: &'static str,
    /// The file in that folder.
    module: Option<&'static str>,
    names: &'static [&'static str],
    /// How often, where nothing is said.
    points: u32,
    /// Whether it starts `sampan`, which cargo builds for no other package's tests.
    starts_sampan: bool,
}

impl Suite {
    fn test(self) -> Test {
        match self {
            Self::Kill => Test {
                package: "sampan-tests",
                target: "real_kill",
                module: None,
                names: &["real_kills_at_any_moment_leave_nothing_wrong_and_lose_nothing_that_was_given"],
                points: 1000,
                starts_sampan: true,
            },
            Self::Power => Test {
                package: "sampan-store",
                target: "store",
                module: Some("power"),
                names: &[
                    "after_10_000_power_cuts_everything_acknowledged_is_there_and_nothing_else_is_believed",
                ],
                points: 10_000,
                starts_sampan: false,
            },
            Self::Damage => Test {
                package: "sampan-store",
                target: "store",
                module: Some("damage"),
                names: &[
                    "one_scrub_finds_every_one_of_10_000_damaged_files",
                    "the_first_read_finds_every_one_of_10_000_damaged_files",
                ],
                points: 10_000,
                starts_sampan: false,
            },
        }
    }
}

impl Test {
    /// Its tests, as the test program calls them.
    fn paths(&self) -> Vec<String> {
        let module = self.module.map_or_else(String::new, |module| format!("{module}::"));
        self.names.iter().map(|name| format!("{module}{name}")).collect()
    }
}

/// Runs a suite. Not by nextest, whose limit on a test's time is for the ordinary run.
///
/// # Errors
/// Something did not hold: the output says what, with the seed, and where the files are.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    let test = options.suite.test();
    let seed = options.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let points = options.points.unwrap_or(test.points);
    // Both commands choose the same packages: with others, dependencies would get other features and be built again.
    let mut packages = vec!["--package", test.package];
    if test.starts_sampan {
        packages.extend(["--package", "sampan-cli"]);
    }
    if options.release {
        packages.push("--release");
    }
    let target = ["--test", test.target];
    if test.starts_sampan {
        let build = ["build", "--locked", "--bins"];
        shell::run(shell::cargo(environment, build).args(&packages).args(target))?;
    }
    let mut command = shell::cargo(environment, ["test", "--locked"]);
    command.args(&packages).args(target).args(["--", "--nocapture", "--include-ignored", "--exact"]);
    command.args(test.paths());
    eprintln!("  {points} points, seed {seed}; again by --seed {seed}");
    shell::run(command.env(POINTS, points.to_string()).env(SEED, seed.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_suite_names_a_test_that_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap();
        for suite in Suite::value_variants() {
            let test = suite.test();
            let folder = if test.package == "sampan-tests" {
                root.join("tests")
            } else {
                root.join("src-tauri/crates").join(test.package)
            };
            let mut file = folder.join("tests").join(test.target);
            file.extend(test.module);
            let source = std::fs::read_to_string(file.with_extension("rs")).unwrap();
            for name in test.names {
                assert!(source.contains(&format!("fn {name}(")), "{suite:?}: {name}");
            }
        }
    }
}
