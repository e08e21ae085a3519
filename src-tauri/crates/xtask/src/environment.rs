//! What this start found around it: the environment, read once.

use std::{
    env,
    ffi::OsString,
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

/// The surroundings of this start. Everything else takes it as an argument.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each of them a yes or a no")]
pub(crate) struct Environment {
    /// `CI` is set to something other than `false`: nobody is there to answer.
    pub(crate) ci: bool,
    /// The process is root: packages can be installed without asking for a password.
    pub(crate) root: bool,
    /// Someone can be asked.
    pub(crate) terminal: bool,
    /// A window can be shown.
    pub(crate) display: bool,
    /// Where programs are looked for: `PATH`, then the system folders a plain user's `PATH` lacks on Debian.
    pub(crate) path: Vec<PathBuf>,
    /// The home folder, for fonts installed by the person.
    pub(crate) home: Option<PathBuf>,
    /// Cargo as it was called, toolchain included.
    pub(crate) cargo: PathBuf,
    /// `cargo run` describes xtask's own package in the environment. Handed on, it would look like a change to
    /// build scripts that watch those variables, and rebuild them at every second command.
    pub(crate) leaked: Vec<OsString>,
    /// The repository.
    pub(crate) workspace: PathBuf,
    /// Cargo's target folder: xtask itself runs from `<target>/<profile>/`.
    pub(crate) target: PathBuf,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub(crate) fn read() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let mut path: Vec<PathBuf> =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        if cfg!(unix) {
            path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        }
        let home = env::var_os("HOME").map(PathBuf::from);
        if let Some(cargo_home) = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".cargo")))
        {
            path.push(cargo_home.join("bin"));
        }
        // The crate lies three folders below the repository.
        let workspace =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap_or(Path::new(".")).to_path_buf();
        let target = env::current_exe()
            .ok()
            .and_then(|exe| exe.ancestors().nth(2).map(Path::to_path_buf))
            .unwrap_or_else(|| workspace.join("target"));
        let leaked = env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| {
                name.to_str().is_some_and(|name| {
                    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                        .iter()
                        .any(|prefix| name.starts_with(prefix))
                })
            })
            .collect();
        Self {
            ci: env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false"),
            root: is_root(),
            terminal: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            display: !cfg!(target_os = "linux") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"),
            path,
            home,
            cargo: env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from),
            leaked,
            workspace,
            target,
        }
    }

    /// The first program of this name on the path.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        self.path
            .iter()
            .map(|folder| folder.join(program).with_extension(env::consts::EXE_EXTENSION))
            .find(|file| is_program(file))
    }

    /// A program built by cargo, `profile` being the folder's name (`debug`, `release`).
    pub(crate) fn built(&self, profile: &str, program: &str) -> PathBuf {
        self.target.join(profile).join(program).with_extension(env::consts::EXE_EXTENSION)
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}
