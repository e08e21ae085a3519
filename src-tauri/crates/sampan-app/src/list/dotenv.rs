//! The file `.env` beside a compose file (docker-docs, "Set, use, and manage variables", "Syntax"). Pure.

use std::collections::HashMap;

use super::Wrong;
use super::expand::{Escape, expand};

/// Reads what it says; values may use what was said before, and `vars`, which come first.
pub(super) fn read(text: &str, vars: &HashMap<String, String>) -> Result<HashMap<String, String>, Wrong> {
    let mut said: HashMap<String, String> = HashMap::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let end = rest.find('\n').unwrap_or(rest.len());
        let this = rest[..end].trim();
        if this.is_empty() || this.starts_with('#') {
            rest = rest.get(end + 1..).unwrap_or_default();
            line += 1;
            continue;
        }
        let here = rest[..end].find(['=', ':']);
        let Some(equals) = here else {
            // `export NAME` and a bare name take the environment's value, which comes first anyway.
            rest = rest.get(end + 1..).unwrap_or_default();
            line += 1;
            continue;
        };
        let name = rest[..equals].trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(Wrong::at(line, format!("{name:?} is not the name of a variable: write NAME=value")));
        }
        let value = rest[equals + 1..].trim_start_matches([' ', '\t']);
        let (raw, behind, quote) = cut(value).ok_or_else(|| Wrong::at(line, "a quote is not closed"))?;
        let known = |name: &str| vars.get(name).or_else(|| said.get(name)).cloned();
        let value = if quote == Some('\'') {
            raw.to_owned()
        } else {
            let unescaped = if quote.is_some() { unescape(raw) } else { raw.to_owned() };
            expand(&unescaped, Escape::Dollar, &known).map_err(|message| Wrong::at(line, message))?.text
        };
        said.insert(name.to_owned(), value);
        let taken = rest.len() - behind.len();
        line += rest[..taken].matches('\n').count();
        // What stands behind a closing quote is a comment.
        let end = behind.find('\n').map_or(behind.len(), |end| end + 1);
        line += behind[..end].matches('\n').count();
        rest = &behind[end..];
    }
    Ok(said)
}

/// A value, what follows it, and its quote. `None`: the quote is not closed.
fn cut(text: &str) -> Option<(&str, &str, Option<char>)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote {
        let mut escaped = false;
        for (at, letter) in text.char_indices().skip(1) {
            if letter == quote && !escaped {
                return Some((&text[1..at], &text[at + 1..], Some(quote)));
            }
            escaped = letter == '\\' && !escaped && quote == '"';
        }
        return None;
    }
    let end = text.find('\n').unwrap_or(text.len());
    let line = &text[..end];
    let comment = line.match_indices('#').map(|(at, _)| at);
    // A comment begins after white space; `a#b` is a value.
    let mut starts = comment.filter(|at| *at == 0 || line[..*at].ends_with([' ', '\t']));
    let value = starts.next().map_or(line, |at| &line[..at]);
    Some((value.trim_end(), &text[end..], None))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(other @ ('"' | '\\' | '\'')) => out.push(other),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}
