//! Journals that are not as this Sampan writes them: damaged ones are kept, newer ones are left alone.

use sampan_docker::{Action, ApplyError, Choice, Direct, ImageStore, apply, plan, recover, undo};
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
