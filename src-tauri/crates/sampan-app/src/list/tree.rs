//! YAML as a tree that knows its lines. Anchors are followed, merge keys too; nothing is copied for either, so that a
//! small file stays small.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use yaml_rust2::parser::{Event, Parser};

use super::Wrong;

/// How deep lists and mappings may be in each other.
const DEPTH_MAX: usize = 64;
/// The most nodes.
const NODES_MAX: usize = 200_000;

/// A value, and the line it begins at.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Text as written, whatever it may mean.
    Scalar(String),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

/// A list or mapping that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    mapping: bool,
    parts: Vec<Rc<Node>>,
}

/// Reads the first document.
pub(super) fn read(text: &str) -> Result<Rc<Node>, Wrong> {
    let mut parser = Parser::new_from_str(text);
    let mut anchors: HashMap<usize, Rc<Node>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    // More events than letters would mean that the parser stands still.
    for _ in 0..NODES_MAX.min(64 + 4 * text.len()) {
        let (event, mark) = parser.next_token().map_err(|error| {
            Wrong::at(error.marker().line(), format!("this is not YAML: {}", error.info()))
        })?;
        let line = mark.line();
        let done = match event {
            Event::Scalar(text, _, anchor, _) => (Node { line, value: Value::Scalar(text) }, anchor),
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() == DEPTH_MAX {
                    return Err(Wrong::at(line, format!("it is nested more than {DEPTH_MAX} deep")));
                }
                let mapping = matches!(event, Event::MappingStart(..));
                open.push(Open { line, anchor, mapping, parts: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(closed) = open.pop() else { continue };
                let value = if closed.mapping { pairs(closed.parts) } else { Value::Sequence(closed.parts) };
                (Node { line: closed.line, value }, closed.anchor)
            }
            Event::Alias(id) => {
                let Some(known) = anchors.get(&id).cloned() else {
                    return Err(Wrong::at(line, "this alias stands inside what it names"));
                };
                match open.last_mut() {
                    Some(parent) => parent.parts.push(known),
                    None => return Ok(known),
                }
                continue;
            }
            Event::DocumentEnd | Event::StreamEnd => return Err(Wrong::at(1, "the file is empty")),
            Event::Nothing | Event::StreamStart | Event::DocumentStart => continue,
        };
        let (node, anchor) = done;
        let node = Rc::new(node);
        if anchor > 0 {
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            Some(parent) => parent.parts.push(node),
            None => return Ok(node),
        }
    }
    Err(Wrong::at(1, "it has more parts than any such file"))
}

fn pairs(parts: Vec<Rc<Node>>) -> Value {
    let mut pairs = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((key, value));
    }
    Value::Mapping(pairs)
}

impl Node {
    /// The text of a scalar; an empty one, `~` and `null` are none.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) if !matches!(text.as_str(), "" | "~" | "null") => Some(text),
            Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => None,
        }
    }

    /// What stands under a key, also where it was merged in.
    pub(super) fn get(&self, wanted: &str) -> Option<Rc<Node>> {
        self.entries().into_iter().find(|(key, _)| key == wanted).map(|(_, value)| value)
    }

    /// The pairs of a mapping with text keys, its own first, then those merged in by `<<` that it does not have; empty
    /// where it is no mapping.
    pub(super) fn entries(&self) -> Vec<(String, Rc<Node>)> {
        let mut found: Vec<(String, Rc<Node>)> = Vec::new();
        let mut keys: HashSet<String> = HashSet::new();
        let mut seen: HashSet<*const Self> = HashSet::new();
        let mut merged: Vec<Rc<Node>> = Vec::new();
        self.take(&mut found, &mut keys, &mut merged);
        while let Some(next) = merged.pop() {
            if seen.insert(Rc::as_ptr(&next)) {
                next.take(&mut found, &mut keys, &mut merged);
            }
        }
        found
    }

    fn take(
        &self,
        found: &mut Vec<(String, Rc<Node>)>,
        keys: &mut HashSet<String>,
        merged: &mut Vec<Rc<Node>>,
    ) {
        let pairs = match &self.value {
            Value::Mapping(pairs) => pairs,
            Value::Sequence(parts) => {
                // `<<: [*a, *b]`: the first that has a key gives it.
                merged.extend(parts.iter().rev().cloned());
                return;
            }
            Value::Scalar(_) => return,
        };
        for (key, value) in pairs {
            let Value::Scalar(key) = &key.value else { continue };
            if key == "<<" {
                merged.push(value.clone());
            } else if keys.insert(key.clone()) {
                found.push((key.clone(), value.clone()));
            }
        }
    }

    /// The parts of a list; empty where it is none.
    pub(super) fn parts(&self) -> &[Rc<Node>] {
        match &self.value {
            Value::Sequence(parts) => parts,
            Value::Scalar(_) | Value::Mapping(_) => &[],
        }
    }
}
