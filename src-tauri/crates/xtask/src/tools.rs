//! cargo-nextest and cargo-deny: those on the path, else built once into `<target>/tools`, so that nothing outside the
//! repository changes.

use std::{env, path::PathBuf};

use anyhow::Result;

use crate::{environment::Environment, shell};

/// The test runner.
pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.151",
    // Without the part that updates itself.
    features: &["--no-default-features", "--features", "default-no-update"],
};

/// The supply chain's judge.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2", features: &[] };

/// A cargo subcommand that is a program of its own.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    features: &'static [&'static str],
}

impl Tool {
    /// The program, built first if need be.
    ///
    /// # Errors
    /// It is not there and cannot be built.
    pub(crate) fn obtain(&self, environment: &Environment) -> Result<PathBuf> {
        if let Some(found) = environment.find(self.name) {
            return Ok(found);
        }
        let root = environment.target.join("tools");
        let program = root.join("bin").join(self.name).with_extension(env::consts::EXE_EXTENSION);
        if !program.is_file() {
            eprintln!(
                "{} is not installed: building {} into {} (once).",
                self.name,
                self.version,
                root.display()
            );
            // Unoptimised it is built in a third of the time, and runs for a second or two.
            let install =
                ["install", "--locked", "--debug", "--quiet", self.name, "--version", self.version, "--root"];
            shell::run(shell::cargo(environment, install).arg(&root).args(self.features))?;
        }
        Ok(program)
    }
}
