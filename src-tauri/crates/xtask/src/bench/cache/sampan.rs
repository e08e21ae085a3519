//! The Sampan that is measured, and what its command line is asked.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{bench::mirror::Mirror, shell};

/// What `sampan status` counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    /// The index and what else it keeps beside blobs, which the quota covers as well; 0 from one that does not tell.
    pub(super) own_bytes: u64,
}

/// The Sampan that is measured, and its command line.
#[derive(Debug)]
pub(super) struct Sampan {
    pub(super) mirror: Mirror,
    pub(super) program: PathBuf,
    /// `cache` and `state` are in there.
    pub(super) folder: PathBuf,
}

impl Sampan {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state-dir").arg(self.folder.join("state"));
        for name in ["HOME", "XDG_CONFIG_HOME"] {
            command.env(name, &self.folder);
        }
        command
    }

    /// What it holds now, as it says itself.
    pub(super) fn held(&self) -> Result<Held> {
        let text =
            shell::output(self.command().args(["status", "--json"])).context("`sampan status` failed")?;
        let status: Value = serde_json::from_str(&text)?;
        let number = |name: &str| {
            status.pointer(name).and_then(Value::as_u64).with_context(|| format!("no {name} in the status"))
        };
        Ok(Held {
            blobs: number("/cache/blobs")?,
            bytes: number("/cache/size_bytes")?,
            own_bytes: number("/cache/own_bytes").unwrap_or(0),
        })
    }

    /// Whether this one can be told a quota.
    pub(super) fn knows_quota(&self) -> bool {
        shell::output(self.command().args(["cache", "--help"])).is_some_and(|text| text.contains("--quota"))
    }

    /// Takes effect at once.
    pub(super) fn lower_quota(&self, bytes: u64) -> Result<()> {
        self.quota(&bytes.to_string())
    }

    /// So that nothing goes but when it is measured.
    pub(super) fn lift_quota(&self) -> Result<()> {
        self.quota("off")
    }

    /// The one place that knows how a quota is told.
    fn quota(&self, size: &str) -> Result<()> {
        shell::output(self.command().args(["cache", "--quota", size]))
            .map(drop)
            .with_context(|| format!("`sampan cache --quota {size}` failed"))
    }
}
