//! Speaks to registries: tokens, redirects, ranges, rate limits. The only crate that knows reqwest.
//!
//! Owns what happens on the wire between Sampan and an upstream, and turns every way an upstream fails or lies into
//! one [`UpstreamError`]. Asks anonymously, unless told to use a login ([`Upstream::with_login`]); no password leaves this
//! crate but to whom it is for (`login`).
//! Never touches the disk but to read Docker's logins, never decides what is kept, never follows an address of an upstream's making that
//! [`redirect`] or [`challenge`] does not allow. Never asks twice what was answered, but for one renewed token, the few
//! expired addresses of a [`BlobSource`], and a first part that tells no size. Never waits before it asks again: that
//! is for whoever got the error.
//! Start reading at [`Upstream`]; what a download in parts may rely on (SECURITY R35, R36) is told at [`BlobSource`].

mod address;
mod allowance;
mod body;
mod breaker;
pub mod challenge;
mod client;
mod conversation;
mod error;
mod health;
mod limits;
mod listing;
mod login;
mod part;
mod ratelimit;
pub mod redirect;
mod request;
mod source;
mod token;
mod upstream;

pub use allowance::{Allowance, is_low};
pub use body::{BlobBody, BodyStream};
pub use client::{Client, client};
pub use error::{OTHER_SIZE, UpstreamError};
pub use health::Health;
pub use limits::Limits;
pub use listing::{Referrers, TagsPage};
pub use login::realm::may_be_named;
pub use login::{
    DockerLogins, LoginOptions, LoginSource, LoginTrouble, Secret, forget_own_login, has_login,
    keep_own_login,
};
pub use ratelimit::RateHeaders;
pub use reqwest::Url;
pub use source::BlobSource;
pub use upstream::{FetchedManifest, Upstream, UpstreamConfig};
