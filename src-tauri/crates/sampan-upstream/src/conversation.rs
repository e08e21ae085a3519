//! How an upstream is spoken to.

use std::collections::HashSet;

use reqwest::header::{CONTENT_TYPE, HeaderName, LINK, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use sampan_oci::{Digest, InvalidManifest, MANIFEST_BYTES_MAX, Manifest, Reference, RepositoryName};
use tokio::time::timeout;

use crate::allowance::{Allowance, Ask, Book, Ticket};
use crate::challenge::{self, InvalidChallenge};
use crate::health::Pulse;
use crate::limits::{REDIRECTS_MAX, REFERRERS_PAGES_MAX, TAGS_BYTES_MAX, TAGS_MAX};
use crate::listing::Next;
use crate::login::{Desk, LoginOptions};
use crate::part::{Part, whole_body};
use crate::ratelimit::RateHeaders;
use crate::request::{Request, asked_to_wait, bounded, check, content_length, finish, header, send, whole};
use crate::token::{Issuer, Tokens, Wants};
use crate::{
    BlobBody, Client, FetchedManifest, Health, Limits, Referrers, TagsPage, UpstreamConfig, UpstreamError,
    listing, redirect,
};

pub(crate) const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");
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
    book: Book,
    /// The login it is asked with; `None`: it is asked as nobody.
    login: Option<Desk>,
}

/// An answer, and who gave it.
pub(crate) struct Landed {
    pub(crate) response: Response,
    /// The address that gave it.
    pub(crate) url: Url,
    /// Whether that is the registry itself, asked as such; no redirect led there.
    pub(crate) at_home: bool,
}

impl Conversation {
    pub(crate) fn new(config: UpstreamConfig, client: Client, limits: Limits) -> Self {
        Self {
            config,
            client,
            limits,
            tokens: Tokens::default(),
            pulse: Pulse::default(),
            book: Book::default(),
            login: None,
        }
    }

    /// Another conversation with the same upstream, as somebody: nothing one learns is told in the other.
    pub(crate) fn with_login(&self, options: LoginOptions) -> Self {
        if let Some(named) =
            options.realm.as_ref().and_then(|host| Url::parse(&format!("https://{host}/")).ok())
        {
            // A person named it: it may be in a private network, as the registry may.
            self.client.trust(&named);
        }
        let login = Some(Desk::new(self.config.registry.clone(), options));
        Self { login, ..Self::new(self.config.clone(), self.client.clone(), self.limits.clone()) }
    }

    pub(crate) fn login(&self) -> Option<&Desk> {
        self.login.as_ref()
    }

    pub(crate) fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn health(&self) -> Health {
        self.pulse.read()
    }

    /// What the upstream lets us have.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.book.read()
    }

    pub(crate) fn spent(&self) -> Vec<(std::time::Duration, RepositoryName)> {
        self.book.spent()
    }

    pub(crate) fn recall(&self, spent: impl IntoIterator<Item = (std::time::Duration, RepositoryName)>) {
        self.book.recall(spent);
    }

    /// Whether so little is left that it is kept for what is not held.
    pub(crate) fn is_low(&self) -> bool {
        self.book.is_low()
    }

    /// Begins to ask for a manifest, unless the upstream is or wants to be left alone. A ticket is a question that is sent:
    /// none is taken for one that would be refused here.
    pub(crate) fn begin(&self, ask: Ask) -> Result<Ticket, UpstreamError> {
        self.admit()?;
        self.book.begin(ask)
    }

    pub(crate) fn noted<T>(&self, result: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        self.pulse.note(&result);
        result
    }

    /// Refuses a question while Sampan is offline, or the upstream is left alone.
    fn admit(&self) -> Result<(), UpstreamError> {
        self.client.admit()?;
        self.pulse.admit()
    }

    /// Asks a question that many may ask at once, unless the upstream is left alone just now.
    pub(crate) async fn asked<T>(
        &self,
        question: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        self.admit()?;
        // On the heap: requests that wait for a pull's answer hold it several layers deep.
        let answer = Box::pin(question).await;
        self.pulse.count(&answer);
        answer
    }

    /// Notes that a body began; it ends when Sampan goes offline.
    pub(crate) fn opened(&self, result: Result<BlobBody, UpstreamError>) -> Result<BlobBody, UpstreamError> {
        let body = self.noted(result)?;
        Ok(BlobBody { stream: self.client.while_online(body.stream), ..body })
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
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
        let login = self.login.as_ref();
        if let Some(desk) = login {
            desk.may_meet(&self.config.url)?;
        }
        let issuer = Issuer { client: &self.client, limits: &self.limits, upstream: &self.config.url, login };
        let known = self.tokens.known(issuer, repository).await;
        let token = known.as_ref().ok().and_then(Option::as_ref);
        let response = send(&self.client, &self.limits, request, token).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let values =
            || response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = match challenge::parse(values()) {
            Ok(challenge) => Wants::Token(challenge),
            Err(InvalidChallenge::NotBearer) if login.is_some() && challenge::asks_basic(values()) => {
                Wants::Login
            }
            Err(InvalidChallenge::NotBearer) => return Err(UpstreamError::Denied),
            Err(InvalidChallenge::Syntax) => {
                return Err(UpstreamError::Protocol("its challenge cannot be read"));
            }
            Err(InvalidChallenge::Realm) => {
                return Err(UpstreamError::Protocol("its token realm is no address"));
            }
        };
        finish(response, &self.limits).await;
        // The token server failed a moment ago; without a token it was worth a try, a second question is not.
        let refused = known?;
        let token = self.tokens.renew(issuer, repository, challenge, refused.as_ref()).await?;
        send(&self.client, &self.limits, request, Some(&token)).await
    }

    /// Asks for a manifest, and notes what the answer says of the allowance.
    async fn ask_manifest(
        &self,
        ticket: Ticket,
        method: Method,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response, UpstreamError> {
        let url = self.address(Some(repository), &["manifests", &reference.to_string()])?;
        let response = self.ask(method, url, MANIFESTS, repository).await?;
        let told = RateHeaders::read(response.headers());
        ticket.answered(repository, response.status().as_u16(), &told, asked_to_wait(&response));
        Ok(response)
    }

    pub(crate) async fn head_manifest(
        &self,
        ticket: Ticket,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Digest>, UpstreamError> {
        let response = self.ask_manifest(ticket, Method::HEAD, repository, reference).await?;
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
        ticket: Ticket,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        let response = self.ask_manifest(ticket, Method::GET, repository, reference).await?;
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

    /// The request for a blob, or a part of it, to the registry itself.
    pub(crate) fn blob_request(
        &self,
        method: Method,
        repository: &RepositoryName,
        digest: &Digest,
        range: Option<String>,
    ) -> Result<Request, UpstreamError> {
        let url = self.address(Some(repository), &["blobs", &digest.to_string()])?;
        Ok(Request { method, url, accept: ANYTHING, range })
    }

    /// Asks the registry, and follows redirects by our rules.
    pub(crate) async fn follow(
        &self,
        request: Request,
        repository: &RepositoryName,
    ) -> Result<Landed, UpstreamError> {
        let all = async {
            let response = self.converse(&request, repository).await?;
            self.led(request, response, true).await
        };
        in_time(&self.limits, all).await
    }

    /// Asks an address the registry led to before, without asking the registry, and follows redirects from there.
    pub(crate) async fn revisit(&self, request: Request) -> Result<Landed, UpstreamError> {
        let all = async {
            let response = send(&self.client, &self.limits, &request, None).await?;
            self.led(request, response, false).await
        };
        in_time(&self.limits, all).await
    }

    /// Follows where the answer to `request` leads.
    async fn led(
        &self,
        mut request: Request,
        mut response: Response,
        mut at_home: bool,
    ) -> Result<Landed, UpstreamError> {
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
            at_home = false;
            // A fresh request: no token leaves the upstream's own origin, not even back to it by a detour.
            response = send(&self.client, &self.limits, &request, None).await?;
        }
        Ok(Landed { response, url: request.url, at_home })
    }

    pub(crate) async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, UpstreamError> {
        let request = self.blob_request(Method::HEAD, repository, digest, None)?;
        let Landed { response, at_home, .. } = self.follow(request, repository).await?;
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
        let request = self.blob_request(Method::GET, repository, digest, part.map(Part::header))?;
        let Landed { response, at_home, .. } = self.follow(request, repository).await?;
        let response = check(response, &self.limits, at_home).await?;
        match part {
            Some(part) => part.body(response, &self.limits),
            None => whole_body(response, &self.limits, None),
        }
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
        let mut pages = listing::Pages::default();
        loop {
            let response = self.ask(Method::GET, url.clone(), INDEX, repository).await?;
            let response = match check(response, &self.limits, true).await {
                Err(UpstreamError::NotFound | UpstreamError::Status(405 | 501)) if pages.is_empty() => {
                    return Ok(None);
                }
                checked => whole(checked?)?,
            };
            let next = listing::next_page(links(&response), &url);
            let filters = header(&response, &FILTERS_HEADER).map(str::to_owned);
            let room = MANIFEST_BYTES_MAX - pages.bytes();
            let Some(body) = bounded(response, &self.limits, room).await? else {
                // A first page too large is no list at all; of later ones what there is room for is given.
                return if pages.is_empty() {
                    Err(InvalidManifest::TooLarge.into())
                } else {
                    pages.joined(true).map(Some)
                };
            };
            pages.push(body, filters.as_deref())?;
            match next {
                Next::None => return pages.joined(false).map(Some),
                Next::Query(query) if pages.len() < REFERRERS_PAGES_MAX => url.set_query(Some(&query)),
                Next::Query(_) | Next::Elsewhere => return pages.joined(true).map(Some),
            }
        }
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

/// The digest that `Docker-Content-Digest` claims.
fn claimed_digest(response: &Response) -> Result<Option<Digest>, UpstreamError> {
    let Some(value) = response.headers().get(DIGEST_HEADER) else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or(UpstreamError::Protocol("its digest header is none"))
}

fn has_next(response: &Response) -> bool {
    listing::has_next(links(response))
}

fn links(response: &Response) -> impl Iterator<Item = &str> {
    response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok())
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
}
