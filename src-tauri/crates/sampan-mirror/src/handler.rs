//! One request, from its head to its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use sampan_oci::{Answered, Event, Failure, ImageName, OciCode, Outcome, Reference, RequestKind, Tag};

use crate::answer::Draft;
use crate::body::Account;
use crate::download::Wanted;
use crate::guard;
use crate::mirror::Inner;
use crate::probe::Answer;
use crate::route::{self, Route};
use crate::sendfile::Conduit;

/// The longest request target that is read (SECURITY.md 3).
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// What the handler needs besides the request.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) mirror: Arc<Inner>,
    pub(crate) listen: SocketAddr,
}

/// Answers a request, whose body nobody reads. Whatever happens, exactly one [`Event::Answered`] tells its end.
/// `conduit`: the way of files to the client's connection, if it has one. The handler reads the raw path itself, because
/// decoding before checking is how traversals begin.
pub(crate) async fn handle<B>(served: &Served, conduit: Option<&Conduit>, request: Request<B>) -> Response {
    let (head, _) = request.into_parts();
    let mirror = &served.mirror;
    let is_head = head.method == Method::HEAD;
    let mut account =
        Account::open(opened(mirror, &head.headers, is_head), mirror.clock.clone(), mirror.sink.clone());
    if !guard::allows(served.listen, &head.uri, &head.headers) {
        let message = "this mirror answers container engines that name it by its address, not web pages";
        return Draft::new(account, is_head).error(
            StatusCode::FORBIDDEN,
            OciCode::Denied,
            message,
            Failure::Forbidden,
        );
    }
    if let Some(refused) = refuse_form(&head.method, &head.uri, &head.headers) {
        let (status, code, message) = refused;
        return Draft::new(account, is_head).error(status, code, message, Failure::Invalid);
    }
    let registries = |registry: &_| mirror.is_mirrored(registry);
    let route = match route::parse(head.uri.path(), head.uri.query(), registries) {
        Ok(route) => route,
        Err(refused) => {
            let failure =
                if refused.status == StatusCode::NOT_FOUND { Failure::NotFound } else { Failure::Invalid };
            return Draft::new(account, is_head).error(
                refused.status,
                refused.code,
                &refused.message,
                failure,
            );
        }
    };
    describe(account.answered(), &route);
    if let Some(image) = &account.answered().image {
        mirror.probe_if_due(image);
    }
    let draft = Draft::new(account, is_head);
    if let Some(barred) = route.image().and_then(|image| mirror.bars_here(served.listen, image)) {
        return draft.failed(&barred);
    }
    let range = head.headers.get(header::RANGE).and_then(|value| value.to_str().ok()).filter(|_| !is_head);
    match route {
        Route::Ping => draft.ping(),
        Route::Manifest(image, reference) => manifest(mirror, draft, image, reference, is_head, range).await,
        Route::Blob(image, digest) => {
            blob(mirror, conduit, draft, Wanted { image, digest, size: None }, is_head, range).await
        }
        Route::Tags { image, n, last } => tags(mirror, draft, &head.uri, &image, n, last.as_ref()).await,
        Route::Referrers { image, subject, artifact_type } => {
            let list = mirror.referrers(&image, &subject, artifact_type.as_deref()).await;
            draft.referrers(&image, list)
        }
    }
}

/// Methods and message forms that no pull uses (SECURITY.md R39, R46, R48).
fn refuse_form(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<(StatusCode, OciCode, &'static str)> {
    if method != Method::GET && method != Method::HEAD {
        let message =
            "this is a pull-through mirror: it only answers GET and HEAD; push to the registry itself";
        return Some((StatusCode::METHOD_NOT_ALLOWED, OciCode::Unsupported, message));
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
    if has_body {
        return Some((StatusCode::BAD_REQUEST, OciCode::Unsupported, "a pull has no request body"));
    }
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    (target > TARGET_BYTES_MAX).then_some((
        StatusCode::URI_TOO_LONG,
        OciCode::NameInvalid,
        "the address is too long",
    ))
}

fn opened(mirror: &Inner, headers: &HeaderMap, head: bool) -> Answered {
    let user_agent = headers.get(header::USER_AGENT).map(header::HeaderValue::as_bytes).unwrap_or_default();
    let printable = user_agent.iter().filter(|b| (0x20..0x7f).contains(*b)).take(200);
    Answered {
        id: mirror.next_id(),
        at: mirror.clock.now(),
        took_millis: 0,
        kind: RequestKind::Other,
        head,
        image: None,
        reference: None,
        outcome: Outcome::Failed(Failure::ClientLeft),
        status: 0,
        served_bytes: 0,
        user_agent: printable.map(|b| char::from(*b)).collect(),
    }
}

fn describe(answered: &mut Answered, route: &Route) {
    let (kind, image, reference) = match route {
        Route::Ping => (RequestKind::Ping, None, None),
        Route::Manifest(image, reference) => (RequestKind::Manifest, Some(image), Some(reference.clone())),
        Route::Blob(image, digest) => (RequestKind::Blob, Some(image), Some(Reference::Digest(*digest))),
        Route::Tags { image, .. } => (RequestKind::Tags, Some(image), None),
        Route::Referrers { image, subject, .. } => {
            (RequestKind::Referrers, Some(image), Some(Reference::Digest(*subject)))
        }
    };
    answered.kind = kind;
    answered.image = image.cloned();
    answered.reference = reference;
}

async fn manifest(
    mirror: &Arc<Inner>,
    mut draft: Draft,
    image: ImageName,
    reference: Reference,
    head: bool,
    range: Option<&str>,
) -> Response {
    if let Some(Answer::Manifest { bytes, digest }) =
        mirror.probe.manifest(&image, &reference, mirror.clock.now())
    {
        let media_type = sampan_oci::MediaType::DockerManifest.as_str();
        draft.of_no_account();
        return draft.manifest(&image, &bytes, media_type, &digest, Outcome::Hit, range);
    }
    let resolved = match mirror.manifest(&image, &reference).await {
        Ok(resolved) => resolved,
        Err(error) => return draft.failed(&error),
    };
    let from_cache = matches!(resolved.outcome, Outcome::Hit | Outcome::Revalidated | Outcome::Stale(_));
    if from_cache {
        mirror.store.touch(&image, &resolved.manifest.digest, !head).await;
    }
    if !head {
        mirror.sink.tell(&Event::Manifest {
            at: mirror.clock.now(),
            image: image.clone(),
            reference,
            manifest: resolved.manifest.clone(),
            outcome: resolved.outcome,
        });
    }
    mirror.attest(&image, &resolved);
    let media_type = resolved.manifest.media_type.as_str();
    draft.manifest(&image, &resolved.bytes, media_type, &resolved.manifest.digest, resolved.outcome, range)
}

async fn blob(
    mirror: &Arc<Inner>,
    conduit: Option<&Conduit>,
    mut draft: Draft,
    wanted: Wanted,
    head: bool,
    range: Option<&str>,
) -> Response {
    let (image, digest) = (wanted.image.clone(), wanted.digest);
    if let Some(Answer::Blob(bytes)) = mirror.probe.blob(&image, &digest) {
        draft.of_no_account();
        return draft.manifest(&image, &bytes, "application/octet-stream", &digest, Outcome::Hit, range);
    }
    if head {
        return match mirror.blob_size(&wanted).await {
            Ok((size, outcome)) => draft.blob_head(&image, &digest, size, outcome),
            Err(error) => draft.failed(&error),
        };
    }
    let found = match mirror.blob(wanted, range).await {
        Ok(found) => found,
        Err(error) => return draft.failed(&error),
    };
    let id = draft.id();
    draft.blob(&image, &digest, found, range, |found, start, end, course| {
        mirror.sink.tell(&Event::BlobStarted {
            id,
            at: mirror.clock.now(),
            image: image.clone(),
            digest,
            size: found.size,
            offset: start,
            source: found.source,
        });
        found.read(mirror, start, end, course, conduit)
    })
}

async fn tags(
    mirror: &Arc<Inner>,
    draft: Draft,
    uri: &Uri,
    image: &ImageName,
    n: Option<u32>,
    last: Option<&Tag>,
) -> Response {
    let page = match mirror.tags(image, n, last).await {
        Ok(page) => page,
        Err(error) => return draft.failed(&error),
    };
    // The next page is asked for the way this one was: same path, same `ns`.
    let next = page.tags.last().filter(|_| page.more).map(|last| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let kept = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        query.extend_pairs(kept.filter(|(key, _)| key == "ns"));
        query.extend_pairs(n.map(|n| ("n", n.to_string())));
        format!("{}?{}", uri.path(), query.append_pair("last", last.as_str()).finish())
    });
    draft.tags(image, &page, next)
}
