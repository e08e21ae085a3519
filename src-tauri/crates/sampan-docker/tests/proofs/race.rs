//! R104: another user swaps links and files as fast as the system lets them while root looks, plans and writes. What is
//! outside of their reach never changes.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sampan_docker::{Action, Choice, Direct, apply, hosts_toml, plan};
use sampan_oci::RegistryName;

use crate::dice::points;
use crate::place::{STRANGER, environment, is_root, mode, reads_hosts, tree};

/// What the attacker swaps, in the folder it is started in.
const SWAPS: &[&str] =
    &["a link in a folder of theirs", "their own name in a sticky folder", "a name that is not there yet"];

#[test]
#[ignore = "the attacker of the test below, which ends it"]
fn swaps_until_it_is_ended() {
    let folder = std::env::current_dir().unwrap();
    let at = |name: &str| folder.join(name);
    let ours = hosts_toml(&RegistryName::docker_hub(), 7200);
    let mut said = std::io::stderr();
    let mut swaps = 0_u64;
    // Written now and then: root reads how many there were.
    loop {
        for _ in 0..1000 {
            let _ = symlink("../root/innocent", at("theirs/new"));
            let _ = std::fs::rename(at("theirs/new"), at("theirs/link"));
            let _ = symlink("../victim/hosts.toml", at("theirs/new"));
            let _ = std::fs::rename(at("theirs/new"), at("theirs/link"));
            let _ = std::fs::write(at("theirs/file"), &ours);
            let _ = std::fs::rename(at("theirs/file"), at("sticky/taken"));
            let _ = symlink("../victim/hosts.toml", at("theirs/next"));
            let _ = std::fs::rename(at("theirs/next"), at("sticky/taken"));
            let _ = symlink("../victim/hosts.toml", at("sticky/free"));
            let _ = std::fs::remove_file(at("sticky/free"));
            swaps += 6;
        }
        writeln!(said, "{swaps}").unwrap();
    }
}

/// Ends with the test.
struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attack(folder: &Path) -> Attacker {
    // A copy that a stranger can start, wherever the tests were built.
    let program = folder.join("attacker");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let mut command = Command::new(program);
    command
        .args(["--exact", "race::swaps_until_it_is_ended", "--ignored", "--nocapture"])
        .current_dir(folder);
    command.uid(STRANGER).gid(STRANGER).stdout(Stdio::null()).stderr(Stdio::piped());
    Attacker(command.spawn().unwrap())
}

#[tokio::test]
async fn real_swaps_by_another_user_change_nothing_outside_their_reach() {
    if !is_root() {
        return;
    }
    let attempts = points(2_000);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    mode(dir.path(), 0o755);
    let ours = hosts_toml(&RegistryName::docker_hub(), 7200);
    for name in ["root", "victim", "theirs", "sticky", "sampan"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    // Both are files that root would edit if it were led there.
    std::fs::write(at("victim/hosts.toml"), &ours).unwrap();
    std::fs::write(at("root/innocent"), &ours).unwrap();
    symlink(at("theirs/link"), at("root/hosts.toml")).unwrap();
    chown(at("theirs"), Some(STRANGER), Some(STRANGER)).unwrap();
    mode(&at("sticky"), 0o1777);
    let outside = || (tree(&at("victim")), tree(&at("root")));
    let before = outside();
    let mut attacker = attack(dir.path());
    let mut counts = attacker.0.stderr.take().unwrap();
    let swaps = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = counts.read_to_string(&mut text);
        text.lines().filter_map(|line| line.parse::<u64>().ok()).next_back().unwrap_or(0)
    });
    while std::fs::symlink_metadata(at("sticky/taken")).is_err()
        || std::fs::symlink_metadata(at("theirs/link")).is_err()
    {
        std::thread::yield_now();
    }
    let env = environment(&at("sampan"), None);
    let (mut refused, mut planned_ones, mut written) = ([0_u32; 3], 0_u32, 0_u32);
    for attempt in 0..attempts {
        // The last one is written, which takes a hundred times as long.
        let which = if attempt % 20 == 0 { 2 } else { usize::try_from(attempt % 2).unwrap() };
        let file = [at("root/hosts.toml"), at("sticky/taken"), at("sticky/free")][which].clone();
        let engine = reads_hosts(&at("none.json"), &file);
        match plan(&engine, Action::Enable, 7267, &Choice::AsNow) {
            Err(_) => refused[which] += 1,
            Ok(planned) => {
                planned_ones += 1;
                if apply(&env, &engine, &planned, false, &Direct).await.is_ok() {
                    written += 1;
                    let engine = reads_hosts(&at("none.json"), &file);
                    let undone = plan(&engine, Action::Disable, 7267, &Choice::AsNow);
                    if let Ok(undone) = undone {
                        let engine = reads_hosts(&at("none.json"), &file);
                        let _ = apply(&env, &engine, &undone, false, &Direct).await;
                    }
                }
                // What a race left half done is settled as at a start.
                let _ = sampan_docker::recover(&env, &reads_hosts(&at("none.json"), &file)).await;
                let _ = std::fs::remove_file(at("sticky/free"));
            }
        }
        if attempt % 100 == 0 {
            assert_eq!(outside(), before, "attempt {attempt}: {}", SWAPS[which]);
        }
    }
    drop(attacker);
    let swaps = swaps.join().unwrap();
    assert_eq!(outside(), before, "byte for byte, mode for mode, and no backup beside it");
    eprintln!(
        "{attempts} attempts against {swaps} swaps: {refused:?} refused, {planned_ones} planned, {written} written"
    );
    assert_eq!(
        refused[0] + refused[1],
        attempts - attempts.div_ceil(20),
        "whatever a stranger owns is not followed, ever"
    );
    assert!(
        written > 0 && refused[2] + planned_ones > written,
        "the free name was met free, and taken: {written}"
    );
    assert!(swaps > u64::from(attempts), "the attacker was at work: {swaps}");
}
