//! A mirror under test, Sampan or docker-registry: started, stopped, killed, emptied, always on the same port.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    bench::{
        process::{Running, answers, free_port},
        registry::Registry,
    },
    environment::Environment,
    shell,
};

/// The `sampan` to measure: the one given, or one built from here, release.
///
/// # Errors
/// There is none, or it does not build.
pub(crate) fn sampan(environment: &Environment, given: Option<&Path>) -> Result<PathBuf> {
    let program = if let Some(program) = given {
        std::path::absolute(program)?
    } else {
        shell::run(&mut shell::cargo(
            environment,
            ["build", "--release", "--locked", "--package", "sampan-cli"],
        ))?;
        environment.built("release", "sampan")
    };
    if program.is_file() { Ok(program) } else { bail!("there is no {}", program.display()) }
}

/// Which mirror.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The program, and what it is told besides where to listen, whom to ask and where to keep.
    Sampan { program: PathBuf, arguments: Vec<String> },
    /// The distribution registry in proxy mode.
    DockerRegistry,
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sampan { .. } => "sampan",
            Self::DockerRegistry => "docker-registry",
        }
    }
}

/// A mirror of Docker Hub with folders of its own. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Mirror {
    kind: Kind,
    folder: PathBuf,
    port: u16,
    upstream: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Stopped,
    Sampan(Running),
    DockerRegistry(Registry),
}

impl Mirror {
    /// Stopped as yet. `upstream`: the origin that stands for Docker Hub (`http://127.0.0.1:5000`).
    pub(crate) fn new(kind: Kind, folder: PathBuf, upstream: String) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { kind, folder, port: free_port()?, upstream, state: State::Stopped })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The loopback port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process, if it is a running Sampan.
    pub(crate) fn sampan_pid(&self) -> Option<u32> {
        match &self.state {
            State::Sampan(process) => Some(process.pid()),
            State::Stopped | State::DockerRegistry(_) => None,
        }
    }

    /// Its process, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Sampan(process) => Some(process.pid()),
            State::DockerRegistry(registry) => Some(registry.pid()),
            State::Stopped => None,
        }
    }

    /// Stops it, empties its folders, starts it anew.
    pub(crate) fn empty(&mut self) -> Result<()> {
        self.stop();
        for name in ["cache", "state"] {
            match fs::remove_dir_all(self.folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        self.start()
    }

    /// Starts it with what its folders hold, and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.state = match &self.kind {
            Kind::DockerRegistry => State::DockerRegistry(Registry::start(
                &self.folder,
                "cache",
                self.port,
                Some(&self.upstream),
            )?),
            Kind::Sampan { program, arguments } => {
                let log = self.folder.join("sampan.log");
                let mut process = Running::start(&mut self.serve(program, arguments), &log)?;
                process.ready("sampan", &log, Duration::from_secs(20), || answers(self.port))?;
                State::Sampan(process)
            }
        };
        Ok(())
    }

    /// Starts a Sampan as [`start`](Self::start) does; how long until it said that it is ready.
    ///
    /// # Errors
    /// It is not a Sampan, or ends before it is ready.
    pub(crate) fn start_timed(&mut self) -> Result<Duration> {
        let Kind::Sampan { program, arguments } = &self.kind else {
            bail!("only Sampan says when it is ready");
        };
        let log = self.folder.join("sampan.log");
        let (process, took) = Running::start_until_line(&mut self.serve(program, arguments), &log)?;
        self.state = State::Sampan(process);
        Ok(took)
    }

    fn serve(&self, program: &Path, arguments: &[String]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--upstream", &format!("docker.io={}", self.upstream)])
            .arg("--cache-dir")
            .arg(self.folder.join("cache"))
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .args(arguments);
        // Its settings are those above, not those of whoever measures.
        for name in ["HOME", "XDG_CONFIG_HOME"] {
            command.env(name, &self.folder);
        }
        command
    }

    /// Ends it as a person would.
    pub(crate) fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Errors
    /// It is not a running Sampan.
    pub(crate) fn kill(&mut self) -> Result<()> {
        match &mut self.state {
            State::Sampan(process) => process.kill(),
            State::Stopped | State::DockerRegistry(_) => bail!("only a running Sampan is killed here"),
        }
        self.state = State::Stopped;
        Ok(())
    }
}
