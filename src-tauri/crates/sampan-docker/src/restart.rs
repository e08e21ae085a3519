//! A restart that a person asks for: what it stops, said before anybody consents. Pure.

use sampan_oci::{Algorithm, Hasher};
use serde_json::Value;

use crate::context;
use crate::engine::{Engine, Kind};
use crate::manual;
use crate::places::System;
use crate::plan::{ApplyMethod, BUILDS_LATER, Part, Plan, PlanError};
use crate::service;
use crate::stops::Stops;

impl Plan {
    /// The same plan, carried out with a restart of the engine instead of a reload: for a person who asks for that. It
    /// names the containers that stop. A plan that changes nothing restarts nothing. `engine` is the one it was made from.
    ///
    /// # Errors
    /// [`PlanError::NotRestartable`] where nothing can restart the engine, with the commands for whoever can;
    /// [`PlanError::NotTheSystems`] where that needs an administrator and the engine is not the system's.
    pub fn restarting(mut self, engine: &Engine) -> Result<Self, PlanError> {
        if self.is_nothing() || self.apply == ApplyMethod::Restart {
            return Ok(self);
        }
        if let Err(reason) = service::commands(engine, System::HERE) {
            let sudo = if engine.may_signal { "" } else { "sudo " };
            return Err(PlanError::NotRestartable { reason, commands: service::by_hand(engine, sudo) });
        }
        self.apply = ApplyMethod::Restart;
        // A daemon that starts reads the file as it is: it need not let go of anything first.
        for file in self.files.iter_mut().filter(|file| file.part == Part::DaemonJson) {
            file.interim = None;
        }
        self.stops = stopped(engine, &self);
        self.verb = self.verb.restarting(Stops::of(&self.stops));
        self.needs_elevation |= !engine.may_signal;
        self.notes.retain(|note| {
            !note.contains("nothing restarts") && !note.contains("no container stops") && note != BUILDS_LATER
        });
        self.notes.extend(notes(engine, &self));
        self.commands = manual::commands(engine, &self.files, self.apply, self.needs_elevation);
        let systems =
            context::is_the_systems(&engine.endpoint) && matches!(engine.kind, Kind::Linux | Kind::Snap);
        if self.needs_elevation && !systems {
            let commands = self.commands;
            return Err(PlanError::NotTheSystems { endpoint: engine.endpoint.clone(), commands });
        }
        self.id = id(&self);
        Ok(self)
    }
}

impl Plan {
    /// Whether carrying this plan out, made after a password was asked for, stops no other containers than those that
    /// `agreed` marks: those, or none. `Err`: what it would stop.
    ///
    /// # Errors
    /// The containers that it would stop, where they are others: a person has to be asked again.
    pub fn stops_only(&self, agreed: Stops) -> Result<(), Vec<String>> {
        if self.stops.is_empty() || Stops::of(&self.stops) == agreed {
            Ok(())
        } else {
            Err(self.stops.clone())
        }
    }
}

/// The containers that a restart stops: none where live-restore holds before and after it.
fn stopped(engine: &Engine, plan: &Plan) -> Vec<String> {
    let stays = engine.live_restore && !engine.swarm_active && keeps_live_restore(engine, plan);
    if stays { Vec::new() } else { engine.containers.clone() }
}

/// Whether the daemon that starts has live-restore too: from its file as it will be, or from its command line. What was
/// only ever reloaded into the running daemon is gone with it.
fn keeps_live_restore(engine: &Engine, plan: &Plan) -> bool {
    let file = match plan.files.iter().find(|file| file.part == Part::DaemonJson) {
        Some(change) => change.after.as_deref(),
        None => engine.config.as_ref().and_then(|file| file.bytes.as_deref()),
    };
    let in_file = file
        .and_then(|bytes| {
            serde_json::from_slice::<Value>(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).ok()
        })
        .and_then(|config| config.get("live-restore")?.as_bool());
    let flagged =
        engine.command_line.iter().any(|word| word == "--live-restore" || word == "--live-restore=true");
    in_file.unwrap_or(flagged)
}

fn notes(engine: &Engine, plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    if engine.containers.is_empty() {
        notes.push("Docker restarts. No container runs now.".into());
    } else if plan.stops.is_empty() {
        notes.push("Docker restarts. live-restore is on: containers go on running meanwhile.".into());
    } else {
        notes.push(format!(
            "Docker restarts, which stops {}. Only containers with a restart policy start again.",
            plan.stops.join(", ")
        ));
        if engine.live_restore && !engine.swarm_active {
            notes.push("live-restore is on now and is not in the file Docker will start with.".into());
        }
    }
    if engine.swarm_active {
        notes.push(
            "This Docker is part of a swarm: while it is away its tasks may start on other machines.".into(),
        );
    }
    notes.push("If it is not back within 30 s, the file is put back and Docker is started as it was.".into());
    notes
}

fn id(plan: &Plan) -> String {
    // The end of the name says what was chosen.
    let choice = plan.id.find('+').map_or("", |end| &plan.id[end..]);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for text in std::iter::once(&plan.id).chain(&plan.stops) {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.update(b"restart");
    hasher.finish().hex() + choice
}
