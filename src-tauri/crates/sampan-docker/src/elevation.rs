//! Administrator rights, asked for once per change. The privileged step is a small program of its own,
//! `sampan-helper`, which takes a verb and a port and nothing else, and does everything again by itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::choice::KnownSet;
use crate::files;
use crate::plan::Action;
use crate::stops::Stops;

/// A person may take a while to find a password.
const PROMPT: Duration = Duration::from_mins(5);

/// Before the mark of what a restart may stop, at the end of a verb.
const RESTART: &str = "-restart.";

/// What the helper can be asked to do. Written as its first argument: `enable[.SET][-restart.STOPS]` or
/// `disable[-restart.STOPS]`, where SET is a number ([`KnownSet`]) and STOPS the mark of a set of containers ([`Stops`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Point the system's Docker at Sampan, for Docker Hub and the registries that are set up already.
    Enable,
    /// The same, for Docker Hub and of the known registries exactly these: one prompt for a whole choice.
    EnableOnly(KnownSet),
    /// Take all of that back.
    Disable,
    /// [`Verb::Enable`], and restart it, if that stops these containers and no others.
    EnableRestart(Stops),
    /// [`Verb::EnableOnly`], and restart it, if that stops these containers and no others.
    EnableOnlyRestart(KnownSet, Stops),
    /// [`Verb::Disable`], and restart it, if that stops these containers and no others.
    DisableRestart(Stops),
}

impl Verb {
    /// The same with a restart of the engine that stops these containers.
    #[must_use]
    pub fn restarting(self, stops: Stops) -> Self {
        match self {
            Self::Enable | Self::EnableRestart(_) => Self::EnableRestart(stops),
            Self::EnableOnly(set) | Self::EnableOnlyRestart(set, _) => Self::EnableOnlyRestart(set, stops),
            Self::Disable | Self::DisableRestart(_) => Self::DisableRestart(stops),
        }
    }

    /// Which way, the set it names, and what the engine may stop where it restarts.
    pub fn means(self) -> (Action, Option<KnownSet>, Option<Stops>) {
        match self {
            Self::Enable => (Action::Enable, None, None),
            Self::EnableOnly(set) => (Action::Enable, Some(set), None),
            Self::Disable => (Action::Disable, None, None),
            Self::EnableRestart(stops) => (Action::Enable, None, Some(stops)),
            Self::EnableOnlyRestart(set, stops) => (Action::Enable, Some(set), Some(stops)),
            Self::DisableRestart(stops) => (Action::Disable, None, Some(stops)),
        }
    }

    fn plain(text: &str) -> Result<Self, InvalidVerb> {
        match text {
            "enable" => Ok(Self::Enable),
            "disable" => Ok(Self::Disable),
            _ => {
                let set = text.strip_prefix("enable.").ok_or(InvalidVerb)?;
                set.parse().map(Self::EnableOnly).map_err(|_| InvalidVerb)
            }
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (action, set, stops) = self.means();
        f.write_str(match action {
            Action::Enable => "enable",
            Action::Disable => "disable",
        })?;
        if let Some(set) = set {
            write!(f, ".{set}")?;
        }
        stops.map_or(Ok(()), |stops| write!(f, "{RESTART}{stops}"))
    }
}

/// The text is no verb in its one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not something the helper can be asked to do")]
pub struct InvalidVerb;

impl FromStr for Verb {
    type Err = InvalidVerb;

    fn from_str(text: &str) -> Result<Self, InvalidVerb> {
        match text.split_once(RESTART) {
            Some((plain, stops)) => {
                let stops = stops.parse().map_err(|_| InvalidVerb)?;
                Self::plain(plain).map(|verb| verb.restarting(stops))
            }
            None => Self::plain(text),
        }
    }
}

/// The helper's one line of output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperReport {
    /// Whether everything was done.
    pub done: bool,
    /// Whether what was begun was taken back.
    pub rolled_back: bool,
    /// What was done, in order, one English sentence each.
    pub steps: Vec<String>,
    /// Why it was not, one English sentence.
    pub error: Option<String>,
    /// The shell commands that finish by hand what could not be taken back.
    #[serde(default)]
    pub commands: Vec<String>,
    /// The containers that a restart would stop now, where they are others than those that were agreed to: it was not
    /// done.
    #[serde(default)]
    pub stops: Option<Vec<String>>,
}

/// Why the helper did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElevationError {
    /// There is no way to ask for rights here, for the reason given.
    #[error("{0}")]
    Unavailable(String),
    /// The person said no.
    #[error("administrator rights were not given")]
    Declined,
    /// The person may not say yes, or there is no program that asks.
    #[error("administrator rights were not given, or nothing here can ask for them")]
    NotGiven,
    /// Nothing came back in time.
    #[error("it is not known whether the privileged step was done: {0}")]
    Unknown(String),
    /// The helper ran and did not report.
    #[error("the privileged step did not report: {0}")]
    Failed(String),
}

/// A way to run the helper with administrator rights.
pub trait Elevation: fmt::Debug + Send + Sync {
    /// Asks for rights and runs the helper. Dropping the future leaves a helper that already started to finish its
    /// change by itself, from its own journal if need be.
    fn run(&self, verb: Verb, port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>>;
}

/// No elevation: for files this user may write, for the helper itself, and where nobody can be asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Elevation for Direct {
    fn run(&self, _verb: Verb, _port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        let why = "Administrator rights are needed and cannot be asked for here.";
        Box::pin(async move { Err(ElevationError::Unavailable(why.into())) })
    }
}

/// Linux: polkit's `pkexec`, with the helper a package installed.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug)]
pub struct Pkexec {
    /// Folders a package may install the helper into, in order.
    folders: Vec<PathBuf>,
}

#[cfg(target_os = "linux")]
impl Default for Pkexec {
    fn default() -> Self {
        let folders = ["/usr/lib/sampan", "/usr/libexec/sampan", "/usr/local/libexec/sampan"];
        Self { folders: folders.map(PathBuf::from).to_vec() }
    }
}

#[cfg(target_os = "linux")]
impl Pkexec {
    /// The installed helper.
    ///
    /// # Errors
    /// [`ElevationError::Unavailable`] where there is none, or where another user than root could have replaced it.
    pub fn helper(&self) -> Result<PathBuf, ElevationError> {
        let found = self.folders.iter().map(|folder| folder.join("sampan-helper")).find(|path| path.exists());
        let helper = found.ok_or_else(|| {
            let why = "Sampan's privileged helper is not installed: run the commands of the plan by hand.";
            ElevationError::Unavailable(why.into())
        })?;
        trusted(&helper).map_err(ElevationError::Unavailable)?;
        Ok(helper)
    }
}

#[cfg(target_os = "linux")]
impl Elevation for Pkexec {
    fn run(&self, verb: Verb, port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        Box::pin(async move {
            let helper = self.helper()?;
            let mut command = tokio::process::Command::new("/usr/bin/pkexec");
            command.arg("--disable-internal-agent").arg(helper).arg(verb.to_string()).arg(port.to_string());
            let output = output(command).await?;
            match output.status.code() {
                // pkexec(1): 126 dismissed, 127 not authorised or no agent.
                Some(126) => Err(ElevationError::Declined),
                Some(127) => Err(ElevationError::NotGiven),
                Some(_) | None => report(&output.stdout, &output.stderr),
            }
        })
    }
}

/// macOS: the system's own dialog. Needed only where Docker's files belong to root.
#[cfg(target_os = "macos")]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsaScript;

#[cfg(target_os = "macos")]
impl Elevation for OsaScript {
    fn run(&self, verb: Verb, port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        Box::pin(async move {
            let helper = Path::new("/Library/PrivilegedHelperTools/sampan-helper");
            trusted(helper).map_err(ElevationError::Unavailable)?;
            // Verb and port are the only parts that vary, and neither can hold a quote.
            let script = format!(
                "do shell script \"{} {} {port}\" with prompt \"Sampan changes the daemon.json that Docker reads.\" \
                 with administrator privileges",
                helper.display(),
                verb
            );
            let mut command = tokio::process::Command::new("/usr/bin/osascript");
            command.arg("-e").arg(script);
            let output = output(command).await?;
            if !output.status.success() {
                return Err(ElevationError::Declined);
            }
            report(&output.stdout, &output.stderr)
        })
    }
}

/// Windows: the user account control prompt. A process started so has no output to read, so its exit status is all.
#[cfg(windows)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RunAs;

#[cfg(windows)]
impl Elevation for RunAs {
    fn run(&self, verb: Verb, port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        Box::pin(async move {
            let helper = r"C:\Program Files\Sampan\sampan-helper.exe";
            let script = format!(
                "exit (Start-Process -FilePath '{helper}' -ArgumentList '{}','{port}' -Verb RunAs -WindowStyle Hidden \
                 -Wait -PassThru).ExitCode",
                verb
            );
            let mut command =
                tokio::process::Command::new(r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe");
            command.args(["-NoProfile", "-NonInteractive", "-Command"]).arg(script);
            let output = output(command).await?;
            let done = output.status.success();
            let error = (!done).then(|| "The privileged step failed or was declined.".to_owned());
            Ok(HelperReport { done, error, ..HelperReport::default() })
        })
    }
}

/// Whether only root can have put `program` there: itself and every folder above it.
///
/// # Errors
/// One English sentence that names what others could change.
pub fn trusted(program: &Path) -> Result<(), String> {
    files::owned(program, 0).map_err(|why| format!("The privileged helper is not used: {why}"))
}

async fn output(mut command: tokio::process::Command) -> Result<std::process::Output, ElevationError> {
    // A prompt nobody waits for any more goes. A helper that runs is root's: it cannot be ended and ends its change.
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PROMPT, command.output()).await {
        Err(_) => {
            let minutes = PROMPT.as_secs() / 60;
            Err(ElevationError::Unknown(format!("it did not end within {minutes} minutes")))
        }
        Ok(Err(error)) => {
            Err(ElevationError::Unavailable(format!("Administrator rights cannot be asked for: {error}.")))
        }
        Ok(Ok(output)) => Ok(output),
    }
}

#[cfg(unix)]
fn report(stdout: &[u8], stderr: &[u8]) -> Result<HelperReport, ElevationError> {
    serde_json::from_slice(stdout).map_err(|_| {
        let words = String::from_utf8_lossy(stderr);
        ElevationError::Failed(words.trim().chars().take(500).collect())
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn helper_in(dir: &Path, mode: u32) -> Pkexec {
        let path = dir.join("sampan-helper");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Pkexec { folders: vec![dir.to_owned()] }
    }

    #[test]
    fn a_helper_that_others_can_change_is_never_run() {
        let dir = tempfile::tempdir().unwrap();
        let refused = helper_in(dir.path(), 0o777).helper();
        assert!(
            matches!(&refused, Err(ElevationError::Unavailable(why)) if why.contains("other users")),
            "{refused:?}"
        );
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = helper_in(dir.path(), 0o755).helper();
        assert!(refused.is_err(), "whoever can write the folder can replace the helper: {refused:?}");
    }

    #[test]
    fn a_missing_helper_leads_to_the_manual_commands() {
        let dir = tempfile::tempdir().unwrap();
        let pkexec = Pkexec { folders: vec![dir.path().to_owned()] };
        assert!(
            matches!(pkexec.helper(), Err(ElevationError::Unavailable(why)) if why.contains("by hand")),
            "the plan's commands are the way out"
        );
    }

    #[test]
    fn the_policy_asks_each_time_names_the_files_and_runs_only_the_installed_helper() {
        let policy = include_str!("../polkit/org.sampan.docker.policy");
        assert!(
            policy.contains("<allow_active>auth_admin</allow_active>"),
            "an administrator's password, each time"
        );
        assert!(!policy.contains("_keep"), "one prompt is one change");
        assert!(
            policy.contains("<allow_any>no<") && policy.contains("<allow_inactive>no<"),
            "nobody from afar"
        );
        assert!(
            policy.contains("<message>Sampan changes /etc/docker/daemon.json"),
            "the prompt names what changes"
        );
        let folder = &Pkexec::default().folders[0];
        let path = format!(">{}</annotate>", folder.join("sampan-helper").display());
        assert!(policy.contains(&path), "the policy is for the first place a package installs to");
    }

    #[test]
    fn a_verb_has_one_spelling() {
        let mut plain: Vec<String> = (0..64).map(|set| format!("enable.{set}")).collect();
        plain.extend(["enable".into(), "disable".into()]);
        let stops = Stops::of(&["web".into()]);
        let restarting = plain.iter().map(|text| format!("{text}-restart.{stops}"));
        let all: Vec<String> = plain.iter().cloned().chain(restarting).collect();
        for text in &all {
            assert_eq!(text.parse::<Verb>().unwrap().to_string(), *text, "there and back");
        }
        for text in &plain {
            let verb: Verb = text.parse().unwrap();
            let (action, set, restart) = verb.means();
            assert_eq!(restart, None, "{text} restarts nothing");
            let restarting = verb.restarting(stops);
            assert_eq!(
                restarting.to_string(),
                format!("{text}-restart.{stops}"),
                "the same word with its end"
            );
            assert_eq!(restarting.means(), (action, set, Some(stops)), "{text}: nothing else differs");
            let others = Stops::of(&[]);
            assert_eq!(restarting.restarting(others), verb.restarting(others), "the last word counts");
        }
        for text in [
            "",
            "enable.",
            "enable.64",
            "enable.01",
            "enable.+1",
            "enable.1.2",
            "disable.1",
            "Enable",
            "enable ",
            "-restart",
            "-restart.0123456789abcdef",
            "enable-restart",
            "enable-restart.",
            "enable-restart.1",
            "enable-restart.0123456789ABCDEF",
            "enable-restart.0123456789abcdef0",
            "enable-restart.0123456789abcdef-restart.0123456789abcdef",
            "restart",
            "enable-",
            "enable.-restart",
            "enable-restart.5",
            "enable.5-restart-restart",
            "enable-restart-restart",
            "disable.1-restart.0123456789abcdef",
            "disable -restart",
            "enable-Restart",
        ] {
            assert!(text.parse::<Verb>().is_err(), "{text:?} is not a verb");
        }
    }

    #[tokio::test]
    async fn without_elevation_nothing_runs() {
        let refused = Direct.run(Verb::Enable, 7267).await;
        assert!(matches!(refused, Err(ElevationError::Unavailable(_))), "nobody was asked: {refused:?}");
    }
}
