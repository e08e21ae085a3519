//! What the editor of `daemon.json` does with files as people have them: a table of bytes in and bytes out.

#![expect(clippy::unwrap_used, reason = "a test: what fails here is the test's own table")]

use sampan_docker::daemon_json::{self, Reason, add_mirror, mirrors, remove_mirror};

const OURS: &str = "http://127.0.0.1:7267";

fn add(text: &str) -> String {
    String::from_utf8(add_mirror(text.as_bytes(), OURS).unwrap()).unwrap()
}

/// Before, after, why.
const ADDING: &[(&str, &str, &str)] = &[
    ("", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n", "a missing file is created"),
    (" \n\t ", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n", "a blank file is an object"),
    ("\r\n", "{\r\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\r\n}\r\n", "newlines as they were"),
    ("{}", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}", "no newline is added at the end"),
    ("{}\n", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n", "the last newline stays"),
    ("{ }", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}", "an empty object with space"),
    ("\u{feff}{}", "\u{feff}{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}", "the mark stays"),
    (
        "\u{feff}",
        "\u{feff}{\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n",
        "a mark alone is blank",
    ),
    ("{\"a\":1}", "{\"a\":1,\"registry-mirrors\":[\"http://127.0.0.1:7267\"]}", "compact stays compact"),
    (
        "{\"a\": 1}",
        "{\"a\": 1, \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "one line stays one line",
    ),
    (
        "{\n    \"a\": 1\n}\n",
        "{\n    \"a\": 1,\n    \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n",
        "four spaces",
    ),
    (
        "{\n\t\"a\": 1\n}\n",
        "{\n\t\"a\": 1,\n\t\"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n}\n",
        "tabs",
    ),
    (
        "{\r\n  \"a\": 1\r\n}",
        "{\r\n  \"a\": 1,\r\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\r\n}",
        "CRLF",
    ),
    (
        "{\n\n  \"a\": 1\n\n}",
        "{\n\n  \"a\": 1,\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"]\n\n}",
        "blank lines stay",
    ),
    (
        "{\"z\": 1.50e+3, \"a\": 0}",
        "{\"z\": 1.50e+3, \"a\": 0, \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "order and number text",
    ),
    (
        "{\"registry-mirrors\": []}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "into an empty list",
    ),
    (
        "{\"registry-mirrors\": [ ]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\" ]}",
        "into a spaced empty list",
    ),
    (
        "{\"registry-mirrors\": [\"https://m\"]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\", \"https://m\"]}",
        "first",
    ),
    (
        "{\"registry-mirrors\":[\"https://m\"]}",
        "{\"registry-mirrors\":[\"http://127.0.0.1:7267\",\"https://m\"]}",
        "first, compact",
    ),
    (
        "{\n  \"registry-mirrors\": [\n    \"https://m\",\n    \"https://n\"\n  ]\n}\n",
        "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:7267\",\n    \"https://m\",\n    \"https://n\"\n  ]\n}\n",
        "one a line",
    ),
    (
        "{\"registry-mirrors\": [\"https://m\",  \"https://n\"]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\",  \"https://m\",  \"https://n\"]}",
        "the same gaps",
    ),
    (
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "already there",
    ),
    (
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267/\"]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267/\"]}",
        "a slash makes no other mirror",
    ),
    (
        "{\"registry-mirrors\": [\"https://m\", \"http://127.0.0.1:7267\"]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\", \"https://m\"]}",
        "moved to the front",
    ),
    (
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\", \"http://127.0.0.1:7267/\"]}",
        "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "once",
    ),
    (
        "{\"é\": \"ü\", \"registry-mirrors\": [\"https://m\"]}",
        "{\"é\": \"ü\", \"registry-mirrors\": [\"http://127.0.0.1:7267\", \"https://m\"]}",
        "places are counted in bytes",
    ),
    (
        "{\"registry\\u002dmirrors\": [\"https://m\"]}",
        "{\"registry\\u002dmirrors\": [\"http://127.0.0.1:7267\", \"https://m\"]}",
        "an escaped key is the same key",
    ),
    (
        "{\"labels\": [\"registry-mirrors\"]}",
        "{\"labels\": [\"registry-mirrors\"], \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "a value is no key",
    ),
    (
        "{\"x\": {\"registry-mirrors\": 1}}",
        "{\"x\": {\"registry-mirrors\": 1}, \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
        "another object's key is not the key",
    ),
    (
        "  {\"a\": 1}  \n",
        "  {\"a\": 1, \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}  \n",
        "space outside stays",
    ),
];

#[test]
fn adding_touches_only_the_list() {
    for (before, after, why) in ADDING {
        assert_eq!(add(before), *after, "{why}: {before:?}");
        assert_eq!(add(after), *after, "doing it again changes nothing: {after:?}");
    }
}

#[test]
fn removing_touches_only_the_list() {
    for (before, keep, drop, why) in [
        ("", "", "", "nothing to remove from a missing file"),
        ("{}", "{}", "{}", "nor from one without the key"),
        (
            "{\"registry-mirrors\": [\"https://m\"]}",
            "{\"registry-mirrors\": [\"https://m\"]}",
            "{\"registry-mirrors\": [\"https://m\"]}",
            "another mirror stays",
        ),
        (
            "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
            "{\"registry-mirrors\": []}",
            "{}",
            "the only one",
        ),
        (
            "{\"registry-mirrors\": [\n  \"http://127.0.0.1:7267\"\n]}",
            "{\"registry-mirrors\": []}",
            "{}",
            "the only one, on a line",
        ),
        (
            "{\"registry-mirrors\": [\"http://127.0.0.1:7267\", \"https://m\"]}",
            "{\"registry-mirrors\": [\"https://m\"]}",
            "{\"registry-mirrors\": [\"https://m\"]}",
            "the first",
        ),
        (
            "{\"registry-mirrors\": [\"https://m\", \"http://127.0.0.1:7267/\"]}",
            "{\"registry-mirrors\": [\"https://m\"]}",
            "{\"registry-mirrors\": [\"https://m\"]}",
            "the last, with a slash",
        ),
        (
            "{\"registry-mirrors\": [\"a\", \"http://127.0.0.1:7267\", \"b\"]}",
            "{\"registry-mirrors\": [\"a\", \"b\"]}",
            "{\"registry-mirrors\": [\"a\", \"b\"]}",
            "the middle",
        ),
        (
            "{\"a\": 1, \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
            "{\"a\": 1, \"registry-mirrors\": []}",
            "{\"a\": 1}",
            "the last key",
        ),
        (
            "{\"registry-mirrors\": [\"http://127.0.0.1:7267\"], \"a\": 1}",
            "{\"registry-mirrors\": [], \"a\": 1}",
            "{\"a\": 1}",
            "the first key",
        ),
        (
            "{\n  \"a\": 1,\n  \"registry-mirrors\": [\"http://127.0.0.1:7267\"],\n  \"b\": 2\n}\n",
            "{\n  \"a\": 1,\n  \"registry-mirrors\": [],\n  \"b\": 2\n}\n",
            "{\n  \"a\": 1,\n  \"b\": 2\n}\n",
            "the middle key",
        ),
        (
            "\u{feff}{\"a\": 1, \"registry-mirrors\": [\"http://127.0.0.1:7267\"]}",
            "\u{feff}{\"a\": 1, \"registry-mirrors\": []}",
            "\u{feff}{\"a\": 1}",
            "the mark stays",
        ),
        (
            "{\"registry-mirrors\": [\"http://127.0.0.1:5100\"]}",
            "{\"registry-mirrors\": [\"http://127.0.0.1:5100\"]}",
            "{\"registry-mirrors\": [\"http://127.0.0.1:5100\"]}",
            "another port is another mirror",
        ),
    ] {
        let with = |leave| String::from_utf8(remove_mirror(before.as_bytes(), OURS, leave).unwrap()).unwrap();
        assert_eq!(with(true), keep, "an empty list is left, {why}: {before:?}");
        assert_eq!(with(false), drop, "an empty list goes, {why}: {before:?}");
    }
}

#[test]
fn what_cannot_be_edited_with_certainty_is_refused_with_a_place() {
    use Reason::{Comment, DuplicateKey, Misspelled, NotAListOfTexts, NotAnObject, TrailingComma};
    for (text, reason, place, why) in [
        ("{ // note\n}", Comment, (1, 3), "a line comment"),
        ("{\n  /* note */ \"a\": 1\n}", Comment, (2, 3), "a block comment"),
        ("{\"a\": 1} // end", Comment, (1, 10), "a comment at the end"),
        ("{\n  \"a\": 1,\n}", TrailingComma, (3, 1), "a comma before a brace"),
        ("{\"registry-mirrors\": [\"https://m\",]}", TrailingComma, (1, 35), "a comma before a bracket"),
        ("{\"a\": 1, \"a\": 2}", DuplicateKey("a".into()), (1, 10), "the same key twice"),
        (
            "{\n\"registry-mirrors\": [],\n\"registry-mirrors\": []}",
            DuplicateKey("registry-mirrors".into()),
            (3, 1),
            "our key twice",
        ),
        ("{\"x\": {\"b\": 1, \"b\": 1}}", DuplicateKey("b".into()), (1, 16), "twice, deeper"),
        ("{\"x\": [{\"b\": 1, \"b\": 1}]}", DuplicateKey("b".into()), (1, 17), "twice, in a list"),
        ("{\"a\": 1, \"\\u0061\": 2}", DuplicateKey("a".into()), (1, 10), "twice, escaped once"),
        ("{\"Registry-Mirrors\": []}", Misspelled("Registry-Mirrors".into()), (1, 2), "another spelling"),
        ("[]", NotAnObject, (1, 1), "a list"),
        ("\n  \"text\"", NotAnObject, (2, 3), "a text"),
        ("null", NotAnObject, (1, 1), "null"),
        ("42", NotAnObject, (1, 1), "a number"),
        ("{\"registry-mirrors\": null}", NotAListOfTexts, (1, 22), "null instead of a list"),
        ("{\"registry-mirrors\": \"https://m\"}", NotAListOfTexts, (1, 22), "a text instead of a list"),
        ("{\"registry-mirrors\": {}}", NotAListOfTexts, (1, 22), "an object instead of a list"),
        ("{\"registry-mirrors\": [1]}", NotAListOfTexts, (1, 23), "a number in the list"),
        ("{\"registry-mirrors\": [\"a\", null]}", NotAListOfTexts, (1, 28), "null in the list"),
        ("{\"registry-mirrors\": [[\"a\"]]}", NotAListOfTexts, (1, 23), "a list in the list"),
        (
            "{\"é\": 1,\n \"ü\": [], \"registry-mirrors\": 1}",
            NotAListOfTexts,
            (2, 31),
            "columns are counted in characters",
        ),
    ] {
        let refusal = add_mirror(text.as_bytes(), OURS).unwrap_err();
        assert_eq!(refusal.reason, reason, "{why}: {text:?}");
        assert_eq!(
            (refusal.line, refusal.column),
            (Some(place.0), Some(place.1)),
            "the place of {why}: {text:?}"
        );
        assert!(!refusal.advice.is_empty(), "every refusal says what to do");
        assert!(remove_mirror(text.as_bytes(), OURS, true).is_err(), "removing refuses the same: {text:?}");
        assert!(mirrors(text.as_bytes()).is_err(), "reading refuses the same: {text:?}");
    }
}

#[test]
fn what_is_not_json_is_refused_where_it_stops_being_json() {
    for (text, place, why) in [
        ("{", (1, 1), "cut short"),
        ("{\"a\": }", (1, 7), "no value"),
        ("{\"a\" 1}", (1, 6), "no colon"),
        ("{\"a\": 1 \"b\": 2}", (1, 9), "no comma"),
        ("{\n  'a': 1\n}", (2, 3), "single quotes"),
        ("{a: 1}", (1, 2), "a bare key"),
        ("{\"a\": 01}", (1, 8), "a leading zero"),
        ("{\"a\": +1}", (1, 7), "a plus sign"),
        ("{\"a\": 0x1}", (1, 8), "a hexadecimal number"),
        ("{\"a\": .5}", (1, 7), "no digit before the point"),
        ("{\"a\": NaN}", (1, 7), "not a number"),
        ("{\"a\": \"\u{1}\"}", (1, 8), "a control character"),
        ("{\"a\": \"\\x41\"}", (1, 9), "an escape JSON does not have"),
        ("{} {}", (1, 4), "two values"),
        ("{}\n}", (2, 1), "a brace too many"),
        ("{\"a\": TRUE}", (1, 7), "capitals"),
        ("hello", (1, 1), "prose"),
        ("<?xml?>", (1, 1), "another format"),
        ("debug: true\n", (1, 1), "YAML"),
        ("{\"a\": [1, 2}", (1, 12), "brackets crossed"),
        ("\u{a0}{}", (1, 1), "a blank that is none in JSON"),
    ] {
        let refusal = add_mirror(text.as_bytes(), OURS).unwrap_err();
        assert!(matches!(refusal.reason, Reason::Syntax(_)), "{why}: {text:?} gives {refusal:?}");
        assert_eq!(
            (refusal.line, refusal.column),
            (Some(place.0), Some(place.1)),
            "the place of {why}: {refusal}"
        );
        assert!(refusal.to_string().contains(&format!("line {}, column {}", place.0, place.1)), "{refusal}");
    }
}

#[test]
fn what_is_no_text_of_ours_is_refused() {
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("{}".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let utf16_big: Vec<u8> =
        [0xfe, 0xff].into_iter().chain("{}".encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let utf16_bare: Vec<u8> = "{\"a\": 1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut large = b"{\"a\": \"".to_vec();
    large.resize(daemon_json::BYTES_MAX, b'x');
    large.extend_from_slice(b"\"}");
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(2000), "]".repeat(2000));
    for (bytes, reason, why) in [
        (utf16, Reason::Utf16, "UTF-16, little end first"),
        (utf16_big, Reason::Utf16, "UTF-16, big end first"),
        (utf16_bare, Reason::Utf16, "UTF-16 without a mark"),
        (large, Reason::TooLarge, "more than a MiB"),
        (b"{\"a\": \"\xff\"}".to_vec(), Reason::NotUtf8, "a byte that is no UTF-8"),
        (b"{\"a\": \"\xe9\"}".to_vec(), Reason::NotUtf8, "Latin-1"),
    ] {
        assert_eq!(add_mirror(&bytes, OURS).unwrap_err().reason, reason, "{why}");
    }
    let refusal = add_mirror(deep.as_bytes(), OURS).unwrap_err();
    assert!(matches!(refusal.reason, Reason::Syntax(_)), "nesting that exhausts a stack: {refusal}");
}

#[test]
fn the_mirrors_are_read_in_order_as_written() {
    let text = "{\"registry-mirrors\": [\"https:\\/\\/m\", \"http://127.0.0.1:7267/\"]}";
    assert_eq!(
        mirrors(text.as_bytes()).unwrap(),
        ["https://m", "http://127.0.0.1:7267/"],
        "escapes are resolved"
    );
    assert_eq!(mirrors(b"").unwrap(), Vec::<String>::new(), "a missing file lists none");
    assert!(!daemon_json::has_list(b"{}").unwrap(), "no key");
    assert!(daemon_json::has_list(b"{\"registry-mirrors\": []}").unwrap(), "an empty list is a list");
}
