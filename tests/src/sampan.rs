//! `sampan serve` as a person starts it, and the ways to ask it.

use std::path::{Path, PathBuf};
use std::process::{Command as Program, Output};
use std::time::Duration;

use sampan_app::Client;
use sampan_app::api::{
    ApiError, Command, DockerAction, DockerApplied, DockerPlan, DockerProof, Pull, PullState, Reply, Savings,
    Snapshot,
};
use serde::de::DeserializeOwned;

use crate::process::{Process, finish};
use crate::{Dockerd, bins, free_port, scratch};

const START_WITHIN: Duration = Duration::from_secs(20);
/// A pull ends when nothing has flowed for three seconds.
const PULL_ENDS_WITHIN: Duration = Duration::from_secs(15);

/// How to start a [`Sampan`].
#[derive(Clone, Default)]
pub struct SampanOptions<'a> {
    /// The address of docker.io for it: `http://127.0.0.1:5000`.
    pub upstream: String,
    /// The Docker that it finds; `None`: none.
    pub dockerd: Option<&'a Dockerd>,
    /// Whether it runs in the mount namespace of that Docker, to find its `/etc/docker`.
    pub beside: bool,
}

/// A running `sampan serve`, with folders and a port of its own. Ends when dropped.
pub struct Sampan {
    process: Process,
    port: u16,
    start: Box<dyn Fn() -> Program>,
    endpoint: String,
    folder: tempfile::TempDir,
}

impl Sampan {
    /// Starts it and waits for the line that says it is ready.
    pub fn start(options: &SampanOptions<'_>) -> Self {
        let (folder, port) = (scratch(), free_port());
        let program = bins::ours("sampan");
        let listen = format!("127.0.0.1:{port}");
        let upstream = format!("docker.io={}", options.upstream);
        let (state, cache) = (folder.path().join("state"), folder.path().join("cache"));
        let home = folder.path().to_owned();
        let endpoint = options
            .dockerd
            .map_or_else(|| format!("unix://{}", home.join("no-docker.sock").display()), Dockerd::endpoint);
        // A namespace is named by a process: dockerd's, which outlives every Sampan of a test.
        let namespace = options.dockerd.filter(|_| options.beside).map(Dockerd::id);
        let docker_host = endpoint.clone();
        let start = Box::new(move || {
            let mut command = match namespace {
                Some(pid) => {
                    let mut nsenter = Program::new("nsenter");
                    nsenter.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("--").arg(&program);
                    nsenter
                }
                None => Program::new(&program),
            };
            command.env("HOME", &home).env("DOCKER_HOST", &docker_host);
            command.args(["serve", "--listen", &listen, "--upstream", &upstream]);
            command.arg("--state-dir").arg(&state).arg("--cache-dir").arg(&cache);
            command
        });
        let process = serve(&start, folder.path());
        Self { process, port, start, endpoint, folder }
    }

    /// Starts it again after [`Sampan::kill`] or [`Sampan::stop`]: same port, same folders.
    pub fn restart(&mut self) {
        self.process = serve(&self.start, self.folder.path());
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it by SIGTERM.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop(&mut self) {
        let ended = self.process.stop();
        assert!(ended.is_some_and(|status| status.success()), "SIGTERM is a clean end: {ended:?}");
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens: `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The mirror as dockerd lists it.
    pub fn mirror_url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// Its state folder, where its socket is.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Its cache folder.
    pub fn cache_dir(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A folder of the test's, beside the other two.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection to its socket.
    pub async fn client(&self) -> Client {
        Client::connect(&self.state_dir()).await.expect("a running Sampan has a socket")
    }

    /// Asks it, over its socket.
    ///
    /// # Errors
    /// What it answers when a command fails.
    pub async fn call(&self, command: Command) -> Result<Reply, ApiError> {
        let reply = self.client().await.call(command).await.expect("a running Sampan answers");
        if let Reply::Error(error) = reply { Err(error) } else { Ok(reply) }
    }

    /// Its state now.
    pub async fn snapshot(&self) -> Snapshot {
        let Ok(Reply::Snapshot(snapshot)) = self.call(Command::Snapshot).await else {
            panic!("not a snapshot")
        };
        *snapshot
    }

    /// What today saved.
    pub async fn savings(&self) -> Savings {
        let Ok(Reply::Savings(savings)) = self.call(Command::Savings { days: 1 }).await else {
            panic!("not savings")
        };
        savings
    }

    /// Past pulls, newest first.
    pub async fn history(&self) -> Vec<Pull> {
        let Ok(Reply::History(pulls)) = self.call(Command::History { limit: 100 }).await else {
            panic!("not a history")
        };
        pulls
    }

    /// Waits until no pull is going on.
    pub async fn idle(&self) -> Snapshot {
        self.watch_for("the end of all pulls", PULL_ENDS_WITHIN, |snapshot| {
            snapshot.pulls.iter().all(|pull| pull.state != PullState::Active)
        })
        .await
    }

    /// Watches it until a snapshot is as `wanted`.
    ///
    /// # Panics
    /// If none is `within` that time.
    pub async fn watch_for(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Snapshot {
        let mut watched = self.client().await.watch().await.expect("a running Sampan can be watched");
        let mut last = None;
        let found = async {
            while let Some(snapshot) = watched.next().await {
                if wanted(&snapshot) {
                    return Some(snapshot);
                }
                last = Some(snapshot);
            }
            None
        };
        let found = tokio::time::timeout(within, found).await.ok().flatten();
        found.unwrap_or_else(|| panic!("{what} was not seen within {within:?}; last: {last:#?}"))
    }

    /// What setting Docker up, or taking that back, would change.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub async fn plan(&self, action: DockerAction) -> Result<DockerPlan, ApiError> {
        let command = Command::DockerPlan { action, registries: None, restart: false };
        let Reply::DockerPlan(plan) = self.call(command).await? else { panic!("not a plan") };
        Ok(plan)
    }

    /// Applies a plan that was shown, without consent to a restart.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn apply(&self, plan: &DockerPlan) -> Result<DockerApplied, ApiError> {
        let command = Command::DockerApply { plan: plan.id.clone(), restart: false };
        let Reply::DockerApplied(applied) = self.call(command).await? else {
            panic!("not the end of a change")
        };
        Ok(applied)
    }

    /// Plans and applies, as a person does by two clicks.
    ///
    /// # Panics
    /// If either fails.
    pub async fn set_up(&self, action: DockerAction) -> DockerApplied {
        let plan = self.plan(action).await.unwrap_or_else(|error| panic!("{action:?}: {error:?}"));
        self.apply(&plan).await.unwrap_or_else(|error| panic!("{action:?}: {error:?}"))
    }

    /// Whether Docker really asks it.
    pub async fn prove(&self) -> DockerProof {
        let Ok(Reply::DockerProof(proof)) = self.call(Command::DockerProve).await else {
            panic!("not a proof")
        };
        proof
    }

    /// Runs `sampan <arguments>` against it, or with its folders and its Docker where it does not run.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Program::new(bins::ours("sampan"));
        command
            .env("HOME", self.folder.path())
            .env("DOCKER_HOST", &self.endpoint)
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state_dir());
        finish(&mut command)
    }

    /// Runs `sampan <arguments> --json` and reads what it prints.
    ///
    /// # Panics
    /// If it fails, with its own words.
    pub fn cli_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let output = self.cli(&[arguments, &["--json"]].concat());
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sampan {}: {words}", arguments.join(" "));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("sampan {}: {error}", arguments.join(" ")))
    }
}

fn serve(start: &dyn Fn() -> Program, folder: &Path) -> Process {
    let mut process = Process::start("sampan", folder, &mut start());
    process.wait_for_line(START_WITHIN, |line| line.starts_with("Sampan serves "));
    process
}
