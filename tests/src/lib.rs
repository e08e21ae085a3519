//! The harness of the end-to-end tests: Sampan's own programs, and the real programs around it.
//!
//! Owns every process, port and folder a test uses, and ends them with the test, by process id. Never replaces a real
//! client or registry by an imitation, never touches the Docker, the configuration or the cache of the machine it runs
//! on, never leaves loopback.
//!
//! A test named `real_...` begins with [`turn`], which says whether it can run here, and goes on with the parts it
//! needs:
//!
//! | part | is |
//! |---|---|
//! | [`Images`] | two images with known bytes, made once and kept in the target folder |
//! | [`Registry`] | Debian's docker-registry, the upstream; counts the bytes it sends |
//! | [`Relay`] | a link of a chosen speed in front of it |
//! | [`Sampan`] | `sampan serve`, with its socket and its command line |
//! | [`Dockerd`] | a dockerd of the test's own, with its `daemon.json` |
//! | [`Desktop`] | a display, a session bus and a panel, for the app's tray and window |
//! | [`Browser`] | the app's window, driven through WebKitWebDriver |
//! | [`Process`] | any other program |
//! | [`kinds`] | content of every kind a registry may hold |
//! | [`wire`] | one HTTP request, and what came over the wire |
//! | [`kill`] | the rig that kills `sampan serve` and looks at what is left |
//! | [`full`] | a cache on a disk that is too small |
//! | [`Torture`] | how long such a test runs, and its choices |

#![cfg(unix)]
#![expect(clippy::missing_panics_doc, reason = "a harness: whatever fails in it fails the test")]

pub mod bins;
mod browser;
pub mod desktop;
pub mod disk;
mod dockerd;
pub mod full;
mod image;
pub mod kill;
pub mod kinds;
mod port;
mod process;
mod registry;
mod relay;
mod sampan;
pub mod torture;
pub mod tray;
mod turn;
pub mod wire;

pub use browser::Browser;
pub use desktop::Desktop;
pub use dockerd::{Dockerd, DockerdOptions, Place};
pub use image::{Blob, Image, Images};
pub use port::free_port;
pub use process::{Process, finish, scratch};
pub use registry::Registry;
pub use relay::Relay;
pub use sampan::{Sampan, SampanOptions};
pub use torture::Torture;
pub use turn::{Turn, turn};
