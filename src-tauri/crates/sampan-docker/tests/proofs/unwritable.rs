//! R111: where nobody can write, that is said once, before anybody consents, and nothing is tried again.

use std::path::{Path, PathBuf};
use std::process::Command;

use sampan_docker::{Action, ApplyError, Choice, Direct, PlanError, apply, hosts_toml, plan};
use sampan_oci::RegistryName;

use crate::place::{environment, has, is_root, reads_config, reads_hosts, tree};

/// Sets an attribute of the file system's own (`+i`, `+a`), and takes it away again at the end.
struct Attribute(PathBuf, &'static str);

impl Attribute {
    fn set(path: &Path, attribute: &'static str) -> Option<Self> {
        let set = Command::new("chattr").arg(format!("+{attribute}")).arg(path).output().unwrap();
        if !set.status.success() {
            eprintln!("skipped: this file system has no chattr +{attribute}");
            return None;
        }
        Some(Self(path.to_owned(), attribute))
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg(format!("-{}", self.1)).arg(&self.0).output();
    }
}

#[tokio::test]
async fn what_not_even_root_can_write_is_refused_before_anybody_consents() {
    if !is_root() || !has("chattr") {
        return;
    }
    for (what, locked, attribute, exists) in [
        ("an immutable file", "etc/file", "i", true),
        ("a file in an immutable folder", "etc", "i", true),
        ("no file, in an immutable folder", "etc", "i", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let file = dir.path().join("etc/file");
        for daemon_json in [false, true] {
            let text = if daemon_json { "{}".into() } else { hosts_toml(&RegistryName::docker_hub(), 7200) };
            if exists {
                std::fs::write(&file, text).unwrap();
            }
            let Some(lock) = Attribute::set(&dir.path().join(locked), attribute) else { return };
            let before = tree(dir.path());
            let none = dir.path().join("none");
            let engine = if daemon_json { reads_config(&file, &none) } else { reads_hosts(&none, &file) };
            let refused = plan(&engine, Action::Enable, 7267, &Choice::AsNow);
            assert!(
                matches!(&refused, Err(PlanError::ReadOnly(path)) if *path == file),
                "{what}: {refused:?}"
            );
            assert_eq!(tree(dir.path()), before, "{what}: untouched");
            drop(lock);
        }
    }
}

#[tokio::test]
async fn what_turns_out_to_be_unwritable_leaves_everything_as_it_was() {
    if !is_root() || !has("chattr") {
        return;
    }
    // Files can be made in such a folder and not be renamed: nothing that was asked before can tell.
    for (what, locked, attribute) in [
        ("a folder that only grows", "etc", "a"),
        ("a file that became immutable since the plan", "etc/file", "i"),
        ("a folder that became immutable since the plan", "etc", "i"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        let file = dir.path().join("etc/file");
        let text = hosts_toml(&RegistryName::docker_hub(), 7200);
        std::fs::write(&file, &text).unwrap();
        let engine = reads_hosts(&dir.path().join("none"), &file);
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        let Some(lock) = Attribute::set(&dir.path().join(locked), attribute) else { return };
        let env = environment(dir.path(), None);
        let failed = apply(&env, &engine, &planned, false, &Direct).await;
        assert!(matches!(failed, Err(ApplyError::Io { .. })), "{what}: nothing was changed: {failed:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "{what}: as it was");
        drop(lock);
        let engine = reads_hosts(&dir.path().join("none"), &file);
        assert!(
            sampan_docker::recover(&env, &engine).await.unwrap().is_empty(),
            "{what}: nothing is left to settle"
        );
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        let again = apply(&env, &engine, &planned, false, &Direct).await;
        assert!(again.is_ok(), "{what}: and it works once the lock is off: {again:?}");
    }
}

#[tokio::test]
#[ignore = "the child of the test below, in mounts of its own"]
async fn meets_mounts() {
    let folder = std::env::current_dir().unwrap();
    let file = folder.join("etc/file");
    let env = environment(&folder, None);
    let engine = reads_hosts(&folder.join("none"), &file);
    match plan(&engine, Action::Enable, 7267, &Choice::AsNow) {
        Err(error) => eprintln!("refused: {error}"),
        Ok(planned) => {
            let result = apply(&env, &engine, &planned, false, &Direct).await;
            eprintln!("applied: {:?}", result.map(|_| ()));
        }
    }
}

#[test]
fn a_file_system_or_a_file_that_is_mounted_over_is_left_alone() {
    if !is_root() || !has("unshare") {
        return;
    }
    for (what, script, said) in [
        ("a read-only mount", "mount --bind etc etc && mount -o remount,bind,ro etc", "refused: "),
        (
            "a read-only file in the file's place",
            "mount --bind other etc/file && mount -o remount,bind,ro etc/file",
            "refused: ",
        ),
        ("another file in the file's place", "mount --bind other etc/file", "applied: Err(Io"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let text = hosts_toml(&RegistryName::docker_hub(), 7200);
        for name in ["etc/file", "other"] {
            std::fs::write(dir.path().join(name), &text).unwrap();
        }
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("cd . && {script} && cd \"$PWD\" && exec \"$@\""))
            .arg("sh")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "unwritable::meets_mounts", "--ignored", "--nocapture"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {words}");
        assert!(words.contains(said) && !words.contains("Ok("), "{what}: {words}");
        for name in ["etc/file", "other"] {
            assert_eq!(std::fs::read_to_string(dir.path().join(name)).unwrap(), text, "{what}: untouched");
        }
        let left: Vec<_> =
            std::fs::read_dir(dir.path().join("etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
        let temporary = left.iter().filter(|name| name.to_string_lossy().starts_with(".sampan-")).count();
        assert_eq!(temporary, 0, "{what}: nothing lies about: {left:?}");
    }
}
