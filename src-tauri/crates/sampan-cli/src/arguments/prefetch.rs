//! What may be written after `sampan pull`, `queue`, `keep` and `verify-offline`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sampan_app::api::{Metered, QuietChange};

use super::Format;

/// How `sampan pull` and `sampan verify-offline` end.
pub(crate) const PULL_EXIT_CODES: &str = "Exit codes: 0 all of them are in the cache, 1 one of them is not (it failed, was cancelled, or was not waited \
     for), 2 wrong use, or a file that cannot be read, 3 Sampan is not running.";
/// The same for the checklist.
pub(crate) const VERIFY_EXIT_CODES: &str = "Exit codes: 0 every point holds, 1 one does not, 2 wrong use, or a file that cannot be read, 3 Sampan is not running.";

/// Which images, named or in files.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// nginx, nginx:1.27, ghcr.io/owner/name@sha256:…
    #[arg(value_name = "IMAGE", required_unless_present = "files")]
    pub(crate) names: Vec<String>,
    /// A compose file (the images of its services, and what those that are built are built from) or a Dockerfile; may be
    /// given several times
    #[arg(long = "file", short = 'f', value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// linux/amd64, linux/arm64, …, or all; without it this machine's. A platform that a file names stays
    #[arg(long, value_name = "OS/ARCH|all")]
    pub(crate) platform: Option<String>,
}

/// What to fetch ahead, and how.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Pull {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Pin them once they are there: they never make way
    #[arg(long)]
    pub(crate) pin: bool,
    /// Do not wait for the quiet hours, or for a link that is not metered
    #[arg(long)]
    pub(crate) now: bool,
    /// Only put them in the queue
    #[arg(long)]
    pub(crate) background: bool,
    /// Print one JSON document a line: each image whenever something of it changes
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with the queue.
#[derive(Args, Debug)]
pub(crate) struct Queue {
    /// Fetch ahead only in these hours, local time: 22:00-06:00, or off
    #[arg(long, value_name = "FROM-TO|off")]
    pub(crate) quiet_hours: Option<QuietChange>,
    /// Whether the link is paid for by the byte: then nothing is fetched that nobody waits for
    #[arg(long, value_name = "auto|on|off")]
    pub(crate) metered: Option<Metered>,
    /// What to do
    #[command(subcommand)]
    pub(crate) what: Option<QueueCommand>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// A change of the queue.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum QueueCommand {
    /// Take images out of the queue by their numbers; what was fetched of them stays in the cache
    Cancel {
        /// Numbers from `sampan queue`
        #[arg(value_name = "NUMBER", required_unless_present = "all")]
        ids: Vec<u64>,
        /// All that have not ended
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Try images again at once
    Retry {
        /// Numbers from `sampan queue`
        #[arg(value_name = "NUMBER", required = true)]
        ids: Vec<u64>,
    },
    /// Stop fetching ahead; pulls go on
    Pause,
    /// Go on
    Resume,
}

/// What to keep fresh.
#[derive(Subcommand, Debug)]
pub(crate) enum Keep {
    /// Ask for images again each night
    Add(Fresh),
    /// Ask for them no longer; what is in the cache stays
    Remove(Fresh),
    /// Show what is kept fresh, and what moved
    List(Format),
}

/// Images that are kept fresh.
#[derive(Args, Debug)]
pub(crate) struct Fresh {
    /// nginx:1.27, ghcr.io/owner/name:tag
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) names: Vec<String>,
    /// linux/amd64, linux/arm64, …, or all; without it this machine's
    #[arg(long, value_name = "OS/ARCH|all")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What to look at.
#[derive(Args, Debug)]
pub(crate) struct VerifyOffline {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) format: Format,
}
