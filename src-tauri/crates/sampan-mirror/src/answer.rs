//! Answers: heads by the specification, bodies with an account.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LINK,
    WARNING,
};
use http::{HeaderValue, StatusCode};
use sampan_oci::{
    Digest, ErrorBody, Failure, ImageName, OciCode, Outcome, RangeRequest, RequestKind, Stale, TransferId,
};

use crate::blobs::{Found, Reader};
use crate::body::{Account, CountedBody, Course};
use crate::error::PullError;
use crate::lists::{Referrers, TagList};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// How the answer came about, for whoever looks with curl.
const SAMPAN: HeaderName = HeaderName::from_static("x-sampan");

/// An answer being built. It always ends in exactly one account.
pub(crate) struct Draft {
    response: Response<()>,
    account: Account,
    head: bool,
}

impl Draft {
    pub(crate) fn new(account: Account, head: bool) -> Self {
        let mut draft = Self { response: Response::new(()), account, head };
        draft.set(API_VERSION, "registry/2.0");
        draft
    }

    /// Names the answer in events.
    pub(crate) fn id(&mut self) -> TransferId {
        self.account.answered().id
    }

    /// Leaves the answer out of every number: the probe is no pull, and its bytes save nobody anything.
    pub(crate) fn of_no_account(&mut self) {
        let answered = self.account.answered();
        (answered.kind, answered.image, answered.reference) = (RequestKind::Other, None, None);
    }

    fn set(&mut self, name: HeaderName, value: impl AsRef<str>) {
        // Every value is made of checked names, digests and numbers; one that is not a header value is left out.
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.response.headers_mut().insert(name, value);
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        self.account.answered().outcome = outcome;
        self.set(SAMPAN, outcome.as_str());
        if let Outcome::Stale(why) = outcome {
            let why = match why {
                Stale::Outage => "the registry cannot be reached",
                Stale::RateLimit => "the registry's rate limit is used up",
                Stale::Deadline => "the registry did not answer in time",
                Stale::Upstream => "the registry failed",
                Stale::Offline => "Sampan is offline",
                Stale::Resting => "the registry did not answer the last times",
            };
            self.set(WARNING, format!("110 sampan \"{why}; this is what is held\""));
        }
    }

    fn status(&mut self, status: StatusCode) {
        *self.response.status_mut() = status;
        self.account.answered().status = status.as_u16();
    }

    /// Ends the draft with `bytes`, which a HEAD request gets the length of only.
    fn with(mut self, bytes: Bytes) -> Response {
        self.set(CONTENT_LENGTH, bytes.len().to_string());
        let body = if self.head { Bytes::new() } else { bytes };
        let (parts, ()) = self.response.into_parts();
        Response::from_parts(parts, Body::new(CountedBody::whole(body, self.account)))
    }

    /// `/v2/`: yes, a registry (distribution-spec, "Determining Support").
    pub(crate) fn ping(mut self) -> Response {
        self.set(CONTENT_TYPE, "application/json");
        self.outcome(Outcome::Hit);
        self.status(StatusCode::OK);
        self.with(Bytes::from_static(b"{}"))
    }

    /// An error in the specification's JSON.
    pub(crate) fn error(
        mut self,
        status: StatusCode,
        code: OciCode,
        message: &str,
        failure: Failure,
    ) -> Response {
        self.set(CONTENT_TYPE, "application/json");
        self.outcome(Outcome::Failed(failure));
        self.status(status);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            self.set(ALLOW, "GET, HEAD");
        }
        self.with(ErrorBody::new(code, message).to_json().into())
    }

    /// A pull that failed.
    pub(crate) fn failed(self, error: &PullError) -> Response {
        let (status, code) = error.status_and_code();
        self.error(status, code, &error.to_string(), error.failure())
    }

    /// A manifest, or a part of one: containerd asks for `bytes=0-` of everything when told to fetch in parallel.
    pub(crate) fn manifest(
        mut self,
        image: &ImageName,
        bytes: &Bytes,
        media_type: &str,
        digest: &Digest,
        outcome: Outcome,
        range: Option<&str>,
    ) -> Response {
        self.set(CONTENT_TYPE, media_type);
        self.set(CONTENT_DIGEST, digest.to_string());
        self.set(ETAG, format!("\"{digest}\""));
        self.set(NAMESPACE, image.registry.as_str());
        self.outcome(outcome);
        match self.part(range, bytes.len() as u64) {
            // A manifest is in memory: its length is a usize.
            #[expect(clippy::cast_possible_truncation, reason = "offsets within bytes in memory")]
            Some((start, end)) => self.with(bytes.slice(start as usize..end as usize)),
            None => self.unsatisfiable(bytes.len() as u64),
        }
    }

    /// A blob that is known to be there, for a HEAD request.
    pub(crate) fn blob_head(
        mut self,
        image: &ImageName,
        digest: &Digest,
        size: u64,
        outcome: Outcome,
    ) -> Response {
        self.blob_headers(image, digest, outcome);
        self.status(StatusCode::OK);
        self.set(CONTENT_LENGTH, size.to_string());
        let (parts, ()) = self.response.into_parts();
        Response::from_parts(parts, Body::new(CountedBody::whole(Bytes::new(), self.account)))
    }

    /// A blob, or a part of one. `read` is called with the range only when bytes will be sent.
    pub(crate) fn blob(
        mut self,
        image: &ImageName,
        digest: &Digest,
        found: Found,
        range: Option<&str>,
        read: impl FnOnce(Found, u64, u64, Arc<Course>) -> Reader,
    ) -> Response {
        self.blob_headers(image, digest, found.outcome);
        let size = found.size;
        let Some((start, end)) = self.part(range, size) else { return self.unsatisfiable(size) };
        self.set(CONTENT_LENGTH, (end - start).to_string());
        self.account.expect(end - start);
        let reader = read(found, start, end, self.account.course());
        let chunks = stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|bytes| (bytes, reader)))
        });
        let (parts, ()) = self.response.into_parts();
        Response::from_parts(parts, Body::new(CountedBody::new(Box::pin(chunks), self.account)))
    }

    fn blob_headers(&mut self, image: &ImageName, digest: &Digest, outcome: Outcome) {
        self.set(CONTENT_TYPE, "application/octet-stream");
        self.set(CONTENT_DIGEST, digest.to_string());
        self.set(ETAG, format!("\"{digest}\""));
        self.set(CACHE_CONTROL, "max-age=31536000, immutable");
        self.set(NAMESPACE, image.registry.as_str());
        self.outcome(outcome);
    }

    /// Sets status and range headers for a body of `size` bytes; `None`: no byte of the range exists.
    fn part(&mut self, range: Option<&str>, size: u64) -> Option<(u64, u64)> {
        self.set(ACCEPT_RANGES, "bytes");
        match RangeRequest::parse(range, size) {
            RangeRequest::Whole => {
                self.status(StatusCode::OK);
                Some((0, size))
            }
            RangeRequest::Part { start, end } => {
                self.status(StatusCode::PARTIAL_CONTENT);
                self.set(CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
                Some((start, end))
            }
            RangeRequest::Unsatisfiable => None,
        }
    }

    fn unsatisfiable(mut self, size: u64) -> Response {
        self.set(CONTENT_RANGE, format!("bytes */{size}"));
        let message = format!("the range is outside the {size} bytes");
        self.error(StatusCode::RANGE_NOT_SATISFIABLE, OciCode::RangeInvalid, &message, Failure::Invalid)
    }

    /// A page of tags. `next` is the address of the next page.
    pub(crate) fn tags(mut self, image: &ImageName, list: &TagList, next: Option<String>) -> Response {
        self.set(CONTENT_TYPE, "application/json");
        self.set(NAMESPACE, image.registry.as_str());
        self.outcome(list.outcome);
        self.status(StatusCode::OK);
        if let Some(next) = next {
            self.set(LINK, format!("<{next}>; rel=\"next\""));
        }
        let body = serde_json::json!({ "name": image.repository, "tags": list.tags });
        self.with(body.to_string().into())
    }

    /// A referrers list.
    pub(crate) fn referrers(mut self, image: &ImageName, list: Referrers) -> Response {
        self.set(CONTENT_TYPE, sampan_oci::MediaType::OciIndex.as_str());
        self.set(NAMESPACE, image.registry.as_str());
        self.outcome(list.outcome);
        self.status(StatusCode::OK);
        if list.filtered {
            self.set(FILTERS_APPLIED, "artifactType");
        }
        self.with(list.body)
    }
}
