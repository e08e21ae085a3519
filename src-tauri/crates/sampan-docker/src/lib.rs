//! Container engines and their configuration: detect, plan, apply, prove, undo.
//!
//! Owns the reading and the editing of Docker's configuration files. Never touches the mirror, never writes a file
//! that was not in a plan a person consented to, never restarts an engine where a reload is enough.
//! Start reading at [`detect()`], then [`plan()`] (pure), then [`apply()`]. The edit itself is [`daemon_json`].

mod apply;
mod builder;
mod carry;
mod choice;
mod client;
mod clients;
pub mod context;
pub mod daemon_json;
mod detect;
mod diff;
mod drift;
mod elevation;
mod engine;
mod environment;
mod files;
mod finish;
mod hosts_toml;
mod journal;
mod manual;
mod method;
mod neighbours;
mod places;
mod plan;
mod plan_error;
mod probe;
mod process;
mod recover;
mod repair;
mod restart;
mod service;
mod stops;
mod survey;
mod together;
mod trust;
mod undo;

pub use apply::{Applied, ApplyError, apply, apply_with};
pub use builder::{
    Builder, Folder as BuildxFolder, Mirror as BuilderMirror, builders, mirrors_of as buildkit_mirrors,
};
pub use choice::{Choice, InvalidSet, KNOWN, KnownSet, RegistryState, by_name, registries};
pub use clients::{
    ClientId, ClientSeen, Places, UnknownClient, apply_client, client_of_plan, look_for, plan_client,
    recover_client,
};
pub use detect::detect;
pub use diff::{DiffKind, DiffLine};
pub use drift::{drift, mark, set_up_for};
#[cfg(target_os = "macos")]
pub use elevation::OsaScript;
#[cfg(target_os = "linux")]
pub use elevation::Pkexec;
#[cfg(windows)]
pub use elevation::RunAs;
pub use elevation::{Direct, Elevation, ElevationError, HelperReport, InvalidVerb, Verb, trusted};
pub use engine::{Access, Engine, FileSeen, HostsSeen, ImageStore, Kind, Version, mirror_url};
pub use environment::Environment;
pub use files::{BACKUPS_MAX, backups, look};
pub use hosts_toml::{port_of as hosts_toml_port, render as hosts_toml};
pub use journal::{Change, Remembered, hold, installed, interrupted};
pub use method::{Method, Unsupported};
pub use places::{Place, System, places};
pub use plan::{Action, ApplyMethod, DEFAULT_PORT, FileChange, Part, Plan, PlanError, plan};
pub use probe::{ProbeError, pull_probe};
pub use recover::recover;
pub use service::{CommandLine, Commands, Service, commands as restart_commands};
pub use stops::{InvalidStops, Stops};
pub use survey::{ASK_AT_MOST, Candidate, EngineSeen, merged as merged_candidates, survey};
pub use undo::{inverse, undo, undo_with};
