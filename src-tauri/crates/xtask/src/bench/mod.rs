//! Measurements on this machine alone: everything listens on loopback and writes into a temporary folder.

pub(crate) mod idle;
pub(crate) mod pull;

mod image;
mod process;
mod registry;
