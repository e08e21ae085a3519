//! What is done to Sampan while it changes Docker's configuration (SECURITY.md K): the tests of sampan-docker's `proofs`.

use super::Test;

/// R98: files nobody thought of.
pub(super) fn config() -> Test {
    proofs("fuzz", &["whatever_is_in_daemon_json_an_edit_is_exact_or_is_refused"], 10_000_000)
}

/// R105, R106: a change that is killed at any moment.
pub(super) fn apply() -> Test {
    proofs("kills", &["real_kills_of_a_change_leave_old_or_new_bytes_and_the_next_start_converges"], 1000)
}

/// R101, R102: the privileged helper, called with whatever there is.
pub(super) fn helper() -> Test {
    proofs(
        "helper",
        &["real_helper_fuzzed_as_root_changes_dockers_configuration_and_nothing_else"],
        1_000_000,
    )
}

/// R104: another user who swaps links and files meanwhile.
pub(super) fn links() -> Test {
    proofs("race", &["real_swaps_by_another_user_change_nothing_outside_their_reach"], 100_000)
}

fn proofs(module: &'static str, names: &'static [&'static str], points: u32) -> Test {
    Test {
        package: "sampan-docker",
        target: "proofs",
        module: Some(module),
        names,
        points,
        starts_sampan: false,
    }
}
