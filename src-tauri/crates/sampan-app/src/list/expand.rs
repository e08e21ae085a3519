//! `$NAME`, `${NAME}` and what may stand behind a name, in compose files and Dockerfiles. Pure.

/// How a dollar sign is written that means itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `$$` (compose-spec, "Interpolation").
    Dollar,
    /// `\$`, or after another character that the file chose (Dockerfile reference, "escape").
    Before(char),
}

/// A name of more is not one, and a few bytes must not become gigabytes by naming each other.
const LENGTH_MAX: usize = 4096;
/// How deep defaults may be in defaults.
const DEPTH_MAX: usize = 16;

/// A text with its variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// The variables that had no value, and no default.
    pub(super) unset: Vec<String>,
}

/// Replaces the variables in `text` by what `value` says.
/// # Errors
/// A sentence.
pub(super) fn expand(
    text: &str,
    escape: Escape,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, String> {
    let mut expanded = Expanded::default();
    part(text, escape, value, &mut expanded, 0)?;
    Ok(expanded)
}

fn part(
    text: &str,
    escape: Escape,
    value: &dyn Fn(&str) -> Option<String>,
    out: &mut Expanded,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err("defaults are nested too deeply".into());
    }
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if out.text.len() > LENGTH_MAX {
            return Err(format!("with its variables it is longer than {LENGTH_MAX} bytes"));
        }
        let after = &rest[letter.len_utf8()..];
        rest = match letter {
            '$' if escape == Escape::Dollar && after.starts_with('$') => {
                out.text.push('$');
                &after[1..]
            }
            '$' if after.starts_with('{') => {
                let end = closing(after).ok_or_else(|| format!("{rest:?} has no closing brace"))?;
                braced(&after[1..end], escape, value, out, depth)?;
                &after[end + 1..]
            }
            '$' => {
                let name = name_of(after);
                if name.is_empty() {
                    return Err(format!(
                        "{rest:?} names no variable; write a dollar sign as {}",
                        dollar(escape)
                    ));
                }
                put(name, value(name), out);
                &after[name.len()..]
            }
            letter if escape == Escape::Before(letter) => match after.chars().next() {
                Some(next) => {
                    out.text.push(next);
                    &after[next.len_utf8()..]
                }
                None => after,
            },
            letter => {
                out.text.push(letter);
                after
            }
        };
    }
    Ok(())
}

/// What stands between the braces.
fn braced(
    inside: &str,
    escape: Escape,
    value: &dyn Fn(&str) -> Option<String>,
    out: &mut Expanded,
    depth: usize,
) -> Result<(), String> {
    let name = name_of(inside);
    if name.is_empty() {
        return Err(format!("${{{inside}}} names no variable"));
    }
    let behind = &inside[name.len()..];
    let (colon, behind) = match behind.strip_prefix(':') {
        Some(behind) => (true, behind),
        None => (false, behind),
    };
    let found = value(name);
    let is_there = found.as_ref().is_some_and(|found| !(colon && found.is_empty()));
    let mut letters = behind.chars();
    match letters.next() {
        None if !colon => put(name, found, out),
        Some('-' | '?') if is_there => put(name, found, out),
        Some('+') if !is_there => {}
        Some('-' | '+') => part(letters.as_str(), escape, value, out, depth + 1)?,
        Some('?') => {
            let why = letters.as_str();
            let why = if why.is_empty() { "it is needed" } else { why };
            return Err(format!("the variable {name} is not set: {why}"));
        }
        _ => return Err(format!("${{{inside}}} is not understood: write ${{{name}:-default}}")),
    }
    Ok(())
}

fn put(name: &str, value: Option<String>, out: &mut Expanded) {
    match value {
        Some(value) => out.text.push_str(&value),
        None => out.unset.push(name.to_owned()),
    }
}

fn dollar(escape: Escape) -> String {
    match escape {
        Escape::Dollar => "$$".into(),
        Escape::Before(letter) => format!("{letter}$"),
    }
}

fn name_of(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

/// Where the brace that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            // A brace of its own, or one of `${`: both are closed.
            '{' => open += 1,
            '}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}
