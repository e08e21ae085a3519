//! R105: the order of what is written, as the system saw it: backup and journal are on disk before the file changes, the
//! new bytes before they get the name, and the name before anybody is told.

use std::path::Path;
use std::process::Command;

use sampan_docker::{Action, Choice, Direct, apply, hosts_toml, plan};
use sampan_oci::RegistryName;

use crate::place::{environment, has, reads_hosts};

#[tokio::test]
#[ignore = "the child of the test below, which watches it"]
async fn changes_one_file() {
    let folder = std::env::current_dir().unwrap();
    let engine = reads_hosts(&folder.join("none.json"), &folder.join("hosts.toml"));
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    apply(&environment(&folder, None), &engine, &planned, false, &Direct).await.unwrap();
}

/// One system call: its name, its line, and the file it is about, from `folder`.
fn calls(log: &str, folder: &Path) -> Vec<(String, String)> {
    let own = format!("{}/", folder.display());
    log.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(char::is_whitespace)?;
            let (call, arguments) = rest.trim_start().split_once('(')?;
            let about = arguments.contains(&own) || arguments.contains(&format!("<{}>", folder.display()));
            about.then(|| {
                (call.to_owned(), arguments.replace(&own, "").replace(&*folder.to_string_lossy(), "."))
            })
        })
        .collect()
}

#[test]
fn a_file_is_replaced_in_the_order_that_survives_a_power_cut() {
    if !has("strace") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = std::fs::canonicalize(dir.path()).unwrap();
    std::fs::write(folder.join("hosts.toml"), hosts_toml(&RegistryName::docker_hub(), 7200)).unwrap();
    let output = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-o"])
        .arg(folder.join("log"))
        .args(["-e", "trace=openat,write,fsync,rename,renameat,renameat2,unlink,unlinkat"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "order::changes_one_file", "--ignored"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let calls = calls(&std::fs::read_to_string(folder.join("log")).unwrap(), &folder);
    let shown = calls.iter().map(|(call, rest)| format!("{call} {rest}")).collect::<Vec<_>>().join("\n");
    // Each step is looked for after the one before it.
    let mut from = 0;
    let mut then = |what: &str, is: &dyn Fn(&str, &str) -> bool| {
        let found = calls[from..].iter().position(|(call, rest)| is(call, rest));
        from += found.unwrap_or_else(|| panic!("{what} does not come then:\n{shown}")) + 1;
    };
    let renamed = |from: &'static str, to: &'static str| {
        move |call: &str, rest: &str| {
            call.starts_with("rename")
                && rest.contains(&format!("\"{from}"))
                && rest.contains(&format!("\"{to}\""))
        }
    };
    let synced = |file: &'static str| {
        move |call: &str, rest: &str| call == "fsync" && rest.contains(&format!("<{file}"))
    };
    then("the journal is written", &synced("state/.docker-"));
    then("it gets its name", &renamed("state/.docker-", "state/docker.json"));
    then("which is on disk", &synced("state>"));
    then("the backup is on disk", &synced("hosts.toml.sampan-backup-"));
    then("with its name", &synced(".>"));
    then("the journal knows of the backup", &renamed("state/.docker-", "state/docker.json"));
    then("which is on disk", &synced("state>"));
    then("the new bytes are on disk", &synced(".sampan-"));
    then("they get the name", &renamed(".sampan-", "hosts.toml"));
    then("which is on disk", &synced(".>"));
    then("the old bytes go", &|call, rest| call.starts_with("unlink") && rest.contains(".sampan-"));
    then("it is written down that this is done", &renamed("state/.docker-", "state/docker.json"));
    then("which is on disk", &synced("state>"));
    let names =
        calls.iter().filter(|(call, rest)| call.starts_with("rename") && rest.contains("\"hosts.toml\""));
    assert_eq!(names.count(), 1, "and at no other time does it change:\n{shown}");
    let opened = |(call, rest): &&(String, String)| {
        call == "openat"
            && rest.contains("hosts.toml\"")
            && (rest.contains("O_WRONLY") || rest.contains("O_RDWR"))
    };
    assert_eq!(calls.iter().filter(opened).count(), 0, "nor is it ever written in place:\n{shown}");
}
