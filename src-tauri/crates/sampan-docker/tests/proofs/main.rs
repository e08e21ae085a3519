//! The proofs SECURITY.md K asks for, on real files and, where it matters, with a real dockerd.
//! The ordinary run is short; `cargo xtask torture` runs the same for longer.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test: a step that fails is a failed test")]

mod daemon;
mod dice;
mod fuzz;
mod helper;
mod kills;
mod layouts;
mod order;
mod place;
mod policy;
mod race;
mod strict;
mod table;
mod unwritable;
