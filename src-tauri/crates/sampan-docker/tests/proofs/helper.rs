//! R101, R102: the privileged helper, run as root with arguments, surroundings and input that make no sense, on a copy of
//! this machine's file system (an overlay) that tells afterwards what was touched: Docker's configuration and Sampan's own
//! journal, and nothing else.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sampan_docker::{HelperReport, trusted};
use sampan_testkit::cannot_run;

use crate::daemon::{end, serve};
use crate::dice::{Dice, dice, points};
use crate::place::{STRANGER, has, is_root, mode, tree};

/// A folder of its own inside, not part of the copy.
const INSIDE: &str = "/run/inside";
/// Where the copy tells what was changed.
const CHANGES: &str = "/mnt";

#[test]
fn real_helper_fuzzed_as_root_changes_dockers_configuration_and_nothing_else() {
    if !is_root() || !has("unshare") || !has("strace") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "T=\"$0\"; mount -t tmpfs none \"$T\" && cd \"$T\" && mkdir u w m && \
                  mount -t overlay none -o \"lowerdir=/,upperdir=$T/u,workdir=$T/w\" m || exit 77; set -e; \
                  for d in proc sys dev; do mount --rbind /$d m/$d; done; \
                  for d in run tmp; do mount -t tmpfs none m/$d; done; mount --bind u m/mnt; mkdir -m 755 m/run/inside; \
                  cp \"$1\" m/run/inside/sampan-helper; cp \"$2\" m/run/inside/proofs; \
                  exec chroot m /run/inside/proofs --exact helper::inside --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(dir.path())
        .arg(env!("CARGO_BIN_EXE_sampan-helper"))
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        cannot_run(&format!("this file system cannot be overlaid: {said}"));
        return;
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    eprintln!("{}", said.lines().filter(|line| line.contains("runs")).collect::<Vec<_>>().join("\n"));
}

fn helper() -> PathBuf {
    Path::new(INSIDE).join("sampan-helper")
}

fn text(dice: &mut Dice) -> OsString {
    const WORDS: &[&str] = &[
        "enable",
        "disable",
        "enable-restart",
        "enable-restart.0123456789abcdef",
        "disable-restart.e3b0c44298fc1c14",
        "disable-restart.0123456789ABCDEF",
        "enable-restart.0123456789abcdef0",
        "enable.0",
        "enable.5",
        "enable.63",
        "enable.64",
        "enable.05",
        "enable.+5",
        "enable.",
        "enable.ghcr.io",
        "enable.5-restart.0123456789abcdef",
        "enable-restart.5",
        "enable-restart.0123456789abcdef-restart.0123456789abcdef",
        "enable-restart.0123456789abcdef.5",
        "disable.5",
        "-restart",
        "Enable",
        "ENABLE",
        "enable ",
        "--help",
        "-h",
        "--version",
        "--",
        "",
        " ",
        "7267",
        "+7267",
        "07267",
        "7267 ",
        "0",
        "80",
        "1023",
        "1024",
        "65535",
        "65536",
        "-1",
        "4294974563",
        "7267/../..",
        "/etc/passwd",
        "../../etc/shadow",
        "http://127.0.0.1:7267",
        "{}",
        "\"",
        "$(id)",
        "`id`",
        ";id",
        "%s%n",
        "\n",
        "enable\n",
        "--config-file=/etc/passwd",
        "restart",
        "install",
        "7267\u{200b}",
        "\u{661}\u{660}\u{662}\u{664}",
    ];
    match dice.below(8) {
        0 => OsString::from_vec((0..dice.below(40)).map(|_| dice.byte().max(1)).collect()),
        1 => OsString::from("A".repeat(dice.below(100_000))),
        2 => {
            let mut bytes = dice.one(WORDS).as_bytes().to_vec();
            let at = dice.below(bytes.len() + 1);
            bytes.insert(at, dice.byte().max(1));
            OsString::from_vec(bytes)
        }
        _ => OsString::from(dice.one(WORDS)),
    }
}

/// Whether the helper should take these arguments.
fn makes_sense(arguments: &[OsString]) -> bool {
    let [verb, port] = arguments else { return false };
    let port = port.to_str().and_then(|text| text.parse::<u16>().ok().filter(|n| n.to_string() == text));
    let verb = verb.to_str().is_some_and(|text| {
        let (plain, stops) =
            text.split_once("-restart.").map_or((text, None), |(plain, stops)| (plain, Some(stops)));
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let marked = stops.is_none_or(|stops| stops.len() == 16 && stops.chars().all(digit));
        let set = plain.strip_prefix("enable.").and_then(|set| set.parse().ok().map(|n: u8| (n, set)));
        let plain = plain == "enable"
            || plain == "disable"
            || set.is_some_and(|(n, text)| n < 64 && n.to_string() == text);
        plain && marked
    });
    verb && port.is_some_and(|port| port >= 1024)
}

fn surroundings(command: &mut Command, dice: &mut Dice) {
    const NAMES: &[&str] = &[
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "PATH",
        "HOME",
        "TMPDIR",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "XDG_CONFIG_HOME",
        "SAMPAN_STATE_DIR",
        "SAMPAN_CONFIG",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "GCONV_PATH",
        "LANG",
        "SHELL",
        "PKEXEC_UID",
        "SUDO_USER",
        "http_proxy",
        "ALL_PROXY",
        "GIO_USE_VFS",
        "CHARSET",
        "",
    ];
    const VALUES: &[&str] =
        &["/tmp/evil", "unix:///tmp/evil.sock", "tcp://127.0.0.1:1", "/tmp/evil/lib.so", "", "../..", "evil"];
    for _ in 0..dice.below(6) {
        let name = dice.one(NAMES);
        if !name.is_empty() {
            command.env(name, dice.one(VALUES));
        }
    }
    command.current_dir(dice.one(&["/", "/tmp", "/tmp/evil", "/etc/docker", "/proc/self", INSIDE]));
    // What happens where a caller gives no name at all: the kernel then passes an empty one.
    if dice.percent(5) {
        command.arg0(dice.one(&["", "/tmp/evil/sampan-helper", "-", "enable"]));
    }
}

fn run(arguments: &[OsString], dice: &mut Dice) -> Output {
    let mut command = Command::new(helper());
    command.args(arguments);
    surroundings(&mut command, dice);
    let spoken_to = dice.percent(20);
    command
        .stdin(if spoken_to { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        let bytes: Vec<u8> = (0..dice.below(4000)).map(|_| dice.byte()).collect();
        let _ = stdin.write_all(&bytes);
        let _ = stdin.write_all(b"\nenable 7267\n/etc/passwd\n");
    }
    child.wait_with_output().unwrap()
}

/// The system's Docker of the copy, where there is one.
fn dockerd() -> Option<Child> {
    if !has("dockerd") {
        return None;
    }
    let folder = Path::new("/run/d");
    std::fs::create_dir(folder).unwrap();
    Some(serve(&mut Command::new("dockerd"), folder, Path::new("/var/run/docker.sock")))
}

fn report(output: &Output) -> HelperReport {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
#[ignore = "the inside of the test above, on a copy of the file system"]
fn inside() {
    assert!(Path::new(INSIDE).is_dir(), "never on the real file system");
    std::fs::create_dir_all("/tmp/evil").unwrap();
    std::fs::write("/tmp/evil/daemon.json", "{}").unwrap();
    std::fs::create_dir_all("/etc/docker").unwrap();
    let config = Path::new("/etc/docker/daemon.json");
    let original = "{\n  \"debug\": false\n}\n";
    std::fs::write(config, original).unwrap();
    let mut docker = dockerd();
    // A folder is copied when the first thing is made in it: that is no change.
    std::fs::create_dir("/var/lib/probe").unwrap();
    std::fs::remove_dir("/var/lib/probe").unwrap();
    let before = tree(Path::new(CHANGES));
    let (runs, mut dice) = (points(10_000), dice());
    let (mut sensible, mut done) = (0_u32, 0_u32);
    for number in 0..runs {
        // Now and then what a person does, so that there is something to go wrong.
        let arguments: Vec<OsString> = match number % 100 {
            0 => ["enable", "7267"].map(OsString::from).to_vec(),
            25 => ["enable.5", "7267"].map(OsString::from).to_vec(),
            50 => ["disable", "7267"].map(OsString::from).to_vec(),
            // Nothing can restart a daemon that was started by hand: refused, and nothing is changed.
            75 => ["enable.2-restart.e3b0c44298fc1c14", "7267"].map(OsString::from).to_vec(),
            _ => (0..dice.below(5)).map(|_| text(&mut dice)).collect(),
        };
        let held = std::fs::read(config).unwrap();
        let output = run(&arguments, &mut dice);
        if makes_sense(&arguments) {
            sensible += 1;
            done += u32::from(report(&output).done);
            assert_eq!(report(&output).done, output.status.success(), "{output:?}");
        } else {
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
            assert_eq!(output.stdout, b"", "{arguments:?}");
            assert_eq!(std::fs::read(config).unwrap(), held, "{arguments:?}: untouched");
        }
    }
    assert_eq!(done > 0, docker.is_some(), "with a Docker there are changes, without one there are none");
    runs_only_what_is_roots();
    // Back to the start, and then: what has become of everything else?
    let _ = run(&["disable", "7267"].map(OsString::from), &mut dice);
    assert_eq!(std::fs::read_to_string(config).unwrap(), original, "there and back, byte for byte");
    let after = tree(Path::new(CHANGES));
    let is_ours = |path: &Path| {
        let path = path.strip_prefix(CHANGES).unwrap().to_string_lossy().into_owned();
        let own = ["etc/docker/daemon.json", "etc/docker/certs.d", "var/lib/sampan"];
        own.iter().any(|own| path == *own || path.starts_with(&format!("{own}/")))
            || path.starts_with("etc/docker/daemon.json.sampan-backup-")
    };
    let changed: Vec<&PathBuf> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path) && !is_ours(path))
        .collect();
    assert_eq!(changed, [""; 0].map(Path::new), "nothing else on this machine was touched");
    refuses_where_others_could_have_put_it();
    if let Some(docker) = &mut docker {
        end(docker);
    }
    eprintln!("{runs} runs, {sensible} of them with arguments that make sense, {done} changes");
}

/// R101: what the helper starts, as the system saw it.
fn runs_only_what_is_roots() {
    let log = Path::new(INSIDE).join("log");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-e", "trace=execve,execveat", "-o"])
        .arg(&log)
        .arg(helper())
        .args(["enable", "7267"]);
    command.env("PATH", "/tmp/evil:/usr/bin:/usr/sbin").output().unwrap();
    let text = std::fs::read_to_string(log).unwrap();
    let started: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with("= 0"))
        .filter_map(|line| line.split_once("exec")?.1.split('"').nth(1))
        .collect();
    assert!(started.len() >= 2, "itself, and itself again without its surroundings: {text}");
    for program in started {
        assert_eq!(trusted(Path::new(program)), Ok(()), "{text}");
    }
    assert!(
        text.lines().any(|line| line.contains("/* 0 vars */") && line.ends_with("= 0")),
        "with nothing: {text}"
    );
}

/// R101: a helper that somebody else could have replaced does nothing, even for root.
fn refuses_where_others_could_have_put_it() {
    let refusal = |program: &Path, as_user: u32| {
        let config = std::fs::read("/etc/docker/daemon.json").unwrap();
        let output = Command::new(program).args(["enable", "7267"]).uid(as_user).output().unwrap();
        assert_eq!(
            std::fs::read("/etc/docker/daemon.json").unwrap(),
            config,
            "{}: untouched",
            program.display()
        );
        let report = report(&output);
        assert!(!report.done && !output.status.success(), "{report:?}");
        report.error.unwrap()
    };
    assert!(refusal(&helper(), STRANGER).contains("must run as root"));
    for (name, folder_mode, file_mode, owners, says) in [
        ("open-folder", 0o777, 0o755, [0, 0], "can be changed by other users"),
        ("group-folder", 0o775, 0o755, [0, 0], "can be changed by other users"),
        ("open-file", 0o755, 0o757, [0, 0], "can be changed by other users"),
        ("group-file", 0o755, 0o775, [0, 0], "can be changed by other users"),
        ("their-file", 0o755, 0o755, [0, STRANGER], "belongs to another user"),
        ("their-folder", 0o755, 0o755, [STRANGER, 0], "belongs to another user"),
    ] {
        let folder = Path::new(INSIDE).join(name);
        std::fs::create_dir(&folder).unwrap();
        // Deeper, so that it is not only the nearest folder that counts.
        std::fs::create_dir(folder.join("bin")).unwrap();
        let program = folder.join("bin/sampan-helper");
        std::fs::copy(helper(), &program).unwrap();
        chown(&program, Some(owners[1]), None).unwrap();
        chown(&folder, Some(owners[0]), None).unwrap();
        mode(&program, file_mode);
        mode(&folder, folder_mode);
        let why = refusal(&program, 0);
        assert!(why.contains("is not used") && why.contains(says), "{name}: {why}");
    }
}
