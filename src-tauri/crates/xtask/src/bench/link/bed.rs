//! Where a case is measured: the hub in the far namespace, the wire between, a temporary folder here.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Peer,
    counters::{self, Counters},
};
use crate::bench::{
    mirror::{Kind, Mirror},
    process::{Running, Signal, signal},
};

/// The far side's address (linksim's default) and the hub's port on it.
const HUB: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1)), 5000);
/// The far side's network, for dockerd's list of registries without TLS.
pub(crate) const FAR_NETWORK: &str = "10.77.0.0/16";
/// The link's device in the near namespace.
const DEVICE: &str = "sim0:";
/// Of every packet that carries data: 20 bytes IPv4, 20 bytes TCP, 12 bytes of timestamps.
const HEADERS_BYTES: u64 = 52;
/// A link that carries less than this in a second is quiet.
const QUIET_BYTES: u64 = 2000;

/// What the outer run has prepared.
#[derive(Debug)]
pub(crate) struct Place {
    /// The far network namespace's name.
    pub(crate) far: String,
    /// The simulator's process.
    pub(crate) simulator: u32,
    /// The `sampan` to measure.
    pub(crate) sampan: PathBuf,
    pub(crate) images: PathBuf,
    /// An empty folder, removed when the link is gone.
    pub(crate) folder: PathBuf,
}

/// The place with a hub in it. Everything ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) place: Place,
    sampan_arguments: Vec<String>,
    _hub: Running,
    counters: PathBuf,
}

impl Bed {
    pub(crate) fn start(place: Place, sampan_arguments: Vec<String>) -> Result<Self> {
        let (counters, log) = (place.folder.join("hub.socket"), place.folder.join("hub.log"));
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", place.far))
            .arg(format!("/proc/{}/exe", std::process::id()))
            .args(["bench", "link", "hub", &HUB.to_string()])
            .args([&place.images, &counters]);
        let mut hub = Running::start(&mut command, &log)?;
        hub.ready("the hub", &log, Duration::from_secs(10), || counters::read(&counters).is_ok())?;
        Ok(Self { place, sampan_arguments, _hub: hub, counters })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// The hub as an upstream.
    pub(crate) fn origin() -> String {
        format!("http://{HUB}")
    }

    /// The hub as a registry in an image's name.
    pub(crate) fn registry() -> String {
        HUB.to_string()
    }

    /// A mirror of the hub, stopped, with a folder of its own.
    pub(crate) fn mirror(&self, peer: Peer) -> Result<Mirror> {
        let kind = match peer {
            Peer::Sampan => {
                Kind::Sampan { program: self.place.sampan.clone(), arguments: self.sampan_arguments.clone() }
            }
            Peer::Registry => Kind::DockerRegistry,
        };
        let folder = self.folder().join(kind.name());
        Mirror::new(kind, folder, Self::origin())
    }

    /// Takes the link down: no packet passes.
    pub(crate) fn link_down(&self) {
        signal(self.place.simulator, Signal::USR1);
    }

    /// Brings it up again.
    pub(crate) fn link_up(&self) {
        signal(self.place.simulator, Signal::USR2);
    }

    /// From here on.
    pub(crate) fn mark(&self) -> Result<Mark> {
        // What the last measurement left to be written must not be written during the next.
        rustix::fs::sync();
        Ok(Mark { wire: Wire::read()?, hub: counters::read(&self.counters)? })
    }

    /// What has crossed the link since.
    pub(crate) fn since(&self, mark: &Mark) -> Result<Traffic> {
        let hub = counters::read(&self.counters)?.since(mark.hub);
        let wire = Wire::read()?.since(mark.wire);
        Ok(Traffic { arrived: wire.payload().saturating_sub(hub.other_bytes), wire: wire.bytes, hub })
    }

    /// Waits until the link has been quiet for three seconds, or the limit is over: a mirror may go on fetching after
    /// its clients have all they want.
    pub(crate) fn settle(limit: Duration) -> Result<()> {
        let begun = Instant::now();
        let (mut last, mut quiet) = (Wire::read()?.bytes, 0);
        while quiet < 3 && begun.elapsed() < limit {
            thread::sleep(Duration::from_secs(1));
            let now = Wire::read()?.bytes;
            quiet = if now - last < QUIET_BYTES { quiet + 1 } else { 0 };
            last = now;
        }
        Ok(())
    }
}

/// A moment to measure from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    wire: Wire,
    hub: Counters,
}

impl Mark {
    /// Payload that has arrived since, heads and manifests included. Cheap.
    pub(crate) fn payload(&self) -> Result<u64> {
        Ok(Wire::read()?.since(self.wire).payload())
    }
}

/// What has crossed the link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Blob bytes that came out of the link's near end: exact but for acknowledgements' options. What was sent and lost
    /// is not in it, what arrived twice or was of use to nobody is.
    pub(crate) arrived: u64,
    /// All bytes that came out of it, with every header.
    pub(crate) wire: u64,
    /// What the hub counted. `body_bytes` includes what a cut connection still had in its buffers.
    pub(crate) hub: Counters,
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
impl Traffic {
    /// The mean number of blobs being sent while any was.
    pub(crate) fn streams_mean(&self) -> f64 {
        self.hub.stream_micros as f64 / self.hub.busy_micros.max(1) as f64
    }

    /// Which part of the segments the far side sent were sent again, in per cent.
    pub(crate) fn again_percent(&self) -> f64 {
        100.0 * self.hub.segments_again as f64 / self.hub.segments.max(1) as f64
    }

    /// `arrived` by a number of bytes.
    pub(crate) fn arrived_by(&self, bytes: u64) -> f64 {
        self.arrived as f64 / bytes as f64
    }

    /// `hub.body_bytes` by a number of bytes.
    pub(crate) fn handed_by(&self, bytes: u64) -> f64 {
        self.hub.body_bytes as f64 / bytes as f64
    }

    pub(crate) fn to_json(self, image_bytes: u64) -> Value {
        json!({
            "arrived_bytes": self.arrived,
            "arrived_by_image": self.arrived_by(image_bytes),
            "handed_by_image": self.handed_by(image_bytes),
            "wire_bytes": self.wire,
            "streams_mean": self.streams_mean(),
            "retransmitted_percent": self.again_percent(),
            "hub": self.hub.to_json(),
        })
    }
}

/// What the near end of the link has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wire {
    bytes: u64,
    packets: u64,
}

impl Wire {
    fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/net/dev")?).context("no link here")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.lines().find_map(|line| line.trim().strip_prefix(DEVICE))?.split_whitespace();
        Some(Self { bytes: words.next()?.parse().ok()?, packets: words.next()?.parse().ok()? })
    }

    fn since(self, earlier: Self) -> Self {
        Self { bytes: self.bytes - earlier.bytes, packets: self.packets - earlier.packets }
    }

    fn payload(self) -> u64 {
        self.bytes.saturating_sub(HEADERS_BYTES * self.packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_device_is_found_and_its_headers_are_taken_off() {
        let text = "Inter-| Receive\n    lo: 5 5 0 0\n  sim0:   15000      10 0 0 0 0 0 0 99 9\n";
        let wire = Wire::parse(text).unwrap();
        assert_eq!(wire, Wire { bytes: 15_000, packets: 10 });
        assert_eq!(wire.payload(), 14_480);
        assert_eq!(Wire::parse("    lo: 5 5\n"), None);
    }
}
