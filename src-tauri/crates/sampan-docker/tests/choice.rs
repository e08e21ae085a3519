//! Which registries' files are written and removed, and what the privileged helper is asked for it.

#![expect(clippy::unwrap_used, reason = "a test: a plan that fails is a failed test")]

use sampan_docker::{
    Access, Action, ApplyMethod, Choice, Engine, FileSeen, HostsSeen, ImageStore, Kind, KnownSet, Plan,
    PlanError, RegistryState, by_name, hosts_toml, inverse, plan, registries,
};
use sampan_oci::RegistryName;

const PORT: u16 = 7267;
const FOREIGN: &str = "server = \"https://elsewhere.example\"\n";

fn name(text: &str) -> RegistryName {
    text.parse().unwrap()
}

fn only(names: &[&str]) -> Choice {
    Choice::only(names.iter().map(|text| name(text)))
}

/// What a registry's file holds in a test.
#[derive(Clone, Copy)]
enum Holds {
    Nothing,
    Ours(u16),
    Foreign,
}

fn hosts(registry: &str, holds: Holds) -> HostsSeen {
    let path = format!("/etc/docker/certs.d/{registry}/hosts.toml");
    let registry = name(registry);
    let bytes = match holds {
        Holds::Nothing => None,
        Holds::Ours(port) => Some(hosts_toml(&registry, port).into_bytes()),
        Holds::Foreign => Some(FOREIGN.into()),
    };
    let (target, access) = (path.clone().into(), Access::Writable);
    HostsSeen {
        registry,
        beside: Vec::new(),
        served: true,
        file: FileSeen { path: path.into(), target, bytes, access, problem: None },
    }
}

/// A Docker 29 with containerd's store, which reads `hosts.toml` at each pull.
fn engine(hosts: Vec<HostsSeen>) -> Engine {
    let mut engine = Engine::unknown("unix:///var/run/docker.sock".into());
    engine.found = true;
    engine.kind = Kind::Linux;
    engine.version = Some("29.7.2".into());
    engine.image_store = Some(ImageStore::Containerd);
    engine.config = Some(FileSeen {
        path: "/etc/docker/daemon.json".into(),
        target: "/etc/docker/daemon.json".into(),
        bytes: None,
        access: Access::Writable,
        problem: None,
    });
    engine.hosts = hosts;
    engine.pid = Some(4242);
    engine.may_signal = true;
    engine
}

/// Each file as `+registry` (written), `-registry` (removed), in order.
fn changes(plan: &Plan) -> Vec<String> {
    let folder = |file: &sampan_docker::FileChange| {
        let folder = file.path.parent().unwrap().file_name().unwrap();
        format!("{}{}", if file.removed { '-' } else { '+' }, folder.to_string_lossy())
    };
    plan.files.iter().map(folder).collect()
}

#[test]
fn exactly_the_chosen_registries_have_sampans_file_afterwards() {
    use Holds::{Foreign, Nothing, Ours};
    let table: [(Choice, [Holds; 4], &[&str], &str); 9] = [
        (
            Choice::AsNow,
            [Nothing, Nothing, Nothing, Nothing],
            &["+docker.io"],
            "Docker Hub, and nothing unasked",
        ),
        (Choice::AsNow, [Ours(PORT), Ours(PORT), Nothing, Foreign], &[], "everything stays"),
        (
            Choice::AsNow,
            [Ours(7200), Ours(7200), Nothing, Nothing],
            &["+docker.io", "+ghcr.io"],
            "another port",
        ),
        (only(&["ghcr.io"]), [Nothing, Nothing, Nothing, Nothing], &["+docker.io", "+ghcr.io"], "chosen"),
        (
            only(&["ghcr.io"]),
            [Ours(PORT), Nothing, Ours(PORT), Nothing],
            &["+ghcr.io", "-quay.io"],
            "one for another",
        ),
        (
            only(&[]),
            [Ours(PORT), Ours(PORT), Ours(7200), Foreign],
            &["-ghcr.io", "-quay.io"],
            "none but Docker Hub",
        ),
        (only(&["quay.io"]), [Ours(PORT), Nothing, Foreign, Nothing], &[], "a foreign file is left"),
        (
            only(&["docker.io"]),
            [Ours(PORT), Ours(PORT), Nothing, Nothing],
            &["-ghcr.io"],
            "Docker Hub is no choice",
        ),
        (
            only(&["r.example:5000"]),
            [Ours(PORT), Nothing, Nothing, Nothing],
            &["+r.example:5000"],
            "a custom one",
        ),
    ];
    for (choice, holds, expected, why) in table {
        let names = ["docker.io", "ghcr.io", "quay.io", "r.example:5000"];
        let engine = engine(names.into_iter().zip(holds).map(|(name, holds)| hosts(name, holds)).collect());
        let planned = plan(&engine, Action::Enable, PORT, &choice).unwrap();
        assert_eq!(changes(&planned), expected, "{why}");
        assert_eq!(planned.apply, ApplyMethod::Nothing, "read at each pull: {why}");
        assert_eq!(Choice::of_plan(&planned.id), Some(choice), "its name says what was chosen: {why}");
        let planned = plan(&engine, Action::Disable, PORT, &Choice::AsNow).unwrap();
        let ours = engine.hosts.iter().filter(|seen| seen.port().is_some()).count();
        assert_eq!(planned.files.len(), ours, "disabling takes back every file of Sampan's: {why}");
        assert!(planned.files.iter().all(|file| file.removed), "and writes none: {why}");
    }
}

#[test]
fn a_chosen_registry_whose_file_is_somebody_elses_is_named() {
    let engine = engine(vec![hosts("docker.io", Holds::Nothing), hosts("ghcr.io", Holds::Foreign)]);
    let planned = plan(&engine, Action::Enable, PORT, &only(&["ghcr.io"])).unwrap();
    assert!(
        planned.notes.iter().any(|note| note.contains("ghcr.io/hosts.toml was written by somebody else"))
    );
}

#[test]
fn what_cannot_be_chosen_is_refused_by_name() {
    let base = engine(vec![hosts("docker.io", Holds::Nothing), hosts("ghcr.io", Holds::Nothing)]);
    let refused = plan(&base, Action::Enable, PORT, &only(&["ghcr.io", "quay.io"]));
    assert_eq!(refused.unwrap_err(), PlanError::NotServed(name("quay.io")), "Sampan would answer 404");
    for (version, store) in [("20.10.24", ImageStore::Classic), ("27.5.1", ImageStore::Containerd)] {
        let mut old = base.clone();
        (old.version, old.image_store) = (Some(version.into()), Some(store));
        let refused = plan(&old, Action::Enable, PORT, &only(&["ghcr.io"])).unwrap_err();
        assert!(
            matches!(&refused, PlanError::HubOnly { registry, .. } if registry.as_str() == "ghcr.io"),
            "{version}"
        );
        assert!(
            refused.to_string().contains("localhost:7267/ghcr.io/owner/name:tag"),
            "and the way: {refused}"
        );
    }
}

#[test]
fn the_classic_store_of_docker_28_gets_the_files_for_its_builds_and_says_so() {
    let mut engine = engine(vec![hosts("docker.io", Holds::Nothing), hosts("ghcr.io", Holds::Nothing)]);
    (engine.version, engine.image_store) = (Some("28.5.2".into()), Some(ImageStore::Classic));
    engine.config.as_mut().unwrap().bytes = Some("{}".into());
    let planned = plan(&engine, Action::Enable, PORT, &only(&["ghcr.io"])).unwrap();
    assert_eq!(
        changes(&planned),
        ["+docker.io", "+ghcr.io", "+docker"],
        "hosts.toml first, then daemon.json"
    );
    assert!(planned.notes.iter().any(|note| note.contains("builds only")), "{:?}", planned.notes);
    assert!(by_name(&engine, PORT).unwrap().contains("localhost:7267/ghcr.io/"), "pulls go by name");
}

/// Root's files, which the helper writes.
fn elevated(mut engine: Engine) -> Engine {
    engine.hosts.iter_mut().for_each(|seen| seen.file.access = Access::NeedsElevation);
    engine
}

#[test]
fn one_verb_of_the_helpers_says_a_whole_choice() {
    use Holds::{Nothing, Ours};
    // Which way, the choice, what there is, the verb, the verb that takes it back, and why.
    type Row = (Action, Choice, [Holds; 4], &'static str, &'static str, &'static str);
    let table: [Row; 6] = [
        (Action::Enable, Choice::AsNow, [Nothing; 4], "enable", "disable", "Docker Hub"),
        (Action::Enable, only(&["ghcr.io", "quay.io"]), [Nothing; 4], "enable.3", "disable", "two at once"),
        (
            Action::Enable,
            only(&["quay.io"]),
            [Ours(PORT), Ours(PORT), Nothing, Nothing],
            "enable.2",
            "enable.1",
            "back to what was",
        ),
        (
            Action::Enable,
            only(&[]),
            [Ours(PORT), Ours(PORT), Nothing, Ours(PORT)],
            "enable.0",
            "enable.1",
            "none",
        ),
        (
            Action::Enable,
            Choice::AsNow,
            [Ours(7200), Ours(7200), Nothing, Nothing],
            "enable",
            "disable",
            "another port",
        ),
        (
            Action::Disable,
            Choice::AsNow,
            [Ours(PORT), Ours(PORT), Ours(PORT), Nothing],
            "disable",
            "enable.3",
            "all of it",
        ),
    ];
    for (action, choice, holds, verb, back, why) in table {
        let names = ["docker.io", "ghcr.io", "quay.io", "r.example"];
        let engine =
            elevated(engine(names.into_iter().zip(holds).map(|(name, holds)| hosts(name, holds)).collect()));
        let planned = plan(&engine, action, PORT, &choice).unwrap();
        assert_eq!((planned.verb.to_string(), planned.back.to_string()), (verb.into(), back.into()), "{why}");
        assert_eq!(inverse(&engine, &planned).verb, planned.back, "{why}");
        assert!(
            planned.needs_elevation && planned.commands.iter().all(|line| line.contains("sudo ")),
            "{why}"
        );
    }
}

#[test]
fn the_helper_makes_of_its_verb_the_plan_that_was_shown() {
    use Holds::{Foreign, Nothing, Ours};
    let names = ["docker.io", "ghcr.io", "quay.io", "gcr.io", "r.example", "old.example"];
    let states = [Nothing, Ours(PORT), Ours(7200), Foreign];
    for number in 0..4_usize.pow(5) {
        let holds = |place: u32| states[number / 4_usize.pow(place) % 4];
        let places = names[..4].iter().zip(0..).map(|(name, place)| hosts(name, holds(place)));
        let mut shown =
            engine(places.chain([hosts("r.example", Nothing), hosts("old.example", holds(4))]).collect());
        shown.hosts[5].served = false;
        if matches!(holds(0), Foreign) {
            continue;
        }
        let shown = elevated(shown);
        // The helper is root, and serves no registry but the known ones.
        let mut roots = shown.clone();
        for seen in &mut roots.hosts {
            seen.file.access = Access::Writable;
            seen.served = seen.registry.is_docker_hub() || KnownSet::knows(&seen.registry);
        }
        for choice in
            [Choice::AsNow, only(&[]), only(&["ghcr.io", "r.example"]), only(&["quay.io", "gcr.io"])]
        {
            let planned = plan(&shown, Action::Enable, PORT, &choice).unwrap();
            let (action, set, restart) = planned.verb.means();
            assert_eq!((action, restart), (Action::Enable, None), "{number}: nothing else was asked for");
            let told = set.map_or(Choice::AsNow, |known| Choice::of_known(known, &roots));
            let done = plan(&roots, Action::Enable, PORT, &told).unwrap();
            assert_eq!(done.files, planned.files, "{number} {choice:?}: what was shown is what is done");
        }
    }
}

#[test]
fn what_the_helper_has_no_word_for_is_shown_as_commands() {
    let engine =
        elevated(engine(vec![hosts("docker.io", Holds::Ours(PORT)), hosts("r.example", Holds::Nothing)]));
    let planned = plan(&engine, Action::Enable, PORT, &only(&["r.example"])).unwrap();
    assert!(planned.files.is_empty(), "no prompt for nothing: {:?}", planned.files);
    let note = planned
        .notes
        .iter()
        .find(|note| note.contains("certs.d/r.example/hosts.toml is not in this step"))
        .unwrap();
    assert!(note.contains("sudo mkdir -p ") && note.contains("sudo tee "), "by hand: {note}");
}

#[test]
fn the_state_of_every_registry_says_what_can_be_chosen() {
    let mut foreign = hosts("quay.io", Holds::Foreign);
    foreign.file.problem = None;
    let base = engine(vec![
        hosts("docker.io", Holds::Ours(PORT)),
        hosts("ghcr.io", Holds::Ours(PORT)),
        hosts("gcr.io", Holds::Ours(7200)),
        foreign,
        hosts("r.example", Holds::Nothing),
    ]);
    let shown = |engine: &Engine| -> Vec<(String, bool, bool, bool)> {
        let row = |state: RegistryState| {
            (state.registry.to_string(), state.active, state.foreign, state.changeable)
        };
        registries(engine, PORT).into_iter().map(row).collect()
    };
    let expected = |custom: bool| {
        vec![
            ("docker.io".to_owned(), true, false, false),
            ("ghcr.io".to_owned(), true, false, true),
            ("gcr.io".to_owned(), false, false, true),
            ("quay.io".to_owned(), false, true, false),
            ("r.example".to_owned(), false, false, custom),
        ]
    };
    assert_eq!(shown(&base), expected(true), "Docker Hub always, a foreign file never");
    assert_eq!(
        shown(&elevated(base.clone())),
        expected(false),
        "the helper has no word for a custom registry"
    );
    let why = |engine: &Engine, registry: &str| {
        let mut all = registries(engine, PORT).into_iter();
        all.find(|state| state.registry.as_str() == registry).unwrap().note
    };
    for registry in ["docker.io", "ghcr.io", "gcr.io", "r.example"] {
        assert_eq!(why(&base, registry), None, "{registry} can be chosen, or always is");
    }
    assert!(why(&base, "quay.io").unwrap().contains("written by somebody else"));
    let by_hand = why(&elevated(base.clone()), "r.example").unwrap();
    assert!(by_hand.contains("--registry r.example"), "with the way to do it: {by_hand}");
    let mut odd = base.clone();
    odd.insecure = vec!["r.example".into()];
    odd.hosts[1].beside = vec!["ca.crt".into()];
    assert!(why(&odd, "r.example").unwrap().contains("insecure registries"), "what it would lose");
    assert_eq!(why(&odd, "ghcr.io"), None, "what is set up can be taken out all the same");
    odd.hosts[2].file.access = Access::ReadOnly;
    assert!(why(&odd, "gcr.io").unwrap().contains("read-only"));
    for state in registries(&odd, PORT).into_iter().filter(|state| !state.registry.is_docker_hub()) {
        assert_eq!(state.changeable, state.note.is_none(), "whoever cannot tick it is told why: {state:?}");
    }
    let mut old = base;
    old.version = Some("27.5.1".into());
    assert_eq!(
        shown(&old),
        [("docker.io".to_owned(), false, false, false)],
        "it asks mirrors for Docker Hub only"
    );
}
