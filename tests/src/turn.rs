//! Whether a test can run here, and its turn among the others.

use std::fs::File;

use crate::bins;

/// The right to run: heavy tests run one after the other, whichever runner started them. Ends when dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Waits for the test's turn. `None`, with the reason printed, where it cannot run: it is not root, or a program of
/// `programs` is missing. Where `CI` is set that is a failure instead, since nobody reads why a test was left out.
pub fn turn(programs: &[&str]) -> Option<Turn> {
    if let Some(reason) = obstacle(programs) {
        sampan_testkit::cannot_run(&reason);
        return None;
    }
    let folder = bins::profile_folder().join("../tmp");
    std::fs::create_dir_all(&folder).expect("the target folder can be written to");
    let lock = File::create(folder.join("real-tests.lock")).expect("the target folder can be written to");
    lock.lock().expect("the file system knows locks");
    Some(Turn { _lock: lock })
}

fn obstacle(programs: &[&str]) -> Option<String> {
    let engines = ["dockerd", "podman", "unshare"];
    if programs.iter().any(|name| engines.contains(name)) && !rustix::process::getuid().is_root() {
        return Some("this test starts a container engine, which takes root".into());
    }
    let missing: Vec<&str> =
        programs.iter().copied().filter(|name| bins::installed(name).is_none()).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}
