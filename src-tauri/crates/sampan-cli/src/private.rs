//! The commands about private images.

use std::io::{self, IsTerminal, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use jiff::tz::TimeZone;
use sampan_app::api::{Command, PrivateProblem, Reply};
use sampan_app::{Config, OwnLogins, Secret};

use crate::arguments::{Format, Private, PrivateCommand};
use crate::ask::{answer, ask, connect, unexpected};
use crate::{output, show};

/// The most bytes of a password that are read.
const SECRET_BYTES_MAX: u64 = 32 * 1024;

/// `sampan private`: changes something if told to, then shows all rules.
pub(crate) async fn private(config: &Config, private: &Private) -> anyhow::Result<ExitCode> {
    match &private.what {
        Some(PrivateCommand::Login { registry, username }) => return login(registry, username).await,
        Some(PrivateCommand::Logout { registry }) => return logout(registry).await,
        Some(
            PrivateCommand::Show
            | PrivateCommand::Allow { .. }
            | PrivateCommand::Remove { .. }
            | PrivateCommand::Retry,
        )
        | None => {}
    }
    let mut client = connect(config).await?;
    if let Some(change) = private.what.as_ref().and_then(PrivateCommand::change) {
        let reply = ask(&mut client, change).await?;
        if let Reply::PrivateAllowed(Some(PrivateProblem { message, next_step, .. })) = reply {
            output::complain(&format!("{message}. {next_step}"));
        }
    }
    shown(&mut client, private.format).await
}

async fn shown(client: &mut sampan_app::Client, format: Format) -> anyhow::Result<ExitCode> {
    let Reply::Snapshot(snapshot) = ask(client, Command::Snapshot).await? else { bail!(unexpected()) };
    let private = snapshot.private;
    answer(&private, format, || show::private(&private, &TimeZone::system()))?;
    let troubled = private.rules.iter().any(|rule| rule.problem.is_some());
    Ok(if troubled { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Puts a login into the keyring. It never passes Sampan's socket, and stands in no argument.
async fn login(registry: &str, username: &str) -> anyhow::Result<ExitCode> {
    let logins = OwnLogins::of(registry)?;
    let secret = read_secret()?;
    logins.keep(username, secret).await?;
    output::ask(
        "The login is in the system's keyring. `sampan private allow PATTERN --login keyring` uses it.\n",
    );
    Ok(ExitCode::SUCCESS)
}

async fn logout(registry: &str) -> anyhow::Result<ExitCode> {
    if OwnLogins::of(registry)?.forget().await? {
        output::ask("The login is gone from the system's keyring.\n");
        Ok(ExitCode::SUCCESS)
    } else {
        output::complain(&format!("there is no login of Sampan's own for {registry}"));
        Ok(ExitCode::FAILURE)
    }
}

/// Reads a password: the first line of standard input.
fn read_secret() -> anyhow::Result<Secret> {
    if io::stdin().is_terminal() {
        // A terminal shows what is typed, and scrolls it back to whoever looks later.
        bail!(
            "write the password to standard input, so that no screen shows it: `sampan private login … < file`, or from a password manager"
        );
    }
    let mut text = String::with_capacity(usize::try_from(SECRET_BYTES_MAX).unwrap_or(0) + 1);
    io::stdin()
        .take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .context("the password cannot be read")?;
    let line = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(line);
    Secret::new(text).context("that is no password: one line, without control characters")
}
