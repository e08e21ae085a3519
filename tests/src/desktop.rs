//! A desktop of the test's own: a display without a screen, a session bus, a panel, and folders nobody else uses.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tray::Panel;
use crate::{Process, bins, free_port};

/// The programs a desktop needs, for [`turn`](crate::turn).
pub const PROGRAMS: [&str; 3] = ["Xvfb", "dbus-daemon", "WebKitWebDriver"];

/// How long a part of the desktop may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// The desktop. Parts end in the order of their fields: what needs another one ends before it.
pub struct Desktop {
    /// The panel: the tray's menu and the notifications.
    pub panel: Panel,
    driver: Process,
    driver_port: u16,
    _bus: Process,
    _display: Process,
    number: u16,
    folder: PathBuf,
}

impl Desktop {
    /// Starts one whose files are in `folder`, a short path (sockets hold 107 bytes).
    pub async fn start(folder: &Path) -> Self {
        for name in ["run", "home"] {
            std::fs::create_dir_all(folder.join(name)).expect("the folder can be written to");
        }
        private(&folder.join("run"));
        // A display's number names a socket of the whole machine: one is taken that nobody has.
        let number = (90..1000)
            .find(|number| !Path::new(&format!("/tmp/.X11-unix/X{number}")).exists() && !locked(*number))
            .expect("a display number is free");
        let mut display = Process::start(
            "Xvfb",
            folder,
            Command::new("Xvfb").args([
                &format!(":{number}"),
                "-screen",
                "0",
                "1280x900x24",
                "-nolisten",
                "tcp",
            ]),
        );
        let socket = PathBuf::from(format!("/tmp/.X11-unix/X{number}"));
        display.wait_until("its socket", PATIENCE, || socket.exists());
        let bus_socket = folder.join("run/bus");
        let mut bus = Process::start(
            "dbus-daemon",
            folder,
            Command::new("dbus-daemon")
                .args(["--session", "--nofork", "--nopidfile", "--nosyslog"])
                .arg(format!("--address=unix:path={}", bus_socket.display())),
        );
        bus.wait_until("its socket", PATIENCE, || bus_socket.exists());
        let panel =
            Panel::take(&format!("unix:path={}", bus_socket.display())).await.expect("the bus answers");
        let driver_port = free_port();
        let mut command = Command::new(bins::installed("WebKitWebDriver").expect("asked for at the start"));
        command.arg(format!("--port={driver_port}")).arg("--host=127.0.0.1");
        // What WebKitWebDriver starts inherits it: the window then lets itself be driven.
        command.env("TAURI_WEBVIEW_AUTOMATION", "true");
        dress(&mut command, folder, number);
        let mut driver = Process::start("WebKitWebDriver", folder, &mut command);
        driver.wait_until("its port", PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", driver_port)).is_ok()
        });
        Self { panel, driver, driver_port, _bus: bus, _display: display, number, folder: folder.to_owned() }
    }

    /// Lets `command` run on this desktop.
    pub fn dress(&self, command: &mut Command) {
        dress(command, &self.folder, self.number);
    }

    /// Where WebKitWebDriver listens.
    pub fn driver(&self) -> String {
        format!("http://127.0.0.1:{}", self.driver_port)
    }

    /// The process id of WebKitWebDriver, whose children are the windows it drives.
    pub fn driver_id(&self) -> u32 {
        self.driver.id()
    }
}

fn dress(command: &mut Command, folder: &Path, number: u16) {
    command
        .env("HOME", folder.join("home"))
        .env("XDG_RUNTIME_DIR", folder.join("run"))
        .env("XDG_CONFIG_HOME", folder.join("home/config"))
        .env("XDG_DATA_HOME", folder.join("home/data"))
        .env("XDG_CACHE_HOME", folder.join("home/cache"))
        .env("XDG_STATE_HOME", folder.join("home/state"))
        .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", folder.join("run/bus").display()))
        .env("DISPLAY", format!(":{number}"))
        .env_remove("WAYLAND_DISPLAY")
        .env("NO_AT_BRIDGE", "1")
        .env("GTK_A11Y", "none")
        .env("LC_ALL", "C.UTF-8");
}

fn locked(number: u16) -> bool {
    Path::new(&format!("/tmp/.X{number}-lock")).exists()
}

fn private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).expect("our own folder");
}
