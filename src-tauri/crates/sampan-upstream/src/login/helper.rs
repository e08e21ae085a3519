//! Credential helpers: programs named `docker-credential-…` that keep Docker's logins (docker/docker-credential-helpers,
//! "The Protocol": the command is the one argument, the server stands on standard input, JSON comes out).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::{LoginTrouble, Secret};

/// The most a helper may write.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What helpers say of a server they know nothing of (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user of an identity token (docker/cli, `cli/config/credentials/native_store.go`).
const IDENTITY_USER: &str = "<token>";
/// Where programs are that a desktop's search path does not name.
const ALSO: [&str; 3] = ["/usr/local/bin", "/opt/homebrew/bin", "/usr/bin"];

/// What a helper gave.
pub(super) enum Given {
    Password {
        user: String,
        secret: Secret,
    },
    Identity(Secret),
    /// It has nothing for this server.
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Whether this is the end of a helper's name, and no path or flag.
pub(super) fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with(['.', '-']) && name.bytes().all(good)
}

/// Asks the helper `name` for the login for `server`, for `within` at most.
/// # Errors
/// [`LoginTrouble`].
pub(super) async fn get(
    name: &str,
    server: &str,
    search: &OsStr,
    within: Duration,
) -> Result<Given, LoginTrouble> {
    let missing =
        || LoginTrouble::HelperMissing(name.chars().filter(char::is_ascii_graphic).take(64).collect());
    let program = is_name(name).then(|| find(name, search)).flatten().ok_or_else(missing)?;
    let mut command = Command::new(&program);
    command
        .arg("get")
        .env("PATH", extended(search))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // It may say anything there, the login too.
        .stderr(Stdio::null())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|_| missing())?;
    let group = Group::of(&child);
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let spoken = async {
        if let Some(mut stdin) = stdin {
            // A helper that does not read it is none the worse for it.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        // Its size is its capacity from the start: no copy of a password is left where it grew.
        let mut written = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX + 1));
        if let Some(stdout) = stdout {
            let mut bounded = stdout.take(OUTPUT_BYTES_MAX as u64 + 1);
            while written.len() <= OUTPUT_BYTES_MAX && bounded.read_buf(&mut *written).await? > 0 {}
        }
        if written.len() > OUTPUT_BYTES_MAX {
            return Ok((written, None));
        }
        let status = child.wait().await?;
        std::io::Result::Ok((written, Some(status)))
    };
    let spoken = tokio::time::timeout(within, spoken).await;
    group.end();
    let (written, status) = spoken
        .map_err(|_| LoginTrouble::HelperSlow(name.into()))?
        .map_err(|_| LoginTrouble::HelperFailed(name.into()))?;
    let Some(status) = status else { return Err(LoginTrouble::HelperOutput(name.into())) };
    if !status.success() {
        let nothing = written.trim_ascii().eq_ignore_ascii_case(NOT_FOUND.as_bytes());
        return if nothing { Ok(Given::Nothing) } else { Err(LoginTrouble::HelperFailed(name.into())) };
    }
    read(&written).ok_or_else(|| LoginTrouble::HelperOutput(name.into()))
}

fn read(written: &[u8]) -> Option<Given> {
    let Answer { username, secret } = serde_json::from_slice(written).ok()?;
    if username.is_empty() && secret.is_empty() {
        return Some(Given::Nothing);
    }
    let secret = Secret::new(secret)?;
    Some(if username == IDENTITY_USER {
        Given::Identity(secret)
    } else {
        Given::Password { user: username, secret }
    })
}

/// The program in the search path: absolute folders only, a file that may be run.
fn find(name: &str, search: &OsStr) -> Option<PathBuf> {
    let file = format!("docker-credential-{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(&extended(search))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(&file))
        .find(|path| is_program(path))
}

fn extended(search: &OsStr) -> OsString {
    let all = std::env::split_paths(search).chain(ALSO.iter().map(PathBuf::from));
    std::env::join_paths(all).unwrap_or_else(|_| search.to_owned())
}

fn is_program(path: &Path) -> bool {
    let Ok(found) = std::fs::metadata(path) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        found.is_file() && found.permissions().mode() & 0o111 != 0
    }
    #[cfg(not(unix))]
    found.is_file()
}

/// A helper and what it started: a script's own children hold its output open.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    #[cfg(unix)]
    fn of(child: &tokio::process::Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(rustix::process::Pid::from_raw) }
    }

    #[cfg(not(unix))]
    fn of(_: &tokio::process::Child) -> Self {
        Self {}
    }

    /// Ends whatever of it still runs.
    fn end(self) {
        #[cfg(unix)]
        if let Some(leader) = self.leader {
            // Usually nothing is left of it.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helpers_name_is_no_path_and_no_flag() {
        for good in ["desktop", "osxkeychain", "ecr-login", "secretservice", "gcr", "wincred.2"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "../evil", "a/b", "-x", ".", "a b", "a;b", "a\nb", "\u{430}", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_a_helper_writes_is_a_login_or_nothing() {
        let user = |given: Option<Given>| match given {
            Some(Given::Password { user, .. }) => user,
            Some(Given::Identity(_)) => "identity".into(),
            Some(Given::Nothing) => "nothing".into(),
            None => "none".into(),
        };
        for (written, expected) in [
            (r#"{"ServerURL":"ghcr.io","Username":"me","Secret":"s"}"#, "me"),
            (r#"{"Username":"<token>","Secret":"s"}"#, "identity"),
            (r#"{"ServerURL":"","Username":"","Secret":""}"#, "nothing"),
            (r#"{"Username":"me","Secret":""}"#, "none"),
            (r#"{"Username":"me","Secret":"a\nb"}"#, "none"),
            ("me", "none"),
            ("", "none"),
            ("7", "none"),
        ] {
            assert_eq!(user(read(written.as_bytes())), expected, "{written}");
        }
    }
}
