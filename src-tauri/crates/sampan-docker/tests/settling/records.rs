//! Journals that are not as this Sampan writes them: damaged ones are kept, newer ones are left alone.

use sampan_docker::{
    Action, ApplyError, Choice, Direct, Environment, ImageStore, Remembered, apply, detect, hold, plan,
    recover, undo,
};
use serde_json::json;

use crate::place::{AFTER, BEFORE, Place};

#[tokio::test]
async fn a_damaged_journal_is_kept_and_said_and_never_written_over() {
    for (number, damage) in
        ["{\"pending\": [", "", "[]", "{\"pending\": [{\"target\": 7}]}"].iter().enumerate()
    {
        let place = Place::new();
        std::fs::write(place.config(), BEFORE).unwrap();
        std::fs::write(place.journal(), damage).unwrap();
        std::fs::write(place.env.state_dir.join("docker.json.damaged-1"), "an older one").unwrap();
        let kept = place.env.state_dir.join("docker.json.damaged-2");
        if number % 2 == 0 {
            let steps = recover(&place.env, &place.engine()).await.unwrap();
            assert!(steps[0].contains("damaged-2"), "the next start says so: {steps:#?}");
            assert!(!place.journal().exists(), "it is put aside");
            assert!(recover(&place.env, &place.engine()).await.unwrap().is_empty(), "and says so once");
        }
        let mut engine = place.engine();
        engine.image_store = Some(ImageStore::Containerd);
        let planned = plan(&engine, Action::Enable, 7267, &Choice::AsNow).unwrap();
        apply(&place.env, &engine, &planned, false, &Direct).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(&kept).unwrap(),
            *damage,
            "whoever looks at it finds it: {damage}"
        );
        let older = std::fs::read_to_string(place.env.state_dir.join("docker.json.damaged-1")).unwrap();
        assert_eq!((older.as_str(), place.read_journal()), ("an older one", (0, 1)), "and nothing is lost");
    }
}

#[tokio::test]
async fn a_newer_sampans_journal_is_left_alone_and_nothing_is_changed() {
    let place = Place::new();
    let mut newer: serde_json::Value = json!({"pending": place.interrupted(AFTER), "installed": []});
    newer["version"] = 2.into();
    newer["pending"][0]["part"] = json!({"SomethingNew": 1});
    std::fs::write(place.journal(), newer.to_string()).unwrap();
    let before = place.files();
    let settled = recover(&place.env, &place.engine()).await;
    let Err(ApplyError::Untrusted(why)) = &settled else { panic!("what it says is not known: {settled:?}") };
    assert!(why.contains("newer Sampan") && why.contains("update this one"), "what to do: {why}");
    let engine = place.engine();
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    let refused = apply(&place.env, &engine, &planned, false, &Direct).await;
    assert!(matches!(refused, Err(ApplyError::Untrusted(_))), "{refused:?}");
    let undone = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    let refused = undo(&place.env, &engine, &undone, &sampan_docker::Applied::default(), &Direct).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(place.files(), before, "no file is touched");
    assert_eq!(std::fs::read_to_string(place.journal()).unwrap(), newer.to_string(), "nor the journal");
    assert_eq!(std::fs::read_dir(&place.env.state_dir).unwrap().count(), 1, "nor is it called damaged");
    newer["version"] = 1.into();
    newer["pending"] = json!(place.interrupted(AFTER));
    std::fs::write(place.journal(), newer.to_string()).unwrap();
    assert!(!recover(&place.env, &place.engine()).await.unwrap().is_empty(), "this version's own is settled");
}

/// What the helper set up, and somebody has taken back by hand since.
fn helpers_journal(place: &Place) -> Environment {
    let mut change = place.interrupted(BEFORE).remove(1);
    change.endpoint = format!("unix://{}", place.dir.path().join("nobody.sock").display());
    std::fs::remove_dir_all(place.dir.path().join("certs.d")).unwrap();
    std::fs::create_dir(&place.env.system_state_dir).unwrap();
    let journal = json!({"pending": [], "installed": [change]}).to_string();
    std::fs::write(place.env.system_state_dir.join("docker.json"), journal).unwrap();
    Environment { docker_host: Some(change.endpoint), ..place.env.clone() }
}

/// Disables, where there is nothing left to do.
async fn disable(place: &Place, env: &Environment) {
    let mut engine = place.engine();
    engine.endpoint = env.docker_host.clone().unwrap();
    engine.remembered = detect(env).await.remembered;
    assert_eq!(engine.remembered.len(), 1, "the helper's journal says so");
    engine.hosts.clear();
    let planned = plan(&engine, Action::Disable, 7267, &Choice::AsNow).unwrap();
    assert!(planned.is_nothing(), "{planned:#?}");
    apply(env, &engine, &planned, false, &Direct).await.unwrap();
}

#[tokio::test]
async fn root_forgets_in_the_helpers_journal_what_was_taken_back_by_hand_unless_a_helper_is_at_work() {
    let place = Place::new();
    if place.env.uid != 0 {
        sampan_testkit::cannot_run("the helper's journal is root's");
        return;
    }
    let env = helpers_journal(&place);
    let journal = || std::fs::read_to_string(place.env.system_state_dir.join("docker.json")).unwrap();
    let at_work = hold(&env.system_state_dir, 0).unwrap();
    let before = journal();
    disable(&place, &env).await;
    assert_eq!(journal(), before, "one at a time writes there");
    drop(at_work);
    disable(&place, &env).await;
    assert!(!journal().contains("DaemonJson"), "{}", journal());
    let known: Vec<Remembered> = detect(&env).await.remembered;
    assert!(known.is_empty(), "nothing looks like somebody else's change any more: {known:?}");
}

#[tokio::test]
async fn a_user_remembers_that_the_helpers_journal_is_out_of_date_and_writes_nothing_there() {
    let place = Place::new();
    if place.env.uid != 0 {
        sampan_testkit::cannot_run("the helper's journal is root's");
        return;
    }
    let root = helpers_journal(&place);
    let user = 65_534;
    std::os::unix::fs::chown(&place.env.state_dir, Some(user), None).unwrap();
    let env = Environment { uid: user, ..root };
    let helpers = place.env.system_state_dir.join("docker.json");
    let before = std::fs::read(&helpers).unwrap();
    disable(&place, &env).await;
    assert_eq!(std::fs::read(&helpers).unwrap(), before, "it is root's");
    assert!(
        std::fs::read_to_string(place.journal()).unwrap().contains("\"settled\""),
        "it is noted on this side"
    );
    assert!(detect(&env).await.remembered.is_empty(), "and no longer looked for");
    let again = json!({"pending": [], "installed": []}).to_string();
    std::fs::write(&helpers, again).unwrap();
    assert!(detect(&env).await.remembered.is_empty(), "nor when the helper forgets it too");
}
