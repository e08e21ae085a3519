//! The window process, seen from the shell: at most one, started on demand, told by lines on its standard input.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sampan_desktop::orders::{Order, Page};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// A window that does not read or end within this time hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts the window process and keeps it to one.
#[derive(Debug)]
pub(crate) struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    orders: ChildStdin,
}

impl Launcher {
    /// Windows are `program arguments… [--page PAGE]`.
    pub(crate) fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments, running: None }
    }

    /// Brings the window to the front, or starts it.
    pub(crate) async fn open(&mut self, page: Option<Page>) -> std::io::Result<()> {
        if self.tell(Order::Focus(page)).await {
            return Ok(());
        }
        self.end().await;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped());
        if let Some(page) = page {
            command.args(["--page", page.name()]);
        }
        let mut child = command.spawn()?;
        if let Some(orders) = child.stdin.take() {
            self.running = Some(Running { child, orders });
        }
        Ok(())
    }

    /// Waits until the running window has ended; forever if none runs.
    pub(crate) async fn ended(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        // An error means that there is no such process any more.
        let _ = running.child.wait().await;
        self.running = None;
    }

    /// Ends the window: asks first.
    pub(crate) async fn end(&mut self) {
        self.tell(Order::Quit).await;
        if let Some(Running { mut child, orders }) = self.running.take() {
            drop(orders);
            if timeout(PATIENCE, child.wait()).await.is_err() {
                tracing::warn!("the window did not end when asked: killing it");
                let _ = child.kill().await;
            }
        }
    }

    /// Whether a window runs and took the order.
    async fn tell(&mut self, order: Order) -> bool {
        let Some(Running { child, orders }) = &mut self.running else { return false };
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        let line = order.line();
        let told = timeout(PATIENCE, async {
            orders.write_all(line.as_bytes()).await?;
            orders.flush().await
        });
        matches!(told.await, Ok(Ok(())))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::path::Path;

    /// A window that writes down its arguments and orders, and ends at `quit`.
    const WINDOW: &str = r#"echo "started $*" >> "$0"
        while read -r line; do echo "$line" >> "$0"; [ "$line" = quit ] && exit 0; done; exec sleep 60"#;
    /// A window that hears nothing and does not end.
    const DEAF: &str = r#"echo "started $$" >> "$0"; exec sleep 60"#;

    fn launcher(script: &str, log: &Path) -> Launcher {
        Launcher::new("/bin/sh".into(), vec!["-c".into(), script.into(), log.into()])
    }

    async fn log_becomes(log: &Path, wanted: &str) {
        let mut text = String::new();
        for _ in 0..500 {
            text = std::fs::read_to_string(log).unwrap_or_default();
            if text == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the window's log should be {wanted:?}, not {text:?}");
    }

    #[tokio::test]
    async fn a_second_open_focuses_the_first_window() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut launcher = launcher(WINDOW, &log);
        launcher.open(Some(Page::Setup)).await.unwrap();
        launcher.open(None).await.unwrap();
        launcher.open(Some(Page::Setup)).await.unwrap();
        log_becomes(&log, "started --page setup\nfocus\nfocus setup\n").await;
        launcher.end().await;
        log_becomes(&log, "started --page setup\nfocus\nfocus setup\nquit\n").await;
    }

    #[tokio::test]
    async fn a_closed_window_is_noticed_and_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut launcher = launcher(r#"echo started >> "$0""#, &log);
        for opened in 1..=2 {
            launcher.open(None).await.unwrap();
            launcher.ended().await;
            log_becomes(&log, &"started\n".repeat(opened)).await;
        }
        let forever = timeout(Duration::from_millis(20), launcher.ended()).await;
        assert!(forever.is_err(), "with no window there is no end to wait for");
    }

    #[tokio::test]
    async fn a_window_that_hangs_is_killed_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut launcher = launcher(DEAF, &log);
        launcher.open(None).await.unwrap();
        let pid = launcher.running.as_ref().unwrap().child.id().unwrap();
        log_becomes(&log, &format!("started {pid}\n")).await;
        launcher.end().await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "no process is left behind");
    }

    #[test]
    fn orders_are_read_as_they_were_written() {
        let undo = Order::Focus(Some(Page::SetupUndo));
        for order in [Order::Focus(None), Order::Focus(Some(Page::Setup)), undo, Order::Quit] {
            assert_eq!(order.line().parse(), Ok(order));
        }
        for line in ["", "focus ../../etc", "quit now", "FOCUS"] {
            assert_eq!(line.parse::<Order>(), Err(()), "{line:?} is no order");
        }
    }
}
