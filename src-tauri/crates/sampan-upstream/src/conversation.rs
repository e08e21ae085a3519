//! How an upstream is spoken to.

use std::collections::HashSet;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use sampan_oci::{
    ContentRange, Digest, InvalidManifest, MANIFEST_BYTES_MAX, Manifest, Reference, RepositoryName,
};
use tokio::time::timeout;

use crate::body::Reader;
use crate::challenge::{self, InvalidChallenge};
use crate::health::Pulse;
use crate::limits::{REDIRECTS_MAX, TAGS_BYTES_MAX, TAGS_MAX};
use crate::request::{Request, bounded, check, content_length, finish, header, send};
use crate::token::{Issuer, Tokens};
use crate::{
    BlobBody, Client, FetchedManifest, Health, Limits, Referrers, TagsPage, UpstreamConfig, UpstreamError,
    listing, redirect,
};

const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_HEADER: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Every media type of `sampan_oci::MediaType`, as one `Accept` header.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const JSON: &str = "application/json";
const ANYTHING: &str = "*/*";

/// What one upstream's clones share, and how it is spoken to: token, request, redirects, and what answers must look like.
#[derive(Debug)]
pub(crate) struct Conversation {
    config: UpstreamConfig,
    client: Client,
    limits: Limits,
    tokens: Tokens,
    pulse: Pulse,
}

/// A part of a blob to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) start: u64,
    /// One past the last byte; `None`: to the end.
    pub(crate) end: Option<u64>,
    pub(crate) size: Option<u64>,
}

impl Part {
    fn header(self) -> String {
        match self.end {
            Some(end) => format!("bytes={}-{}", self.start, end - 1),
            None => format!("bytes={}-", self.start),
        }
    }

    /// Whether `told` is exactly what was asked for.
    fn is_answered_by(self, told: ContentRange) -> bool {
        let end_fits = match (self.end, told.total) {
            (Some(end), _) => told.end == end,
            (None, Some(total)) => told.end == total,
            (None, None) => false,
        };
        let size_fits = self.size.is_none() || told.total.is_none() || told.total == self.size;
        told.start == self.start && end_fits && size_fits
    }
}

impl Conversation {
    pub(crate) fn new(config: UpstreamConfig, client: Client, limits: Limits) -> Self {
        Self { config, client, limits, tokens: Tokens::default(), pulse: Pulse::default() }
    }

    pub(crate) fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    pub(crate) fn health(&self) -> Health {
        self.pulse.read()
    }

    pub(crate) fn noted<T>(&self, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        self.pulse.note(&result);
        result
    }

    fn address(&self, repository: Option<&RepositoryName>, rest: &[&str]) -> Result<Url, UpstreamError> {
        address(&self.config.url, repository, rest)
    }

    /// Sends a request to the upstream itself; on a challenge gets a token and sends it once more. All of it together
    /// has the time that a head may take: a client is waiting.
    async fn ask(
        &self,
        method: Method,
        url: Url,
        accept: &'static str,
        repository: &RepositoryName,
    ) -> Result<Response, UpstreamError> {
        let request = Request { method, url, accept, range: None };
        in_time(&self.limits, self.converse(&request, repository)).await
    }

    async fn converse(
        &self,
        request: &Request,
        repository: &RepositoryName,
    ) -> Result<Response, UpstreamError> {
        let issuer = Issuer { client: &self.client, limits: &self.limits, upstream: &self.config.url };
        let known = self.tokens.known(issuer, repository).await;
        let token = known.as_ref().ok().and_then(Option::as_ref);
        let response = send(&self.client, &self.limits, request, token).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let values =
            response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = challenge::parse(values).map_err(|error| match error {
            InvalidChallenge::NotBearer => UpstreamError::Denied,
            InvalidChallenge::Syntax => UpstreamError::Protocol("its challenge cannot be read"),
            InvalidChallenge::Realm => UpstreamError::Protocol("its token realm is no address"),
        })?;
        finish(response, &self.limits).await;
        // The token server failed a moment ago; without a token it was worth a try, a second question is not.
        let refused = known?;
        let token = self.tokens.renew(issuer, repository, challenge, refused.as_ref()).await?;
        send(&self.client, &self.limits, request, Some(&token)).await
    }

    pub(crate) async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Digest>, UpstreamError> {
        let url = self.address(Some(repository), &["manifests", &reference.to_string()])?;
        let response = self.ask(Method::HEAD, url, MANIFESTS, repository).await?;
        let told = claimed_digest(&check(response, &self.limits, true).await?)?;
        match (reference, told) {
            (Reference::Digest(expected), Some(actual)) if *expected != actual => {
                Err(UpstreamError::Mismatch { expected: *expected, actual: Box::new(actual) })
            }
            (Reference::Digest(_) | Reference::Tag(_), told) => Ok(told),
        }
    }

    pub(crate) async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        let url = self.address(Some(repository), &["manifests", &reference.to_string()])?;
        let response = self.ask(Method::GET, url, MANIFESTS, repository).await?;
        let response = whole(check(response, &self.limits, true).await?)?;
        let expected = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => claimed_digest(&response)?,
        };
        let content_type = header(&response, &CONTENT_TYPE).map(str::to_owned);
        let bytes =
            bounded(response, &self.limits, MANIFEST_BYTES_MAX).await?.ok_or(InvalidManifest::TooLarge)?;
        if let Some(expected) = expected {
            let mut hasher = expected.hasher();
            hasher.update(&bytes);
            let actual = hasher.finish();
            if actual != expected {
                return Err(UpstreamError::Mismatch { expected, actual: Box::new(actual) });
            }
        }
        let manifest = Manifest::parse(&bytes, content_type.as_deref(), expected.as_ref())?;
        Ok(FetchedManifest { bytes, manifest })
    }

    /// Asks for a blob and follows redirects by our rules. Also tells whether the upstream itself answered.
    async fn blob(
        &self,
        method: Method,
        repository: &RepositoryName,
        digest: &Digest,
        range: Option<String>,
    ) -> Result<(Response, bool), UpstreamError> {
        let url = self.address(Some(repository), &["blobs", &digest.to_string()])?;
        let request = Request { method, url, accept: ANYTHING, range };
        in_time(&self.limits, self.follow(request, repository)).await
    }

    async fn follow(
        &self,
        mut request: Request,
        repository: &RepositoryName,
    ) -> Result<(Response, bool), UpstreamError> {
        let mut response = self.converse(&request, repository).await?;
        let mut seen = HashSet::from([request.url.clone()]);
        while is_redirect(response.status()) {
            let to = target(&response, &request.url)?;
            finish(response, &self.limits).await;
            redirect::allow(&request.url, &to, &self.config.url)
                .map_err(|why| UpstreamError::Protocol(why.as_str()))?;
            if seen.len() > REDIRECTS_MAX {
                return Err(UpstreamError::Protocol("it redirected too often"));
            }
            if !seen.insert(to.clone()) {
                return Err(UpstreamError::Protocol("it redirected in a circle"));
            }
            if !redirect::is_loopback(&to) {
                self.client.watch(&to)?;
            }
            request.url = to;
            // A fresh request: no token leaves the upstream's own origin, not even back to it by a detour.
            response = send(&self.client, &self.limits, &request, None).await?;
        }
        Ok((response, seen.len() == 1))
    }

    pub(crate) async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, UpstreamError> {
        let (response, at_home) = self.blob(Method::HEAD, repository, digest, None).await?;
        // Addresses signed for GET alone refuse HEAD; that the registry sent us there says that the blob is there.
        if !at_home && matches!(response.status().as_u16(), 401 | 403 | 405 | 501) {
            return Ok(None);
        }
        Ok(content_length(&check(response, &self.limits, at_home).await?))
    }

    pub(crate) async fn get_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        part: Option<Part>,
    ) -> Result<BlobBody, UpstreamError> {
        let (response, at_home) = self.blob(Method::GET, repository, digest, part.map(Part::header)).await?;
        let response = check(response, &self.limits, at_home).await?;
        let length = content_length(&response);
        let Some(part) = part else {
            let response = whole(response)?;
            let reader = Reader::new(response, self.limits.clone(), length);
            return Ok(BlobBody { size: length, offset: 0, stream: reader.into_stream() });
        };
        if response.status() == StatusCode::OK {
            return Err(UpstreamError::RangeRefused);
        }
        let told: Option<ContentRange> = header(&response, &CONTENT_RANGE).and_then(|text| text.parse().ok());
        let honest = told.filter(|told| {
            response.status() == StatusCode::PARTIAL_CONTENT
                && part.is_answered_by(*told)
                && length.is_none_or(|length| length == told.end - told.start)
        });
        let told = honest.ok_or(UpstreamError::Protocol("it sent another part than the one asked for"))?;
        let reader = Reader::new(response, self.limits.clone(), Some(told.end - told.start));
        Ok(BlobBody { size: told.total.or(part.size), offset: told.start, stream: reader.into_stream() })
    }

    pub(crate) async fn tags(
        &self,
        repository: &RepositoryName,
        n: Option<u32>,
        last: Option<&str>,
    ) -> Result<TagsPage, UpstreamError> {
        let mut url = self.address(Some(repository), &["tags", "list"])?;
        if let Some(n) = n {
            url.query_pairs_mut().append_pair("n", &n.min(TAGS_MAX).to_string());
        }
        if let Some(last) = last {
            url.query_pairs_mut().append_pair("last", last);
        }
        let response = self.ask(Method::GET, url, JSON, repository).await?;
        let response = whole(check(response, &self.limits, true).await?)?;
        let more = has_next(&response);
        let body = bounded(response, &self.limits, TAGS_BYTES_MAX).await?;
        listing::tags(&body.ok_or(UpstreamError::Protocol("its tag list is too large"))?, more)
    }

    pub(crate) async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Referrers>, UpstreamError> {
        let mut url = self.address(Some(repository), &["referrers", &digest.to_string()])?;
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let response = self.ask(Method::GET, url, INDEX, repository).await?;
        let response = match check(response, &self.limits, true).await {
            Err(UpstreamError::NotFound | UpstreamError::Status(405 | 501)) => return Ok(None),
            checked => whole(checked?)?,
        };
        let more = has_next(&response);
        let filters = header(&response, &FILTERS_HEADER).map(str::to_owned);
        let body =
            bounded(response, &self.limits, MANIFEST_BYTES_MAX).await?.ok_or(InvalidManifest::TooLarge)?;
        listing::referrers(body, filters.as_deref(), more).map(Some)
    }

    pub(crate) async fn ping(&self) -> Result<(), UpstreamError> {
        let request =
            Request { method: Method::GET, url: self.address(None, &[""])?, accept: JSON, range: None };
        let response = send(&self.client, &self.limits, &request, None).await?;
        match check(response, &self.limits, true).await {
            // That it wants a token is the most usual of answers.
            Ok(_) | Err(UpstreamError::Denied) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The address of something in a repository, from checked parts alone (SECURITY R16).
fn address(base: &Url, repository: Option<&RepositoryName>, rest: &[&str]) -> Result<Url, UpstreamError> {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    let wrong = UpstreamError::Protocol("its configured address cannot have paths");
    let Ok(mut path) = url.path_segments_mut() else { return Err(wrong) };
    path.pop_if_empty().push("v2");
    path.extend(repository.into_iter().flat_map(|name| name.as_str().split('/'))).extend(rest);
    drop(path);
    Ok(url)
}

async fn in_time<T>(
    limits: &Limits,
    heads: impl Future<Output = Result<T, UpstreamError>>,
) -> Result<T, UpstreamError> {
    timeout(limits.headers, heads).await.map_err(|_| UpstreamError::Timeout)?
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect of `from` leads.
fn target(response: &Response, from: &Url) -> Result<Url, UpstreamError> {
    let location = header(response, &LOCATION).ok_or(UpstreamError::Protocol("it redirected to nowhere"))?;
    let mut to = from.join(location).map_err(|_| UpstreamError::Protocol("it redirected to no address"))?;
    to.set_fragment(None);
    Ok(to)
}

/// Refuses every success but a whole body: a 206 nobody asked for, a 204.
fn whole(response: Response) -> Result<Response, UpstreamError> {
    if response.status() == StatusCode::OK {
        Ok(response)
    } else {
        Err(UpstreamError::Protocol("it sent something else than the whole"))
    }
}

/// The digest that `Docker-Content-Digest` claims.
fn claimed_digest(response: &Response) -> Result<Option<Digest>, UpstreamError> {
    let Some(value) = response.headers().get(DIGEST_HEADER) else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or(UpstreamError::Protocol("its digest header is none"))
}

fn has_next(response: &Response) -> bool {
    listing::has_next(response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_valid_name_is_its_own_path(name in "[a-z0-9._/-]{1,60}", reference in "[a-zA-Z0-9_.-]{1,40}") {
            let (Ok(name), Ok(reference)) = (name.parse::<RepositoryName>(), reference.parse::<Reference>()) else {
                return Ok(());
            };
            let base = Url::parse("https://registry.example").unwrap();
            let url = address(&base, Some(&name), &["manifests", &reference.to_string()]).unwrap();
            prop_assert_eq!(url.path(), format!("/v2/{name}/manifests/{reference}"));
            prop_assert_eq!(&Url::parse(url.as_str()).unwrap(), &url, "nothing changes when it is read again");
        }
    }

    #[test]
    fn a_part_is_answered_by_itself_alone() {
        let closed = Part { start: 5, end: Some(10), size: Some(20) };
        let open = Part { start: 5, end: None, size: None };
        for (told, is_closed, is_open) in [
            ("bytes 5-9/20", true, false),
            ("bytes 5-9/*", true, false),
            ("bytes 5-9/21", false, false),
            ("bytes 5-9/10", false, true),
            ("bytes 4-9/20", false, false),
            ("bytes 5-8/20", false, false),
            ("bytes 5-10/20", false, false),
            ("bytes 5-19/20", false, true),
        ] {
            let told_range: ContentRange = told.parse().unwrap();
            assert_eq!(closed.is_answered_by(told_range), is_closed, "5..10 of 20 by {told}");
            assert_eq!(open.is_answered_by(told_range), is_open, "5.. by {told}");
        }
    }
}
