//! What is done when something comes in between: a crash, a dead daemon, a journal of somebody else's, a person who
//! says no. No engine answers here: its socket does not exist.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

mod place;
mod records;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use sampan_docker::{
    Access, Action, ApplyError, Change, Choice, Direct, Elevation, ElevationError, HelperReport, ImageStore,
    Part, Verb, apply, backups, hold, hosts_toml, plan, recover, undo,
};
use sampan_oci::{Digest, RegistryName};
use serde_json::json;

use place::{AFTER, BEFORE, ENDPOINT, Place};

#[tokio::test]
async fn a_rollback_without_a_daemon_leaves_the_exact_bytes() {
    for original in [Some(BEFORE), Some("{\"debug\":true}"), None] {
        let place = Place::new();
        if let Some(original) = original {
            std::fs::write(place.config(), original).unwrap();
        }
        let engine = place.engine();
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        let failed = apply(&place.env, &engine, &planned, false, &Direct).await;
        let Err(ApplyError::RolledBack { steps, .. }) = failed else { panic!("nobody answers: {failed:?}") };
        let now = std::fs::read_to_string(place.config()).ok();
        assert_eq!(now.as_deref(), original, "no step between is left in the file: {steps:#?}");
        assert!(!place.at("certs.d").exists(), "nor the other file, nor its folders");
        assert_eq!(place.read_journal(), (0, 0), "it is settled");
    }
}

#[tokio::test]
async fn an_interrupted_change_goes_back_and_the_hubs_file_only_where_no_mirror_on_this_machine_stays() {
    let edited = AFTER.replace("false", "true");
    for (now, then, hosts_stay, why) in [
        (AFTER, BEFORE, false, "restored from its backup"),
        ("{\"registry-mirrors\": []}", BEFORE, false, "a rollback was interrupted too"),
        (BEFORE, BEFORE, false, "it was not written yet"),
        (edited.as_str(), edited.as_str(), true, "somebody edited it, and Sampan is still in it"),
        ("{\"debug\": 1}", "{\"debug\": 1}", false, "somebody edited it, and no mirror is in it"),
        ("{,}", "{,}", true, "nobody knows what it says"),
    ] {
        let place = Place::new();
        place.write_journal(&place.interrupted(now));
        let steps = recover(&place.env, &place.engine()).await.unwrap();
        assert_eq!(std::fs::read_to_string(place.config()).unwrap(), then, "{why}: {steps:#?}");
        assert_eq!(place.hosts().exists(), hosts_stay, "both files belong together, {why}: {steps:#?}");
        assert_eq!(place.at("certs.d").exists(), hosts_stay, "the folders go with the file: {why}");
        assert_eq!(place.read_journal(), (0, usize::from(hosts_stay)), "what stays is in place: {why}");
        assert!(recover(&place.env, &place.engine()).await.unwrap().is_empty(), "once is enough: {why}");
    }
}

#[tokio::test]
async fn a_journal_is_checked_and_never_believed() {
    type Tamper = fn(&Place, &mut Vec<Change>);
    let cases: [(&str, Tamper, bool); 6] = [
        ("another file as daemon.json", |p, c| c[1].target = p.at("passwd"), true),
        ("another file as hosts.toml", |p, c| c[0].target = p.at("passwd"), true),
        ("one of its files as the other", |_, c| c[0].part = Part::DaemonJson, true),
        ("a registry it does not have", |_, c| c[0].part = Part::Hosts("quay.io".parse().unwrap()), true),
        ("a backup from elsewhere", |p, c| c[1].backup = Some(p.at("secret")), false),
        ("a backup by another name", |p, c| c[1].backup = Some(p.at("daemon.json.sampan-backup-+7")), false),
    ];
    for (why, tamper, unsettled) in cases {
        let place = Place::new();
        let mut changes = place.interrupted(AFTER);
        std::fs::write(place.at("passwd"), AFTER).unwrap();
        std::fs::write(place.at("secret"), BEFORE).unwrap();
        std::fs::write(place.at("daemon.json.sampan-backup-+7"), BEFORE).unwrap();
        tamper(&place, &mut changes);
        // Only the entry that was tampered with.
        let untouched = place.interrupted(AFTER);
        changes.retain(|change| !untouched.contains(change));
        place.write_journal(&changes);
        let before = place.files();
        let settled = recover(&place.env, &place.engine()).await;
        assert_eq!(matches!(settled, Err(ApplyError::Unsettled(_))), unsettled, "{why}: {settled:?}");
        assert_eq!(place.files(), before, "no file is touched: {why}");
    }
}

#[tokio::test]
async fn another_engines_unfinished_change_waits_for_that_engine() {
    let place = Place::new();
    let mut changes = place.interrupted(AFTER);
    for change in &mut changes {
        change.endpoint = "unix:///run/other.sock".into();
    }
    place.write_journal(&changes);
    let before = place.files();
    assert!(recover(&place.env, &place.engine()).await.unwrap().is_empty(), "it is not this one's");
    assert_eq!((place.files(), place.read_journal()), (before, (2, 0)), "and stays as it is");
    let mut other = place.engine();
    other.endpoint = "unix:///var/run/other.sock".into();
    assert!(!recover(&place.env, &other).await.unwrap().is_empty(), "the same socket by its other name");
    assert_eq!(
        (std::fs::read_to_string(place.config()).unwrap().as_str(), place.read_journal()),
        (BEFORE, (0, 0))
    );
}

#[tokio::test]
async fn a_journal_that_others_can_write_is_refused() {
    type Spoil = fn(&Place);
    let cases: [(&str, Spoil); 4] = [
        ("writable by all", |p| mode(&p.journal(), 0o666)),
        ("in a folder writable by all", |p| mode(&p.env.state_dir, 0o777)),
        ("a link", |p| {
            std::fs::rename(p.journal(), p.at("elsewhere.json")).unwrap();
            symlink(p.at("elsewhere.json"), p.journal()).unwrap();
        }),
        ("a folder", |p| {
            std::fs::remove_file(p.journal()).unwrap();
            std::fs::create_dir(p.journal()).unwrap();
        }),
    ];
    for (why, spoil) in cases {
        let place = Place::new();
        place.write_journal(&place.interrupted(AFTER));
        spoil(&place);
        let before = place.files();
        let settled = recover(&place.env, &place.engine()).await;
        assert!(matches!(settled, Err(ApplyError::Untrusted(_))), "{why}: {settled:?}");
        let engine = place.engine();
        let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
        let refused = apply(&place.env, &engine, &planned, false, &Direct).await;
        assert!(matches!(refused, Err(ApplyError::Untrusted(_))), "{why}: {refused:?}");
        assert_eq!(place.files(), before, "no file is touched: {why}");
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn nothing_new_is_begun_while_something_is_unfinished() {
    let place = Place::new();
    place.write_journal(&place.interrupted(AFTER));
    let engine = place.engine();
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    let before = place.files();
    let refused = apply(&place.env, &engine, &planned, false, &Direct).await;
    assert!(matches!(refused, Err(ApplyError::Unsettled(_))), "first things first: {refused:?}");
    assert_eq!((place.files(), place.read_journal()), (before, (2, 0)), "nothing is touched or forgotten");
}

#[tokio::test]
async fn undoing_restores_exactly_what_the_last_change_found() {
    let place = Place::new();
    let mut engine = place.engine();
    engine.image_store = Some(ImageStore::Containerd);
    let first = plan(&engine, Action::Enable, 7200, &Choice::AsNow).unwrap();
    let done_first = apply(&place.env, &engine, &first, false, &Direct).await.unwrap();
    let journal = std::fs::read(place.journal()).unwrap();
    let mut moved = place.engine();
    moved.image_store = Some(ImageStore::Containerd);
    let second = plan(&moved, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let done_second = apply(&place.env, &moved, &second, false, &Direct).await.unwrap();
    // The engine is not found any more, which an undo does not need.
    undo(&place.env, &moved, &second, &done_second, &Direct).await.unwrap();
    let text = std::fs::read_to_string(place.hosts()).unwrap();
    assert_eq!(text, hosts_toml(&RegistryName::docker_hub(), 7200), "the port from before, not none");
    assert_eq!(std::fs::read(place.journal()).unwrap(), journal, "and it is known as before");
    let outdated = undo(&place.env, &moved, &second, &done_second, &Direct).await;
    assert!(matches!(outdated, Err(ApplyError::Outdated(_))), "once only: {outdated:?}");
    undo(&place.env, &engine, &first, &done_first, &Direct).await.unwrap();
    assert!(!place.at("certs.d").exists(), "the file and its folders are gone");
    assert_eq!(place.read_journal(), (0, 0), "and nothing is remembered");
}

/// Says what it was told to, and does what it was told to do.
#[derive(Debug)]
struct Fake {
    answer: Result<HelperReport, ElevationError>,
    writes: Option<(PathBuf, String)>,
}

impl Elevation for Fake {
    fn run(&self, verb: Verb, port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        assert_eq!((verb.to_string().as_str(), port), ("enable", 7267), "a verb and a port, nothing else");
        if let Some((path, text)) = &self.writes {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Box::pin(async { self.answer.clone() })
    }
}

#[tokio::test]
async fn what_the_privileged_step_says_is_what_a_person_is_told() {
    let report = |done, rolled_back, error: Option<&str>, commands: &[&str]| HelperReport {
        done,
        rolled_back,
        steps: vec!["A step.".into()],
        error: error.map(str::to_owned),
        commands: commands.iter().map(|&line| line.to_owned()).collect(),
        stops: None,
    };
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    let place = Place::new();
    let mut engine = place.engine();
    engine.endpoint = "unix:///run/docker.sock".into();
    engine.image_store = Some(ImageStore::Containerd);
    engine.hosts[0].file.access = Access::NeedsElevation;
    let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let run = async |answer, writes: Option<&str>| {
        let fake = Fake { answer, writes: writes.map(|text| (place.hosts(), text.to_owned())) };
        let said = apply(&place.env, &engine, &planned, false, &fake).await;
        let _ = std::fs::remove_file(place.hosts());
        said
    };
    let done = run(Ok(report(true, false, None, &[])), Some(&ours)).await.unwrap();
    assert_eq!(done.steps, ["A step."], "done as shown");
    let other = run(Ok(report(true, false, None, &[])), Some("another")).await.unwrap();
    assert!(other.steps[1].contains("differs from what was shown"), "{other:?}");
    let back = run(Ok(report(false, true, Some("It failed."), &[])), None).await;
    assert!(
        matches!(&back, Err(ApplyError::RolledBack { reason, steps }) if reason == "It failed." && steps.len() == 1),
        "{back:?}"
    );
    let others =
        HelperReport { stops: Some(vec!["web".into()]), ..report(false, false, Some("Other."), &[]) };
    let asked_again = run(Ok(others), None).await;
    assert!(
        matches!(&asked_again, Err(ApplyError::OtherContainers(stops)) if stops == &["web"]),
        "the new list reaches the person: {asked_again:?}"
    );
    let stuck = run(Ok(report(false, false, Some("Stuck."), &["rm a", "rm b"])), None).await;
    assert!(
        matches!(&stuck, Err(ApplyError::Helper { reason, commands }) if reason == "Stuck." && commands.len() == 2),
        "the way out by hand reaches the person: {stuck:?}"
    );
    for (error, permitted, why) in [
        (ElevationError::Declined, false, "the person said no"),
        (ElevationError::NotGiven, false, "the person may not, or cannot be asked"),
        (ElevationError::Unavailable("No.".into()), false, "there is no helper"),
        (ElevationError::Unknown("late".into()), true, "it may have been done"),
        (ElevationError::Failed("killed".into()), true, "it may have been done"),
    ] {
        let said = run(Err(error), None).await;
        assert_eq!(matches!(&said, Err(ApplyError::NotPermitted(_))), !permitted, "{why}: {said:?}");
        assert_eq!(matches!(&said, Err(ApplyError::Helper { .. })), permitted, "{why}: {said:?}");
    }
    assert!(backups(&place.hosts()).is_empty() && !place.journal().exists(), "nothing is done here itself");
}

/// A helper that does as it is told, and says what that was.
#[derive(Debug, Default)]
struct Asked(std::sync::Mutex<Vec<(Verb, u16)>>);

impl Elevation for Asked {
    fn run(&self, verb: Verb, port: u16) -> BoxFuture<'_, Result<HelperReport, ElevationError>> {
        self.0.lock().unwrap().push((verb, port));
        let report = HelperReport { done: true, ..HelperReport::default() };
        Box::pin(async { Ok(report) })
    }
}

#[tokio::test]
async fn a_privileged_change_that_is_taken_back_ends_with_the_port_there_was_before() {
    let hub = RegistryName::docker_hub();
    let listing = |port: u16| format!("{{\"registry-mirrors\": [\"http://127.0.0.1:{port}\"]}}\n");
    for (before, toml, asked, why) in [
        (None, None, (Verb::Disable, 7300), "nothing was set up"),
        (Some("{}".to_owned()), None, (Verb::Disable, 7300), "not Sampan"),
        (
            Some("{\"registry-mirrors\": [\"https://corp\"]}".into()),
            None,
            (Verb::Disable, 7300),
            "another mirror",
        ),
        (Some(listing(7267)), None, (Verb::Enable, 7267), "Sampan at its usual port"),
        (Some(listing(80)), None, (Verb::Disable, 7300), "a port that is not Sampan's"),
        (None, Some(7400), (Verb::Enable, 7400), "Sampan at another port, by its hosts.toml"),
        (Some(listing(7400)), Some(7400), (Verb::Enable, 7400), "Sampan at another port, by both"),
    ] {
        let place = Place::new();
        if let Some(text) = &before {
            std::fs::write(place.config(), text).unwrap();
        }
        if let Some(port) = toml {
            std::fs::create_dir_all(place.hosts().parent().unwrap()).unwrap();
            std::fs::write(place.hosts(), hosts_toml(&hub, port)).unwrap();
        }
        let mut engine = place.engine();
        engine.endpoint = "unix:///run/docker.sock".into();
        engine.config.as_mut().unwrap().access = Access::NeedsElevation;
        let planned = plan(&engine, Action::Enable, 7300, &Choice::AsNow).unwrap();
        for file in &planned.files {
            std::fs::create_dir_all(file.target.parent().unwrap()).unwrap();
            std::fs::write(&file.target, file.after.as_ref().unwrap()).unwrap();
        }
        let helper = Asked::default();
        let applied = sampan_docker::Applied::default();
        undo(&place.env, &engine, &planned, &applied, &helper).await.unwrap();
        assert_eq!(*helper.0.lock().unwrap(), [asked], "{why}: one prompt, and before is before");
    }
}

#[tokio::test]
async fn what_the_helper_took_back_is_forgotten_here_too() {
    let place = Place::new();
    std::fs::write(place.config(), AFTER).unwrap();
    let mut engine = place.engine();
    engine.version = Some("20.10.24".into());
    engine.hosts.clear();
    engine.endpoint = "unix:///run/docker.sock".into();
    engine.config.as_mut().unwrap().access = Access::NeedsElevation;
    let change = |target: PathBuf| Change {
        target,
        part: Part::DaemonJson,
        endpoint: engine.endpoint.clone(),
        port: 7267,
        before: None,
        interim: None,
        going_back: None,
        after: Some(Digest::of(AFTER.as_bytes())),
        backup: None,
        made_folders: Vec::new(),
        leaving: false,
    };
    let installed = [change(place.config()), change(place.at("another.json"))];
    std::fs::write(place.journal(), json!({"pending": [], "installed": installed}).to_string()).unwrap();
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert!(planned.needs_elevation, "{planned:?}");
    apply(&place.env, &engine, &planned, false, &Asked::default()).await.unwrap();
    assert_eq!(sampan_docker::installed(&place.env), [change(place.at("another.json"))], "that one stays");
}

#[tokio::test]
async fn what_a_kill_left_of_tidying_up_goes_at_the_next_start_and_nothing_else_does() {
    let place = Place::new();
    std::fs::create_dir_all(place.hosts().parent().unwrap()).unwrap();
    let backup = place.at("certs.d/docker.io/hosts.toml.sampan-backup-7");
    std::fs::write(&backup, "old").unwrap();
    for name in ["mine", "other/docker.io"] {
        std::fs::create_dir_all(place.at(name)).unwrap();
    }
    let mine = place.at("daemon.json.sampan-backup-8");
    std::fs::write(&mine, "needed").unwrap();
    for name in [".docker-trial-aB3dE6", ".docker-aB3dE6"] {
        std::fs::write(place.env.state_dir.join(name), "{}").unwrap();
    }
    let litter = |target: PathBuf, endpoint: &str, backup: &PathBuf, folders: &[PathBuf]| json!({"target": target, "endpoint": endpoint, "backups": [backup], "folders": folders});
    let folders = [place.at("certs.d"), place.at("certs.d/docker.io"), place.at("mine")];
    let theirs = litter(place.hosts(), "unix:///run/another.sock", &backup, &folders);
    let all = [
        litter(place.hosts(), ENDPOINT, &backup, &folders),
        // Not this engine's folder, and not the file's own backup.
        litter(place.at("other/docker.io/hosts.toml"), ENDPOINT, &mine, &[place.at("other")]),
        theirs.clone(),
    ];
    std::fs::write(place.journal(), json!({"pending": [], "installed": [], "litter": all}).to_string())
        .unwrap();
    let steps = recover(&place.env, &place.engine()).await.unwrap();
    assert!(steps.is_empty(), "nothing a person would miss: {steps:?}");
    assert!(!place.at("certs.d").exists(), "the folders that were made, and the backup in them");
    assert!(
        place.at("mine").exists() && place.at("other/docker.io").exists() && mine.exists(),
        "nothing else"
    );
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(place.journal()).unwrap()).unwrap();
    assert_eq!(value["litter"], json!([theirs]), "what is another engine's waits for that");
    let left: Vec<_> =
        std::fs::read_dir(&place.env.state_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["docker.json"], "what was being written, or shown to dockerd, goes too");
}

#[test]
fn one_change_at_a_time_and_only_in_a_folder_of_ones_own() {
    let place = Place::new();
    let held = hold(&place.env.state_dir, place.env.uid).unwrap();
    let refused = hold(&place.env.state_dir, place.env.uid).unwrap_err();
    assert!(refused.contains("under way"), "{refused}");
    drop(held);
    drop(hold(&place.env.state_dir, place.env.uid).unwrap());
    mode(&place.env.state_dir, 0o777);
    let refused = hold(&place.env.state_dir, place.env.uid).unwrap_err();
    assert!(refused.contains("other users"), "{refused}");
}

/// The list dockerd reads before the key goes.
const EMPTY: &str = "{\n  \"debug\": false,\n  \"registry-mirrors\": []\n}\n";

#[tokio::test]
async fn a_begun_disabling_is_finished_wherever_it_was_cut_short() {
    let edited = EMPTY.replace("false", "true");
    for (now, hosts, then, why) in [
        (AFTER, true, BEFORE, "before anything was written"),
        (EMPTY, true, BEFORE, "between the empty list and the end"),
        (BEFORE, true, BEFORE, "before hosts.toml went"),
        (BEFORE, false, BEFORE, "all was done, and not written down"),
        (edited.as_str(), true, edited.as_str(), "somebody edited it: as ever"),
    ] {
        let place = Place::new();
        let mut changes = place.interrupted(now);
        let toml = std::fs::read(place.hosts()).unwrap();
        if !hosts {
            std::fs::remove_dir_all(place.at("certs.d")).unwrap();
        }
        std::fs::remove_file(place.at("daemon.json.sampan-backup-7")).unwrap();
        let backup = place.at("daemon.json.sampan-backup-8");
        std::fs::write(&backup, AFTER).unwrap();
        for change in &mut changes {
            (change.leaving, change.going_back) = (true, None);
            change.before =
                Some(Digest::of(if change.part == Part::DaemonJson { AFTER.as_bytes() } else { &toml }));
            change.after = (change.part == Part::DaemonJson).then(|| Digest::of(BEFORE.as_bytes()));
            change.made_folders = Vec::new();
        }
        changes[1].interim = Some(Digest::of(EMPTY.as_bytes()));
        changes[1].backup = Some(backup);
        changes.reverse();
        place.write_journal(&changes);
        let mut engine = place.engine();
        (engine.gone, engine.found, engine.pid) = (true, false, None);
        let steps = recover(&place.env, &engine).await.unwrap();
        assert_eq!(std::fs::read_to_string(place.config()).unwrap(), then, "{why}: {steps:#?}");
        assert_eq!(place.hosts().exists(), then == edited, "{why}: {steps:#?}");
        assert_eq!(place.read_journal().0, 0, "{why}: it is settled");
    }
}

#[tokio::test]
async fn what_was_taken_back_by_hand_is_forgotten_by_a_disabling_with_nothing_to_do() {
    let place = Place::new();
    std::fs::write(place.config(), BEFORE).unwrap();
    let mut changes = place.interrupted(BEFORE);
    std::fs::remove_dir_all(place.at("certs.d")).unwrap();
    changes.remove(0);
    std::fs::write(place.journal(), json!({"pending": [], "installed": changes}).to_string()).unwrap();
    let mut engine = place.engine();
    let remembered = changes.into_iter().map(|change| sampan_docker::Remembered { change, original: None });
    engine.remembered = remembered.collect();
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert!(planned.is_nothing(), "the commands were followed: {planned:?}");
    apply(&place.env, &engine, &planned, false, &Direct).await.unwrap();
    assert_eq!(place.read_journal(), (0, 0), "nothing is left that would look like somebody else's change");
}
