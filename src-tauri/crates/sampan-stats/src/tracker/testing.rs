//! Events as tests write them down.

use std::sync::Arc;

use sampan_oci::{
    Answered, Digest, Event, ImageName, Manifest, Millis, Outcome, Reference, RequestKind, Source, TransferId,
};

pub(crate) fn image(name: &str) -> ImageName {
    format!("docker.io/library/{name}").parse().unwrap()
}

pub(crate) fn tag(name: &str) -> Reference {
    name.parse().unwrap()
}

/// The blob of this name; its size belongs to each test.
pub(crate) fn blob(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn descriptor(digest: Digest, size: u64, extra: &str) -> String {
    format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":{size}{extra}}}"#)
}

/// An image manifest: the first is the configuration.
pub(crate) fn manifest(parts: &[(&str, u64)]) -> Arc<Manifest> {
    let parts: Vec<String> = parts.iter().map(|(name, size)| descriptor(blob(name), *size, "")).collect();
    let (config, layers) = parts.split_first().unwrap();
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
    Arc::new(Manifest::parse(text.as_bytes(), None, None).unwrap())
}

/// An index of images, and an attestation if asked for.
pub(crate) fn index(images: &[&Manifest], attestation: Option<&Manifest>) -> Arc<Manifest> {
    let platform = |os: &str| format!(r#","platform":{{"os":"{os}","architecture":"{os}"}}"#);
    let mut entries: Vec<String> =
        images.iter().map(|image| descriptor(image.digest, 1, &platform("linux"))).collect();
    entries.extend(attestation.map(|image| descriptor(image.digest, 1, &platform("unknown"))));
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    Arc::new(Manifest::parse(text.as_bytes(), None, None).unwrap())
}

pub(crate) fn get(at: i64, name: &str, reference: Reference, manifest: &Arc<Manifest>) -> Event {
    Event::Manifest {
        at: Millis(at),
        image: image(name),
        reference,
        manifest: Arc::clone(manifest),
        outcome: Outcome::Hit,
    }
}

pub(crate) fn get_by_digest(at: i64, name: &str, manifest: &Arc<Manifest>) -> Event {
    get(at, name, Reference::Digest(manifest.digest), manifest)
}

pub(crate) fn start(id: u64, at: i64, name: &str, digest: Digest, size: u64, offset: u64) -> Event {
    start_from(Source::Upstream, id, at, name, digest, size, offset)
}

pub(crate) fn start_from(
    source: Source,
    id: u64,
    at: i64,
    name: &str,
    digest: Digest,
    size: u64,
    offset: u64,
) -> Event {
    Event::BlobStarted {
        id: TransferId(id),
        at: Millis(at),
        image: image(name),
        digest,
        size,
        offset,
        source,
    }
}

/// How the download of a blob goes; for which image it began does not matter.
pub(crate) fn download(at: i64, digest: Digest, connections: u32, retries: u64, repaired: u64) -> Event {
    let image = image("whoever-came-first");
    Event::Download { at: Millis(at), image, digest, connections, retries, repaired, waiting: false }
}

/// The download of a blob waits for its upstream, with `connections` that bring nothing.
pub(crate) fn waiting(at: i64, digest: Digest, connections: u32) -> Event {
    let image = image("whoever-came-first");
    Event::Download { at: Millis(at), image, digest, connections, retries: 0, repaired: 0, waiting: true }
}

pub(crate) fn progress(id: u64, at: i64, sent: u64) -> Event {
    Event::BlobProgress { id: TransferId(id), at: Millis(at), sent }
}

/// The answer to a GET of a blob that the test does not care about.
pub(crate) fn answer(id: u64, at: i64) -> Answered {
    Answered {
        id: TransferId(id),
        at: Millis(at),
        took_millis: 1,
        kind: RequestKind::Blob,
        head: false,
        image: None,
        reference: None,
        outcome: Outcome::Miss,
        status: 200,
        served_bytes: 0,
        user_agent: "docker/28.5.2 go/go1.24".into(),
    }
}

pub(crate) fn end(id: u64, at: i64, served_bytes: u64, outcome: Outcome) -> Event {
    Event::Answered(Answered { served_bytes, outcome, ..answer(id, at) })
}

/// The answer to a HEAD of a tag.
pub(crate) fn head(at: i64, name: &str, reference: Reference, outcome: Outcome) -> Event {
    let (kind, head) = (RequestKind::Manifest, true);
    let (image, reference) = (Some(image(name)), Some(reference));
    Event::Answered(Answered { kind, head, image, reference, outcome, ..answer(0, at) })
}

pub(crate) fn fetched(at: i64, name: &str, digest: Option<Digest>, bytes: u64) -> Event {
    Event::Fetched { at: Millis(at), image: image(name), digest, bytes }
}
