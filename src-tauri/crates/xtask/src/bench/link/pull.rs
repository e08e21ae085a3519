//! Cold `docker pull` of one image: directly from the hub, through docker-registry, through Sampan, in turns.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Peer,
    bed::{Bed, FAR_NETWORK, Traffic},
    images::{Picture, Stored},
    report::{Measured, Times, Took, figure, megabytes, ratio, table},
};
use crate::{
    bench::{dockerd::Dockerd, mirror::Mirror},
    shell,
};

/// How long a mirror may go on fetching after a pull, before that is no longer waited for.
const SETTLE_MAX: Duration = Duration::from_mins(3);

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) image: Picture,
    pub(crate) reps: usize,
    pub(crate) give_up: Duration,
    pub(crate) direct: bool,
    pub(crate) peers: &'a [Peer],
}

/// Measures and prints.
pub(crate) fn run(bed: &Bed, plan: &Plan<'_>) -> Result<Measured> {
    let image = plan.image.write(&bed.place.images)?;
    let mut sides = Vec::new();
    for &peer in plan.peers {
        sides.push(Side::start(bed, Some(peer), &image)?);
    }
    if plan.direct {
        sides.push(Side::start(bed, None, &image)?);
    }
    for rep in 0..plan.reps {
        // Whoever comes first meets the colder page cache: take turns.
        for turn in 0..sides.len() {
            let index = (turn + rep) % sides.len();
            let Some(side) = sides.get_mut(index) else { continue };
            let pull = side.cold(bed, plan.give_up)?;
            eprintln!(
                "  {:>2}/{} {:<16} {:8.2} s  {}  {}",
                rep + 1,
                plan.reps,
                side.name,
                pull.took.seconds(),
                pull.took.outcome(),
                pull.said
            );
            side.pulls.push(pull);
        }
    }
    Ok(report(&sides, &image, plan.reps))
}

fn report(sides: &[Side], image: &Stored, reps: usize) -> Measured {
    println!(
        "cold docker pull of {}, {} layers, {:.1} MB, {reps} times each in turns; median (least to most)",
        image.name,
        image.layers,
        megabytes(image.blob_bytes)
    );
    let rows: Vec<_> = sides.iter().map(|side| side.row(image)).collect();
    table(
        &["", "seconds", "arrived / image", "handed / image", "streams most", "mean", "sent again, %"],
        &rows,
    );
    let times = |name: &str| {
        let side = sides.iter().find(|side| side.name == name)?;
        Some(Times::of(side.pulls.iter().map(|pull| pull.took)))
    };
    let mut ratios = serde_json::Map::new();
    if let Some(ours) = times("sampan") {
        for name in ["direct", "docker-registry"] {
            if let Some(theirs) = times(name) {
                ratios.insert(format!("{name} / sampan"), ratio(name, theirs, "sampan", ours));
            }
        }
    }
    let failed = sides.iter().flat_map(|side| {
        let failed = side.pulls.iter().filter(|pull| matches!(pull.took, Took::Failed(_)));
        failed.map(|pull| format!("{}: {}", side.name, pull.said))
    });
    Measured {
        json: json!({
            "image": image.name,
            "image_bytes": image.blob_bytes,
            "pulls": sides.iter().map(|side| side.to_json(image)).collect::<Vec<_>>(),
            "ratios": ratios,
        }),
        failed: failed.collect(),
    }
}

/// One pull.
#[derive(Debug)]
struct Pull {
    took: Took,
    traffic: Traffic,
    /// What docker said when it failed.
    said: String,
}

/// A dockerd and what it pulls through. Fields end in this order: first the client, then the server.
#[derive(Debug)]
struct Side {
    name: &'static str,
    puller: Puller,
    mirror: Option<Mirror>,
    pulls: Vec<Pull>,
}

impl Side {
    /// Without a peer it pulls directly.
    fn start(bed: &Bed, peer: Option<Peer>, image: &Stored) -> Result<Self> {
        let mirror = peer.map(|peer| bed.mirror(peer)).transpose()?;
        let name = mirror.as_ref().map_or("direct", Mirror::name);
        let puller = Puller::start(bed, name, mirror.as_ref().map(Mirror::port), image)?;
        Ok(Self { name, puller, mirror, pulls: Vec::new() })
    }

    fn cold(&mut self, bed: &Bed, give_up: Duration) -> Result<Pull> {
        if let Some(mirror) = &mut self.mirror {
            mirror.empty()?;
        }
        self.puller.forget();
        let mark = bed.mark()?;
        let (took, said) = self.puller.begin()?.wait(give_up)?;
        if let Took::GivenUp(_) = took {
            self.puller.restart()?;
        } else if self.mirror.is_some() {
            Bed::settle(SETTLE_MAX)?;
        }
        let traffic = bed.since(&mark)?;
        // It must not go on fetching while others are measured.
        if let Some(mirror) = &mut self.mirror {
            mirror.stop();
        }
        Ok(Pull { took, traffic, said })
    }

    fn row(&self, image: &Stored) -> Vec<String> {
        let of = |value: fn(&Traffic, u64) -> f64, digits| {
            figure(self.pulls.iter().map(|pull| value(&pull.traffic, image.blob_bytes)), digits)
        };
        vec![
            self.name.to_owned(),
            Times::of(self.pulls.iter().map(|pull| pull.took)).text(),
            of(Traffic::arrived_by, 3),
            of(Traffic::handed_by, 3),
            figure(
                self.pulls
                    .iter()
                    .map(|pull| f64::from(u32::try_from(pull.traffic.hub.streams_peak).unwrap_or(u32::MAX))),
                0,
            ),
            of(|traffic, _| traffic.streams_mean(), 1),
            of(|traffic, _| traffic.again_percent(), 1),
        ]
    }

    fn to_json(&self, image: &Stored) -> Value {
        let pulls: Vec<_> = self
            .pulls
            .iter()
            .map(|pull| {
                json!({
                    "seconds": pull.took.seconds(),
                    "outcome": pull.took.outcome(),
                    "said": pull.said,
                    "traffic": pull.traffic.to_json(image.blob_bytes),
                })
            })
            .collect();
        json!({ "by": self.name, "pulls": pulls })
    }
}

/// A dockerd that pulls one image.
#[derive(Debug)]
pub(crate) struct Puller {
    dockerd: Option<Dockerd>,
    folder: PathBuf,
    mirror_port: Option<u16>,
    reference: String,
}

impl Puller {
    /// Through the mirror on that loopback port, or directly.
    pub(crate) fn start(bed: &Bed, name: &str, mirror_port: Option<u16>, image: &Stored) -> Result<Self> {
        let reference = match mirror_port {
            Some(_) => format!("library/{}:bench", image.name),
            None => format!("{}/library/{}:bench", Bed::registry(), image.name),
        };
        let folder = bed.folder().join(format!("dockerd-{name}"));
        let dockerd = Some(Dockerd::start(&folder, mirror_port, &[FAR_NETWORK])?);
        Ok(Self { dockerd, folder, mirror_port, reference })
    }

    /// Removes the image, if it is held, with all its layers.
    pub(crate) fn forget(&self) {
        if let Some(dockerd) = &self.dockerd {
            shell::output(dockerd.docker().args(["image", "rm", "--force", &self.reference]));
        }
    }

    /// A pull was left in the middle: a dockerd that never heard of it.
    fn restart(&mut self) -> Result<()> {
        self.dockerd = None;
        fs::remove_dir_all(&self.folder)?;
        self.dockerd = Some(Dockerd::start(&self.folder, self.mirror_port, &[FAR_NETWORK])?);
        Ok(())
    }

    /// Starts `docker pull`.
    pub(crate) fn begin(&self) -> Result<Pulling> {
        let dockerd = self.dockerd.as_ref().ok_or_else(|| anyhow::anyhow!("dockerd did not start again"))?;
        let log = self.folder.join("pull.log");
        let file = File::create(&log)?;
        let begun = Instant::now();
        let child = dockerd
            .docker()
            .args(["pull", "--quiet", &self.reference])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Pulling { child, begun, log })
    }
}

/// A running `docker pull`.
#[derive(Debug)]
pub(crate) struct Pulling {
    child: Child,
    begun: Instant,
    log: PathBuf,
}

impl Pulling {
    /// Its end, if it has come.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end, or ends it when the time (since its beginning) is over. What it said if it failed.
    pub(crate) fn wait(mut self, give_up: Duration) -> Result<(Took, String)> {
        loop {
            let ended = self.ended()?;
            let time = self.begun.elapsed();
            match ended {
                Some(status) if status.success() => return Ok((Took::All(time), String::new())),
                Some(status) => {
                    return Ok((Took::Failed(time), format!("{status}: {}", last_line(&self.log))));
                }
                None if time > give_up => {
                    self.child.kill()?;
                    self.child.wait()?;
                    return Ok((Took::GivenUp(time), String::new()));
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn last_line(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default().lines().last().unwrap_or_default().to_owned()
}
