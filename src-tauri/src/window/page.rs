//! The window: a process of its own with one webview, which asks the shell over its socket.
//!
//! The page may call two commands and nothing else; it can neither leave its origin nor open another window.

use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tauri::ipc::Channel;
use tauri::webview::NewWindowResponse;
use tauri::{AppHandle, Builder, Context, Manager, Runtime, State, Url, WebviewUrl, WebviewWindowBuilder};
use tokio::task::JoinSet;

use sampan_desktop::engine::{
    self,
    api::{ApiError, Code, Command, Reply, Snapshot},
};
use sampan_desktop::orders::{Order, Page};

/// The one window; the capability file names it.
const LABEL: &str = "main";
/// How soon a lost shell is looked for again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Shows the window of the Sampan that uses `state_dir` until it is closed.
pub(crate) fn run(state_dir: PathBuf, page: Option<Page>) -> anyhow::Result<ExitCode> {
    // Instances beside each other must not share the webview's files. Made here, for the person alone, because the
    // webview would let everyone in.
    let webview_dir = state_dir.join("webview");
    make_private(&webview_dir)
        .with_context(|| format!("cannot make the folder {}", webview_dir.display()))?;
    let app = configure(Builder::default(), state_dir)
        .setup(move |app| {
            open(app.handle(), webview_dir, page)?;
            let handle = app.handle().clone();
            // A plain thread: reading standard input cannot be cancelled, and must not hold the runtime's end up.
            std::thread::Builder::new().name("orders".to_owned()).spawn(move || follow_orders(&handle))?;
            Ok(())
        })
        .build(context())
        .context("cannot open the window")?;
    let code = app.run_return(|_, _| {});
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Page, icons and permissions, embedded.
fn context<R: Runtime>() -> Context<R> {
    tauri::generate_context!()
}

fn configure<R: Runtime>(builder: Builder<R>, state_dir: PathBuf) -> Builder<R> {
    builder
        .manage(Link { state_dir, watching: Mutex::default() })
        .invoke_handler(tauri::generate_handler![call, watch])
}

fn open(app: &AppHandle, webview_dir: PathBuf, page: Option<Page>) -> tauri::Result<()> {
    let address = page.map_or_else(String::new, |page| format!("#{}", page.name()));
    WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App(format!("index.html{address}").into()))
        .title("Sampan")
        .inner_size(900.0, 620.0)
        .min_inner_size(480.0, 400.0)
        .data_directory(webview_dir)
        .devtools(false)
        .on_navigation(is_our_page)
        .on_new_window(|_, _| NewWindowResponse::Deny)
        .build()?;
    Ok(())
}

fn make_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Whether `url` is the embedded page, under the address each system's webview gives it.
fn is_our_page(url: &Url) -> bool {
    match url.scheme() {
        "tauri" => url.host_str() == Some("localhost"),
        "http" | "https" if cfg!(windows) => {
            url.host_str() == Some("tauri.localhost") && url.port().is_none()
        }
        _ => false,
    }
}

/// Does what the shell says, line by line. The end of the input is no order: a shell that died may come back, and
/// until then the page says that it is lost.
fn follow_orders(app: &AppHandle) {
    for line in stdin().lock().lines() {
        let Ok(line) = line else { return };
        match line.parse() {
            Ok(Order::Focus(page)) => {
                if let Err(error) = focus(app, page) {
                    tracing::warn!(%error, "cannot come to the front");
                }
            }
            Ok(Order::Quit) => app.exit(0),
            Err(()) => tracing::debug!("not an order: {line:?}"),
        }
    }
}

fn focus(app: &AppHandle, page: Option<Page>) -> tauri::Result<()> {
    let Some(window) = app.get_webview_window(LABEL) else { return Ok(()) };
    if let Some(page) = page {
        let mut url = window.url()?;
        url.set_fragment(Some(page.name()));
        window.navigate(url)?;
    }
    window.unminimize()?;
    window.show()?;
    window.set_focus()
}

/// The way to the shell.
struct Link {
    state_dir: PathBuf,
    /// The task that feeds the page. A reloaded page asks again: the one before it feeds nobody.
    watching: Mutex<JoinSet<()>>,
}

/// What [`watch`] sends.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
enum WatchMessage {
    /// The state now.
    Snapshot(Box<Snapshot>),
    /// The shell does not answer; what was shown is old.
    Lost,
}

/// One question of the page. Never fails: what went wrong is a [`Reply::Error`].
#[tauri::command]
async fn call(link: State<'_, Link>, command: Command) -> Result<Reply, ()> {
    if command == Command::Watch {
        return Ok(refused(Code::InvalidRequest, "Watching has a command of its own.", None));
    }
    Ok(engine::ask(&link.state_dir, command).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the shell does not answer");
        refused(Code::Internal, "Sampan does not answer.", Some("Start Sampan again."))
    }))
}

/// Sends each state to the page from now on, until the page asks again.
#[tauri::command]
#[expect(clippy::needless_pass_by_value, reason = "Tauri hands its arguments over by value")]
fn watch(link: State<'_, Link>, channel: Channel<WatchMessage>) {
    let state_dir = link.state_dir.clone();
    let mut watching = link.watching.lock().unwrap_or_else(PoisonError::into_inner);
    watching.abort_all();
    watching.spawn_on(
        async move { feed(&state_dir, |message| channel.send(message).is_ok()).await },
        tauri::async_runtime::handle().inner(),
    );
}

/// Passes on what the shell sends, looks for it again when it is lost, and ends when `send` does not take any more.
async fn feed(state_dir: &Path, send: impl Fn(WatchMessage) -> bool) {
    let mut lost = false;
    loop {
        if let Some(mut snapshots) = engine::watch(state_dir).await {
            while let Some(snapshot) = snapshots.next().await {
                lost = false;
                if !send(WatchMessage::Snapshot(Box::new(snapshot))) {
                    return;
                }
            }
        }
        if !std::mem::replace(&mut lost, true) && !send(WatchMessage::Lost) {
            return;
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

fn refused(code: Code, message: &str, next_step: Option<&str>) -> Reply {
    Reply::Error(ApiError { code, message: message.to_owned(), next_step: next_step.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tauri::test::{INVOKE_KEY, MockRuntime, get_ipc_response, mock_builder};
    use tauri::webview::InvokeRequest;

    fn app(state_dir: &Path) -> tauri::App<MockRuntime> {
        configure(mock_builder(), state_dir.to_owned()).build(context()).unwrap()
    }

    fn invoke(
        app: &tauri::App<MockRuntime>,
        label: &str,
        url: &str,
        cmd: &str,
        body: Value,
    ) -> Result<Value, Value> {
        let window = app
            .get_webview_window(label)
            .unwrap_or_else(|| WebviewWindowBuilder::new(app, label, WebviewUrl::default()).build().unwrap());
        let request = InvokeRequest {
            cmd: cmd.to_owned(),
            callback: tauri::ipc::CallbackFn(0),
            error: tauri::ipc::CallbackFn(1),
            url: url.parse().unwrap(),
            body: tauri::ipc::InvokeBody::Json(body),
            headers: tauri::http::HeaderMap::default(),
            invoke_key: INVOKE_KEY.to_owned(),
        };
        get_ipc_response(&window, request).map(|body| body.deserialize().unwrap())
    }

    const OURS: &str = if cfg!(windows) { "http://tauri.localhost" } else { "tauri://localhost" };

    #[test]
    fn a_question_without_a_shell_is_answered_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path());
        let reply = invoke(&app, LABEL, OURS, "call", json!({"command": {"call": "snapshot"}})).unwrap();
        assert_eq!(reply["reply"], "error");
        assert_eq!(reply["value"]["next_step"], "Start Sampan again.");
    }

    #[test]
    fn commands_are_typed_and_unknown_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path());
        let bad = [
            json!({"call": "shell"}),
            json!({"call": "savings", "days": 7, "path": "/etc/passwd"}),
            json!({"call": "savings", "days": -1}),
            json!("snapshot"),
            json!(null),
        ];
        for command in bad {
            let answer = invoke(&app, LABEL, OURS, "call", json!({ "command": command }));
            assert!(answer.is_err(), "{command} is not a command: {answer:?}");
        }
        let reply = invoke(&app, LABEL, OURS, "call", json!({"command": {"call": "watch"}})).unwrap();
        assert_eq!(reply["value"]["code"], "invalid_request", "a stream is no answer to one question");
    }

    #[test]
    fn only_the_one_window_may_ask_and_only_by_the_two_commands() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path());
        let question = || json!({"command": {"call": "snapshot"}});
        let table = [
            ("other", OURS, "call", "another window"),
            (LABEL, "https://example.org", "call", "another origin"),
            (LABEL, OURS, "plugin:window|close", "a command of Tauri itself"),
            (LABEL, OURS, "plugin:event|listen", "a command of Tauri itself"),
            (LABEL, OURS, "quit", "no command"),
        ];
        for (label, url, command, why) in table {
            let answer = invoke(&app, label, url, command, question());
            assert!(answer.is_err(), "{command} from {label} at {url} must be refused: {why}");
        }
        assert!(invoke(&app, LABEL, OURS, "call", question()).is_ok(), "so that the refusals mean something");
    }

    #[test]
    fn the_page_stays_where_it_is() {
        let table = [
            (OURS, true),
            ("tauri://localhost/index.html#setup", !cfg!(windows)),
            ("tauri://evil/", false),
            ("https://example.org/", false),
            ("http://localhost/", false),
            ("http://tauri.localhost:8080/", false),
            ("http://tauri.localhost.example.org/", false),
            ("file:///etc/passwd", false),
            ("smb://host/share", false),
            ("data:text/html,hello", false),
            ("about:blank", false),
            ("javascript:alert(1)", false),
        ];
        for (url, ours) in table {
            assert_eq!(is_our_page(&url.parse().unwrap()), ours, "{url}");
        }
    }

    #[test]
    fn the_configuration_gives_the_page_nothing_else() {
        let config: Value = serde_json::from_str(include_str!("../../tauri.conf.json")).unwrap();
        let app = &config["app"];
        assert_eq!(app["withGlobalTauri"], false);
        assert_eq!(app["windows"], json!([]), "windows are made on demand");
        assert_eq!(app["security"]["freezePrototype"], true);
        assert_eq!(app["security"]["capabilities"], json!(["main"]));
        let policy = app["security"]["csp"].as_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"), "what is not named is forbidden: {policy}");
        for forbidden in ["unsafe", "*", "https:", "blob:"] {
            assert!(!policy.contains(forbidden), "{forbidden} has no place in {policy}");
        }
        let security: Vec<_> = app["security"].as_object().unwrap().keys().collect();
        assert_eq!(security, ["capabilities", "csp", "freezePrototype"], "no key weakens the page");
        let capability: Value = serde_json::from_str(include_str!("../../capabilities/main.json")).unwrap();
        assert_eq!(capability["windows"], json!([LABEL]));
        assert_eq!(capability["permissions"], json!(["allow-call", "allow-watch"]));
        assert!(capability.get("remote").is_none(), "no other origin is given anything");
    }

    #[test]
    fn watch_messages_have_the_shape_the_page_expects() {
        let snapshot: Snapshot = serde_json::from_value(json!({
            "sequence": 1, "at": 0, "pulls": [], "last_used": null,
            "mirror": {
                "version": "0", "listen": "127.0.0.1:7267", "started": 0, "state": "serving", "paused_until": null,
                "upstreams": [],
            },
            "today": {
                "requests": 0, "hits": 0, "failures": 0, "served_bytes": 0, "fetched_bytes": 0, "hit_bytes": 0,
                "saved_bytes": 0,
            },
            "cache": {
                "dir": "/", "size_bytes": 0, "partial_bytes": 0, "blobs": 0, "free_bytes": null, "not_keeping": null,
            },
            "settings": { "language": null, "theme": "system" },
        }))
        .unwrap();
        let message = serde_json::to_value(WatchMessage::Snapshot(Box::new(snapshot))).unwrap();
        assert_eq!((&message["kind"], &message["value"]["sequence"]), (&json!("snapshot"), &json!(1)));
        assert_eq!(serde_json::to_value(WatchMessage::Lost).unwrap(), json!({"kind": "lost"}));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_shell_is_told_once_and_looked_for_until_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let told = std::cell::RefCell::new(Vec::new());
        let fed = feed(folder.path(), |message| {
            told.borrow_mut().push(message);
            true
        });
        let ended = tokio::time::timeout(RETRY_EVERY * 10, fed).await;
        assert!(ended.is_err(), "it never stops looking");
        assert_eq!(*told.borrow(), [WatchMessage::Lost], "a page is told once, not each second");
        feed(folder.path(), |_| false).await;
    }
}
