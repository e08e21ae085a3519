//! Decides what to answer, without a socket: the honest answer first, then every fault in force bends it.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sampan_oci::{Digest, RangeRequest};
use serde_json::json;

use crate::fault::{Fault, TokenRule};
use crate::record::Recorded;
use crate::shelf::Shelf;
use crate::token::{Asker, Tokens};
use crate::wire::{Route, parameter};

/// An answer, with everything that shall go wrong while it is written.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// Where in the whole the body begins: a part's first byte.
    pub(crate) from: u64,
    pub(crate) length: Length,
    pub(crate) end: End,
    pub(crate) stalls_before_headers: bool,
    /// Whether the answer never comes for all that comes before it.
    pub(crate) floods: bool,
    pub(crate) drip: Option<Duration>,
    /// Body bytes a second of this answer.
    pub(crate) rate: Option<u64>,
    /// Body bytes a second of all answers that have this.
    pub(crate) link: Option<u64>,
    /// Whether this is a refusal to answer more at once, and does not count as one of them.
    pub(crate) is_too_many: bool,
}

/// How the body's length is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// `Content-Length`, which matches `body`.
    Told,
    /// Not at all: the connection's end is the body's end.
    Untold,
    /// Two `Content-Length` headers that disagree.
    Twice,
    /// Not at all, and the body is repeated without end.
    Endless,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Whole.
    Whole,
    /// It waits after this many bytes until the registry heals.
    Stall(u64),
    /// FIN after this many bytes.
    Fin(u64),
    /// RST after this many bytes.
    Reset(u64),
}

impl Answer {
    fn new(status: u16, headers: &[(&str, &str)], body: Bytes) -> Self {
        Self {
            status,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body,
            from: 0,
            length: Length::Told,
            end: End::Whole,
            stalls_before_headers: false,
            floods: false,
            drip: None,
            rate: None,
            link: None,
            is_too_many: false,
        }
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": "the fake registry says so"}]}).to_string();
        Self::new(status, &[("content-type", "application/json")], Bytes::from(body))
    }

    fn redirect(location: &str) -> Self {
        Self::new(307, &[("location", location)], Bytes::new())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.into(), value.into()));
    }
}

/// What a request is answered from.
pub(crate) struct Desk<'a> {
    pub(crate) origin: &'a str,
    pub(crate) port: u16,
    pub(crate) shelf: &'a Shelf,
    pub(crate) tokens: &'a mut Tokens,
    /// The rule for tokens in force for any kind: the token endpoint needs its lifetime.
    pub(crate) token_rule: Option<TokenRule>,
    pub(crate) serials: &'a mut Serials,
    /// Answers to this kind of request that are on their way.
    pub(crate) in_flight: usize,
}

/// What must be another one each time.
#[derive(Debug, Default)]
pub(crate) struct Serials {
    redirects: u64,
    tags: u64,
    /// Requests for each address below `/cdn/`, path and query.
    visits: HashMap<String, u32>,
}

impl Desk<'_> {
    /// The answer to `request` under `faults`.
    pub(crate) fn answer(&mut self, request: &Recorded, faults: &[Fault]) -> Answer {
        let route = Route::of(&request.path);
        if let Some(refusal) = self.too_many(faults) {
            return refusal;
        }
        let early = self
            .refusal(request, route, faults)
            .or_else(|| self.expiry(request, route, faults))
            .or_else(|| self.replacement(request, route, faults));
        let mut answer = early.unwrap_or_else(|| {
            let whole = self.honest(request, route);
            ranged(whole, request.header("range"), faults)
        });
        for fault in faults {
            bend(&mut answer, fault);
        }
        if faults.contains(&Fault::ChangedEtag) && answer.header("etag").is_some() {
            self.serials.tags += 1;
            answer.set("etag", &format!(r#""changed-{}""#, self.serials.tags));
        }
        answer
    }

    /// 503 where so many answers are on their way that this one is too many.
    fn too_many(&self, faults: &[Fault]) -> Option<Answer> {
        faults.iter().find_map(|fault| {
            let Fault::TooManyConnections { max, retry_after } = fault else { return None };
            if self.in_flight < *max {
                return None;
            }
            let mut answer = Answer::error(503, "TOOMANYREQUESTS");
            if let Some(seconds) = retry_after {
                answer.set("retry-after", &seconds.to_string());
            }
            answer.is_too_many = true;
            Some(answer)
        })
    }

    /// 403 where an address was used more often than it is good for.
    fn expiry(&mut self, request: &Recorded, route: Route<'_>, faults: &[Fault]) -> Option<Answer> {
        let good_for = faults
            .iter()
            .find_map(|fault| if let Fault::ExpiresAfter(visits) = fault { Some(*visits) } else { None })?;
        let Route::Cdn { .. } = route else { return None };
        let address = format!("{}?{}", request.path, request.query);
        let visits = self.serials.visits.entry(address).or_default();
        *visits += 1;
        (*visits > good_for).then(|| Answer::error(403, "DENIED"))
    }

    /// 401 where a token is needed and not good.
    fn refusal(&mut self, request: &Recorded, route: Route<'_>, faults: &[Fault]) -> Option<Answer> {
        let open = matches!(route, Route::Token | Route::Cdn { .. } | Route::Other);
        if open {
            return None;
        }
        let authorization = request.header("authorization");
        let rule = faults
            .iter()
            .find_map(|fault| if let Fault::RequireToken(rule) = fault { Some(rule) } else { None });
        if faults.contains(&Fault::ExpiredToken) {
            self.tokens.spoil(authorization);
        }
        let private = route.repository().is_some_and(|name| self.shelf.is_private(name));
        let opened = self.tokens.opens_private(authorization, route.repository());
        let refused = faults.contains(&Fault::ExpiredToken)
            || private && !opened
            || (rule.is_some() && !opened && !self.tokens.accepts(authorization, route.repository()));
        refused.then(|| {
            let rule = rule.or(self.token_rule.as_ref()).cloned().unwrap_or_default();
            let realm = rule.realm.unwrap_or_else(|| format!("{}/token", self.origin));
            let scope =
                route.repository().map(|r| format!(r#",scope="repository:{r}:pull""#)).unwrap_or_default();
            let honest = format!(r#"Bearer realm="{realm}",service="fake"{scope}"#);
            let mut answer = Answer::error(401, "UNAUTHORIZED");
            answer.set("www-authenticate", &rule.challenge.unwrap_or(honest));
            answer
        })
    }

    /// Faults that answer something else altogether.
    fn replacement(&mut self, request: &Recorded, route: Route<'_>, faults: &[Fault]) -> Option<Answer> {
        faults.iter().find_map(|fault| {
            Some(match fault {
                Fault::Status(status) => Answer::error(*status, "UNKNOWN"),
                Fault::TooManyRequests { retry_after } => {
                    let mut answer = Answer::error(429, "TOOMANYREQUESTS");
                    if let Some(seconds) = retry_after {
                        answer.set("retry-after", &seconds.to_string());
                    }
                    answer
                }
                Fault::Busy { retry_after } => {
                    let mut answer = Answer::error(503, "UNAVAILABLE");
                    answer.set("retry-after", retry_after);
                    answer.set("date", "Sat, 21 Nov 2026 12:00:00 GMT");
                    answer
                }
                Fault::Html => {
                    let page = Bytes::from_static(
                        b"<!doctype html><title>Welcome</title><p>Please log in to the network.",
                    );
                    Answer::new(200, &[("content-type", "text/html")], page)
                }
                Fault::Location(location) => Answer::redirect(location),
                Fault::ReferrersInPages(size) => {
                    let Route::Referrers { repository, subject } = route else { return None };
                    self.page_of_referrers(repository, subject, &request.query, *size)?
                }
                Fault::RedirectLoop => Answer::redirect(&request.path),
                Fault::RedirectHops(hops) => {
                    let Route::Blob { digest, .. } = route else { return None };
                    Answer::redirect(&format!("/cdn/{digest}?hops={}", hops.saturating_sub(1)))
                }
                Fault::RedirectTo(origin) => {
                    if let Route::Blob { digest, .. } = route {
                        self.serials.redirects += 1;
                        let serial = self.serials.redirects;
                        Answer::redirect(&format!("{origin}/cdn/{digest}?Signature=secret&serial={serial}"))
                    } else if matches!(route, Route::Token | Route::Cdn { .. }) {
                        return None;
                    } else {
                        Answer::redirect(&format!("{origin}{}", request.path))
                    }
                }
                Fault::RefuseConnection
                | Fault::StallBeforeHeaders
                | Fault::StallAfter(_)
                | Fault::CutAfter(_)
                | Fault::ResetAfter(_)
                | Fault::Drip { .. }
                | Fault::Rate { .. }
                | Fault::RateTotal { .. }
                | Fault::TooManyConnections { .. }
                | Fault::ExpiresAfter(_)
                | Fault::NoTotal
                | Fault::ChangedEtag
                | Fault::CorruptByte(_)
                | Fault::ShortBody
                | Fault::LongBody
                | Fault::EndlessBody
                | Fault::NoLength
                | Fault::TwoLengths
                | Fault::WrongDigestHeader
                | Fault::NoDigestHeader
                | Fault::RequireToken(_)
                | Fault::ExpiredToken
                | Fault::RangeIgnored
                | Fault::RangeUnsatisfiable
                | Fault::WrongContentRange
                | Fault::WrongTotal
                | Fault::UnaskedPartial
                | Fault::ContentEncoding
                | Fault::HugeHeader(_)
                | Fault::ManyHeaders(_)
                | Fault::InformationalFlood
                | Fault::TruncatedChunked
                | Fault::Multipart => return None,
            })
        })
    }

    fn honest(&mut self, request: &Recorded, route: Route<'_>) -> Answer {
        let query = request.query.as_str();
        match route {
            Route::Ping => {
                Answer::new(200, &[("content-type", "application/json")], Bytes::from_static(b"{}"))
            }
            Route::Manifest { repository, reference } => match self.shelf.manifest(repository, reference) {
                Some((digest, document)) => {
                    let headers = [
                        ("content-type", &*document.content_type),
                        ("docker-content-digest", &*digest.to_string()),
                    ];
                    Answer::new(200, &headers, document.bytes)
                }
                None => Answer::error(404, "MANIFEST_UNKNOWN"),
            },
            Route::Blob { repository, digest } => blob(self.shelf.blob(repository, digest)),
            Route::Cdn { digest } => {
                let hops: u32 = parameter(query, "hops").and_then(|n| n.parse().ok()).unwrap_or(0);
                if hops > 0 {
                    return Answer::redirect(&format!("/cdn/{digest}?hops={}", hops - 1));
                }
                blob(self.shelf.held(digest))
            }
            Route::Tags { repository } => self.tags(repository, query),
            Route::Referrers { repository, subject } => {
                let artifact_type = parameter(query, "artifactType");
                match self.shelf.referrers(repository, subject, artifact_type.as_deref()) {
                    Some(index) => {
                        let content_type = ("content-type", "application/vnd.oci.image.index.v1+json");
                        let mut answer = Answer::new(200, &[content_type], index);
                        if artifact_type.is_some() {
                            answer.set("oci-filters-applied", "artifactType");
                        }
                        answer
                    }
                    None => Answer::error(400, "DIGEST_INVALID"),
                }
            }
            Route::Token => {
                let scope = parameter(query, "scope").unwrap_or_default();
                let token = match self.tokens.asker(request.header("authorization")) {
                    Asker::Nobody => self.tokens.issue(self.port, &scope),
                    Asker::Known => self.tokens.issue_to_login(self.port, &scope),
                    Asker::Wrong => return Answer::error(401, "UNAUTHORIZED"),
                };
                let mut body = json!({"token": token, "access_token": token});
                let lifetime = self.token_rule.as_ref().map_or(Some(300), |rule| rule.expires_in);
                if let Some(seconds) = lifetime {
                    body["expires_in"] = seconds.into();
                }
                Answer::new(200, &[("content-type", "application/json")], Bytes::from(body.to_string()))
            }
            Route::Other => Answer::error(404, "UNSUPPORTED"),
        }
    }

    /// A page of at most `size` referrers, with where the next one is.
    fn page_of_referrers(&self, repository: &str, subject: &str, query: &str, size: usize) -> Option<Answer> {
        let all = self.shelf.referrers(repository, subject, None)?;
        let mut index: serde_json::Value = serde_json::from_slice(&all).ok()?;
        let manifests = index["manifests"].as_array()?.clone();
        let page: usize = parameter(query, "page").and_then(|page| page.parse().ok()).unwrap_or(0);
        let mut pages = manifests.chunks(size);
        index["manifests"] = pages.nth(page).unwrap_or_default().into();
        let content_type = ("content-type", "application/vnd.oci.image.index.v1+json");
        let mut answer = Answer::new(200, &[content_type], Bytes::from(index.to_string()));
        if pages.next().is_some() {
            let next = format!("/v2/{repository}/referrers/{subject}?page={}", page + 1);
            answer.set("link", &format!(r#"<{next}>; rel="next""#));
        }
        Some(answer)
    }

    fn tags(&self, repository: &str, query: &str) -> Answer {
        let n = parameter(query, "n").and_then(|n| n.parse().ok());
        let Some((tags, more)) = self.shelf.tags(repository, n, parameter(query, "last").as_deref()) else {
            return Answer::error(404, "NAME_UNKNOWN");
        };
        let body = Bytes::from(json!({"name": repository, "tags": tags}).to_string());
        let mut answer = Answer::new(200, &[("content-type", "application/json")], body);
        if let (true, Some(n), Some(last)) = (more, n, tags.last()) {
            answer.set("link", &format!(r#"</v2/{repository}/tags/list?n={n}&last={last}>; rel="next""#));
        }
        answer
    }
}

fn blob(found: Option<(Digest, Bytes)>) -> Answer {
    match found {
        Some((digest, bytes)) => {
            let headers = [
                ("content-type", "application/octet-stream"),
                ("docker-content-digest", &*digest.to_string()),
                ("accept-ranges", "bytes"),
                ("etag", &*format!(r#""{digest}""#)),
            ];
            Answer::new(200, &headers, bytes)
        }
        None => Answer::error(404, "BLOB_UNKNOWN"),
    }
}

/// Which bytes of its blob a good answer carries; `None` for anything else.
pub(crate) fn blob_range(request: &Recorded, answer: &Answer, shelf: &Shelf) -> Option<(Digest, Range<u64>)> {
    let (Route::Blob { digest, .. } | Route::Cdn { digest }) = Route::of(&request.path) else { return None };
    let (digest, bytes) = shelf.held(digest)?;
    let size = bytes.len() as u64;
    match (answer.status, RangeRequest::parse(request.header("range"), size)) {
        (206, RangeRequest::Part { start, end }) => Some((digest, start..end)),
        (200 | 206, _) => Some((digest, 0..size)),
        _ => None,
    }
}

/// Cuts the part out that `Range` asks for, as far as the faults allow.
fn ranged(mut answer: Answer, range: Option<&str>, faults: &[Fault]) -> Answer {
    let size = answer.body.len() as u64;
    if answer.status != 200 || faults.contains(&Fault::RangeIgnored) {
        return answer;
    }
    let unasked = faults.contains(&Fault::UnaskedPartial);
    let (start, end) = match RangeRequest::parse(range, size) {
        RangeRequest::Whole if unasked => (0, size),
        RangeRequest::Whole => return answer,
        RangeRequest::Part { .. } if faults.contains(&Fault::RangeUnsatisfiable) => {
            return unsatisfiable(size);
        }
        RangeRequest::Unsatisfiable => return unsatisfiable(size),
        RangeRequest::Part { start, end } => (start, end),
    };
    let first = start + u64::from(faults.contains(&Fault::WrongContentRange));
    let total = if faults.contains(&Fault::NoTotal) {
        "*".to_owned()
    } else {
        (size + u64::from(faults.contains(&Fault::WrongTotal))).to_string()
    };
    answer.status = 206;
    answer.body = answer.body.slice(at(start)..at(end));
    answer.from = start;
    answer.set("content-range", &format!("bytes {first}-{}/{total}", end - 1));
    answer
}

fn unsatisfiable(size: u64) -> Answer {
    let mut answer = Answer::error(416, "RANGE_INVALID");
    answer.set("content-range", &format!("bytes */{size}"));
    answer
}

/// Faults that bend an answer: its body, its headers, or how it is written.
fn bend(answer: &mut Answer, fault: &Fault) {
    match fault {
        Fault::StallBeforeHeaders => answer.stalls_before_headers = true,
        Fault::InformationalFlood => answer.floods = true,
        Fault::StallAfter(bytes) => answer.end = End::Stall(*bytes),
        Fault::CutAfter(bytes) => answer.end = End::Fin(*bytes),
        Fault::ResetAfter(bytes) => answer.end = End::Reset(*bytes),
        Fault::Drip { every } => answer.drip = Some(*every),
        Fault::Rate { bytes_per_second } => answer.rate = Some(*bytes_per_second),
        Fault::RateTotal { bytes_per_second } => answer.link = Some(*bytes_per_second),
        Fault::CorruptByte(position) => {
            // Who asks for parts must get the same wrong byte as who asks for the whole: a byte counted from the beginning
            // of each part would spare every part that is shorter.
            let within = position.checked_sub(answer.from).map(at);
            let mut bytes = BytesMut::from(&answer.body[..]);
            if let Some(byte) = within.and_then(|at| bytes.get_mut(at)) {
                *byte ^= 0x01;
            }
            answer.body = bytes.freeze();
        }
        Fault::ShortBody => answer.body.truncate(answer.body.len().saturating_sub(1)),
        Fault::LongBody => {
            let mut bytes = BytesMut::from(&answer.body[..]);
            bytes.extend_from_slice(b"!");
            answer.body = bytes.freeze();
        }
        Fault::EndlessBody => answer.length = Length::Endless,
        Fault::NoLength => answer.length = Length::Untold,
        Fault::TwoLengths => answer.length = Length::Twice,
        Fault::WrongDigestHeader => {
            answer.set("docker-content-digest", &Digest::of(b"something else").to_string());
        }
        Fault::NoDigestHeader => answer.headers.retain(|(name, _)| name != "docker-content-digest"),
        Fault::ContentEncoding => answer.set("content-encoding", "gzip"),
        Fault::HugeHeader(bytes) => answer.set("x-huge", &"x".repeat(*bytes)),
        Fault::ManyHeaders(count) => (0..*count).for_each(|n| answer.set(&format!("x-soup-{n}"), "1")),
        Fault::TruncatedChunked => {
            let first = answer.body.slice(..answer.body.len().min(1_000_000));
            let size = format!("{:x}\r\n", first.len());
            answer.body = [size.as_bytes(), &first, b"\r\n"].concat().into();
            answer.set("transfer-encoding", "chunked");
            answer.length = Length::Untold;
        }
        Fault::Multipart if answer.status == 206 => {
            let range = answer.header("content-range").unwrap_or_default();
            let head = format!("--part\r\nContent-Range: {range}\r\n\r\n");
            answer.body = [head.as_bytes(), &answer.body, b"\r\n--part--\r\n"].concat().into();
            answer.headers.retain(|(name, _)| name != "content-range");
            answer.set("content-type", "multipart/byteranges; boundary=part");
        }
        Fault::RefuseConnection
        | Fault::Status(_)
        | Fault::TooManyRequests { .. }
        | Fault::TooManyConnections { .. }
        | Fault::Busy { .. }
        | Fault::RequireToken(_)
        | Fault::ExpiredToken
        | Fault::ExpiresAfter(_)
        | Fault::NoTotal
        | Fault::ChangedEtag
        | Fault::RedirectLoop
        | Fault::RedirectHops(_)
        | Fault::RedirectTo(_)
        | Fault::Location(_)
        | Fault::RangeIgnored
        | Fault::RangeUnsatisfiable
        | Fault::WrongContentRange
        | Fault::WrongTotal
        | Fault::UnaskedPartial
        | Fault::Multipart
        | Fault::ReferrersInPages(_)
        | Fault::Html => {}
    }
}

/// A body position as an index; positions beyond memory are beyond every body.
pub(crate) fn at(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
