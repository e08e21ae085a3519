//! A dockerd of the test's own: everything it owns lies in one temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::process::{Process, finish};
use crate::{bins, scratch};

/// How long it may take to start on a busy machine.
const START_WITHIN: Duration = Duration::from_mins(1);

/// Which configuration file it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file of the test's, by `--config-file`. Every program finds it.
    Named,
    /// `/etc/docker/daemon.json`, in a mount namespace in which `/etc/docker` is a folder of the test's. Programs that
    /// are to find it there run in that namespace too: see [`Dockerd::beside`].
    Usual,
    /// As [`Place::Usual`], and that folder is read-only once dockerd runs.
    UsualReadOnly,
}

/// How to start a [`Dockerd`].
#[derive(Clone, Debug)]
pub struct DockerdOptions {
    /// Which file it reads.
    pub place: Place,
    /// What is in that file at the start; `None`: there is no file.
    pub config: Option<String>,
    /// Whether `daemon.json` is a symbolic link to `real/daemon.json`.
    pub linked: bool,
}

impl Default for DockerdOptions {
    fn default() -> Self {
        Self { place: Place::Named, config: Some("{}\n".into()), linked: false }
    }
}

/// A dockerd, and the `docker` command that speaks to it. Ends when dropped.
pub struct Dockerd {
    process: Process,
    /// What the shell runs instead of `exec dockerd "$@"`.
    program: String,
    options: DockerdOptions,
    folder: tempfile::TempDir,
}

impl Dockerd {
    /// Starts it and waits until it answers.
    ///
    /// Before dockerd asks a mirror it resolves docker.io (for its rules about insecure registries), which takes 10 s
    /// where there is no DNS: it gets a hosts file, in a mount namespace of its own. Nothing listens there, so that
    /// what Docker Hub would answer is refused at once.
    pub fn start(options: DockerdOptions) -> Self {
        let folder = scratch();
        let at = |name: &str| folder.path().join(name);
        for made in ["etc", "etc/real", "cli"] {
            std::fs::create_dir(at(made)).expect("a temporary folder can be written to");
        }
        let hosts = "127.0.0.1 localhost docker.io registry-1.docker.io auth.docker.io index.docker.io\n";
        std::fs::write(at("hosts"), hosts).expect("a temporary folder can be written to");
        if options.linked {
            std::os::unix::fs::symlink("real/daemon.json", at("etc/daemon.json")).expect("ext4 has links");
        }
        if let Some(config) = &options.config {
            std::fs::write(at("etc/daemon.json"), config).expect("a temporary folder can be written to");
        }
        let program = String::from("exec dockerd \"$@\"");
        let mut process = spawn(folder.path(), options.place, &program);
        process.wait_for_line(START_WITHIN, |line| line.contains("API listen on"));
        let dockerd = Self { process, program, options, folder };
        if dockerd.options.place == Place::UsualReadOnly {
            let mut remount = dockerd.beside(Path::new("mount"));
            let output = finish(remount.args(["-o", "remount,bind,ro", "/etc/docker"]));
            assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        }
        dockerd
    }

    /// From the next start on, the shell runs this instead of `exec dockerd "$@"`: a unit that somebody edited.
    pub fn edit_unit(&mut self, program: &str) {
        program.clone_into(&mut self.program);
    }

    /// Ends it as systemd would, and waits until it is gone.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it again, with the same folder, without waiting for it.
    pub fn start_again(&mut self) {
        self.process = spawn(self.folder.path(), self.options.place, &self.program);
    }

    /// Whether it says that it is ready, as it does once after each start; `Err`: it has ended, and its last line.
    ///
    /// # Errors
    /// The last line it wrote.
    pub fn is_ready(&mut self) -> Result<bool, String> {
        let ended = self.process.has_ended().is_some();
        let lines = self.process.lines();
        if lines.iter().any(|line| line.contains("API listen on")) && !ended {
            return Ok(true);
        }
        if ended { Err(lines.last().cloned().unwrap_or_default()) } else { Ok(false) }
    }

    /// Where it is reached: a value for `DOCKER_HOST`.
    pub fn endpoint(&self) -> String {
        endpoint(self.folder.path())
    }

    /// Its process id, which is also in its pid file.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it runs, as the process that was started.
    pub fn runs(&mut self) -> bool {
        let named = std::fs::read_to_string(self.folder.path().join("pid")).unwrap_or_default();
        self.process.has_ended().is_none() && named.trim() == self.id().to_string()
    }

    /// Its `daemon.json`, as it and Sampan name it.
    pub fn config_path(&self) -> PathBuf {
        match self.options.place {
            Place::Named => self.config_file(),
            Place::Usual | Place::UsualReadOnly => "/etc/docker/daemon.json".into(),
        }
    }

    /// Its `daemon.json`, as the test reaches it.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("etc/daemon.json")
    }

    /// The bytes of its `daemon.json`; `None`: there is none.
    pub fn config(&self) -> Option<String> {
        std::fs::read_to_string(self.config_file()).ok()
    }

    /// A command that runs in dockerd's mount namespace, where its `/etc/docker` is.
    pub fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.id())).arg("--").arg(program);
        command
    }

    /// `docker <arguments>`, to be started or run to its end.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(bins::installed("docker").expect("the test asked for it"));
        command.env("DOCKER_HOST", self.endpoint()).env("DOCKER_CONFIG", self.folder.path().join("cli"));
        command.args(arguments);
        command
    }

    /// Runs `docker <arguments>`.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments))
    }

    /// Runs `docker <arguments>` and returns what it printed.
    ///
    /// # Panics
    /// If it fails, with its own words.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {}: {words}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `docker pull`; how long it took.
    ///
    /// # Panics
    /// If it fails, with its own words.
    pub fn pull(&self, image: &str) -> Duration {
        let begun = std::time::Instant::now();
        self.must(&["pull", "--quiet", image]);
        begun.elapsed()
    }

    /// `docker rmi`: the image is gone from this dockerd.
    pub fn forget(&self, image: &str) {
        self.must(&["rmi", "--force", image]);
        assert!(!self.holds(image), "{image} is gone");
    }

    /// Whether it has the image.
    pub fn holds(&self, image: &str) -> bool {
        !self.must(&["images", "--quiet", image]).is_empty()
    }

    /// Starts a container that sleeps, from an image made here: links into the file system of this machine, which it
    /// sees read-only. Ends at once when dockerd does.
    pub fn start_container(&self, name: &str) {
        let archive = self.folder.path().join("container.tar");
        let file = std::fs::File::create(&archive).expect("a temporary folder can be written to");
        let mut builder = tar::Builder::new(file);
        for folder in ["bin", "lib", "lib64", "usr"] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            let linked = builder.append_link(&mut header, folder, format!("host/{folder}"));
            linked.expect("a temporary folder can be written to");
        }
        builder.finish().expect("a temporary folder can be written to");
        self.must(&["import", &archive.to_string_lossy(), "sampan-sleeper:1"]);
        let options = ["run", "--detach", "--network=none", "--volume=/:/host:ro", "--stop-signal=SIGKILL"];
        self.must(&[&options[..], &["--name", name, "sampan-sleeper:1", "sleep", "1000"]].concat());
    }

    /// Whether a container runs, as which process, and since when.
    pub fn container_state(&self, name: &str) -> String {
        self.must(&["inspect", "--format", "{{.State.Running}} {{.State.Pid}} {{.State.StartedAt}}", name])
    }

    /// The mirrors it lists itself (`/info`).
    pub fn mirrors(&self) -> Vec<String> {
        let text = self.must(&["info", "--format", "{{json .RegistryConfig.Mirrors}}"]);
        let mirrors: Option<Vec<String>> = serde_json::from_str(&text).expect("docker prints JSON");
        mirrors.unwrap_or_default()
    }
}

fn spawn(folder: &Path, place: Place, program: &str) -> Process {
    let at = |name: &str| folder.join(name);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    // /etc/docker in every case: dockerd also keeps a key of its own there.
    command.arg(format!(
        "mount --bind \"$0/hosts\" /etc/hosts && mkdir -p /etc/docker && mount --bind \"$0/etc\" /etc/docker && {program}"
    ));
    command.arg(folder);
    for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        command.arg(flag).arg(at(name));
    }
    if place == Place::Named {
        command.arg("--config-file").arg(at("etc/daemon.json"));
    }
    command.args(["--host", &endpoint(folder)]);
    command.args(["--bridge=none", "--iptables=false", "--ip-forward=false"]);
    Process::start("dockerd", folder, &mut command)
}

fn endpoint(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}
