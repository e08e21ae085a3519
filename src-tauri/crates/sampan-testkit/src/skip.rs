//! Tests that cannot run where they are.

/// For a test that has to leave out what it is for: says why. Where `CI` is set that is a failure instead, since nobody
/// reads there why a test was left out.
///
/// # Panics
/// Where the variable `CI` is set, and not to `false`.
#[track_caller]
pub fn cannot_run(reason: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test asks where it runs")]
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "cannot run here: {reason}");
    eprintln!("skipped: {reason}");
}
