//! Running other programs: shown before they start, named when they fail.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::environment::Environment;

/// A cargo command in the workspace.
pub(crate) fn cargo<I, S>(environment: &Environment, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = tool(environment, &environment.cargo);
    command.args(arguments);
    command
}

/// A program that calls cargo itself (cargo-nextest, cargo-deny), in the workspace.
pub(crate) fn tool(environment: &Environment, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(&environment.workspace);
    for name in &environment.leaked {
        command.env_remove(name);
    }
    if environment.ci {
        // Incremental state costs a clean build time and disk, and is thrown away.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// The command line as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Shows the command, runs it, waits.
///
/// # Errors
/// It cannot be started or ends with anything but success; the error names the command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("  $ {}", line(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if status.success() { Ok(()) } else { bail!("`{}` failed ({status})", line(command)) }
}

/// Runs quietly; its standard output, if it succeeded.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Asks on the terminal. An empty answer means `default`; the end of the input means no.
pub(crate) fn ask(question: &str, default: bool) -> bool {
    let choices = if default { "Y/n" } else { "y/N" };
    eprint!("{question} [{choices}] ");
    // A prompt that cannot be shown is answered by the line read next, or by its absence.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(0) | Err(_) => false,
        Ok(_) => answered(&answer, default),
    }
}

fn answered(answer: &str, default: bool) -> bool {
    match answer.trim().to_ascii_lowercase().as_str() {
        "" => default,
        "y" | "yes" => true,
        _ => false,
    }
}

/// `73 s` as `1 min 13 s`; less than ten seconds with a tenth.
pub(crate) fn spent(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else if seconds >= 10 {
        format!("{seconds} s")
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/usr/bin/skopeo");
        command.args(["copy", "it's here", "oci:a/b:c", ""]);
        assert_eq!(line(&command), r"skopeo copy 'it'\''s here' oci:a/b:c ''");
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        for (answer, default, expected) in [
            ("\n", true, true),
            ("\n", false, false),
            ("Y\n", false, true),
            ("yes\n", false, true),
            ("n\n", true, false),
            ("maybe\n", true, false),
        ] {
            assert_eq!(answered(answer, default), expected, "{answer:?} with default {default}");
        }
    }

    #[test]
    fn times_are_short_to_read() {
        let shown = [900, 42_000, 73_000, 3_600_000].map(|millis| spent(Duration::from_millis(millis)));
        assert_eq!(shown, ["0.9 s", "42 s", "1 min 13 s", "60 min 00 s"]);
    }
}
