//! Puts a [`menu::Tray`](crate::menu::Tray) on the desktop: one way for each kind of desktop, with one shape.
//!
//! `run` shows the first tray, hands a [`Screen`] to the shell's loop, and returns when that ends.

#[cfg(not(target_os = "linux"))]
mod native;
#[cfg(target_os = "linux")]
mod status_notifier;

#[cfg(not(target_os = "linux"))]
pub(crate) use native::{Screen, run};
#[cfg(target_os = "linux")]
pub(crate) use status_notifier::{Screen, run};
