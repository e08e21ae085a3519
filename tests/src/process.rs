//! A program that runs for as long as a test needs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to end by itself after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How often a condition without a signal of its own is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The lines of a log that a failed test shows.
const SHOWN_LINES: usize = 40;
/// What the environment of whoever runs the tests must not decide.
const FOREIGN: [&str; 18] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "CONTAINERS_REGISTRIES_CONF",
    "XDG_CONFIG_HOME",
    "SAMPAN_CONFIG",
    "SAMPAN_LISTEN",
    "SAMPAN_UPSTREAM",
    "SAMPAN_CACHE_DIR",
    "SAMPAN_STATE_DIR",
    "SAMPAN_LOG",
    "RUST_LOG",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// A temporary folder with a path short enough for sockets in it (they hold 107 bytes). Removed when dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("sampan-").tempdir_in("/tmp").expect("/tmp can be written to")
}

/// Runs `command` to its end without the settings of whoever runs the tests.
pub fn finish(command: &mut Command) -> Output {
    strip(command).stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn strip(command: &mut Command) -> &mut Command {
    for name in FOREIGN {
        // What the caller sets is meant.
        if !command.get_envs().any(|(set, value)| set == name && value.is_some()) {
            command.env_remove(name);
        }
    }
    command
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running program. Dropping it sends SIGTERM, and SIGKILL if it has not ended after 10 s. What it writes is kept in
/// memory and in its log file; a test that fails shows the end of it.
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    said: Arc<Said>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` without the settings of whoever runs the tests; both its outputs go to `<folder>/<name>.log`.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = Arc::new(Mutex::new(file.expect("the folder can be written to")));
        let spawned =
            strip(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let said = Arc::new(Said::default());
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
            child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let (said, file) = (said.clone(), file.clone());
            // Read to its end, so that the program never waits for its own log.
            std::thread::spawn(move || {
                let mut reader = BufReader::new(output);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                    let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
                    said.lock().push(String::from_utf8_lossy(&line).trim_end().to_owned());
                    said.more.notify_all();
                    line.clear();
                }
                said.more.notify_all();
            });
        }
        Self { name: name.into(), child, ended: None, said, log }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far, both outputs together.
    pub fn lines(&self) -> Vec<String> {
        self.said.lock().clone()
    }

    /// Waits until it has written a line for which `wanted` holds, and returns that line.
    ///
    /// # Panics
    /// If it ends before, or does not write it `within` that time; the message shows its log.
    pub fn wait_for_line(&mut self, within: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + within;
        loop {
            // Asked first: what it wrote before it ended is looked at once more.
            let ended = self.has_ended();
            let lines = self.said.lock();
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                ended.is_none() && !left.is_zero(),
                "{} {} before it wrote what was waited for:\n{}",
                self.name,
                ended.map_or("took too long".into(), |status| format!("ended ({status})")),
                tail(&lines)
            );
            // An end is no line: it is looked for now and then.
            drop(self.said.more.wait_timeout(lines, left.min(LOOK_EVERY * 10)));
        }
    }

    /// Waits until `done` holds, looking every 20 ms, for what a program does not tell in its log.
    ///
    /// # Panics
    /// If the program ends before, or it takes longer than `within`.
    pub fn wait_until(&mut self, what: &str, within: Duration, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + within;
        while !done() {
            let ended = self.has_ended();
            assert!(
                ended.is_none() && Instant::now() < end,
                "{}: {what} did not come ({ended:?}):\n{}",
                self.name,
                tail(&self.said.lock())
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether it has ended, and how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.ended = self.ended.or_else(|| self.child.try_wait().ok().flatten());
        self.ended
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.has_ended().is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            // It may end at this very moment.
            let _ = pid.map(|pid| kill_process(pid, signal));
        }
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5));
    }

    /// Asks it to end by SIGTERM, and waits; after 10 s it is killed. Says how it ended.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        if self.wait(END_WITHIN).is_none() {
            eprintln!("{} did not end within {} s of SIGTERM", self.name, END_WITHIN.as_secs());
            self.kill();
        }
        self.ended
    }

    /// Waits until it has ended by itself; `None`: it goes on.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + within;
        while self.has_ended().is_none() && Instant::now() < end {
            std::thread::sleep(LOOK_EVERY);
        }
        self.ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("---- end of {}:\n{}", self.log.display(), tail(&self.said.lock()));
        }
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
