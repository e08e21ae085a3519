//! What holds for every `daemon.json`, not only for those somebody thought of.

use proptest::prelude::*;
use sampan_docker::daemon_json::{add_mirror, has_list, mirrors, remove_mirror};
use serde_json::Value;

const OURS: &str = "http://127.0.0.1:7267";

/// JSON as people and programs lay it out: any spacing, any order.
fn spaced(value: &Value, gaps: &[&str], next: &mut usize) -> String {
    let mut gap = || {
        *next += 1;
        gaps[*next % gaps.len()].to_owned()
    };
    if let Some(object) = value.as_object() {
        let mut text = "{".to_owned() + &gap();
        for (index, (key, inner)) in object.iter().enumerate() {
            text += if index > 0 { "," } else { "" };
            text += &[gap(), Value::from(key.as_str()).to_string(), gap(), ":".into(), gap()].concat();
            text += &spaced(inner, gaps, &mut (index + 1));
        }
        text + &gap() + "}"
    } else if let Some(list) = value.as_array() {
        let mut text = "[".to_owned() + &gap();
        for (index, inner) in list.iter().enumerate() {
            text += if index > 0 { "," } else { "" };
            text += &gap();
            text += &spaced(inner, gaps, &mut (index + 2));
            text += &gap();
        }
        text + "]"
    } else {
        value.to_string()
    }
}

fn gap() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just(" "), Just("\n  "), Just("\r\n\t"), Just("\n\n    ")]
}

fn setting() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zé\"\\\\\n{}\\[\\],:]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"é]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn mirror() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(OURS.to_owned()),
        Just(format!("{OURS}/")),
        Just("http://127.0.0.1:5100".to_owned()),
        "https://[a-z]{1,8}/".prop_map(String::from),
    ]
}

/// A valid file, with or without the key, with or without a byte order mark.
fn file(list: impl Strategy<Value = Option<Vec<String>>>) -> impl Strategy<Value = Vec<u8>> {
    let settings = prop::collection::btree_map("[a-z]{1,8}", setting(), 0..4);
    (settings, list, prop::collection::vec(gap(), 1..7), any::<bool>()).prop_map(
        |(settings, list, gaps, mark)| {
            let mut object: serde_json::Map<String, Value> = settings.into_iter().collect();
            if let Some(list) = list {
                object.insert("registry-mirrors".into(), Value::from(list));
            }
            let text = spaced(&Value::Object(object), &gaps, &mut 0);
            (if mark { format!("\u{feff}{text}") } else { text }).into_bytes()
        },
    )
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    file(prop::option::of(prop::collection::vec(mirror(), 0..5)))
}

fn without_list(bytes: &[u8]) -> Value {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut value: Value =
        serde_json::from_slice(bytes).expect("an edited file is JSON by the strictest reading");
    value.as_object_mut().expect("and an object").remove("registry-mirrors");
    value
}

fn others(list: &[String]) -> Vec<String> {
    list.iter().filter(|url| url.trim_end_matches('/') != OURS).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_whatever_is_returned_is_json(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for edited in [add_mirror(&bytes, OURS), remove_mirror(&bytes, OURS, true), remove_mirror(&bytes, OURS, false)]
            .into_iter()
            .flatten()
        {
            prop_assert!(edited == bytes || without_list(&edited).is_object(), "an edit is a file dockerd reads");
        }
    }

    #[test]
    fn nothing_panics_on_text_that_is_nearly_json(text in "[{}\\[\\]\":,a1é \n/*\\\\-]{0,24}|\\{\"registry-mirrors\": ?[\\[\\]\", a]{0,12}\\}") {
        let _ = add_mirror(text.as_bytes(), OURS);
        let _ = remove_mirror(text.as_bytes(), OURS, false);
    }

    #[test]
    fn adding_and_removing_gives_the_original_bytes_when_the_key_was_there(
        bytes in file(prop::collection::vec("https://[a-z]{1,8}/?", 0..5).prop_map(Some))
    ) {
        let added = add_mirror(&bytes, OURS).expect("a valid file is edited");
        let removed = remove_mirror(&added, OURS, true).expect("and edited back");
        prop_assert_eq!(String::from_utf8_lossy(&removed), String::from_utf8_lossy(&bytes), "byte for byte");
    }

    #[test]
    fn adding_differs_in_the_list_only_and_puts_ours_first_once(bytes in any_file()) {
        let before = mirrors(&bytes).expect("valid");
        let added = add_mirror(&bytes, OURS).expect("valid");
        let after = mirrors(&added).expect("still valid");
        prop_assert_eq!(without_list(&added), without_list(&bytes), "no other setting changes");
        prop_assert_eq!(after.first().map(|url| url.trim_end_matches('/')), Some(OURS), "ours is asked first");
        prop_assert_eq!(others(&after), others(&before), "others stay, in order");
        prop_assert_eq!(after.len(), others(&before).len() + 1, "ours is there once");
        prop_assert_eq!(add_mirror(&added, OURS).expect("valid"), added, "adding again changes nothing");
    }

    #[test]
    fn removing_differs_in_the_list_only_and_leaves_none_of_ours(bytes in any_file(), leave in any::<bool>()) {
        let before = mirrors(&bytes).expect("valid");
        let removed = remove_mirror(&bytes, OURS, leave).expect("valid");
        let after = mirrors(&removed).expect("still valid");
        prop_assert_eq!(without_list(&removed), without_list(&bytes), "no other setting changes");
        prop_assert_eq!(&after, &others(&before), "others stay, in order");
        let kept = has_list(&removed).expect("valid");
        let had = has_list(&bytes).expect("valid");
        prop_assert_eq!(kept, had && (leave || !after.is_empty()), "an empty list stays only where it was asked for");
        prop_assert_eq!(remove_mirror(&removed, OURS, leave).expect("valid"), removed, "removing again changes nothing");
    }
}
