//! Tokens: one for each repository, asked for once however many requests wait for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Method, Url};
use sampan_oci::RepositoryName;
use serde::Deserialize;
use tokio::time::Instant;

use crate::challenge::{self, Challenge};
use crate::limits::{Limits, TOKEN_BODY_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::login::Desk;
use crate::request::{self, Request};
use crate::{Client, UpstreamError};

/// Repositories whose tokens are remembered.
const SLOTS_MAX: usize = 1024;
/// The lifetime of a token that does not tell it (distribution's token specification: 60 seconds).
const LIFETIME_DEFAULT: Duration = Duration::from_mins(1);
/// How long a login is shown before it is read again.
const LOGIN_SHOWN: Duration = Duration::from_mins(5);
/// The longest lifetime that is believed.
const LIFETIME_MAX: Duration = Duration::from_hours(1);
/// How long before its end a token is no longer used, at most.
const MARGIN_MAX: Duration = Duration::from_secs(10);

/// A bearer token, or the login itself where an upstream wants that. Shows itself to the upstream alone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(HeaderValue);

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let good =
            !text.is_empty() && text.len() <= TOKEN_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).ok().filter(|_| good)?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// The value of `Authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// The tokens of one upstream, by repository. Never shared between upstreams (SECURITY R21).
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<RepositoryName, Arc<tokio::sync::Mutex<Slot>>>>,
    /// The last challenge that was allowed: it saves the round trip of being refused once for every repository.
    challenge: Mutex<Option<Wants>>,
    /// That the token server wants to be left alone, whatever it is asked for, and until when.
    rest: Mutex<Option<(UpstreamError, Instant)>>,
}

/// What is known for one repository. Whoever holds its lock asks the realm; the others wait for the lock.
#[derive(Debug, Default)]
struct Slot {
    held: Option<(Token, Instant)>,
    failed: Option<(UpstreamError, Instant)>,
}

impl Slot {
    fn good(&self) -> Option<&Token> {
        self.held.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(token, _)| token)
    }
}

/// Where tokens are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issuer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) limits: &'a Limits,
    pub(crate) upstream: &'a Url,
    /// The login to ask with; `None`: as nobody.
    pub(crate) login: Option<&'a Desk>,
}

/// What an upstream asks for.
#[derive(Clone, Debug)]
pub(crate) enum Wants {
    /// A token of this realm.
    Token(Challenge),
    /// The login itself, by HTTP's own way.
    Login,
}

impl Tokens {
    /// A token to try first: one held, or a new one if this upstream is known to ask for them. `None` if it is not
    /// known to.
    /// # Errors
    /// If no token could be had; the request may then still go out without one, once.
    pub(crate) async fn known(
        &self,
        issuer: Issuer<'_>,
        repository: &RepositoryName,
    ) -> Result<Option<Token>, UpstreamError> {
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(challenge) = challenge else { return Ok(None) };
        self.token(issuer, repository, &challenge, None).await.map(Some)
    }

    /// A token after the upstream answered 401 with `challenge` to a request that carried `refused`.
    pub(crate) async fn renew(
        &self,
        issuer: Issuer<'_>,
        repository: &RepositoryName,
        challenge: Wants,
        refused: Option<&Token>,
    ) -> Result<Token, UpstreamError> {
        if let Wants::Token(challenge) = &challenge
            && issuer.login.is_none()
            && !challenge::allow(&challenge.realm, issuer.upstream)
        {
            return Err(UpstreamError::Protocol("it sent us to a token realm that is not its own"));
        }
        let token = self.token(issuer, repository, &challenge, refused).await?;
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge);
        Ok(token)
    }

    async fn token(
        &self,
        issuer: Issuer<'_>,
        repository: &RepositoryName,
        challenge: &Wants,
        refused: Option<&Token>,
    ) -> Result<Token, UpstreamError> {
        let began = Instant::now();
        let slot = self.slot(repository);
        let mut slot = slot.lock().await;
        if let Some(token) = slot.good().filter(|token| Some(*token) != refused) {
            return Ok(token.clone());
        }
        // Whoever waited while the leader failed shares its failure: asking again one by one would be a storm.
        if let Some((error, at)) = &slot.failed
            && *at > began
        {
            return Err(again(error));
        }
        self.rested()?;
        let fetched = match challenge {
            Wants::Token(challenge) => fetch(issuer, repository, challenge).await,
            Wants::Login => show(issuer, refused).await,
        };
        match fetched {
            Ok((token, lifetime)) => {
                let until = Instant::now() + lifetime.saturating_sub(margin(lifetime));
                *slot = Slot { held: Some((token.clone(), until)), failed: None };
                Ok(token)
            }
            Err(error) => {
                if let Some(wait) = error.retry_after() {
                    let until = Instant::now() + wait;
                    *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some((again(&error), until));
                }
                *slot = Slot { held: None, failed: Some((again(&error), Instant::now())) };
                Err(error)
            }
        }
    }

    /// Refuses while the token server wants to be left alone (SECURITY R22): its limit is not one of repositories.
    fn rested(&self) -> Result<(), UpstreamError> {
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((error, until)) = &*rest else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Ok(())
        } else if matches!(error, UpstreamError::RateLimited { .. }) {
            Err(UpstreamError::RateLimited { retry_after: Some(left) })
        } else {
            Err(UpstreamError::Busy { retry_after: left })
        }
    }

    fn slot(&self, repository: &RepositoryName) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX && !slots.contains_key(repository) {
            // Those in use right now cannot be locked, and stay.
            slots.retain(|_, slot| slot.try_lock().map_or(true, |slot| slot.good().is_some()));
            if slots.len() >= SLOTS_MAX {
                slots.clear();
            }
        }
        slots.entry(repository.clone()).or_default().clone()
    }
}

fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).min(MARGIN_MAX)
}

/// The same error once more; the errors of a token endpoint are plain facts.
pub(crate) fn again(error: &UpstreamError) -> UpstreamError {
    match error {
        UpstreamError::NotFound => UpstreamError::NotFound,
        UpstreamError::Denied => UpstreamError::Denied,
        UpstreamError::RateLimited { retry_after } => {
            UpstreamError::RateLimited { retry_after: *retry_after }
        }
        UpstreamError::Busy { retry_after } => UpstreamError::Busy { retry_after: *retry_after },
        UpstreamError::Status(status) => UpstreamError::Status(*status),
        UpstreamError::Unreachable(why) => UpstreamError::Unreachable(why.clone()),
        UpstreamError::Resting => UpstreamError::Resting,
        UpstreamError::Offline => UpstreamError::Offline,
        UpstreamError::Timeout => UpstreamError::Timeout,
        UpstreamError::Truncated { got, expected } => {
            UpstreamError::Truncated { got: *got, expected: *expected }
        }
        UpstreamError::Mismatch { expected, actual } => {
            UpstreamError::Mismatch { expected: *expected, actual: actual.clone() }
        }
        UpstreamError::RangeRefused => UpstreamError::RangeRefused,
        UpstreamError::OtherPart => UpstreamError::OtherPart,
        UpstreamError::Changed => UpstreamError::Changed,
        UpstreamError::Login(trouble) => UpstreamError::Login(trouble.clone()),
        UpstreamError::Protocol(why) => UpstreamError::Protocol(why),
        UpstreamError::InvalidManifest(_) => UpstreamError::Protocol("its token is none"),
    }
}

/// Asks the realm for a token to pull from `repository`, and nothing else.
async fn fetch(
    issuer: Issuer<'_>,
    repository: &RepositoryName,
    challenge: &Challenge,
) -> Result<(Token, Duration), UpstreamError> {
    let Issuer { client, limits, upstream, login } = issuer;
    if !crate::redirect::same_origin(&challenge.realm, upstream)
        && !crate::redirect::is_loopback(&challenge.realm)
    {
        client.watch(&challenge.realm)?;
    }
    let scope = format!("repository:{repository}:pull");
    let asked = if let Some(desk) = login {
        desk.grant(issuer, challenge, &scope).await
    } else {
        let url = challenge.token_url(&scope);
        let request = Request { method: Method::GET, url, accept: "application/json", range: None };
        let response = request::send(client, limits, &request, None).await?;
        request::check(response, limits, true).await
    };
    let response = match asked {
        // The token server's 404 says nothing about the image.
        Err(UpstreamError::NotFound) => return Err(UpstreamError::Status(404)),
        checked => checked?,
    };
    let body = request::bounded(response, limits, TOKEN_BODY_BYTES_MAX).await?;
    read(&body.ok_or(UpstreamError::Protocol("its token is too large"))?)
}

/// Shows the login to the registry itself, which knows no tokens.
async fn show(issuer: Issuer<'_>, refused: Option<&Token>) -> Result<(Token, Duration), UpstreamError> {
    let desk = issuer.login.ok_or(UpstreamError::Denied)?;
    let header = desk.shown(issuer, refused.map(|token| &token.0)).await?;
    Ok((Token(header), LOGIN_SHOWN))
}

/// The answer of a token endpoint; `access_token` is OAuth 2.0's name for the same thing.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

fn read(body: &[u8]) -> Result<(Token, Duration), UpstreamError> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| UpstreamError::Protocol("its token answer is not JSON"))?;
    let text = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
    let token = Token::parse(&text).ok_or(UpstreamError::Protocol("its token is none"))?;
    Ok((token, lifetime(answer.expires_in.as_ref())))
}

/// How long a token lives. One that says it is already over, or talks nonsense, serves the request at hand alone.
fn lifetime(expires_in: Option<&serde_json::Value>) -> Duration {
    match expires_in {
        None | Some(serde_json::Value::Null) => LIFETIME_DEFAULT,
        Some(value) => {
            let seconds = value.as_f64().unwrap_or(0.0).clamp(0.0, LIFETIME_MAX.as_secs_f64());
            Duration::try_from_secs_f64(seconds).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_believed_within_reason() {
        for (body, seconds) in [
            (r#"{"token":"t"}"#, 60),
            (r#"{"token":"t","expires_in":null}"#, 60),
            (r#"{"token":"t","expires_in":300}"#, 300),
            (r#"{"token":"t","expires_in":0}"#, 0),
            (r#"{"token":"t","expires_in":-1}"#, 0),
            (r#"{"token":"t","expires_in":"soon"}"#, 0),
            (r#"{"token":"t","expires_in":9223372036854775808}"#, 3600),
            (r#"{"token":"t","expires_in":1e300}"#, 3600),
            (r#"{"token":"","access_token":"t","expires_in":300}"#, 300),
        ] {
            let (token, lifetime) = read(body.as_bytes()).unwrap();
            assert_eq!(token.header(), "Bearer t");
            assert_eq!(lifetime, Duration::from_secs(seconds), "{body}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX + 1));
        for body in
            ["", "{}", "<html>", r#"{"token":""}"#, r#"{"token":"a b"}"#, r#"{"token":"a\r\nx: y"}"#, &long]
        {
            assert!(matches!(read(body.as_bytes()), Err(UpstreamError::Protocol(_))), "{body:.40}");
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::parse("canary").unwrap();
        assert!(!format!("{token:?}").contains("canary"));
        assert!(!format!("{:?}", token.header()).contains("canary"), "nor does its header");
    }

    #[test]
    fn the_margin_leaves_short_tokens_usable() {
        assert_eq!(margin(Duration::from_mins(5)), Duration::from_secs(10));
        assert_eq!(margin(Duration::from_mins(1)), Duration::from_secs(6));
    }
}
