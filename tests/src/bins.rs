//! Where programs are: Sampan's own beside the tests that were just built, others in the system's folders.

use std::path::{Path, PathBuf};

/// Folders of programs that root has in its `PATH` and others often have not.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// `target/<profile>`, in which this test was built.
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // target/<profile>/deps/<test>
    test.parent().and_then(Path::parent).expect("tests are built into target/<profile>/deps").to_owned()
}

/// Sampan's own program `name`, of the same profile as the test.
///
/// # Panics
/// If it was not built: cargo builds the programs of other packages only when it is told to.
pub fn ours(name: &str) -> PathBuf {
    let path = profile_folder().join(name);
    assert!(
        path.is_file(),
        "{} is missing. Build it first: `cargo xtask test` does, or `cargo build --workspace`.",
        path.display()
    );
    path
}

/// Another program of this machine; `None`: not installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a test looks where its programs are")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
