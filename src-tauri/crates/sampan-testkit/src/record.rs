//! What the fake registry was asked, and what it wrote.

use std::collections::HashMap;
use std::ops::Range;

use sampan_oci::Digest;

/// What kind of thing a request is for, told by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `/v2/`
    Ping,
    /// `/v2/<name>/manifests/<reference>`
    Manifest,
    /// `/v2/<name>/blobs/<digest>`
    Blob,
    /// `/v2/<name>/tags/list`
    Tags,
    /// `/v2/<name>/referrers/<digest>`
    Referrers,
    /// `/token`
    Token,
    /// `/cdn/<digest>`: where redirects of blobs lead.
    Cdn,
    /// Any other path.
    Other,
}

/// One request, as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What it was for.
    pub kind: Kind,
    /// The method, as sent.
    pub method: String,
    /// The path, before `?`, as sent.
    pub path: String,
    /// The query, after `?`, as sent; empty without one.
    pub query: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Recorded {
    /// The first header of this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Everything seen and sent since the start or since the last reset.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) requests: Vec<Recorded>,
    pub(crate) body_bytes: HashMap<Kind, u64>,
    /// The bytes of blobs that were answered with, in the order of their requests.
    pub(crate) ranges: Vec<(Digest, Range<u64>)>,
    /// Connections accepted, and the most of them that were open at once.
    pub(crate) accepted: u64,
    pub(crate) peak: usize,
}

impl Record {
    pub(crate) fn count(&self, matches: impl Fn(&Recorded) -> bool) -> u64 {
        self.requests.iter().filter(|request| matches(request)).count() as u64
    }

    pub(crate) fn body_bytes_of(&self, kind: Kind) -> u64 {
        self.body_bytes.get(&kind).copied().unwrap_or(0)
    }
}
