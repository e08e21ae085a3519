//! The shell: runs the engine, shows the tray, opens the window. One loop on the runtime owns all of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use sampan_desktop::engine::api::{Code, Command, Reply, SettingsChange, Snapshot};
use sampan_desktop::engine::{self, Engine, Locale, Setup, StartFailure};
use sampan_desktop::orders::Page;

use crate::launch::Launcher;
use crate::menu::{self, Action};
use crate::tray::{self, Screen};
use crate::trouble::{self, Trouble};

/// The exit code of a start that could not serve; the same as a wrong flag's.
pub(crate) const CANNOT_START: u8 = 2;

/// The tray changes at most this often: menus that flicker cannot be read.
const PAINT_EVERY: Duration = Duration::from_secs(1);
/// Choices a person made that are not carried out yet; more are dropped.
const ACTIONS_MAX: usize = 16;
/// A notification server that takes longer than this does not keep a failed start from ending.
const NOTIFY_WITHIN: Duration = Duration::from_secs(2);

/// Runs until a person quits or the engine cannot go on. If this instance runs already, asks that one for its window.
pub(crate) fn run(runtime: &Runtime, setup: Setup, hidden: bool, display: bool) -> anyhow::Result<ExitCode> {
    let launcher = Launcher::new(window_program()?, vec!["--state-dir".into(), setup.state_dir().into()]);
    // A login start shows nothing, so it only needs to know whether it is the second.
    let question = if hidden { Command::Snapshot } else { Command::OpenWindow };
    if let Some(reply) = runtime.block_on(engine::ask_running(&setup.state_dir(), question)) {
        // `sampan serve` has no window of its own: this start gives it one.
        let headless = matches!(&reply, Reply::Error(error) if error.code == Code::NoDesktop);
        if headless && !hidden && display {
            runtime.block_on(accompany(launcher)).context("cannot open the window")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !display {
        eprintln!(
            "sampan-desktop: there is no display (DISPLAY and WAYLAND_DISPLAY are not set). \
             `sampan serve` mirrors without one"
        );
        return Ok(ExitCode::from(CANNOT_START));
    }
    let (actions, chosen) = mpsc::channel(ACTIONS_MAX);
    let choose = move |action| {
        if actions.try_send(action).is_err() {
            tracing::debug!(?action, "dropped: too many choices are waiting");
        }
    };
    let system_language = setup.system_language();
    let first_locale = Locale::choose(setup.settings(), system_language.as_deref());
    let shell = Shell { launcher, choose: choose.clone(), chosen, system_language, first_locale };
    let code = tray::run(runtime, menu::off(first_locale), choose, move |screen| {
        shell.serve(setup, hidden, screen)
    })?;
    Ok(ExitCode::from(code))
}

/// The window's program: it lies beside this one.
fn window_program() -> anyhow::Result<PathBuf> {
    let shell = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(shell.with_file_name(format!("sampan-window{}", std::env::consts::EXE_SUFFIX)))
}

/// Opens a window for a Sampan that has none, and waits until it is closed.
async fn accompany(mut launcher: Launcher) -> std::io::Result<()> {
    launcher.open(None).await?;
    launcher.ended().await;
    Ok(())
}

/// What the loop needs besides engine and screen.
struct Shell<C> {
    launcher: Launcher,
    choose: C,
    chosen: mpsc::Receiver<Action>,
    system_language: Option<String>,
    /// The language until there is a snapshot.
    first_locale: Locale,
}

impl<C: Fn(Action) + Clone + Send + Sync + 'static> Shell<C> {
    fn locale(&self, snapshot: &Snapshot) -> Locale {
        Locale::choose(&snapshot.settings, self.system_language.as_deref())
    }

    /// Starts the engine, shows it until the end, and lets it drain. Returns the exit code.
    async fn serve(mut self, setup: Setup, hidden: bool, screen: Screen) -> u8 {
        let mut end = match End::listen() {
            Ok(end) => end,
            Err(error) => {
                eprintln!("sampan-desktop: cannot listen for signals: {error}");
                return 1;
            }
        };
        let started = tokio::select! {
            started = Engine::start(setup) => started,
            // Nothing serves yet, so nothing has to drain.
            () = end.asked() => return 0,
            () = quit_chosen(&mut self.chosen) => return 0,
        };
        let engine = match started {
            Ok(engine) => engine,
            Err(failure) => {
                report(&failure, self.first_locale).await;
                return CANNOT_START;
            }
        };
        let open = self.choose.clone();
        engine.on_open_window(move || open(Action::Open));
        if !hidden {
            self.open(None).await;
        }
        let code = self.attend(&engine, &screen, &mut end).await;
        screen.show(menu::off(newest(&engine.snapshots(), |snapshot| self.locale(snapshot)))).await;
        self.launcher.end().await;
        tokio::select! {
            () = engine.shutdown() => {}
            // Asked twice: someone is in a hurry, and what is on disk is safe at any moment.
            () = end.asked() => {}
            () = quit_chosen(&mut self.chosen) => {}
        }
        code
    }

    /// Keeps tray, window and notifications true until someone asks for the end.
    async fn attend(&mut self, engine: &Engine, screen: &Screen, end: &mut End) -> u8 {
        let mut snapshots = engine.snapshots();
        let mut trouble = Trouble::default();
        let mut notifications = JoinSet::new();
        let (mut shown, mut paint_at) = (None, Some(Instant::now()));
        let mut painted = Instant::now();
        let mut look_at = Some(Instant::now());
        loop {
            tokio::select! {
                () = end.asked() => return 0,
                action = self.chosen.recv() => match action {
                    Some(Action::Quit) | None => return 0,
                    Some(Action::Open) => self.open(None).await,
                    Some(Action::Setup) => self.open(Some(Page::Setup)).await,
                    Some(Action::Undo) => self.open(Some(Page::SetupUndo)).await,
                    Some(Action::Pause(length)) => {
                        let seconds = Some(length.seconds(&engine::now()));
                        change(engine, Command::Pause { seconds }).await;
                    }
                    Some(Action::Resume) => change(engine, Command::Resume).await,
                    Some(Action::Limit(limit)) => {
                        let speed_limit = limit.change();
                        let wanted = SettingsChange { speed_limit, ..SettingsChange::default() };
                        change(engine, Command::Configure { change: wanted }).await;
                    }
                    Some(Action::Offline(offline)) => {
                        let wanted = SettingsChange { offline: Some(offline), ..SettingsChange::default() };
                        change(engine, Command::Configure { change: wanted }).await;
                    }
                },
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        eprintln!("sampan-desktop: the engine ended by itself");
                        return 1;
                    }
                    // Marks it as seen; the newest one is read when painting.
                    snapshots.borrow_and_update();
                    paint_at = paint_at.or(Some(painted + PAINT_EVERY));
                    look_at = Some(Instant::now());
                }
                () = until(paint_at) => {
                    (painted, paint_at) = (Instant::now(), None);
                    let wanted = newest(&snapshots, |snapshot| menu::serving(snapshot, self.locale(snapshot)));
                    if shown.as_ref() != Some(&wanted) {
                        screen.show(wanted.clone()).await;
                        shown = Some(wanted);
                    }
                }
                () = until(look_at) => {
                    let now = Instant::now().into_std();
                    let (news, locale) =
                        newest(&snapshots, |snapshot| (trouble.fold(snapshot, now), self.locale(snapshot)));
                    look_at = trouble.due(now).map(Instant::from_std);
                    for notice in news {
                        let (title, body) = notice.texts(locale);
                        notifications.spawn_blocking(move || notify(&title, &body));
                    }
                }
                Some(_) = notifications.join_next() => {}
                () = self.launcher.ended() => {}
            }
        }
    }

    async fn open(&mut self, page: Option<Page>) {
        if let Err(error) = self.launcher.open(page).await {
            eprintln!("sampan-desktop: cannot open the window: {error}");
        }
    }
}

/// Reads the newest snapshot without keeping it locked.
fn newest<T>(snapshots: &watch::Receiver<Arc<Snapshot>>, read: impl FnOnce(&Snapshot) -> T) -> T {
    let snapshot = Arc::clone(&snapshots.borrow());
    read(&snapshot)
}

async fn change(engine: &Engine, command: Command) {
    if let Reply::Error(error) = engine.call(command).await {
        tracing::error!(code = ?error.code, "{}", error.message);
    }
}

/// Waits for `moment`; forever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits until Quit is chosen; other choices have no meaning while nothing serves.
async fn quit_chosen(chosen: &mut mpsc::Receiver<Action>) {
    while chosen.recv().await.is_some_and(|action| action != Action::Quit) {}
}

/// Says on the terminal and on the desktop why nothing serves.
async fn report(failure: &StartFailure, locale: Locale) {
    eprintln!("sampan-desktop: {}", failure.message);
    let (title, body) = failure.notice.map_or_else(
        || ("Sampan".to_owned(), failure.message.clone()),
        |notice| trouble::texts(notice, &[], locale),
    );
    let mut told = JoinSet::new();
    told.spawn_blocking(move || notify(&title, &body));
    if timeout(NOTIFY_WITHIN, told.join_next()).await.is_err() {
        tracing::debug!("the notification server does not answer");
    }
}

/// Shows a notification. Blocks until the desktop has taken it.
fn notify(title: &str, body: &str) {
    let shown = notify_rust::Notification::new().appname("Sampan").summary(title).body(body).show();
    if let Err(error) = shown {
        tracing::warn!(%error, title, "the desktop did not take a notification");
    }
}

/// The ways to ask a process to end.
struct End {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl End {
    #[cfg(unix)]
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(windows)]
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    #[cfg(unix)]
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(windows)]
    async fn asked(&mut self) {
        self.interrupt.recv().await;
    }
}
