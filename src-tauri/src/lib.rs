//! What the shell (the tray and the engine) and the window have in common.
//!
//! Two programs, so that the one that runs all day links no web view: `sampan-desktop` is the shell, `sampan-window` the
//! window, started on demand and ended when it is closed. Owns the seam to the engine and the orders from one to the
//! other. Never draws anything, never decides anything about pulls. Start reading at [`engine`].

pub mod engine;
pub mod orders;
