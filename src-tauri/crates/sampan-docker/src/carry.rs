//! The steps of a change, forwards and back: one file written, the engine told and heard.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sampan_oci::Digest;

use crate::client;
use crate::daemon_json::{self, same_list, same_mirror};
use crate::engine::Engine;
use crate::environment::Environment;
use crate::files::{self, ReplaceError};
use crate::journal::Journal;
use crate::manual;
use crate::plan::{ApplyMethod, FileChange, Part};
use crate::process;
use crate::service::{self, Service};
use crate::together;

/// How long a reload may take until the engine lists what it was told: it takes milliseconds.
const RELOADED: Duration = Duration::from_secs(10);
/// How long Docker Desktop may take to be back.
const RESTARTED: Duration = Duration::from_mins(3);
/// How long a daemon may take to stop its containers and end: each may take ten seconds.
const ENDS: Duration = Duration::from_mins(1);
/// How long it may be away after its end before it counts as unhealthy, and then as not to be started.
const BACK: Duration = Duration::from_secs(30);
/// A daemon that is back still answers after this.
const STEADY: Duration = Duration::from_secs(1);
/// How often the engine is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How often a file is put back while the daemon comes and goes.
const RESTORES_MAX: u32 = 3;

/// What went wrong on the way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Somebody else changed the file.
    #[error("{0} was changed by somebody else in the meantime.")]
    Changed(PathBuf),
    /// The file system said no.
    #[error("{path}: {source}.")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The engine could not be told, or did not take it.
    #[error("{0}")]
    Engine(String),
}

/// A change under way.
pub(crate) struct Carrier<'a> {
    pub(crate) env: &'a Environment,
    pub(crate) engine: &'a Engine,
    pub(crate) journal: Journal,
    pub(crate) steps: Vec<String>,
    /// What the engine listed before the change; `None` after an interrupted run.
    known: Option<Vec<String>>,
    /// What restarts the engine.
    service: &'a dyn Service,
    /// Files that could not go back yet, because a mirror on this machine is still named.
    pub(crate) kept: Vec<PathBuf>,
    /// Whether any file was written.
    pub(crate) touched: bool,
    /// What each file holds now, of those that were written, in order.
    written: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl<'a> Carrier<'a> {
    pub(crate) fn new(
        env: &'a Environment,
        engine: &'a Engine,
        journal: Journal,
        steps: Vec<String>,
        service: &'a dyn Service,
    ) -> Self {
        let known = Some(engine.mirrors.clone());
        let (kept, written) = (Vec::new(), Vec::new());
        Self { env, engine, journal, steps, known, service, kept, touched: false, written }
    }

    /// Takes over files that an interrupted run wrote.
    pub(crate) fn resume(&mut self, files: &[FileChange]) {
        self.known = None;
        self.reopen(files);
    }

    /// Takes over files that an earlier change wrote, to take them back.
    pub(crate) fn reopen(&mut self, files: &[FileChange]) {
        self.written = files.iter().map(|file| (file.target.clone(), file.after.clone())).collect();
    }

    /// Backs up a file and makes its folder, and writes both into the journal before the file itself is touched.
    pub(crate) fn prepare(&mut self, file: &FileChange) -> Result<(), Failed> {
        let io = |source| Failed::Io { path: file.target.clone(), source };
        let missing = if file.before.is_none() { files::missing_folders(&file.target) } else { Vec::new() };
        let mut backup = None;
        if let Some(before) = &file.before {
            let keep = self.journal.backup_of(&file.target);
            let path = files::back_up(&file.target, before, self.env.clock.now(), keep).map_err(io)?;
            self.steps.push(format!("Backed up {} as {}.", file.path.display(), path.display()));
            backup = Some(path);
        }
        if let Some(change) = self.journal.pending.iter_mut().find(|change| change.target == file.target) {
            change.backup = backup;
            change.made_folders.clone_from(&missing);
        }
        self.journal.save(&self.env.state_dir).map_err(io)?;
        files::make_folders(&missing).map_err(io)
    }

    /// Makes `bytes` the content of the file; `None` removes it.
    pub(crate) fn write(&mut self, file: &FileChange, bytes: Option<&[u8]>) -> Result<(), Failed> {
        let known = self.written.iter().position(|(target, _)| *target == file.target);
        let shown = known.map_or_else(|| file.before.clone(), |index| self.written[index].1.clone());
        if shown.as_deref() == bytes {
            return Ok(());
        }
        let result = match (shown.as_deref(), bytes) {
            (shown, Some(bytes)) => files::replace(&file.target, shown, bytes),
            (Some(shown), None) => files::remove(&file.target, shown),
            (None, None) => Ok(()),
        };
        result.map_err(|error| match error {
            ReplaceError::Changed => Failed::Changed(file.path.clone()),
            ReplaceError::Unreadable(why) => {
                Failed::Io { path: file.path.clone(), source: io::Error::other(why) }
            }
            ReplaceError::Io(source) => Failed::Io { path: file.path.clone(), source },
        })?;
        self.touched = true;
        let now = bytes.map(<[u8]>::to_vec);
        match known {
            Some(index) => self.written[index].1 = now,
            None => self.written.push((file.target.clone(), now)),
        }
        let did = if bytes.is_some() { "Wrote" } else { "Removed" };
        self.steps.push(format!("{did} {}.", file.path.display()));
        Ok(())
    }

    /// Tells the engine to read its configuration and waits until it lists one of `accepted`.
    pub(crate) async fn tell(&mut self, apply: ApplyMethod, accepted: &[Vec<String>]) -> Result<(), Failed> {
        let limit = match apply {
            ApplyMethod::Nothing => return Ok(()),
            ApplyMethod::Reload => {
                self.reload().await?;
                RELOADED
            }
            ApplyMethod::Restart if self.engine.kind.is_local_daemon() => {
                return self.restart(accepted).await;
            }
            ApplyMethod::Restart => {
                let restarted = tokio::time::timeout(RESTARTED, self.service.restart()).await;
                let why = "Docker was not restarted in three minutes.";
                let step = restarted.map_err(|_| Failed::Engine(why.into()))?.map_err(Failed::Engine)?;
                self.steps.push(step);
                RESTARTED
            }
        };
        if accepted.is_empty() {
            return Ok(());
        }
        self.confirm(accepted, limit).await
    }

    /// Restarts a daemon of this machine and watches it: it must be back, and stay, soon after it has ended.
    async fn restart(&mut self, accepted: &[Vec<String>]) -> Result<(), Failed> {
        let (service, old) = (self.service, self.engine.pid);
        let began = process::began(old);
        let too_long = async {
            let ended = async {
                while process::is_running(old) && process::began(old) == began {
                    tokio::time::sleep(ASK_EVERY).await;
                }
            };
            let _ = tokio::time::timeout(ENDS, ended).await;
            tokio::time::sleep(BACK).await;
        };
        let back = async {
            let step = service.restart().await?;
            let mirrors = self.answers(accepted).await;
            tokio::time::sleep(STEADY).await;
            client::mirrors(&self.engine.endpoint).await?;
            Ok::<_, String>((step, mirrors))
        };
        let result = tokio::select! {
            result = back => result,
            () = too_long => {
                let seconds = BACK.as_secs();
                Err(format!("it was not back, with the mirrors it was to have, within {seconds} s."))
            }
        };
        match result {
            Ok((step, mirrors)) => {
                let listed = if mirrors.is_empty() { "no mirrors".into() } else { mirrors.join(", ") };
                self.steps.extend([step, format!("Docker is back and lists {listed}.")]);
                Ok(())
            }
            Err(why) => {
                Err(Failed::Engine(format!("Docker did not come back with the new configuration: {why}")))
            }
        }
    }

    /// Waits until the engine answers and lists one of `accepted` (anything, where that is empty).
    async fn answers(&self, accepted: &[Vec<String>]) -> Vec<String> {
        loop {
            if let Ok(mirrors) = client::mirrors(&self.engine.endpoint).await
                && (accepted.is_empty() || accepted.iter().any(|list| same_list(&mirrors, list)))
            {
                return mirrors;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Starts a daemon that did not come back, once: its files are as they were.
    async fn start_anew(&mut self) -> Result<(), Failed> {
        let service = self.service;
        let started = async {
            let step = service.start_anew().await?;
            self.answers(&[]).await;
            Ok::<_, String>(step)
        };
        let seconds = BACK.as_secs();
        match tokio::time::timeout(BACK, started).await {
            Err(_) => Err(Failed::Engine(format!("Docker did not start again within {seconds} s."))),
            Ok(Err(why)) => Err(Failed::Engine(format!("Docker did not start again: {why}"))),
            Ok(Ok(step)) => {
                self.steps.extend([step, "Docker runs again, as it was before.".into()]);
                Ok(())
            }
        }
    }

    async fn confirm(&mut self, accepted: &[Vec<String>], limit: Duration) -> Result<(), Failed> {
        let mut last = String::new();
        let listed = async {
            loop {
                match client::mirrors(&self.engine.endpoint).await {
                    Ok(mirrors) if accepted.iter().any(|list| same_list(&mirrors, list)) => return mirrors,
                    Ok(mirrors) => last = format!("it lists [{}]", mirrors.join(", ")),
                    Err(error) => last = error,
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        match tokio::time::timeout(limit, listed).await {
            Ok(mirrors) if mirrors.is_empty() => self.steps.push("Docker now lists no mirrors.".into()),
            Ok(mirrors) => self.steps.push(format!("Docker now lists {}.", mirrors.join(", "))),
            Err(_) => {
                let seconds = limit.as_secs();
                return Err(Failed::Engine(format!(
                    "Docker did not take the new mirrors within {seconds} s: {last}."
                )));
            }
        }
        Ok(())
    }

    /// Puts every written file back to the bytes from before, last first, and the engine to the mirrors it had.
    pub(crate) async fn roll_back(&mut self, files: &[FileChange], apply: ApplyMethod) -> Result<(), Failed> {
        let written: Vec<PathBuf> = self.written.iter().rev().map(|(target, _)| target.clone()).collect();
        for target in written {
            let Some(file) = files.iter().find(|file| file.target == target) else { continue };
            match &file.part {
                Part::DaemonJson if apply != ApplyMethod::Nothing => self.restore_config(file, apply).await?,
                Part::Hosts(registry) if registry.is_docker_hub() && file.before.is_none() => {
                    match self.still_named().await {
                        Some(why) if self.known.is_some() => return Err(Failed::Engine(why)),
                        Some(why) => {
                            self.steps.push(format!("{} stays: {why}", file.path.display()));
                            self.kept.push(target);
                        }
                        None => self.write(file, None)?,
                    }
                }
                Part::DaemonJson | Part::Hosts(_) | Part::Client => {
                    self.write(file, file.before.as_deref())?;
                }
            }
        }
        // Where daemon.json was not part of it, nobody has looked after the daemon yet.
        if apply == ApplyMethod::Restart && self.engine.kind.is_local_daemon() && !self.answers_now().await {
            self.start_anew().await?;
        }
        self.steps.push("Took everything back.".into());
        Ok(())
    }

    /// Puts `daemon.json` back, and the engine to what it listed.
    async fn restore_config(&mut self, file: &FileChange, apply: ApplyMethod) -> Result<(), Failed> {
        let before = file.before.clone().unwrap_or_default();
        // A daemon that refused the file never left the list it had, whatever its file says.
        let mut accepted: Vec<Vec<String>> = daemon_json::mirrors(&before).into_iter().collect();
        accepted.extend(self.known.clone());
        if apply == ApplyMethod::Restart && !self.engine.kind.is_local_daemon() {
            self.write(file, file.before.as_deref())?;
            return self.tell(apply, &accepted).await;
        }
        if apply == ApplyMethod::Restart && !self.answers_now().await {
            self.write(file, file.before.as_deref())?;
            return self.start_anew().await;
        }
        // One that answers, restarted or not, lets go by a reload: it is not restarted twice.
        for _ in 0..RESTORES_MAX {
            if self.is_gone().await {
                self.write(file, file.before.as_deref())?;
                // It may have started meanwhile, from the file as it was changed.
                if self.is_gone().await {
                    self.steps.push("Docker does not run: it will start with the file as it was.".into());
                    return Ok(());
                }
            }
            // As in undoing: without the key the engine would keep what it has.
            let first = match daemon_json::has_list(&before) {
                Ok(false) => {
                    let empty = daemon_json::with_empty_list(&before)
                        .map_err(|refusal| Failed::Engine(refusal.to_string()))?;
                    self.journal_way_back(file, &empty)?;
                    Some(empty)
                }
                Ok(true) | Err(_) => file.before.clone(),
            };
            self.write(file, first.as_deref())?;
            match self.tell(ApplyMethod::Reload, &accepted).await {
                Ok(()) => return self.write(file, file.before.as_deref()),
                Err(failed) if !self.is_gone().await => return Err(failed),
                Err(_) => {}
            }
        }
        Err(Failed::Engine("Docker starts and ends all the time.".into()))
    }

    /// Writes into the journal what the file is about to hold, so that the next start knows it for Sampan's.
    fn journal_way_back(&mut self, file: &FileChange, bytes: &[u8]) -> Result<(), Failed> {
        if let Some(change) = self.journal.pending.iter_mut().find(|change| change.target == file.target) {
            change.going_back = Some(Digest::of(bytes));
        }
        let path = &self.env.state_dir;
        self.journal.save(path).map_err(|source| Failed::Io { path: path.clone(), source })
    }

    /// Whether the engine answers now.
    async fn answers_now(&self) -> bool {
        client::mirrors(&self.engine.endpoint).await.is_ok()
    }

    /// Whether no daemon answers and none is running. One that hangs is not gone: it still has its mirrors.
    async fn is_gone(&self) -> bool {
        client::mirrors(&self.engine.endpoint).await.is_err() && !process::is_running(self.engine.pid)
    }

    /// Why Docker Hub's `hosts.toml` must not go yet: a mirror on this machine is still named.
    pub(crate) async fn still_named(&self) -> Option<String> {
        let mut named = Vec::new();
        let mut agreed = self.known.clone();
        if let Some(config) = &self.engine.config {
            let now = match files::read(&config.target) {
                Ok(now) => now,
                Err(why) => return Some(why),
            };
            let hash = now.as_deref().map(Digest::of);
            let restored = self
                .journal
                .pending_on(&self.engine.endpoint)
                .any(|change| change.part == Part::DaemonJson && change.before == hash)
                || (self.known.is_some() && now == config.bytes);
            match daemon_json::mirrors(now.as_deref().unwrap_or_default()) {
                Ok(list) if restored => agreed = agreed.or(Some(list)),
                Ok(list) => named.extend(list),
                Err(_) if restored => {}
                Err(refusal) => return Some(format!("{}: {refusal}.", config.path.display())),
            }
        }
        // An engine that does not answer has no mirrors but those it will read.
        let listed = client::mirrors(&self.engine.endpoint).await.unwrap_or_default();
        let agreed = agreed.unwrap_or_default();
        named.extend(listed.into_iter().filter(|url| !agreed.iter().any(|other| same_mirror(url, other))));
        let insecure = together::insecure(self.engine);
        let url = named.into_iter().find(|url| together::belongs_beside(url, &insecure))?;
        Some(format!("{url} is still among Docker's mirrors, and both files belong together."))
    }

    /// The commands that finish a failed rollback.
    pub(crate) fn by_hand(&self, files: &[FileChange], apply: ApplyMethod) -> Vec<String> {
        let back: Vec<FileChange> = files
            .iter()
            .rev()
            .map(|file| FileChange {
                after: file.before.clone(),
                before: file.after.clone(),
                interim: None,
                ..file.clone()
            })
            .collect();
        // What root does here is the helper's, and a person without its rights is who runs the commands.
        let as_root = self.env.uid == 0;
        let mut lines = manual::commands(self.engine, &back, apply, as_root);
        // systemd may have given up on a daemon that did not come back.
        let start = service::start_by_hand(self.engine, if as_root { "sudo " } else { "" });
        if let Some(start) = start.filter(|_| apply == ApplyMethod::Restart) {
            let restart = service::by_hand(self.engine, if as_root { "sudo " } else { "" }).join(" && ");
            lines.retain(|line| *line != restart);
            lines.push(start);
        }
        lines
    }

    #[cfg(target_os = "linux")]
    async fn reload(&mut self) -> Result<(), Failed> {
        use crate::context::{Reach, reach};
        use rustix::process::{Pid, Signal, kill_process};
        // Asked again: the daemon may have been restarted since, and a signal must never reach another process.
        let Reach::Unix(socket) = reach(&self.engine.endpoint) else {
            return Err(Failed::Engine(format!("{} cannot be asked to reload.", self.engine.endpoint)));
        };
        let daemon =
            crate::process::daemon(&socket).await.map_err(|why| Failed::Engine(format!("{why}.")))?;
        let pid = i32::try_from(daemon.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failed::Engine("The daemon's process is not known.".into()))?;
        kill_process(pid, Signal::HUP).map_err(|error| {
            Failed::Engine(format!("dockerd (process {}) cannot be signalled: {error}.", daemon.pid))
        })?;
        self.steps.push(format!("Asked dockerd (process {}) to read its configuration again.", daemon.pid));
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_async, reason = "the same signature as on Linux")]
    async fn reload(&mut self) -> Result<(), Failed> {
        Err(Failed::Engine(format!("{} cannot be asked to reload.", self.engine.endpoint)))
    }
}
