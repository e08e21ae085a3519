//! The desktop app as a person uses it: the real window in WebKit, the real tray over D-Bus, a real Docker behind both.

#![cfg(target_os = "linux")]
#![allow(missing_docs, reason = "tests are named as sentences")]

use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::Duration;

use anyhow::Result;
use sampan_app::Client;
use sampan_app::api::{Command, Reply, Savings, Snapshot};
use sampan_tests::{
    Browser, Desktop, Dockerd, DockerdOptions, Images, Process, Relay, bins, desktop, free_port, scratch,
    tray, turn,
};

const DOCKER: [&str; 5] = ["docker", "dockerd", "docker-registry", "skopeo", "unshare"];
/// A link slow enough to watch a pull of 100 MB for some seconds.
const SLOW: u64 = 4_000_000;
const FAST: u64 = u64::MAX;

/// The desktop app in the tray of `desktop`.
struct App {
    process: Process,
    folder: PathBuf,
    port: u16,
}

impl App {
    fn start(desktop: &Desktop, folder: &Path, upstream: &str, docker: &str) -> Self {
        let port = free_port();
        let mut command = Program::new(bins::ours("sampan-desktop"));
        command.args(["--hidden", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--upstream", &format!("docker.io={upstream}")]);
        command.arg("--state-dir").arg(folder.join("state")).arg("--cache-dir").arg(folder.join("cache"));
        desktop.dress(&mut command);
        command.env("DOCKER_HOST", docker);
        let mut process = Process::start("sampan-desktop", folder, &mut command);
        let socket = folder.join("state/sampan.sock");
        process.wait_until("its socket", Duration::from_secs(20), || socket.exists());
        Self { process, folder: folder.to_owned(), port }
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    async fn ask(&self, command: Command) -> Result<Reply> {
        Ok(Client::connect(&self.state_dir()).await?.call(command).await?)
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let reply = self.ask(Command::Snapshot).await?;
        let Reply::Snapshot(snapshot) = reply else { anyhow::bail!("{reply:?}") };
        Ok(*snapshot)
    }

    async fn savings(&self) -> Result<Savings> {
        let reply = self.ask(Command::Savings { days: 30 }).await?;
        let Reply::Savings(savings) = reply else { anyhow::bail!("{reply:?}") };
        Ok(savings)
    }

    /// The window, as the shell starts it, but driven by the test.
    async fn window(&self, desktop: &Desktop) -> Result<Browser> {
        let state = self.state_dir().display().to_string();
        let arguments = ["--state-dir".to_owned(), state];
        let screenshots = bins::profile_folder().join("../tmp/screenshots");
        Browser::open(&desktop.driver(), &bins::ours("sampan-window"), &arguments, &screenshots).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_window_sets_docker_up_shows_a_pull_and_what_it_saved_and_clears_it() -> Result<()> {
    let Some(_turn) = turn(&[&DOCKER[..], &desktop::PROGRAMS].concat()) else { return Ok(()) };
    let images = Images::prepare();
    let mut registry = images.registry();
    let link = Relay::to(registry.port(), SLOW);
    let original = "{\n    \"debug\": false,\n    \"registry-mirrors\": [\"http://127.0.0.1:9/\"]\n}\n";
    let dockerd =
        Dockerd::start(DockerdOptions { config: Some(original.into()), ..DockerdOptions::default() });
    let folder = scratch();
    let desktop = Desktop::start(folder.path()).await;
    let app = App::start(&desktop, folder.path(), &link.url(), &dockerd.endpoint());
    let window = app.window(&desktop).await?;
    let image = &images.big;
    let name = image.short_name();

    // Set-up: found, shown, nothing changed before the click.
    window.screenshot("now-first").await?;
    window.click("nav-setup").await?;
    window.get("setup-diff").await?;
    let diff = window.text("setup-diff").await?;
    let ours = format!("http://127.0.0.1:{}", app.port);
    assert!(diff.contains(&ours), "the exact change is shown: {diff}");
    assert!(diff.contains(&dockerd.config_path().display().to_string()), "with the file's path: {diff}");
    assert_eq!(dockerd.config().as_deref(), Some(original), "looking changes nothing");
    window.screenshot("setup-before").await?;
    window.click("setup-consent").await?;
    window.shows("[data-testid=setup-proof][data-arrived=true]").await?;
    window.screenshot("setup-done").await?;
    let mirrors = dockerd.mirrors();
    assert_eq!(
        mirrors.first().map(|m| m.trim_end_matches('/')),
        Some(ours.as_str()),
        "ours is asked first: {mirrors:?}"
    );
    assert!(mirrors.iter().any(|mirror| mirror.contains("127.0.0.1:9")), "the other one stays: {mirrors:?}");

    // A pull, seen while it flows.
    window.click("nav-now").await?;
    let pulling = {
        let mut command = dockerd.command(&["pull", &name]);
        Process::start("docker-pull", folder.path(), &mut command)
    };
    window.shows("[data-testid=pull-card][data-state=active]").await?;
    let live = window.text_passes("pull-text", |text| text.contains("/s")).await?;
    assert!(live.contains("MB"), "how much of how much, and how fast: {live}");
    let menu_line = desktop.panel.until("the pull", |menu| {
        menu.iter().find(|item| item.label.contains(&name)).map(|item| item.label.clone())
    });
    let menu_line = menu_line.await?;
    assert!(menu_line.contains('%'), "the tray shows the same pull: {menu_line}");
    window.screenshot("now-pulling").await?;
    link.set_speed(FAST);
    let mut pulling = pulling;
    let ended = pulling.wait(Duration::from_mins(2));
    assert!(ended.is_some_and(|status| status.success()), "docker pull: {ended:?}");
    window.shows("[data-testid=pull-card][data-state=complete]").await?;

    // The same image again, with the registry gone: saved.
    dockerd.forget(&name);
    registry.stop();
    dockerd.pull(&name);
    let saved = window.text_passes("saved-today", |text| text.contains("MB")).await?;
    let snapshot = app.snapshot().await?;
    assert_eq!(
        snapshot.today.saved_bytes,
        i64::try_from(snapshot.today.served_bytes)? - i64::try_from(snapshot.today.fetched_bytes)?
    );
    assert_eq!(
        number(&saved),
        megabytes(snapshot.today.saved_bytes),
        "the window says what the API says: {saved}"
    );
    window.click("nav-savings").await?;
    let total = window.text_passes("savings-total", |text| text.contains("MB")).await?;
    let savings = app.savings().await?;
    assert_eq!(
        number(&total),
        megabytes(savings.total.saved_bytes),
        "and so does the sum over days: {total}"
    );
    window.shows("[data-testid=savings-chart] svg, svg[data-testid=savings-chart]").await?;
    window.has("[data-testid=receipt]", 2).await?;

    let sent = i64::try_from(registry.sent_bytes())?;
    assert_eq!(
        i64::try_from(savings.total.fetched_bytes)?,
        sent,
        "what the window shows as fetched is what was sent"
    );
    let status = Program::new(bins::ours("sampan"))
        .args(["status", "--json", "--state-dir"])
        .arg(app.state_dir())
        .output()?;
    let status: Snapshot = serde_json::from_slice(&status.stdout)?;
    assert_eq!(status.today, app.snapshot().await?.today, "the command line asks the running app");
    looks_at_every_page(&window).await?;
    clears_everything(&window, &app, savings).await?;

    // Undo: the exact bytes from before.
    window.click("nav-setup").await?;
    window.click("setup-undo").await?;
    window.shows("[data-testid=setup-plan][data-action=disable]").await?;
    window.screenshot("setup-undo").await?;
    window.click("setup-consent").await?;
    window.shows("[data-testid=setup-result][data-action=disable]").await?;
    assert_eq!(dockerd.config().as_deref(), Some(original), "byte for byte");
    assert!(!dockerd.mirrors().iter().any(|mirror| mirror.contains(&ours)), "Docker has let go");
    window.close().await?;
    Ok(())
}

/// Every page in both themes and both languages: kept for eyes, and the texts are those of the language chosen.
async fn looks_at_every_page(window: &Browser) -> Result<()> {
    for theme in ["light", "dark"] {
        for (language, setup) in [("en", "Set-up"), ("vi", "Kết nối")] {
            window.click("nav-settings").await?;
            window.choose("theme-select", theme).await?;
            window.choose("lang-select", language).await?;
            window.text_passes("nav-setup", |text| text == setup).await?;
            let pages = [
                ("now", "state-line"),
                ("savings", "savings-total"),
                ("images", "image-row"),
                ("setup", "setup-engine"),
                ("settings", "lang-select"),
            ];
            for (page, sign) in pages {
                window.click(&format!("nav-{page}")).await?;
                window.get(sign).await?;
                if page == "setup" {
                    window.shows("[data-testid=setup-engine][data-enabled=true]").await?;
                    window.click("setup-undo").await?;
                    window.shows("[data-testid=setup-plan][data-action=disable]").await?;
                }
                window.screenshot(&format!("{page}-{theme}-{language}")).await?;
            }
        }
    }
    window.click("nav-settings").await?;
    window.choose("lang-select", "en").await?;
    window.choose("theme-select", "light").await?;
    Ok(())
}

/// A preview that names what goes, then the click, then nothing is left.
async fn clears_everything(window: &Browser, app: &App, savings: Savings) -> Result<()> {
    window.click("nav-images").await?;
    window.has("[data-testid=image-row]", 1).await?;
    window.click("clear-all").await?;
    window.get("clear-preview").await?;
    let freed = window.attribute("clear-preview", "data-freed").await?.unwrap_or_default();
    assert_eq!(
        freed.parse::<u64>()?,
        app.snapshot().await?.cache.size_bytes,
        "all of it is what would be freed"
    );
    window.screenshot("images-clear").await?;
    assert!(app.snapshot().await?.cache.size_bytes > 100_000_000, "the preview removed nothing");
    window.click("clear-confirm").await?;
    window.get("cleared").await?;
    assert_eq!(app.snapshot().await?.cache.blobs, 0, "and then it is gone");
    assert_eq!(app.savings().await?.total, savings.total, "the numbers stay");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_tray_pauses_resumes_opens_one_window_and_quits() -> Result<()> {
    let Some(_turn) = turn(&desktop::PROGRAMS) else { return Ok(()) };
    let folder = scratch();
    let desktop = Desktop::start(folder.path()).await;
    let nobody = format!("unix://{}", folder.path().join("no-docker.sock").display());
    let mut app = App::start(&desktop, folder.path(), "http://127.0.0.1:9", &nobody);

    desktop
        .panel
        .until("the first line", |menu| menu.first().filter(|item| item.label == "Ready").cloned())
        .await?;
    let serving = desktop.panel.icon().await?;
    assert!(windows_of(&app).is_empty(), "a start at login opens no window");

    desktop.panel.click("For 15 minutes").await?;
    desktop.panel.until("Paused", |menu| tray::find(menu, "Paused").cloned()).await?;
    assert!(app.snapshot().await?.mirror.paused_until.is_some(), "a pause that is forgotten ends by itself");
    assert_ne!(desktop.panel.icon().await?, serving, "another state has another icon");
    desktop.panel.click("Resume").await?;
    desktop.panel.until("Pause", |menu| tray::find(menu, "Pause").cloned()).await?;
    assert_eq!(app.snapshot().await?.mirror.paused_until, None);

    for (line, limit) in [("250 kB/s", Some(250_000)), ("Unlimited", None)] {
        desktop.panel.click(line).await?;
        let marked =
            desktop.panel.until(line, |menu| tray::find(menu, line).filter(|item| item.checked).cloned());
        marked.await?;
        assert_eq!(app.snapshot().await?.settings.speed_limit, limit, "{line} is marked because it holds");
    }

    desktop.panel.click("Open Sampan").await?;
    let first = until_windows(&app, 1).await;
    desktop.panel.click("Open Sampan").await?;
    // A second start finds the first one and asks it for its window: it ends at once, well.
    let mut second = Program::new(bins::ours("sampan-desktop"));
    second.arg("--state-dir").arg(app.state_dir());
    desktop.dress(&mut second);
    let mut second = Process::start("second-start", folder.path(), &mut second);
    let ended = second.wait(Duration::from_secs(10));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    assert_eq!(windows_of(&app), first, "still the one window");
    // A window that ended is no window: the next click opens another.
    let window = i32::try_from(first[0]).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(window.expect("a process id"), rustix::process::Signal::TERM)?;
    until_windows(&app, 0).await;
    desktop.panel.click("Open Sampan").await?;
    let first = until_windows(&app, 1).await;

    desktop.panel.click("Quit").await?;
    let ended = app.process.wait(Duration::from_secs(15));
    assert!(ended.is_some_and(|status| status.success()), "Quit is a clean end: {ended:?}");
    assert!(!Path::new(&format!("/proc/{}", first[0])).exists(), "and takes the window with it");
    assert!(
        std::net::TcpStream::connect(("127.0.0.1", app.port)).is_err(),
        "the port is free: Docker goes to the Hub"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_start_on_a_taken_port_says_who_has_it_and_ends() -> Result<()> {
    let Some(_turn) = turn(&desktop::PROGRAMS) else { return Ok(()) };
    let folder = scratch();
    let desktop = Desktop::start(folder.path()).await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut command = Program::new(bins::ours("sampan-desktop"));
    command.args(["--hidden", "--listen", &holder.local_addr()?.to_string()]);
    command
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .arg("--cache-dir")
        .arg(folder.path().join("cache"));
    desktop.dress(&mut command);
    let mut app = Process::start("sampan-desktop", folder.path(), &mut command);
    let ended = app.wait(Duration::from_secs(20));
    assert_eq!(ended.and_then(|status| status.code()), Some(2));
    let said = app.lines().join("\n");
    assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
    assert!(said.contains("--listen"), "and how to choose another: {said}");
    assert_eq!(desktop.panel.notifications().len(), 1, "a start from the menu has no terminal to read");
    Ok(())
}

/// The process ids of the app's windows: its children of that name.
fn windows_of(app: &App) -> Vec<u32> {
    let children = format!("/proc/{0}/task/{0}/children", app.process.id());
    let tasks = std::fs::read_dir(format!("/proc/{}/task", app.process.id())).into_iter().flatten().flatten();
    let all = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let listed = all.collect::<String>() + &std::fs::read_to_string(children).unwrap_or_default();
    let is_window = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sampan-window")
    };
    let mut windows: Vec<u32> =
        listed.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(is_window).collect();
    windows.sort_unstable();
    windows.dedup();
    windows
}

async fn until_windows(app: &App, count: usize) -> Vec<u32> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let windows = windows_of(app);
        if windows.len() == count {
            return windows;
        }
        assert!(tokio::time::Instant::now() < deadline, "{} windows", windows.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The number in a text such as `108.1 MB`, in tenths of a megabyte.
fn number(text: &str) -> i64 {
    let digits = text.split_whitespace().next().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "a size that fits a screen")]
    digits.parse::<f64>().map_or(-1, |value| (value * 10.0).round() as i64)
}

/// Bytes as the window rounds them: whole megabytes from 100 on, tenths below.
fn megabytes(bytes: i64) -> i64 {
    let tenths = (bytes + 50_000) / 100_000;
    if bytes >= 99_950_000 { (bytes + 500_000) / 1_000_000 * 10 } else { tenths }
}
