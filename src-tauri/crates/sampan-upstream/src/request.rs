//! One request and its answer's head, under the limits; nothing of tokens or redirects.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::fmt::rfc2822;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, DATE, HeaderName, HeaderValue,
    RANGE, RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::timeout;

use crate::body::Reader;
use crate::error::died_before_answer;
use crate::limits::{FINISH, HEAD_BYTES_MAX, Limits, RETRY_AFTER_MAX};
use crate::token::Token;
use crate::{Client, UpstreamError};

/// The most of an error's body that is read, so that its connection can be used again.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What to ask. Every header that is not written here is not sent (SECURITY R23).
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: &'static str,
    pub(crate) range: Option<String>,
}

/// Sends a request and waits for the answer's head, whatever its status. A connection that dies under it before the
/// answer begins is replaced once.
pub(crate) async fn send(
    client: &Client,
    limits: &Limits,
    request: &Request,
    token: Option<&Token>,
) -> Result<Response, UpstreamError> {
    send_with(client, limits, request, token.map(Token::header)).await
}

/// The same with a login in place of a token: for a token server, or a registry that knows no tokens.
pub(crate) async fn send_as(
    client: &Client,
    limits: &Limits,
    request: &Request,
    login: HeaderValue,
) -> Result<Response, UpstreamError> {
    send_with(client, limits, request, Some(login)).await
}

async fn send_with(
    client: &Client,
    limits: &Limits,
    request: &Request,
    authorization: Option<HeaderValue>,
) -> Result<Response, UpstreamError> {
    let attempt = || build(client, request, authorization.clone()).send();
    let twice = async {
        match attempt().await {
            // GET and HEAD may be sent again. Once: an upstream that always does this is broken.
            Err(error) if died_before_answer(&error) => attempt().await,
            result => result,
        }
    };
    let answer = client.online(timeout(limits.headers, twice)).await?;
    let response =
        answer.map_err(|_| UpstreamError::Timeout)?.map_err(|error| UpstreamError::of_request(&error))?;
    let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > HEAD_BYTES_MAX {
        return Err(UpstreamError::Protocol("its answer's head is too large"));
    }
    Ok(response)
}

fn build(client: &Client, request: &Request, authorization: Option<HeaderValue>) -> reqwest::RequestBuilder {
    let mut builder = client
        .http(&request.url)
        .request(request.method.clone(), request.url.clone())
        .header(ACCEPT, HeaderValue::from_static(request.accept))
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(range) = &request.range {
        builder = builder.header(RANGE, range);
    }
    if let Some(authorization) = authorization {
        builder = builder.header(AUTHORIZATION, authorization);
    }
    builder
}

/// Lets a good answer pass and makes an error of every other one. `at_home` is false for the target of a redirect.
pub(crate) async fn check(
    response: Response,
    limits: &Limits,
    at_home: bool,
) -> Result<Response, UpstreamError> {
    let status = response.status();
    if status.is_success() {
        let encoded = response.headers().get_all(CONTENT_ENCODING).iter().any(|value| value != "identity");
        return if encoded {
            Err(UpstreamError::Protocol("it compressed the body unasked"))
        } else {
            Ok(response)
        };
    }
    let retry_after = asked_to_wait(&response);
    finish(response, limits).await;
    Err(match (status, retry_after) {
        (StatusCode::NOT_FOUND, _) if at_home => UpstreamError::NotFound,
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if at_home => UpstreamError::Denied,
        (StatusCode::TOO_MANY_REQUESTS, retry_after) => UpstreamError::RateLimited { retry_after },
        (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after)) => UpstreamError::Busy { retry_after },
        (StatusCode::RANGE_NOT_SATISFIABLE, _) => UpstreamError::RangeRefused,
        _ if status.is_redirection() => UpstreamError::Protocol("it redirected what it must answer itself"),
        (other, _) => UpstreamError::Status(other.as_u16()),
    })
}

/// How long an answer asks to wait, where it does.
pub(crate) fn asked_to_wait(response: &Response) -> Option<Duration> {
    header(response, &RETRY_AFTER).and_then(|text| wait(text, header(response, &DATE)))
}

/// How long `Retry-After` asks to wait, in seconds or until a date (RFC 9110, section 10.2.3); at most
/// [`RETRY_AFTER_MAX`]. A date is measured against the answer's own `Date`: our clock may be wrong.
fn wait(retry_after: &str, date: Option<&str>) -> Option<Duration> {
    let text = retry_after.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are more seconds than are believed.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let read = |text: &str| rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok();
        // A date that is over already asks for no wait.
        Duration::try_from(read(text)?.duration_since(read(date?)?)).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Refuses every success but a whole body: a 206 nobody asked for, a 204.
pub(crate) fn whole(response: Response) -> Result<Response, UpstreamError> {
    if response.status() == StatusCode::OK {
        Ok(response)
    } else {
        Err(UpstreamError::Protocol("it sent something else than the whole"))
    }
}

/// Reads the rest of an answer nobody wants: connections are dear on slow links, and only an empty one is used again.
pub(crate) async fn finish(response: Response, limits: &Limits) {
    if content_length(&response).is_some_and(|size| size <= ERROR_BYTES_MAX as u64) {
        // Only the connection is at stake.
        let _ = timeout(FINISH, bounded(response, limits, ERROR_BYTES_MAX)).await;
    }
}

/// Reads a whole body of at most `max` bytes; `None` if it is larger, as soon as that shows.
pub(crate) async fn bounded(
    response: Response,
    limits: &Limits,
    max: usize,
) -> Result<Option<Bytes>, UpstreamError> {
    if content_length(&response).is_some_and(|size| size > max as u64) {
        return Ok(None);
    }
    let expected = content_length(&response);
    let mut reader = Reader::new(response, limits.clone(), expected);
    let mut bytes = BytesMut::new();
    while let Some(piece) = reader.next().await? {
        if bytes.len() + piece.len() > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes.freeze()))
}

/// The `Content-Length` header. Not what reqwest tells: that is 0 for the answer to a HEAD.
pub(crate) fn content_length(response: &Response) -> Option<u64> {
    header(response, &CONTENT_LENGTH)?.parse().ok()
}

/// A header as text, if it is there and printable.
pub(crate) fn header<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        const NOW: Option<&str> = Some("Sat, 21 Nov 2026 12:00:00 GMT");
        for (text, date, seconds) in [
            ("0", None, Some(0)),
            (" 7 ", None, Some(7)),
            ("301", None, Some(300)),
            ("99999999999999999999999", None, Some(300)),
            ("Sat, 21 Nov 2026 12:00:09 GMT", NOW, Some(9)),
            ("Sat, 21 Nov 2026 11:59:00 GMT", NOW, Some(0)),
            ("Sun, 22 Nov 2026 12:00:00 GMT", NOW, Some(300)),
            ("Sat, 21 Nov 2026 12:00:09 GMT", None, None),
            ("Sat, 21 Nov 2026 12:00:09 GMT", Some("yesterday"), None),
            ("-1", NOW, None),
            ("1.5", NOW, None),
            ("soon", NOW, None),
            ("", NOW, None),
        ] {
            assert_eq!(wait(text, date), seconds.map(Duration::from_secs), "{text:?} at {date:?}");
        }
    }
}
