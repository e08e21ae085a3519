//! What a person may write after `sampan freshness` and `sampan offline`.

use clap::{Args, Subcommand, ValueEnum};
use sampan_app::api::{Freshness, FreshnessChange, FreshnessRule, parse_age};

use super::Format;

/// What to do about freshness.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum FreshnessCommand {
    /// Show the rules
    Show(Format),
    /// Set how often the tags of some images are asked about
    Set {
        /// docker.io/library/*, ghcr.io/acme/**, quay.io, nginx; * for all
        #[arg(value_name = "PATTERN")]
        pattern: String,
        /// always, 15m (at most every 15 minutes), on-request (only by `sampan refresh`), never
        #[arg(value_name = "always|TIME|on-request|never")]
        check: Freshness,
        /// While a registry cannot be asked, answer tags only this long after their last confirmation: 7d
        #[arg(long, value_name = "TIME", value_parser = parse_age)]
        stale_max: Option<u32>,
        #[command(flatten)]
        format: Format,
    },
    /// Remove a rule
    Unset {
        /// The pattern, as shown
        #[arg(value_name = "PATTERN")]
        pattern: String,
        #[command(flatten)]
        format: Format,
    },
}

impl FreshnessCommand {
    /// The change it asks for; `None`: none.
    pub(crate) fn change(&self) -> Option<FreshnessChange> {
        match self {
            Self::Show(_) => None,
            Self::Set { pattern, check, stale_max, format: _ } => Some(FreshnessChange::Set(FreshnessRule {
                pattern: pattern.clone(),
                check: *check,
                stale_max_seconds: *stale_max,
            })),
            Self::Unset { pattern, format: _ } => Some(FreshnessChange::Unset(pattern.clone())),
        }
    }

    /// How to show the rules.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Show(format) | Self::Set { format, .. } | Self::Unset { format, .. } => *format,
        }
    }
}

/// Whether to be offline.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Offline {
    /// What to do
    #[arg(value_enum)]
    pub(crate) switch: Switch,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// A switch, or a look at it.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Ask no registry anything
    On,
    /// Ask registries again
    Off,
    /// Show which it is
    Status,
}
