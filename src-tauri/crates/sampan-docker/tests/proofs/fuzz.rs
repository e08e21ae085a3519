//! R98: whatever is in `daemon.json`, the editor never panics, and what it returns is a file that a strict parser reads
//! and that differs in the mirrors only.

use sampan_docker::daemon_json::{BYTES_MAX, Reason, add_mirror, has_list, mirrors, remove_mirror};

use crate::dice::{Dice, dice, points};
use crate::strict::Strict;
use crate::table::{EDITED, REFUSED};

const OURS: &str = "http://127.0.0.1:7267";

/// What a file is made of, and what does not belong in one.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "/",
    "//",
    "/*",
    "*/",
    "'",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\r",
    "\u{feff}",
    "\u{a0}",
    "\u{2028}",
    "\0",
    "null",
    "true",
    "false",
    "NaN",
    "Infinity",
    "undefined",
    "0",
    "-0",
    "-",
    "+1",
    "01",
    "1e5",
    "1E-400",
    "1e999",
    "1.50",
    ".5",
    "5.",
    "0x1f",
    "9007199254740993",
    "18446744073709551616",
    "\"\"",
    "\"a\"",
    "\"registry-mirrors\"",
    "\"Registry-Mirrors\"",
    "\"registry\\u002dmirrors\"",
    "\"registry-mirrors\": []",
    "\"registry-mirrors\":[\"https://m\"]",
    "[\"http://127.0.0.1:7267\"]",
    "\"http://127.0.0.1:7267/\"",
    "\"http:\\/\\/127.0.0.1:7267\"",
    "\"http://127.0.0.1:5100\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\x41\"",
    "\"é😀\"",
    "\"debug\": true",
    "\"a\": {\"a\": 1}",
    "\"log-opts\": {\"max-size\": \"10m\"}",
    "{\"a\":1,\"a\":2}",
    "#",
    "registry-mirrors:",
    "[[[[[[[[",
    "]]]]]]]]",
    ",,",
    ",}",
    ",]",
    "\u{1}",
    "\u{7f}",
];

fn seed(dice: &mut Dice) -> Vec<u8> {
    let index = dice.below(EDITED.len() + REFUSED.len() + 1);
    if let Some((before, _)) = EDITED.get(index) {
        return before.as_bytes().to_vec();
    }
    REFUSED
        .get(index - EDITED.len())
        .map_or_else(|| written(dice, 0).into_bytes(), |(bytes, _)| bytes.to_vec())
}

/// A value by the grammar, in any layout: mostly valid.
fn written(dice: &mut Dice, depth: usize) -> String {
    const GAPS: &[&str] = &["", " ", "\n  ", "\r\n\t", "\n\n    "];
    let kind = if depth == 0 { 0 } else { dice.below(if depth > 4 { 2 } else { 4 }) + 1 };
    let gap = dice.one(GAPS);
    let count = dice.below(4);
    match kind {
        0 | 3 => {
            let mut text = format!("{{{gap}");
            for index in 0..count {
                let key = match dice.below(6) {
                    0 if depth == 0 => "registry-mirrors".to_owned(),
                    0 | 1 => "registry-mirrors-not".to_owned(),
                    2 => "debug".to_owned(),
                    _ => format!("k{index}"),
                };
                let value =
                    if key == "registry-mirrors" { mirror_list(dice) } else { written(dice, depth + 1) };
                let comma = if index > 0 { "," } else { "" };
                text += &[comma, gap, "\"", &key, "\"", dice.one(GAPS), ":", gap, &value].concat();
            }
            format!("{text}{gap}}}")
        }
        4 => {
            let entries: Vec<String> = (0..count).map(|_| written(dice, depth + 1)).collect();
            format!("[{gap}{}{gap}]", entries.join(&format!("{gap},{}", dice.one(GAPS))))
        }
        1 => dice.one(&["null", "true", "-1.50e+3", "0", "12345678901234567890", "0.1"]).to_owned(),
        _ => dice.one(&["\"\"", "\"é\\n\"", "\"registry-mirrors\"", "\"}],{\"", "\"\\u0000\""]).to_owned(),
    }
}

fn mirror_list(dice: &mut Dice) -> String {
    const MIRRORS: &[&str] = &[
        "\"https://m\"",
        "\"https://n/\"",
        "\"http://127.0.0.1:7267\"",
        "\"http://127.0.0.1:7267//\"",
        "\"http://127.0.0.1:5100\"",
        "\"\"",
    ];
    let gap = dice.one(&["", " ", "\n    "]);
    let count = dice.below(5);
    let entries: Vec<&str> = (0..count).map(|_| dice.one(MIRRORS)).collect();
    format!("[{gap}{}{gap}]", entries.join(&format!("{gap},{gap}")))
}

fn spoilt(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..dice.below(5) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(12)).min(bytes.len());
        match dice.below(8) {
            0 => bytes.splice(at..at, dice.one(WORDS).bytes()).for_each(drop),
            1 => bytes.splice(at..end, dice.one(WORDS).bytes()).for_each(drop),
            2 => bytes.drain(at..end).for_each(drop),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again).for_each(drop);
            }
            4 => {
                let other = seed(dice);
                let cut = dice.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[cut..]);
            }
            5 if at < bytes.len() => bytes[at] = dice.byte(),
            6 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Whether the file was edited; panics with the bytes where something does not hold.
fn judge(bytes: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let before = Strict::read(bytes);
    let added = add_mirror(bytes, OURS);
    if let Err(refusal) = &added {
        assert_ne!(refusal.reason, Reason::Unsure, "an edit that would have done harm: {:?}", shown());
        assert!(!refusal.advice.is_empty(), "{:?}", shown());
        let editable = before.as_ref().is_ok_and(Strict::is_editable) && bytes.len() <= BYTES_MAX;
        assert!(!editable, "refused without need: {refusal}: {:?}", shown());
    }
    let edits = [&added, &remove_mirror(bytes, OURS, true), &remove_mirror(bytes, OURS, false)];
    for (edit, name) in edits.into_iter().zip(["added", "removed, list left", "removed"]) {
        assert_eq!(edit.is_ok(), added.is_ok(), "all edits refuse the same: {:?}", shown());
        let Ok(edited) = edit else { continue };
        let read = Strict::read(edited);
        assert!(read.is_ok(), "{name}: {read:?}: {:?}", shown());
        assert_eq!(
            read.unwrap().rest(),
            before.clone().unwrap().rest(),
            "{name}, and nothing else: {:?}",
            shown()
        );
    }
    let Ok(added) = added else { return false };
    let others = |bytes: &[u8]| -> Vec<String> {
        let list = mirrors(bytes).unwrap();
        list.into_iter().filter(|url| url.trim_end_matches('/') != OURS).collect()
    };
    let listed = mirrors(&added).unwrap();
    assert_eq!(
        listed.first().map(|url| url.trim_end_matches('/')),
        Some(OURS),
        "ours is first: {:?}",
        shown()
    );
    assert_eq!(listed.len(), others(bytes).len() + 1, "and once: {:?}", shown());
    assert_eq!(others(&added), others(bytes), "others stay in order: {:?}", shown());
    assert_eq!(add_mirror(&added, OURS).unwrap(), added, "again is nothing: {:?}", shown());
    if has_list(bytes).unwrap() && others(bytes) == mirrors(bytes).unwrap() {
        let back = remove_mirror(&added, OURS, true).unwrap();
        assert_eq!(String::from_utf8_lossy(&back), shown(), "there and back, byte for byte");
    }
    true
}

#[test]
fn whatever_is_in_daemon_json_an_edit_is_exact_or_is_refused() {
    let (inputs, mut dice) = (points(10_000), dice());
    let mut edited = 0_u32;
    for _ in 0..inputs {
        let made = if dice.percent(50) { written(&mut dice, 0).into_bytes() } else { seed(&mut dice) };
        let bytes = if dice.percent(30) { made } else { spoilt(made, &mut dice) };
        edited += u32::from(judge(&bytes));
    }
    eprintln!("{inputs} files: {edited} edited, {} refused", inputs - edited);
    assert!(
        edited > inputs / 10 && edited < inputs - inputs / 10,
        "both kinds are met: {edited} of {inputs}"
    );
}
