//! A restart a person asks for: what it stops, what it takes, and where nothing can do it. Tables; nothing restarts.

#![expect(clippy::unwrap_used, reason = "a test: a plan that fails is a failed test")]

use sampan_docker::{
    Access, Action, ApplyMethod, Choice, CommandLine, Engine, FileSeen, HostsSeen, ImageStore, Kind, Plan,
    PlanError, Stops, System, Verb, plan, restart_commands,
};
use sampan_oci::RegistryName;

const LIVE: &str = "{\"live-restore\": true}\n";

fn seen(path: &str, bytes: Option<&str>) -> FileSeen {
    FileSeen {
        path: path.into(),
        target: path.into(),
        bytes: bytes.map(|text| text.as_bytes().to_vec()),
        access: Access::Writable,
        problem: None,
    }
}

fn engine(config: &str) -> Engine {
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    engine.found = true;
    engine.kind = Kind::Linux;
    engine.version = Some("20.10.24".into());
    engine.image_store = Some(ImageStore::Classic);
    engine.config = Some(seen("/etc/docker/daemon.json", Some(config)));
    let file = seen("/etc/docker/certs.d/docker.io/hosts.toml", None);
    engine.hosts =
        vec![HostsSeen { registry: RegistryName::docker_hub(), served: true, beside: Vec::new(), file }];
    engine.pid = Some(4242);
    engine.may_signal = true;
    engine.unit = Some("docker.service".into());
    engine.containers = vec!["db".into(), "web".into()];
    engine
}

fn planned(engine: &Engine) -> Plan {
    plan(engine, Action::Enable, 7267, &Choice::AsNow).unwrap()
}

#[test]
fn a_restart_names_what_stops_and_live_restore_counts_only_where_it_holds_throughout() {
    let all = &["db", "web"][..];
    for (config, now, swarm, flag, expected, why) in [
        ("{}", false, false, false, all, "nothing keeps them"),
        (LIVE, true, false, false, &[], "on now and in the file"),
        (LIVE, false, false, false, all, "in the file and not read yet: the old daemon stops them"),
        ("{}", true, false, false, all, "on now and gone from the file: the new daemon stops them"),
        ("{\"live-restore\": false}", true, false, false, all, "switched off in the file"),
        ("{}", true, false, true, &[], "by its command line"),
        (LIVE, true, true, false, all, "not in a swarm"),
    ] {
        let mut engine = engine(config);
        engine.live_restore = now;
        engine.swarm_active = swarm;
        engine.command_line = vec!["/usr/bin/dockerd".into()];
        if flag {
            engine.command_line.push("--live-restore".into());
        }
        let plan = planned(&engine);
        assert!(plan.stops.is_empty() && plan.apply == ApplyMethod::Reload, "not asked for: {plan:#?}");
        let restart = plan.clone().restarting(&engine).unwrap();
        assert_eq!(restart.apply, ApplyMethod::Restart, "{why}");
        assert_eq!(restart.stops, expected, "{why}");
        assert_ne!(restart.id, plan.id, "another plan, which needs its own consent");
        let notes = restart.notes.join(" ");
        assert_eq!(notes.contains("stops db, web"), !expected.is_empty(), "{why}: {notes}");
        assert_eq!(notes.contains("swarm"), swarm, "{why}: {notes}");
        assert!(!notes.contains("no container stops") && notes.contains("30 s"), "{why}: {notes}");
        assert_eq!(restart.commands.last().unwrap(), "systemctl restart docker.service", "{why}");
        assert!(!restart.needs_elevation, "whoever may signal root's daemon is root");
    }
    let mut quiet = engine("{}");
    quiet.containers.clear();
    let notes = planned(&quiet).restarting(&quiet).unwrap().notes.join(" ");
    assert!(notes.contains("No container runs now"), "{notes}");
}

#[test]
fn two_plans_that_stop_different_containers_are_different_plans() {
    let one = engine("{}");
    let mut other = engine("{}");
    other.containers.push("started-since".into());
    assert_eq!(planned(&one).id, planned(&other).id, "a reload stops neither");
    let [one, other] = [one, other].map(|engine| planned(&engine).restarting(&engine).unwrap().id);
    assert_ne!(one, other, "the consent was for the containers that were named");
}

#[test]
fn what_was_started_while_the_password_was_typed_is_asked_about_again() {
    let shown = planned(&engine("{}")).restarting(&engine("{}")).unwrap();
    let (_, _, agreed) = shown.verb.means();
    let agreed = agreed.unwrap();
    assert_eq!(shown.stops_only(agreed), Ok(()), "as it was shown");
    for (containers, why) in [
        (&["db", "web", "started-since"][..], "one more"),
        (&["db"], "one fewer: nobody agreed to this list either"),
        (&["db", "other"], "another in its place"),
    ] {
        let mut later = engine("{}");
        later.containers = containers.iter().map(|&name| name.into()).collect();
        let later = planned(&later).restarting(&later).unwrap();
        assert_eq!(later.stops_only(agreed), Err(later.stops.clone()), "{why}");
        assert_eq!(later.stops, containers, "the list that is shown then: {why}");
    }
    let mut idle = engine("{}");
    idle.containers.clear();
    let later = planned(&idle).restarting(&idle).unwrap();
    assert_eq!(later.stops_only(agreed), Ok(()), "none any more: nothing stops that nobody agreed to");
    let mut live = engine(LIVE);
    live.live_restore = true;
    let (_, _, agreed) = planned(&live).restarting(&live).unwrap().verb.means();
    live.containers.push("started-since".into());
    let later = planned(&live).restarting(&live).unwrap();
    assert_eq!(later.stops_only(agreed.unwrap()), Ok(()), "what goes on running is no matter of consent");
}

#[test]
fn nothing_restarts_for_a_plan_that_changes_nothing() {
    let mut engine = engine("{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}");
    engine.mirrors = vec!["http://127.0.0.1:7267/".into()];
    let plan = planned(&engine).restarting(&engine).unwrap();
    assert!(plan.is_nothing() && plan.stops.is_empty(), "{plan:#?}");
}

#[test]
fn a_daemon_that_starts_need_not_let_go_first() {
    let mut engine = engine("{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}");
    engine.mirrors = vec!["http://127.0.0.1:7267/".into()];
    let undo = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert!(undo.files[0].interim.is_some(), "a running one must be told first");
    let restart = undo.restarting(&engine).unwrap();
    assert_eq!(restart.files[0].interim, None, "one that starts reads the file as it is");
    assert_eq!(restart.commands.len(), 2, "write and restart: {:#?}", restart.commands);
}

#[test]
fn a_daemon_started_by_hand_is_left_to_the_hand_that_started_it() {
    let mut engine = engine("{}");
    engine.unit = None;
    engine.command_line = ["dockerd", "-H", "unix:///tmp/my docker.sock"].map(Into::into).to_vec();
    let refused = planned(&engine).restarting(&engine);
    let Err(PlanError::NotRestartable { reason, commands }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("process 4242") && reason.contains("by hand"), "{reason}");
    assert_eq!(commands, ["kill 4242", "dockerd -H 'unix:///tmp/my docker.sock'"], "as it was started");
    engine.may_signal = false;
    let Err(PlanError::NotRestartable { commands, .. }) = planned(&engine).restarting(&engine) else {
        panic!("still by hand")
    };
    assert_eq!(commands[0], "sudo kill 4242", "root's daemon");
}

#[test]
fn administrator_rights_are_asked_for_where_the_daemon_is_roots_and_by_a_verb_of_its_own() {
    let mut engine = engine("{}");
    engine.may_signal = false;
    let plan = planned(&engine).restarting(&engine).unwrap();
    assert!(plan.needs_elevation, "a service of the system's");
    assert!(plan.commands.last().unwrap().starts_with("sudo systemctl restart"), "{:?}", plan.commands);
    assert_eq!(plan.verb, Verb::EnableRestart(Stops::of(&["web".into(), "db".into()])));
    assert_eq!(plan.back, Verb::Disable, "a way back restarts nothing of its own accord");
    engine.endpoint = "unix:///srv/docker.sock".into();
    let refused = plan_of_another(&engine);
    assert!(
        matches!(refused, Err(PlanError::NotTheSystems { .. })),
        "the helper knows one Docker: {refused:?}"
    );
}

fn plan_of_another(engine: &Engine) -> Result<Plan, PlanError> {
    let mut writable = engine.clone();
    writable.may_signal = true;
    planned(&writable).restarting(engine)
}

#[test]
fn every_engine_is_restarted_by_the_command_of_its_system() {
    let kinds = |kind: Kind, unit: Option<&str>| {
        let mut engine = engine("{}");
        engine.kind = kind;
        engine.unit = unit.map(Into::into);
        engine
    };
    let docker = kinds(Kind::Linux, Some("docker.service"));
    let rootless = kinds(Kind::Rootless, Some("docker.service"));
    let snap = kinds(Kind::Snap, Some("snap.docker.dockerd.service"));
    let desktop = kinds(Kind::Desktop, None);
    let quit = "osascript -e 'quit application id \"com.docker.docker\"'";
    let exe = "'C:\\Program Files\\Docker\\Docker\\Docker Desktop.exe'";
    let kill = "'C:\\Windows\\System32\\taskkill.exe' /IM 'Docker Desktop.exe'";
    let start = format!("'C:\\Windows\\System32\\cmd.exe' /C start '' {exe}");
    for (engine, system, restart, start_anew) in [
        (
            &docker,
            System::Linux,
            vec![vec!["systemctl restart docker.service"]],
            vec!["systemctl reset-failed docker.service", "systemctl restart docker.service"],
        ),
        (
            &rootless,
            System::Linux,
            vec![vec!["systemctl --user restart docker.service"]],
            vec!["systemctl --user reset-failed docker.service", "systemctl --user restart docker.service"],
        ),
        (
            &snap,
            System::Linux,
            vec![vec!["systemctl restart snap.docker.dockerd.service"]],
            vec![
                "systemctl reset-failed snap.docker.dockerd.service",
                "systemctl restart snap.docker.dockerd.service",
            ],
        ),
        (
            &desktop,
            System::Linux,
            vec![
                vec!["docker desktop restart"],
                vec!["systemctl --user stop docker-desktop", "systemctl --user start docker-desktop"],
            ],
            vec!["systemctl --user start docker-desktop"],
        ),
        (
            &desktop,
            System::MacOs,
            vec![vec!["docker desktop restart"], vec![quit, "open -b com.docker.docker"]],
            vec!["open -b com.docker.docker"],
        ),
        (
            &desktop,
            System::Windows,
            vec![vec!["docker desktop restart"], vec![kill, start.as_str()]],
            vec![start.as_str()],
        ),
    ] {
        let commands = restart_commands(engine, system).unwrap();
        let shown: Vec<Vec<String>> =
            commands.restart.iter().map(|way| way.iter().map(CommandLine::shown).collect()).collect();
        assert_eq!(shown, restart, "{} on {system:?}", engine.kind);
        let shown: Vec<String> = commands.start_anew.iter().map(CommandLine::shown).collect();
        assert_eq!(shown, start_anew, "{} on {system:?}", engine.kind);
    }
    for kind in [Kind::OtherVm("Colima".into()), Kind::Windows, Kind::Podman, Kind::Remote, Kind::None] {
        let refused = restart_commands(&kinds(kind.clone(), None), System::Linux);
        assert!(refused.is_err(), "{kind}: {refused:?}");
    }
}
