//! One switch for every way an upstream lies, stalls or dies.

use std::time::Duration;

use crate::record::Kind;

/// What goes wrong. Byte positions count from the first body byte of one answer, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens: connections are refused, open ones die at their next request. For all kinds of request.
    RefuseConnection,
    /// The request is read; no answer comes until [`heals`](crate::FakeRegistry::heals).
    StallBeforeHeaders,
    /// The body stops after this many bytes, and goes on after [`heals`](crate::FakeRegistry::heals).
    StallAfter(u64),
    /// The connection ends with FIN after this many body bytes.
    CutAfter(u64),
    /// The connection ends with RST after this many body bytes.
    ResetAfter(u64),
    /// One byte of the body arrives every `every`.
    Drip {
        /// The pause before each byte.
        every: Duration,
    },
    /// Every body comes at this rate, however many come at once: what one connection can carry.
    Rate {
        /// Body bytes a second of each answer.
        bytes_per_second: u64,
    },
    /// All bodies together come at this rate: what the link can carry. Who asks shares it fairly.
    RateTotal {
        /// Body bytes a second of all answers together.
        bytes_per_second: u64,
    },
    /// The byte at this position is flipped, counted from the first byte of the whole also where a part is asked for;
    /// lengths and headers stay true.
    CorruptByte(u64),
    /// The last byte is missing, and `Content-Length` says so: whole HTTP, short content.
    ShortBody,
    /// One byte too many, and `Content-Length` says so: whole HTTP, long content.
    LongBody,
    /// A body without a length that never ends.
    EndlessBody,
    /// The honest body without a length, ended by closing the connection.
    NoLength,
    /// `Content-Length` twice, with different values.
    TwoLengths,
    /// Chunked; the connection ends where the chunk after the first megabyte, or the last chunk, would begin.
    TruncatedChunked,
    /// A range request is answered `multipart/byteranges`, with one part.
    Multipart,
    /// `Docker-Content-Digest` names other bytes.
    WrongDigestHeader,
    /// No `Docker-Content-Digest`.
    NoDigestHeader,
    /// This status with an error body of the distribution specification.
    Status(u16),
    /// 429, with `Retry-After` in seconds if given.
    TooManyRequests {
        /// Seconds to wait.
        retry_after: Option<u64>,
    },
    /// While this many answers to the same kind of request are on their way, a further one is 503, with `Retry-After`
    /// in seconds if given; nginx gives none (`limit_conn`).
    TooManyConnections {
        /// Answers at once.
        max: usize,
        /// Seconds to wait.
        retry_after: Option<u64>,
    },
    /// 503 with exactly this `Retry-After`, and `Date: Sat, 21 Nov 2026 12:00:00 GMT`.
    Busy {
        /// Seconds or a date, or neither.
        retry_after: String,
    },
    /// Requests without a good token for their repository get 401 and a challenge.
    RequireToken(TokenRule),
    /// Whatever token is presented is answered 401, and never accepted again.
    ExpiredToken,
    /// 307 to itself.
    RedirectLoop,
    /// 307 along this many further hops of this registry, the last of which holds the blob.
    RedirectHops(u32),
    /// 307 to `<origin>/cdn/<digest>?Signature=…&serial=…` for blobs: another [`FakeRegistry`](crate::FakeRegistry) that
    /// [`holds`](crate::FakeRegistry::hold) the blob. Other kinds are sent to the same path at that origin.
    RedirectTo(String),
    /// An address below `/cdn/` is good for this many requests, then 403. The registry hands out a new one at every
    /// [`RedirectTo`](Self::RedirectTo): each has its own `serial` in the query.
    ExpiresAfter(u32),
    /// 307 to exactly this text.
    Location(String),
    /// A range request is answered 200 with the whole body.
    RangeIgnored,
    /// A range request is answered 416.
    RangeUnsatisfiable,
    /// `Content-Range` starts one byte later than the body.
    WrongContentRange,
    /// `Content-Range` claims a total one byte too large.
    WrongTotal,
    /// `Content-Range` tells no total (`*`).
    NoTotal,
    /// Every answer has another strong `ETag`; honest blobs always have the same: their digest, quoted.
    ChangedEtag,
    /// 206 although no range was asked for.
    UnaskedPartial,
    /// `Content-Encoding: gzip` on the body.
    ContentEncoding,
    /// Referrers come in pages of so many, each with a `Link` to the next.
    ReferrersInPages(usize),
    /// A captive portal: 200 and a page of HTML, whatever was asked.
    Html,
    /// Informational answers (103) before the answer, until [`heals`](crate::FakeRegistry::heals).
    InformationalFlood,
    /// A header of this many bytes.
    HugeHeader(usize),
    /// So many headers nobody asked for.
    ManyHeaders(usize),
}

/// How a registry that asks for tokens behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRule {
    /// The realm of the challenge; `None`: `/token` of the same registry. Any fake registry's `/token` issues tokens
    /// that every fake registry takes.
    pub realm: Option<String>,
    /// `expires_in` of the tokens issued here, in seconds; `None` leaves it out.
    pub expires_in: Option<i64>,
    /// The whole `WWW-Authenticate` header, instead of an honest one.
    pub challenge: Option<String>,
}

/// A fault, what it is for, and how often.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) fault: Fault,
    pub(crate) kind: Option<Kind>,
    pub(crate) left: Option<u64>,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Rule>);

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn refuses_connections(&self) -> bool {
        self.0.iter().any(|rule| rule.fault == Fault::RefuseConnection)
    }

    /// The faults for one request of `kind`, oldest first; those for a number of requests count down.
    pub(crate) fn take(&mut self, kind: Kind) -> Vec<Fault> {
        let mut taken = Vec::new();
        for rule in &mut self.0 {
            if rule.kind.is_some_and(|only| only != kind) || rule.left == Some(0) {
                continue;
            }
            if let Some(left) = &mut rule.left {
                *left -= 1;
            }
            taken.push(rule.fault.clone());
        }
        self.0.retain(|rule| rule.left != Some(0));
        taken
    }
}
