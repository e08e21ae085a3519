//! Why a command is refused.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Why a command failed. Programs match `code`, people read `message` and do `next_step`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
pub struct ApiError {
    /// The closed reason.
    pub code: Code,
    /// What happened, one English sentence.
    pub message: String,
    /// What to do now, one English sentence.
    pub next_step: Option<String>,
}

/// The closed reasons of [`ApiError`]; each has texts in `ui/i18n` under `error.<code>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The question is not one, or a value is out of its bounds.
    InvalidRequest,
    /// No engine was found, or it does not answer.
    DockerNotFound,
    /// The engine cannot be set up by Sampan; the message says why (remote, in a VM, read-only …).
    DockerUnsupported,
    /// A configuration file is not one Sampan will edit; line and column are in the message, the file is untouched.
    ConfigInvalid,
    /// Something changed since the plan was shown: look at a new plan.
    PlanOutdated,
    /// Administrator rights are needed and were not given; the plan's commands can be run by hand.
    NotPermitted,
    /// The change was applied, Docker did not take it, and the old state is back.
    RolledBack,
    /// A registry could not be asked, or did not give what it should.
    Upstream,
    /// The cache could not be read or written.
    Store,
    /// What was named is not in the cache.
    NotHeld,
    /// One such piece of work goes on already.
    Busy,
    /// It was stopped before its end.
    Stopped,
    /// There is no desktop to open a window on.
    NoDesktop,
    /// A defect of Sampan.
    Internal,
}
