//! Private images: which ones may be fetched with a login, and which turned out to need one.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What holds for private images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PrivateImages {
    /// Which images may be fetched with a login, in the order of their patterns. All others that need one are Docker's own
    /// matter.
    pub rules: Vec<PrivateRule>,
    /// Images that lately turned out to be private and were left to Docker, newest first, at most 20.
    pub seen: Vec<PrivateSeen>,
    /// Other machines reach this Sampan: then no rule is in force, and none can be made.
    pub shared: bool,
}

/// A permission to use a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PrivateRule {
    /// `ghcr.io/acme/app`, or `ghcr.io/acme/*` with everything below.
    pub pattern: String,
    /// Which login.
    pub login: LoginKind,
    /// The token server it may be sent to besides the registry's own.
    pub realm: Option<String>,
    /// When a registry last said whether the login opens one of these images.
    #[ts(type = "number | null")]
    pub checked: Option<i64>,
    /// The image it said that of.
    pub image: Option<String>,
    /// What is wrong, as far as is known.
    pub problem: Option<PrivateProblem>,
}

/// Where a login comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum LoginKind {
    /// The login Docker has.
    #[default]
    Docker,
    /// One that a person gave Sampan, in the system's keyring.
    Keyring,
}

/// An image that needs a login and was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PrivateSeen {
    /// `ghcr.io/acme/app`.
    pub image: String,
    /// When, last.
    #[ts(type = "number")]
    pub at: i64,
    /// Why.
    pub problem: PrivateProblem,
    /// The pattern a rule for it would have; `None`: there can be none.
    pub pattern: Option<String>,
}

/// Why a private image is not answered, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PrivateProblem {
    /// The closed reason.
    pub why: WhyPrivate,
    /// What it is about: a helper, a host, a file, a registry.
    pub about: Option<String>,
    /// What happened, one English sentence.
    pub message: String,
    /// What to do now, one English sentence.
    pub next_step: String,
}

/// The closed reasons of [`PrivateProblem`]; each has texts in `ui/i18n` under `private.why.<why>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum WhyPrivate {
    /// No rule lets Sampan use a login for it.
    NotAllowed,
    /// The login does not open it, or it is not there.
    NoAccess,
    /// Other machines reach this Sampan.
    Shared,
    /// The registry could not be asked whether the login still opens it.
    Unasked,
    /// There is no login for the registry.
    NoLogin,
    /// Docker's configuration cannot be read.
    ConfigUnreadable,
    /// Docker's credential helper is not there.
    HelperMissing,
    /// It failed.
    HelperFailed,
    /// It did not answer in time.
    HelperSlow,
    /// It wrote no login.
    HelperOutput,
    /// The login cannot be sent.
    LoginUnusable,
    /// The registry refused the login.
    LoginRefused,
    /// The registry wants it sent to a host that is not known to belong to it.
    OtherRealm,
    /// It would cross a network without TLS.
    PlainHttp,
    /// Another server is set up for the registry.
    OtherServer,
    /// There is no keyring.
    NoKeyring,
    /// The permission was taken back.
    Withdrawn,
}
