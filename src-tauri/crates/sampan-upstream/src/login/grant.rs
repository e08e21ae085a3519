//! Asking a token server with a login (distribution, "Token Authentication"; with an identity token "OAuth2 Token
//! Authentication").

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Desk, Login, LoginTrouble, realm};
use crate::UpstreamError;
use crate::challenge::Challenge;
use crate::request::{self, Request};
use crate::token::Issuer;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: &str = "application/json";

impl Desk {
    /// Asks the realm of a challenge for a token for `scope`. Its answer is not yet looked at, but for being one.
    pub(crate) async fn grant(
        &self,
        issuer: Issuer<'_>,
        challenge: &Challenge,
        scope: &str,
    ) -> Result<Response, UpstreamError> {
        self.may_meet(issuer.upstream)?;
        realm::allow(&challenge.realm, issuer.upstream, self.realm())?;
        let login = self.login().await?;
        let asked = match &login {
            Login::Password { .. } => {
                let header = login.basic().ok_or(LoginTrouble::Refused)?;
                let url = challenge.token_url(scope);
                let request = Request { method: Method::GET, url, accept: JSON, range: None };
                request::send_as(issuer.client, issuer.limits, &request, header).await
            }
            Login::Identity(token) => refresh(issuer, challenge, scope, token.reveal()).await,
        };
        let response = asked?;
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                request::finish(response, issuer.limits).await;
                Err(self.refused().await.into())
            }
            // The login is good, and not for this repository: others it does open.
            StatusCode::FORBIDDEN => {
                request::finish(response, issuer.limits).await;
                Err(UpstreamError::Denied)
            }
            // What OAuth 2.0 says of a refresh token that is over (RFC 6749, section 5.2).
            StatusCode::BAD_REQUEST if matches!(login, Login::Identity(_)) => {
                request::finish(response, issuer.limits).await;
                Err(self.refused().await.into())
            }
            _ => request::check(response, issuer.limits, true).await,
        }
    }

    /// The header that shows the login to the registry itself, where it asks for that. `refused`: the one it did not take.
    pub(crate) async fn shown(
        &self,
        issuer: Issuer<'_>,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, UpstreamError> {
        self.may_meet(issuer.upstream)?;
        let header = self.login().await?.basic().ok_or(LoginTrouble::Refused)?;
        if refused == Some(&header) {
            return Err(self.refused().await.into());
        }
        Ok(header)
    }
}

/// Trades an identity token for one that opens `scope`.
async fn refresh(
    issuer: Issuer<'_>,
    challenge: &Challenge,
    scope: &str,
    token: &str,
) -> Result<Response, UpstreamError> {
    let Issuer { client, limits, .. } = issuer;
    // The realm's own query is not taken over: everything is in the body.
    let mut url = challenge.realm.clone();
    url.set_query(None);
    url.set_fragment(None);
    let mut body = Zeroizing::new(String::with_capacity(3 * token.len() + 1024));
    let fields = [
        ("grant_type", "refresh_token"),
        ("service", challenge.service.as_deref().unwrap_or_default()),
        ("client_id", "sampan"),
        ("scope", scope),
        ("refresh_token", token),
    ];
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        body.push_str(name);
        body.push('=');
        escape(value, &mut body);
    }
    let sent = client
        .http(&url)
        .post(url)
        .header(ACCEPT, HeaderValue::from_static(JSON))
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .header(CONTENT_TYPE, FORM)
        .body(body.as_bytes().to_vec())
        .send();
    let answer = client.online(timeout(limits.headers, sent)).await?;
    answer.map_err(|_| UpstreamError::Timeout)?.map_err(|error| UpstreamError::of_request(&error))
}

/// Writes a value as a form does, every byte but the plainest as `%XX`.
fn escape(value: &str, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_carries_every_byte() {
        let mut escaped = String::new();
        escape("repository:a/b:pull ê&=+", &mut escaped);
        assert_eq!(escaped, "repository%3Aa%2Fb%3Apull%20%C3%AA%26%3D%2B");
    }
}
