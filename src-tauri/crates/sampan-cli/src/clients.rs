//! `sampan clients`: the other programs that pull images, and setting them up after the change was shown. The running
//! Sampan does the work; where none runs, this process does it by itself.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use sampan_app::api::{ClientApplied, ClientSetup, Command, DiffKind, DockerAction, DockerPlan, Reply};
use sampan_app::{Alone, Client, ClientError, Config, Surroundings};

use crate::arguments::Format;
use crate::ask::{Refused, answer, ask, connect, unexpected};
use crate::output;
use crate::show::{columns, plain};

/// What to do with them; nothing: list them.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Clients {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    format: Format,
}

/// Which way.
#[derive(Subcommand, Debug)]
enum Change {
    /// List them, as without a word
    List(Format),
    /// Show exactly what setting one up would change, and the same as commands
    Plan(Planned),
    /// Point one at Sampan; shows the change and asks first
    Enable(Chosen),
    /// Take that back; shows the change and asks first
    Disable(Chosen),
}

/// Which client, and for which registries.
#[derive(Args, Debug)]
struct Chosen {
    /// podman, buildkit, containerd, nerdctl, k3s or kind
    #[arg(value_name = "NAME")]
    client: String,
    /// A registry besides Docker Hub, such as ghcr.io; repeat it for more. Without it: those that are set up now
    #[arg(long = "registry", value_name = "REGISTRY")]
    registries: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    format: Format,
}

/// What to show.
#[derive(Args, Debug)]
struct Planned {
    /// Show how it is taken back instead
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    chosen: Chosen,
}

/// A change would have to ask, and there is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error(
    "this asks first, and this is not a terminal. Give --yes to change it without asking, or look with `sampan clients plan`."
)]
pub(crate) struct NotAsked;

/// Who looks and changes: the running Sampan, or this process where none runs.
enum Whom {
    Running(Client),
    Alone(Box<Alone>),
}

impl Whom {
    async fn find(config: &Config, surroundings: &Surroundings) -> anyhow::Result<Self> {
        match connect(config).await {
            Ok(client) => Ok(Self::Running(client)),
            Err(ClientError::NotRunning { .. }) => {
                Ok(Self::Alone(Box::new(Alone::new(config, surroundings))))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn list(&mut self) -> anyhow::Result<Vec<ClientSetup>> {
        match self {
            Self::Running(client) => {
                let Reply::Clients(found) = ask(client, Command::Clients).await? else { bail!(unexpected()) };
                Ok(found)
            }
            Self::Alone(alone) => Ok(alone.clients()),
        }
    }

    async fn plan(&mut self, chosen: &Chosen, action: DockerAction) -> anyhow::Result<DockerPlan> {
        let registries = (!chosen.registries.is_empty()).then(|| chosen.registries.clone());
        match self {
            Self::Running(client) => {
                let command = Command::ClientPlan { client: chosen.client.clone(), action, registries };
                let Reply::DockerPlan(plan) = ask(client, command).await? else { bail!(unexpected()) };
                Ok(plan)
            }
            Self::Alone(alone) => {
                let plan = alone.client_plan(&chosen.client, action, registries.as_deref());
                Ok(plan.map_err(Refused::from)?)
            }
        }
    }

    async fn apply(&mut self, plan: &DockerPlan) -> anyhow::Result<ClientApplied> {
        match self {
            Self::Running(client) => {
                let command = Command::ClientApply { plan: plan.id.clone() };
                let Reply::ClientApplied(applied) = ask(client, command).await? else { bail!(unexpected()) };
                Ok(applied)
            }
            Self::Alone(alone) => Ok(alone.client_apply(&plan.id).await.map_err(Refused::from)?),
        }
    }
}

/// `sampan clients`.
pub(crate) async fn clients(
    config: &Config,
    surroundings: &Surroundings,
    clients: &Clients,
) -> anyhow::Result<ExitCode> {
    let mut whom = Whom::find(config, surroundings).await?;
    match &clients.change {
        None => list(&mut whom, clients.format).await,
        Some(Change::List(format)) => list(&mut whom, *format).await,
        Some(Change::Plan(planned)) => {
            let action = if planned.disable { DockerAction::Disable } else { DockerAction::Enable };
            let plan = whom.plan(&planned.chosen, action).await?;
            answer(&plan, planned.chosen.format, || show_plan(&plan))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Change::Enable(chosen)) => change(&mut whom, chosen, DockerAction::Enable).await,
        Some(Change::Disable(chosen)) => change(&mut whom, chosen, DockerAction::Disable).await,
    }
}

async fn list(whom: &mut Whom, format: Format) -> anyhow::Result<ExitCode> {
    let found = whom.list().await?;
    answer(&found, format, || {
        let mut text = show_list(&found);
        if matches!(whom, Whom::Alone(_)) {
            text.push_str("\nSampan is not running: until it does they go straight to their registries.\n");
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn change(whom: &mut Whom, chosen: &Chosen, action: DockerAction) -> anyhow::Result<ExitCode> {
    let plan = whom.plan(chosen, action).await?;
    if !chosen.yes && !plan.files.is_empty() {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            bail!(NotAsked);
        }
        output::ask(&show_plan(&plan));
        output::ask("Change this? [y/N] ");
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        if !matches!(line.trim().to_lowercase().as_str(), "y" | "yes") {
            output::ask("Nothing was changed.\n");
            return Ok(ExitCode::FAILURE);
        }
    }
    let applied = whom.apply(&plan).await?;
    answer(&applied, chosen.format, || lines(&applied.steps, ""))?;
    Ok(ExitCode::SUCCESS)
}

fn show_list(found: &[ClientSetup]) -> String {
    let state = |client: &ClientSetup| match (client.enabled, client.found) {
        (true, _) => format!("asks Sampan for {}", client.registries.join(", ")),
        (false, true) => "does not ask Sampan".to_owned(),
        (false, false) => "not found".to_owned(),
    };
    let rows: Vec<_> =
        found.iter().map(|client| [client.id.clone(), client.name.clone(), state(client)]).collect();
    columns(&rows)
}

fn show_plan(plan: &DockerPlan) -> String {
    let mut text = String::new();
    for file in &plan.files {
        let what = match (file.created, file.removed) {
            (true, _) => "is made",
            (_, true) => "is removed",
            (false, false) => "is changed",
        };
        let _ = writeln!(text, "{} {what}:", plain(&file.path));
        for line in &file.diff {
            let mark = match line.kind {
                DiffKind::Same => ' ',
                DiffKind::Added => '+',
                DiffKind::Removed => '-',
            };
            let _ = writeln!(text, "{mark} {}", plain(&line.text));
        }
        text.push('\n');
    }
    text.push_str(&lines(&plan.notes, ""));
    if !plan.commands.is_empty() {
        text.push_str("\nThe same by hand:\n");
        text.push_str(&lines(&plan.commands, "  "));
    }
    text
}

fn lines(all: &[String], indent: &str) -> String {
    let mut text = String::new();
    for line in all {
        let _ = writeln!(text, "{indent}{}", plain(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use sampan_app::api::{ApplyMethod, DiffLine, FileChange};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        clients: Clients,
    }

    #[test]
    fn what_goes_where_must_be_said() {
        let parse = |words: &[&str]| Line::try_parse_from(std::iter::once(&"clients").chain(words));
        let good: [&[&str]; 7] = [
            &[],
            &["list", "--json"],
            &["--json"],
            &["plan", "podman"],
            &["plan", "k3s", "--disable", "--json"],
            &["enable", "podman", "--registry", "ghcr.io", "--registry", "quay.io", "--yes"],
            &["disable", "containerd", "-y", "--json"],
        ];
        for words in good {
            assert!(parse(words).is_ok(), "{words:?}");
        }
        let wrong: [&[&str]; 4] = [&["plan"], &["enable"], &["podman"], &["enable", "podman", "ghcr.io"]];
        for words in wrong {
            assert!(parse(words).is_err(), "{words:?} says too little or too much");
        }
        let line = parse(&["enable", "podman", "--registry", "ghcr.io"]).unwrap();
        let Some(Change::Enable(chosen)) = line.clients.change else { panic!("enable was written") };
        assert_eq!((chosen.client.as_str(), chosen.registries), ("podman", vec!["ghcr.io".to_owned()]));
    }

    #[test]
    fn a_plan_is_shown_line_by_line_with_its_commands() {
        let plan = DockerPlan {
            id: "podman-0a".into(),
            action: DockerAction::Enable,
            files: vec![FileChange {
                path: "/etc/x.conf".into(),
                created: true,
                removed: false,
                diff: vec![DiffLine { kind: DiffKind::Added, text: "a\u{1b}[2J".into() }],
            }],
            apply: ApplyMethod::Nothing,
            stops: Vec::new(),
            needs_elevation: false,
            settles: false,
            commands: vec!["touch x".into()],
            notes: vec!["Nothing restarts.".into()],
        };
        let text = show_plan(&plan);
        assert!(text.starts_with("/etc/x.conf is made:\n+ a"), "{text}");
        assert!(!text.contains('\u{1b}'), "nothing in a file steers a terminal");
        assert!(text.ends_with("Nothing restarts.\n\nThe same by hand:\n  touch x\n"), "{text}");
    }
}
