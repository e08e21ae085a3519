//! Measurements on this machine alone: everything listens on loopback, or in network namespaces made for it, and writes
//! into a temporary folder.

pub(crate) mod cache;
pub(crate) mod hits;
pub(crate) mod idle;
pub(crate) mod link;
pub(crate) mod pull;

mod dockerd;
mod goal;
mod image;
mod mirror;
mod nginx;
mod process;
mod registry;
mod spread;
mod wire;
