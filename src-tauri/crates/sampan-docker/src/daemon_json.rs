//! The one key of `daemon.json` that Sampan edits, as a pure function of bytes.
//!
//! The file belongs to a person: everything outside the list `registry-mirrors` keeps its exact bytes (order, number
//! text, indentation, newlines, byte order mark). What cannot be edited with certainty is refused, with a place and
//! an advice, and nothing is returned that could be written. A missing file is the empty slice.

use std::fmt;
use std::ops::Range;

use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

/// The largest file Sampan reads: real ones have a few hundred bytes.
pub const BYTES_MAX: usize = 1024 * 1024;

const KEY: &str = "registry-mirrors";
const BOM: &str = "\u{feff}";

/// Why a `daemon.json` is not edited. The file stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The closed reason.
    pub reason: Reason,
    /// Line, from 1, where a place can be named.
    pub line: Option<usize>,
    /// Column in characters, from 1, where a place can be named.
    pub column: Option<usize>,
    /// What a person does about it: one English sentence.
    pub advice: String,
}

/// The closed reasons of a [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Larger than [`BYTES_MAX`].
    TooLarge,
    /// UTF-16, which dockerd may read and Sampan does not edit.
    Utf16,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON (RFC 8259); the parser's words.
    Syntax(String),
    /// JSON with comments.
    Comment,
    /// JSON with a comma before a closing bracket.
    TrailingComma,
    /// The same key twice in one object, named.
    DuplicateKey(String),
    /// The top level is not an object.
    NotAnObject,
    /// `registry-mirrors` is there and is not a list of texts.
    NotAListOfTexts,
    /// The key is there in another spelling, named: dockerd refuses it.
    Misspelled(String),
    /// The edit would have changed something else. A defect of Sampan, caught before anything was written.
    Unsure,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::TooLarge => f.write_str("it is larger than 1 MiB")?,
            Reason::Utf16 => f.write_str("it is UTF-16")?,
            Reason::NotUtf8 => f.write_str("it is not UTF-8")?,
            Reason::Syntax(detail) => write!(f, "it is not valid JSON ({detail})")?,
            Reason::Comment => f.write_str("it has a comment, which JSON does not allow")?,
            Reason::TrailingComma => f.write_str("it has a comma before a closing bracket")?,
            Reason::DuplicateKey(key) => write!(f, "it has the key \"{key}\" twice")?,
            Reason::NotAnObject => f.write_str("it is not an object ({ … })")?,
            Reason::NotAListOfTexts => write!(f, "\"{KEY}\" is not a list of texts")?,
            Reason::Misspelled(key) => {
                write!(f, "it has the key \"{key}\" where Docker knows only \"{KEY}\"")?;
            }
            Reason::Unsure => f.write_str("the edit would have changed more than the mirrors")?,
        }
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, " at line {line}, column {column}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// The mirrors listed in the file, in order, as written. Empty where the key or the file is missing.
///
/// # Errors
/// A [`Refusal`] where the file is not one Sampan reads.
pub fn mirrors(bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let (_, text) = open(bytes)?;
    if is_blank(text) {
        return Ok(Vec::new());
    }
    let list = layout(text)?.list;
    Ok(list.map(|list| list.entries.into_iter().map(|entry| entry.url).collect()).unwrap_or_default())
}

/// Whether the file has the key at all, an empty list included.
///
/// # Errors
/// A [`Refusal`] where the file is not one Sampan reads.
pub fn has_list(bytes: &[u8]) -> Result<bool, Refusal> {
    let (_, text) = open(bytes)?;
    Ok(!is_blank(text) && layout(text)?.list.is_some())
}

/// The file with `url` first in `registry-mirrors` and nowhere else in it; other mirrors stay, in order. Doing it
/// again changes nothing. A missing or blank file becomes an object with that key.
///
/// # Errors
/// A [`Refusal`] where the file is not one Sampan edits.
pub fn add_mirror(bytes: &[u8], url: &str) -> Result<Vec<u8>, Refusal> {
    let (bom, text) = open(bytes)?;
    if is_blank(text) {
        let newline = newline_of(text);
        let made = format!("{{{newline}  \"{KEY}\": [{}]{newline}}}{newline}", quoted(url));
        return Ok(closed(bom, &made));
    }
    let found = layout(text)?;
    let edited = match &found.list {
        None => insert_list(text, &found, &format!("[{}]", quoted(url))),
        Some(list) => {
            let ours = list.entries.iter().filter(|entry| same_mirror(&entry.url, url)).count();
            if ours == 1 && list.entries.first().is_some_and(|entry| same_mirror(&entry.url, url)) {
                return Ok(bytes.to_vec());
            }
            let without = without_entry(text, url)?;
            insert_first(&without, url)?
        }
    };
    checked(text, &edited)?;
    Ok(closed(bom, &edited))
}

/// The file without `url` in `registry-mirrors`; other mirrors stay, in order. With `leave_empty_list` the key stays
/// as `[]` when nothing is left (a running dockerd keeps its mirrors when the key is deleted, and drops them for
/// `[]`); without it a list that is then empty goes, key and all. Doing it again changes nothing.
///
/// # Errors
/// A [`Refusal`] where the file is not one Sampan edits.
pub fn remove_mirror(bytes: &[u8], url: &str, leave_empty_list: bool) -> Result<Vec<u8>, Refusal> {
    let (bom, text) = open(bytes)?;
    if is_blank(text) {
        return Ok(bytes.to_vec());
    }
    let mut edited = without_entry(text, url)?;
    if !leave_empty_list {
        let found = layout(&edited)?;
        if let Some(list) = &found.list
            && list.entries.is_empty()
        {
            let gone = around(&found.properties, list.property, found.interior.clone());
            edited.replace_range(gone, "");
        }
    }
    checked(text, &edited)?;
    Ok(closed(bom, &edited))
}

/// The file with the key and an empty list, where it has no such key: what a running dockerd must read before the
/// key may be missing again. A file that has the key is returned as it is.
///
/// # Errors
/// A [`Refusal`] where the file is not one Sampan edits.
pub(crate) fn with_empty_list(bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    if has_list(bytes)? {
        return Ok(bytes.to_vec());
    }
    let any = "http://127.0.0.1:1";
    remove_mirror(&add_mirror(bytes, any)?, any, true)
}

/// Whether two mirror URLs are one to dockerd, which adds a slash at the end.
pub fn same_mirror(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Where the parts of the file are, in bytes of the text.
struct Layout {
    /// Between the braces.
    interior: Range<usize>,
    properties: Vec<Range<usize>>,
    /// Whether the first property has no space after its colon.
    compact: bool,
    list: Option<List>,
}

struct List {
    /// Its index in [`Layout::properties`].
    property: usize,
    /// Between the brackets.
    interior: Range<usize>,
    entries: Vec<Entry>,
}

struct Entry {
    at: Range<usize>,
    url: String,
}

/// Splits off the byte order mark and makes text of the rest.
fn open(bytes: &[u8]) -> Result<(bool, &str), Refusal> {
    if bytes.len() > BYTES_MAX {
        return Err(refuse(Reason::TooLarge, "", None, "Edit the file by hand."));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(refuse(Reason::Utf16, "", None, "Save the file as UTF-8 and try again."));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good =
            std::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default();
        refuse(Reason::NotUtf8, good, Some(good.len()), "Save the file as UTF-8 and try again.")
    })?;
    if text.contains('\0') {
        return Err(refuse(Reason::Utf16, text, text.find('\0'), "Save the file as UTF-8 and try again."));
    }
    Ok(text.strip_prefix(BOM).map_or((false, text), |rest| (true, rest)))
}

fn closed(bom: bool, text: &str) -> Vec<u8> {
    let mut bytes = if bom { BOM.as_bytes().to_vec() } else { Vec::new() };
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Blank by JSON's own notion of white space; other blanks are a syntax error to dockerd.
fn is_blank(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
}

fn layout(text: &str) -> Result<Layout, Refusal> {
    // serde_json is the judge of what JSON is (control characters, leading zeros, depth); the other parser, which is
    // laxer by design, only tells where things are.
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        return Err(not_json(text, &error));
    }
    let parsed = parse_to_ast(text, &CollectOptions::default(), &strict())
        .map_err(|error| syntax(text, error.range().start, &error.kind().to_string()))?;
    let Some(Value::Object(object)) = &parsed.value else {
        let start = text.len() - text.trim_start().len();
        let advice = "Wrap the settings in braces: { … }.";
        return Err(refuse(Reason::NotAnObject, text, Some(start), advice));
    };
    no_duplicates(text, object)?;
    let properties: Vec<_> = object.properties.iter().map(|p| p.range.start..p.range.end).collect();
    let compact = object.properties.first().is_some_and(|p| text[..p.value.start()].ends_with(':'));
    let mut list = None;
    for (index, property) in object.properties.iter().enumerate() {
        let name = property.name.as_str();
        if name != KEY && name.eq_ignore_ascii_case(KEY) {
            let advice = format!("Rename the key to \"{KEY}\", or remove it.");
            return Err(refuse(Reason::Misspelled(name.into()), text, Some(property.range.start), &advice));
        }
        if name == KEY {
            list = Some(list_of(text, index, &property.value)?);
        }
    }
    Ok(Layout { interior: object.range.start + 1..object.range.end - 1, properties, compact, list })
}

fn list_of(text: &str, property: usize, value: &Value<'_>) -> Result<List, Refusal> {
    let not_a_list = |at: usize| {
        let advice = format!("Make it a list of addresses, for example \"{KEY}\": [].");
        refuse(Reason::NotAListOfTexts, text, Some(at), &advice)
    };
    let array = value.as_array().ok_or_else(|| not_a_list(value.start()))?;
    let mut entries = Vec::with_capacity(array.elements.len());
    for element in &array.elements {
        let entry = element.as_string_lit().ok_or_else(|| not_a_list(element.start()))?;
        entries.push(Entry { at: entry.range.start..entry.range.end, url: entry.value.to_string() });
    }
    Ok(List { property, interior: array.range.start + 1..array.range.end - 1, entries })
}

/// Docker's parser takes the last of two equal keys, others the first: whoever wrote it meant something else.
fn no_duplicates(text: &str, object: &Object<'_>) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    for property in &object.properties {
        let name = property.name.as_str();
        if !seen.insert(name) {
            let advice = "Keep one of the two.";
            return Err(refuse(Reason::DuplicateKey(name.into()), text, Some(property.range.start), advice));
        }
        no_duplicates_in(text, &property.value)?;
    }
    Ok(())
}

fn no_duplicates_in(text: &str, value: &Value<'_>) -> Result<(), Refusal> {
    if let Some(object) = value.as_object() {
        return no_duplicates(text, object);
    }
    value.as_array().map_or(Ok(()), |array| array.elements.iter().try_for_each(|e| no_duplicates_in(text, e)))
}

fn insert_list(text: &str, found: &Layout, list: &str) -> String {
    let newline = newline_of(text);
    let colon = if found.compact { ":" } else { ": " };
    let property = format!("\"{KEY}\"{colon}{list}");
    let mut edited = text.to_owned();
    let (Some(first), Some(end)) = (found.properties.first(), found.properties.last()) else {
        edited.replace_range(found.interior.clone(), &format!("{newline}  {property}{newline}"));
        return edited;
    };
    let lead = &text[found.interior.start..first.start];
    let gap = match (lead.rsplit_once('\n'), found.properties.get(1)) {
        (Some((_, indent)), _) => format!("{newline}{indent}"),
        (None, Some(second)) => between(text, first.end, second.start).to_owned(),
        (None, None) => (if found.compact { "" } else { " " }).to_owned(),
    };
    edited.insert_str(end.end, &format!(",{gap}{property}"));
    edited
}

/// Puts `url` first. Written so that [`without_entry`] is its exact inverse.
fn insert_first(text: &str, url: &str) -> Result<String, Refusal> {
    let found = layout(text)?;
    let Some(list) = found.list else { return Ok(text.to_owned()) };
    let mut edited = text.to_owned();
    let Some(first) = list.entries.first() else {
        edited.insert_str(list.interior.start, &quoted(url));
        return Ok(edited);
    };
    let lead = &text[list.interior.start..first.at.start];
    let gap = match list.entries.get(1) {
        _ if lead.contains('\n') => lead,
        Some(second) => between(text, first.at.end, second.at.start),
        None if found.compact => "",
        None => " ",
    };
    edited.insert_str(first.at.start, &format!("{},{gap}", quoted(url)));
    Ok(edited)
}

/// The text without any entry for `url`; without a change where there is none.
fn without_entry(text: &str, url: &str) -> Result<String, Refusal> {
    let mut edited = text.to_owned();
    loop {
        let Some(list) = layout(&edited)?.list else { return Ok(edited) };
        let Some(index) = list.entries.iter().position(|entry| same_mirror(&entry.url, url)) else {
            return Ok(edited);
        };
        let places: Vec<_> = list.entries.iter().map(|entry| entry.at.clone()).collect();
        let only = &places[index];
        let gone = if places.len() == 1 && only.start == list.interior.start {
            only.clone()
        } else {
            around(&places, index, list.interior)
        };
        edited.replace_range(gone, "");
    }
}

/// What goes when the `index`th of `places` goes: it, one comma, and the space on that comma's side.
fn around(places: &[Range<usize>], index: usize, interior: Range<usize>) -> Range<usize> {
    match (places.get(index + 1), index.checked_sub(1)) {
        (Some(next), _) => places[index].start..next.start,
        (None, Some(previous)) => places[previous].end..places[index].end,
        (None, None) => interior,
    }
}

/// The space after the comma between two neighbours.
fn between(text: &str, end: usize, start: usize) -> &str {
    text[end..start].split_once(',').map_or("", |(_, gap)| gap)
}

/// The last line of defence: nothing but the list may differ.
fn checked(before: &str, after: &str) -> Result<(), Refusal> {
    let rest = |text: &str| -> Option<serde_json::Value> {
        let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
        value.as_object_mut()?.remove(KEY);
        Some(value)
    };
    match (rest(before), rest(after)) {
        (Some(before), Some(after)) if before == after => Ok(()),
        _ => Err(refuse(Reason::Unsure, "", None, "Edit the file by hand and tell Sampan's authors.")),
    }
}

fn quoted(url: &str) -> String {
    serde_json::Value::from(url).to_string()
}

fn newline_of(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Names the two mistakes people make (comments, trailing commas) by asking whether allowing them would do.
fn not_json(text: &str, error: &serde_json::Error) -> Refusal {
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let mut at = (line_start + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let parses = |options: &ParseOptions| {
        parse_to_ast(text, &CollectOptions::default(), options).is_ok_and(|p| p.value.is_some())
    };
    let commas = ParseOptions { allow_trailing_commas: true, ..strict() };
    if !parses(&strict()) {
        if parses(&commas) {
            return refuse(Reason::TrailingComma, text, Some(at), "Remove that comma.");
        }
        if parses(&ParseOptions { allow_comments: true, ..commas }) {
            let advice = "Remove the comments: Docker would not start with them.";
            return refuse(Reason::Comment, text, Some(at), advice);
        }
    }
    let words = error.to_string();
    syntax(text, at, words.split(" at line ").next().unwrap_or(&words))
}

fn syntax(text: &str, at: usize, detail: &str) -> Refusal {
    let advice = "Repair the file: Docker would not start with it either.";
    refuse(Reason::Syntax(detail.into()), text, Some(at), advice)
}

fn refuse(reason: Reason, text: &str, at: Option<usize>, advice: &str) -> Refusal {
    let before = at.and_then(|at| text.get(..at));
    let line = before.map(|text| text.matches('\n').count() + 1);
    let column = before.map(|text| text.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    Refusal { reason, line, column, advice: advice.into() }
}

/// Whether two lists of mirrors are one to dockerd.
pub(crate) fn same_list(one: &[String], other: &[String]) -> bool {
    let plain = |list: &[String]| {
        let mut plain: Vec<String> = Vec::new();
        for url in list.iter().map(|url| url.trim_end_matches('/').to_owned()) {
            if !plain.contains(&url) {
                plain.push(url);
            }
        }
        plain
    };
    plain(one) == plain(other)
}
