//! How an engine is restarted, and started anew when it did not come back: commands, as pure tables, and the one place
//! that runs them.
//!
//! Sources: systemctl(1); docs.docker.com for `docker desktop restart` (since 4.37) and the user service of Docker
//! Desktop on Linux; osascript(1), open(1), taskkill for older ones.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::client;
use crate::engine::{Engine, Kind};
use crate::manual::quoted;
use crate::places::System;

/// How long Docker Desktop may take to quit before it is opened again.
const QUITS: Duration = Duration::from_mins(1);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A command that says more than this when it fails says it to nobody.
const WORDS_MAX: usize = 400;

/// Whatever keeps a daemon running: systemd, Docker Desktop, or a test that started it.
pub trait Service: fmt::Debug + Send + Sync {
    /// Ends the daemon and starts it again. Returns when it is ready or has failed, where that can be known; whoever
    /// calls watches the daemon meanwhile. `Ok` says what was done, `Err` why it was not, one English sentence each.
    fn restart(&self) -> BoxFuture<'_, Result<String, String>>;

    /// Starts a daemon that did not come back, and ends one that hangs. Results as in [`Service::restart`].
    fn start_anew(&self) -> BoxFuture<'_, Result<String, String>>;
}

/// A program and its arguments; no shell reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program, by its full path where root runs it.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl CommandLine {
    fn of(words: &[&str]) -> Self {
        let mut words = words.iter().map(|word| (*word).to_owned());
        Self { program: words.next().unwrap_or_default(), arguments: words.collect() }
    }

    /// The same for a shell.
    pub fn shown(&self) -> String {
        let word = |word: &String| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/.-_=:@,+".contains(&b);
            if !word.is_empty() && word.bytes().all(plain) { word.clone() } else { quoted(word) }
        };
        let program = self.program.strip_prefix("/usr/bin/").unwrap_or(&self.program).to_owned();
        std::iter::once(&program).chain(&self.arguments).map(word).collect::<Vec<_>>().join(" ")
    }
}

/// The commands for one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// Restarts it: the first way that works, each a sequence. In a sequence the engine is gone before the next command.
    pub restart: Vec<Vec<CommandLine>>,
    /// Starts it anew, in order; only the last has to succeed.
    pub start_anew: Vec<CommandLine>,
}

/// Docker Desktop by its bundle's name, which no translation and no renaming changes.
const DESKTOP_BUNDLE: &str = "com.docker.docker";
const DESKTOP_EXE: &str = r"C:\Program Files\Docker\Docker\Docker Desktop.exe";
const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// The table.
///
/// # Errors
/// Why nothing can restart this engine, one English sentence.
pub fn commands(engine: &Engine, system: System) -> Result<Commands, String> {
    let line = CommandLine::of;
    match (&engine.kind, &engine.unit) {
        (Kind::Desktop, _) => {
            let cli = vec![line(&["docker", "desktop", "restart"])];
            let (quit, open) = match system {
                System::Linux => (
                    line(&[SYSTEMCTL, "--user", "stop", "docker-desktop"]),
                    line(&[SYSTEMCTL, "--user", "start", "docker-desktop"]),
                ),
                System::MacOs => (
                    line(&["/usr/bin/osascript", "-e", &format!("quit application id \"{DESKTOP_BUNDLE}\"")]),
                    line(&["/usr/bin/open", "-b", DESKTOP_BUNDLE]),
                ),
                System::Windows => (
                    line(&[r"C:\Windows\System32\taskkill.exe", "/IM", "Docker Desktop.exe"]),
                    line(&[r"C:\Windows\System32\cmd.exe", "/C", "start", "", DESKTOP_EXE]),
                ),
            };
            Ok(Commands { restart: vec![cli, vec![quit, open.clone()]], start_anew: vec![open] })
        }
        (Kind::Linux | Kind::Snap | Kind::Rootless, Some(unit)) => {
            let user = engine.kind == Kind::Rootless;
            let systemctl = |verb: &str| {
                let words: Vec<&str> =
                    [SYSTEMCTL].into_iter().chain(user.then_some("--user")).chain([verb, unit]).collect();
                line(&words)
            };
            Ok(Commands {
                restart: vec![vec![systemctl("restart")]],
                // systemd gives up after three starts in a minute; `restart` also ends a daemon that hangs.
                start_anew: vec![systemctl("reset-failed"), systemctl("restart")],
            })
        }
        (Kind::Linux | Kind::Snap | Kind::Rootless, None) => Err(match engine.pid {
            Some(pid) => format!(
                "dockerd (process {pid}) was started by hand, not by a service: only whoever started it can start it again."
            ),
            None => "No service is known that runs this Docker.".into(),
        }),
        (Kind::Podman, _) => Err("Podman reads its configuration at each pull: nothing restarts.".into()),
        (Kind::OtherVm(_) | Kind::Windows | Kind::Remote | Kind::None, _) => {
            Err(format!("Sampan does not restart {}.", engine.kind))
        }
    }
}

/// The same by hand, one shell command a line: also for a daemon that only a person can restart.
pub(crate) fn by_hand(engine: &Engine, sudo: &str) -> Vec<String> {
    if let Ok(commands) = commands(engine, System::HERE) {
        let sudo = if engine.kind.is_local_daemon() && engine.kind != Kind::Rootless { sudo } else { "" };
        let first = commands.restart.first().into_iter().flatten();
        return first.map(|line| format!("{sudo}{}", line.shown())).collect();
    }
    let Some(pid) = engine.pid else { return Vec::new() };
    let mut words = engine.command_line.iter().cloned();
    let again = words.next().map(|program| CommandLine { program, arguments: words.collect() });
    let mut lines = vec![format!("{sudo}kill {pid}")];
    lines.extend(again.map(|line| format!("{sudo}{}", line.shown())));
    lines
}

/// Starts a daemon that does not run, by hand, in one line.
pub(crate) fn start_by_hand(engine: &Engine, sudo: &str) -> Option<String> {
    let commands = commands(engine, System::HERE).ok().filter(|_| engine.kind.is_local_daemon())?;
    let sudo = if engine.kind == Kind::Rootless { "" } else { sudo };
    let lines: Vec<String> =
        commands.start_anew.iter().map(|line| format!("{sudo}{}", line.shown())).collect();
    Some(lines.join(" && "))
}

/// Runs the commands of the table for one engine.
#[derive(Clone, Debug)]
pub(crate) struct ByCommand {
    endpoint: String,
    name: String,
    commands: Result<Commands, String>,
}

impl ByCommand {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self {
            endpoint: engine.endpoint.clone(),
            name: if engine.kind == Kind::Desktop { "Docker Desktop" } else { "Docker" }.into(),
            commands: commands(engine, System::HERE),
        }
    }

    /// Waits until nothing answers, or long enough.
    async fn gone(&self) {
        let gone = async {
            while client::mirrors(&self.endpoint).await.is_ok() {
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(QUITS, gone).await;
    }
}

impl Service for ByCommand {
    fn restart(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let mut failures = Vec::new();
            for way in &self.commands.as_ref().map_err(Clone::clone)?.restart {
                match in_turn(way, self).await {
                    Ok(()) => {
                        let shown: Vec<String> = way.iter().map(CommandLine::shown).collect();
                        return Ok(format!("Restarted {} (`{}`).", self.name, shown.join("`, `")));
                    }
                    Err(why) => failures.push(why),
                }
            }
            Err(failures.join(" "))
        })
    }

    fn start_anew(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let mut last = Err("No command is known that starts it.".into());
            for line in &self.commands.as_ref().map_err(Clone::clone)?.start_anew {
                last = run(line).await.map(|()| format!("Started {} again (`{}`).", self.name, line.shown()));
            }
            last
        })
    }
}

async fn in_turn(way: &[CommandLine], service: &ByCommand) -> Result<(), String> {
    for (index, line) in way.iter().enumerate() {
        run(line).await?;
        if index + 1 < way.len() {
            service.gone().await;
        }
    }
    Ok(())
}

async fn run(line: &CommandLine) -> Result<(), String> {
    let mut command = tokio::process::Command::new(&line.program);
    command.args(&line.arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let shown = line.shown();
    let output = command.output().await.map_err(|error| format!("`{shown}` cannot be run: {error}."))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words.trim().chars().take(WORDS_MAX).collect();
    let words = if words.is_empty() { output.status.to_string() } else { words.replace('\n', " ") };
    Err(format!("`{shown}` failed: {}.", words.trim_end_matches('.')))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn service(restart: &[&[&[&str]]], start_anew: &[&[&str]]) -> ByCommand {
        let lines = |way: &[&[&str]]| way.iter().map(|words| CommandLine::of(words)).collect::<Vec<_>>();
        ByCommand {
            endpoint: "unix:///nowhere.sock".into(),
            name: "Docker".into(),
            commands: Ok(Commands {
                restart: restart.iter().map(|way| lines(way)).collect(),
                start_anew: lines(start_anew),
            }),
        }
    }

    #[tokio::test]
    async fn the_first_way_that_works_restarts_and_the_others_are_said_where_none_does() {
        let fails = ["/bin/sh", "-c", "echo no such command >&2; exit 1"];
        let both = service(&[&[&fails], &[&["/bin/true"], &["/bin/true"]]], &[]);
        let done = both.restart().await;
        assert_eq!(done.as_deref(), Ok("Restarted Docker (`/bin/true`, `/bin/true`)."), "the second way");
        let none = service(&[&[&fails], &[&["/no/such/program"]]], &[]);
        let why = none.restart().await.unwrap_err();
        assert!(why.contains("failed: no such command.") && why.contains("/no/such/program"), "{why}");
        let half = service(&[&[&["/bin/false"], &["/bin/true"]]], &[]);
        assert!(half.restart().await.is_err(), "a sequence goes no further than its first failure");
    }

    #[tokio::test]
    async fn starting_anew_depends_on_the_last_command_alone() {
        let done = service(&[], &[&["/bin/false"], &["/bin/true"]]).start_anew().await;
        assert_eq!(done.as_deref(), Ok("Started Docker again (`/bin/true`)."), "nothing had to be reset");
        let failed = service(&[], &[&["/bin/true"], &["/bin/false"]]).start_anew().await;
        assert!(failed.is_err_and(|why| why.contains("exit status: 1")), "a silent failure says its status");
    }

    #[test]
    fn words_are_quoted_for_a_shell_where_it_would_read_them_otherwise() {
        for (words, expected) in [
            (&["dockerd", "-H", "unix:///a b"][..], "dockerd -H 'unix:///a b'"),
            (&["/usr/bin/systemctl", "restart", "a.service"], "systemctl restart a.service"),
            (&["x", "", "it's", "$HOME", "a\\b"], "x '' 'it'\\''s' '$HOME' 'a\\b'"),
        ] {
            assert_eq!(CommandLine::of(words).shown(), expected);
        }
    }
}
