//! Sampan, put together: owns every task and all state, and is the one API for the tray, the window, the CLI and tests.
//!
//! [`App`] starts the store, the statistics, the mirror and the control socket, answers every [`api::Command`], and
//! takes them down again in order. [`Config`] says where and how, [`Client`] reaches a running one from elsewhere.
//! Never draws a window, never speaks `/v2/` or to a registry itself, never edits a file of Docker's itself: it asks
//! the crates that do. Start reading at [`App::start`] and [`App::call`].

mod allowance;
pub mod api;
mod app;
mod aside;
mod cache;
mod change;
mod client;
mod clients;
mod clock;
mod config;
mod contract;
mod convert;
mod cost;
mod docker;
mod doctor;
mod flags;
mod freshness;
mod housekeeping;
pub mod i18n;
mod image_name;
pub mod list;
mod offline;
mod pause;
mod port;
mod prefetch;
mod private;
mod scrub;
mod socket;
mod start;
mod state;
mod surroundings;
mod task;
mod upstreams;

pub use app::App;
pub use client::{Client, ClientError, SnapshotStream};
pub use clock::SystemClock;
pub use config::{Config, ConfigError};
pub use contract::typescript;
pub use docker::Alone;
pub use doctor::examine;
pub use flags::Flags;
pub use private::OwnLogins;
pub use sampan_upstream::Secret;
pub use socket::SocketError;
pub use start::StartError;
pub use surroundings::Surroundings;
