//! Sampan beside its peers over a simulated link: long, slow, lossy. What runs, runs in one go and in turns on the same
//! link, so the ratios count and not the seconds. The far namespace has a registry that counts what it sends (`hub`),
//! the near one has everything else. Needs root and the link simulator's program, `linksim`.
//! Start reading at [`Case`], then [`bed::Bed`].

mod bed;
mod blob;
mod client;
mod counters;
mod cut;
mod hub;
mod images;
mod many;
mod memory;
mod outage;
mod pull;
pub(super) mod report;
mod simulator;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use self::{bed::Bed, images::Picture};
use crate::{
    bench::mirror,
    environment::Environment,
    packages::{CONTAINERS, ENGINE, LINK},
    system,
};

/// What to measure, and over which link.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    case: Case,
    #[command(flatten)]
    common: Common,
}

/// What every case takes.
#[derive(Args, Debug)]
struct Common {
    /// The link's profile (see `linksim profiles`). Default: what the case is about.
    #[arg(long, global = true)]
    profile: Option<String>,
    /// Congestion control of the far, sending side. Without it a result over a lossy link means nothing.
    #[arg(long, global = true, default_value = "cubic", value_parser = ["cubic", "bbr"])]
    cc: String,
    /// The seed of the link's losses.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u32,
    /// A further word for the simulator's command line, e.g. --link-arg=--rtt --link-arg=500
    #[arg(long, global = true, allow_hyphen_values = true)]
    link_arg: Vec<String>,
    /// The link simulator. Default: `linksim` in PATH, else built from its source.
    #[arg(long, global = true)]
    simulator: Option<PathBuf>,
    /// The folder of the link simulator's source. Default: ../shared/linksim beside the repository, if it is there.
    #[arg(long, global = true)]
    simulator_source: Option<PathBuf>,
    /// The `sampan` to measure. Default: built from here, release.
    #[arg(long, global = true)]
    sampan: Option<PathBuf>,
    /// A further word for `sampan serve`.
    #[arg(long, global = true, allow_hyphen_values = true)]
    sampan_arg: Vec<String>,
    /// The mirrors to measure. Default: the case's.
    #[arg(long, global = true, value_enum, value_delimiter = ',')]
    mirrors: Vec<Peer>,
    /// Writes all measurements there, as one JSON document.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    /// Leaves the temporary folder, with everybody's logs.
    #[arg(long, global = true)]
    keep: bool,
    /// Set by the outer run: the far namespace, the simulator's process id, the resolved program, the images, the
    /// temporary folder.
    #[arg(long, global = true, hide = true, num_args = 5)]
    inside: Vec<String>,
}

/// A mirror that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Sampan,
    Registry,
}

#[derive(Subcommand, Debug)]
enum Case {
    /// Cold `docker pull`: directly, through docker-registry, through Sampan, in turns
    Pull {
        #[arg(long, value_enum, default_value_t = Picture::Nginx)]
        image: Picture,
        #[arg(long, default_value_t = 3)]
        reps: usize,
        /// Seconds after which a pull is given up; it then counts as a lower bound.
        #[arg(long, default_value_t = 3600)]
        give_up: u64,
        /// Does not pull directly.
        #[arg(long)]
        no_direct: bool,
    },
    /// The image's biggest layer: aria2c with 16 connections from the hub, curl through a cold Sampan, in turns
    Blob {
        #[arg(long, value_enum, default_value_t = Picture::Nginx)]
        image: Picture,
        #[arg(long, default_value_t = 3)]
        reps: usize,
        /// Seconds after which a download is given up.
        #[arg(long, default_value_t = 1800)]
        give_up: u64,
    },
    /// As `blob`, one big blob: what 16 raw streams carry, and how many connections Sampan takes for that
    Raw {
        #[arg(long, default_value_t = 300)]
        megabytes: usize,
        #[arg(long, default_value_t = 3)]
        reps: usize,
        /// Seconds after which a download is given up.
        #[arg(long, default_value_t = 1800)]
        give_up: u64,
    },
    /// Many clients want one cold image at the same moment: how often does each byte cross the link?
    Many {
        #[arg(long, value_enum, default_value_t = Picture::Nginx)]
        image: Picture,
        /// How many clients, one measurement each.
        #[arg(long, value_delimiter = ',', default_value = "1,2,50")]
        clients: Vec<usize>,
    },
    /// Cut at 70 %: the client leaves and returns, the link drops, Sampan is killed: is a byte fetched twice?
    Cut {
        #[arg(long, value_enum, default_value_t = Picture::Nginx)]
        image: Picture,
        /// When it is cut, in per cent of the image.
        #[arg(long, default_value_t = 70)]
        at: u64,
        /// How long the client stays away and the link stays down, in seconds.
        #[arg(long, default_value_t = 20)]
        pause: u64,
    },
    /// The link is dead for a while in the middle of a `docker pull`
    Outage {
        #[arg(long, value_enum, default_value_t = Picture::Nginx)]
        image: Picture,
        /// How long it is dead, in seconds.
        #[arg(long, default_value_t = 60)]
        down: u64,
        /// Seconds after which the pull is given up.
        #[arg(long, default_value_t = 3600)]
        give_up: u64,
    },
    /// Memory of Sampan with many cold pulls of different big images at once
    Memory {
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// The size of each image's one layer.
        #[arg(long, default_value_t = 100)]
        megabytes: usize,
    },
    /// The counting registry; started by the other cases in the far namespace
    #[command(hide = true)]
    Hub { listen: SocketAddr, images: PathBuf, counters: PathBuf },
}

impl Case {
    fn name(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "pull",
            Self::Blob { .. } => "blob",
            Self::Raw { .. } => "raw",
            Self::Many { .. } => "many",
            Self::Cut { .. } => "cut",
            Self::Outage { .. } => "outage",
            Self::Memory { .. } => "memory",
            Self::Hub { .. } => "hub",
        }
    }

    fn profile(&self) -> &'static str {
        match self {
            Self::Pull { .. } | Self::Blob { .. } => "intercontinental",
            Self::Raw { .. } | Self::Many { .. } | Self::Cut { .. } | Self::Outage { .. } => "broadband",
            Self::Memory { .. } | Self::Hub { .. } => "none",
        }
    }

    fn peers(&self) -> &'static [Peer] {
        match self {
            Self::Pull { .. } => &[Peer::Sampan, Peer::Registry],
            Self::Blob { .. }
            | Self::Raw { .. }
            | Self::Many { .. }
            | Self::Cut { .. }
            | Self::Outage { .. }
            | Self::Memory { .. }
            | Self::Hub { .. } => &[Peer::Sampan],
        }
    }
}

/// Measures and prints: prepares everything, then starts itself again inside a new link.
///
/// # Errors
/// Not root, a program missing, or something that failed to run. A figure that is not reached is no error.
pub(crate) fn run(environment: &Environment, options: &Options) -> Result<()> {
    if let Case::Hub { listen, images, counters } = &options.case {
        return hub::serve(*listen, images, counters);
    }
    if let [far, simulator, sampan, images, folder] = options.common.inside.as_slice() {
        let place = bed::Place {
            far: far.clone(),
            simulator: simulator.parse()?,
            sampan: sampan.into(),
            images: images.into(),
            folder: folder.into(),
        };
        return inside(place, options);
    }
    if !environment.root {
        bail!("network namespaces and a dockerd of one's own take root: sudo -E cargo xtask bench link");
    }
    system::require(environment, &[ENGINE, CONTAINERS, LINK], false)?;
    let simulator = simulator::find(
        environment,
        options.common.simulator.as_deref(),
        options.common.simulator_source.as_deref(),
    )?;
    let sampan = mirror::sampan(environment, options.common.sampan.as_deref())?;
    let images = environment.target.join("link-images");
    prepare(&options.case, &images)?;
    let profile = options.common.profile.as_deref().unwrap_or(options.case.profile());
    // Held out here: the simulator ends everybody in there, whatever happens, and then this is removed.
    let mut folder = tempfile::Builder::new().prefix("sampan-link.").tempdir()?;
    folder.disable_cleanup(options.common.keep);
    if options.common.keep {
        eprintln!("Everybody's logs stay in {}", folder.path().display());
    }
    let status = simulator::again(
        &simulator,
        &simulator::Link {
            profile,
            congestion_control: &options.common.cc,
            seed: options.common.seed,
            more: &options.common.link_arg,
        },
        &[&sampan, &images, folder.path()],
    )
    .status()
    .with_context(|| format!("cannot start {}", simulator.display()))?;
    if status.success() { Ok(()) } else { bail!("the measurement failed ({status}), see above") }
}

/// Writes the images a case needs, unless an earlier run has.
fn prepare(case: &Case, images: &std::path::Path) -> Result<()> {
    match case {
        Case::Pull { image, .. }
        | Case::Blob { image, .. }
        | Case::Many { image, .. }
        | Case::Cut { image, .. }
        | Case::Outage { image, .. } => image.write(images).map(drop),
        Case::Raw { megabytes, .. } => images::write_big(images, *megabytes).map(drop),
        Case::Memory { clients, megabytes } => images::write_turned(images, *clients, *megabytes).map(drop),
        Case::Hub { .. } => Ok(()),
    }
}

/// On the link.
fn inside(place: bed::Place, options: &Options) -> Result<()> {
    let common = &options.common;
    let peers = if common.mirrors.is_empty() { options.case.peers() } else { &common.mirrors };
    let begun = Instant::now();
    let bed = Bed::start(place, common.sampan_arg.clone())?;
    let profile = common.profile.as_deref().unwrap_or(options.case.profile());
    println!("{} over {profile}, far side sending with {}", options.case.name(), common.cc);
    let measured = match &options.case {
        Case::Pull { image, reps, give_up, no_direct } => pull::run(
            &bed,
            &pull::Plan { image: *image, reps: *reps, give_up: seconds(*give_up), direct: !no_direct, peers },
        ),
        Case::Blob { image, reps, give_up } => {
            blob::run(&bed, &image.write(&bed.place.images)?, *reps, seconds(*give_up))
        }
        Case::Raw { megabytes, reps, give_up } => {
            blob::run(&bed, &images::write_big(&bed.place.images, *megabytes)?, *reps, seconds(*give_up))
        }
        Case::Many { image, clients } => many::run(&bed, *image, clients, peers),
        Case::Cut { image, at, pause } => cut::run(&bed, *image, *at, seconds(*pause)),
        Case::Outage { image, down, give_up } => {
            outage::run(&bed, *image, seconds(*down), seconds(*give_up), peers)
        }
        Case::Memory { clients, megabytes } => memory::run(&bed, *clients, *megabytes),
        Case::Hub { .. } => bail!("the hub is not measured"),
    }?;
    if let Some(file) = &common.json {
        let document = serde_json::json!({
            "case": options.case.name(),
            "profile": profile,
            "congestion_control": common.cc,
            "seed": common.seed,
            "link_arguments": common.link_arg,
            "seconds": begun.elapsed().as_secs_f64(),
            "measured": measured.json,
        });
        std::fs::write(file, format!("{document:#}\n"))?;
    }
    match measured.failed.as_slice() {
        [] => Ok(()),
        failed => bail!("failed to run: {}", failed.join("; ")),
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}
