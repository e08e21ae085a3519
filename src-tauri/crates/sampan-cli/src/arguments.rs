//! What a person may write after `sampan`.

mod docker;
mod freshness;
mod prefetch;
mod private;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sampan_app::Flags;
use sampan_app::api::{AgeLimit, ClearSelection, Quota, SpeedLimit, Verify};

use crate::clients::Clients;
use crate::pause::parse_time;
use crate::speed::parse_limit;
use crate::upstreams::Upstreams;

pub(crate) use freshness::{FreshnessCommand, Offline, Switch};
pub(crate) use private::{Private, PrivateCommand};

pub(crate) use docker::{Change, Docker as DockerCommand, Plan};
pub(crate) use prefetch::{Keep, Pull, Queue, QueueCommand, VerifyOffline, Which};

/// Sampan keeps every image Docker pulls, so that no byte crosses a slow link twice.
///
/// `sampan serve` runs the mirror; the other commands ask the Sampan that runs already, be it `sampan serve` or the tray
/// app. With several on one machine, --state-dir says which one.
#[derive(Parser, Debug)]
#[command(name = "sampan", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 good, 1 failed, 2 wrong use or configuration, 3 Sampan is not running. \
                  `sampan docker --help` names those of its own."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) flags: Flags,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the mirror until it is told to end (Ctrl-C or SIGTERM)
    ///
    /// Prints one line when it is ready. Point Docker at the address in it with `"registry-mirrors"` in daemon.json, or
    /// let the tray app do that for you. The log goes to standard error; SAMPAN_LOG (or RUST_LOG) chooses how much:
    /// error, warn, info, debug.
    Serve,
    /// Show what Sampan does and has saved today
    Status(Format),
    /// List the images in the cache, or show all there is to know of one
    ///
    /// FREES is what deleting an image frees: layers that others use too are not in it. FETCHED is what came over the link
    /// for it. HITS is how often it was answered from the cache.
    Images(Images),
    /// Keep images whatever the quota and the age limit say
    Pin(Names),
    /// Let pinned images make way again
    Unpin(Names),
    /// Hold tags fast where they point, whatever their registries say
    ///
    /// A frozen tag is answered from the cache, is not asked about, and never makes way, until `sampan unfreeze`. With
    /// @sha256:… it is held at that digest, which must be in the cache: `sampan images IMAGE` shows what the tag was.
    Freeze(Names),
    /// Let frozen tags move again
    Unfreeze(Names),
    /// Ask now where tags point, whatever their freshness says
    Refresh(Names),
    /// Show how often tags are asked about, or change that
    ///
    /// Without a rule a tag is asked about at every pull, which costs no quota. Of several rules that fit an image, the one
    /// with the closest pattern holds.
    #[command(args_conflicts_with_subcommands = true)]
    Freshness {
        #[command(subcommand)]
        what: Option<FreshnessCommand>,
        #[command(flatten)]
        format: Format,
    },
    /// Ask no registry anything, ask again, or show which
    ///
    /// Offline, what is in the cache is served, and what is not fails at once. Downloads under way wait. It stays until it
    /// is switched off.
    Offline(Offline),
    /// Remove images from the cache; shows what will go and asks first
    ///
    /// Removes whole images. Layers that images left in the cache also use stay. What is removed is fetched again by the
    /// next pull.
    Clear(Clear),
    /// Bring back the image that was cleared last, within 10 s
    Undo(Format),
    /// Show how much of the disk the cache takes and in what state it is; change what it may take
    ///
    /// The quota is a hard cap: what was not asked for the longest makes way, whole images at a time, pinned ones never.
    /// Each change is kept and holds at once, or after 10 s where images have to go by it. The age limit goes by the time
    /// that Sampan has seen pass: of a time in which it does not run, 3 days at most count, so that no wrong clock removes
    /// anything. An image may stay longer than its LAST ASKED in `sampan images` says.
    Cache(Cache),
    /// Read the whole cache again and compare it with its digests
    ///
    /// Damaged blobs are set aside, and the next pull that needs them fetches them again. Shows how far it is; Ctrl-C stops
    /// it. Ends with 1 if damage was found. Sampan does the same slowly by itself, once a week.
    Scrub(Scrub),
    /// Write images to a file or folder, for a machine elsewhere
    ///
    /// The result is an OCI image layout: `sampan import`, skopeo and podman read it.
    Export(Export),
    /// Take images in from a file or folder that `sampan export` or skopeo wrote
    ///
    /// Every byte is compared with its digest. What the file says of names is not proof that the registry shows that image
    /// to everybody: unless told otherwise, an image is served once its registry has confirmed it.
    Import(Import),
    /// Stop the export or import that goes on, whoever began it
    Cancel(Format),
    /// Fetch images ahead of need, so that a later pull takes nothing from the network
    ///
    /// Puts them in the queue of the running Sampan and waits: one image at a time, behind every pull of a client, within
    /// the quiet hours and the speed limit. Ctrl-C only ends the waiting. What was fetched is never fetched again, whatever
    /// happens in between.
    #[command(after_help = prefetch::PULL_EXIT_CODES)]
    Pull(Pull),
    /// Show the images that are fetched ahead; change the queue, the quiet hours, or that the link is metered
    Queue(Queue),
    /// Keep tags fresh: ask for them again each night, within the quiet hours
    #[command(arg_required_else_help = true)]
    Keep {
        /// What to keep fresh
        #[command(subcommand)]
        what: Keep,
    },
    /// Check that images can be pulled with the network off
    ///
    /// Looks for everything that a pull asks for, down to the attestations of Docker 29, and hashes all of it.
    #[command(after_help = prefetch::VERIFY_EXIT_CODES)]
    VerifyOffline(VerifyOffline),
    /// Show the speed limit, set it, or lift it with `off`
    ///
    /// The limit is for all downloads together, holds at once for those under way, and stays until it is lifted. What is
    /// in the cache is served as fast as ever.
    Limit(Limit),
    /// Show how many pulls registries still allow, and which images spent them
    ///
    /// Docker Hub counts the manifests that an address fetches: a pull from the cache is not one of them. The forecast is
    /// made from at least 5 pulls over at least 10 minutes. Near the limit tags that moved are served as they are held, so
    /// that what is left goes to images that are not in the cache.
    Allowance(Format),
    /// Keep nothing new for a while, or until `sampan resume`
    ///
    /// Pulls pass through and are not kept. Downloads under way stop and keep the bytes they have; the next pull after the
    /// pause goes on from there. What is in the cache is still served.
    Pause(Pause),
    /// End a pause
    Resume(Format),
    /// Show which private images Sampan may fetch with a login, and change that
    ///
    /// By default none: Docker fetches private images itself, past Sampan. What is allowed is fetched with the login Docker
    /// has, kept, and answered to this machine alone, while the registry says at least every 15 minutes that the login
    /// still opens it. Ends with 1 where a login does not work.
    Private(Private),
    /// Set Docker up to ask Sampan, look at that, take it back
    #[command(after_help = docker::EXIT_CODES, arg_required_else_help = true)]
    Docker {
        /// What to do about Docker
        #[command(subcommand)]
        what: DockerCommand,
    },
    /// Show the other programs that pull images (Podman, BuildKit, containerd, k3s, kind), and set them up
    ///
    /// Shows whether each asks Sampan. Nothing is changed before the change was shown and agreed to; what takes root or a
    /// restart is only shown, as commands.
    Clients(Clients),
    /// Show who is asked for each registry and how they do; add mirrors and registries
    ///
    /// Bytes come from whichever upstream is quickest now, because a digest tells whether they are right; where a tag points
    /// only the trusted one says, which is the registry itself unless told otherwise. One that sends something else than
    /// asked for is named, and asked nothing for a day.
    Upstreams(Upstreams),
    /// Check everything that can be wrong, and say what to do about it
    ///
    /// Works without a running Sampan too: it then checks the configuration, the port and the folders.
    Doctor(Format),
}

/// How to show it.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Print one JSON document, for programs: sizes in bytes, times in milliseconds since 1970
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to clear, and how.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Clear {
    /// Images to remove: nginx (every tag), nginx:1.27, ghcr.io/owner/name@sha256:…
    #[arg(value_name = "IMAGE", required_unless_present_any = ["all", "unused_for"])]
    images: Vec<String>,
    /// Remove everything; downloads under way go on
    #[arg(long, conflicts_with_all = ["images", "unused_for"])]
    all: bool,
    /// Remove images that were not asked for in the last DAYS days, by the clock; pinned ones stay
    #[arg(long, value_name = "DAYS", conflicts_with = "images", value_parser = clap::value_parser!(u32).range(1..))]
    unused_for: Option<u32>,
    /// Only show what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove a single image at once too: `sampan undo` cannot bring it back
    #[arg(long)]
    pub(crate) now: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Which images to show.
#[derive(Args, Debug)]
pub(crate) struct Images {
    /// nginx (every tag), nginx:1.27, ghcr.io/owner/name@sha256:…; without it: a list of all
    #[arg(value_name = "IMAGE")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Some images.
#[derive(Args, Debug)]
pub(crate) struct Names {
    /// nginx (every tag), nginx:1.27, ghcr.io/owner/name@sha256:…
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What the cache may take, if that shall change.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Cache {
    /// The most it may take: 50GB, 20 GiB, 100 MB or more; auto: by the free disk space; off: as much as there is
    #[arg(long, value_name = "SIZE|auto|off")]
    pub(crate) quota: Option<Quota>,
    /// Remove images not asked for in this many days, 1 to 3650, or off
    #[arg(long, value_name = "DAYS|off")]
    pub(crate) max_age: Option<AgeLimit>,
    /// Compare with the digest before serving: at the first read since the start and then daily, or always
    #[arg(long, value_name = "daily|always")]
    pub(crate) verify: Option<Verify>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How to scrub.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Scrub {
    /// Only begin: it goes on in Sampan, and `sampan cache` shows how far it is
    #[arg(long)]
    pub(crate) background: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What to export, and where to.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Images to write: nginx (every tag), nginx:1.27, ghcr.io/owner/name@sha256:…
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) names: Vec<String>,
    /// A new file ending in .tar, or a new or empty folder
    #[arg(long, value_name = "FILE.tar|FOLDER")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What to import.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// A file or folder
    pub(crate) path: PathBuf,
    /// Serve its images without asking their registries first: only for a file from somebody you trust
    #[arg(long)]
    pub(crate) trust_names: bool,
    /// What the image is called, for a file of one image that does not say it itself: nginx:1.27
    #[arg(long, value_name = "IMAGE:TAG")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// What the speed limit shall be, if it shall change.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// 2MB/s, 500 kB/s, 1.5 MiB/s, 16 Mbit/s: 10 kB/s or more, or off
    #[arg(value_name = "SPEED|off", value_parser = parse_limit)]
    pub(crate) speed: Option<SpeedLimit>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How long to pause.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// 15m, 1h, 90s, 1h 30m; without it, until `sampan resume`
    #[arg(value_name = "TIME", value_parser = parse_time)]
    pub(crate) seconds: Option<u32>,
    #[command(flatten)]
    pub(crate) format: Format,
}

impl Clear {
    /// What was chosen.
    pub(crate) fn selection(&self) -> ClearSelection {
        match self.unused_for {
            _ if self.all => ClearSelection::All,
            Some(days) => ClearSelection::UnusedFor { days },
            None => ClearSelection::Images { names: self.images.clone() },
        }
    }
}

/// A person would have to be asked, and there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAsked {
    /// Before clearing.
    #[error(
        "clearing asks first, and this is not a terminal. Give --yes to clear without asking, --dry-run to only look."
    )]
    Clear,
    /// Before Docker's configuration is changed.
    #[error(
        "changing Docker's configuration asks first, and this is not a terminal. Give --yes to change it without \
         asking; `sampan docker plan` only looks."
    )]
    Docker,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn clear(arguments: &[&str]) -> Result<ClearSelection, clap::Error> {
        let parsed = Arguments::try_parse_from(["sampan", "clear"].iter().chain(arguments))?;
        let Command::Clear(clear) = parsed.command else { panic!("`clear` was written") };
        Ok(clear.selection())
    }

    #[test]
    fn the_definitions_agree_with_themselves() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn clearing_needs_exactly_one_choice() {
        assert_eq!(clear(&["--all"]).unwrap(), ClearSelection::All);
        assert_eq!(clear(&["--unused-for", "30"]).unwrap(), ClearSelection::UnusedFor { days: 30 });
        let names = vec!["a".to_owned(), "b:1".to_owned()];
        assert_eq!(clear(&["a", "b:1"]).unwrap(), ClearSelection::Images { names });
        for wrong in
            [&[][..], &["--all", "a"], &["--all", "--unused-for", "1"], &["--unused-for", "0"], &["--yes"]]
        {
            assert!(clear(wrong).is_err(), "{wrong:?} says nothing clear");
        }
    }

    #[test]
    fn the_cache_is_told_what_it_may_take() {
        let cache = |arguments: &[&str]| {
            let parsed = Arguments::try_parse_from(["sampan", "cache"].iter().chain(arguments))?;
            let Command::Cache(cache) = parsed.command else { panic!("`cache` was written") };
            Ok::<_, clap::Error>((cache.quota, cache.max_age, cache.verify))
        };
        let table: [(&[&str], _); 6] = [
            (&[], (None, None, None)),
            (&["--quota", "50GB"], (Some(Quota::Bytes(50_000_000_000)), None, None)),
            (&["--quota", "auto"], (Some(Quota::Auto), None, None)),
            (&["--quota", "off", "--max-age", "off"], (Some(Quota::Off), Some(AgeLimit::Off), None)),
            (&["--max-age", "90"], (None, Some(AgeLimit::Days(90)), None)),
            (&["--verify", "always", "--json"], (None, None, Some(Verify::Always))),
        ];
        for (arguments, expected) in table {
            assert_eq!(cache(arguments).unwrap(), expected, "{arguments:?}");
        }
        for (arguments, advice) in [
            (["--quota", "5MB"], "100 MB or more"),
            (["--quota", "much"], "or auto"),
            (["--max-age", "0"], "1 to 3650"),
            (["--verify", "never"], "daily"),
        ] {
            let refused = cache(&arguments).unwrap_err().to_string();
            assert!(refused.contains(advice), "{arguments:?}: {refused}");
        }
    }

    #[test]
    fn what_goes_where_must_be_said() {
        let parse = |arguments: &[&str]| {
            Arguments::try_parse_from(std::iter::once(&"sampan").chain(arguments))
                .map(|parsed| parsed.command)
        };
        let good: [&[&str]; 12] = [
            &["images"],
            &["images", "nginx:1.27", "--json"],
            &["pin", "nginx", "alpine:3"],
            &["unpin", "nginx"],
            &["undo", "--json"],
            &["scrub", "--background"],
            &["scrub"],
            &["cancel", "--json"],
            &["export", "nginx", "alpine", "--to", "/usb/images.tar"],
            &["import", "images.tar"],
            &["import", "folder", "--trust-names", "--json"],
            &["clear", "nginx", "--now", "--yes"],
        ];
        for arguments in good {
            assert!(parse(arguments).is_ok(), "{arguments:?}: {:?}", parse(arguments));
        }
        let wrong: [&[&str]; 6] = [
            &["pin"],
            &["unpin"],
            &["export", "nginx"],
            &["export", "--to", "x.tar"],
            &["import"],
            &["images", "nginx", "alpine"],
        ];
        for arguments in wrong {
            assert!(parse(arguments).is_err(), "{arguments:?} says too little or too much");
        }
    }

    #[test]
    fn the_flags_are_taken_before_and_after_the_command() {
        for order in [["--state-dir", "/s", "status"], ["status", "--state-dir", "/s"]] {
            let parsed = Arguments::try_parse_from(std::iter::once("sampan").chain(order)).unwrap();
            assert_eq!(parsed.flags.state_dir.as_deref(), Some(std::path::Path::new("/s")), "{order:?}");
        }
    }
}
