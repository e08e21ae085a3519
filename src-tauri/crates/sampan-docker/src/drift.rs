//! What has become of what Sampan changed: the difference between what it remembers and what is seen now. Pure.

use sampan_oci::{Algorithm, Hasher};

use crate::context::same_endpoint;
use crate::daemon_json::{self, same_mirror};
use crate::engine::{Engine, FileSeen, mirror_url};
use crate::journal::Change;
use crate::plan::Part;

/// How `engine` differs from what Sampan, which listens on `port`, set up there: one English sentence each, none where
/// everything is as it was left, or where nothing was ever set up. Other edits of the same files are nobody's business.
/// `None`: it cannot be told, because the engine does not answer.
pub fn drift(engine: &Engine, port: u16) -> Option<Vec<String>> {
    let mut differences = Differences { engine, port, sentences: Vec::new() };
    // What another Sampan set up for itself is not this one's to miss.
    for change in these(engine).into_iter().filter(|change| !engine.is_anothers(change.port, port)) {
        match &change.part {
            Part::DaemonJson => differences.of_config(change),
            Part::Hosts(_) => differences.of_hosts(change),
            // Another client's, and never at this engine's endpoint.
            Part::Client => {}
        }
    }
    let mut sentences = differences.sentences;
    let mut told = std::collections::BTreeSet::new();
    sentences.retain(|sentence| told.insert(sentence.clone()));
    engine.found.then_some(sentences)
}

/// Names the state in which `engine`'s files are now: another one as soon as one of the files that Sampan set up
/// changes, or Sampan's own `port`.
pub fn mark(engine: &Engine, port: u16) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&port.to_be_bytes());
    for change in these(engine) {
        let now = seen(engine, change).and_then(|file| file.bytes.as_deref());
        for part in [Some(change.target.as_os_str().as_encoded_bytes()), now] {
            // Lengths keep neighbours apart; absent differs from empty.
            hasher.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hasher.update(part.unwrap_or_default());
        }
    }
    hasher.finish().hex()
}

/// The port Sampan had when it set `engine` up, as it remembers; `None`: it did not.
pub fn set_up_for(engine: &Engine) -> Option<u16> {
    these(engine).last().map(|change| change.port)
}

/// What is remembered of this engine, each file once: two journals may know it, and the one that knows it as it is now
/// is the newer one.
fn these(engine: &Engine) -> Vec<&Change> {
    let mut these: Vec<&Change> = Vec::new();
    for change in engine.remembered.iter().map(|known| &known.change) {
        if !same_endpoint(&change.endpoint, &engine.endpoint) || change.after.is_none() {
            continue;
        }
        let as_left = || {
            let now = seen(engine, change).and_then(|file| file.bytes.as_deref());
            now.zip(change.after).is_some_and(|(now, after)| after.names(now))
        };
        match these.iter_mut().find(|other| other.target == change.target) {
            Some(other) if as_left() => *other = change,
            Some(_) => {}
            None => these.push(change),
        }
    }
    these
}

/// The file of the engine's that a change is about, wherever that is now.
fn seen<'a>(engine: &'a Engine, change: &Change) -> Option<&'a FileSeen> {
    match &change.part {
        Part::DaemonJson | Part::Client => engine.config.as_ref(),
        Part::Hosts(registry) => {
            engine.hosts.iter().find(|seen| seen.registry == *registry).map(|seen| &seen.file)
        }
    }
}

struct Differences<'a> {
    engine: &'a Engine,
    port: u16,
    sentences: Vec<String>,
}

impl Differences<'_> {
    fn of_config(&mut self, change: &Change) {
        let engine = self.engine;
        let url = |port| mirror_url(&engine.kind, port);
        let Some(file) = &engine.config else {
            self.of_list(&url(self.port));
            return;
        };
        let path = file.path.display();
        let elsewhere = file.target != change.target && file.path != change.target;
        if let Some(problem) = &file.problem {
            self.sentences.push(problem.clone());
            return;
        }
        let Some(bytes) = &file.bytes else {
            self.sentences.push(if elsewhere {
                format!("Docker now reads {path}, not {}.", change.target.display())
            } else {
                format!("{path} was removed.")
            });
            return;
        };
        let list = match daemon_json::mirrors(bytes) {
            Ok(list) => list,
            Err(refusal) => {
                self.sentences.push(format!("{path} was changed, and {refusal}."));
                return;
            }
        };
        let listed = [self.port, change.port]
            .into_iter()
            .find(|port| list.iter().any(|entry| same_mirror(entry, &url(*port))));
        let Some(port) = listed else {
            self.sentences.push(if elsewhere {
                let target = change.target.display();
                format!("Docker now reads {path}, not {target}, and Sampan is not in it.")
            } else {
                format!("Sampan was taken out of {path}.")
            });
            return;
        };
        self.of_port(port);
        match list.first() {
            Some(first) if !same_mirror(first, &url(port)) => {
                self.sentences.push(format!("{first} now comes before Sampan in {path}."));
            }
            Some(_) | None => self.of_list(&url(port)),
        }
    }

    /// What the engine itself lists, where its file is as it should be.
    fn of_list(&mut self, url: &str) {
        let mirrors = &self.engine.mirrors;
        match mirrors.first() {
            Some(first) if same_mirror(first, url) => {}
            Some(first) if mirrors.iter().any(|mirror| same_mirror(mirror, url)) => {
                self.sentences.push(format!("Docker asks {first} before Sampan."));
            }
            Some(_) | None => self.sentences.push(
                "Docker does not list Sampan among its mirrors: it has not read its configuration since, or was \
                 started with another one."
                    .into(),
            ),
        }
    }

    fn of_hosts(&mut self, change: &Change) {
        let found = self.engine.hosts.iter().find(|seen| seen.file.target == change.target);
        let path = found.map_or(&change.target, |seen| &seen.file.path).display();
        let Some(seen) = found.filter(|seen| seen.file.bytes.is_some() || seen.file.problem.is_some()) else {
            self.sentences.push(format!("{path} was removed."));
            return;
        };
        match (&seen.file.problem, seen.port()) {
            (Some(problem), _) => self.sentences.push(problem.clone()),
            (None, Some(port)) => self.of_port(port),
            (None, None) => self.sentences.push(format!("{path} was changed by somebody else.")),
        }
    }

    fn of_port(&mut self, port: u16) {
        if port != self.port {
            self.sentences
                .push(format!("Docker is set up for port {port}, and Sampan listens on port {}.", self.port));
        }
    }
}
