//! `cargo xtask torture`: the tests that break things at random moments, for longer than the ordinary run has time.

mod docker;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{environment::Environment, shell};

/// What these tests read, in one place each (`sampan_tests::Torture`).
const POINTS: &str = "SAMPAN_TORTURE_POINTS";
const SEED: &str = "SAMPAN_TORTURE_SEED";

/// What `torture` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What is done to Sampan.
    #[arg(value_enum, default_value = "all")]
    suite: Suite,
    /// How often [default: as often as SECURITY.md asks]
    #[arg(long, visible_aliases = ["seeds", "files", "times", "megabytes", "inputs"])]
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
    /// All of the following, one after the other, whether or not they hold
    All,
    /// SIGKILL at any moment, of the real program under load
    Kill,
    /// Power cuts of a simulated disk that forgets and tears what was not synced
    Power,
    /// Damaged files, all of which the first read and a scrub have to find
    Damage,
    /// Damaged, cut, old and future index files: made anew from the blobs, or refused
    Index,
    /// SIGKILL while an index of an older version is brought up to date
    Migrate,
    /// SIGKILL of the real program right before calls that change the disk, a sample of each by name (strace)
    Points,
    /// So many megabytes of pulls through a cache on a disk of 64 MB that fills up (root)
    Full,
    /// Files nobody thought of as Docker's daemon.json
    Config,
    /// SIGKILL at any moment of a change of Docker's configuration, with a real dockerd (root)
    Apply,
    /// The privileged helper, called with arguments, surroundings and input that make no sense (root)
    Helper,
    /// Another user who swaps links and files while root edits (root)
    Links,
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
    /// What `all` is made of, the quick ones first.
    const EACH: [Self; 11] = [
        Self::Damage,
        Self::Index,
        Self::Migrate,
        Self::Power,
        Self::Full,
        Self::Apply,
        Self::Links,
        Self::Points,
        Self::Kill,
        Self::Config,
        Self::Helper,
    ];

    /// `None`: it is several.
    fn test(self) -> Option<Test> {
        let test = match self {
            Self::All => return None,
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
            Self::Index => Test {
                package: "sampan-store",
                target: "store",
                module: Some("mutated"),
                names: &["each_of_1_000_mutated_indexes_is_made_anew_or_refused"],
                points: 1000,
                starts_sampan: false,
            },
            Self::Migrate => Test {
                package: "sampan-store",
                target: "store",
                module: Some("migrating"),
                names: &["after_100_kills_in_a_migration_everything_is_there"],
                points: 100,
                starts_sampan: false,
            },
            Self::Points => Test {
                package: "sampan-tests",
                target: "real_kill",
                module: None,
                names: &["real_every_call_that_changes_the_disk_can_be_the_last"],
                points: 3,
                starts_sampan: true,
            },
            Self::Full => Test {
                package: "sampan-tests",
                target: "real_full",
                module: None,
                names: &["real_10_gb_of_pulls_through_a_disk_of_64_mb_are_all_right"],
                points: 10_000,
                starts_sampan: true,
            },
            Self::Config => docker::config(),
            Self::Apply => docker::apply(),
            Self::Helper => docker::helper(),
            Self::Links => docker::links(),
        };
        Some(test)
    }

    fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().into())
    }
}

impl Test {
    /// Its tests, as the test program calls them.
    fn paths(&self) -> Vec<String> {
        let module = self.module.map_or_else(String::new, |module| format!("{module}::"));
        self.names.iter().map(|name| format!("{module}{name}")).collect()
    }
}

/// Runs a suite, or all of them: then a failure of one does not stop the others.
///
/// # Errors
/// Something did not hold: the output says what, with the seed, and where the files are.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    if let Some(test) = options.suite.test() {
        return test.run(environment, options, seed);
    }
    let mut summary = Vec::new();
    for suite in Suite::EACH {
        let Some(test) = suite.test() else { continue };
        eprintln!("\n== torture {}", suite.name());
        let begun = Instant::now();
        let done = test.run(environment, options, seed);
        if let Err(error) = &done {
            eprintln!("error: {error:#}");
        }
        summary.push(Line { suite, held: done.is_ok(), took: begun.elapsed() });
    }
    eprintln!("\nseed {seed}");
    for line in &summary {
        eprintln!("{}", line.text());
    }
    let failed: Vec<String> =
        summary.iter().filter(|line| !line.held).map(|line| line.suite.name()).collect();
    if !failed.is_empty() {
        bail!("did not hold: {}", failed.join(", "));
    }
    Ok(())
}

/// What became of one suite of all.
struct Line {
    suite: Suite,
    held: bool,
    took: Duration,
}

impl Line {
    fn text(&self) -> String {
        let (name, seconds) = (self.suite.name(), self.took.as_secs());
        let verdict = if self.held { "held" } else { "DID NOT HOLD" };
        format!("  {name:<8} {verdict:<12} {:>3} min {:02} s", seconds / 60, seconds % 60)
    }
}

impl Test {
    /// Runs it. Not by nextest, whose limit on a test's time is for the ordinary run.
    fn run(&self, environment: &Environment, options: &Options, seed: u64) -> Result<()> {
        let points = options.points.unwrap_or(self.points);
        // Both commands choose the same packages: with others, dependencies would get other features and be built again.
        let mut packages = vec!["--package", self.package];
        if self.starts_sampan {
            packages.extend(["--package", "sampan-cli"]);
        }
        if options.release {
            packages.push("--release");
        }
        let target = ["--test", self.target];
        if self.starts_sampan {
            let build = ["build", "--locked", "--bins"];
            shell::run(shell::cargo(environment, build).args(&packages).args(target))?;
        }
        let mut command = shell::cargo(environment, ["test", "--locked"]);
        command.args(&packages).args(target).args(["--", "--nocapture", "--include-ignored", "--exact"]);
        command.args(self.paths());
        eprintln!("  {points} points, seed {seed}; again by --seed {seed}");
        shell::run(command.env(POINTS, points.to_string()).env(SEED, seed.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_suite_names_a_test_that_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap();
        for suite in Suite::EACH {
            let test = suite.test().unwrap();
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

    #[test]
    fn all_are_all_and_their_summary_says_which_did_not_hold() {
        let alone = Suite::value_variants().iter().filter(|suite| suite.test().is_some());
        assert_eq!(alone.count(), Suite::EACH.len());
        let line = |held| Line { suite: Suite::Kill, held, took: Duration::from_secs(754) }.text();
        assert_eq!(line(true), "  kill     held          12 min 34 s");
        assert!(line(false).contains("DID NOT HOLD"));
    }
}
