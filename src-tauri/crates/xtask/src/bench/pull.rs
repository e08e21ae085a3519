//! `docker pull` through Sampan and through docker-registry, in turns, so that both meet the same machine.
//! Two dockerds of our own, each with data folder, socket and mirror of its own; the upstream counts what it sends.
//! Written for the classic image store (Docker up to 28), where the mirror is a flag of dockerd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    bench::{
        image,
        process::{Running, answers, free_port, tail},
        registry::Registry,
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
        Side::start(root, "sampan", Kind::Sampan(sampan), upstream_port)?,
        Side::start(root, "docker-registry", Kind::DockerRegistry, upstream_port)?,
    ];
    for rep in 0..reps {
        // Whoever comes first meets the colder page cache: take turns.
        let order = if rep % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            let Some(side) = sides.get_mut(index) else { continue };
            side.empty_mirror()?;
            let cold = side.pull(&upstream)?;
            let warm = side.pull(&upstream)?;
            eprintln!(
                "  {:>2}/{reps} {:<16} cold {:6.2} s, warm {:6.2} s",
                rep + 1,
                side.name,
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
                side.name,
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

/// Median and range of some measurements; of an even number, the mean of the middle two.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 0 {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { least: at(0), median, most: at(values.len().wrapping_sub(1)) }
    }
}

#[derive(Debug)]
enum Kind {
    Sampan(PathBuf),
    DockerRegistry,
}

/// A mirror and the dockerd that pulls through it. Fields end in this order: first the client, then the server.
#[derive(Debug)]
struct Side {
    name: &'static str,
    dockerd: Running,
    mirror: Mirror,
    kind: Kind,
    socket: String,
    folder: PathBuf,
    port: u16,
    upstream_port: u16,
    cold: Vec<Pull>,
    warm: Vec<Pull>,
}

/// Held to be ended.
#[derive(Debug)]
enum Mirror {
    Sampan { _process: Running },
    DockerRegistry { _process: Registry },
    Stopped,
}

impl Side {
    fn start(root: &Path, name: &'static str, kind: Kind, upstream_port: u16) -> Result<Self> {
        let folder = root.join(name);
        fs::create_dir_all(&folder)?;
        let port = free_port()?;
        let socket = format!("unix://{}/docker.sock", folder.display());
        let dockerd = start_dockerd(&folder, &socket, port)?;
        let (cold, warm) = (Vec::new(), Vec::new());
        Ok(Self {
            name,
            dockerd,
            mirror: Mirror::Stopped,
            kind,
            socket,
            folder,
            port,
            upstream_port,
            cold,
            warm,
        })
    }

    /// Stops the mirror, empties its folders, starts it anew.
    fn empty_mirror(&mut self) -> Result<()> {
        self.mirror = Mirror::Stopped;
        for name in ["cache", "state"] {
            match fs::remove_dir_all(self.folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        self.mirror = match &self.kind {
            Kind::DockerRegistry => Mirror::DockerRegistry {
                _process: Registry::start(&self.folder, "cache", self.port, Some(self.upstream_port))?,
            },
            Kind::Sampan(program) => Mirror::Sampan { _process: self.start_sampan(program)? },
        };
        Ok(())
    }

    fn start_sampan(&self, program: &Path) -> Result<Running> {
        let log = self.folder.join("sampan.log");
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--upstream", &format!("docker.io=http://127.0.0.1:{}", self.upstream_port)])
            .arg("--cache-dir")
            .arg(self.folder.join("cache"))
            .arg("--state-dir")
            .arg(self.folder.join("state"));
        // Its settings are those above, not those of whoever measures.
        for name in ["HOME", "XDG_CONFIG_HOME"] {
            command.env(name, &self.folder);
        }
        let mut process = Running::start(&mut command, &log)?;
        process.ready("sampan", &log, Duration::from_secs(20), || answers(self.port))?;
        Ok(process)
    }

    /// Forgets the image, pulls it, and waits until the upstream is quiet.
    fn pull(&mut self, upstream: &Registry) -> Result<Pull> {
        if !self.dockerd.is_alive() {
            bail!("dockerd has ended:\n{}", tail(&self.folder.join("dockerd.log")));
        }
        // Not held the first time: then there is nothing to remove.
        shell::output(self.docker().args(["image", "rm", "--force", IMAGE]));
        // What the last pull left to be written must not be written during this one.
        shell::output(&mut Command::new("sync"));
        let before = upstream.blob_bytes();
        let begun = Instant::now();
        let output = self.docker().args(["pull", "--quiet", IMAGE]).output()?;
        let time = begun.elapsed();
        if !output.status.success() {
            bail!("{}: docker pull failed: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        settle();
        Ok(Pull { time, upstream_bytes: upstream.blob_bytes() - before })
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.socket, "--config"]).arg(&self.folder);
        command
    }
}

fn start_dockerd(folder: &Path, socket: &str, mirror_port: u16) -> Result<Running> {
    // Before dockerd asks its mirror it resolves docker.io, for its rules about insecure registries. Where no DNS
    // answers that alone takes ten seconds, so it gets a hosts file, seen by itself alone. Nothing listens behind the
    // name: a pull that does not come through the mirror fails instead of being counted.
    let hosts = folder.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost docker.io registry-1.docker.io auth.docker.io\n")?;
    // Not the settings of the machine's own Docker.
    let settings = folder.join("daemon.json");
    fs::write(&settings, "{}")?;
    let log = folder.join("dockerd.log");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(r#"mount --bind "$0" /etc/hosts && exec dockerd "$@""#)
        .arg(&hosts)
        .args(["--host", socket, "--config-file"])
        .arg(&settings)
        .args(["--bridge=none", "--iptables=false", "--ip-forward=false"])
        .arg(format!("--registry-mirror=http://127.0.0.1:{mirror_port}"));
    for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "docker.pid")] {
        command.arg(flag).arg(folder.join(name));
    }
    let mut dockerd = Running::start(&mut command, &log)?;
    dockerd.ready("dockerd", &log, Duration::from_mins(1), || {
        shell::output(Command::new("docker").args(["--host", socket, "version"])).is_some()
    })?;
    Ok(dockerd)
}

/// Waits until loopback has been quiet for two seconds: docker-registry goes on fetching after the pull.
fn settle() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        let odd = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!((odd.least, odd.median, odd.most), (1.0, 2.0, 3.0));
        let even = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter());
        assert_eq!((even.least, even.median, even.most), (1.0, 2.5, 4.0));
    }
}
