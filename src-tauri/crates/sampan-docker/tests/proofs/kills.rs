//! R105, R106: a change is killed at any moment, by a delay or at a chosen system call. The file is then as it was or as
//! it was shown, and the next start converges. A real dockerd is told each time, and stays the process it was.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sampan_docker::daemon_json::{add_mirror, mirrors, remove_mirror};
use sampan_docker::{
    Action, BACKUPS_MAX, Choice, Direct, Engine, Environment, HostsSeen, ImageStore, Part, Plan, apply,
    backups, detect, look, plan, recover,
};
use sampan_oci::RegistryName;

use crate::daemon::Daemon;
use crate::dice::{Dice, dice, points};
use crate::place::{environment, has};

const PORT: u16 = 7267;
const ORIGINAL: &str = "{\n  \"debug\": false,\n  \"max-concurrent-uploads\": 5\n}\n";
/// What a change of files and of the engine is made of.
const CALLS: &str =
    "openat,write,fsync,rename,renameat,renameat2,unlink,unlinkat,mkdir,rmdir,chmod,fchmod,kill,connect";

/// The engine as it is now, with files of the test's in the place of the system's. With `both` it is taken for one that
/// needs both files; this old one ignores the second.
async fn seen(folder: &Path, both: bool) -> (Environment, Engine) {
    let env = environment(folder, Some(format!("unix://{}", folder.join("s").display())));
    let mut engine = detect(&env).await;
    // A busy machine may keep dockerd from answering for longer than Sampan waits, which is not what is proved here.
    for _ in 0..10 {
        if engine.found {
            break;
        }
        eprintln!("asked again: {:?}", engine.evidence);
        engine = detect(&env).await;
    }
    assert!(engine.found, "dockerd is there: {:?}", engine.evidence);
    let file = look(&hosts(folder), env.uid);
    engine.hosts =
        vec![HostsSeen { registry: RegistryName::docker_hub(), served: true, beside: Vec::new(), file }];
    if both {
        engine.version = Some("29.7.2".into());
        engine.image_store = Some(ImageStore::Classic);
    }
    (env, engine)
}

fn hosts(folder: &Path) -> PathBuf {
    folder.join("certs.d/docker.io/hosts.toml")
}

#[tokio::test]
#[ignore = "the child of the test below, which kills it"]
async fn changes_until_it_is_killed() {
    let folder = std::env::current_dir().unwrap();
    let wanted = std::fs::read_to_string(folder.join("wanted")).unwrap();
    let (action, both) = (
        if wanted.starts_with("Enable") { Action::Enable } else { Action::Disable },
        wanted.ends_with("both"),
    );
    let (env, engine) = seen(&folder, both).await;
    let planned = plan(&engine, action, PORT, &Choice::AsNow).unwrap();
    eprintln!("begin");
    let result = apply(&env, &engine, &planned, false, &Direct).await;
    eprintln!("ended: {result:?}");
}

/// Where a child ends.
#[derive(Clone, Debug)]
enum At {
    /// Nowhere.
    Its,
    /// So long after it began.
    After(Duration),
    /// When it makes this system call for that many-th time.
    Call(String, usize),
}

fn child(folder: &Path, at: &At) -> Child {
    let test = std::env::current_exe().unwrap();
    let mut command = match at {
        At::Its | At::After(_) => Command::new(test),
        At::Call(call, time) => {
            let mut command = Command::new("strace");
            command.args(["-f", "-o", "/dev/null", "-e"]).arg(format!("trace={call}")).arg("-e");
            command.arg(format!("inject={call}:signal=SIGKILL:when={time}")).arg(test);
            command
        }
    };
    command.args([
        "--exact",
        "kills::changes_until_it_is_killed",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Lets a child change what `wanted` says and ends it: whether it began, whether it came to its own end, how long that
/// took.
fn change(
    folder: &Path,
    action: Action,
    both: bool,
    at: &At,
    beside: impl FnOnce() + Send,
) -> (bool, bool, Duration) {
    let wanted = format!("{action:?} {}", if both { "both" } else { "one" });
    std::fs::write(folder.join("wanted"), wanted).unwrap();
    let mut child = child(folder, at);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let began = lines.find(|line| line.contains("begin"));
    let since = Instant::now();
    std::thread::scope(|scope| {
        if began.is_some() {
            scope.spawn(beside);
        }
        if let At::After(delay) = at {
            std::thread::sleep(*delay);
            let _ = child.kill();
        }
        let ended = lines.find(|line| line.starts_with("ended"));
        child.wait().unwrap();
        (began.is_some(), ended.is_some(), since.elapsed())
    })
}

/// The system calls of one whole change, in their order: which, and for which time.
fn calls(folder: &Path, action: Action, both: bool) -> Vec<At> {
    std::fs::write(folder.join("wanted"), format!("{action:?} {}", if both { "both" } else { "one" }))
        .unwrap();
    let log = folder.join("calls");
    let output = Command::new("strace")
        .args(["-f", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={CALLS}")])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kills::changes_until_it_is_killed",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut found, mut begun) = (Vec::new(), false);
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        begun |= rest.contains("begin");
        if begun {
            found.push(At::Call(call.to_owned(), *count));
        }
    }
    assert!(found.len() > 30, "a change is many calls: {found:?}");
    found
}

/// The file with an empty list where it has none.
fn emptied(bytes: &[u8]) -> Vec<u8> {
    let any = "http://127.0.0.1:1";
    remove_mirror(&add_mirror(bytes, any).unwrap(), any, true).unwrap()
}

/// What may be found, and what is.
struct Round<'a> {
    folder: &'a Path,
    plan: &'a Plan,
    at: &'a At,
    both: bool,
}

impl Round<'_> {
    fn config(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("daemon.json")).unwrap()
    }

    /// Old or new bytes, never anything else; and never the mirror without the file that belongs beside it.
    fn is_whole(&self) {
        for file in &self.plan.files {
            let now = std::fs::read(&file.target).ok();
            let mut known = now == file.before || now == file.after || (now.is_some() && now == file.interim);
            // On its way back: a slow dockerd did not take it in time, and has to see an empty list first.
            known |= file.part == Part::DaemonJson && now == file.before.as_deref().map(emptied);
            assert!(known, "{:?}: {}: {:?}", self.at, file.path.display(), now.map(String::from_utf8));
        }
        let named = String::from_utf8(self.config()).unwrap().contains("127.0.0.1");
        assert!(
            !self.both || !named || hosts(self.folder).exists(),
            "{:?}: both files belong together",
            self.at
        );
    }

    /// The next start finishes or takes back, and leaves nothing lying about.
    async fn converges(&self, edited: bool) {
        let (env, engine) = seen(self.folder, self.both).await;
        let steps = recover(&env, &engine).await.unwrap_or_else(|error| panic!("{:?}: {error}", self.at));
        let (env, engine) = seen(self.folder, self.both).await;
        let again = recover(&env, &engine).await.unwrap();
        assert!(again.is_empty(), "{:?}: once is enough: {steps:#?} {again:#?}", self.at);
        let all = |pick: fn(&sampan_docker::FileChange) -> &Option<Vec<u8>>| {
            self.plan.files.iter().all(|file| std::fs::read(&file.target).ok() == *pick(file))
        };
        if !edited {
            assert!(
                all(|file| &file.before) || all(|file| &file.after),
                "{:?}: all as before, or all as shown: {steps:#?}",
                self.at
            );
            let listed = mirrors(&self.config()).unwrap();
            let same = listed.iter().map(|url| format!("{url}/")).collect::<Vec<_>>() == engine.mirrors;
            assert!(
                same,
                "{:?}: dockerd says the same as its file: {:?} {steps:#?}",
                self.at, engine.mirrors
            );
        }
        let certs = self.folder.join("certs.d");
        assert_eq!(hosts(self.folder).exists(), certs.exists(), "{:?}: no folder is left", self.at);
        let mut left = Vec::new();
        for folder in ["", "state", "certs.d/docker.io"] {
            for entry in std::fs::read_dir(self.folder.join(folder)).into_iter().flatten() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                left.extend((name.starts_with(".sampan-") || name.starts_with(".docker-")).then_some(name));
            }
        }
        assert!(left.is_empty(), "{:?}: nothing is left lying about: {left:?} {steps:#?}", self.at);
    }
}

/// Saves `marked` over the file as editors do: beside it, then over it.
fn edit(folder: &Path, delay: Duration, mark: u32) {
    std::thread::sleep(delay);
    let config = folder.join("daemon.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let (head, tail) = text.split_once("\"max-concurrent-uploads\": ").unwrap();
    let tail = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    let new = folder.join("daemon.json.new");
    std::fs::write(&new, format!("{head}\"max-concurrent-uploads\": {mark}{tail}")).unwrap();
    std::fs::rename(new, config).unwrap();
}

/// How a round is chosen.
fn choose(dice: &mut Dice, calls: &[At], usual: Duration) -> At {
    match dice.below(10) {
        0..=4 if !calls.is_empty() => calls[dice.below(calls.len())].clone(),
        9 => At::Its,
        _ => At::After(usual * dice.number(1100) / 1000),
    }
}

#[tokio::test]
async fn real_kills_of_a_change_leave_old_or_new_bytes_and_the_next_start_converges() {
    let Some(daemon) = Daemon::start(ORIGINAL) else { return };
    let (rounds, mut dice) = (points(50), dice());
    let folder = daemon.folder();
    let traced = has("strace");
    let (mut killed, mut by_call, mut edits) = (0, 0, 0);
    for both in [false, true] {
        let mut known: BTreeMap<String, (Vec<At>, Duration)> = BTreeMap::new();
        for action in [Action::Enable, Action::Disable] {
            let calls = if traced { calls(folder, action, both) } else { Vec::new() };
            if traced {
                let other = if action == Action::Enable { Action::Disable } else { Action::Enable };
                change(folder, other, both, &At::Its, || ());
            }
            let (_, ended, usual) = change(folder, action, both, &At::Its, || ());
            assert!(ended, "{action:?} comes to its end where nobody kills it");
            known.insert(format!("{action:?}"), (calls, usual));
        }
        assert_eq!(daemon.content(), ORIGINAL, "there and back");
        for round in 0..rounds / 2 {
            let (env, engine) = seen(folder, both).await;
            let action = if engine.enabled(PORT) { Action::Disable } else { Action::Enable };
            let planned = plan(&engine, action, PORT, &Choice::AsNow).unwrap();
            let (calls, usual) = &known[&format!("{action:?}")];
            let at = choose(&mut dice, calls, *usual);
            let edited = dice.percent(25);
            let delay = *usual * dice.number(1000) / 1000;
            let beside = || {
                if edited {
                    edit(folder, delay, 100 + round);
                }
            };
            let (began, ended, _) = change(folder, action, both, &at, beside);
            killed += u32::from(!ended);
            by_call += u32::from(!ended && matches!(at, At::Call(..)));
            let state = Round { folder, plan: &planned, at: &at, both };
            let marked =
                || String::from_utf8(state.config()).unwrap().contains(&format!(": {}", 100 + round));
            // Beside a child that was killed before it began nobody edits.
            let edited = edited && began;
            if edited {
                edits += 1;
                assert!(marked(), "{at:?}: somebody else's edit is not lost");
            } else {
                state.is_whole();
            }
            state.converges(edited).await;
            if edited {
                assert!(marked(), "{at:?}: nor by what the next start takes back");
                // Back to where rounds begin.
                let (_, engine) = seen(folder, both).await;
                let planned = plan(&engine, Action::Disable, PORT, &Choice::AsNow).unwrap();
                apply(&env, &engine, &planned, false, &Direct).await.unwrap();
                std::fs::write(daemon.config(), ORIGINAL).unwrap();
            }
        }
        let (env, engine) = seen(folder, both).await;
        let planned = plan(&engine, Action::Disable, PORT, &Choice::AsNow).unwrap();
        apply(&env, &engine, &planned, false, &Direct).await.unwrap();
        assert_eq!(daemon.content(), ORIGINAL, "after all of it, byte for byte");
        // One more is the journal's.
        assert!(backups(&daemon.config()).len() <= BACKUPS_MAX + 1, "what kills left of old backups went");
    }
    eprintln!(
        "{rounds} rounds: {killed} killed, {by_call} of them at a system call; {edits} edits by somebody else"
    );
    assert!(killed > rounds / 3 && edits > 0, "the kills met work: {killed} of {rounds}, {edits} edits");
}
