//! Disabling: what is taken back, in which order, and what of a person's stays.

use sampan_docker::{Action, ApplyMethod, Choice, ImageStore, Kind, Part, PlanError, hosts_toml, plan};
use sampan_oci::RegistryName;

use crate::setting::{CONFIG, OURS, engine, hosts, parts, seen, text};

#[test]
fn disabling_takes_back_in_reverse_order_and_lets_the_engine_go_first() {
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    let config = format!("{{\"debug\": true, \"registry-mirrors\": [\"{OURS}\"]}}");
    let mut engine = engine(Kind::Linux, "28.5.2", ImageStore::Classic, Some(&config));
    engine.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
    engine.mirrors = vec![format!("{OURS}/")];
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert_eq!(parts(&planned), ["daemon.json", "docker.io"], "the reverse of enabling");
    let file = &planned.files[0];
    assert_eq!(
        text(file.interim.as_ref()),
        "{\"debug\": true, \"registry-mirrors\": []}",
        "a deleted key is kept by dockerd"
    );
    assert_eq!(text(file.after.as_ref()), "{\"debug\": true}", "then the key goes");
    assert_eq!(planned.intended.as_deref(), Some([].as_slice()), "the engine must list none");
    assert!(planned.files[1].removed, "Sampan's own file goes");
    assert_eq!(planned.commands.len(), 5, "empty, reload, wait, tidy, remove: {:?}", planned.commands);
    assert!(planned.commands[2].starts_with("until ") && planned.commands[2].contains(OURS), "it has let go");
}

#[test]
fn disabling_works_on_an_engine_that_an_update_made_unsupported() {
    let config = format!("{{\"registry-mirrors\": [\"{OURS}\", \"https://corp\"]}}");
    let engine = engine(Kind::Snap, "28.4.0", ImageStore::Classic, Some(&config));
    assert!(plan(&engine, Action::Enable, 7267, &Choice::AsNow).is_err(), "not supported any more");
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert_eq!(
        text(planned.files[0].after.as_ref()),
        "{\"registry-mirrors\": [\"https://corp\"]}",
        "and still undone"
    );
    assert_eq!(planned.files[0].interim, None, "a list that is not empty needs no step between");
}

#[test]
fn a_mirror_that_only_the_running_engine_still_has_is_taken_back_too() {
    let mut engine = engine(Kind::Linux, "20.10.24", ImageStore::Classic, Some("{}"));
    engine.mirrors = vec![format!("{OURS}/")];
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    let file = &planned.files[0];
    assert!(
        text(file.interim.as_ref()).contains("[]"),
        "somebody deleted the key, which dockerd does not notice"
    );
    assert_eq!(file.after.as_deref(), Some(b"{}".as_slice()), "the file ends as it was");
    engine.mirrors.clear();
    assert!(
        plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap().is_nothing(),
        "nothing of Sampan's is left"
    );
}

#[test]
fn a_persons_own_mirror_never_keeps_sampan_from_being_taken_out_and_is_named() {
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    let listing = |urls: &[&str]| format!("{{\"registry-mirrors\": {urls:?}}}");
    let (local, corp, lan) = ("http://127.0.0.1:5000", "https://corp", "http://10.1.2.3:5000");
    let insecure = listing(&[OURS, "http://cache.lan:5000"])
        .replace('}', ", \"insecure-registries\": [\"cache.lan:5000\"]}");
    for (store, config, listed, stays, why) in [
        (ImageStore::Classic, listing(&[OURS]), vec![OURS], None, "nothing is left"),
        (ImageStore::Classic, listing(&[OURS, corp]), vec![OURS, corp], None, "what is left is far away"),
        (ImageStore::Classic, listing(&[OURS, local]), vec![OURS, local], Some(local), "another one stays"),
        (ImageStore::Containerd, "{}".into(), vec![], None, "none is listed"),
        (ImageStore::Containerd, listing(&[local]), vec![], Some(local), "the next reload lists it"),
        (ImageStore::Containerd, "{}".into(), vec![local], Some(local), "the running engine still has it"),
        (
            ImageStore::Containerd,
            listing(&["http://LOCALHOST:1"]),
            vec![],
            Some("http://LOCALHOST:1"),
            "another spelling",
        ),
        (
            ImageStore::Classic,
            listing(&[OURS, lan]),
            vec![OURS, lan, corp],
            Some(lan),
            "an insecure network, as it runs",
        ),
        (
            ImageStore::Classic,
            insecure,
            vec![OURS],
            Some("http://cache.lan:5000"),
            "an insecure registry, once the file is read",
        ),
    ] {
        let mut engine = engine(Kind::Linux, "29.7.2", store, Some(&config));
        engine.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
        engine.mirrors = listed.iter().map(|url| format!("{url}/")).collect();
        engine.insecure = vec!["10.1.0.0/16".into(), "127.0.0.0/8".into()];
        let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow);
        let planned = planned.unwrap_or_else(|error| panic!("{why}: {error}"));
        let hub = planned.files.iter().find(|file| matches!(file.part, Part::Hosts(_)));
        assert!(hub.is_some_and(|file| file.removed), "{why}: {planned:?}");
        let told: Vec<_> =
            planned.notes.iter().filter(|note| note.contains("stays in registry-mirrors")).collect();
        assert_eq!(told.len(), usize::from(stays.is_some()), "{why}: {told:?}");
        assert!(stays.is_none_or(|url| told[0].starts_with(url)), "{why}: {told:?}");
    }
    // The running engine would keep Sampan's own after the file that belongs beside it went.
    let mut flagged = engine(Kind::Linux, "29.7.2", ImageStore::Containerd, Some("{}"));
    flagged.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
    flagged.flag_mirrors = vec![OURS.into()];
    let planned = plan(&flagged, Action::Disable, 7267, &Choice::AsNow);
    assert!(matches!(planned, Err(PlanError::Together(_))), "Sampan's own never stays alone: {planned:?}");
    let mut unserved = engine(Kind::Linux, "29.7.2", ImageStore::Classic, None);
    unserved.hosts.clear();
    let planned = plan(&unserved, Action::Enable, 7267, &Choice::AsNow);
    assert!(matches!(planned, Err(PlanError::Together(_))), "nor is one listed alone: {planned:?}");
}

#[test]
fn disabling_never_passes_over_a_daemon_json_it_cannot_know() {
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    for store in [ImageStore::Classic, ImageStore::Containerd] {
        let mut base = engine(Kind::Linux, "29.7.2", store, Some("{}"));
        base.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
        let mut unsafe_one = base.clone();
        unsafe_one.config.as_mut().unwrap().problem = Some("It belongs to another user.".into());
        assert!(
            matches!(plan(&unsafe_one, Action::Disable, 7267, &Choice::AsNow), Err(PlanError::Unsafe(_))),
            "{store:?}"
        );
        let mut broken = base.clone();
        broken.config = Some(seen(CONFIG, Some(b"{,}")));
        assert!(
            matches!(plan(&broken, Action::Disable, 7267, &Choice::AsNow), Err(PlanError::Refused { .. })),
            "{store:?}"
        );
        let mut unknown = base.clone();
        unknown.config = None;
        assert!(
            plan(&unknown, Action::Disable, 7267, &Choice::AsNow).is_err(),
            "which file it reads is not known"
        );
        assert!(plan(&base, Action::Disable, 7267, &Choice::AsNow).is_ok(), "a file that can be read");
    }
}

#[test]
fn an_engine_that_does_not_run_is_taken_back_without_telling_it() {
    let listing = format!("{{\"registry-mirrors\": [\"{OURS}\"]}}");
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    let mut stopped = engine(Kind::None, "", ImageStore::Classic, Some(&listing));
    (stopped.found, stopped.gone, stopped.pid) = (false, true, None);
    stopped.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
    let planned = plan(&stopped, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert_eq!(parts(&planned), ["daemon.json", "docker.io"], "in that order");
    assert_eq!(planned.apply, ApplyMethod::Nothing, "there is nobody to tell: {planned:?}");
    assert!(planned.files.iter().all(|file| file.interim.is_none()), "and nobody to let go of anything");
    assert!(plan(&stopped, Action::Enable, 7267, &Choice::AsNow).is_err(), "what it can do is not known");
    stopped.gone = false;
    assert!(
        plan(&stopped, Action::Disable, 7267, &Choice::AsNow).is_err(),
        "one that hangs keeps what it has read"
    );
}

#[test]
fn where_nothing_is_sampans_there_is_nothing_to_take_back() {
    for (kind, gone) in
        [(Kind::None, true), (Kind::None, false), (Kind::Remote, false), (Kind::Podman, false)]
    {
        for config in [None, Some("{}"), Some("{\"registry-mirrors\": [\"https://corp\"]}")] {
            let mut engine = engine(kind.clone(), "", ImageStore::Classic, config);
            (engine.found, engine.gone, engine.pid) = (false, gone, None);
            let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
            assert!(planned.is_nothing() && !planned.needs_elevation, "{kind:?} {config:?}: {planned:?}");
        }
    }
}

#[test]
fn by_hand_the_engine_lets_go_before_the_key_and_the_hosts_file_do() {
    let ours = hosts_toml(&RegistryName::docker_hub(), 7267);
    let config = format!("{{\"debug\": true, \"registry-mirrors\": [\"{OURS}\"]}}\n");
    let mut engine = engine(Kind::Linux, "28.5.2", ImageStore::Classic, Some("{\"debug\": true}\n"));
    let enabling = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
    let back = sampan_docker::inverse(&engine, &enabling);
    engine.hosts = vec![hosts("docker.io", Some(ours.as_bytes()))];
    engine.config = Some(seen(CONFIG, Some(config.as_bytes())));
    engine.mirrors = vec![format!("{OURS}/")];
    for commands in [plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap().commands, back.commands] {
        let place = |text: &str| commands.iter().position(|line| line.contains(text)).unwrap();
        let order = ["\"registry-mirrors\": []", "systemctl reload", "until ", "rm /etc/docker/certs.d"];
        assert!(order.map(place).is_sorted(), "{commands:#?}");
    }
}
