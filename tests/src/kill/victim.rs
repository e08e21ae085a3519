//! `sampan serve` on folders that outlive it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sampan_app::Client;
use sampan_app::api::{Command as Call, Reply};

use super::world::{SLOW_REGISTRY, World};
use super::{Broken, broken};
use crate::process::Process;
use crate::{bins, finish, free_port};

/// How long a start may take before it is a hang; what is asked of it is [`START_MOST`](super::START_MOST).
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// Its configuration file.
const SETTINGS: &str = "config.toml";

/// A Sampan to be killed.
pub(super) struct Victim {
    process: Process,
    folder: PathBuf,
    port: u16,
    upstreams: [String; 2],
}

impl Victim {
    /// Starts one, without waiting for anything. Its configuration file is `config.toml` in its folder.
    pub(super) fn start(folder: &Path, world: &World, settings: &str) -> Self {
        let port = free_port();
        std::fs::write(folder.join(SETTINGS), settings).expect("a temporary folder can be written to");
        let upstreams =
            [format!("docker.io={}", world.quick.url()), format!("{SLOW_REGISTRY}={}", world.slow.url())];
        let process = serve(&[], folder, port, &upstreams);
        Self { process, folder: folder.to_owned(), port, upstreams }
    }

    /// Starts it again after its death, without waiting for anything.
    pub(super) fn start_again(&mut self) {
        self.start_under(&[]);
    }

    /// Starts it again by a program that becomes it, or begins it and leaves.
    pub(super) fn start_under(&mut self, tracer: &[String]) {
        self.process = serve(tracer, &self.folder, self.port, &self.upstreams);
    }

    /// Waits for the line that says it is ready.
    pub(super) fn ready(&mut self) {
        self.process.wait_for_line(HANGS_AFTER, |line| line.starts_with("Sampan serves "));
    }

    /// The same; `false`: it is gone before.
    pub(super) fn ready_or_gone(&mut self) -> bool {
        let begun = Instant::now();
        while self.told("Sampan serves ") == 0 {
            if self.is_gone() || begun.elapsed() > HANGS_AFTER {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Waits for its end, at most so long.
    pub(super) fn ends_within(&mut self, most: Duration) {
        self.process.wait(most);
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Starts it again and says how long that took.
    pub(super) fn restart(&mut self) -> Duration {
        let begun = Instant::now();
        self.start_again();
        self.ready();
        begun.elapsed()
    }

    /// SIGKILL; it is gone when this returns.
    pub(super) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; it may go on for a while.
    pub(super) fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    fn is_gone(&mut self) -> bool {
        self.process.has_ended().is_some()
    }

    /// How many lines of its log have this in them, since it was started.
    pub(super) fn told(&self, what: &str) -> u64 {
        self.process.lines().iter().filter(|line| line.contains(what)).count() as u64
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn cache_dir(&self) -> PathBuf {
        self.folder.join("cache")
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A second one with the same cache, and with the same state, ends at once with a code, and says who has it.
    pub(super) fn refuses_a_second(&self) -> Result<(), Broken> {
        let pid = format!("process {}", self.process.id());
        let (ours, others) = (self.state_dir(), self.folder.join("state-2"));
        let state = format!("state folder {}", ours.display());
        for (state_dir, named) in [(&others, pid), (&ours, state)] {
            let mut second = command(&self.folder, state_dir, free_port(), &self.upstreams);
            // It is to end by itself: `timeout` makes a hang a failure.
            let mut limited = Command::new("timeout");
            limited.arg("10").arg(second.get_program()).args(second.get_args());
            limited.envs(second.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let output =
                finish(if bins::installed("timeout").is_some() { &mut limited } else { &mut second });
            let words = String::from_utf8_lossy(&output.stderr);
            if output.status.code() != Some(2) || !words.contains(&named) {
                let said = format!("{}, wanted `{named}`: {words}", output.status);
                return broken("a second Sampan is refused by name", said);
            }
        }
        Ok(())
    }
}

/// Asks the Sampan of this state folder one thing; [`Reply::Error`] is an answer too.
///
/// # Errors
/// That it said nothing.
pub(super) async fn answer(state_dir: &Path, call: Call) -> Result<Reply, String> {
    let mut client = Client::connect(state_dir).await.map_err(|error| error.to_string())?;
    client.call(call).await.map_err(|error| error.to_string())
}

fn command(folder: &Path, state: &Path, port: u16, upstreams: &[String]) -> Command {
    let mut command = Command::new(bins::ours("sampan"));
    command.env("HOME", folder);
    command.env("DOCKER_HOST", format!("unix://{}", folder.join("no-docker.sock").display()));
    command.arg("--config").arg(folder.join(SETTINGS));
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--cache-dir").arg(folder.join("cache")).arg("--state-dir").arg(state);
    for upstream in upstreams {
        command.args(["--upstream", upstream]);
    }
    command
}

fn serve(tracer: &[String], folder: &Path, port: u16, upstreams: &[String]) -> Process {
    let sampan = command(folder, &folder.join("state"), port, upstreams);
    let mut command = match tracer {
        [] => sampan,
        [program, options @ ..] => {
            let mut whole = Command::new(program);
            whole.args(options).arg(sampan.get_program()).args(sampan.get_args());
            whole.envs(sampan.get_envs().filter_map(|(name, value)| Some((name, value?))));
            whole
        }
    };
    Process::start("sampan", folder, &mut command)
}
