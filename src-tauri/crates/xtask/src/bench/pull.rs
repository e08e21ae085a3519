//! `docker pull` through Sampan and through docker-registry, in turns, so that both meet the same machine.
//! Two dockerds of our own, each with data folder, socket and mirror of its own; the upstream counts what it sends.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    bench::{
        dockerd::Dockerd,
        image,
        mirror::{Kind, Mirror},
        process::free_port,
        registry::Registry,
        spread::Spread,
    },
    environment::Environment,
    packages::{ENGINE, TESTS},
    shell, system,
};

const IMAGE: &str = "library/sampan-bench:latest";

/// Measures and prints.
///
/// # Errors
/// Not root, a program missing, or a pull that failed.
pub(crate) fn run(environment: &Environment, reps: usize) -> Result<()> {
    if !environment.root {
        bail!("this starts a dockerd of its own, which takes root: sudo -E cargo xtask bench pull");
    }
    if reps == 0 {
        bail!("--reps 0 measures nothing");
    }
    system::require(environment, &[ENGINE, TESTS], false)?;
    shell::run(&mut shell::cargo(
        environment,
        ["build", "--release", "--locked", "--package", "sampan-cli"],
    ))?;

    let folder = tempfile::Builder::new().prefix("sampan-bench.").tempdir()?;
    let root = folder.path();
    eprintln!("Writing the image ...");
    let image = image::write(&root.join("oci"))?;
    let upstream_port = free_port()?;
    let upstream = Registry::start(root, "upstream", upstream_port, None)?;
    shell::run(
        Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:bench", root.join("oci").display()))
            .arg(format!("docker://127.0.0.1:{upstream_port}/{IMAGE}")),
    )?;

    let sampan = environment.built("release", "sampan");
    let mut sides = [
        Side::start(root, Kind::Sampan { program: sampan, arguments: Vec::new() }, upstream_port)?,
        Side::start(root, Kind::DockerRegistry, upstream_port)?,
    ];
    for rep in 0..reps {
        // Whoever comes first meets the colder page cache: take turns.
        let order = if rep % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            let Some(side) = sides.get_mut(index) else { continue };
            side.mirror.empty()?;
            let cold = side.pull(&upstream)?;
            let warm = side.pull(&upstream)?;
            eprintln!(
                "  {:>2}/{reps} {:<16} cold {:6.2} s, warm {:6.2} s",
                rep + 1,
                side.mirror.name(),
                cold.time.as_secs_f64(),
                warm.time.as_secs_f64()
            );
            side.cold.push(cold);
            side.warm.push(warm);
        }
    }
    report(&sides, &image, reps);
    Ok(())
}

fn report(sides: &[Side; 2], image: &image::Image, reps: usize) {
    println!(
        "docker pull of {} layers, {:.1} MB, {reps} times each in turns, upstream on loopback; median (least to most)",
        image.layers,
        megabytes(image.blob_bytes)
    );
    println!("{:<16} {:<5} {:>22} {:>20}", "mirror", "", "seconds", "upstream / image");
    for side in sides {
        for (name, pulls) in [("cold", &side.cold), ("warm", &side.warm)] {
            let times = Spread::of(pulls.iter().map(|pull| pull.time.as_secs_f64()));
            let bytes = Spread::of(
                pulls.iter().map(|pull| megabytes(pull.upstream_bytes) / megabytes(image.blob_bytes)),
            );
            println!(
                "{:<16} {name:<5} {:>22} {:>20}",
                side.mirror.name(),
                format!("{:.2} ({:.2} to {:.2})", times.median, times.least, times.most),
                format!("{:.3} ({:.3} to {:.3})", bytes.median, bytes.least, bytes.most),
            );
        }
    }
    let [sampan, other] = sides;
    for (name, ours, theirs) in [("cold", &sampan.cold, &other.cold), ("warm", &sampan.warm, &other.warm)] {
        let median = |pulls: &[Pull]| Spread::of(pulls.iter().map(|pull| pull.time.as_secs_f64())).median;
        println!(
            "{name}: sampan takes {:.2} times what docker-registry takes",
            median(ours) / median(theirs)
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// One pull.
#[derive(Debug)]
struct Pull {
    time: Duration,
    /// Blob bytes the upstream sent because of it, those sent after it ended included.
    upstream_bytes: u64,
}

/// A mirror and the dockerd that pulls through it. Fields end in this order: first the client, then the server.
#[derive(Debug)]
struct Side {
    dockerd: Dockerd,
    mirror: Mirror,
    cold: Vec<Pull>,
    warm: Vec<Pull>,
}

impl Side {
    fn start(root: &Path, kind: Kind, upstream_port: u16) -> Result<Self> {
        let folder = root.join(kind.name());
        let mirror = Mirror::new(kind, folder.clone(), format!("http://127.0.0.1:{upstream_port}"))?;
        let dockerd = Dockerd::start(&folder, Some(mirror.port()), &[])?;
        Ok(Self { dockerd, mirror, cold: Vec::new(), warm: Vec::new() })
    }

    /// Forgets the image, pulls it, and waits until the upstream is quiet.
    fn pull(&mut self, upstream: &Registry) -> Result<Pull> {
        if !self.dockerd.is_alive() {
            bail!("dockerd has ended:\n{}", self.dockerd.last_words());
        }
        // Not held the first time: then there is nothing to remove.
        shell::output(self.dockerd.docker().args(["image", "rm", "--force", IMAGE]));
        // What the last pull left to be written must not be written during this one.
        shell::output(&mut Command::new("sync"));
        let before = upstream.blob_bytes();
        let begun = Instant::now();
        let output = self.dockerd.docker().args(["pull", "--quiet", IMAGE]).output()?;
        let time = begun.elapsed();
        if !output.status.success() {
            bail!(
                "{}: docker pull failed: {}",
                self.mirror.name(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        settle();
        Ok(Pull { time, upstream_bytes: upstream.blob_bytes() - before })
    }
}

/// Waits until loopback has been quiet for two seconds: docker-registry goes on fetching after the pull.
pub(crate) fn settle() {
    let received = || {
        let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let mut quiet_since = (received(), Instant::now());
    let begun = Instant::now();
    while quiet_since.1.elapsed() < Duration::from_secs(2) && begun.elapsed() < Duration::from_mins(2) {
        thread::sleep(Duration::from_millis(200));
        let now = received();
        if now > quiet_since.0 + 20_000 {
            quiet_since = (now, Instant::now());
        }
    }
}
