//! The little of HTTP/1.1 a fake registry needs: request heads in, response heads out.

use std::fmt::Write as _;
use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::record::{Kind, Recorded};

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Reads the next request's head; `None` when the client closed the connection between requests.
/// Bytes after the head stay in `buffer` for the next call. Bodies of requests are not supported: pulls have none.
pub(crate) async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Recorded>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return parse(&head).map(Some).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData));
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(head: &[u8]) -> Option<Recorded> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.trim_end().split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?, first.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Recorded {
        kind: Route::of(path).kind(),
        method: method.into(),
        path: path.into(),
        query: query.into(),
        headers,
    })
}

/// A path, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Ping,
    Manifest { repository: &'a str, reference: &'a str },
    Blob { repository: &'a str, digest: &'a str },
    Tags { repository: &'a str },
    Referrers { repository: &'a str, subject: &'a str },
    Token,
    Cdn { digest: &'a str },
    Other,
}

impl<'a> Route<'a> {
    pub(crate) fn of(path: &'a str) -> Self {
        if path == "/token" {
            return Self::Token;
        }
        if let Some(digest) = path.strip_prefix("/cdn/") {
            return Self::Cdn { digest };
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return Self::Other };
        if rest.is_empty() {
            return Self::Ping;
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            return Self::Tags { repository };
        }
        let Some((front, last)) = rest.rsplit_once('/') else { return Self::Other };
        match front.rsplit_once('/') {
            Some((repository, "manifests")) => Self::Manifest { repository, reference: last },
            Some((repository, "blobs")) => Self::Blob { repository, digest: last },
            Some((repository, "referrers")) => Self::Referrers { repository, subject: last },
            _ => Self::Other,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Ping => Kind::Ping,
            Self::Manifest { .. } => Kind::Manifest,
            Self::Blob { .. } => Kind::Blob,
            Self::Tags { .. } => Kind::Tags,
            Self::Referrers { .. } => Kind::Referrers,
            Self::Token => Kind::Token,
            Self::Cdn { .. } => Kind::Cdn,
            Self::Other => Kind::Other,
        }
    }

    /// The repository a token must be for.
    pub(crate) fn repository(self) -> Option<&'a str> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Tags { repository }
            | Self::Referrers { repository, .. } => Some(repository),
            Self::Ping | Self::Token | Self::Cdn { .. } | Self::Other => None,
        }
    }
}

/// The value of a query parameter, percent-decoded.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| decode(v))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                std::str::from_utf8(&hex)
                    .ok()
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                    .unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A response head as bytes.
pub(crate) fn head(status: u16, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Odd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart_by_their_last_parts() {
        assert_eq!(Route::of("/v2/"), Route::Ping);
        assert_eq!(
            Route::of("/v2/a/blobs/manifests/x"),
            Route::Manifest { repository: "a/blobs", reference: "x" },
            "a repository may be called `blobs`"
        );
        assert_eq!(Route::of("/v2/a/b/tags/list"), Route::Tags { repository: "a/b" });
        assert_eq!(Route::of("/v2/a/referrers/d"), Route::Referrers { repository: "a", subject: "d" });
        assert_eq!(Route::of("/favicon.ico"), Route::Other);
    }

    #[test]
    fn parameters_are_decoded() {
        let query = "service=x&scope=repository%3Aa%2Fb%3Apull&n=";
        assert_eq!(parameter(query, "scope").unwrap(), "repository:a/b:pull");
        assert_eq!(parameter(query, "n").unwrap(), "");
        assert_eq!(parameter(query, "last"), None);
    }
}
