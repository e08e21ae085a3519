//! Dockerfiles: what a build pulls (Dockerfile reference). Pure.

use std::collections::{HashMap, HashSet};

use sampan_oci::Platform;

use super::expand::{Escape, expand};
use super::{List, Wrong};

/// What a build is given from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) args: HashMap<String, String>,
    /// Only the stages that lead to this one; `None`: all.
    pub(super) target: Option<String>,
    /// Names that mean another build context, not an image.
    pub(super) contexts: HashSet<String>,
}

/// One instruction, its lines joined.
#[derive(Debug)]
struct Instruction {
    line: usize,
    word: String,
    rest: String,
}

/// A stage of the build.
#[derive(Debug, Default)]
struct Stage {
    name: Option<String>,
    /// What it needs, itself included.
    needs: Vec<Need>,
}

#[derive(Debug)]
enum Need {
    Stage(usize),
    Image { line: usize, name: String, platform: Option<Platform> },
}

/// What a Dockerfile needs: the base of every stage that is no stage itself, what is copied or mounted from elsewhere, and
/// the image that `# syntax=` names.
pub(super) fn images(text: &str, given: &Given) -> Result<List, Wrong> {
    let (directives, escape) = directives(text);
    let mut list = List::default();
    if let Some((line, syntax)) = directives {
        list.add(&syntax, Some(Platform::of_this_machine())).map_err(|why| Wrong::at(line, why))?;
    }
    let mut values: HashMap<String, String> = automatic();
    let mut stages: Vec<Stage> = Vec::new();
    for instruction in instructions(text, escape)? {
        let Instruction { line, word, rest } = &instruction;
        match word.as_str() {
            "ARG" if stages.is_empty() => {
                declare(rest, escape, &given.args, &mut values).map_err(|why| Wrong::at(*line, why))?;
            }
            "FROM" => {
                let stage =
                    from(rest, escape, &values, &stages, given).map_err(|why| Wrong::at(*line, why))?;
                stages.push(with_line(stage, *line));
            }
            "COPY" | "RUN" | "ONBUILD" if !stages.is_empty() => {
                let rest = match word.as_str() {
                    "ONBUILD" => {
                        rest.split_once(char::is_whitespace).map_or("", |(_, later)| later.trim_start())
                    }
                    _ => rest,
                };
                for name in elsewhere(rest).into_iter().filter(|name| !given.contexts.contains(name)) {
                    let need = need(&name, *line, &stages).map_err(|why| Wrong::at(*line, why))?;
                    if let Some(stage) = stages.last_mut() {
                        stage.needs.extend(need);
                    }
                }
            }
            _ if stages.is_empty() => {
                return Err(Wrong::at(
                    *line,
                    format!("`{word}` stands before any FROM: this is no Dockerfile"),
                ));
            }
            _ => {}
        }
    }
    if stages.is_empty() {
        return Err(Wrong::at(1, "it has no FROM: this is no Dockerfile"));
    }
    for stage in wanted(&stages, given.target.as_deref())? {
        for need in &stages[stage].needs {
            if let Need::Image { line, name, platform } = need {
                list.add(name, platform.clone()).map_err(|why| Wrong::at(*line, why))?;
            }
        }
    }
    Ok(list)
}

fn with_line(mut stage: Stage, at: usize) -> Stage {
    for need in &mut stage.needs {
        if let Need::Image { line, .. } = need {
            *line = at;
        }
    }
    stage
}

/// The stages that are built, in their order.
fn wanted(stages: &[Stage], target: Option<&str>) -> Result<Vec<usize>, Wrong> {
    let Some(target) = target else { return Ok((0..stages.len()).collect()) };
    let unknown = || Wrong::at(1, format!("it has no stage {target:?}, which is the target of the build"));
    let first = stage_of(target, stages).ok_or_else(unknown)?;
    let mut reached = vec![false; stages.len()];
    let mut open = vec![first];
    while let Some(stage) = open.pop() {
        if std::mem::replace(&mut reached[stage], true) {
            continue;
        }
        open.extend(stages[stage].needs.iter().filter_map(|need| match need {
            Need::Stage(other) => Some(*other),
            Need::Image { .. } => None,
        }));
    }
    Ok((0..stages.len()).filter(|stage| reached[*stage]).collect())
}

/// The stage of that name or number.
fn stage_of(name: &str, stages: &[Stage]) -> Option<usize> {
    let named = |stage: &Stage| stage.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name));
    stages.iter().rposition(named).or_else(|| name.parse().ok().filter(|number| *number < stages.len()))
}

/// The directives before the first line that is none: the image of `# syntax=`, with its line, and the escape character.
fn directives(text: &str) -> (Option<(usize, String)>, char) {
    let (mut syntax, mut escape) = (None, '\\');
    for (at, line) in text.lines().enumerate() {
        if at == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|said| said.split_once('=')) else {
            break;
        };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "syntax" if !value.is_empty() => syntax = Some((at + 1, value.to_owned())),
            "escape" if value == "`" => escape = '`',
            "escape" | "check" | "syntax" => {}
            _ => break,
        }
    }
    (syntax, escape)
}

/// The instructions, with comments, continued lines and here-documents taken care of.
fn instructions(text: &str, escape: char) -> Result<Vec<Instruction>, Wrong> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        let first = first.trim();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let mut whole = String::new();
        let mut part = first;
        loop {
            let Some(head) = part.strip_suffix(escape) else {
                whole.push_str(part);
                break;
            };
            whole.push_str(head);
            // Comments and empty lines in the middle are passed over.
            let goes_on = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
            match lines.by_ref().map(|(_, line)| line).find(|line| goes_on(line)) {
                Some(next) => part = next.trim_end(),
                None => break,
            }
        }
        let (word, rest) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let word = word.to_ascii_uppercase();
        if matches!(word.as_str(), "RUN" | "COPY" | "ADD" | "ONBUILD") {
            for end in here_documents(rest) {
                let closed = lines.by_ref().any(|(_, line)| {
                    let line = if end.strips_tabs { line.trim_start_matches('\t') } else { line };
                    line == end.word
                });
                if !closed {
                    return Err(Wrong::at(at + 1, format!("<<{} is not closed", end.word)));
                }
            }
        }
        found.push(Instruction { line: at + 1, word, rest: rest.trim().to_owned() });
    }
    Ok(found)
}

/// The end of a here-document.
struct End {
    word: String,
    strips_tabs: bool,
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"`, in their order.
fn here_documents(rest: &str) -> Vec<End> {
    let mut ends = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.find("<<") {
        let alone = !rest[..at].ends_with('<') && !rest[at + 2..].starts_with('<');
        rest = &rest[at + 2..];
        let (strips_tabs, word) = match rest.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, rest),
        };
        let word = word.trim_start_matches(['"', '\'']);
        let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(word.len());
        let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if alone && is_word {
            ends.push(End { word: word[..end].to_owned(), strips_tabs });
        }
    }
    ends
}

/// What every build knows of itself. What is built for is what is fetched for: left to whoever asks.
fn automatic() -> HashMap<String, String> {
    let own = Platform::of_this_machine();
    let mut values = HashMap::new();
    for side in ["BUILD", "TARGET"] {
        values.insert(format!("{side}PLATFORM"), own.to_string());
        values.insert(format!("{side}OS"), own.os.clone());
        values.insert(format!("{side}ARCH"), own.architecture.clone());
        values.insert(format!("{side}VARIANT"), own.variant.clone().unwrap_or_default());
    }
    values
}

/// `ARG` before the first `FROM`: names with defaults, unless the build was given others.
fn declare(
    rest: &str,
    escape: char,
    args: &HashMap<String, String>,
    values: &mut HashMap<String, String>,
) -> Result<(), String> {
    for word in words(rest)? {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default)),
            None => (word.as_str(), None),
        };
        let value = match (args.get(name), default) {
            (Some(given), _) => given.clone(),
            (None, Some(default)) => {
                let known = |name: &str| values.get(name).cloned();
                expand(default, Escape::Before(escape), &known)?.text
            }
            (None, None) => continue,
        };
        values.insert(name.to_owned(), value);
    }
    Ok(())
}

/// Words, with their quotes taken off.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => (quote, any) = (Some(letter), true),
            (None, letter) if letter.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, letter) => word.push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// `FROM [--platform=…] image [AS name]`.
fn from(
    rest: &str,
    escape: char,
    values: &HashMap<String, String>,
    stages: &[Stage],
    given: &Given,
) -> Result<Stage, String> {
    let known = |name: &str| values.get(name).cloned();
    let value = |text: &str| expand(text, Escape::Before(escape), &known);
    let all = words(rest)?;
    let (flags, words): (Vec<String>, Vec<String>) = all.into_iter().partition(|word| word.starts_with("--"));
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, by, name] if by.eq_ignore_ascii_case("as") => (image, Some(name.clone())),
        _ => return Err("FROM is written `FROM image` or `FROM image AS name`".into()),
    };
    let mut platform = None;
    for flag in flags {
        let Some(text) = flag.strip_prefix("--platform=") else {
            return Err(format!("FROM has no flag {flag}"));
        };
        // What is built for is what is fetched for.
        if text.contains("TARGETPLATFORM") {
            continue;
        }
        let text = value(text)?.text;
        if !text.is_empty() {
            platform = Some(text.parse().map_err(|error| format!("{text:?}: {error}"))?);
        }
    }
    let expanded = value(image)?;
    if expanded.text.is_empty() || !expanded.unset.is_empty() {
        return Err(format!(
            "`FROM {image}` names no image: {} has no value. Give it one by `ARG {}=…` before the first FROM.",
            expanded.unset.join(" and "),
            expanded.unset.first().map_or("NAME", String::as_str)
        ));
    }
    let image = expanded.text;
    let needs = match stage_by_name(&image, stages) {
        Some(stage) => vec![Need::Stage(stage)],
        None if image.eq_ignore_ascii_case("scratch") || given.contexts.contains(&image) => Vec::new(),
        None => vec![Need::Image { line: 0, name: image, platform }],
    };
    Ok(Stage { name, needs })
}

fn stage_by_name(name: &str, stages: &[Stage]) -> Option<usize> {
    stages
        .iter()
        .rposition(|stage| stage.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name)))
}

/// What the flags `--from=` and `--mount=…,from=` name; behind the flags stands what is nobody's business here.
fn elsewhere(rest: &str) -> Vec<String> {
    let mut found = Vec::new();
    for flag in rest.split_whitespace().take_while(|word| word.starts_with("--")) {
        if let Some(from) = flag.strip_prefix("--from=") {
            found.push(from.trim_matches(['"', '\'']).to_owned());
        } else if let Some(mount) = flag.strip_prefix("--mount=") {
            found.extend(mount.split(',').filter_map(|part| part.strip_prefix("from=")).map(str::to_owned));
        }
    }
    found
}

/// What that is; `None`: nothing that is pulled.
fn need(name: &str, line: usize, stages: &[Stage]) -> Result<Option<Need>, String> {
    if name.is_empty() || name.contains('$') {
        return Err(format!("{name:?}: a stage or an image is named here without variables"));
    }
    if let Some(stage) = stage_of(name, stages) {
        return Ok(Some(Need::Stage(stage)));
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("there is no stage {name}"));
    }
    Ok(Some(Need::Image { line, name: name.to_owned(), platform: None }))
}
