//! Sampan under strace: which calls change its cache, and an end right before a chosen one of them.
//!
//! strace holds each call of the chosen kind back for a moment, after it has told of it. Whoever reads along kills Sampan
//! in that moment: the call is then not made. Counted over all threads, which strace's own `when=` does not do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Calls of one kind, and for how long each is held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    calls: &'static str,
    held_micros: u32,
}

/// Every kind of call that changes what is on the disk. Of writes, and of openings, whether or not they make a file, there
/// are many: they are held back for less.
const KINDS: [Kind; 7] = [
    Kind { calls: "openat", held_micros: 2_000 },
    Kind { calls: "mkdir,mkdirat", held_micros: 8_000 },
    Kind { calls: "fsync,fdatasync", held_micros: 8_000 },
    Kind { calls: "rename,renameat,renameat2", held_micros: 8_000 },
    Kind { calls: "unlink,unlinkat", held_micros: 8_000 },
    Kind { calls: "truncate,ftruncate", held_micros: 8_000 },
    Kind { calls: "write,pwrite64,pwritev", held_micros: 1_000 },
];

/// How often what strace tells is read.
const LOOK_EVERY: Duration = Duration::from_micros(200);

impl Kind {
    /// The kind of a label's call.
    pub(super) fn of(label: &str) -> Option<Self> {
        let call = label.split(' ').next()?;
        KINDS.into_iter().find(|kind| kind.calls.split(',').any(|of_kind| of_kind == call))
    }
}

/// A call that Sampan is not to survive: the `nth`, from 1, of those with this label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) label: String,
    pub(super) nth: usize,
}

/// strace's command line in front of Sampan's. Without a kind all are told of, and none is held back.
pub(super) fn tracer(log: &Path, kind: Option<Kind>) -> Vec<String> {
    let all = KINDS.map(|kind| kind.calls).join(",");
    let calls = kind.map_or(all.as_str(), |kind| kind.calls);
    // As a grandchild: the process that was started is Sampan.
    let mut line: Vec<String> =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0"].map(str::to_owned).into();
    line.extend(["-e".into(), "signal=none".into(), "-e".into(), format!("trace={calls}")]);
    if let Some(kind) = kind {
        line.extend(["-e".into(), format!("inject={calls}:delay_enter={}", kind.held_micros)]);
    }
    line.extend(["-o".into(), log.display().to_string()]);
    line
}

/// What was seen of a traced Sampan.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How often each call was made, or was about to be.
    pub(super) calls: BTreeMap<String, usize>,
    /// Whether it was killed.
    pub(super) killed: bool,
    /// Whether the call that it was killed at was not made.
    pub(super) exact: bool,
}

/// Reads along.
pub(super) struct Watcher {
    thread: JoinHandle<Seen>,
    end: Arc<AtomicBool>,
}

impl Watcher {
    /// Reads what strace writes to `log` about the process `pid`, and kills that when it comes to `point`, after `before`.
    pub(super) fn start(
        log: PathBuf,
        cache: PathBuf,
        pid: u32,
        point: Option<Point>,
        before: impl Fn() + Send + 'static,
    ) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ending = end.clone();
        let thread = std::thread::spawn(move || {
            let (mut seen, mut text, mut file) = (Seen::default(), Vec::new(), None);
            let mut reader = Reader::default();
            loop {
                // Asked first: what was written before the end is read once more.
                let last = ending.load(Ordering::SeqCst);
                file = file.or_else(|| File::open(&log).ok());
                if let Some(file) = &mut file {
                    let _ = file.read_to_end(&mut text);
                }
                while let Some(label) = reader.next(&text, &cache) {
                    let count = seen.calls.entry(label.clone()).or_default();
                    *count += 1;
                    if point.as_ref().is_some_and(|point| point.label == label && point.nth == *count) {
                        before();
                        let _ = i32::try_from(pid)
                            .ok()
                            .and_then(Pid::from_raw)
                            .map(|pid| kill_process(pid, Signal::KILL));
                        seen.killed = true;
                        seen.exact = was_not_made(&log, reader.at);
                        return seen;
                    }
                }
                if last {
                    return seen;
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Self { thread, end }
    }

    /// What was seen. The process has ended.
    pub(super) fn end(self) -> Seen {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("what strace writes can be read")
    }
}

/// Whether the call whose line begins at `at` has no result, a moment later.
fn was_not_made(log: &Path, at: usize) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.get(at..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    // Another thread's line may have come between; then its end has a line of its own.
    let thread = line.split(' ').next().unwrap_or_default();
    let resumed = text.get(at..).unwrap_or_default().lines().skip(1);
    let mut resumed = resumed.filter(|line| line.starts_with(thread) && line.contains(" resumed>"));
    let told = if line.ends_with("<unfinished ...>") { resumed.next().unwrap_or_default() } else { line };
    !told.contains(") = ") || told.contains(") = ?")
}

/// How far a log was read.
#[derive(Debug, Default)]
struct Reader {
    next: usize,
    /// Where the line begins that was told of last.
    at: usize,
    /// The last line was told of, and may go on.
    open: bool,
}

impl Reader {
    /// The next call that is told of. `None`: there is none yet. One that is held back is told of without the end of its
    /// line.
    fn next(&mut self, text: &[u8], cache: &Path) -> Option<String> {
        while self.next < text.len() {
            let rest = &text[self.next..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let line = String::from_utf8_lossy(&rest[..end.unwrap_or(rest.len())]);
            let mut found = None;
            if !self.open && (end.is_some() || is_told(&line)) {
                self.open = true;
                self.at = self.next;
                found = label(&line, cache);
            }
            if let Some(end) = end {
                self.next += end + 1;
                self.open = false;
            }
            if found.is_some() || end.is_none() {
                return found;
            }
        }
        None
    }
}

/// Whether a line without an end tells of a call and what it is made on: strace writes both at once.
fn is_told(line: &str) -> bool {
    let count = |c: char| line.matches(c).count();
    // What an opening is for comes last.
    let whole = !line.contains(" openat(") || line.contains(", O_");
    whole && line.contains('(') && count('<') == count('>') && count('"').is_multiple_of(2)
}

/// What a line tells of a call on the cache: `renameat partial/*.data blobs/sha256/*`. `None`: it is of another kind.
fn label(line: &str, cache: &Path) -> Option<String> {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let (call, arguments) = rest.split_once('(')?;
    if call.is_empty() || !call.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let arguments = arguments.split(')').next()?;
    if call == "openat" && !arguments.contains("O_CREAT") {
        return None;
    }
    let mut paths: Vec<String> = Vec::new();
    let (mut rest, mut of_folder) = (arguments, false);
    while let Some(at) = rest.find(['<', '"']) {
        let close = if rest[at..].starts_with('<') { '>' } else { '"' };
        let Some((inner, after)) = rest[at + 1..].split_once(close) else { break };
        match (close, paths.last_mut()) {
            ('"', Some(folder)) if of_folder && !inner.is_empty() => {
                *folder = if inner.starts_with('/') { inner.into() } else { format!("{folder}/{inner}") };
                of_folder = false;
            }
            ('"', _) if inner.is_empty() => {}
            _ => {
                paths.push(inner.into());
                of_folder = close == '>';
            }
        }
        rest = after;
    }
    let relative = |path: &String| Some(Path::new(path).strip_prefix(cache).ok()?.display().to_string());
    let named: Vec<String> = paths.iter().filter_map(relative).map(|path| without_names(&path)).collect();
    (!named.is_empty()).then(|| format!("{call} {}", named.join(" ")))
}

/// With `*` for digests and random names.
fn without_names(path: &str) -> String {
    let mut text = String::new();
    for part in path.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let hex = part.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        if hex.len() >= 16 {
            text.push('*');
            text.push_str(&part[hex.len()..]);
        } else {
            text.push_str(part);
        }
    }
    if text.is_empty() { ".".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_what_it_is_and_what_it_is_done_to() {
        let cache = Path::new("/x/cache");
        let named = |line: &str| label(line, cache);
        let hex = "0123456789abcdef0123";
        for (line, label) in [
            ("7831  fsync(13</x/cache>) = 0", "fsync ."),
            ("7831  pwrite64(21</x/cache/sampan.db-wal>, \"\"..., 24, 32) = 24", "pwrite64 sampan.db-wal"),
            (
                &format!(
                    "1 renameat(9</x/cache/partial>, \"sha256-{hex}.data\", 8</x/cache/blobs/sha256>, \"{hex}\") = 0"
                ),
                "renameat partial/sha256-*.data blobs/sha256/*",
            ),
            ("7 unlink(\"/x/cache/sampan.db-journal\") = 0", "unlink sampan.db-journal"),
            (
                &format!("7 unlinkat(13</x/cache/partial>, \"sha256-{hex}.ledger\", 0 <unfinished ...>"),
                "unlinkat partial/sha256-*.ledger",
            ),
            (
                &format!(
                    "7 openat(13</x/cache/partial>, \"sha256-{hex}.data\", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 20</x>"
                ),
                "openat partial/sha256-*.data",
            ),
            (
                "7 openat(AT_FDCWD</y>, \"/x/cache/sampan.db-wal\", O_RDWR|O_CREAT|O_NOFOLLOW, 0644",
                "openat sampan.db-wal",
            ),
            ("7 mkdir(\"/x/cache/blobs\", 0700) = 0", "mkdir blobs"),
        ] {
            assert_eq!(named(line).as_deref(), Some(label), "{line}");
        }
        for other in [
            "7831  <... fsync resumed>)              = 0",
            "7831  +++ killed by SIGKILL +++",
            "7831  fsync(13</x/state/stats.db-wal>) = 0",
            "7831  write(2<pipe:[7]>, \"\"..., 80) = 80",
            "7831  openat(13</x/cache/blobs>, \"sha256\", O_RDONLY|O_CLOEXEC) = 20</x/cache/blobs/sha256>",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn an_opening_is_told_of_when_it_is_known_what_for() {
        let (cache, mut reader) = (Path::new("/c"), Reader::default());
        let mut text = b"1 openat(3</c/a>, \"b\"".to_vec();
        assert_eq!(reader.next(&text, cache), None);
        text.extend(b", O_RDWR|O_CREAT, 0600");
        assert_eq!(reader.next(&text, cache).as_deref(), Some("openat a/b"));
    }

    #[test]
    fn a_call_that_is_held_back_is_told_of_once() {
        let (cache, mut reader) = (Path::new("/c"), Reader::default());
        let mut text = b"1 fsync(3</c/".to_vec();
        let mut next = |text: &[u8]| reader.next(text, cache);
        assert_eq!(next(&text), None, "not all of it is there");
        text.extend(b"a>");
        assert_eq!(next(&text).as_deref(), Some("fsync a"), "it is held back");
        assert_eq!(next(&text), None);
        text.extend(b") = 0\n1 fsync(4</c/b>");
        assert_eq!(next(&text).as_deref(), Some("fsync b"));
        text.extend(
            b" <unfinished ...>\n2 fsync(4</c>) = 0\n1 <... fsync resumed>) = 0\n3 fsync(4</c/d>) = 0\n",
        );
        assert_eq!(next(&text).as_deref(), Some("fsync ."));
        assert_eq!(next(&text).as_deref(), Some("fsync d"));
        assert_eq!(next(&text), None);
    }
}
