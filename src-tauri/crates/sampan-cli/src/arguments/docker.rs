//! What a person may write after `sampan docker`.

use clap::{Args, Subcommand, ValueEnum};
use sampan_app::api::DockerAction;

use super::Format;

/// Told where the other exit codes do not say enough.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done, or as wanted already; status: Docker is set up
  1  failed, or you said no
  2  wrong use or configuration; --yes is missing where nobody can be asked
  3  Sampan is not running (enable, prove, leave)
  4  status: Docker is not set up, or somebody else changed the set-up
  5  refused: no Docker was found, or Sampan does not edit what it found; nothing was changed
  6  administrator rights were not given; nothing was changed
  7  not proved: Docker does not ask Sampan; enable has taken everything back";

/// What to do about Docker.
#[derive(Subcommand, Debug)]
pub(crate) enum Docker {
    /// Show which Docker is meant, whether it asks Sampan, and when it last did
    ///
    /// Also says what somebody else changed since: `sampan docker enable` restores it, `sampan docker leave` leaves it.
    /// Works without a running Sampan too.
    Status(Format),
    /// Show exactly what enabling or disabling would change; changes nothing
    ///
    /// Names the files with their differences, whether a prompt for administrator rights will appear, what happens to
    /// running containers, and the commands that do the same by hand.
    Plan(Plan),
    /// Point Docker at Sampan; shows what will change and asks first
    ///
    /// Afterwards Docker pulls a tiny image made by Sampan. If that does not arrive, everything is taken back.
    Enable(Enable),
    /// Take that back; shows what will change and asks first
    ///
    /// Works without a running Sampan too, and where Docker does not run. Where there is nothing to take back it ends
    /// with 0, so that an uninstaller can call `sampan docker disable --yes`.
    Disable(Change),
    /// Have Docker pull a tiny image made by Sampan, and watch it arrive
    Prove(Format),
    /// Leave what somebody else changed as it is: it is not told again until the files change
    Leave(Format),
}

/// Which registries.
#[derive(Args, Clone, Debug)]
pub(crate) struct Registries {
    /// A registry besides Docker Hub, such as ghcr.io; repeat it for more. Without it: those that are set up now
    #[arg(long = "registry", value_name = "REGISTRY")]
    names: Vec<String>,
}

impl Registries {
    /// Those that were named; `None`: as now.
    pub(crate) fn chosen(&self) -> Option<&[String]> {
        (!self.names.is_empty()).then_some(&*self.names)
    }
}

/// Which plan to show.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// Which way
    #[arg(value_enum, default_value_t = Way::Enable)]
    way: Way,
    #[command(flatten)]
    pub(crate) registries: Registries,
    /// Show what it takes to restart Docker for it, and which containers that stops
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How to enable it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Enable {
    #[command(flatten)]
    pub(crate) registries: Registries,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// How to change it.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Change {
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Restart Docker, also where it need only read its configuration again: it stops the containers that the plan
    /// names. Asks for that too; with --yes this is the consent to it
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Way {
    Enable,
    Disable,
}

impl Plan {
    /// Which way.
    pub(crate) fn action(&self) -> DockerAction {
        match self.way {
            Way::Enable => DockerAction::Enable,
            Way::Disable => DockerAction::Disable,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Arguments, Command};
    use super::*;

    fn docker(arguments: &[&str]) -> Result<Docker, clap::Error> {
        let parsed = Arguments::try_parse_from(["sampan", "docker"].iter().chain(arguments))?;
        let Command::Docker { what } = parsed.command else { panic!("`docker` was written") };
        Ok(what)
    }

    #[test]
    fn a_plan_is_for_enabling_unless_told_otherwise() {
        let action = |arguments: &[&str]| match docker(arguments) {
            Ok(Docker::Plan(plan)) => plan.action(),
            other => panic!("{arguments:?}: {other:?}"),
        };
        assert_eq!(action(&["plan"]), DockerAction::Enable);
        assert_eq!(action(&["plan", "enable", "--json"]), DockerAction::Enable);
        assert_eq!(action(&["plan", "disable"]), DockerAction::Disable);
    }

    #[test]
    fn what_to_do_must_be_said() {
        let good: [&[&str]; 8] = [
            &["status", "--json"],
            &["enable"],
            &["enable", "--registry", "ghcr.io", "--registry", "quay.io", "--yes"],
            &["plan", "enable", "--registry", "ghcr.io", "--restart"],
            &["enable", "--yes", "--restart"],
            &["disable", "-y", "--json"],
            &["prove"],
            &["leave"],
        ];
        for arguments in good {
            assert!(docker(arguments).is_ok(), "{arguments:?}: {:?}", docker(arguments));
        }
        let wrong: [&[&str]; 7] = [
            &[],
            &["restart"],
            &["plan", "both"],
            &["status", "--yes"],
            &["enable", "/etc/docker/daemon.json"],
            &["enable", "--registry"],
            &["disable", "--registry", "ghcr.io"],
        ];
        for arguments in wrong {
            assert!(docker(arguments).is_err(), "{arguments:?} says too little or too much");
        }
    }

    #[test]
    fn a_choice_is_only_what_was_named() {
        let chosen = |arguments: &[&str]| match docker(arguments) {
            Ok(Docker::Plan(Plan { registries, .. }) | Docker::Enable(Enable { registries, .. })) => {
                registries.chosen().map(<[String]>::to_vec)
            }
            other => panic!("{arguments:?}: {other:?}"),
        };
        assert_eq!(chosen(&["enable"]), None, "as now");
        let both = ["enable", "--registry", "ghcr.io", "--registry=quay.io"];
        assert_eq!(chosen(&both), Some(vec!["ghcr.io".into(), "quay.io".into()]));
        assert_eq!(
            chosen(&["plan", "--registry", "docker.io"]),
            Some(vec!["docker.io".into()]),
            "and no other"
        );
    }
}
