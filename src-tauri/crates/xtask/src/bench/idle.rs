//! What the app costs while nothing happens: memory (PSS, all processes) and CPU, before its window was ever open,
//! with it open, and after it was closed. On a display and a session bus of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    bench::process::{Running, answers, cpu_ticks, exists, free_port, pss_bytes, tail, tree, wait_until},
    environment::Environment,
    node,
    packages::{DESKTOP_BUILD, DESKTOP_RUN, ENGINE, TESTS},
    shell, system,
};

/// After a start or an end, before anything is read.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the window stays open.
const WINDOW_OPEN: Duration = Duration::from_secs(8);

/// Measures and prints.
///
/// # Errors
/// A program is missing, does not build, or ends too soon.
pub(crate) fn run(environment: &Environment, over: Duration) -> Result<()> {
    let needed = |need: &&crate::packages::Need| ["Xvfb", "D-Bus"].contains(&need.name);
    let session: Vec<_> = TESTS.iter().filter(needed).copied().collect();
    system::require(environment, &[ENGINE, DESKTOP_BUILD, DESKTOP_RUN, &session], false)?;
    node::build(environment)?;
    shell::run(&mut shell::cargo(
        environment,
        ["build", "--release", "--locked", "--package", "sampan-desktop"],
    ))?;
    let app = environment.built("release", "sampan-desktop");

    let folder = tempfile::Builder::new().prefix("sampan-idle.").tempdir()?;
    let session = Session::start(folder.path())?;
    let port = free_port()?;
    let log = folder.path().join("app.log");
    let mut shell = Running::start(session.app(&app, port).arg("--hidden"), &log)?;
    shell.ready("the app", &log, Duration::from_mins(1), || answers(port))?;

    let mut rows = vec![measure("never had a window", shell.pid(), &[], over)];
    let mut window =
        Running::start(&mut session.app(&environment.built("release", "sampan-window"), port), &log)?;
    thread::sleep(WINDOW_OPEN);
    if !window.is_alive() {
        bail!("the window ended by itself:\n{}", tail(&log));
    }
    let opened = tree(window.pid());
    rows.push(measure("window open", shell.pid(), &opened, SETTLE));
    window.stop();
    thread::sleep(SETTLE);
    let left: Vec<_> = opened.into_iter().filter(|&pid| exists(pid)).collect();
    rows.push(measure("window closed again", shell.pid(), &left, over));
    if !shell.is_alive() {
        bail!("the app ended by itself:\n{}", tail(&log));
    }

    println!("{:<22} {:>10} {:>12} {:>16}", "", "processes", "PSS, MB", "CPU, % of a core");
    for row in rows {
        println!("{:<22} {:>10} {:>12.1} {:>16.2}", row.name, row.processes, row.pss_mb, row.cpu_percent);
    }
    Ok(())
}

struct Row {
    name: &'static str,
    processes: usize,
    pss_mb: f64,
    cpu_percent: f64,
}

/// The app's processes and the others given, over `time`.
#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn measure(name: &'static str, app: u32, others: &[u32], time: Duration) -> Row {
    eprintln!("Measuring: {name} ({} s) ...", time.as_secs());
    thread::sleep(SETTLE);
    let processes = || {
        let mut all = tree(app);
        all.extend(others.iter().filter(|&&pid| exists(pid)));
        all.sort_unstable();
        all.dedup();
        all
    };
    let (begun, before) = (Instant::now(), cpu_ticks(&processes()));
    thread::sleep(time);
    let ticks = cpu_ticks(&processes()).saturating_sub(before);
    let elapsed = begun.elapsed();
    let processes = processes();
    // A tick is a hundredth of a second, so ticks per second are per cent of a core.
    Row {
        name,
        processes: processes.len(),
        pss_mb: pss_bytes(&processes) as f64 / 1e6,
        cpu_percent: ticks as f64 / elapsed.as_secs_f64(),
    }
}

/// A display and a bus for one run.
struct Session<'f> {
    folder: &'f Path,
    display: String,
    bus: String,
    _bus: Running,
    _display: Running,
}

impl<'f> Session<'f> {
    fn start(folder: &'f Path) -> Result<Self> {
        let runtime = folder.join("run");
        fs::create_dir_all(&runtime)?;
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
        let socket = |number: &u32| format!("/tmp/.X11-unix/X{number}");
        let number = (90..190)
            .find(|number| !Path::new(&socket(number)).exists())
            .context("no free display number")?;
        let display = format!(":{number}");
        let xvfb = Running::start(
            Command::new("Xvfb").arg(&display).args(["-screen", "0", "1280x800x24", "-nolisten", "tcp"]),
            &folder.join("xvfb.log"),
        )?;
        wait_until(Duration::from_secs(10), || Path::new(&socket(&number)).exists())
            .context("Xvfb does not start")?;
        let bus = format!("unix:path={}/bus", runtime.display());
        let daemon = Running::start(
            Command::new("dbus-daemon").args([
                "--session",
                "--nofork",
                "--nopidfile",
                "--nosyslog",
                "--address",
                &bus,
            ]),
            &folder.join("dbus.log"),
        )?;
        wait_until(Duration::from_secs(10), || runtime.join("bus").exists())
            .context("dbus-daemon does not start")?;
        Ok(Self { folder, display, bus, _bus: daemon, _display: xvfb })
    }

    /// The app in this session, with all its folders in here.
    fn app(&self, program: &Path, port: u16) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--cache-dir")
            .arg(self.folder.join("cache"))
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .envs([("DISPLAY", self.display.as_str()), ("DBUS_SESSION_BUS_ADDRESS", &self.bus)])
            .envs([("NO_AT_BRIDGE", "1"), ("GTK_A11Y", "none"), ("LC_ALL", "C.UTF-8")])
            .env_remove("WAYLAND_DISPLAY");
        for (name, folder) in [
            ("HOME", "home"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CACHE_HOME", "xdg-cache"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            command.env(name, self.folder.join(folder));
        }
        command
    }
}
