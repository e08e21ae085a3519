//! What a person may write after `sampan`.

use clap::{Args, Parser, Subcommand};
use sampan_app::Flags;
use sampan_app::api::{ClearSelection, SpeedLimit};

use crate::pause::parse_time;
use crate::speed::parse_limit;

/// Sampan keeps every image Docker pulls, so that no byte crosses a slow link twice.
///
/// `sampan serve` runs the mirror; the other commands ask the Sampan that runs already, be it `sampan serve` or the tray
/// app. With several on one machine, --state-dir says which one.
#[derive(Parser, Debug)]
#[command(name = "sampan", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 good, 1 failed, 2 wrong use or configuration, 3 Sampan is not running."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the mirror until it is told to end (Ctrl-C or SIGTERM)
    ///
    /// Prints one line when it is ready. Point Docker at the address in it with `"registry-mirrors"` in daemon.json, or
    /// let the tray app do that for you. The log goes to standard error; SAMPAN_LOG (or RUST_LOG) chooses how much:
    /// error, warn, info, debug.
    Serve,
    /// Show what Sampan does and has saved today
    Status(Format),
    /// List the images in the cache
    Images(Format),
    /// Remove images from the cache; shows what will go and asks first
    ///
    /// Removes whole images. Layers that images left in the cache also use stay. What is removed is fetched again by the
    /// next pull.
    Clear(Clear),
    /// Show the speed limit, set it, or lift it with `off`
    ///
    /// The limit is for all downloads together, holds at once for those under way, and stays until it is lifted. What is
    /// in the cache is served as fast as ever.
    Limit(Limit),
    /// Keep nothing new for a while, or until `sampan resume`
    ///
    /// Pulls pass through and are not kept. Downloads under way stop and keep the bytes they have; the next pull after the
    /// pause goes on from there. What is in the cache is still served.
    Pause(Pause),
    /// End a pause
    Resume(Format),
    /// Check everything that can be wrong, and say what to do about it
    ///
    /// Works without a running Sampan too: it then checks the configuration, the port and the folders.
    Doctor(Format),
}

/// How to show it.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Print one JSON document, for programs: sizes in bytes, times in milliseconds since 1970
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to clear, and how.
#[derive(Args, Debug)]
pub(crate) struct Clear {
    /// Images to remove: nginx (every tag), nginx:1.27, ghcr.io/owner/name@sha256:…
    #[arg(value_name = "IMAGE", required_unless_present_any = ["all", "unused_for"])]
    images: Vec<String>,
    /// Remove everything; downloads under way go on
    #[arg(long, conflicts_with_all = ["images", "unused_for"])]
    all: bool,
    /// Remove images that were not asked for in the last DAYS days
    #[arg(long, value_name = "DAYS", conflicts_with = "images", value_parser = clap::value_parser!(u32).range(1..))]
    unused_for: Option<u32>,
    /// Only show what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What the speed limit shall be, if it shall change.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// 2MB/s, 500 kB/s, 1.5 MiB/s, 16 Mbit/s: 10 kB/s or more, or off
    #[arg(value_name = "SPEED|off", value_parser = parse_limit)]
    pub(crate) speed: Option<SpeedLimit>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How long to pause.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// 15m, 1h, 90s, 1h 30m; without it, until `sampan resume`
    #[arg(value_name = "TIME", value_parser = parse_time)]
    pub(crate) seconds: Option<u32>,
    #[command(flatten)]
    pub(crate) format: Format,
}

impl Clear {
    /// What was chosen.
    pub(crate) fn selection(&self) -> ClearSelection {
        match self.unused_for {
            _ if self.all => ClearSelection::All,
            Some(days) => ClearSelection::UnusedFor { days },
            None => ClearSelection::Images { names: self.images.clone() },
        }
    }
}

/// `clear` would have to ask, and there is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error(
    "clearing asks first, and this is not a terminal. Give --yes to clear without asking, --dry-run to only look."
)]
pub(crate) struct NotAsked;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn clear(arguments: &[&str]) -> Result<ClearSelection, clap::Error> {
        let parsed = Arguments::try_parse_from(["sampan", "clear"].iter().chain(arguments))?;
        let Command::Clear(clear) = parsed.command else { panic!("`clear` was written") };
        Ok(clear.selection())
    }

    #[test]
    fn the_definitions_agree_with_themselves() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn clearing_needs_exactly_one_choice() {
        assert_eq!(clear(&["--all"]).unwrap(), ClearSelection::All);
        assert_eq!(clear(&["--unused-for", "30"]).unwrap(), ClearSelection::UnusedFor { days: 30 });
        let names = vec!["a".to_owned(), "b:1".to_owned()];
        assert_eq!(clear(&["a", "b:1"]).unwrap(), ClearSelection::Images { names });
        for wrong in
            [&[][..], &["--all", "a"], &["--all", "--unused-for", "1"], &["--unused-for", "0"], &["--yes"]]
        {
            assert!(clear(wrong).is_err(), "{wrong:?} says nothing clear");
        }
    }

    #[test]
    fn the_flags_are_taken_before_and_after_the_command() {
        for order in [["--state-dir", "/s", "status"], ["status", "--state-dir", "/s"]] {
            let parsed = Arguments::try_parse_from(std::iter::once("sampan").chain(order)).unwrap();
            assert_eq!(parsed.flags.state_dir.as_deref(), Some(std::path::Path::new("/s")), "{order:?}");
        }
    }
}
