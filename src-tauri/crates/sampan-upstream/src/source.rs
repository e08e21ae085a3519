//! One blob, asked for in many requests that share what the first of them learned.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use sampan_oci::{Digest, RepositoryName};
use tokio::time::{Instant, timeout};

use crate::conversation::{Conversation, Landed};
use crate::limits::RENEWALS_MAX;
use crate::part::{Part, content_range, whole_body};
use crate::request::{Request, check, content_length, finish};
use crate::token::again;
use crate::{BlobBody, UpstreamError};

/// One blob of one upstream. Cheap to clone; clones share the address that the registry led to, and what that address
/// said about the blob. Requests go out side by side, each on a connection of its own.
///
/// # Addresses that expire (SECURITY R36)
/// The first request asks the registry; the others wait for where it is led, and go straight there, without a token.
/// An address has expired when it answers 401, 403, 404 or 410; or 400, if the registry did not lead there just now:
/// object stores say so of signatures that are over (`ExpiredToken`), and to questions they never understand. Then one
/// request asks the registry for a new address while the others wait.
///
/// That happens at most five times in a row, back to back, without an answer that brings bytes. Then all who ask or
/// wait get the last address's status as one [`UpstreamError::Status`]. A call made after that begins anew and asks the
/// registry again, up to six requests each time: pausing in between is the caller's part. Addresses that bring bytes
/// may expire as often as they like.
///
/// # Parts that lie (SECURITY R35)
/// Parts are asked for as closed ranges, whatever `Accept-Ranges` says. What is not the part asked for is never handed
/// on, and nothing is asked for again here; what the bytes are worth, the digest of the whole tells.
/// - [`UpstreamError::RangeRefused`]: a 416, or a 200 to [`part`](Self::part): it gives no parts.
/// - [`UpstreamError::Changed`]: the strong `ETag` is not the one this host told before, or the size not the one an
///   honest answer told before. It is looked at first, so a lie about the size is `Changed` once the size was told.
/// - [`UpstreamError::OtherPart`]: a 206 whose `Content-Range` is missing, cannot be read, is not the range asked for or
///   has another total than the size known; whose `Content-Length` is not that of its range, or whose body goes on
///   beyond it; and a 206 to a question for the whole.
/// - [`UpstreamError::Protocol`]: everything else, also a whole (200) of another size than the one known.
#[derive(Clone)]
pub struct BlobSource(Arc<Source>);

struct Source {
    conversation: Arc<Conversation>,
    repository: RepositoryName,
    digest: Digest,
    way: Mutex<Way>,
    /// Held by the one that asks the registry for an address; no other lock is held across an answer. It says who was
    /// last told to come later.
    resolving: tokio::sync::Mutex<Option<Later>>,
    seen: Mutex<Seen>,
}

/// That the registry wants to be asked later, and when it said so.
type Later = (UpstreamError, Instant);

/// Where the blob is asked for.
#[derive(Clone, Default)]
struct Way {
    address: Address,
    /// Grows with every change of `address`: who was refused by an older one just takes the newer one.
    generation: u32,
    /// Addresses that expired since one was good, and the status of the last of them.
    expired: u32,
    status: u16,
    /// Grows when too many expired: whoever began to ask before is told so, whoever comes later may try again.
    round: u32,
}

#[derive(Clone, Default)]
enum Address {
    /// The registry has not been asked yet, or what it said is no longer true.
    #[default]
    Unknown,
    /// The registry gives the blob itself.
    Home,
    /// The registry led here. The address may be signed: it is shown to nobody.
    Target(Url),
}

/// What answers told about the blob: enough to notice that a later answer is about another one.
#[derive(Debug, Default)]
struct Seen {
    /// The strong ETag by host: two hosts need not agree on one.
    tags: HashMap<String, HeaderValue>,
    size: Option<u64>,
}

/// What one answer tells.
struct Witness {
    host: String,
    tag: Option<HeaderValue>,
    size: Option<u64>,
}

impl BlobSource {
    pub(crate) fn new(conversation: Arc<Conversation>, repository: RepositoryName, digest: Digest) -> Self {
        Self(Arc::new(Source {
            conversation,
            repository,
            digest,
            way: Mutex::default(),
            resolving: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        }))
    }

    /// Asks for the first `len` bytes of the blob; for all of it if `len` is `None` or 0, or reaches to its end where
    /// its `size` in bytes is known. The answer is that part, with the blob's size; or the whole
    /// ([`BlobBody::whole`]), from an upstream that gives no parts or does not tell sizes with them.
    /// # Errors
    /// [`UpstreamError`]; [`UpstreamError::OtherPart`] for another part, or a part of another size than `size`;
    /// [`UpstreamError::Protocol`] for a whole of another size.
    pub async fn begin(&self, len: Option<u64>, size: Option<u64>) -> Result<BlobBody, UpstreamError> {
        self.0.conversation.opened(self.0.begin(len, size).await)
    }

    /// Asks for the bytes `range` (end exclusive) of a blob of `size` bytes, as a closed range (SECURITY R35). Only an
    /// honest 206 is accepted.
    /// # Errors
    /// [`UpstreamError::RangeRefused`] if the blob can only be had whole; [`UpstreamError::OtherPart`] when another part
    /// comes; [`UpstreamError::Changed`] if the blob is not the one of earlier answers; [`UpstreamError::Protocol`] for an
    /// empty range.
    pub async fn part(&self, range: Range<u64>, size: u64) -> Result<BlobBody, UpstreamError> {
        let part = Part::of(range, size)?;
        self.0.conversation.opened(self.0.part(part).await)
    }
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobSource")
            .field("repository", &self.0.repository)
            .field("digest", &self.0.digest)
            .finish_non_exhaustive()
    }
}

impl Source {
    async fn begin(&self, len: Option<u64>, size: Option<u64>) -> Result<BlobBody, UpstreamError> {
        let len = len.filter(|len| *len > 0 && size.is_none_or(|size| size > *len));
        if let Some(len) = len {
            let asked = Part { start: 0, end: Some(len), size };
            match self.ask(Some(asked.header())).await {
                // An empty blob has no first byte, and some registries like no ranges at all.
                Err(UpstreamError::RangeRefused) => {}
                Err(error) => return Err(error),
                Ok((response, url)) => {
                    if response.status() == StatusCode::OK {
                        return self.take(response, &url, None, size);
                    }
                    let told = content_range(&response).and_then(|told| told.total);
                    if let Some(total) = size.or(told) {
                        let part = Part { end: Some(len.min(total)), size: Some(total), ..asked };
                        return self.take(response, &url, Some(part), size);
                    }
                    // A part of who knows how much: without an end in sight only the whole is of use.
                }
            }
        }
        let (response, url) = self.ask(None).await?;
        self.take(response, &url, None, size)
    }

    async fn part(&self, part: Part) -> Result<BlobBody, UpstreamError> {
        let (response, url) = self.ask(Some(part.header())).await?;
        self.take(response, &url, Some(part), part.size)
    }

    /// Asks wherever the blob is now. Returns a good answer, and which address gave it.
    async fn ask(&self, range: Option<String>) -> Result<(Response, Url), UpstreamError> {
        let limits = self.conversation.limits();
        let request = self.conversation.blob_request(Method::GET, &self.repository, &self.digest, range)?;
        let round = self.way().round;
        loop {
            let way = self.way().clone();
            let turn = match &way.address {
                Address::Unknown if way.round != round => {
                    return Err(UpstreamError::Status(way.status));
                }
                Address::Unknown => Some(self.turn().await?),
                Address::Home | Address::Target(_) => None,
            };
            if turn.is_some() && self.way().generation != way.generation {
                continue;
            }
            let landed = match &way.address {
                Address::Unknown | Address::Home => {
                    self.conversation.follow(request.clone(), &self.repository).await?
                }
                Address::Target(url) => {
                    self.conversation.revisit(Request { url: url.clone(), ..request.clone() }).await?
                }
            };
            self.learn_way(&way, &landed);
            if has_expired(&way.address, &landed) {
                drop(turn);
                finish(landed.response, limits).await;
                continue;
            }
            let checked = check(landed.response, limits, landed.at_home).await;
            if let (Some(mut turn), Err(error)) = (turn, &checked)
                && matches!(error, UpstreamError::RateLimited { .. } | UpstreamError::Busy { .. })
            {
                *turn = Some((again(error), Instant::now()));
            }
            return Ok((checked?, landed.url));
        }
    }

    /// Waits for the turn to ask the registry. Whoever waited while another one was told to come later shares that
    /// answer: asking again one by one would be a storm. After any other failure the next one tries.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, Option<Later>>, UpstreamError> {
        let began = Instant::now();
        let turn = timeout(self.conversation.limits().headers, self.resolving.lock()).await;
        let turn = turn.map_err(|_| UpstreamError::Timeout)?;
        match &*turn {
            Some((error, at)) if *at > began => Err(again(error)),
            Some(_) | None => Ok(turn),
        }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an answer that was asked for on `asked` says about the way.
    fn learn_way(&self, asked: &Way, landed: &Landed) {
        let status = landed.response.status();
        let is_there = status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE;
        if status.is_success() && !landed.at_home {
            // Renewals that bring bytes may go on for hours: only those in a row are a circle.
            self.way().expired = 0;
        }
        let expired = has_expired(&asked.address, landed);
        let address = match &asked.address {
            _ if expired => Address::Unknown,
            Address::Unknown | Address::Home if !landed.at_home => Address::Target(landed.url.clone()),
            Address::Unknown if is_there => Address::Home,
            // What else is said is about this moment, not about where the blob is.
            Address::Unknown | Address::Home | Address::Target(_) => return,
        };
        let mut way = self.way();
        if way.generation != asked.generation {
            return;
        }
        if expired {
            way.expired += 1;
            way.status = status.as_u16();
        }
        if way.expired > RENEWALS_MAX {
            way.expired = 0;
            way.round += 1;
        }
        way.address = address;
        way.generation += 1;
    }

    /// The body of an answer that is the part (`None`: the whole) asked for, and of the blob of earlier answers.
    fn take(
        &self,
        response: Response,
        url: &Url,
        part: Option<Part>,
        size: Option<u64>,
    ) -> Result<BlobBody, UpstreamError> {
        let limits = self.conversation.limits();
        let witness = Witness::of(&response, url);
        self.seen().agree(&witness)?;
        let body = match part {
            Some(part) => part.body(response, limits)?,
            None => whole_body(response, limits, size)?,
        };
        self.seen().learn(witness)?;
        Ok(body)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer to what was asked for at `asked` says that the address a registry handed out is good no longer.
fn has_expired(asked: &Address, landed: &Landed) -> bool {
    match landed.response.status().as_u16() {
        401 | 403 | 404 | 410 => !landed.at_home,
        // From an address that is new it can only mean the question: a newer one would say the same.
        400 => matches!(asked, Address::Target(_)),
        _ => false,
    }
}

impl Witness {
    fn of(response: &Response, url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        // A weak tag names what means the same, not the same bytes (RFC 9110, section 8.8.1).
        let tag = response.headers().get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
        let size = if response.status() == StatusCode::OK {
            content_length(response)
        } else {
            content_range(response).and_then(|told| told.total)
        };
        Self {
            host: format!("{host}:{}", url.port_or_known_default().unwrap_or_default()),
            tag: tag.cloned(),
            size,
        }
    }
}

impl Seen {
    /// Whether nothing the witness says contradicts what was said before.
    fn agree(&self, witness: &Witness) -> Result<(), UpstreamError> {
        let tag = self.tags.get(&witness.host).zip(witness.tag.as_ref());
        let size = self.size.zip(witness.size);
        if tag.is_some_and(|(before, now)| before != now) || size.is_some_and(|(before, now)| before != now) {
            return Err(UpstreamError::Changed);
        }
        Ok(())
    }

    /// Believes an answer that turned out honest, unless another one was quicker to say something else.
    fn learn(&mut self, witness: Witness) -> Result<(), UpstreamError> {
        self.agree(&witness)?;
        self.size = self.size.or(witness.size);
        if let Some(tag) = witness.tag {
            self.tags.insert(witness.host, tag);
        }
        Ok(())
    }
}
