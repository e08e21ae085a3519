//! Carrying plans out on real files. The engine here reads `hosts.toml` at each pull, so nothing has to be told.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sampan_docker::{
    Action, ApplyError, BACKUPS_MAX, Choice, Direct, Engine, Environment, HostsSeen, ImageStore, Kind, Plan,
    apply, backups, hosts_toml, look, plan, recover,
};
use sampan_oci::{Clock, Millis, RegistryName};

/// Each reading is a millisecond later.
#[derive(Debug, Default)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Millis {
        Millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

struct Place {
    dir: tempfile::TempDir,
    env: Environment,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment {
            docker_host: None,
            docker_context: None,
            docker_config_dir: None,
            buildx_config_dir: None,
            home: dir.path().into(),
            xdg_config_home: None,
            uid: rustix::process::getuid().as_raw(),
            state_dir: dir.path().join("state"),
            system_state_dir: dir.path().join("system"),
            registries: vec![RegistryName::docker_hub()],
            clock: Arc::new(Ticking::default()),
        };
        Self { dir, env }
    }

    fn hosts(&self) -> PathBuf {
        self.dir.path().join("certs.d/docker.io/hosts.toml")
    }

    /// An engine as it would be detected now.
    fn engine(&self) -> Engine {
        let mut engine = Engine::unknown("unix:///nowhere.sock".into());
        engine.kind = Kind::Linux;
        engine.found = true;
        engine.version = Some("29.7.2".into());
        engine.image_store = Some(ImageStore::Containerd);
        engine.pid = Some(1);
        engine.may_signal = true;
        engine.config = Some(look(&self.dir.path().join("daemon.json"), self.env.uid));
        let file = look(&self.hosts(), self.env.uid);
        engine.hosts =
            vec![HostsSeen { registry: RegistryName::docker_hub(), served: true, beside: Vec::new(), file }];
        engine
    }

    async fn change(&self, action: Action, port: u16) -> Result<Plan, ApplyError> {
        let engine = self.engine();
        let plan = plan(&engine, action, port, &Choice::AsNow).unwrap();
        apply(&self.env, &engine, &plan, false, &Direct).await.map(|_| plan)
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn enabling_writes_the_file_that_was_shown_and_disabling_leaves_no_trace() {
    let place = Place::new();
    let plan = place.change(Action::Enable, 7267).await.unwrap();
    let written = std::fs::read(place.hosts()).unwrap();
    assert_eq!(Some(&written), plan.files[0].after.as_ref(), "exactly what was shown");
    assert_eq!(mode(&place.hosts()), 0o644, "dockerd and people can read it, whatever the umask");
    assert!(place.engine().enabled(7267), "and it is recognised");
    place.change(Action::Disable, 7267).await.unwrap();
    assert!(!place.hosts().exists(), "Sampan's file is gone");
    assert!(!place.dir.path().join("certs.d").exists(), "and so are the folders that were made for it");
}

#[tokio::test]
async fn a_changed_port_keeps_owner_and_mode_and_at_most_five_backups() {
    let place = Place::new();
    place.change(Action::Enable, 7200).await.unwrap();
    std::fs::set_permissions(place.hosts(), std::fs::Permissions::from_mode(0o640)).unwrap();
    for port in 7201..7210 {
        let before = std::fs::read(place.hosts()).unwrap();
        place.change(Action::Enable, port).await.unwrap();
        let newest = backups(&place.hosts()).pop().unwrap();
        assert_eq!(std::fs::read(&newest).unwrap(), before, "the newest backup is the file as it was");
        assert_eq!((mode(&place.hosts()), mode(&newest)), (0o640, 0o640), "nobody gains access by an edit");
    }
    assert_eq!(backups(&place.hosts()).len(), BACKUPS_MAX, "old backups go");
    let text = std::fs::read_to_string(place.hosts()).unwrap();
    assert_eq!(text, hosts_toml(&RegistryName::docker_hub(), 7209), "the last port counts");
}

#[tokio::test]
async fn a_clock_that_went_back_costs_no_backup() {
    let place = Place::new();
    place.change(Action::Enable, 7200).await.unwrap();
    let before = std::fs::read(place.hosts()).unwrap();
    for year in 1..=5 {
        let name = format!("hosts.toml.sampan-backup-{}", year * 31_536_000_000_000_i64);
        std::fs::write(place.hosts().with_file_name(name), "from the future").unwrap();
    }
    place.change(Action::Enable, 7267).await.unwrap();
    let newest = backups(&place.hosts()).pop().unwrap();
    assert_eq!(std::fs::read(newest).unwrap(), before, "what was just backed up is not the oldest");
    assert_eq!(backups(&place.hosts()).len(), BACKUPS_MAX, "old backups go");
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_shown_is_left_alone() {
    let place = Place::new();
    let engine = place.engine();
    let shown = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    std::fs::create_dir_all(place.hosts().parent().unwrap()).unwrap();
    std::fs::write(place.hosts(), "somebody was faster").unwrap();
    let refused = apply(&place.env, &engine, &shown, false, &Direct).await;
    assert!(
        matches!(refused, Err(ApplyError::Outdated(path)) if path == place.hosts()),
        "look at a new plan"
    );
    assert_eq!(std::fs::read_to_string(place.hosts()).unwrap(), "somebody was faster", "untouched");
    assert!(backups(&place.hosts()).is_empty() && !place.env.state_dir.exists(), "and nothing was begun");
}

#[tokio::test]
async fn a_symbolic_link_is_kept_and_its_target_edited() {
    let place = Place::new();
    let target = place.dir.path().join("real.toml");
    std::fs::write(&target, hosts_toml(&RegistryName::docker_hub(), 7200)).unwrap();
    std::fs::create_dir_all(place.hosts().parent().unwrap()).unwrap();
    symlink(&target, place.hosts()).unwrap();
    place.change(Action::Enable, 7267).await.unwrap();
    assert!(std::fs::symlink_metadata(place.hosts()).unwrap().is_symlink(), "the link stays");
    let text = std::fs::read_to_string(&target).unwrap();
    assert_eq!(text, hosts_toml(&RegistryName::docker_hub(), 7267), "where it leads is edited");
}

#[test]
fn what_others_could_have_put_there_is_not_edited() {
    let place = Place::new();
    let uid = place.env.uid;
    let file = |name: &str, content: &str| {
        let path = place.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let problem = |path: &Path| look(path, uid).problem;
    let plain = file("plain.json", "{}");
    assert_eq!(problem(&plain), None, "an ordinary file");
    assert_eq!(
        problem(&place.dir.path().join("missing/daemon.json")),
        None,
        "a missing file in a missing folder"
    );
    let open = file("open.json", "{}");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(problem(&open).unwrap().contains("other users"), "writable by everyone");
    let folder = place.dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("daemon.json"), "{}").unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(
        problem(&folder.join("daemon.json")).unwrap().contains("other users"),
        "a folder everyone can write"
    );
    let link = place.dir.path().join("link.json");
    symlink(folder.join("daemon.json"), &link).unwrap();
    assert!(problem(&link).unwrap().contains("other users"), "a link into such a folder");
    let dangling = place.dir.path().join("dangling.json");
    symlink(place.dir.path().join("nothing"), &dangling).unwrap();
    assert!(problem(&dangling).unwrap().contains("leads nowhere"), "a link to nothing");
    assert!(problem(place.dir.path()).unwrap().contains("not a regular file"), "a folder");
    let pipe = place.dir.path().join("pipe.json");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(problem(&pipe).unwrap().contains("not a regular file"), "a pipe, without waiting for its writer");
    assert!(problem(Path::new("daemon.json")).unwrap().contains("absolute"), "a relative path");
}

#[test]
fn a_file_of_another_user_is_not_edited() {
    let place = Place::new();
    let path = place.dir.path().join("theirs.json");
    std::fs::write(&path, "{}").unwrap();
    if place.env.uid != 0 {
        sampan_testkit::cannot_run("only root can give a file away");
        return;
    }
    std::os::unix::fs::chown(&path, Some(4321), None).unwrap();
    assert!(
        look(&path, 0).problem.unwrap().contains("another user"),
        "root edits nothing a user can change back"
    );
    assert_eq!(look(&path, 0).bytes, None, "and does not even read it");
}

#[tokio::test]
async fn a_change_that_was_interrupted_is_taken_back_at_the_next_start() {
    let place = Place::new();
    place.change(Action::Enable, 7200).await.unwrap();
    let journal = place.env.state_dir.join("docker.json");
    let settled = std::fs::read(&journal).unwrap();
    let before = std::fs::read(place.hosts()).unwrap();
    assert!(recover(&place.env, &place.engine()).await.unwrap().is_empty(), "nothing was interrupted");
    place.change(Action::Enable, 7267).await.unwrap();
    // As a power cut after the rename would leave it: the journal's entry still pending.
    let mut after: serde_json::Value = serde_json::from_slice(&std::fs::read(&journal).unwrap()).unwrap();
    let mut entry = after["installed"][0].take();
    let held: serde_json::Value = serde_json::from_slice(&settled).unwrap();
    entry["before"] = held["installed"][0]["after"].clone();
    entry["backup"] = backups(&place.hosts()).last().unwrap().to_str().unwrap().into();
    after["pending"] = vec![entry].into();
    after["installed"] = held["installed"].clone();
    std::fs::write(&journal, after.to_string()).unwrap();
    let steps = recover(&place.env, &place.engine()).await.unwrap();
    assert!(!steps.is_empty(), "a person is told");
    assert_eq!(
        std::fs::read(place.hosts()).unwrap(),
        before,
        "byte for byte as before the interrupted change"
    );
    assert!(recover(&place.env, &place.engine()).await.unwrap().is_empty(), "once is enough");
}

#[tokio::test]
async fn a_restart_needs_its_own_consent_and_rights_are_never_assumed() {
    let place = Place::new();
    let mut desktop = place.engine();
    desktop.kind = Kind::Desktop;
    let restart = plan(&desktop, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let refused = apply(&place.env, &desktop, &restart, false, &Direct).await;
    assert!(
        matches!(refused, Err(ApplyError::RestartNotConsented)),
        "the first consent does not stop containers"
    );
    let mut foreign = place.engine();
    foreign.endpoint = "unix:///var/run/docker.sock".into();
    foreign.hosts[0].file.access = sampan_docker::Access::NeedsElevation;
    let elevated = plan(&foreign, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let refused = apply(&place.env, &foreign, &elevated, false, &Direct).await;
    assert!(matches!(refused, Err(ApplyError::NotPermitted(_))), "{refused:?}");
    assert!(!place.hosts().exists(), "nothing was written");
}
