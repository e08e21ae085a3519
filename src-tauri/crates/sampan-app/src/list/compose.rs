//! Compose files: `services.*.image`, and what services that are built are built from (compose-spec). Pure.

use std::collections::{HashMap, HashSet};

use sampan_oci::Platform;

use super::dockerfile::Given;
use super::expand::{Escape, expand};
use super::tree::{self, Node, Value};
use super::{List, Wrong};

/// The most services of one file.
const SERVICES_MAX: usize = 1000;

/// A service that is built here: its Dockerfile says what is pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Build {
    pub(super) service: String,
    pub(super) line: usize,
    /// A folder, relative to the compose file's, or an address.
    pub(super) context: String,
    /// Relative to the context.
    pub(super) dockerfile: String,
    /// The Dockerfile itself, where it stands in the compose file.
    pub(super) inline: Option<String>,
    pub(super) given: Given,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) list: List,
    pub(super) builds: Vec<Build>,
}

/// What a compose file needs, with `vars` in place of its variables.
pub(super) fn images(text: &str, vars: &HashMap<String, String>) -> Result<Found, Wrong> {
    let root = tree::read(text)?;
    if !matches!(root.value, Value::Mapping(_)) {
        return Err(Wrong::at(root.line, "a compose file is a mapping with `services:`"));
    }
    let services = root.get("services").ok_or_else(|| {
        Wrong::at(root.line, "it has no `services:`: this is neither a compose file nor a Dockerfile")
    })?;
    let mut reader = Reader { vars, found: Found::default(), built: HashSet::new() };
    let entries = services.entries();
    if entries.is_empty() || entries.len() > SERVICES_MAX {
        return Err(Wrong::at(services.line, format!("`services:` has 1 to {SERVICES_MAX} services")));
    }
    if root.get("include").is_some() {
        reader.note("`include:` names other compose files, which are left out: give each by --file.".into());
    }
    // What one service builds, another may run: it is pulled from nowhere.
    for (_, service) in &entries {
        if service.get("build").is_some()
            && let Some(image) = service.get("image")
        {
            let name = reader.value(&image)?;
            reader.built.insert(name);
        }
    }
    for (name, service) in &entries {
        reader.service(name, service)?;
    }
    Ok(reader.found)
}

struct Reader<'v> {
    vars: &'v HashMap<String, String>,
    found: Found,
    /// Names of images that are built here.
    built: HashSet<String>,
}

impl Reader<'_> {
    fn note(&mut self, note: String) {
        if !self.found.list.notes.contains(&note) {
            self.found.list.notes.push(note);
        }
    }

    /// A scalar with its variables replaced; empty where there is none.
    fn value(&mut self, node: &Node) -> Result<String, Wrong> {
        let Value::Scalar(text) = &node.value else {
            return Err(Wrong::at(node.line, "text is expected here, not a list or a mapping"));
        };
        let known = |name: &str| self.vars.get(name).cloned();
        let expanded =
            expand(text, Escape::Dollar, &known).map_err(|message| Wrong::at(node.line, message))?;
        for name in expanded.unset {
            self.note(format!(
                "Line {}: the variable {name} is not set; nothing stands in its place.",
                node.line
            ));
        }
        Ok(expanded.text)
    }

    fn text_under(&mut self, node: &Node, key: &str) -> Result<Option<String>, Wrong> {
        match node.get(key) {
            Some(value) => self.value(&value).map(|text| Some(text).filter(|text| !text.is_empty())),
            None => Ok(None),
        }
    }

    fn service(&mut self, name: &str, service: &Node) -> Result<(), Wrong> {
        if !matches!(service.value, Value::Mapping(_)) {
            return Err(Wrong::at(service.line, format!("service {name} is no mapping")));
        }
        let platform = match service.get("platform") {
            Some(node) => {
                let text = self.value(&node)?;
                let read = |text: String| text.parse::<Platform>();
                let wrong = |error| Wrong::at(node.line, format!("{text:?}: {error}"));
                (!text.is_empty()).then(|| read(text.clone()).map_err(wrong)).transpose()?
            }
            None => None,
        };
        if let Some(build) = service.get("build") {
            return self.build(name, &build);
        }
        if let Some(image) = service.get("image") {
            let text = self.value(&image)?;
            if self.built.contains(&text) {
                return Ok(());
            }
            return self
                .found
                .list
                .add(&text, platform)
                .map_err(|why| Wrong::at(image.line, format!("service {name}: {why}")));
        }
        if service.get("extends").is_some() {
            self.note(format!(
                "Service {name} extends another one, which is left out: give its file by --file too."
            ));
            return Ok(());
        }
        // `provider:` and the like: nothing is pulled for it.
        self.note(format!("Service {name} names no image, and is not built."));
        Ok(())
    }

    fn build(&mut self, service: &str, node: &Node) -> Result<(), Wrong> {
        let mut build = Build {
            service: service.to_owned(),
            line: node.line,
            context: ".".into(),
            dockerfile: "Dockerfile".into(),
            ..Build::default()
        };
        if let Value::Scalar(_) = &node.value {
            build.context = self.value(node)?;
        } else {
            if let Some(context) = self.text_under(node, "context")? {
                build.context = context;
            }
            if let Some(dockerfile) = self.text_under(node, "dockerfile")? {
                build.dockerfile = dockerfile;
            }
            build.given.target = self.text_under(node, "target")?;
            if let Some(inline) = node.get("dockerfile_inline") {
                // Dockerfiles have variables of their own: those of compose are written with one dollar sign here.
                build.inline = Some(self.inline(&inline)?);
                build.line = inline.line;
            }
            if let Some(args) = node.get("args") {
                build.given.args = self.args(&args)?;
            }
            build.given.contexts = self.contexts(node)?;
        }
        self.found.builds.push(build);
        Ok(())
    }

    fn inline(&mut self, node: &Node) -> Result<String, Wrong> {
        let Value::Scalar(text) = &node.value else {
            return Err(Wrong::at(node.line, "a Dockerfile is text"));
        };
        let lines = text.lines().map(|line| {
            let known = |name: &str| self.vars.get(name).cloned();
            expand(line, Escape::Dollar, &known).map(|expanded| expanded.text)
        });
        let lines: Result<Vec<_>, _> = lines.collect();
        Ok(lines.map_err(|message| Wrong::at(node.line, message))?.join("\n"))
    }

    /// `args:` as a mapping, or as a list of `NAME=value`; one without a value takes the environment's.
    fn args(&mut self, node: &Node) -> Result<HashMap<String, String>, Wrong> {
        let mut args = HashMap::new();
        for (name, value) in node.entries() {
            let text = self.value(&value)?;
            let text = if value.text().is_none() { self.vars.get(&name).cloned() } else { Some(text) };
            args.extend(text.map(|text| (name, text)));
        }
        for part in node.parts() {
            let text = self.value(part)?;
            match text.split_once('=') {
                Some((name, value)) => drop(args.insert(name.to_owned(), value.to_owned())),
                None => args.extend(self.vars.get(&text).map(|value| (text.clone(), value.clone()))),
            }
        }
        Ok(args)
    }

    /// Takes the images among `additional_contexts`; returns the names of all of them.
    fn contexts(&mut self, build: &Node) -> Result<HashSet<String>, Wrong> {
        let mut names = HashSet::new();
        let Some(node) = build.get("additional_contexts") else { return Ok(names) };
        let mut places = Vec::new();
        for (name, value) in node.entries() {
            places.push((value.line, name, self.value(&value)?));
        }
        for part in node.parts() {
            let text = self.value(part)?;
            let (name, place) = text.split_once('=').unwrap_or((text.as_str(), ""));
            places.push((part.line, name.to_owned(), place.to_owned()));
        }
        for (line, name, place) in places {
            if let Some(image) = place.strip_prefix("docker-image://") {
                self.found.list.add(image, None).map_err(|why| Wrong::at(line, why))?;
            }
            names.insert(name);
        }
        Ok(names)
    }
}
